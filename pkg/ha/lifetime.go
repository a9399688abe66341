package ha

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// lifetimeBatch is how many lifetimes are renewed with one system call, while nobody can remove an address.
const lifetimeBatch = 32

// lifetimes renews the lifetimes of all addresses that a director holds. One goroutine does it for all, several with one
// system call and without an answer to each: a thousand addresses cost a few milliseconds in five seconds.
type lifetimes struct {
	log   *slog.Logger
	fd    int    // a netlink socket
	port  uint32 // its number there
	wake  chan struct{}
	ended chan struct{}
	done  sync.WaitGroup

	mu       sync.Mutex
	all      map[spot]*lifetime
	sequence uint32
	buffer   []byte
	planned  time.Time // when the goroutine wakes next
	failed   string    // the last error told
}

type lifetime struct {
	message []byte // the renewal; its sequence number is filled in; nil: it is over
	period  time.Duration
	due     time.Time
}

// openLifetimes opens the socket in the network namespace of the calling thread.
func openLifetimes(log *slog.Logger) (*lifetimes, error) {
	l := &lifetimes{log: log, wake: make(chan struct{}, 1), ended: make(chan struct{}), all: map[spot]*lifetime{}, buffer: make([]byte, 8192)}
	var err error
	if l.fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE); err != nil {
		return nil, fmt.Errorf("open a netlink socket for lifetimes: %w", err)
	}
	err = unix.Bind(l.fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	if err == nil {
		var name unix.Sockaddr
		if name, err = unix.Getsockname(l.fd); err == nil {
			l.port = name.(*unix.SockaddrNetlink).Pid
		}
	}
	if err != nil {
		unix.Close(l.fd)
		return nil, fmt.Errorf("bind the netlink socket for lifetimes: %w", err)
	}
	l.planned = time.Now().Add(time.Hour)
	l.done.Go(l.run)
	return l, nil
}

func (l *lifetimes) close() {
	close(l.ended)
	l.done.Wait()
	unix.Close(l.fd)
}

// keep renews an address from now on, the first time at once or after a period.
func (l *lifetimes) keep(s spot, message []byte, period time.Duration, atOnce bool) {
	due := time.Now()
	if !atOnce {
		due = due.Add(period)
	}
	l.mu.Lock()
	l.all[s] = &lifetime{message: message, period: period, due: due}
	sooner := due.Before(l.planned)
	l.mu.Unlock()
	if sooner {
		poke(l.wake)
	}
}

// has says whether an instance of this director holds an address.
func (l *lifetimes) has(s spot) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all[s] != nil
}

// end renews an address no more: when it returns, none is under way that could bring it back. It is still ours.
func (l *lifetimes) end(s spot) {
	l.mu.Lock()
	if e := l.all[s]; e != nil {
		e.message = nil
	}
	l.mu.Unlock()
}

// forget says that what was ended is not ours any more. Another instance of ours may have taken it meanwhile.
func (l *lifetimes) forget(s spot) {
	l.mu.Lock()
	if e := l.all[s]; e != nil && e.message == nil {
		delete(l.all, s)
	}
	l.mu.Unlock()
}

func (l *lifetimes) run() {
	timer := time.NewTimer(l.next())
	defer timer.Stop()
	for {
		select {
		case <-l.ended:
			return
		case <-l.wake:
		case <-timer.C:
		}
		for l.renew(time.Now()) {
		}
		timer.Reset(l.next())
	}
}

// next is the time until the next renewal.
func (l *lifetimes) next() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	var first time.Time
	for _, e := range l.all {
		if e.message != nil && (first.IsZero() || e.due.Before(first)) {
			first = e.due
		}
	}
	if first.IsZero() {
		first = time.Now().Add(time.Hour)
	}
	l.planned = first
	return max(time.Millisecond, time.Until(first))
}

// renew renews a batch of the lifetimes that are due, or soon: so those of many instances come together. It says whether
// there may be more.
func (l *lifetimes) renew(now time.Time) (more bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.buffer = l.buffer[:0]
	n := 0
	for _, e := range l.all {
		if e.message == nil || e.due.Sub(now) > e.period/8 {
			continue
		}
		if n++; n > lifetimeBatch {
			more = true
			break
		}
		l.sequence++
		binary.NativeEndian.PutUint32(e.message[8:], l.sequence)
		l.buffer = append(l.buffer, e.message...)
		e.due = now.Add(e.period)
	}
	if n == 0 {
		return false
	}
	l.tell(errors.Join(unix.Sendto(l.fd, l.buffer, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}), l.refusals()))
	return more
}

// refusals reads the errors that the kernel answered with; it has done so when a send returns.
func (l *lifetimes) refusals() error {
	var answer [4096]byte
	var errs []error
	for {
		n, _, err := unix.Recvfrom(l.fd, answer[:], 0)
		if err != nil || n < unix.SizeofNlMsghdr+4 {
			return errors.Join(errs...)
		}
		number := -int32(binary.NativeEndian.Uint32(answer[unix.SizeofNlMsghdr:]))
		if e := unix.Errno(number); number > 0 && e != unix.ENODEV { // the holder hears of an interface that is gone
			errs = append(errs, e)
		}
	}
}

func (l *lifetimes) tell(err error) {
	now := ""
	if err != nil {
		now = err.Error()
	}
	if now != "" && now != l.failed {
		l.log.Error("lifetimes of virtual addresses not renewed: they end, and are put back then", "error", err)
	}
	l.failed = now
}

// renewalMessage is the request that gives an address its whole lifetime again.
func renewalMessage(w wish, s spot, v VirtualAddress) []byte {
	a := address(w, v)
	family := unix.AF_INET
	if s.prefix.Addr().Is6() {
		family = unix.AF_INET6
	}
	request := nl.NewNetlinkRequest(unix.RTM_NEWADDR, unix.NLM_F_REPLACE)
	message := nl.NewIfAddrmsg(family)
	message.Prefixlen, message.Scope, message.Index = uint8(s.prefix.Bits()), uint8(a.Scope), uint32(s.index)
	request.AddData(message)
	request.AddData(nl.NewRtAttr(unix.IFA_LOCAL, s.prefix.Addr().AsSlice()))
	request.AddData(nl.NewRtAttr(unix.IFA_ADDRESS, s.prefix.Addr().AsSlice()))
	request.AddData(nl.NewRtAttr(unix.IFA_FLAGS, binary.NativeEndian.AppendUint32(nil, uint32(a.Flags))))
	if a.Label != "" {
		request.AddData(nl.NewRtAttr(unix.IFA_LABEL, nl.ZeroTerminated(a.Label)))
	}
	lifetime := nl.IfaCacheInfo{IfaCacheinfo: unix.IfaCacheinfo{Valid: uint32(a.ValidLft), Prefered: uint32(a.PreferedLft)}}
	request.AddData(nl.NewRtAttr(unix.IFA_CACHEINFO, lifetime.Serialize()))
	return request.Serialize()
}
