package ha

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xdirector/xdirector/pkg/lb"
	"github.com/xdirector/xdirector/pkg/vrrp"
)

// fakePlane is a plane that does what a test says, and tells what was asked of it.
type fakePlane struct {
	t         *testing.T
	fd        int
	absorbs   bool // it can
	frames    map[uint32][]byte
	down      map[uint32]time.Duration
	last      map[uint32]vrrp.Time
	gates     map[uint32]bool
	lease     vrrp.Time
	expired   []uint32
	calls     []string
	onRelease func(slot uint32) // what other CPUs do until Release takes effect
	closed    bool
	previous  lb.MAC
	chance    vrrp.Time // until when
}

func newFakePlane(t *testing.T) *fakePlane {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	must(t, err)
	t.Cleanup(func() { unix.Close(fd) })
	return &fakePlane{t: t, fd: fd, absorbs: true, frames: map[uint32][]byte{}, down: map[uint32]time.Duration{},
		last: map[uint32]vrrp.Time{}, gates: map[uint32]bool{}, onRelease: func(uint32) {}}
}

func (p *fakePlane) Gate(slot uint32, master bool) {
	if p.gates[slot] != master {
		p.calls = append(p.calls, fmt.Sprint("gate ", master))
	}
	p.gates[slot] = master
}

func (p *fakePlane) SecondChance(_ uint32, previous lb.MAC, _ int, until vrrp.Time) {
	p.previous, p.chance = previous, until
}

func (p *fakePlane) Absorb(slot uint32, frame []byte, down time.Duration) bool {
	if p.gates[slot] {
		p.t.Error("absorbs while MASTER")
	}
	p.calls = append(p.calls, fmt.Sprint("absorb ", down > 0))
	if !p.absorbs || down == 0 {
		return false
	}
	p.frames[slot], p.down[slot], p.last[slot] = bytes.Clone(frame), down, 0
	return true
}

func (p *fakePlane) Release(slot uint32) {
	if p.frames[slot] == nil {
		p.t.Error("released without need")
	}
	p.onRelease(slot)
	delete(p.frames, slot)
	p.calls = append(p.calls, "release")
}

func (p *fakePlane) LastSeen(slot uint32) vrrp.Time { return p.last[slot] }
func (p *fakePlane) Renew(until vrrp.Time)          { p.lease = until }
func (p *fakePlane) FD() int                        { return p.fd }
func (p *fakePlane) Close() error                   { p.closed = true; return nil }

func (p *fakePlane) Expired() []uint32 {
	list := p.expired
	p.expired = nil
	return list
}

// asked forgets and returns the calls so far.
func (p *fakePlane) asked() []string {
	calls := p.calls
	p.calls = nil
	return calls
}

// fastLoop is a loop on eth0 of one of two boxes with one BACKUP of priority 100 that uses a fake plane.
type fastLoop struct {
	*loop
	t      *testing.T
	plane  *fakePlane
	i      *instance
	inject func([]byte)
}

const testSlot = 7

func newFastLoop(t *testing.T, change func(*Instance)) *fastLoop {
	t.Helper()
	a, b := twoBoxes(t)
	return newFastLoopIn(t, a, b, change)
}

func newFastLoopIn(t *testing.T, a, b *box, change func(*Instance)) *fastLoop {
	t.Helper()
	c := fast(100, vip1)
	c.Slot, c.Absorb = testSlot, true
	if change != nil {
		change(&c)
	}
	f := &fastLoop{t: t, plane: newFakePlane(t), inject: b.injector()}
	index := a.eth0().Attrs().Index
	a.do(func() {
		f.loop = bareLoop(t, c)
		f.snapshot = snapshot{"eth0": {Index: index, MAC: a.eth0().Attrs().HardwareAddr}}
		f.openPorts()
	})
	t.Cleanup(f.leave)
	f.i = f.instances[0]
	f.connect(f.i)
	f.i.index, f.i.mac = index, f.sourceMAC(f.i)
	f.use(f.plane)
	f.i.running, f.i.source = true, netip.MustParseAddr("10.9.0.1")
	f.step(f.i, f.clock(), vrrp.Start{Source: f.i.source})
	return f
}

// advert is the whole IP packet of a MASTER.
func (f *fastLoop) advert(priority uint8) []byte {
	source := netip.MustParseAddr("10.9.0.2")
	payload := vrrp.Advert{Version: 3, VRID: 51, Priority: priority, Interval: 100 * time.Millisecond, Addresses: f.i.cfg.VRRP.Addresses}.Append(nil, source, group)
	return frame(source, 255, 20+len(payload), payload)
}

