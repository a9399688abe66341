package xdp

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/xdirector/xdirector/pkg/lb"
)

const hour = time.Hour

// fast is a plane and the election's end of it, with one router whose adverts are absorbed.
type fast struct {
	*FastPath
	t     *testing.T
	plane *Plane
	slot  uint32
	frame []byte
}

func newFast(t *testing.T) *fast {
	p := newTestPlane(t, tableState())
	f := &fast{FastPath: openFastPath(t, p), t: t, plane: p, slot: p.Slots()["fast"], frame: advert{vrid: vridFast}.bytes()}
	f.Renew(monotonic() + hour)
	return f
}

// absorb has the frame absorbed, and sees the one that is let through each second.
func (f *fast) absorb(down time.Duration) {
	f.t.Helper()
	if !f.Absorb(f.slot, f.frame, down) {
		f.t.Fatal("the plane can't absorb")
	}
	f.comes(true)
}

// comes has the frame come in, and says whether it must be taken as a sign of life without user space.
func (f *fast) comes(absorbed bool) {
	f.t.Helper()
	fates := func() uint64 {
		all := counters(f.t, f.plane).Adverts["fast"]
		return all["absorbed"] + all["sampled"]
	}
	before := fates()
	if action, _ := run(f.t, f.plane, f.frame); action != xdpPass && action != xdpDrop {
		f.t.Errorf("action %d for a repeat", action)
	}
	if got := fates() > before; got != absorbed {
		f.t.Errorf("a repeat is absorbed: %t, want %t", got, absorbed)
	}
}

// wakes waits until the election is woken, and returns the slots.
func (f *fast) wakes() []uint32 {
	f.t.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); {
		if !readable(f.t, f.FD(), time.Until(end)) {
			break
		}
		if slots := f.Expired(); len(slots) > 0 {
			return slots
		}
	}
	f.t.Fatal("nobody was woken")
	return nil
}

func readable(t *testing.T, fd int, wait time.Duration) bool {
	t.Helper()
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(wait.Milliseconds())+1)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		return n > 0
	}
}

// timerOf has the kernel's timer wake the election, and fails if only the clock in FastPath does.
func (f *fast) timerOf(down time.Duration) {
	f.t.Helper()
	if !f.Absorb(f.slot, f.frame, down) {
		f.t.Fatal("the plane can't absorb")
	}
	run(f.t, f.plane, f.frame)
	if err := unix.TimerfdSettime(f.FastPath.clock, 0, &unix.ItimerSpec{}, nil); err != nil {
		f.t.Fatal(err)
	}
	if slots := f.wakes(); !slices.Equal(slots, []uint32{f.slot}) {
		f.t.Errorf("woken for slots %d, want %d", slots, f.slot)
	}
	if silent := monotonic() - f.LastSeen(f.slot); silent < down {
		f.t.Errorf("woken %v after the last advert, want %v or later", silent, down)
	}
	f.Release(f.slot)
}

func TestASilentMasterWakesTheElection(t *testing.T) {
	f := newFast(t)
	f.timerOf(30 * time.Millisecond)
	f.timerOf(20 * time.Millisecond) // the same timer, armed again
}

func TestAMasterOfWhichNothingIsAbsorbedWakesTheElectionToo(t *testing.T) {
	f := newFast(t)
	if !f.Absorb(f.slot, f.frame, 20*time.Millisecond) {
		t.Fatal("the plane can't absorb")
	}
	began := monotonic()
	if slots := f.wakes(); !slices.Equal(slots, []uint32{f.slot}) || monotonic() < began+15*time.Millisecond {
		t.Errorf("woken for slots %d after %v", slots, monotonic()-began)
	}
	if last := f.LastSeen(f.slot); last != 0 {
		t.Errorf("last advert at %v, want none", last)
	}
}

