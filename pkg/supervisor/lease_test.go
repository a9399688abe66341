package supervisor

import (
	"net/netip"
	"os"
	"os/exec"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/xdirector/xdirector/pkg/ha"
)

// needRoot skips without root on a developer's machine, and only there.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("LAB") == "1" {
			t.Fatal("LAB=1 wants root")
		}
		t.Skip("not root")
	}
}

// watched is a guard over a process that does nothing.
func watched(t *testing.T) (*guard, chan error) {
	t.Helper()
	needRoot(t)
	l, err := newLease()
	if err != nil {
		t.Fatal(err)
	}
	g, err := startGuard(l)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.stop)
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	g.over(cmd.Process)
	return g, ended
}

// packet goes to this box itself, and is too short to be anything.
func packet() []ha.ReadyPacket {
	to := netip.MustParseAddr("127.0.0.1")
	header := []byte{0x45, 0, 0, 20, 0, 0, 0, 0, 1, 112, 0, 0, 127, 0, 0, 1, 127, 0, 0, 1}
	return []ha.ReadyPacket{{Destination: to, Packet: header}}
}

func renew(g *guard, d time.Duration) { atomic.StoreUint64(g.lease.word, uint64(monotonic()+d)) }

func TestElectionThatRenewsNoMoreIsKilledAndHandedOver(t *testing.T) {
	g, ended := watched(t)
	const lease = 100 * time.Millisecond
	renew(g, lease)
	g.arm(packet())
	ticker := time.NewTicker(lease / 10)
	defer ticker.Stop()
	for range 30 { // three times the lease
		<-ticker.C
		renew(g, lease)
	}
	last := time.Now()
	select {
	case err := <-ended:
		t.Fatalf("killed though it renewed its lease: %v", err)
	default:
	}
	if sent := <-g.expired; sent != 1 {
		t.Errorf("%d packets sent, want 1", sent)
	}
	if after := time.Since(last); after < lease/2 || after > 3*lease {
		t.Errorf("handed over %v after the last sign of life, want %v", after, lease)
	}
	err := <-ended
	if exit, ok := err.(*exec.ExitError); !ok || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Errorf("the election ended by %v, want SIGKILL", err)
	}
	if word := atomic.LoadUint64(g.lease.word); word != 0 {
		t.Errorf("the lease is %d after its end, want 0: the next election begins with it", word)
	}
}

func TestElectionThatIsMasterOfNothingIsLeftAlone(t *testing.T) {
	g, ended := watched(t)
	renew(g, time.Millisecond)
	g.arm(nil)
	atomic.StoreUint64(g.lease.word, 0)
	g.arm(packet()) // its first lease comes a moment later
	select {
	case <-g.expired:
		t.Error("handed over without a lease")
	case err := <-ended:
		t.Errorf("ended: %v", err)
	case <-time.After(3 * beginning):
	}
	renew(g, time.Millisecond)
	<-g.expired
}
