package health

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"
)

// icmpProber sends one echo request and succeeds when its reply comes. All targets of a family share one raw socket,
// which is opened by the first probe and closed at the end of Run.
type icmpProber struct {
	mu sync.Mutex
	v4 *echoSocket
	v6 *echoSocket
}

func (i *icmpProber) probe(ctx context.Context, p probe) error {
	s, err := i.socket(p.address)
	if err != nil {
		return err
	}
	reply, cancel, err := s.send(p.source, p.address)
	if err != nil {
		return err
	}
	defer cancel()
	select {
	case <-reply:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("no echo reply: timeout after %v", p.check.Timeout)
	}
}

func (i *icmpProber) socket(target netip.Addr) (*echoSocket, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	s, open := &i.v4, openEcho4
	if target.Is6() {
		s, open = &i.v6, openEcho6
	}
	if *s == nil {
		opened, err := open()
		if err != nil {
			if errors.Is(err, os.ErrPermission) {
				return nil, fmt.Errorf("open icmp socket: %w: icmp checks need CAP_NET_RAW", err)
			}
			return nil, fmt.Errorf("open icmp socket: %w", err)
		}
		*s = opened
	}
	return *s, nil
}

// close ends the readers. A later probe opens the sockets again.
func (i *icmpProber) close() {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, s := range []**echoSocket{&i.v4, &i.v6} {
		if *s != nil {
			(*s).conn.Close()
			<-(*s).done
			*s = nil
		}
	}
}

// echoSocket is the raw socket of one family and the probes that wait for a reply on it.
type echoSocket struct {
	conn     *net.IPConn
	write    func(message []byte, source, target netip.Addr) error
	request  icmp.Type
	reply    icmp.Type
	protocol int // for parsing
	id       uint16
	done     chan struct{} // closed when the reader has ended

	mu      sync.Mutex
	next    uint16
	waiting map[uint16]*echo // by sequence number
}

// echo is one request on the wire.
type echo struct {
	target netip.Addr
	token  [16]byte // a reply must bring it back: nobody off the path can invent one
	reply  chan struct{}
}

func openEcho4() (*echoSocket, error) {
	conn, err := net.ListenIP("ip4:icmp", nil)
	if err != nil {
		return nil, err
	}
	if err := onlyEchoReplies(conn); err != nil {
		conn.Close()
		return nil, err
	}
	packets := ipv4.NewPacketConn(conn)
	return newEchoSocket(&echoSocket{
		conn: conn, request: ipv4.ICMPTypeEcho, reply: ipv4.ICMPTypeEchoReply, protocol: unix.IPPROTO_ICMP,
		write: func(message []byte, source, target netip.Addr) error {
			_, err := packets.WriteTo(message, &ipv4.ControlMessage{Src: source.AsSlice()}, &net.IPAddr{IP: target.AsSlice()})
			return err
		},
	}), nil
}

func openEcho6() (*echoSocket, error) {
	conn, err := net.ListenIP("ip6:ipv6-icmp", nil)
	if err != nil {
		return nil, err
	}
	packets := ipv6.NewPacketConn(conn)
	var filter ipv6.ICMPFilter
	filter.SetAll(true)
	filter.Accept(ipv6.ICMPTypeEchoReply)
	if err := packets.SetICMPFilter(&filter); err != nil {
		conn.Close()
		return nil, err
	}
	return newEchoSocket(&echoSocket{
		conn: conn, request: ipv6.ICMPTypeEchoRequest, reply: ipv6.ICMPTypeEchoReply, protocol: unix.IPPROTO_ICMPV6,
		write: func(message []byte, source, target netip.Addr) error {
			_, err := packets.WriteTo(message, &ipv6.ControlMessage{Src: source.AsSlice()}, &net.IPAddr{IP: target.AsSlice(), Zone: target.Zone()})
			return err
		},
	}), nil
}

// onlyEchoReplies keeps the kernel from waking this process for every other ICMP message that reaches the box.
func onlyEchoReplies(conn *net.IPConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		const echoReply = 0
		blocked := ^uint32(1 << echoReply) // a bit for each type that is not wanted
		failed = os.NewSyscallError("setsockopt", unix.SetsockoptInt(int(fd), unix.SOL_RAW, unix.ICMP_FILTER, int(int32(blocked))))
	})
	return errors.Join(err, failed)
}

func newEchoSocket(s *echoSocket) *echoSocket {
	var seed [4]byte
	rand.Read(seed[:]) // never fails
	s.id, s.next = binary.BigEndian.Uint16(seed[:2]), binary.BigEndian.Uint16(seed[2:])
	s.waiting = map[uint16]*echo{}
	s.done = make(chan struct{})
	go s.read()
	return s
}

// send puts a request on the wire. The channel it returns is closed by the reply; cancel must be called in the end.
func (s *echoSocket) send(source, target netip.Addr) (reply <-chan struct{}, cancel func(), err error) {
	e := &echo{target: target.WithZone(""), reply: make(chan struct{})}
	rand.Read(e.token[:])
	sequence, err := s.register(e)
	if err != nil {
		return nil, nil, err
	}
	cancel = func() {
		s.mu.Lock()
		delete(s.waiting, sequence)
		s.mu.Unlock()
	}
	message := icmp.Message{Type: s.request, Body: &icmp.Echo{ID: int(s.id), Seq: int(sequence), Data: e.token[:]}}
	// The checksum of ICMPv6 is the kernel's work: it knows the addresses.
	packet, err := message.Marshal(nil)
	if err == nil {
		err = s.write(packet, source, target)
	}
	if err != nil {
		cancel()
		var call *os.SyscallError
		if errors.As(err, &call) {
			err = call.Err
		}
		return nil, nil, fmt.Errorf("send echo request from %s: %w", source, err)
	}
	return e.reply, cancel, nil
}

// register finds a free sequence number.
func (s *echoSocket) register(e *echo) (uint16, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.waiting) > 1<<15 {
		return 0, errors.New("more than 32768 icmp checks wait for a reply")
	}
	for {
		s.next++
		if s.waiting[s.next] == nil {
			s.waiting[s.next] = e
			return s.next, nil
		}
	}
}

func (s *echoSocket) read() {
	defer close(s.done)
	buffer := make([]byte, 2048)
	for {
		n, from, err := s.conn.ReadFrom(buffer)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // an ICMP error about an earlier request: that one times out
		}
		if address, ok := from.(*net.IPAddr); ok {
			if source, ok := netip.AddrFromSlice(address.IP); ok {
				s.receive(source.Unmap(), buffer[:n])
			}
		}
	}
}

// receive wakes the probe that a packet answers. Whatever isn't the reply of a waiting target is ignored: the socket
// sees the replies to everybody's pings.
func (s *echoSocket) receive(source netip.Addr, packet []byte) {
	message, err := icmp.ParseMessage(s.protocol, packet)
	if err != nil || message.Type != s.reply {
		return
	}
	body, ok := message.Body.(*icmp.Echo)
	if !ok || body.ID != int(s.id) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.waiting[uint16(body.Seq)]
	if e == nil || e.target != source || string(body.Data) != string(e.token[:]) {
		return
	}
	delete(s.waiting, uint16(body.Seq))
	close(e.reply)
}
