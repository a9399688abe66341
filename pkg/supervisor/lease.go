package supervisor

import (
	"cmp"
	"fmt"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/xdirector/xdirector/pkg/ha"
)

const (
	// punctual is how late the guard may wake and still take what it sees for the election's silence. Who is later stood still
	// itself, as the whole box may have: grace is given once then. The election runs again too, and has its turn first.
	punctual = time.Millisecond
	grace    = 5 * time.Millisecond
	// beginning is how often a lease that is not there yet is looked for, after the election became MASTER; unarmed, how
	// often before.
	beginning = 50 * time.Millisecond
	unarmed   = time.Second
)

// lease is memory shared with the election, see ha.Options.
type lease struct {
	file   *os.File
	word   *uint64 // Options.Lease
	handed *uint64 // Options.HandedOver
}

// newLease makes the memory; openLease maps that of another process.
func newLease() (*lease, error) {
	fd, err := unix.MemfdCreate("lease", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make the lease: %w", err)
	}
	f := os.NewFile(uintptr(fd), "lease")
	if err := f.Truncate(int64(os.Getpagesize())); err != nil {
		f.Close()
		return nil, fmt.Errorf("make the lease: %w", err)
	}
	return openLease(f)
}

func openLease(f *os.File) (*lease, error) {
	b, err := unix.Mmap(int(f.Fd()), 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("map the lease: %w", err)
	}
	words := unsafe.Slice((*uint64)(unsafe.Pointer(unsafe.SliceData(b))), 2)
	return &lease{file: f, word: &words[0], handed: &words[1]}, nil
}

// guard watches the lease of the election on a thread of its own. When it runs out, the election is dead or stands
// still: priority 0 is sent in its name, for each instance when it has been silent for its own intervals. An election that
// comes back before the last is sent knows by Options.HandedOver which it has lost, and goes on with the others. With the
// last it is killed, so that it can't go on in the middle of what follows.
type guard struct {
	lease   *lease
	wake    *os.File // an eventfd
	timer   *os.File // a timerfd, see ha.Options.Alarm
	expired chan silence

	mu      sync.Mutex
	process *os.Process
	before  uint64           // the lease when it was started: another one's
	packets []ha.ReadyPacket // not sent yet, those of the shortest interval first
	fastest time.Duration    // interval of the first one when they came
	graced  uint64           // the lease for whose end it woke late, and gave grace
	quit    bool
}

// silence is what the guard did about an election that didn't move.
type silence struct {
	interval time.Duration // of the slowest instance that was handed over
	sent     int           // packets
	killed   bool          // with nothing more to hand over
	gone     bool          // it is being started already
}

// startGuard returns when everything that the guard will need is open.
func startGuard(l *lease) (*guard, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("watch the lease: %w", err)
	}
	timer, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("watch the lease: %w", err)
	}
	g := &guard{lease: l, wake: os.NewFile(uintptr(fd), "eventfd"), timer: os.NewFile(uintptr(timer), "timerfd"), expired: make(chan silence, 8)}
	opened := make(chan error)
	go g.run(opened)
	if err := <-opened; err != nil {
		return nil, err
	}
	return g, nil
}

// over says which process is the election's, from its start on. nil: none runs.
func (g *guard) over(p *os.Process) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.packets) == 0 {
		atomic.StoreUint64(g.lease.word, 0) // it was the one's before
	}
	g.process, g.before = p, atomic.LoadUint64(g.lease.word)
}

// arm gives the packets to be sent; none: no instance is MASTER.
func (g *guard) arm(packets []ha.ReadyPacket) {
	slices.SortStableFunc(packets, func(a, b ha.ReadyPacket) int { return cmp.Compare(a.Interval, b.Interval) })
	g.mu.Lock()
	g.packets, g.fastest = packets, 0
	if len(packets) > 0 {
		g.fastest = packets[0].Interval
	}
	g.mu.Unlock()
	g.poke()
}

// stop ends the guard.
func (g *guard) stop() {
	g.mu.Lock()
	g.quit = true
	g.mu.Unlock()
	g.poke()
}

func (g *guard) poke() { _, _ = unix.Write(int(g.wake.Fd()), []byte{1, 0, 0, 0, 0, 0, 0, 0}) } // an eventfd takes it, or is readable anyway

