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
func packet() []ha.ReadyPacket { return packets(50 * time.Millisecond) }

// packets are of instances with these intervals.
func packets(intervals ...time.Duration) (list []ha.ReadyPacket) {
	to := netip.MustParseAddr("127.0.0.1")
	header := []byte{0x45, 0, 0, 20, 0, 0, 0, 0, 1, 112, 0, 0, 127, 0, 0, 1, 127, 0, 0, 1}
	for _, d := range intervals {
		list = append(list, ha.ReadyPacket{Destination: to, Packet: header, Interval: d})
	}
	return list
}

func renew(g *guard, d time.Duration) { atomic.StoreUint64(g.lease.word, uint64(monotonic()+d)) }

func TestElectionThatRenewsNoMoreIsKilledAndHandedOver(t *testing.T) {
	g, ended := watched(t)
	const lease = 300 * time.Millisecond
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
	if did := <-g.expired; did != (silence{interval: 50 * time.Millisecond, sent: 1, killed: true}) {
		t.Errorf("%+v, want 1 packet sent", did)
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

func TestSlowerInstancesAreHandedOverWhenTheirOwnIntervalsAreGone(t *testing.T) {
	g, ended := watched(t)
	const fast, slow = 50 * time.Millisecond, 300 * time.Millisecond
	began := time.Now()
	renew(g, 2*fast)
	g.arm(packets(slow, fast, slow))
	if did := <-g.expired; did != (silence{interval: fast, sent: 1}) {
		t.Errorf("%+v, want that the fast one alone is handed over", did)
	}
	if upTo := atomic.LoadUint64(g.lease.handed); upTo != uint64(fast) {
		t.Errorf("the election will take what has %v or less for handed over, want %v", time.Duration(upTo), fast)
	}

	// It comes back, and goes on with the others.
	for time.Since(began) < 3*slow {
		renew(g, 2*slow)
		select {
		case did := <-g.expired:
			t.Fatalf("%+v of an election that renews its lease", did)
		case err := <-ended:
			t.Fatalf("ended: %v", err)
		case <-time.After(slow / 10):
		}
	}
	renew(g, 2*slow)
	g.arm(packets(slow, slow))
	last := time.Now()
	if did := <-g.expired; did != (silence{interval: slow, sent: 2, killed: true}) {
		t.Errorf("%+v, want that the rest is handed over", did)
	}
	if after := time.Since(last); after < 3*slow/2 || after > 6*slow {
		t.Errorf("handed over %v after the last sign of life, want %v", after, 2*slow)
	}
	<-ended
	if upTo := atomic.LoadUint64(g.lease.handed); upTo != uint64(slow) {
		t.Errorf("the next election will take what has %v or less for handed over, want %v", time.Duration(upTo), slow)
	}
}

func TestASilentElectionIsHandedOverOneIntervalAfterAnother(t *testing.T) {
	g, ended := watched(t)
	const fast, slow = 50 * time.Millisecond, 200 * time.Millisecond
	began := time.Now()
	renew(g, 2*fast)
	g.arm(packets(fast, slow))
	for _, want := range []silence{{interval: fast, sent: 1}, {interval: slow, sent: 1, killed: true}} {
		did := <-g.expired
		if after, due := time.Since(began), 2*want.interval; did != want || after < due-fast/2 || after > 3*due {
			t.Errorf("%+v after %v, want %+v after %v", did, after, want, due)
		}
	}
	<-ended
}

func TestASilenceThatTheGuardHasSleptThroughIsLookedAtAgain(t *testing.T) {
	var word uint64
	g := &guard{lease: &lease{word: &word}}
	const until = time.Hour
	word = uint64(until)
	if wait := g.wait(until + punctual/2); wait != 0 {
		t.Errorf("in time, it waits for %v more", wait)
	}
	late := until + 10*punctual
	if wait := g.wait(late); wait != grace {
		t.Errorf("late, it waits for %v, want %v", wait, grace)
	}
	if wait := g.wait(late + grace); wait != 0 {
		t.Errorf("after the grace, it waits for %v more", wait)
	}
	word = uint64(2 * until)
	if wait := g.wait(late); wait != 2*until-late {
		t.Errorf("it waits for %v, want to the end of the new lease", wait)
	}
}

func TestOneThatIsStartedAfterADeathIsNotKilledForTheLeaseOfTheDeadOne(t *testing.T) {
	g, ended := watched(t)
	renew(g, 100*time.Millisecond)
	g.arm(packet())
	g.over(g.process) // as if it were another one
	if did := <-g.expired; did != (silence{interval: 50 * time.Millisecond, sent: 1, gone: true}) {
		t.Errorf("%+v, want that it is handed over", did)
	}
	if word := atomic.LoadUint64(g.lease.word); word != 0 {
		t.Errorf("the new one begins with the lease %d", word)
	}
	renew(g, 50*time.Millisecond)
	g.arm(packet())
	if did := <-g.expired; !did.killed {
		t.Errorf("%+v, want that it is killed for its own lease", did)
	}
	<-ended
}

func TestABackupThatStandsStillIsKilled(t *testing.T) {
	g, ended := watched(t)
	g.arm(nil)
	<-time.After(beginning) // the guard has seen that there is no lease yet; nobody tells it when there is one
	renew(g, 50*time.Millisecond)
	select {
	case did := <-g.expired:
		if did != (silence{killed: true}) {
			t.Errorf("%+v, want that it is killed", did)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("its lease was not seen")
	}
	<-ended
}

func TestElectionThatBeginsIsLeftAlone(t *testing.T) {
	g, ended := watched(t)
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
	<-ended

	// What is left of the lease of one is not held against the next.
	renew(g, time.Minute)
	g.over(nil)
	if word := atomic.LoadUint64(g.lease.word); word != 0 {
		t.Errorf("the lease of the next one begins with %d", word)
	}
}