// hear has the adverts arrive at the loop.
func (f *fastLoop) hear(packets ...[]byte) {
	f.t.Helper()
	before := f.i.received
	for _, p := range packets {
		f.inject(p)
	}
	eventually(f.t, "adverts received", func() bool {
		f.receive(f.i.port, batchSize)
		return f.i.received == before+uint64(len(packets))
	})
}

// wait lets the time of the instance run out, as its machine sees it.
func (f *fastLoop) wait() {
	f.t.Helper()
	eventually(f.t, "deadline passed", func() bool { due, ok := f.i.machine.Deadline(); return ok && f.clock() >= due })
}

// expire has the plane say that its timer ran out.
func (f *fastLoop) expire() {
	f.plane.expired = []uint32{testSlot}
	f.loop.expired()
}

func (f *fastLoop) want(state vrrp.State, calls ...string) {
	f.t.Helper()
	if got := f.i.machine.State(); got != state {
		f.t.Errorf("state %s, want %s", got, state)
	}
	if got := f.plane.asked(); !slices.Equal(got, calls) {
		f.t.Errorf("asked of the plane: %q, want %q", got, calls)
	}
}

func TestAnObeyedAdvertIsAbsorbedAndTheTimerIsThePlanes(t *testing.T) {
	f := newFastLoop(t, nil)
	f.want(vrrp.Backup)
	f.hear(f.advert(150))
	f.want(vrrp.Backup, "absorb true")
	if got := f.plane.frames[testSlot]; !bytes.Equal(got[etherHeader:etherHeader+32], f.advert(150)) {
		t.Errorf("absorbs % x", got)
	}
	if want := f.i.machine.Patience(); f.plane.down[testSlot] != want {
		t.Errorf("timer of %s, want %s", f.plane.down[testSlot], want)
	}
	if f.timers.first() != nil {
		t.Error("the loop has a timer of its own")
	}
	if now := clock(unix.CLOCK_MONOTONIC); f.plane.lease <= now || f.plane.lease > now+absorbLease {
		t.Errorf("lease of %s", f.plane.lease-now)
	}
	// What passes in between, to be seen, changes nothing.
	f.hear(f.advert(150), f.advert(150))
	f.want(vrrp.Backup)
	if !f.i.absorbing {
		t.Error("a repeat ended the absorbing")
	}
}

func TestSilenceOfAnAbsorbedMasterMakesAMaster(t *testing.T) {
	f := newFastLoop(t, nil)
	f.hear(f.advert(150))
	f.wait()
	f.plane.last[testSlot] = clock(unix.CLOCK_MONOTONIC) - 100*time.Millisecond
	f.plane.asked()
	f.expire()
	f.want(vrrp.Backup, "release") // 0.36 s after the first advert, but not after the last one
	f.wait()
	f.fire()
	f.want(vrrp.Master, "gate true")
}

// The race of the promotion: between the timer and Release, an advert is absorbed on another CPU.
func TestAnAdvertThatIsAbsorbedUntilTheLastMomentCounts(t *testing.T) {
	f := newFastLoop(t, nil)
	f.hear(f.advert(150))
	f.wait()
	f.plane.asked()
	f.plane.onRelease = func(slot uint32) { f.plane.last[slot] = clock(unix.CLOCK_MONOTONIC) }
	f.expire()
	f.want(vrrp.Backup, "release")
	if due, _ := f.i.machine.Deadline(); due < f.clock()+100*time.Millisecond || f.timers.first() != f.i {
		t.Error("the advert did not start the timer anew")
	}
}

// The other half of it: the advert comes a moment later and passes to the socket.
func TestAnAdvertThatPassesBesideThePlaneCounts(t *testing.T) {
	f := newFastLoop(t, nil)
	f.hear(f.advert(150))
	f.wait()
	f.plane.asked()
	f.plane.onRelease = func(uint32) { f.inject(f.advert(150)) }
	f.expire()
	f.want(vrrp.Backup, "release", "absorb true")
}

// A loop that has many instances to serve takes what came between the turn of the first and that of the last.
func TestWhatArrivedBeforeTheDeadlineCountsWhenThePortWasDrainedEarlier(t *testing.T) {
	f := newFastLoop(t, func(c *Instance) { c.Slot = 0 })
	f.hear(f.advert(150))
	f.drain(f.i.port, f.clock()) // for another instance that was due
	f.inject(f.advert(150))
	f.wait()
	f.fire()
	f.want(vrrp.Backup)
	if f.i.received != 2 {
		t.Errorf("%d adverts received", f.i.received)
	}
}

