package lab

import (
	"encoding/binary"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// Forged is an advert to be made, every field of which can be wrong. Node.Forge fills it as a router would.
type Forged struct {
	From, To            net.HardwareAddr
	Source, Destination netip.Addr
	TTL, TOS            uint8
	ID, Flags           uint16 // IPv4; Flags with the fragment offset
	Options             []byte // IPv4, a multiple of 4 bytes
	Protocol            uint8
	IPLength            int  // added to the true total (IPv6: payload) length
	BadIPSum            bool // IPv4

	Version, Type, VRID, Priority uint8
	Count                         int // as it stands in the packet
	AuthType                      uint8
	Password                      string // version 2, at most 8 bytes
	Reserved                      uint8  // version 3: the four bits in front of the interval
	Interval                      time.Duration
	Addresses                     []netip.Addr
	Trailer                       []byte // behind all that, not in the checksum
	Sum                           Sum
	Padding                       int // of the frame, behind the IP packet
}

// Sum is a way to make a VRRP checksum.
type Sum uint8

// The checksums. Over IPv6 a right one always has the pseudo-header.
const (
	RightSum   Sum = iota // version 3 over IPv4: RFC 5798 as keepalived and FRR read it, with a pseudo-header
	MessageSum            // the message alone: RFC 9568 over IPv4
	GroupSum              // a pseudo-header with the multicast group, whatever the destination is: keepalived before 1.3.7
	WrongSum
)

var (
	group4 = netip.MustParseAddr("224.0.0.18")
	group6 = netip.MustParseAddr("ff02::12")
)

// Forge returns an advert of the node with nothing wrong in it.
func (n *Node) Forge(version, vrid, priority uint8, interval time.Duration, addresses ...netip.Addr) Forged {
	f := Forged{
		From: n.MAC, Source: n.Address, Destination: group4, To: groupMAC(group4), TTL: 255, TOS: 0xc0, ID: 1, Protocol: protocolVRRP,
		Version: version, Type: 1, VRID: vrid, Priority: priority, Count: len(addresses), Interval: interval, Addresses: addresses,
	}
	if len(addresses) > 0 && addresses[0].Is6() {
		f.Source, f.Destination, f.To = n.LinkLocal, group6, groupMAC(group6)
	}
	return f
}

func groupMAC(group netip.Addr) net.HardwareAddr {
	if a := group.AsSlice(); group.Is6() {
		return net.HardwareAddr{0x33, 0x33, a[12], a[13], a[14], a[15]}
	}
	a := group.As4()
	return net.HardwareAddr{1, 0, 0x5e, a[1] & 0x7f, a[2], a[3]}
}

// Frame makes the bytes.
func (f Forged) Frame() []byte {
	message := f.message()
	b := append(clone(f.To), f.From...)
	if f.Source.Is6() {
		b = binary.BigEndian.AppendUint16(b, unix.ETH_P_IPV6)
		b = append(b, 0x60|f.TOS>>4, f.TOS<<4, 0, 0)
		b = binary.BigEndian.AppendUint16(b, uint16(len(message)+f.IPLength))
		b = append(b, f.Protocol, f.TTL)
		b = append(append(b, f.Source.AsSlice()...), f.Destination.AsSlice()...)
	} else {
		b = binary.BigEndian.AppendUint16(b, unix.ETH_P_IP)
		b = append(b, f.ipv4(len(message))...)
	}
	b = append(b, message...)
	return append(b, make([]byte, f.Padding)...)
}

func (f Forged) ipv4(size int) []byte {
	header := 20 + len(f.Options)
	ip := make([]byte, 20, header)
	ip[0], ip[1], ip[8], ip[9] = 0x40|byte(header/4), f.TOS, f.TTL, f.Protocol
	binary.BigEndian.PutUint16(ip[2:], uint16(header+size+f.IPLength))
	binary.BigEndian.PutUint16(ip[4:], f.ID)
	binary.BigEndian.PutUint16(ip[6:], f.Flags)
	copy(ip[12:], f.Source.AsSlice())
	copy(ip[16:], f.Destination.AsSlice())
	ip = append(ip, f.Options...)
	sum := checksum(0, ip)
	if f.BadIPSum {
		sum++
	}
	binary.BigEndian.PutUint16(ip[10:], sum)
	return ip
}

func (f Forged) message() []byte {
	m := []byte{f.Version<<4 | f.Type&15, f.VRID, f.Priority, byte(f.Count)}
	if f.Version == 2 {
		m = append(m, f.AuthType, byte(f.Interval/time.Second))
	} else {
		m = binary.BigEndian.AppendUint16(m, uint16(f.Reserved)<<12|uint16(f.Interval/(10*time.Millisecond)))
	}
	m = append(m, 0, 0)
	for _, a := range f.Addresses {
		m = append(m, a.AsSlice()...)
	}
	if f.Version == 2 {
		password := [8]byte{}
		copy(password[:], f.Password)
		m = append(m, password[:]...)
	}
	binary.BigEndian.PutUint16(m[6:], f.sum(m))
	return append(m, f.Trailer...)
}

func (f Forged) sum(message []byte) uint16 {
	destination := f.Destination
	if f.Sum == GroupSum {
		destination = group4
	}
	head := checksumOf(checksumOf(0, f.Source.AsSlice()), destination.AsSlice()) + protocolVRRP + uint32(len(message))
	if f.Version == 2 || f.Sum == MessageSum {
		head = 0
	}
	sum := checksum(head, message)
	if f.Sum == WrongSum {
		sum ^= 0x0101
	}
	return sum
}
