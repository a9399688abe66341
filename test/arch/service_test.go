package arch_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const (
	unit    = root + "/configs/xdirector.service"
	cleanup = root + "/configs/xdirector-cleanup.service"
)

// verify returns what systemd-analyze says of a unit file; it exits with 0 for keys that it doesn't know, so that only
// an empty output is good. The binary need not be installed: every /usr/bin/xdirector is replaced.
func verify(t *testing.T, text string) string {
	t.Helper()
	dir := t.TempDir()
	var files []string
	for name, text := range map[string]string{"xdirector.service": text, "xdirector-cleanup.service": read(t, cleanup)} {
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

func TestUnitMakesNoMountNamespace(t *testing.T) {
	// The keys of systemd.exec(5) that need one, most of them unseen: the pins would die with the process.
	namespace := regexp.MustCompile(`(?m)^(Protect(System|Home|Kernel\w+|ControlGroups|Hostname|Clock|Proc)|Private\w+|ProcSubset|(ReadWrite|ReadOnly|Inaccessible|Exec|NoExec)Paths|` +
		`Bind(ReadOnly)?Paths|TemporaryFileSystem|Root\w+|Mount\w+|ExtensionImages|ExtensionDirectories|LogNamespace|DynamicUser|(Load|Set|Import)Credential\w*|IPCNamespacePath|NetworkNamespacePath|(State|Cache|Logs)Directory)=`)
	for _, file := range []string{unit, cleanup} {
		if found := namespace.FindAllString(read(t, file), -1); found != nil {
			t.Errorf("%s has %v", file, found)
		}
	}
	for _, key := range []string{"PrivateTmp=yes", "ProtectSystem=strict", "ProtectKernelTunables=yes", "MountFlags=slave"} {
		if !namespace.MatchString("[Service]\n" + key + "\n") {
			t.Errorf("%s is overlooked: this test proves nothing", key)
		}
	}
}

func TestUnitKeepsTheDirectorRunning(t *testing.T) {
	text := readUnit(t)
	for _, line := range []string{
		"Type=notify", "NotifyAccess=main", "Restart=always", "RestartSec=100ms", "KillMode=mixed", "OOMPolicy=continue", "OnFailure=xdirector-cleanup.service", "WatchdogSec=10", "RuntimeDirectory=xdirector", "RuntimeDirectoryPreserve=yes",
		"ExecStart=/usr/bin/xdirector run --config /etc/xdirector/config.yaml", "ExecReload=/bin/kill -HUP $MAINPID",
	} {
		if !strings.Contains(text, "\n"+line+"\n") {
			t.Errorf("the unit has no line %s", line)
		}
	}
}
