package ha

import (
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xdirector/xdirector/pkg/vrrp"
)

func TestTheSupervisorKnowsUntilWhenToWaitAndWhatToSend(t *testing.T) {
	a, b := twoBoxes(t)
	var word uint64
	c := fast(150, vip1)
	r := a.startWith(config(t, c), Options{Lease: &word})
	r.state(vrrp.Master)
	eventually(t, "a lease", func() bool {
		until := vrrp.Time(atomic.LoadUint64(&word))
		now := clock(unix.CLOCK_MONOTONIC)
		return until > now && until <= now+2*c.VRRP.Interval
	})
	var packets []ReadyPacket
	eventually(t, "ready packets", func() bool {
		select {
		case packets = <-r.Ready():
		default:
		}
		return len(packets) == 1
	})
	low := b.start(config(t, fast(100, vip1)))
	low.state(vrrp.Backup)

	// The process dies, and the supervisor speaks for it.
	r.crash()
	if until := vrrp.Time(atomic.LoadUint64(&word)); until == 0 {
		t.Error("a crash took the lease back")
	}
	a.do(func() {
		s, err := OpenSender()
		if err != nil {
			t.Error(err)
			return
		}
		defer s.Close()
		if err := s.Send(packets); err != nil {
			t.Error(err)
		}
	})
	if rep := low.state(vrrp.Master); rep.Reason != "10.9.0.1 gives up being MASTER (priority 0)" {
		t.Errorf("reason %q", rep.Reason)
	}
}

func TestWhoWasHandedOverKeepsItsAddressesUntilTheSuccessorIsHeard(t *testing.T) {
	a, b := twoBoxes(t)
	c := fast(150, vip1)
	c.VRRP.Preempt = false
	cfg := config(t, c)
	r := a.start(cfg)
	r.state(vrrp.Master)
	eventually(t, "address added", func() bool { return a.has(vip1.String()) })
	r.crash()
	b.start(config(t, fast(100, vip1))).state(vrrp.Master)
	upTo := uint64(c.VRRP.Interval)
	r = a.startWith(cfg, Options{HandedOver: &upTo})
	rep := r.state(vrrp.Backup)
	if rep.Transitions[vrrp.Master] != 0 {
		t.Error("it took part as MASTER")
	}
	eventually(t, "address gone", func() bool { return !a.has(vip1.String()) })
	r.logged(1, "virtual address removed", "not MASTER")
	eventually(t, "the word taken", func() bool { return atomic.LoadUint64(&upTo) == 0 })
}

func TestWhoWasHandedOverWhileItStoodStillStepsBackAlone(t *testing.T) {
	a, _ := twoBoxes(t)
	var lease, upTo uint64
	quick, slow := fast(150, vip1), fast(150, vip2)
	slow.Name, slow.VRRP.VRID, slow.VRRP.Interval = "VI_2", quick.VRRP.VRID+1, 2*quick.VRRP.Interval
	r := a.startWith(config(t, quick, slow), Options{Lease: &lease, HandedOver: &upTo})
	masters := func(n int) func(Report) bool {
		return func(rep Report) bool {
			return len(rep.Instances) == 2 && rep.Instances[0].Transitions[vrrp.Master] == uint64(n) && rep.Instances[1].State == vrrp.Master
		}
	}
	r.report("both MASTER", masters(1))
	atomic.StoreUint64(&upTo, uint64(quick.VRRP.Interval))
	rep := r.report("MASTER again, since there is nobody else", masters(2))
	if n := rep.Instances[0].Transitions[vrrp.Backup]; n != 2 {
		t.Errorf("the quick one was BACKUP %d times, want at the start and when it was handed over", n)
	}
	if n := rep.Instances[1].Transitions[vrrp.Master]; n != 1 {
		t.Errorf("the slow one became MASTER %d times", n)
	}
	if atomic.LoadUint64(&upTo) != 0 {
		t.Error("the word was not taken")
	}
	if !a.has(vip1.String()) {
		t.Error("the addresses went though nobody took over")
	}
}

func TestABackupHasALease(t *testing.T) {
	a, b := twoBoxes(t)
	var word uint64
	high := b.start(config(t, fast(150, vip1)))
	high.state(vrrp.Master)
	r := a.startWith(config(t, fast(100, vip1)), Options{Lease: &word})
	r.state(vrrp.Backup)
	eventually(t, "a lease", func() bool { return vrrp.Time(atomic.LoadUint64(&word)) > clock(unix.CLOCK_MONOTONIC)+idleLease })
	high.Stop()
	r.state(vrrp.Master)
	eventually(t, "a lease", func() bool { return atomic.LoadUint64(&word) != 0 })
	high.stopped()
	r.Stop()
	r.stopped()
	if atomic.LoadUint64(&word) != 0 {
		t.Error("a lease after the end")
	}
}

// A MASTER whose thread stood still for longer than the others wait: SIGSTOP and SIGCONT, as the loop sees it.
func TestAMasterThatOversleptStepsBackBeforeItSendsAnything(t *testing.T) {
	f := newFastLoop(t, func(c *Instance) { c.VRRP.Priority, c.Slot = 255, 0 })
	f.flush()
	sent := f.i.sent
	stood := f.clock() + 600*time.Millisecond
	eventually(t, "it stood still", func() bool { return f.clock() > stood })
	f.inject(f.advert(100)) // of the one that took over meanwhile
	f.fire()
	f.flush()
	if f.i.machine.State() != vrrp.Backup || f.i.sent != sent {
		t.Errorf("%s after %d adverts more", f.i.machine.State(), f.i.sent-sent)
	}
	if f.late.Counts[len(f.late.Counts)-2] != 1 {
		t.Errorf("lateness %v", f.late.Counts)
	}
}
