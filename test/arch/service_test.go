package arch_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

const (
	unit    = root + "/configs/xdirector.service"
	cleanup = root + "/configs/xdirector-cleanup.service"
	bpffs   = root + "/configs/run-xdirector-bpf.mount"
)

// verify returns what systemd-analyze says of a unit file; it exits with 0 for keys that it doesn't know, so that only
// an empty output is good. The binary need not be installed: every /usr/bin/xdirector is replaced.
func verify(t *testing.T, text string) string {
	t.Helper()
	dir := t.TempDir()
	var files []string
	for name, text := range map[string]string{"xdirector.service": text, "xdirector-cleanup.service": read(t, cleanup), "run-xdirector-bpf.mount": read(t, bpffs)} {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(strings.ReplaceAll(text, "/usr/bin/xdirector", "/bin/true")), 0o644); err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
	}
	output, err := exec.Command("systemd-analyze", append([]string{"verify", "--man=no"}, files...)...).CombinedOutput()
	if err != nil && len(output) == 0 {
		t.Fatalf("systemd-analyze: %v (apt-get install systemd)", err)
	}
	return string(output)
}

func readUnit(t *testing.T) string { t.Helper(); return read(t, unit) }

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestSystemdHasNothingToSayAboutTheUnit(t *testing.T) {
	text := readUnit(t)
	if output := verify(t, text); output != "" {
		t.Errorf("systemd-analyze verify prints\n%s", output)
	}
	if verify(t, strings.Replace(text, "WatchdogSec=", "WachdogSec=", 1)) == "" {
		t.Error("systemd-analyze verify overlooks a misspelt key: this test proves nothing")
	}
}

// exposure is what systemd-analyze makes of a unit's settings: 0 is nothing exposed, 10 everything.
func exposure(t *testing.T, name, text string) float64 {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	output, err := exec.Command("systemd-analyze", "security", "--offline=true", file).CombinedOutput()
	m := regexp.MustCompile(`Overall exposure level for \S+: ([0-9.]+) `).FindSubmatch(output)
	if m == nil {
		t.Fatalf("systemd-analyze: %v\n%s", err, output)
	}
	level, err := strconv.ParseFloat(string(m[1]), 64)
	if err != nil {
		t.Fatal(err)
	}
	return level
}

func TestUnitsExposeLittle(t *testing.T) {
	text := readUnit(t)
	// What the director is there for can't be taken from it: the network, packet sockets, BPF, real-time scheduling, users of
	// scripts, and the sight of other processes.
	if got := exposure(t, "xdirector.service", text); got > 2.7 {
		t.Errorf("xdirector.service is exposed by %v", got)
	}
	if got := exposure(t, "xdirector.service", text+"[Service]\nCapabilityBoundingSet=~CAP_SETUID CAP_SETGID CAP_KILL\n"); got > 2.5 {
		t.Errorf("xdirector.service without scripts is exposed by %v", got)
	}
	if got := exposure(t, "xdirector-cleanup.service", read(t, cleanup)); got > 2.5 {
		t.Errorf("xdirector-cleanup.service is exposed by %v", got)
	}
	if got := exposure(t, "xdirector.service", strings.Replace(text, "ProtectSystem=", "#", 1)); got <= 2.7 {
		t.Errorf("without ProtectSystem= it is exposed by %v: this test proves nothing", got)
	}
}

func TestUnitKeepsTheDirectorRunning(t *testing.T) {
	text := readUnit(t)
	for _, line := range []string{
		"Type=notify", "NotifyAccess=main", "Restart=always", "RestartSec=100ms", "KillMode=mixed", "OOMPolicy=continue", "OnFailure=xdirector-cleanup.service", "WatchdogSec=10", "RuntimeDirectory=xdirector", "RuntimeDirectoryPreserve=yes",
		"Wants=network-online.target run-xdirector-bpf.mount", "After=network-online.target run-xdirector-bpf.mount", "User=xdirector", "LimitMEMLOCK=infinity", "OOMScoreAdjust=-900",
		"ExecStart=/usr/bin/xdirector run --config /etc/xdirector/config.yaml", "ExecReload=/bin/kill -HUP $MAINPID",
	} {
		if !strings.Contains(text, "\n"+line+"\n") {
			t.Errorf("the unit has no line %s", line)
		}
	}
}
