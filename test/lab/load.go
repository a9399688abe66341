package lab

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Outcome says how a request ended.
type Outcome string

// The outcomes. Everything but OK is a failed request.
const (
	OK      Outcome = "ok"
	Timeout Outcome = "timeout" // not complete within the limit
	Refused Outcome = "refused"
	Reset   Outcome = "reset"
	Other   Outcome = "other" // cut short, no route, ...
)

// Request is one request and its answer, on a connection of its own.
type Request struct {
	Start, End time.Time
	Outcome    Outcome
	Server     string         // name of the node that answered
	From       netip.AddrPort // of the client
	Err        error
	// Pause is the longest time that a load stood still while the request was open, if it failed: what the machine
	// kept from the load, nobody else is to blame for.
	Pause time.Duration
}

// Get asks for / by HTTP/1.0 over a new TCP connection. The request is complete when the whole body is there; the
// limit runs from the first SYN.
func (n *Node) Get(target netip.AddrPort, limit time.Duration) Request {
	return get(n.t, netip.Addr{}, target, limit)
}

// GetFrom is Get with one of the node's addresses as the client's.
func (n *Node) GetFrom(source netip.Addr, target netip.AddrPort, limit time.Duration) Request {
	return get(n.t, source, target, limit)
}

// get asks from the source, or from the one that the kernel chooses.
func get(t *thread, source netip.Addr, target netip.AddrPort, limit time.Duration) Request {
	r := Request{Start: time.Now()}
	body, err := r.exchange(t, source, target, limit)
	r.finish(body, err)
	return r
}

func (r *Request) finish(server string, err error) {
	r.End, r.Err = time.Now(), err
	switch {
	case err == nil:
		r.Outcome, r.Server = OK, server
	case errors.Is(err, os.ErrDeadlineExceeded):
		r.Outcome = Timeout
	case errors.Is(err, unix.ECONNREFUSED):
		r.Outcome = Refused
	case errors.Is(err, unix.ECONNRESET), errors.Is(err, unix.EPIPE):
		r.Outcome = Reset
	default:
		r.Outcome = Other
	}
}

// exchange makes only the socket on the thread: a connect that hangs must not hold up the next request.
func (r *Request) exchange(t *thread, source netip.Addr, target netip.AddrPort, limit time.Duration) (string, error) {
	var f *os.File
	err := t.do(func() error {
		family, address := sockaddr(target)
		fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("make socket: %w", err)
		}
		if source.IsValid() {
			_, own := sockaddr(netip.AddrPortFrom(source, 0))
			if err := unix.Bind(fd, own); err != nil {
				_ = unix.Close(fd)
				return fmt.Errorf("bind to %s: %w", source, err)
			}
		}
		r.Start = time.Now() // a wait for the thread is the lab's, not the network's
		err = unix.Connect(fd, address)
		if err != nil && !errors.Is(err, unix.EINPROGRESS) {
			_ = unix.Close(fd)
			return err
		}
		f = os.NewFile(uintptr(fd), "tcp")
		return nil
	})
	if err != nil {
		return "", err
	}
	defer f.Close()
	if err := f.SetDeadline(r.Start.Add(limit)); err != nil {
		return "", err
	}
	if err := r.connected(f); err != nil {
		return "", err
	}
	if _, err := io.WriteString(f, "GET / HTTP/1.0\r\n\r\n"); err != nil {
		return "", err
	}
	answer, err := io.ReadAll(f)
	if err != nil {
		return "", err
	}
	head, body, ok := bytes.Cut(answer, []byte("\r\n\r\n"))
	if !ok || !bytes.Contains(head, []byte(" 200 ")) || !bytes.HasSuffix(body, []byte("\n")) {
		return "", fmt.Errorf("read answer: %q", answer)
	}
	return string(bytes.TrimSpace(body)), nil
}

// sockaddr is a place in the kernel's words.
func sockaddr(p netip.AddrPort) (family int, address unix.Sockaddr) {
	if p.Addr().Is4() {
		return unix.AF_INET, &unix.SockaddrInet4{Addr: p.Addr().As4(), Port: int(p.Port())}
	}
	return unix.AF_INET6, &unix.SockaddrInet6{Addr: p.Addr().As16(), Port: int(p.Port())}
}

// connected waits for the end of the handshake.
func (r *Request) connected(f *os.File) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var result error
	err = raw.Write(func(fd uintptr) bool {
		peer, err := unix.Getpeername(int(fd))
		if err == nil && peer != nil {
			if local, err := unix.Getsockname(int(fd)); err == nil {
				switch in := local.(type) {
				case *unix.SockaddrInet4:
					r.From = netip.AddrPortFrom(netip.AddrFrom4(in.Addr), uint16(in.Port))
				case *unix.SockaddrInet6:
					r.From = netip.AddrPortFrom(netip.AddrFrom16(in.Addr), uint16(in.Port))
				}
			}
			return true
		}
		// Not connected: either not yet, or never.
		if code, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR); err != nil || code != 0 {
			result = unix.Errno(code)
			return true
		}
		return false
	})
	if err != nil {
		return err
	}
	return result
}

