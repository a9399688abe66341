package metrics

import (
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

const alerts = "../../configs/alerts.yaml"

// promtool runs Prometheus' own tool, which must have nothing to say but what it does; it is in the Debian package
// prometheus.
func promtool(t *testing.T, input io.Reader, arguments ...string) {
	t.Helper()
	if out, err := promtoolSays(t, input, arguments...); err != nil {
		t.Errorf("promtool %s: %v\n%s", strings.Join(arguments, " "), err, out)
	}
}

func promtoolSays(t *testing.T, input io.Reader, arguments ...string) (string, error) {
	t.Helper()
	path, err := exec.LookPath("promtool")
	if err != nil && os.Geteuid() != 0 && os.Getenv("LAB") == "" {
		t.Skip("promtool is missing, and only root can install it")
	}
	if err != nil {
		t.Fatalf("%v; install the Debian package prometheus", err)
	}
	command := exec.Command(path, arguments...)
	command.Stdin = input
	out, err := command.CombinedOutput()
	return string(out), err
}

func TestAlertsSayWhatIsWrongAndNothingElse(t *testing.T) {
	promtool(t, nil, "check", "rules", alerts)
	promtool(t, nil, "test", "rules", "testdata/alerts_test.yaml")
}

func TestEveryAlertIsTestedAndExplainedAndHasItsMetrics(t *testing.T) {
	read := func(path string) string {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	rules, tests, page := read(alerts), read("testdata/alerts_test.yaml"), read("../../docs/metrics.md")
	names := regexp.MustCompile(`- alert: (\w+)`).FindAllStringSubmatch(rules, -1)
	for _, name := range names {
		fires := regexp.MustCompile(`alertname: ` + name[1] + `\b[^\n]*\n +exp_alerts:`)
		if !fires.MatchString(tests) {
			t.Errorf("no test has %s fire", name[1])
		}
		if !regexp.MustCompile(`(?m)^\| [^|]*` + strings.TrimPrefix(name[1], "Xdirector")).MatchString(page) {
			t.Errorf("docs/metrics.md doesn't explain %s", name[1])
		}
	}
	if len(names) < 25 {
		t.Errorf("only %d alerts were found", len(names))
	}

	known := map[string]bool{}
	for _, m := range metrics() {
		known[prefix+m.name] = true
	}
	for _, metric := range regexp.MustCompile(`xdirector_\w+`).FindAllString(rules, -1) {
		if !known[strings.TrimSuffix(metric, "_bucket")] {
			t.Errorf("there is no metric %s", metric)
		}
	}
}

func TestEveryMetricIsExplainedToOperators(t *testing.T) {
	page, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := regexp.MustCompile("(?m)^\\| `(\\w+)(?:\\{([\\w, ]+)\\})?` \\|").FindAllStringSubmatch(string(page), -1)
	explained := map[string]string{}
	for _, row := range rows {
		explained[row[1]] = row[2]
	}
	for _, m := range metrics() {
		labels, ok := explained[m.name]
		if !ok || labels != strings.Join(m.labels, ", ") {
			t.Errorf("docs/metrics.md has no row for `%s{%s}`", m.name, strings.Join(m.labels, ", "))
		}
		delete(explained, m.name)
	}
	for name := range explained {
		t.Errorf("docs/metrics.md explains %s, which there isn't", name)
	}
}
