package lab

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Ping asks an address for an echo at a fixed rate, and keeps which were answered.
type Ping struct {
	quit chan struct{}
	done sync.WaitGroup
	f    *os.File

	mu     sync.Mutex
	echoes []echo
}

type echo struct {
	sent     time.Time
	answered bool
}

const echoHeader = 8

// StartPing sends an echo request from the node every so often until the ping or the lab is stopped. IPv4 only.
func (n *Node) StartPing(target netip.Addr, every time.Duration) (*Ping, error) {
	p := &Ping{quit: make(chan struct{})}
	err := n.t.do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_ICMP)
		if err != nil {
			return os.NewSyscallError("socket", err)
		}
		if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: target.As4()}); err != nil {
			_ = unix.Close(fd)
			return os.NewSyscallError("connect", err)
		}
		p.f = os.NewFile(uintptr(fd), "icmp")
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("ping %s from %s: %w", target, n.Name, err)
	}
	p.done.Go(func() { p.send(every) })
	p.done.Go(p.receive)
	n.lab.onClose(func() { p.Stop() })
	return p, nil
}

func (p *Ping) send(every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	request := make([]byte, echoHeader+4)
	for n := uint32(0); ; n++ {
		select {
		case <-p.quit:
			return
		case <-tick.C:
		}
		request[0], request[2], request[3] = 8, 0, 0
		binary.BigEndian.PutUint32(request[echoHeader:], n)
		binary.BigEndian.PutUint16(request[2:], checksum(0, request))
		p.mu.Lock()
		p.echoes = append(p.echoes, echo{sent: time.Now()})
		p.mu.Unlock()
		_, _ = p.f.Write(request) // what can't be sent is not answered
	}
}

func (p *Ping) receive() {
	b := make([]byte, 256)
	for {
		size, err := p.f.Read(b)
		select {
		case <-p.quit:
			return
		default:
		}
		if err != nil || size < 20+echoHeader+4 || b[20] != 0 {
			continue // an ICMP error, or another's packet
		}
		n := int(binary.BigEndian.Uint32(b[20+echoHeader:]))
		p.mu.Lock()
		if n < len(p.echoes) {
			p.echoes[n].answered = true
		}
		p.mu.Unlock()
	}
}

// Stop ends the ping.
func (p *Ping) Stop() {
	p.mu.Lock()
	select {
	case <-p.quit:
	default:
		close(p.quit)
	}
	p.mu.Unlock()
	_ = p.f.SetReadDeadline(time.Unix(1, 0))
	p.done.Wait()
	_ = p.f.Close()
}

// Gap is the longest time without an answer: from the first request of a row that was not answered to the next one that
// was. 0: all were. Call it when the ping has stopped.
func (p *Ping) Gap(from, to time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	var longest time.Duration
	var since time.Time
	for _, e := range p.echoes {
		switch {
		case e.sent.Before(from) || e.sent.After(to):
		case !e.answered && since.IsZero():
			since = e.sent
		case e.answered && !since.IsZero():
			longest = max(longest, e.sent.Sub(since))
			since = time.Time{}
		}
	}
	if !since.IsZero() {
		longest = max(longest, to.Sub(since))
	}
	return longest
}
