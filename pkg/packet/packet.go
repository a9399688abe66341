// Package packet reads and makes Ethernet frames with TCP or UDP in them, and reads and writes files of frames as tcpdump and
// Wireshark do. It is for looking at packets, not for forwarding them.
package packet

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
)

// The protocols that have ports, by their IANA numbers.
const (
	TCP = 6
	UDP = 17
)

// The flags of TCP that say what a packet is.
const (
	FIN = 0x01
	SYN = 0x02
	RST = 0x04
	ACK = 0x10
)

const (
	ethernetHeader = 14
	typeIPv4       = 0x0800
	typeIPv6       = 0x86dd
	typeVLAN       = 0x8100
	typeServiceTag = 0x88a8
	ipv4Header     = 20
	ipv6Header     = 40
	hops           = 64
)

// Packet is what a frame says about itself.
type Packet struct {
	Destination, Source [6]byte // MAC addresses
	VLAN                uint16  // id of the first tag; 0: none
	From, To            netip.AddrPort
	Protocol            uint8 // of IP
	Flags               uint8 // of TCP
}

// Parse reads the headers of a frame, which may be cut short after them. The error says what is missing; what was read before
// is returned with it. Ports are 0 with a protocol that has none, and in a later fragment.
func Parse(frame []byte) (Packet, error) {
	var p Packet
	if len(frame) < ethernetHeader {
		return p, errors.New("it is cut short in its Ethernet header")
	}
	p.Destination, p.Source = [6]byte(frame), [6]byte(frame[6:])
	kind, rest := binary.BigEndian.Uint16(frame[12:]), frame[ethernetHeader:]
	for (kind == typeVLAN || kind == typeServiceTag) && len(rest) >= 4 {
		if p.VLAN == 0 {
			p.VLAN = binary.BigEndian.Uint16(rest) & 0x0fff
		}
		kind, rest = binary.BigEndian.Uint16(rest[2:]), rest[4:]
	}
	switch kind {
	case typeIPv4:
		return p, p.ipv4(rest)
	case typeIPv6:
		return p, p.ipv6(rest)
	}
	return p, fmt.Errorf("it is no IP packet (Ethernet type 0x%04x)", kind)
}

func (p *Packet) ipv4(b []byte) error {
	if len(b) < ipv4Header {
		return errors.New("it is cut short in its IPv4 header")
	}
	p.From = netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[12:])), 0)
	p.To = netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[16:])), 0)
	p.Protocol = b[9]
	header := int(b[0]&15) * 4
	if header < ipv4Header || len(b) < header {
		return errors.New("it is cut short in its IPv4 options")
	}
	if binary.BigEndian.Uint16(b[6:])&0x1fff != 0 {
		return nil
	}
	return p.ports(b[header:])
}

func (p *Packet) ipv6(b []byte) error {
	if len(b) < ipv6Header {
		return errors.New("it is cut short in its IPv6 header")
	}
	p.From = netip.AddrPortFrom(netip.AddrFrom16([16]byte(b[8:])), 0)
	p.To = netip.AddrPortFrom(netip.AddrFrom16([16]byte(b[24:])), 0)
	p.Protocol = b[6]
	return p.ports(b[ipv6Header:])
}

func (p *Packet) ports(b []byte) error {
	if p.Protocol != TCP && p.Protocol != UDP {
		return nil
	}
	if len(b) < 4 {
		return errors.New("it is cut short before its ports")
	}
	p.From = netip.AddrPortFrom(p.From.Addr(), binary.BigEndian.Uint16(b))
	p.To = netip.AddrPortFrom(p.To.Addr(), binary.BigEndian.Uint16(b[2:]))
	if p.Protocol != TCP {
		return nil
	}
	if len(b) < 14 {
		return errors.New("it is cut short in its TCP header")
	}
	p.Flags = b[13]
	return nil
}

