package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/xdirector/xdirector/pkg/doctor"
)

func TestDoctorAndRealServerSayWhatIsWrongWithTheirUse(t *testing.T) {
	t.Parallel()
	bad := filepath.Join(t.TempDir(), "bad.yaml")
	if err := os.WriteFile(bad, []byte("vrrp: {}\nlob: 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		args   []string
		code   int
		stderr string
	}{
		{[]string{"doctor", "eth0"}, 2, `doctor takes no argument, got "eth0"`},
		{[]string{"doctor", "--vip", "10.0.0.1"}, 2, "--vip, --port and --gateway go with --real-server"},
		{[]string{"doctor", "--port", "80"}, 2, "--vip, --port and --gateway go with --real-server"},
		{[]string{"doctor", "--real-server", "--vip", "10.0.0.1", "--port", "65536"}, 2, "--port 65536 is no port: 1 to 65535"},
		{[]string{"doctor", "--real-server"}, 2, "--real-server needs --vip ADDRESS"},
		{[]string{"doctor", "--real-server", "--vip", "10.0.0.1/24"}, 2, `--vip "10.0.0.1/24" is no virtual address`},
		{[]string{"doctor", "--real-server", "--vip", "10.0.0.1", "--gateway", "gw"}, 2, `--gateway "gw" is no address`},
		{[]string{"doctor", "--listen", "-1s"}, 2, "--listen -1s is negative"},
		{[]string{"doctor", "--config", "/nonexistent"}, 1, "read configuration /nonexistent"},
		{[]string{"doctor", "--config", bad}, 1, "lob"},
		{[]string{"real-server"}, 2, "install or remove"},
		{[]string{"real-server", "instal"}, 2, `not "instal"`},
		{[]string{"real-server", "install"}, 2, "install needs --vip ADDRESS"},
		{[]string{"real-server", "install", "--vip", "127.0.0.1"}, 2, `--vip "127.0.0.1" is no virtual address`},
	} {
		code, stdout, stderr := command(t, tt.args...)
		if code != tt.code || stdout != "" || !strings.Contains(stderr, tt.stderr) {
			t.Errorf("%v: code %d, stdout %q, stderr %q; want %d and %q", tt.args, code, stdout, stderr, tt.code, tt.stderr)
		}
	}
}

// inNamespace runs lines and then this command in a network of its own.
func inNamespace(t *testing.T, lines string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("LAB") == "1" {
			t.Fatal("LAB=1 wants root")
		}
		t.Skip("not root")
	}
	cmd := exec.Command("unshare", append([]string{"--net", "sh", "-e", "-c", "ip link set lo up\n" + lines + "\nexec \"$@\"", "sh", os.Args[0]}, args...)...)
	cmd.Env = append(os.Environ(), "XDIRECTOR_TEST_MAIN=1")
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	_ = cmd.Run() // the code says it
	return cmd.ProcessState.ExitCode(), out.String(), errOut.String()
}

func TestDoctorPrintsFindingsWithTheirCures(t *testing.T) {
	t.Parallel()
	args := []string{"doctor", "--real-server", "--vip", "10.0.0.1,2001:db8::1", "--listen", "0s"}
	const fit = "ip address add 10.0.0.1/32 dev lo; ip address add 2001:db8::1/128 dev lo"
	code, stdout, stderr := inNamespace(t, "ip address add 10.0.0.1/32 dev lo", args...)
	if want := "1. 2001:db8::1 is not on lo\n   Why:  this box drops what the director sends it.\n   Cure: "; code != 1 || !strings.HasPrefix(stdout, want) || !strings.Contains(stdout, "1 finding: ") || stderr != "" {
		t.Errorf("code %d, stderr %q, stdout\n%s", code, stderr, stdout)
	}
	if code, stdout, stderr := inNamespace(t, fit, args...); code != 0 || !strings.HasSuffix(stdout, "This box is fit: nothing was found.\n") {
		t.Errorf("code %d, stderr %q, stdout\n%s", code, stderr, stdout)
	}
	var r doctor.Report
	code, stdout, _ = inNamespace(t, "", append(args, "--json")...)
	if err := json.Unmarshal([]byte(stdout), &r); err != nil || code != 1 || r.Fit || len(r.Findings) != 2 {
		t.Errorf("%v: code %d, %s", err, code, stdout)
	}
}

func TestConvertWarnsOfRulesThatXDPIsPast(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "keepalived.conf")
	text := keepalivedFile + "virtual_server 192.168.5.100 80 {\n lb_algo rr\n lb_kind DR\n protocol TCP\n real_server 192.168.5.103 80 { }\n}\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	const rule = "iptables -A INPUT -s 10.66.0.0/16 -d 192.168.5.100/32 -p tcp --dport 80 -j DROP"
	code, _, stderr := inNamespace(t, rule, "convert", file)
	if code != 0 || !strings.Contains(stderr, "warning: XDP takes packets of service ") || !strings.Contains(stderr, "deny: [10.66.0.0/16]\n") {
		t.Errorf("code %d, %s", code, stderr)
	}
	if code, _, stderr := inNamespace(t, "", "convert", file); code != 0 || strings.Contains(stderr, "warning: ") {
		t.Errorf("without rules: code %d, %s", code, stderr)
	}
	code, stdout, _ := inNamespace(t, rule, "convert", "--json", file)
	var c conversion
	if err := json.Unmarshal([]byte(stdout), &c); err != nil || code != 0 || len(c.Warnings) != 1 {
		t.Errorf("%v: code %d, %s", err, code, stdout)
	}
}
