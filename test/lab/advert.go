package lab

import (
	"encoding/binary"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

const protocolVRRP = 112

// Advert is what the lab reads from a frame with a VRRP advert. Nothing of it has been checked.
type Advert struct {
	Time                time.Time
	From, To            net.HardwareAddr
	Source, Destination netip.Addr
	TTL, TOS            uint8  // hop limit and traffic class in IPv6
	ID, Flags           uint16 // of the IPv4 header; Flags with the fragment offset

	Version, Type, VRID, Priority, Count uint8

	AuthType  uint8 // version 2
	Reserved  uint8 // version 3: the four bits in front of the interval
	Interval  time.Duration
	Addresses []netip.Addr // those that are there, whatever Count says
	Message   []byte       // the whole IP payload
}

// ParseAdvert reads an Ethernet frame with a VRRP advert over IPv4 or IPv6.
func ParseAdvert(b []byte) (Advert, bool) {
	if len(b) < 14 {
		return Advert{}, false
	}
	a := Advert{From: clone(b[6:12]), To: clone(b[:6])}
	ip := b[14:]
	size := 4 // of an address
	switch binary.BigEndian.Uint16(b[12:]) {
	case unix.ETH_P_IP:
		if len(ip) < 20 || ip[9] != protocolVRRP {
			return Advert{}, false
		}
		header, total := int(ip[0]&15)*4, int(binary.BigEndian.Uint16(ip[2:]))
		if header < 20 || total < header || len(ip) < total {
			return Advert{}, false
		}
		a.Source, a.Destination = netip.AddrFrom4([4]byte(ip[12:])), netip.AddrFrom4([4]byte(ip[16:]))
		a.TOS, a.TTL = ip[1], ip[8]
		a.ID, a.Flags = binary.BigEndian.Uint16(ip[4:]), binary.BigEndian.Uint16(ip[6:])
		a.Message = clone(ip[header:total])
	case unix.ETH_P_IPV6:
		size = 16
		if len(ip) < 40 || ip[6] != protocolVRRP || len(ip) < 40+int(binary.BigEndian.Uint16(ip[4:])) {
			return Advert{}, false
		}
		a.Source, a.Destination = netip.AddrFrom16([16]byte(ip[8:])), netip.AddrFrom16([16]byte(ip[24:]))
		a.TOS, a.TTL = ip[0]<<4|ip[1]>>4, ip[7]
		a.Message = clone(ip[40 : 40+int(binary.BigEndian.Uint16(ip[4:]))])
	default:
		return Advert{}, false
	}
	return a, a.message(size)
}

func (a *Advert) message(size int) bool {
	m := a.Message
	if len(m) < 8 {
		return false
	}
	a.Version, a.Type, a.VRID, a.Priority, a.Count = m[0]>>4, m[0]&15, m[1], m[2], m[3]
	if a.Version == 2 {
		a.AuthType, a.Interval = m[4], time.Duration(m[5])*time.Second
	} else {
		a.Reserved, a.Interval = m[4]>>4, time.Duration(binary.BigEndian.Uint16(m[4:])&0xfff)*10*time.Millisecond
	}
	for i := 0; i < int(a.Count) && len(m) >= 8+size*(i+1); i++ {
		address, _ := netip.AddrFromSlice(m[8+size*i : 8+size*(i+1)])
		a.Addresses = append(a.Addresses, address)
	}
	return true
}

// Announcement tells all neighbours, unasked, which MAC has an address: gratuitous ARP, or a neighbour advertisement.
type Announcement struct {
	Time     time.Time
	From, To net.HardwareAddr // of the frame
	Address  netip.Addr
	MAC      net.HardwareAddr // that is told; nil: a neighbour advertisement without that option

	Request bool // gratuitous ARP: a request, not a reply

	// Of a neighbour advertisement.
	Source, Destination         netip.Addr
	HopLimit                    uint8
	Router, Solicited, Override bool
}

// ParseAnnouncement reads an Ethernet frame with an ARP packet whose sender and target address are the same, or with a
// neighbour advertisement to all nodes.
func ParseAnnouncement(b []byte) (Announcement, bool) {
	if len(b) < 42 {
		return Announcement{}, false
	}
	a := Announcement{From: clone(b[6:12]), To: clone(b[:6])}
	switch binary.BigEndian.Uint16(b[12:]) {
	case unix.ETH_P_ARP:
		if [4]byte(b[28:]) != [4]byte(b[38:]) {
			return Announcement{}, false
		}
		a.Address, a.MAC = netip.AddrFrom4([4]byte(b[28:])), clone(b[22:28])
		a.Request = binary.BigEndian.Uint16(b[20:]) == 1
		return a, true
	case unix.ETH_P_IPV6:
		const advertisement = 136
		if len(b) < 14+40+24 || b[20] != unix.IPPROTO_ICMPV6 || b[54] != advertisement {
			return Announcement{}, false
		}
		a.Source, a.Destination = netip.AddrFrom16([16]byte(b[22:])), netip.AddrFrom16([16]byte(b[38:]))
		a.HopLimit, a.Address = b[21], netip.AddrFrom16([16]byte(b[62:]))
		a.Router, a.Solicited, a.Override = b[58]&0x80 != 0, b[58]&0x40 != 0, b[58]&0x20 != 0
		if options := b[78:]; len(options) >= 8 && options[0] == 2 {
			a.MAC = clone(options[2:8])
		}
		return a, a.Destination == netip.MustParseAddr("ff02::1")
	}
	return Announcement{}, false
}

func clone(b []byte) []byte { return append([]byte(nil), b...) }