// The race of the timer: it runs out on one CPU while an advert is absorbed on another. The callback compares the times, and so
// does Expired.
func TestATimerThatRunsOutBesideAnAdvertWakesNobody(t *testing.T) {
	f := newFast(t)
	f.absorb(20 * time.Millisecond)
	if err := unix.TimerfdSettime(f.FastPath.clock, 0, &unix.ItimerSpec{}, nil); err != nil { // the kernel's timer alone
		t.Fatal(err)
	}
	// As if an advert had come whose start of the timer is still to come.
	atomic.StoreUint64(&f.words[f.slot].Seen, uint64(monotonic()+100*time.Millisecond))
	for end := monotonic() + 60*time.Millisecond; monotonic() < end; {
		if readable(t, f.FD(), 5*time.Millisecond) {
			if slots := f.Expired(); len(slots) > 0 {
				t.Fatalf("woken for slots %d before the time", slots)
			}
		}
	}
	f.wakes() // the callback has set it anew
}

func TestWhatWasAbsorbedLastIsKnown(t *testing.T) {
	f := newFast(t)
	before := monotonic()
	f.absorb(hour)
	f.comes(true)
	after := monotonic()
	for _, when := range []string{"while it is absorbed", "after Release", "after Release again"} {
		if seen := f.LastSeen(f.slot); seen < before || seen > after {
			t.Errorf("%s: seen at %v, want %v to %v", when, seen, before, after)
		}
		f.Release(f.slot)
	}
	f.comes(false)
	if seen := f.LastSeen(f.slot); seen > after {
		t.Errorf("seen at %v, after Release", seen)
	}
}

// The race of the promotion: programs on other CPUs are somewhere between their first look and their verdict. What they absorb
// is in LastSeen when Release returns; after that they absorb nothing.
func TestReleaseIsFinalWhateverProgramsDoOnOtherCPUs(t *testing.T) {
	f := newFast(t)
	program := f.plane.Program("eth0")
	const busy = 2
	end := make(chan struct{})
	failed := make(chan error, busy)
	for range busy {
		go func() {
			runtime.LockOSThread()
			for {
				select {
				case <-end:
					failed <- nil
					return
				default:
				}
				if _, _, err := program.Test(f.frame); err != nil && !errors.Is(err, unix.EINTR) {
					failed <- err
					return
				}
			}
		}()
	}
	word := &f.words[f.slot].Seen
	const rounds, wanted = 3000, 100
	absorbed := 0
	random := rand.New(rand.NewPCG(1, 2))
	for limit := time.Now().Add(3 * time.Second); absorbed < rounds && time.Now().Before(limit); {
		if !f.Absorb(f.slot, f.frame, hour) {
			t.Error("the plane can't absorb")
			break
		}
		for spins := 0; f.LastSeen(f.slot) == 0 && spins < 10_000; spins++ {
			runtime.Gosched()
		}
		// At any moment of what a program does: the one whose work was seen has just ended.
		for range random.IntN(2000) {
			atomic.LoadUint64(word)
		}
		f.Release(f.slot)
		released, last := monotonic(), f.LastSeen(f.slot)
		if last != 0 {
			absorbed++
		}
		for range 500 {
			if seen := atomic.LoadUint64(word); seen != 0 || f.LastSeen(f.slot) != last {
				t.Fatalf("absorbed at %d after Release, last at %d", seen, last)
			}
		}
		if last > released {
			t.Fatalf("last seen at %v, released at %v", last, released)
		}
	}
	close(end)
	for range busy {
		if err := <-failed; err != nil {
			t.Error(err)
		}
	}
	if absorbed < wanted {
		t.Errorf("in %d rounds something was absorbed, want %d", absorbed, wanted)
	}
	// An advert that was in the middle of it when Release came has passed, none is lost: with nobody absorbing all do.
	before := counters(t, f.plane).Adverts["fast"]["absorbed"]
	for range 10 {
		run(t, f.plane, f.frame)
	}
	if after := counters(t, f.plane).Adverts["fast"]["absorbed"]; after != before {
		t.Errorf("%d absorbed after Release", after-before)
	}
}