// The plane's clock stands still while the box is suspended, that of the machines goes on.
func TestASuspendedBoxTakesNoMasterForSilentAndNeverAbsorbsForLonger(t *testing.T) {
	f := newFastLoop(t, nil)
	f.hear(f.advert(150))
	f.asleep -= time.Hour // what the loop knows of before
	f.wait()
	f.plane.last[testSlot] = clock(unix.CLOCK_MONOTONIC)
	f.plane.asked()
	f.renew(f.clock())
	f.want(vrrp.Backup)
	if !f.i.absorbing {
		t.Error("the MASTER that was heard a moment ago counts as silent")
	}
	if most := clock(unix.CLOCK_MONOTONIC) + absorbLease; f.plane.lease > most {
		t.Errorf("the lease is %s too long", f.plane.lease-most)
	}
}

func TestABoxThatWasSuspendedWithoutAnyTimerKnowsItSoon(t *testing.T) {
	f := newFastLoop(t, nil)
	slept := f.asleep
	f.asleep -= time.Hour
	f.reporter.opened, f.reporter.news = true, true
	f.report(f.clock())
	if f.asleep < slept-time.Second {
		t.Errorf("suspended for %s less than before", slept-f.asleep)
	}
}

func TestATimerOfThePlaneThatIsNotTheLastWordChangesNothing(t *testing.T) {
	f := newFastLoop(t, nil)
	f.hear(f.advert(150))
	f.plane.asked()
	f.expire() // too early: the clocks of CPUs differ, or it is about an absorbing that ended
	f.want(vrrp.Backup, "release")
	f.expire() // of a slot that is not absorbed any more
	f.plane.expired = []uint32{testSlot + 1}
	f.loop.expired()
	f.want(vrrp.Backup)
}

func TestALostTimerOfThePlaneIsFoundWhenTheLeaseIsRenewed(t *testing.T) {
	f := newFastLoop(t, nil)
	f.hear(f.advert(150))
	f.wait()
	f.plane.asked()
	f.renew(f.clock())
	f.want(vrrp.Master, "release", "gate true")
}

func TestAbsorbedAdvertsCountWhenTheLeaseIsRenewed(t *testing.T) {
	f := newFastLoop(t, nil)
	f.hear(f.advert(150))
	f.wait()
	f.plane.last[testSlot] = clock(unix.CLOCK_MONOTONIC)
	f.plane.asked()
	f.renew(f.clock())
	f.want(vrrp.Backup)
	if due, _ := f.i.machine.Deadline(); due <= f.clock() {
		t.Error("the machine was not told")
	}
}

func TestEveryDecisionEndsTheAbsorbing(t *testing.T) {
	for name, event := range map[string]func(*fastLoop){
		"another advert of the MASTER": func(f *fastLoop) { f.hear(f.advert(160)) },
		"priority 0":                   func(f *fastLoop) { f.hear(f.advert(0)) },
		"configuration":                func(f *fastLoop) { c := *f.i.cfg; c.VRRP.Priority = 120; f.change(f.i, &c, f.clock()) },
		"tracking": func(f *fastLoop) {
			f.tracks = map[string]Track{"VI_1": {Adjust: -10}}
			f.configure(f.i, f.clock(), false)
		},
		"failure": func(f *fastLoop) { f.step(f.i, f.clock(), vrrp.Fail{Reason: "test"}) },
		"stop":    func(f *fastLoop) { f.dismiss(f.i, f.clock()) },
		"no plane": func(f *fastLoop) {
			f.use(nil)
			if !f.plane.closed {
				t.Error("the plane was not closed")
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFastLoop(t, nil)
			f.hear(f.advert(150))
			f.plane.asked()
			event(f)
			if calls := f.plane.asked(); len(calls) == 0 || calls[0] != "release" {
				t.Errorf("asked of the plane: %q", calls)
			}
			if name == "another advert of the MASTER" && f.plane.frames[testSlot] == nil {
				t.Error("the new advert is not absorbed")
			}
		})
	}
}

func TestOnlyAnObeyedMasterIsAbsorbed(t *testing.T) {
	for _, c := range []struct {
		name     string
		change   func(*Instance)
		priority uint8
		calls    []string
	}{
		{"one that is preempted soon", func(*Instance) {}, 50, nil},
		{"not asked for", func(c *Instance) { c.Absorb = false }, 150, []string{"absorb false"}}, // only to let it through
		{"without a slot", func(c *Instance) { c.Slot = 0 }, 150, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFastLoop(t, c.change)
			f.hear(f.advert(c.priority), f.advert(c.priority))
			f.want(vrrp.Backup, c.calls...)
		})
	}
}

