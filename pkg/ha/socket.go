package ha

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"syscall"

	"github.com/mdlayher/packet"
	"golang.org/x/net/bpf"
	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

// port is the sockets of one interface, shared by all instances on it: one packet socket that receives adverts with
// their Ethernet source, one raw IP socket that sends them and is a member of the group, so that the NIC and the
// switches deliver it.
type port struct {
	name  string
	index int
	mac   net.HardwareAddr

	recv   *packet.Conn
	raw    syscall.RawConn // of recv
	send   *ipv4.RawConn
	sendFD syscall.RawConn // of send
	id     uint16          // of the last IP packet sent
	again  chan struct{}   // capacity 1: the loop has emptied the queue
	closed chan struct{}
}

// openPort opens the sockets in the network namespace of the calling thread. Adverts of other VRIDs than the given
// ones don't leave the kernel.
func openPort(name string, k link, vrids []uint8) (*port, error) {
	ifi := &net.Interface{Index: k.Index, Name: name, HardwareAddr: k.MAC}
	p := &port{name: name, index: k.Index, mac: k.MAC, again: make(chan struct{}, 1), closed: make(chan struct{})}
	fail := func(what string, err error) (*port, error) {
		p.closeSockets()
		return nil, fmt.Errorf("%s on interface %s: %w%s", what, name, err, cure(err))
	}
	var err error
	if p.recv, err = packet.Listen(ifi, packet.Datagram, unix.ETH_P_IP, &packet.Config{Filter: advertFilter(vrids)}); err != nil {
		return fail("open a packet socket for adverts", err)
	}
	if p.raw, err = p.recv.SyscallConn(); err != nil {
		return fail("use the packet socket", err)
	}
	var optErr error
	err = p.raw.Control(func(fd uintptr) {
		// Room for a burst of 255 instances; a flood needs more than this to push out adverts that count.
		_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 1<<20) // the default will do
		optErr = unix.SetsockoptInt(int(fd), unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1)
	})
	if err = errors.Join(err, optErr); err != nil {
		return fail("keep own adverts from the packet socket", err)
	}
	if p.send, p.sendFD, err = openSender(ifi); err != nil {
		return fail("open a raw socket for adverts", err)
	}
	return p, nil
}

// openSender opens the raw IP socket. It receives nothing: its queue would only fill up.
func openSender(ifi *net.Interface) (*ipv4.RawConn, syscall.RawConn, error) {
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var optErr error
		err := c.Control(func(fd uintptr) {
			var filter []unix.SockFilter
			for _, i := range nothing {
				filter = append(filter, unix.SockFilter{Code: i.Op, Jt: i.Jt, Jf: i.Jf, K: i.K})
			}
			optErr = errors.Join(
				// Without it the kernel says that an advert was sent that the queue of the interface has dropped.
				unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_RECVERR, 1),
				unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}),
				unix.BindToDevice(int(fd), ifi.Name))
		})
		return errors.Join(err, optErr)
	}}
	conn, err := config.ListenPacket(context.Background(), fmt.Sprintf("ip4:%d", protocolVRRP), "0.0.0.0")
	if err != nil {
		return nil, nil, err
	}
	raw, err := ipv4.NewRawConn(conn)
	if err == nil {
		err = errors.Join(raw.SetMulticastInterface(ifi), raw.SetMulticastLoopback(false),
			raw.JoinGroup(ifi, &net.IPAddr{IP: group.AsSlice()}))
	}
	var fd syscall.RawConn
	if err == nil {
		fd, err = conn.(*net.IPConn).SyscallConn()
	}
	if err != nil {
		conn.Close()
		return nil, nil, err
	}
	return raw, fd, nil
}

// nothing is a socket filter that drops every packet.
var nothing = mustAssemble(bpf.RetConstant{Val: 0})

