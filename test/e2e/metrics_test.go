package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/xdirector/xdirector/test/lab"
)

// scrape asks a director's metrics listener, in its namespace.
func scrape(d *lab.Director, path string) (code int, body string, err error) {
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			return d.Dial(ctx, network, address)
		},
	}}
	answer, err := client.Get("http://127.0.0.1:9112" + path)
	if err != nil {
		return 0, "", err
	}
	defer answer.Body.Close()
	all, err := io.ReadAll(answer.Body)
	return answer.StatusCode, string(all), err
}

// sum adds up all values of a metric that have the labels, each written as name="value".
func sum(body, metric string, labels ...string) (total float64, series int) {
next:
	for line := range strings.Lines(body) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "} ")
		name, found := strings.CutPrefix(name, "xdirector_"+metric+"{")
		if !found {
			continue
		}
		for _, l := range labels {
			if !strings.Contains(","+name+",", ","+l+",") {
				continue next
			}
		}
		if v, err := strconv.ParseFloat(value, 64); err == nil {
			total, series = total+v, series+1
		}
	}
	return total, series
}

func TestMetricsTellWhatHappened(t *testing.T) {
	t.Parallel()
	onPlanes(t, func(t *testing.T, plane string) {
		c := newCluster(t, plane, 2, 2)
		c.calm(calmInterval)
		c.start(c.service())
		var scraped *prometheus
		if plane == native {
			scraped = c.startPrometheus()
		}
		c.get(web, 10)
		type want struct {
			metric   string
			labels   []string
			series   int
			min, max float64
		}
		const most = 1e12
		once := 1.0
		if inVM() { // which may stand still for longer than an election does
			once = most
		}
		vi, webService := `instance="VI_1"`, `service="web"`
		wants := []want{
			{"vrrp_state", []string{vi}, 1, 2, 2},
			{"vrrp_transitions_total", []string{vi, `to="MASTER"`}, 1, 1, once},
			{"vrrp_transitions_total", []string{vi, `to="BACKUP"`}, 1, 1, once},
			{"vrrp_transitions_total", []string{vi, `to="FAULT"`}, 1, 0, 0},
			{"vrrp_adverts_sent_total", []string{vi}, 1, 1, most},
			{"vrrp_priority", []string{vi}, 1, 200, 200},
			{"vrrp_configured_priority", []string{vi}, 1, 200, 200},
			{"vrrp_advert_interval_seconds", []string{vi}, 1, c.interval.Seconds(), c.interval.Seconds()},
			{"vrrp_yielding", []string{vi}, 1, 0, 0},
			{"vrrp_adverts_absorbed_total", []string{vi}, 1, 0, 0},
			{"vrrp_addresses_restored_total", []string{vi}, 1, 0, 0},
			{"vrrp_lateness_seconds_bucket", []string{`le="+Inf"`}, 1, 1, most},
			{"vrrp_fast_path_info", nil, 1, 1, 1},
			{"real_server_up", []string{webService}, 2, 2, 2},
			{"real_server_weight", []string{webService}, 2, 2, 2},
			{"checks_total", []string{webService, `result="up"`}, 2, 2, most},
			{"check_duration_seconds", []string{webService}, 2, 0.000001, 10},
			{"flows_created_total", []string{webService}, 2, 10, 10},
			{"packets_total", []string{webService}, 2, 40, most},
			{"bytes_total", []string{webService}, 2, 1600, most},
			{"flows", []string{webService}, 2, 0, 10},
			{"plane_info", []string{webService, `plane="` + plane + `"`}, 1, 1, 1},
		}
		if plane != ipvs {
			wants = append(wants,
				want{"verdicts_total", []string{`interface="eth0"`, `verdict="tx"`}, 1, 40, most},
				want{"verdicts_total", []string{`interface="eth0"`, `verdict="pass_not_ours"`}, 1, 1, most},
				want{"drops_total", []string{`interface="eth0"`, `reason="no_real_server"`}, 1, 0, 0})
		}
		c.ok(lab.Wait(t.Context(), patience, func() error {
			code, body, err := scrape(c.d[0], "/metrics")
			if err != nil || code != http.StatusOK {
				return fmt.Errorf("scrape: status %d, %v", code, err)
			}
			for _, w := range wants {
				if total, series := sum(body, w.metric, w.labels...); series != w.series || total < w.min || total > w.max {
					return fmt.Errorf("%s%v: %d series with %g in all, want %d with %g to %g\n%s", w.metric, w.labels, series, total, w.series, w.min, w.max, body)
				}
			}
			for _, line := range []string{"xdirector_config_reload_success 1", "xdirector_election_restarts_total 0", "xdirector_election_denied ", "xdirector_maintenance 0", "xdirector_build_info{"} {
				if !strings.Contains(body, line) {
					return fmt.Errorf("no %s in\n%s", line, body)
				}
			}
			return nil
		}))
		// The BACKUP hears the adverts that the MASTER sends.
		c.ok(lab.Wait(t.Context(), patience, func() error {
			_, body, err := scrape(c.d[1], "/metrics")
			if got, _ := sum(body, "vrrp_adverts_received_total", vi); err != nil || got == 0 {
				return fmt.Errorf("the BACKUP has received %g adverts (%v)", got, err)
			}
			return nil
		}))
		if code, body, err := scrape(c.d[0], "/healthz"); err != nil || code != http.StatusOK {
			t.Errorf("healthz: status %d, %q, %v", code, body, err)
		}
		if plane == native {
			seeStatusPage(c)
		}
		if plane != generic {
			c.countersGoOn(c.d[0])
		}
		if scraped != nil {
			scraped.showsAll()
		}
	})
}

