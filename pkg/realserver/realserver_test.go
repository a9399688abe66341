package realserver

import (
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func vips() []netip.Addr {
	return []netip.Addr{netip.MustParseAddr("192.0.2.100"), netip.MustParseAddr("2001:db8::100")}
}

func TestSystemdHasNothingToSayAboutTheUnit(t *testing.T) {
	t.Parallel()
	text := Text(vips(), Before{"net.ipv4.conf.all.arp_ignore": "0"}, "/bin/true", "/bin/true")
	verify := func(text string) string {
		file := filepath.Join(t.TempDir(), Unit)
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command("systemd-analyze", "verify", "--man=no", file).CombinedOutput()
		if err != nil && len(out) == 0 {
			t.Fatalf("systemd-analyze: %v (apt-get install systemd)", err)
		}
		return string(out)
	}
	if said := verify(text); said != "" {
		t.Errorf("systemd-analyze verify says\n%s", said)
	}
	if verify(strings.Replace(text, "RemainAfterExit", "RemainAfterExt", 1)) == "" {
		t.Error("systemd-analyze verify overlooks a misspelt key: this test proves nothing")
	}
}

func TestUnitTellsWhatItHoldsAndWhatWasBefore(t *testing.T) {
	before := Before{"net.ipv4.conf.all.arp_ignore": "0", "net.ipv4.conf.all.arp_announce": "1"}
	text := Text(vips(), before, "/sbin/ip", "/sbin/sysctl")
	if got := beforeOf(text); len(got) != 2 || got["net.ipv4.conf.all.arp_announce"] != "1" || got["net.ipv4.conf.all.arp_ignore"] != "0" {
		t.Errorf("before: %v", got)
	}
	if got := addressesOf(text); !slices.Equal(got, vips()) {
		t.Errorf("addresses: %v", got)
	}
}

func TestUnitMayDoLittleElse(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), Unit)
	if err := os.WriteFile(file, []byte(Text(vips(), Current(), "/bin/true", "/bin/true")), 0o644); err != nil {
		t.Fatal(err)
	}
	// Tenths of the exposure that systemd computes.
	if out, err := exec.Command("systemd-analyze", "security", "--offline=true", "--threshold=25", file).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// This runs what systemd would, in its order, in a network namespace.
func TestLinesOfTheUnitHoldTheAddressesAndGiveBackWhatWas(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("LAB") == "1" {
			t.Fatal("LAB=1 wants root")
		}
		t.Skip("not root")
	}
	t.Parallel()
	var tools []string
	for _, name := range []string{"ip", "sysctl"} {
		path, err := find(name)
		if err != nil {
			t.Fatal(err)
		}
		tools = append(tools, path)
	}
	before := Before{"net.ipv4.conf.all.arp_ignore": "0", "net.ipv4.conf.all.arp_announce": "1"}
	text := Text(vips(), before, tools[0], tools[1])
	lines := func(when string) string {
		var out []string
		for line := range strings.Lines(text) {
			if command, is := strings.CutPrefix(line, when+"="); is {
				out = append(out, strings.TrimPrefix(command, "-"))
			}
		}
		return strings.Join(out, "")
	}
	const state = "ip -brief address show lo; sysctl -n net.ipv4.conf.all.arp_ignore net.ipv4.conf.all.arp_announce"
	script := "set -e; sysctl -qw net.ipv4.conf.all.arp_announce=1\n" + lines("ExecStart") + state + "\n" + lines("ExecReload") + state + "\necho stopped\n" + lines("ExecStop") + state
	out, err := exec.Command("unshare", "--net", "sh", "-c", script).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	running, stopped, _ := strings.Cut(string(out), "stopped\n")
	for _, want := range []string{"192.0.2.100/32", "2001:db8::100/128", "\n1\n2\n"} {
		if strings.Count(running, want) != 2 { // after start and after reload
			t.Errorf("no %q while it runs:\n%s", want, running)
		}
	}
	if strings.Contains(stopped, "192.0.2.100/") || strings.Contains(stopped, "2001:db8::100/") || !strings.HasSuffix(stopped, "\n0\n1\n") {
		t.Errorf("after the stop:\n%s", stopped)
	}
}

func TestWithoutSystemdInstallSaysWhatToDo(t *testing.T) {
	if _, err := os.Stat("/run/systemd/system"); err == nil {
		return // the virtual machine's test installs
	}
	_, err := Install(t.TempDir(), vips())
	if err == nil || !strings.Contains(err.Error(), "doctor --real-server") {
		t.Errorf("error: %v", err)
	}
	if removed, err := Remove(t.TempDir()); removed || err != nil {
		t.Errorf("nothing to remove: %v, %v", removed, err)
	}
}
