package lab

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func newLab(t *testing.T, o Options) *Lab {
	t.Helper()
	if os.Geteuid() != 0 && os.Getenv("LAB") == "" {
		t.Skip("not root")
	}
	l, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

func TestRealServersAnswerWithTheirNames(t *testing.T) {
	l := newLab(t, Options{RealServers: 2})
	for _, r := range l.RealServers {
		if _, err := r.StartNginx(80); err != nil {
			t.Fatal(err)
		}
		got := l.Client.Get(netip.AddrPortFrom(r.Address, 80), time.Second)
		if got.Outcome != OK || got.Server != r.Name {
			t.Errorf("request to %s: got %s from %q, want ok (%v)", r.Name, got.Outcome, got.Server, got.Err)
		}
		udp := netip.AddrPortFrom(r.Address, 53)
		if err := r.StartUDPEcho(udp); err != nil {
			t.Fatal(err)
		}
		if got := l.Client.Exchange(udp, time.Second); got.Outcome != OK || got.Server != r.Name {
			t.Errorf("datagram to %s: got %s from %q, want ok (%v)", r.Name, got.Outcome, got.Server, got.Err)
		}
	}
}

func TestFailedRequestsAreToldApart(t *testing.T) {
	l := newLab(t, Options{RealServers: 1})
	target := netip.AddrPortFrom(l.RealServers[0].Address, 80)
	if r := l.Client.Get(target, 3*time.Second); r.Outcome != Refused { // a first packet may be lost while a new link settles
		t.Errorf("request without a server: got %s (%v), want refused", r.Outcome, r.Err)
	}
	if err := l.RealServers[0].SetLink(false); err != nil {
		t.Fatal(err)
	}
	if r := l.Client.Get(target, 50*time.Millisecond); r.Outcome != Timeout {
		t.Errorf("request without a cable: got %s (%v), want timeout", r.Outcome, r.Err)
	}
}

func TestLoadKeepsItsRate(t *testing.T) {
	l := newLab(t, Options{RealServers: 1})
	if _, err := l.RealServers[0].StartNginx(80); err != nil {
		t.Fatal(err)
	}
	load, err := l.Client.StartLoad(netip.AddrPortFrom(l.RealServers[0].Address, 80), 400, 250*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	<-time.After(time.Second)
	rs := load.Stop()
	if len(rs) < 350 || len(rs) > 450 || len(rs.Failed()) > 0 {
		t.Errorf("a second at 400 requests/s: got %d, %v", len(rs), rs.Outcomes())
	}
}

func TestKeepalivedPairFailsOverOnTheWire(t *testing.T) {
	l := newLab(t, Options{Directors: 2})
	vip := netip.MustParseAddr("10.77.0.100")
	wire, err := l.CaptureVRRP()
	if err != nil {
		t.Fatal(err)
	}
	peer := func(n *Node, priority uint8) *Process {
		p, err := n.StartKeepalived(Keepalived{
			Version: 3, VRID: 51, Priority: priority, Interval: 100 * time.Millisecond, Addresses: []string{"10.77.0.100/32"},
		})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	start := time.Now()
	first := peer(l.Directors[0], 200)
	peer(l.Directors[1], 100)
	if _, err := wire.WaitAnnouncement(t.Context(), l.Directors[0], vip, start, 5*time.Second); err != nil {
		t.Fatalf("%v\n%s", err, first.Log())
	}
	if err := first.WaitLog(t.Context(), 2*time.Second, "Entering MASTER STATE", 1); err != nil {
		t.Error(err)
	}
	stop := time.Now()
	if err := first.Terminate(5 * time.Second); err != nil {
		t.Error(err)
	}
	garp, err := wire.WaitAnnouncement(t.Context(), l.Directors[1], vip, stop, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if took := garp.Time.Sub(stop); took > 500*time.Millisecond {
		t.Errorf("clean stop at 100 ms adverts: takeover took %v", took)
	}
	if zero := wire.AdvertsOf(l.Directors[0], stop); len(zero) == 0 || zero[len(zero)-1].Priority != 0 {
		t.Errorf("adverts of the stopped MASTER: %v, want priority 0 last", zero)
	}
}

func TestIsolatedNodesHearOnlyTheOthers(t *testing.T) {
	l := newLab(t, Options{Directors: 2})
	for _, d := range l.Directors {
		if _, err := d.StartNginx(80); err != nil {
			t.Fatal(err)
		}
	}
	first, second := l.Directors[0], l.Directors[1]
	try := func(from, to *Node) Outcome {
		return from.Get(netip.AddrPortFrom(to.Address, 80), 200*time.Millisecond).Outcome
	}
	for _, d := range l.Directors {
		if err := d.Isolate(true); err != nil {
			t.Fatal(err)
		}
	}
	if got := try(first, second); got != Timeout {
		t.Errorf("between isolated nodes: %s, want timeout", got)
	}
	if got := try(l.Client, second); got != OK {
		t.Errorf("from the client to an isolated node: %s, want ok", got)
	}
	if err := second.Isolate(false); err != nil {
		t.Fatal(err)
	}
	err := Wait(context.Background(), 5*time.Second, func() error {
		if got := try(first, second); got != OK {
			return os.ErrDeadlineExceeded
		}
		return nil
	})
	if err != nil {
		t.Errorf("joined again: %v", err)
	}
}

func TestCloseLeavesNothingBehind(t *testing.T) {
	l := newLab(t, Options{Directors: 1, RealServers: 1})
	p, err := l.RealServers[0].StartNginx(80)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.mountBPF(filepath.Join(l.Dir, "bpf")); err != nil {
		t.Fatal(err)
	}
	l.Close()
	l.Close()
	if err := unix.Kill(p.PID(), 0); err != syscall.ESRCH {
		t.Errorf("process %d after Close: %v, want no such process", p.PID(), err)
	}
	if left := leftovers(t, l.name); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestNextLabRemovesWhatADeadProcessLeft(t *testing.T) {
	if os.Geteuid() != 0 && os.Getenv("LAB") == "" {
		t.Skip("not root")
	}
	dead := strconv.Itoa(deadPID(t))
	gone, alive := namePrefix+dead+"-1", namePrefix+strconv.Itoa(os.Getpid())+"-777"
	for _, name := range []string{gone, alive} {
		dir := filepath.Join(os.TempDir(), name)
		if err := os.MkdirAll(filepath.Join(dir, "bpf"), 0o755); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.RemoveAll(dir) })
	}
	if err := unix.Mount("bpf", filepath.Join(os.TempDir(), gone, "bpf"), "bpf", 0, ""); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(netnsDir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/proc/"+dead+"/ns/net", filepath.Join(netnsDir, gone+"-d1")); err != nil {
		t.Fatal(err)
	}
	newLab(t, Options{})
	if left := leftovers(t, gone); len(left) > 0 {
		t.Errorf("left of the dead process: %v", left)
	}
	if left := leftovers(t, alive); len(left) != 1 {
		t.Errorf("left of the living process: %v, want its folder", left)
	}
}

// deadPID returns the id of a process that has just ended.
func deadPID(t *testing.T) int {
	t.Helper()
	p, err := os.StartProcess("/bin/true", []string{"true"}, &os.ProcAttr{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Wait(); err != nil {
		t.Fatal(err)
	}
	return p.Pid
}

// leftovers lists the folders, mounts and names that belong to a lab.
func leftovers(t *testing.T, name string) []string {
	t.Helper()
	var left []string
	for _, pattern := range []string{filepath.Join(os.TempDir(), name), filepath.Join(netnsDir, name+"*"), filepath.Join(frrRun, name+"*")} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		left = append(left, found...)
	}
	mounts, err := mountPoints()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range mounts {
		if strings.Contains(m, "/"+name+"/") {
			left = append(left, m)
		}
	}
	return left
}