func TestAMasterThatYieldsIsAbsorbedWhenItsAddressesAreGone(t *testing.T) {
	f := newFastLoop(t, func(c *Instance) { c.VRRP.Priority = 255 })
	f.want(vrrp.Master, "gate true")
	c := f.i.cfg
	c.VRRP.Priority = 100
	f.change(f.i, c, f.clock())
	f.want(vrrp.Master)
	f.hear(f.advert(150), f.advert(150))
	f.want(vrrp.Backup, "gate false", "absorb false")
	f.wait() // the addresses go
	f.fire()
	f.hear(f.advert(150))
	f.want(vrrp.Backup, "absorb true")
}

func TestAPlaneThatCantAbsorbLeavesEverythingToTheLoop(t *testing.T) {
	f := newFastLoop(t, nil)
	f.plane.absorbs = false
	f.hear(f.advert(150), f.advert(150))
	f.want(vrrp.Backup, "absorb true", "absorb true")
	if f.fast.count != 0 || f.timers.first() != f.i {
		t.Error("the loop relies on the plane")
	}
	f.wait()
	f.fire()
	f.want(vrrp.Master, "gate true")
}

func TestAnInstanceThatMovesToAnotherSlotLeavesNoGateOpen(t *testing.T) {
	f := newFastLoop(t, func(c *Instance) { c.VRRP.Priority = 255 })
	c := *f.i.cfg
	c.Slot = testSlot + 1
	f.change(f.i, &c, f.clock())
	if f.plane.gates[testSlot] || !f.plane.gates[testSlot+1] {
		t.Errorf("gates %v", f.plane.gates)
	}
	next := newFakePlane(t)
	f.use(next)
	if !next.gates[testSlot+1] || !f.plane.closed {
		t.Errorf("gates of a new plane %v", next.gates)
	}
}

func TestAThousandRepeatsAllocateNothing(t *testing.T) {
	a, b := twoBoxesAlone(t) // counts for the whole process
	f := newFastLoopIn(t, a, b, func(c *Instance) { c.Slot = 0 })
	f.hear(f.advert(150))
	whole := append(bytes.Clone(f.i.repeat.frame[:etherHeader]), f.advert(150)...)
	from := &unix.RawSockaddrLinklayer{}
	if n := testing.AllocsPerRun(1000, func() { f.arrived(f.i.port, whole, from, f.clock()) }); n > 0 {
		t.Errorf("%v allocations for a repeat", n)
	}
}

func TestAnAdvertCostsTheLoopNoAllocation(t *testing.T) {
	a, b := twoBoxesAlone(t) // counts for the whole process
	f := newFastLoopIn(t, a, b, func(c *Instance) { c.VRRP.Priority, c.Slot = 255, 0 })
	now := f.clock()
	next := func() vrrp.Time { now += f.i.given.Interval; return now }
	machine := testing.AllocsPerRun(1000, func() { f.i.sync.machines.Step(next(), 0, vrrp.Tick{}) })
	all := testing.AllocsPerRun(1000, func() {
		f.step(f.i, next(), vrrp.Tick{})
		f.flush()
	})
	if f.i.sent < 1000 || all > machine {
		t.Errorf("%v allocations for an advert, %v of them for the machine's answer", all, machine)
	}
}

func TestASuccessorAsksTheMasterBeforeItThatIsAliveAndNoOther(t *testing.T) {
	for name, row := range map[string]struct {
		last uint8 // priority of the last advert
		wait time.Duration
		asks bool
	}{
		"who resigned":                       {last: 0, asks: true},
		"who is preempted":                   {last: 50, asks: true},
		"who was silent for three intervals": {last: 200},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFastLoop(t, func(i *Instance) { i.Absorb = false })
			f.hear(f.advert(200))
			if name == "who is preempted" { // its adverts go on, and the time runs out all the same
				eventually(t, "takeover", func() bool {
					f.hear(f.advert(row.last))
					f.step(f.i, f.clock(), vrrp.Tick{})
					return f.i.machine.State() == vrrp.Master
				})
			} else {
				if row.last == 0 {
					f.hear(f.advert(0))
				}
				f.wait()
				f.step(f.i, f.clock(), vrrp.Tick{})
			}
			if f.i.machine.State() != vrrp.Master {
				t.Fatal("no takeover")
			}
			left := f.plane.chance - f.clock()
			if asks := !f.plane.previous.IsZero(); asks != row.asks || asks && (left > secondChance || left < secondChance/2) {
				t.Errorf("asks %s for another %v, want %v", f.plane.previous, left, row.asks)
			}
			if !row.asks && f.plane.chance != 0 {
				t.Errorf("takes itself for the one before")
			}
			f.hear(f.advert(254))
			if left := f.plane.chance - f.clock(); f.i.machine.State() != vrrp.Backup || !f.plane.previous.IsZero() || left < secondChance/2 {
				t.Errorf("%v, asks %s, looks up for its own successor for %v", f.i.machine.State(), f.plane.previous, left)
			}
		})
	}
}
