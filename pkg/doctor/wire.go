package doctor

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xdirector/xdirector/pkg/vrrp"
)

// heard is an advert of another box.
type heard struct {
	on     string // our interface
	source netip.Addr
	mac    string
	advert vrrp.Advert
}

// ears listen to some interfaces for adverts and for who has an address.
type ears struct {
	sockets []int // one for each link
	links   []link
	adverts []heard
	owners  map[netip.Addr][]string // MAC addresses that answered for an address
}

const (
	etherARP  = 0x0806
	etherIPv4 = 0x0800
	etherIPv6 = 0x86dd
)

// openEars opens a packet socket for each interface that is up.
func openEars(links []link) (*ears, error) {
	e := &ears{owners: map[netip.Addr][]string{}}
	for _, l := range links {
		if !l.is("UP") || l.is("LOOPBACK") {
			continue
		}
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			e.close()
			return nil, fmt.Errorf("listen on %s: %w", l.Name, err)
		}
		e.sockets, e.links = append(e.sockets, fd), append(e.links, l)
		filter := filterOfEars()
		if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}); err != nil {
			e.close()
			return nil, fmt.Errorf("listen on %s: filter: %w", l.Name, err)
		}
		if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: networkOrder(unix.ETH_P_ALL), Ifindex: l.Index}); err != nil {
			e.close()
			return nil, fmt.Errorf("listen on %s: %w", l.Name, err)
		}
		// Adverts come to groups that nobody here need have joined.
		_ = unix.SetsockoptPacketMreq(fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP, &unix.PacketMreq{Ifindex: int32(l.Index), Type: unix.PACKET_MR_ALLMULTI})
	}
	return e, nil
}

func networkOrder(n uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, n))
}

// filterOfEars lets pass ARP, protocol 112 and neighbour advertisements: on a busy director everything else would be far
// too much.
func filterOfEars() []unix.SockFilter {
	half := func(at uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_H | unix.BPF_ABS, K: at}
	}
	octet := func(at uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: at}
	}
	equal := func(k uint32, yes, no uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: k, Jt: yes, Jf: no}
	}
	return []unix.SockFilter{
		half(12),
		equal(etherARP, 10, 0),
		equal(etherIPv4, 0, 2),
		octet(23),
		equal(protocolVRRP, 7, 6),
		equal(etherIPv6, 0, 5),
		octet(20),
		equal(protocolVRRP, 4, 0),
		equal(protocolICMP6, 0, 2),
		octet(54),
		equal(136, 1, 0),
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
		{Code: unix.BPF_RET | unix.BPF_K, K: 1 << 16},
	}
}

func (e *ears) close() {
	for _, fd := range e.sockets {
		unix.Close(fd)
	}
}

// wanted is an address whose owners are asked for.
type wanted struct {
	address netip.Addr
	on      string // the interface; empty: all
}

// ask sends who-has questions without a sender's address, which nobody learns anything from. A failure to send is silence.
func (e *ears) ask(list []wanted) {
	for n, l := range e.links {
		mac, err := net.ParseMAC(l.MAC)
		if err != nil || len(mac) != 6 {
			continue
		}
		for _, w := range list {
			if w.on != "" && w.on != l.Name {
				continue
			}
			frame := question(mac, w.address)
			_ = unix.Sendto(e.sockets[n], frame, 0, &unix.SockaddrLinklayer{Protocol: networkOrder(etherARP), Ifindex: l.Index, Halen: 6})
		}
	}
}

