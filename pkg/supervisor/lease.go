package supervisor

import (
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/xdirector/xdirector/pkg/ha"
)

const (
	// grace is given once when this process stood still itself, as the whole box may have: the election runs again too,
	// and steps back by itself.
	grace = 5 * time.Millisecond
	// beginning is how often a lease that is not there yet is looked for, after the election became MASTER.
	beginning = 50 * time.Millisecond
)

// lease is a word of memory shared with the election, see ha.Options.
type lease struct {
	file *os.File
	word *uint64
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
	return &lease{file: f, word: (*uint64)(unsafe.Pointer(unsafe.SliceData(b)))}, nil
}

// guard watches the lease of the election on a thread of its own. When it runs out, the election is dead or stands
// still: it is killed, so that it can't go on in the middle of what follows, and priority 0 is sent in its name.
type guard struct {
	lease   *lease
	wake    *os.File // an eventfd
	expired chan int // capacity 1: the number of packets sent

	mu      sync.Mutex
	process *os.Process
	packets []ha.ReadyPacket
	quit    bool
}

// startGuard returns when everything that the guard will need is open.
func startGuard(l *lease) (*guard, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("watch the lease: %w", err)
	}
	g := &guard{lease: l, wake: os.NewFile(uintptr(fd), "eventfd"), expired: make(chan int, 1)}
	opened := make(chan error)
	go g.run(opened)
	if err := <-opened; err != nil {
		return nil, err
	}
	return g, nil
}

// over says which process is the election's. nil: none runs.
func (g *guard) over(p *os.Process) {
	g.mu.Lock()
	g.process = p
	g.mu.Unlock()
}

// arm gives the packets to be sent; none: no instance is MASTER.
func (g *guard) arm(packets []ha.ReadyPacket) {
	g.mu.Lock()
	g.packets = packets
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
	wake := int(g.wake.Fd())
	late := false
	for {
		g.mu.Lock()
		armed, quit := len(g.packets) > 0, g.quit
		g.mu.Unlock()
		if quit {
			return
		}
		timeout := g.timeout(armed)
		switch {
		case timeout > 0 || !armed:
			late = false
		case -timeout > grace && !late:
			late, timeout = true, grace
		default:
			g.expire(sender)
			continue
		}
		sleep(wake, timeout)
	}
}

// timeout is how long the lease still runs; not positive: it is over since then.
func (g *guard) timeout(armed bool) time.Duration {
	if !armed {
		return -1
	}
	until := atomic.LoadUint64(g.lease.word)
	if until == 0 {
		return beginning
	}
	return time.Duration(until) - monotonic()
}

// expire kills the election and sends the packets.
func (g *guard) expire(sender *ha.Sender) {
	g.mu.Lock()
	process, packets := g.process, g.packets
	g.packets = nil
	g.mu.Unlock()
	if process != nil {
		_ = process.Kill()
	}
	err := sender.Send(packets)
	atomic.StoreUint64(g.lease.word, 0)
	sent := len(packets)
	if err != nil {
		sent = 0
	}
	select {
	case g.expired <- sent:
	default:
	}
}

// sleep waits for the timeout, or until the eventfd is written; a negative one waits for that alone. The kernel's own
// wait is used, because the thread has to be the one that wakes.
func sleep(wake int, timeout time.Duration) {
	fds := []unix.PollFd{{Fd: int32(wake), Events: unix.POLLIN}}
	var limit *unix.Timespec
	if timeout >= 0 {
		t := unix.NsecToTimespec(int64(timeout))
		limit = &t
	}
	n, _ := unix.Ppoll(fds, limit, nil) // EINTR is a wake-up like another
	if n > 0 {
		var b [8]byte
		_, _ = unix.Read(wake, b[:])
	}
}

func monotonic() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		panic("clock_gettime of a clock that every Linux has: " + err.Error())
	}
	return time.Duration(t.Nano())
}