// Exchange sends one datagram from a fresh port and waits for the answer of StartUDPEcho.
func (n *Node) Exchange(target netip.AddrPort, limit time.Duration) Request {
	var c *net.UDPConn
	r := Request{Start: time.Now()}
	err := n.t.do(func() (err error) {
		c, err = net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(target))
		return err
	})
	if err != nil {
		r.finish("", err)
		return r
	}
	defer c.Close()
	r.From = c.LocalAddr().(*net.UDPAddr).AddrPort()
	r.finish(ExchangeOn(c, limit))
	return r
}

// ExchangeOn sends one datagram on an open socket and returns the name of the node that answered it.
func ExchangeOn(c net.Conn, limit time.Duration) (string, error) {
	if err := c.SetDeadline(time.Now().Add(limit)); err != nil {
		return "", err
	}
	if _, err := c.Write([]byte("hello")); err != nil {
		return "", err
	}
	b := make([]byte, 64)
	size, err := c.Read(b)
	if err != nil {
		return "", err
	}
	name, rest, ok := strings.Cut(string(b[:size]), " ")
	if !ok || rest != "hello" {
		return "", fmt.Errorf("read answer: %q", b[:size])
	}
	return name, nil
}

// minPause is far longer than a timer is late on a machine that is merely busy.
const minPause = 20 * time.Millisecond

// Load makes requests at a fixed rate, however long each of them takes.
type Load struct {
	quit  chan struct{}
	ended chan struct{} // closed when the last request has ended

	mu       sync.Mutex
	stopped  bool
	requests []Request // finished ones, in the order of their end
	pauses   []pause
}

// pause is a time in which the load did not run though it should have.
type pause struct{ from, to time.Time }

// longestPause is the part of the longest pause between from and to.
func (l *Load) longestPause(from, to time.Time) time.Duration {
	var longest time.Duration
	for _, p := range l.pauses {
		begin, end := p.from, p.to
		if begin.Before(from) {
			begin = from
		}
		if end.After(to) {
			end = to
		}
		longest = max(longest, end.Sub(begin))
	}
	return longest
}

// StartLoad sends rate requests per second from the node until the load or the lab is stopped.
func (n *Node) StartLoad(target netip.AddrPort, rate int, limit time.Duration) (*Load, error) {
	t, err := newThread(n.t)
	if err != nil {
		return nil, fmt.Errorf("start load on %s: %w", n.Name, err)
	}
	l := &Load{quit: make(chan struct{}), ended: make(chan struct{})}
	go func() {
		defer close(l.ended)
		l.pace(t, target, time.Second/time.Duration(rate), limit)
		t.close()
	}()
	n.lab.onClose(func() { l.Stop() })
	return l, nil
}

func (l *Load) pace(t *thread, target netip.AddrPort, gap, limit time.Duration) {
	var open sync.WaitGroup
	defer open.Wait()
	next := time.Now()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-l.quit:
			return
		case <-timer.C:
		}
		if now := time.Now(); now.Sub(next) > minPause {
			l.mu.Lock()
			l.pauses = append(l.pauses, pause{from: next, to: now})
			l.mu.Unlock()
			next = now // what was missed is not made up for: a burst would be a load that nobody asked for
		}
		open.Go(func() {
			r := get(t, netip.Addr{}, target, limit)
			l.mu.Lock()
			l.requests = append(l.requests, r)
			l.mu.Unlock()
		})
		next = next.Add(gap)
		timer.Reset(time.Until(next))
	}
}

// Stop ends the load, waits for the requests on their way, and returns all of them.
func (l *Load) Stop() Requests {
	l.mu.Lock()
	if !l.stopped {
		l.stopped = true
		close(l.quit)
	}
	l.mu.Unlock()
	<-l.ended
	return l.Requests()
}

// Requests returns the requests that have ended so far, in that order.
func (l *Load) Requests() Requests {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := append(Requests(nil), l.requests...)
	for i, r := range all {
		if r.Outcome != OK {
			all[i].Pause = l.longestPause(r.Start, r.End)
		}
	}
	return all
}

// Requests is a list of finished requests.
type Requests []Request

// Between returns those that were started at or after from and before to.
func (rs Requests) Between(from, to time.Time) Requests {
	var some Requests
	for _, r := range rs {
		if !r.Start.Before(from) && r.Start.Before(to) {
			some = append(some, r)
		}
	}
	return some
}

// Failed returns those that were not answered in full within the limit.
func (rs Requests) Failed() Requests {
	var failed Requests
	for _, r := range rs {
		if r.Outcome != OK {
			failed = append(failed, r)
		}
	}
	return failed
}

// Servers counts the answered requests by server.
func (rs Requests) Servers() map[string]int {
	count := make(map[string]int)
	for _, r := range rs {
		if r.Outcome == OK {
			count[r.Server]++
		}
	}
	return count
}

// Outcomes counts the requests by outcome.
func (rs Requests) Outcomes() map[Outcome]int {
	count := make(map[Outcome]int)
	for _, r := range rs {
		count[r.Outcome]++
	}
	return count
}