// The other race of an exchange of templates: a program that read one half of each takes nothing for a repeat, and one that
// has found a repeat of the former one doesn't say so when the next is in force.
func TestAnExchangeOfTemplatesTakesNoOtherAdvertForARepeat(t *testing.T) {
	f := newFast(t)
	program := f.plane.Program("eth0")
	other := advert{vrid: vridFast, priority: 199, addresses: many(50)}.bytes()
	end, failed := make(chan struct{}), make(chan error, 1)
	go func() { // the other one alone comes in
		for {
			select {
			case <-end:
				failed <- nil
				return
			default:
			}
			options := ebpf.RunOptions{Data: other, DataOut: make([]byte, len(other)+256), Repeat: 10_000}
			if _, err := program.Run(&options); err != nil && !errors.Is(err, unix.EINTR) {
				failed <- err
				return
			}
		}
	}()
	absorbed, rounds := 0, 0
	random := rand.New(rand.NewPCG(1, 2))
	word := &f.words[f.slot].Seen
	for began := time.Now(); time.Since(began) < time.Second || absorbed < 100 && time.Since(began) < 20*time.Second; rounds++ {
		for n, frame := range [][]byte{other, f.frame} {
			if !f.Absorb(f.slot, frame, hour) {
				t.Fatal("the plane can't absorb")
			}
			if n == 0 && rounds%16 == 0 {
				for spins := 0; f.LastSeen(f.slot) == 0 && spins < 100_000; spins++ {
				}
			}
			for range random.IntN(3000) { // an interrupt in the middle of a program lasts longer
				atomic.LoadUint64(word)
			}
			f.Release(f.slot)
			switch seen := f.LastSeen(f.slot) != 0; {
			case seen && n == 0:
				absorbed++
			case seen:
				t.Fatalf("in round %d an advert was taken for a repeat of another one", rounds)
			}
		}
	}
	close(end)
	if err := <-failed; err != nil {
		t.Error(err)
	}
	if absorbed < 100 {
		t.Errorf("absorbed in %d of %d rounds, want 100", absorbed, rounds)
	}
}

// The kernel ends the timer of an entry that user space writes. So nobody writes one that is in use, whatever else changes.
func TestAReloadLeavesTheTimersAlone(t *testing.T) {
	f := newFast(t)
	if !f.Absorb(f.slot, f.frame, 30*time.Millisecond) {
		t.Fatal("the plane can't absorb")
	}
	f.comes(true)
	if err := unix.TimerfdSettime(f.FastPath.clock, 0, &unix.ItimerSpec{}, nil); err != nil { // the kernel's timer alone
		t.Fatal(err)
	}
	changed := tableState()
	for n := range changed.Routers {
		if r := &changed.Routers[n]; r.Name == "fast" {
			r.Name, r.Source = "renamed", ownAddress.Next()
		}
	}
	changed.Routers = append(changed.Routers, lb.Router{Name: "new", Interface: "eth0", Version: 3, VRID: 200, Filter: true})
	apply(t, f.plane, changed)
	if slots := f.wakes(); !slices.Equal(slots, []uint32{f.slot}) || f.plane.Slots()["renamed"] != f.slot {
		t.Errorf("woken for slots %d, want %d; slots %v", slots, f.slot, f.plane.Slots())
	}
}

// A slot that another router had is as good as new.
func TestASlotIsAsGoodAsNewForTheNextRouter(t *testing.T) {
	f := newFast(t)
	f.timerOf(20 * time.Millisecond)
	f.absorb(hour)
	without := tableState()
	without.Routers = slices.DeleteFunc(without.Routers, func(r lb.Router) bool { return r.Name == "fast" })
	apply(t, f.plane, without)
	f.Release(f.slot)
	f.plane.tables.routers.free = []uint32{f.slot} // its turn has come
	without.Routers = append(without.Routers, lb.Router{Name: "next", Interface: "eth0", Version: 3, VRID: 200, Filter: true})
	apply(t, f.plane, without)
	if slot := f.plane.Slots()["next"]; slot != f.slot {
		t.Fatalf("slot %d, want %d", slot, f.slot)
	}
	f.frame = advert{vrid: 200}.bytes()
	f.timerOf(20 * time.Millisecond)
}

