package ha

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// frameLimit is larger than any frame with an advert: 255 addresses of IPv6.
const frameLimit = 14 + 40 + 8 + 255*16 + 32

// place where adverts of one family arrive on one interface.
type portKey struct {
	name string
	ipv6 bool
}

// port is where the adverts of one family arrive on one interface, for all instances there: a packet socket, which gives
// whole frames, and a socket that is a member of the group, so that the NIC and the switches deliver it.
type port struct {
	portKey
	index   int
	fd      int
	member  int
	vrids   []uint8        // that the filter of fd passes
	routers [256]*instance // by VRID
	drained time.Duration  // what had arrived until then was taken
}

// openPort opens the sockets in the network namespace of the calling thread. Adverts of other VRIDs than the given
// ones don't leave the kernel.
func openPort(key portKey, index int, vrids []uint8) (*port, error) {
	p := &port{portKey: key, index: index, fd: -1, member: -1}
	fail := func(what string, err error) (*port, error) {
		p.closeSockets()
		return nil, fmt.Errorf("%s on interface %s: %w%s", what, key.name, err, cure(err))
	}
	var err error
	// Protocol 0 receives nothing, until the filter is in place.
	if p.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err != nil {
		return fail("open a packet socket for adverts", err)
	}
	// Room for a burst of 255 instances; a flood needs more than this to push out adverts that count.
	_ = unix.SetsockoptInt(p.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 1<<20) // the default will do
	if err = unix.SetsockoptInt(p.fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1); err != nil {
		return fail("keep own adverts from the packet socket", err)
	}
	if err := p.listenTo(vrids); err != nil {
		return fail("filter adverts", err)
	}
	bind := &unix.SockaddrLinklayer{Ifindex: index, Protocol: networkOrder(unix.ETH_P_IP)}
	if key.ipv6 {
		bind.Protocol = networkOrder(unix.ETH_P_IPV6)
	}
	if err := unix.Bind(p.fd, bind); err != nil {
		return fail("receive adverts", err)
	}
	if p.member, err = joinGroup(index, key.ipv6); err != nil {
		what := "join the multicast group " + group.String()
		if key.ipv6 {
			what = "join the multicast group " + group6.String() + " (is IPv6 switched off there?)"
		}
		return fail(what, err)
	}
	return p, nil
}

// joinGroup opens a socket that receives nothing but is a member of the group. The kernel allows each socket only a few
// memberships.
func joinGroup(index int, ipv6 bool) (fd int, err error) {
	domain := unix.AF_INET
	if ipv6 {
		domain = unix.AF_INET6
	}
	if fd, err = unix.Socket(domain, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
		return -1, err
	}
	if ipv6 {
		err = unix.SetsockoptIPv6Mreq(fd, unix.IPPROTO_IPV6, unix.IPV6_JOIN_GROUP, &unix.IPv6Mreq{Multiaddr: group6.As16(), Interface: uint32(index)})
	} else {
		err = unix.SetsockoptIPMreqn(fd, unix.IPPROTO_IP, unix.IP_ADD_MEMBERSHIP, &unix.IPMreqn{Multiaddr: group.As4(), Ifindex: int32(index)})
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// listenTo has adverts of these VRIDs, in rising order, leave the kernel.
func (p *port) listenTo(vrids []uint8) error {
	if p.vrids != nil && slices.Equal(p.vrids, vrids) {
		return nil
	}
	var program []unix.SockFilter
	for _, i := range advertFilter(p.ipv6, vrids) {
		program = append(program, unix.SockFilter{Code: i.Op, Jt: i.Jt, Jf: i.Jf, K: i.K})
	}
	err := unix.SetsockoptSockFprog(p.fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]})
	if err == nil {
		p.vrids = vrids
	}
	return err
}

// advertFilter is a socket filter that passes frames with adverts of the VRIDs, which rise: IP protocol 112, and the second
// byte after the IP header. A packet too short for that is dropped.
func advertFilter(ipv6 bool, vrids []uint8) []bpf.RawInstruction {
	protocol := uint32(etherHeader + 9)
	if ipv6 {
		protocol = etherHeader + 6
	}
	program := []bpf.Instruction{
		bpf.LoadAbsolute{Off: protocol, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: protocolVRRP, SkipTrue: 1},
		bpf.RetConstant{Val: 0},
	}
	if ipv6 {
		program = append(program, bpf.LoadAbsolute{Off: etherHeader + 40 + 1, Size: 1})
	} else {
		program = append(program, bpf.LoadMemShift{Off: etherHeader}, bpf.LoadIndirect{Off: etherHeader + 1, Size: 1})
	}
	for at := 0; at < len(vrids); {
		end := at // of the VRIDs that follow one another
		for end+1 < len(vrids) && vrids[end+1] == vrids[end]+1 {
			end++
		}
		program = append(program,
			bpf.JumpIf{Cond: bpf.JumpLessThan, Val: uint32(vrids[at]), SkipTrue: 2},
			bpf.JumpIf{Cond: bpf.JumpGreaterThan, Val: uint32(vrids[end]), SkipTrue: 1},
			bpf.RetConstant{Val: math.MaxUint16})
		at = end + 1
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

// mine says whether a frame was meant for this interface: not for another host or another VLAN.
func (p *port) mine(from *unix.RawSockaddrLinklayer) bool {
	return int(from.Ifindex) == p.index && from.Pkttype != unix.PACKET_OTHERHOST && from.Pkttype != unix.PACKET_OUTGOING
}

// close closes the sockets beside the loop: the kernel waits there until no CPU uses them any more.
func (p *port) close() { go p.closeSockets() }

func (p *port) closeSockets() {
	for _, fd := range []int{p.fd, p.member} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}

// networkOrder is the value whose bytes in memory are those of v on the wire.
func networkOrder(v uint16) uint16 {
	return binary.NativeEndian.Uint16([]byte{byte(v >> 8), byte(v)})
}

// passing says that an error of receiving is told once and then over, or is none.
func passing(err error) bool { return errors.Is(err, unix.EINTR) || errors.Is(err, unix.ENETDOWN) }
