package metrics

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

const alerts = "../../configs/alerts.yaml"

// promtool runs Prometheus' own tool; it is in the Debian package prometheus.
func promtool(t *testing.T, arguments ...string) {
	t.Helper()
	path, err := exec.LookPath("promtool")
	if err != nil && os.Geteuid() != 0 && os.Getenv("LAB") == "" {
		t.Skip("promtool is missing, and only root can install it")
	}
	if err != nil {
		t.Fatalf("%v; install the Debian package prometheus", err)
	}
	if out, err := exec.Command(path, arguments...).CombinedOutput(); err != nil {
		t.Errorf("promtool %s: %v\n%s", strings.Join(arguments, " "), err, out)
	}
}

func TestAlertsSayWhatIsWrongAndNothingElse(t *testing.T) {
	promtool(t, "check", "rules", alerts)
	promtool(t, "test", "rules", "testdata/alerts_test.yaml")
}

func TestEveryAlertIsTestedAndExplainedAndHasItsMetrics(t *testing.T) {
	read := func(path string) string {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	rules, tests, page := read(alerts), read("testdata/alerts_test.yaml"), read("../../docs/vrrp.md")
	names := regexp.MustCompile(`- alert: (\w+)`).FindAllStringSubmatch(rules, -1)
	for _, name := range names {
		fires := regexp.MustCompile(`alertname: ` + name[1] + `\b[^\n]*\n +exp_alerts:`)
		if !fires.MatchString(tests) {
			t.Errorf("no test has %s fire", name[1])
		}
		if !regexp.MustCompile(`(?m)^\| [^|]*` + strings.TrimPrefix(name[1], "Xdirector")).MatchString(page) {
			t.Errorf("docs/vrrp.md doesn't explain %s", name[1])
		}
	}
	if len(names) < 15 {
		t.Errorf("only %d alerts were found", len(names))
	}

	descs := make(chan *prometheus.Desc, 100)
	newCollector(picture).Describe(descs)
	close(descs)
	known := ""
	for d := range descs {
		known += d.String() + "\n"
	}
	for _, metric := range regexp.MustCompile(`xdirector_\w+`).FindAllString(rules, -1) {
		if !strings.Contains(known, `fqName: "`+strings.TrimSuffix(metric, "_bucket")+`"`) {
			t.Errorf("there is no metric %s", metric)
		}
	}
}

func TestEveryMetricOfElectionsIsExplainedToOperators(t *testing.T) {
	page, err := os.ReadFile("../../docs/vrrp.md")
	if err != nil {
		t.Fatal(err)
	}
	descs := make(chan *prometheus.Desc, 100)
	newCollector(picture).Describe(descs)
	close(descs)
	explained := 0
	for d := range descs {
		name := regexp.MustCompile(`fqName: "xdirector_((?:vrrp|election)_\w+|maintenance)"`).FindStringSubmatch(d.String())
		if name == nil {
			continue
		}
		explained++
		if !strings.Contains(string(page), "`"+name[1]) {
			t.Errorf("docs/vrrp.md doesn't explain %s", name[1])
		}
	}
	if explained < 15 {
		t.Errorf("only %d metrics of elections were found", explained)
	}
}