// question is an ARP probe (RFC 5227), or for IPv6 a neighbour solicitation without a source (RFC 4862, 5.4.2).
func question(mac net.HardwareAddr, who netip.Addr) []byte {
	if who.Is4() {
		b := slices.Concat([]byte{255, 255, 255, 255, 255, 255}, mac, []byte{8, 6, 0, 1, 8, 0, 6, 4, 0, 1}, mac, make([]byte, 4+6), who.AsSlice())
		return append(b, make([]byte, 60-len(b))...)
	}
	target := who.As16()
	group := [16]byte{0xff, 2, 10: 0, 11: 1, 12: 0xff, 13: target[13], 14: target[14], 15: target[15]}
	message := slices.Concat([]byte{135, 0, 0, 0, 0, 0, 0, 0}, target[:])
	sum := uint32(len(message)) + protocolICMP6
	for _, part := range [][]byte{group[:], message} {
		for i := 0; i < len(part); i += 2 {
			sum += uint32(part[i])<<8 | uint32(part[i+1])
		}
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	binary.BigEndian.PutUint16(message[2:], ^uint16(sum))
	return slices.Concat([]byte{0x33, 0x33, 0xff, target[13], target[14], target[15]}, mac, []byte{0x86, 0xdd, 0x60, 0, 0, 0, 0, byte(len(message)), protocolICMP6, 255},
		make([]byte, 16), group[:], message)
}

// listenFor asks for addresses and hears what comes until the time is over.
func (e *ears) listenFor(d time.Duration, list []wanted) error {
	polls := make([]unix.PollFd, 0, len(e.sockets))
	for _, fd := range e.sockets {
		polls = append(polls, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
	}
	const again = time.Second // a question or its answer may be lost
	end, next := time.Now().Add(d), time.Now()
	frame := make([]byte, 2048)
	for {
		now := time.Now()
		if !now.Before(next) && now.Before(end) {
			e.ask(list)
			next = now.Add(again)
		}
		wait := min(end.Sub(now), next.Sub(now))
		if end.Sub(now) <= 0 {
			return nil
		}
		if _, err := unix.Poll(polls, int(wait/time.Millisecond)+1); err != nil && err != unix.EINTR {
			return fmt.Errorf("listen: %w", err)
		}
		for n, p := range polls {
			if p.Revents == 0 {
				continue
			}
			size, from, err := unix.Recvfrom(int(p.Fd), frame, 0)
			ll, ok := from.(*unix.SockaddrLinklayer)
			if err == nil && ok && ll.Pkttype != unix.PACKET_OUTGOING {
				e.hear(e.links[n], frame[:size], list)
			}
		}
	}
}

// hear takes note of one frame.
func (e *ears) hear(on link, frame []byte, list []wanted) {
	if len(frame) < 14 {
		return
	}
	mac, body := net.HardwareAddr(frame[6:12]).String(), frame[14:]
	switch kind := binary.BigEndian.Uint16(frame[12:]); {
	case kind == etherARP && len(body) >= 28 && body[7] == 2:
		e.owner(on, list, netip.AddrFrom4([4]byte(body[14:18])), net.HardwareAddr(body[8:14]).String())
	case kind == etherIPv4 && len(body) >= 20 && int(body[0]&15)*4 <= len(body):
		total := int(binary.BigEndian.Uint16(body[2:]))
		if start := int(body[0]&15) * 4; start >= 20 && start <= total && total <= len(body) {
			e.advert(on, mac, netip.AddrFrom4([4]byte(body[12:16])), netip.AddrFrom4([4]byte(body[16:20])), body[start:total])
		}
	case kind == etherIPv6 && len(body) >= 40:
		total := 40 + int(binary.BigEndian.Uint16(body[4:]))
		switch {
		case total > len(body):
		case body[6] == protocolVRRP:
			e.advert(on, mac, netip.AddrFrom16([16]byte(body[8:24])), netip.AddrFrom16([16]byte(body[24:40])), body[40:total])
		case total >= 64 && body[40] == 136:
			e.owner(on, list, netip.AddrFrom16([16]byte(body[48:64])), mac)
		}
	}
}

func (e *ears) advert(on link, mac string, from, to netip.Addr, message []byte) {
	a, err := vrrp.Parse(message, from, to)
	if err != nil || slices.ContainsFunc(on.Addresses, func(own address) bool { return own.Local == from }) {
		return
	}
	same := func(h heard) bool {
		return h.on == on.Name && h.source == from && h.advert.VRID == a.VRID && h.advert.Version == a.Version
	}
	if !slices.ContainsFunc(e.adverts, same) {
		e.adverts = append(e.adverts, heard{on.Name, from, mac, a})
	}
}

// owner takes note of an answer, if it came where the address was asked for.
func (e *ears) owner(on link, list []wanted, a netip.Addr, mac string) {
	asked := slices.ContainsFunc(list, func(w wanted) bool { return w.address == a && (w.on == "" || w.on == on.Name) })
	if asked && !slices.Contains(e.owners[a], mac) {
		e.owners[a] = append(e.owners[a], mac)
	}
}