// What a program has read before Release never fits what it finds after the next Absorb, also on a clock that stands still.
func TestEachAbsorbingBeginsLaterThanTheOneBefore(t *testing.T) {
	f := newFast(t)
	before := uint64(0)
	for range 3 {
		f.Absorb(f.slot, f.frame, hour)
		began := &f.slots[f.slot].began
		if *began <= before {
			t.Fatalf("it began at %d, the one before at %d", *began, before)
		}
		before = *began + uint64(hour) // as if the clock were that far behind
		*began = before
		atomic.StoreUint64(&f.words[f.slot].Seen, before)
		f.Release(f.slot)
	}
}

// An agent that starts again gives the election another FastPath of the same words, while the loop uses the first one. An
// advert that was absorbed between must not be lost: it would be a takeover from a MASTER that lives.
func TestTheNextFastPathOfTheSameWordsLosesNoSignOfLife(t *testing.T) {
	f := newFast(t)
	f.absorb(hour)
	f.comes(true)
	before := monotonic()
	next := openFastPath(t, f.plane)
	f.comes(false)
	f.Release(f.slot)
	if seen := f.LastSeen(f.slot); seen < before || seen > monotonic() {
		t.Errorf("seen at %v, want %v or later", seen, before)
	}
	next.Renew(monotonic() + hour)
	if !next.Absorb(f.slot, f.frame, hour) {
		t.Error("the next one can't absorb")
	}
	f.comes(true)
	if seen := next.LastSeen(f.slot); seen < before {
		t.Errorf("the next one saw it at %v", seen)
	}
}

func TestAnElectionThatStartsAgainFindsGatesOpenAndNothingAbsorbed(t *testing.T) {
	f := newFast(t)
	f.absorb(hour)
	f.Gate(f.slot, true)
	openFastPath(t, f.plane) // the one before was killed: it has not closed its own
	words := f.words[f.slot]
	if words.Gate != 1 || words.Seen != 0 || words.Length != 0 {
		t.Errorf("gate %d, seen %d, template of %d bytes", words.Gate, words.Seen, words.Length)
	}
}

func TestNothingIsAbsorbedForAProcessThatIsGone(t *testing.T) {
	f := newFast(t)
	f.absorb(hour)
	f.comes(true)
	f.Renew(monotonic())
	f.comes(false)
	if f.LastSeen(f.slot) == 0 {
		t.Error("what was absorbed before is forgotten")
	}
}

// The supervisor keeps the timers while there is no agent. When nobody does, they are gone, and every advert arrives.
func TestAbsorbingOutlivesTheAgentAsLongAsSomebodyHoldsTheTimers(t *testing.T) {
	f := newFast(t)
	files, err := f.plane.Files()
	if err != nil {
		t.Fatal(err)
	}
	defer files.Close()
	program, err := f.plane.Program("eth0").Clone() // as a link holds it
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	comes := func(want uint32) {
		t.Helper()
		if action, _, err := program.Test(f.frame); err != nil || action != want {
			t.Errorf("action %d (%v), want %d", action, err, want)
		}
	}
	f.absorb(hour)
	cfg := f.plane.config
	if err := f.plane.Close(); err != nil {
		t.Fatal(err)
	}
	comes(xdpDrop)
	if err := files.Timers.Close(); err != nil {
		t.Fatal(err)
	}
	files.Timers = nil
	// Each advert now asks for a timer that nobody can have.
	var action uint32
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); {
		if action, _, err = program.Test(f.frame); err != nil || action == xdpPass {
			break
		}
	}
	if err != nil || action != xdpPass {
		t.Fatalf("action %d (%v): absorbed without a timer", action, err)
	}
	// The next agent's programs have timers of their own, and go on where these words are.
	f.plane = openPlane(t, cfg, twoInterfaces)
	apply(t, f.plane, tableState())
	if slot := f.plane.Slots()["fast"]; slot != f.slot {
		t.Fatalf("slot %d, it was %d", slot, f.slot)
	}
	f.comes(true)
	f.Release(f.slot)
	f.timerOf(20 * time.Millisecond)
}