// advertFilter is a socket filter that passes adverts of the VRIDs: IP protocol 112, and the second byte after the
// header. A packet too short for that is dropped.
func advertFilter(vrids []uint8) []bpf.RawInstruction {
	program := []bpf.Instruction{
		bpf.LoadAbsolute{Off: 9, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: protocolVRRP, SkipTrue: 1},
		bpf.RetConstant{Val: 0},
		bpf.LoadMemShift{Off: 0},
		bpf.LoadIndirect{Off: 1, Size: 1},
	}
	for _, v := range vrids {
		program = append(program,
			bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: uint32(v), SkipTrue: 1},
			bpf.RetConstant{Val: math.MaxUint16})
	}
	return mustAssemble(append(program, bpf.RetConstant{Val: 0})...)
}

func mustAssemble(program ...bpf.Instruction) []bpf.RawInstruction {
	raw, err := bpf.Assemble(program)
	if err != nil {
		panic("assemble a socket filter of constants: " + err.Error())
	}
	return raw
}

// wait tells the loop when there is something to receive, and waits then until the loop has seen to it. Only the
// loop takes packets out: so it can empty the queue before it believes that a MASTER is silent.
func (p *port) wait(readable chan<- *port) {
	for {
		err := p.raw.Read(func(fd uintptr) bool {
			_, _, err := unix.Recvfrom(int(fd), nil, unix.MSG_PEEK|unix.MSG_DONTWAIT)
			return !errors.Is(err, unix.EAGAIN)
		})
		if err != nil {
			return // closed
		}
		select {
		case readable <- p:
		case <-p.closed:
			return
		}
		select {
		case <-p.again:
		case <-p.closed:
			return
		}
	}
}

// receive takes one packet from the queue. It returns no bytes and no error for one that is not meant for this
// interface (another host's, another VLAN's) or larger than b; unix.EAGAIN when the queue is empty.
func (p *port) receive(b []byte) (packet []byte, mac [6]byte, err error) {
	var n int
	var from unix.Sockaddr
	var recvErr error
	err = p.raw.Control(func(fd uintptr) {
		n, from, recvErr = unix.Recvfrom(int(fd), b, unix.MSG_DONTWAIT|unix.MSG_TRUNC)
	})
	if err = errors.Join(err, recvErr); err != nil {
		if errors.Is(err, unix.EINTR) || errors.Is(err, unix.ENETDOWN) { // the latter is told once, then it goes on
			err = nil
		}
		return nil, mac, err
	}
	sender, ok := from.(*unix.SockaddrLinklayer)
	if !ok || n > len(b) || sender.Pkttype == unix.PACKET_OTHERHOST || sender.Pkttype == unix.PACKET_OUTGOING {
		return nil, mac, nil
	}
	return b[:n], [6]byte(sender.Addr[:6]), nil
}

// advertise sends an advert: TTL 255, TOS 0xc0, no flags, an identification of its own, as keepalived does. It never
// waits: when the queue of the interface is full, the advert is lost, and the others are in time.
func (p *port) advertise(source netip.Addr, payload []byte) error {
	if p.id++; p.id == 0 {
		p.id = 1 // the kernel would replace a 0
	}
	header := &ipv4.Header{
		Version:  ipv4.Version,
		Len:      ipv4.HeaderLen,
		TOS:      0xc0,
		TotalLen: ipv4.HeaderLen + len(payload),
		ID:       int(p.id),
		TTL:      255,
		Protocol: protocolVRRP,
		Src:      source.AsSlice(),
		Dst:      group.AsSlice(),
	}
	packet, err := header.Marshal()
	if err == nil {
		var sendErr error
		err = p.sendFD.Control(func(fd uintptr) {
			to := &unix.SockaddrInet4{Addr: group.As4()}
			sendErr = unix.Sendto(int(fd), append(packet, payload...), unix.MSG_DONTWAIT, to)
		})
		err = errors.Join(err, sendErr)
	}
	if err != nil {
		return fmt.Errorf("send advert on %s: %w", p.name, err)
	}
	return nil
}

// close closes the sockets beside the loop: the kernel waits there until no CPU uses them any more.
func (p *port) close() {
	close(p.closed)
	go p.closeSockets()
}

func (p *port) closeSockets() {
	if p.recv != nil {
		p.recv.Close()
	}
	if p.send != nil {
		p.send.Close()
	}
}
