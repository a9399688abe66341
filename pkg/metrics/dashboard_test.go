package metrics

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// dashboard is what of configs/grafana.json is looked at.
type dashboard struct {
	UID           string `json:"uid"`
	Title         string `json:"title"`
	SchemaVersion int    `json:"schemaVersion"`
	Templating    struct {
		List []struct{ Name, Type, Definition string } `json:"list"`
	} `json:"templating"`
	Annotations struct {
		List []struct{ Name, Expr string } `json:"list"`
	} `json:"annotations"`
	Panels []struct {
		ID         int                                          `json:"id"`
		Type       string                                       `json:"type"`
		Title      string                                       `json:"title"`
		GridPos    struct{ X, Y, W, H int }                     `json:"gridPos"`
		Datasource struct{ Type, UID string }                   `json:"datasource"`
		Targets    []struct{ RefID, Expr, LegendFormat string } `json:"targets"`
	} `json:"panels"`
}

func readDashboard(t *testing.T) dashboard {
	t.Helper()
	text, err := os.ReadFile("../../configs/grafana.json")
	if err != nil {
		t.Fatal(err)
	}
	var d dashboard
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	return d
}

func TestDashboardIsWhole(t *testing.T) {
	d := readDashboard(t)
	if d.UID == "" || d.Title == "" || d.SchemaVersion < 36 || len(d.Panels) < 30 {
		t.Errorf("uid %q, title %q, schema %d, %d panels", d.UID, d.Title, d.SchemaVersion, len(d.Panels))
	}
	ids, taken := map[int]bool{}, map[[2]int]string{}
	for _, p := range d.Panels {
		if p.ID <= 0 || ids[p.ID] {
			t.Errorf("%s: id %d is of another panel too, or none", p.Title, p.ID)
		}
		ids[p.ID] = true
		if !slices.Contains([]string{"row", "timeseries", "stat", "gauge", "table", "state-timeline"}, p.Type) || p.Title == "" {
			t.Errorf("panel %d: type %q, title %q", p.ID, p.Type, p.Title)
		}
		if g := p.GridPos; g.X < 0 || g.W < 1 || g.X+g.W > 24 || g.H < 1 {
			t.Errorf("%s: at %+v", p.Title, g)
		}
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other := taken[[2]int{x, y}]; other != "" {
					t.Fatalf("%s lies on %s", p.Title, other)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
		if p.Type == "row" {
			continue
		}
		if p.Datasource.Type != "prometheus" || p.Datasource.UID != "${datasource}" || len(p.Targets) == 0 {
			t.Errorf("%s: data source %+v, %d targets", p.Title, p.Datasource, len(p.Targets))
		}
		refs := map[string]bool{}
		for _, target := range p.Targets {
			if target.Expr == "" || target.RefID == "" || refs[target.RefID] {
				t.Errorf("%s: target %+v", p.Title, target)
			}
			refs[target.RefID] = true
		}
	}
}

// plainly is an expression with values in the place of the dashboard's variables.
func plainly(expr string) string {
	return strings.NewReplacer("$__rate_interval", "1m", "$__range", "1h", "$job", "xdirector", "$instance", ".*", "$election", ".*", "$service", ".*").Replace(expr)
}

func TestDashboardAsksForMetricsThatThereAre(t *testing.T) {
	d := readDashboard(t)
	known, used, variables := map[string]metric{}, map[string]bool{}, map[string]bool{}
	for _, m := range metrics() {
		known[prefix+m.name] = m
	}
	for _, v := range d.Templating.List {
		variables[v.Name] = true
	}
	rules := "groups:\n  - name: dashboard\n    rules:\n"
	add := func(where, expr string) {
		for _, name := range regexp.MustCompile(`xdirector_\w+`).FindAllString(expr, -1) {
			name = strings.TrimSuffix(name, "_bucket")
			if _, ok := known[name]; !ok {
				t.Errorf("%s: there is no metric %s", where, name)
			}
			used[name] = true
		}
		for _, name := range regexp.MustCompile(`\$(\w+)`).FindAllStringSubmatch(expr, -1) {
			if !variables[name[1]] && !strings.HasPrefix(name[1], "__") {
				t.Errorf("%s: there is no variable %s", where, name[1])
			}
		}
		rules += fmt.Sprintf("      - {record: panel, labels: {n: \"%d\"}, expr: %q}\n", len(rules), plainly(expr))
	}
	for _, p := range d.Panels {
		for _, target := range p.Targets {
			add(p.Title, target.Expr)
			// A legend names labels that the expression has.
			for _, label := range regexp.MustCompile(`\{\{(\w+)\}\}`).FindAllStringSubmatch(target.LegendFormat, -1) {
				if by := regexp.MustCompile(`by \(([\w, ]+)\)`).FindStringSubmatch(target.Expr); by != nil && !slices.Contains(strings.Split(by[1], ", "), label[1]) {
					t.Errorf("%s: the legend has %s, and the expression leaves it out", p.Title, label[1])
				}
			}
		}
	}
	for _, a := range d.Annotations.List {
		add(a.Name, a.Expr)
	}
	for _, v := range d.Templating.List {
		for _, name := range regexp.MustCompile(`xdirector_\w+`).FindAllString(v.Definition, -1) {
			if _, ok := known[name]; !ok {
				t.Errorf("variable %s: there is no metric %s", v.Name, name)
			}
		}
	}
	file := filepath.Join(t.TempDir(), "rules.yaml")
	if err := os.WriteFile(file, []byte(rules), 0o600); err != nil {
		t.Fatal(err)
	}
	promtool(t, nil, "check", "rules", file)
	if len(used) < 35 {
		t.Errorf("only %d metrics are shown", len(used))
	}
}