func TestAnAbsorbedRouterLetsOneRepeatOfASecondThrough(t *testing.T) {
	f := newFast(t)
	if !f.Absorb(f.slot, f.frame, hour) {
		t.Fatal("the plane can't absorb")
	}
	passed := 0
	began := monotonic()
	for monotonic() < began+1200*time.Millisecond {
		if action, _ := run(t, f.plane, f.frame); action == xdpPass {
			passed++
		}
	}
	if most := 1 + int((monotonic()-began)/time.Second); passed < 2 || passed > most {
		t.Errorf("%d passed in %v, want 2 to %d", passed, monotonic()-began, most)
	}
}

// A port of a bond hears the group although another port is the one in use.
func TestAnAdvertThatCameInByAnotherInterfaceIsNotAbsorbed(t *testing.T) {
	f := newFast(t)
	f.absorb(hour)
	f.comes(true)
	spec, err := f.plane.spec()
	if err != nil {
		t.Fatal(err)
	}
	port := *f.plane.nics[0]
	if err := spec.Variables[xdirectorVarOwnInterface].Set(uint32(port.index)); err != nil {
		t.Fatal(err)
	}
	port.index = eth1Index // the program of eth1, run where frames come from eth0
	key := xdirectorRouterKey{Interface: eth1Index, Family: 4, Vrid: vridFast}
	var value xdirectorRouter
	if err := f.plane.maps.Routers.Lookup(xdirectorRouterKey{Interface: eth0Index, Family: 4, Vrid: vridFast}, &value); err != nil {
		t.Fatal(err)
	}
	if err := f.plane.maps.Routers.Put(key, value); err != nil {
		t.Fatal(err)
	}
	if err := f.plane.loadProgram(&port); err != nil {
		t.Fatal(err)
	}
	defer port.program.Close()
	seen := f.LastSeen(f.slot)
	for range 2 {
		if action, _, err := port.program.Test(f.frame); err != nil || action == xdpTX {
			t.Errorf("action %d, %v", action, err)
		}
	}
	if f.LastSeen(f.slot) != seen {
		t.Error("it was taken for a sign of life")
	}
}

func TestFastPathRefusesWhatIsNotOfThisVersion(t *testing.T) {
	needRoot(t)
	other, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 4})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	fd, err := unix.FcntlInt(uintptr(other.FD()), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	file := os.NewFile(uintptr(fd), "other")
	defer file.Close()
	if f, err := OpenFastPath(file, file); err == nil {
		f.Close()
		t.Error("no error")
	}
}

func TestWhatIsNoAdvertIsNeverAbsorbed(t *testing.T) {
	f := newFast(t)
	for name, frame := range map[string][]byte{
		"nothing": nil, "half a header": f.frame[:30], "cut short": f.frame[:len(f.frame)-1], "ARP": append(append(f.frame[:12:12], 8, 6), f.frame[14:]...),
		"too long": advert{vrid: vridFast, addresses: many(200)}.bytes(),
	} {
		f.absorb(hour)
		if f.Absorb(f.slot, frame, hour) {
			t.Errorf("%s: absorbs", name)
		}
		f.comes(false)
	}
	for _, slot := range []uint32{0, ^uint32(0)} {
		f.Gate(slot, true)
		f.Release(slot)
		if f.Absorb(slot, f.frame, hour) || f.LastSeen(slot) != 0 {
			t.Error(fmt.Sprint("slot ", slot, " is used"))
		}
	}
}
