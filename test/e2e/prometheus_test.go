package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/xdirector/xdirector/test/lab"
)

// prometheus is a real one that scrapes all directors of a cluster.
type prometheus struct {
	c       *cluster
	address string
}

// startPrometheus begins to scrape, twice a second, as in configs/alerts.yaml.
func (c *cluster) startPrometheus() *prometheus {
	c.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	c.ok(err)
	p := &prometheus{c, l.Addr().String()}
	l.Close()
	dir := c.t.TempDir()
	var targets []string
	for _, d := range c.d {
		targets = append(targets, `"`+strings.Trim(strings.TrimPrefix(c.forward(d), "http://"), "/")+`"`)
	}
	alerts, err := filepath.Abs("../../configs/alerts.yaml")
	c.ok(err)
	c.ok(os.WriteFile(dir+"/prometheus.yml", fmt.Appendf(nil, `global: {scrape_interval: 500ms, evaluation_interval: 1s}
rule_files: [%s]
scrape_configs: [{job_name: xdirector, static_configs: [{targets: [%s]}]}]
`, alerts, strings.Join(targets, ", ")), 0o600))
	server := exec.Command("prometheus", "--config.file="+dir+"/prometheus.yml", "--storage.tsdb.path="+dir+"/data", "--web.listen-address="+p.address, "--log.level=error")
	server.Stderr = os.Stderr
	c.ok(server.Start())
	c.t.Cleanup(func() { server.Process.Kill(); server.Wait() })
	return p
}

// query returns how many samples an expression has now, and the first one's value.
func (p *prometheus) query(expr string) (samples int, value string, err error) {
	answer, err := http.Get("http://" + p.address + "/api/v1/query?query=" + url.QueryEscape(expr))
	if err != nil {
		return 0, "", err
	}
	defer answer.Body.Close()
	var body struct {
		Error string
		Data  struct {
			Result []struct{ Value [2]any }
		}
	}
	if err := json.NewDecoder(answer.Body).Decode(&body); err != nil {
		return 0, "", err
	}
	if body.Error != "" {
		return 0, "", errors.New(body.Error)
	}
	for _, r := range body.Data.Result {
		value = fmt.Sprint(r.Value[1])
	}
	return len(body.Data.Result), value, nil
}

// showsAll waits until each panel of the dashboard has something to show, but those about what does not happen here.
func (p *prometheus) showsAll() {
	p.c.t.Helper()
	text, err := os.ReadFile("../../configs/grafana.json")
	p.c.ok(err)
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	p.c.ok(json.Unmarshal(text, &dashboard))
	quiet := []string{"Adverts that were refused or filtered", "Boxes that differ", "Refused by limits", "Lost on the way out", "Notifications"}
	values := strings.NewReplacer("$__rate_interval", "5s", "$__range", "1m", "$job", "xdirector", "$instance", ".*", "$election", ".*", "$service", ".*")
	p.c.ok(lab.Wait(p.c.t.Context(), patience, func() error {
		var empty []string
		for _, panel := range dashboard.Panels {
			for _, target := range panel.Targets {
				n, value, err := p.query(values.Replace(target.Expr))
				if err != nil {
					return fmt.Errorf("%s: %w", panel.Title, err)
				}
				if n == 0 && !slices.Contains(quiet, panel.Title) || value == "NaN" {
					empty = append(empty, panel.Title+": "+target.Expr)
				}
			}
		}
		if len(empty) > 0 {
			return fmt.Errorf("nothing is shown by %s", strings.Join(empty, "\n"))
		}
		return nil
	}))
	// What is wrong with a healthy cluster is wrong with the rules.
	_, firing, err := p.query(`count(ALERTS{alertstate="firing", severity="critical"})`)
	if p.c.ok(err); firing != "" {
		p.c.t.Errorf("%s critical alerts are firing", firing)
	}
}