// run opens the sockets in the network namespace of its thread, which is the process's.
func (g *guard) run(opened chan<- error) {
	runtime.LockOSThread() // never unlocked: the thread ends with its priority
	sender, err := ha.OpenSender()
	if err == nil {
		defer sender.Close()
		hurryThread()
	}
	opened <- err
	if err != nil {
		return
	}
	wake, timer := int(g.wake.Fd()), int(g.timer.Fd())
	for {
		g.mu.Lock()
		quit := g.quit
		g.mu.Unlock()
		if quit {
			return
		}
		now := monotonic()
		if wait := g.wait(now); wait > 0 {
			sleep(wake, timer, now, wait)
		} else {
			g.expire(sender)
		}
	}
}

// wait is how long there is nothing to do if the lease is not renewed; 0: the election is silent.
func (g *guard) wait(now time.Duration) time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	until := atomic.LoadUint64(g.lease.word)
	rest := time.Duration(until) - now
	switch {
	case until == 0 && len(g.packets) == 0:
		rest = unarmed
	case until == 0:
		rest = beginning
	case len(g.packets) > 0:
		rest = g.due(g.packets[0], until) - now
	}
	switch {
	case rest > 0:
		return rest
	case -rest > punctual && g.graced != until:
		g.graced = until
		return grace
	}
	return 0
}

// due is when a packet is to be sent if the lease is not renewed. That runs out with the silence of the fastest instance.
func (g *guard) due(p ha.ReadyPacket, until uint64) time.Duration {
	return time.Duration(until) + ha.SilentIntervals*(p.Interval-g.fastest)
}

// expire sends the packets that are due. With the last of them it kills the election.
func (g *guard) expire(sender *ha.Sender) {
	g.mu.Lock()
	until, now := atomic.LoadUint64(g.lease.word), monotonic()
	n := 0
	for n < len(g.packets) && g.due(g.packets[n], until) <= now {
		n++
	}
	packets, process, last := g.packets[:n], g.process, n == len(g.packets)
	// One that is being started after a death has yet to begin, and will know what was handed over.
	gone := until == g.before
	killed := last && process != nil && !gone
	if until == 0 || time.Duration(until) > now || n == 0 && !last {
		g.mu.Unlock()
		return // it has moved at this moment
	}
	g.packets = g.packets[n:]
	g.mu.Unlock()
	did := silence{sent: n, killed: killed, gone: gone}
	if n > 0 {
		did.interval = packets[n-1].Interval
		if before := atomic.LoadUint64(g.lease.handed); uint64(did.interval) > before {
			atomic.StoreUint64(g.lease.handed, uint64(did.interval))
		}
	}
	if killed {
		_ = process.Kill()
	}
	if err := sender.Send(packets); err != nil {
		did.sent = 0
	}
	if last {
		atomic.CompareAndSwapUint64(g.lease.word, until, 0)
	}
	select {
	case g.expired <- did:
	default:
	}
}

// sleep waits until the eventfd is written, or the time set on the timerfd has come: that is as long after now as said here,
// until the election, which renews its lease, moves it. So nobody wakes for a lease that was renewed. The kernel's own wait is
// used, because the thread has to be the one that wakes.
func sleep(wake, timer int, now, wait time.Duration) {
	at := unix.ItimerSpec{Value: unix.NsecToTimespec(int64(now + wait))}
	if err := unix.TimerfdSettime(timer, unix.TFD_TIMER_ABSTIME, &at, nil); err != nil {
		panic("timerfd_settime of a time that is valid: " + err.Error())
	}
	fds := []unix.PollFd{{Fd: int32(wake), Events: unix.POLLIN}, {Fd: int32(timer), Events: unix.POLLIN}}
	_, _ = unix.Ppoll(fds, nil, nil) // EINTR is a wake-up like another
	for _, fd := range fds {
		if fd.Revents != 0 {
			var b [8]byte
			_, _ = unix.Read(int(fd.Fd), b[:])
		}
	}
}

func monotonic() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		panic("clock_gettime of a clock that every Linux has: " + err.Error())
	}
	return time.Duration(t.Nano())
}
