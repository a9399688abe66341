package arch_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const unit = root + "/configs/xdirector.service"

// verify returns what systemd-analyze says of a unit file; it exits with 0 for keys that it doesn't know, so that only
// an empty output is good. The binary need not be installed: every /usr/bin/xdirector is replaced.
func verify(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "xdirector.service")
	if err := os.WriteFile(file, []byte(strings.ReplaceAll(text, "/usr/bin/xdirector", "/bin/true")), 0o644); err != nil {
		t.Fatal(err)
	}
	output, err := exec.Command("systemd-analyze", "verify", "--man=no", file).CombinedOutput()
	if err != nil && len(output) == 0 {
		t.Fatalf("systemd-analyze: %v (apt-get install systemd)", err)
	}
	return string(output)
}

func readUnit(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(unit)
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
	if found := namespace.FindAllString(readUnit(t), -1); found != nil {
		t.Errorf("the unit has %v", found)
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
		"Type=notify", "NotifyAccess=main", "Restart=always", "RestartSec=100ms", "StartLimitIntervalSec=0", "WatchdogSec=10", "RuntimeDirectory=xdirector", "RuntimeDirectoryPreserve=yes",
		"ExecStart=/usr/bin/xdirector run --config /etc/xdirector/config.yaml", "ExecReload=/bin/kill -HUP $MAINPID",
	} {
		if !strings.Contains(text, "\n"+line+"\n") {
			t.Errorf("the unit has no line %s", line)
		}
	}
}