// Kind is what a packet is, in a word: "SYN", "SYN+ACK", "FIN+ACK", "RST", "ACK", "UDP", "ICMP" ...
func (p Packet) Kind() string {
	switch p.Protocol {
	case TCP:
		var words []string
		for _, f := range []struct {
			bit  uint8
			name string
		}{{SYN, "SYN"}, {FIN, "FIN"}, {RST, "RST"}, {ACK, "ACK"}} {
			if p.Flags&f.bit != 0 {
				words = append(words, f.name)
			}
		}
		if len(words) == 0 {
			return "TCP"
		}
		return strings.Join(words, "+")
	case UDP:
		return "UDP"
	case 1, 58:
		return "ICMP"
	case 112:
		return "VRRP"
	}
	return fmt.Sprintf("IP protocol %d", p.Protocol)
}

// String says who sends what to whom: "SYN 192.0.2.1:40000 > 192.168.5.100:80".
func (p Packet) String() string {
	if !p.From.IsValid() {
		return fmt.Sprintf("frame %s > %s", net.HardwareAddr(p.Source[:]), net.HardwareAddr(p.Destination[:]))
	}
	if p.Protocol != TCP && p.Protocol != UDP {
		return fmt.Sprintf("%s %s > %s", p.Kind(), p.From.Addr(), p.To.Addr())
	}
	return fmt.Sprintf("%s %s > %s", p.Kind(), p.From, p.To)
}

// Frame makes the packet, without payload and with right checksums.
func (p Packet) Frame() []byte {
	frame := append(append([]byte(nil), p.Destination[:]...), p.Source[:]...)
	if p.VLAN != 0 {
		frame = binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(frame, typeVLAN), p.VLAN)
	}
	segment := p.segment()
	source, destination := p.From.Addr().AsSlice(), p.To.Addr().AsSlice()
	if p.From.Addr().Is4() {
		ip := make([]byte, ipv4Header)
		ip[0], ip[8], ip[9] = 4<<4|ipv4Header/4, hops, p.Protocol
		binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)+len(segment)))
		copy(ip[12:], source)
		copy(ip[16:], destination)
		binary.BigEndian.PutUint16(ip[10:], checksum(ip, 0))
		return append(append(binary.BigEndian.AppendUint16(frame, typeIPv4), ip...), segment...)
	}
	ip := make([]byte, 8, ipv6Header)
	ip[0], ip[6], ip[7] = 6<<4, p.Protocol, hops
	binary.BigEndian.PutUint16(ip[4:], uint16(len(segment)))
	ip = append(append(ip, source...), destination...)
	return append(append(binary.BigEndian.AppendUint16(frame, typeIPv6), ip...), segment...)
}

// segment is what is in the IP packet.
func (p Packet) segment() []byte {
	b, at := make([]byte, 20), 16
	if p.Protocol == UDP {
		b, at = b[:8], 6
		b[5] = 8
	} else {
		b[12], b[13] = 5<<4, p.Flags
		binary.BigEndian.PutUint16(b[14:], 64240) // the window that Linux begins with
	}
	binary.BigEndian.PutUint16(b, p.From.Port())
	binary.BigEndian.PutUint16(b[2:], p.To.Port())
	pseudo := append(append(p.From.Addr().AsSlice(), p.To.Addr().AsSlice()...), 0, p.Protocol, 0, byte(len(b)))
	sum := checksum(b, onesSum(pseudo, 0))
	if sum == 0 && p.Protocol == UDP {
		sum = 0xffff // 0 means that there is none
	}
	binary.BigEndian.PutUint16(b[at:], sum)
	return b
}

// checksum is that of RFC 1071, over b and what was summed before.
func checksum(b []byte, sum uint32) uint16 {
	sum = onesSum(b, sum)
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

func onesSum(b []byte, sum uint32) uint32 {
	for i, x := range b {
		sum += uint32(x) << (8 * (1 - i%2))
	}
	return sum
}