func TestCountersOfElectionsGoOnWhenTheAgentRestarts(t *testing.T) {
	t.Parallel()
	onPlanes(t, func(t *testing.T, _ string) {
		c := newCluster(t, "", 2, 0)
		c.start()
		read := func(d *lab.Director) (adverts, transitions, late float64, err error) {
			code, body, err := scrape(d, "/metrics")
			if err == nil && code != http.StatusOK {
				err = fmt.Errorf("status %d", code)
			}
			sent, _ := sum(body, "vrrp_adverts_sent_total")
			received, _ := sum(body, "vrrp_adverts_received_total")
			transitions, _ = sum(body, "vrrp_transitions_total")
			late, _ = sum(body, "vrrp_lateness_seconds_bucket", `le="+Inf"`)
			return sent + received, transitions, late, err
		}
		for _, d := range c.d {
			var adverts, transitions, late float64
			c.ok(lab.Wait(t.Context(), patience, func() (err error) {
				if adverts, transitions, late, err = read(d); err == nil && adverts < 10 {
					err = fmt.Errorf("%g adverts", adverts)
				}
				return err
			}))
			_, err := d.Signal(lab.Agent, syscall.SIGKILL)
			c.ok(err)
			c.restarted(d, lab.Agent, 1)
			c.ok(lab.Wait(t.Context(), patience, func() error {
				a, tr, l, err := read(d)
				if err == nil && (a < adverts || tr != transitions || l < late) {
					t.Fatalf("%s: %g adverts, %g transitions, %g timers; before the restart %g, %g, %g", d.Name, a, tr, l, adverts, transitions, late)
				}
				return err
			}))
		}
	})
}

// counters are all counters of ours, with their labels.
func counters(body string) map[string]float64 {
	all, counter := map[string]float64{}, ""
	for line := range strings.Lines(body) {
		if name, kind, ok := strings.Cut(strings.TrimPrefix(strings.TrimSpace(line), "# TYPE xdirector_"), " "); ok && strings.HasPrefix(line, "# TYPE xdirector_") {
			counter = name
			if kind == "gauge" {
				counter = "none"
			}
		}
		end := strings.LastIndexByte(line, ' ')
		if v, err := strconv.ParseFloat(strings.TrimSpace(line[end+1:]), 64); err == nil && strings.HasPrefix(line, "xdirector_"+counter) {
			all[line[:end]] = v
		}
	}
	return all
}

// countersGoOn does all to a director that could have a counter begin anew.
func (c *cluster) countersGoOn(d *lab.Director) {
	c.t.Helper()
	last := map[string]float64{}
	look := func(body string) {
		for name, v := range counters(body) {
			if v < last[name] {
				c.t.Fatalf("%s falls from %g to %g", name, last[name], v)
			}
			last[name] = max(v, last[name])
		}
	}
	// served waits until clients were served and counted, with the director's checks, since it was read last.
	served := func(what string) {
		c.t.Helper()
		var before map[string]float64
		c.ok(lab.Wait(c.t.Context(), 2*patience, func() error {
			code, body, err := scrape(d, "/metrics")
			if err != nil || code != http.StatusOK {
				return fmt.Errorf("%s: scrape: status %d, %v", what, code, err)
			}
			look(body)
			if before == nil {
				before = counters(body)
			}
			if r := c.lab.Client.Get(web, 10*requestLimit()); r.Outcome != lab.OK {
				return fmt.Errorf("%s: %s (%v)", what, r.Outcome, r.Err)
			}
			now := counters(body)
			flows, checks := 0.0, 0.0
			for name, v := range now {
				switch {
				case strings.HasPrefix(name, "xdirector_flows_created_total"):
					flows += v - before[name]
				case strings.HasPrefix(name, "xdirector_checks_total"):
					checks += v - before[name]
				}
			}
			if flows < 1 || checks < 1 {
				return fmt.Errorf("%s: %g flows, %g checks", what, flows, checks)
			}
			return nil
		}))
	}
	served("at first")
	few := c.service()
	few.RealServers = few.RealServers[:1]
	c.ok(d.Configure(c.config(0, few)))
	c.ok(d.Reload(c.t.Context()))
	served("with one real server")
	c.ok(d.Configure(c.config(0, c.service())))
	c.ok(d.Reload(c.t.Context()))
	served("with both again")
	for _, part := range []lab.Part{lab.Agent, lab.Election} {
		_, err := d.Signal(part, syscall.SIGKILL)
		c.ok(err)
		c.restarted(d, part, 1)
		served("killed " + string(part))
	}
	c.ok(d.Stop())
	c.ok(d.Start())
	c.ok(d.WaitState(c.t.Context(), "VI_1", "MASTER", patience))
	served("stopped and started")
	if len(last) < 30 {
		c.t.Errorf("only %d counters were found", len(last))
	}
}
