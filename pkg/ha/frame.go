package ha

import (
	"encoding/binary"
	"net/netip"

	"github.com/xdirector/xdirector/pkg/vrrp"
)

// group and group6 are the multicast groups of VRRP.
var (
	group  = netip.AddrFrom4([4]byte{224, 0, 0, 18})
	group6 = netip.AddrFrom16([16]byte{0xff, 2, 15: 0x12})
)

const (
	protocolVRRP = 112
	etherHeader  = 14
	trafficClass = 0xc0 // internetwork control
	hopLimit     = 255
)

// parseFrame checks the IP header in a frame that a packet socket delivered, which the kernel did not, and cuts what
// follows the packet. The VRID is where an advert has it; it is 0, which no instance has, when there is none to
// be found. A reason tells what is wrong with the header; the packet is still filled in as far as possible, to be counted for
// its instance.
func parseFrame(f []byte, ipv6 bool) (p vrrp.Packet, vrid uint8, reason vrrp.Reason) {
	if len(f) < etherHeader {
		return p, 0, vrrp.RefusedLength
	}
	if ipv6 {
		return parseIPv6(f[etherHeader:])
	}
	return parseIP(f[etherHeader:])
}

// parseIP does it for IPv4. Options are allowed.
func parseIP(b []byte) (p vrrp.Packet, vrid uint8, reason vrrp.Reason) {
	if len(b) < 20 || b[0]>>4 != 4 || b[9] != protocolVRRP {
		return p, 0, vrrp.RefusedLength
	}
	header, total := int(b[0]&0xf)*4, int(binary.BigEndian.Uint16(b[2:]))
	if header < 20 || header+2 > len(b) {
		return p, 0, vrrp.RefusedLength
	}
	vrid = b[header+1]
	p.Source = netip.AddrFrom4([4]byte(b[12:16]))
	p.Destination = netip.AddrFrom4([4]byte(b[16:20]))
	p.TTL = b[8]
	p.Fragment = binary.BigEndian.Uint16(b[6:])&0x3fff != 0 // more fragments, or an offset
	if total < header || total > len(b) {
		return p, vrid, vrrp.RefusedLength
	}
	if internetSum(b[:header]) != 0xffff {
		return p, vrid, vrrp.RefusedChecksum
	}
	p.Payload = b[header:total]
	return p, vrid, ""
}

// parseIPv6 does it for IPv6. No director sends extension headers.
func parseIPv6(b []byte) (p vrrp.Packet, vrid uint8, reason vrrp.Reason) {
	if len(b) < 42 || b[0]>>4 != 6 || b[6] != protocolVRRP {
		return p, 0, vrrp.RefusedLength
	}
	vrid = b[41]
	p.Source = netip.AddrFrom16([16]byte(b[8:24]))
	p.Destination = netip.AddrFrom16([16]byte(b[24:40]))
	p.TTL = b[7]
	total := 40 + int(binary.BigEndian.Uint16(b[4:]))
	if total > len(b) {
		return p, vrid, vrrp.RefusedLength
	}
	p.Payload = b[40:total]
	return p, vrid, ""
}

// internetSum is the ones' complement sum of b, whose length is even; 0xffff over a header with a right checksum.
func internetSum(b []byte) uint16 {
	sum := uint32(0)
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return uint16(sum)
}

// sameFrame says whether a frame with an IPv4 or IPv6 packet is a repeat of another one: equal but for the
// identification and the checksum of an IPv4 header, which count up, and with a right checksum.
func sameFrame(a, b []byte, ipv6 bool) bool {
	if len(a) != len(b) || len(a) < etherHeader+20 {
		return false
	}
	if ipv6 {
		return string(a) == string(b)
	}
	const id, sum, header = etherHeader + 4, etherHeader + 10, etherHeader + 20
	return string(a[:id]) == string(b[:id]) && string(a[id+2:sum]) == string(b[id+2:sum]) && string(a[sum+2:]) == string(b[sum+2:]) &&
		a[etherHeader] == 0x45 && internetSum(a[etherHeader:header]) == 0xffff
}

// ipPacket is the IP packet around an advert, as keepalived sends it: TTL 255, class c0, no flags.
func ipPacket(source, destination netip.Addr, a vrrp.Advert) []byte {
	if source.Is6() {
		b := make([]byte, 40, 40+8+16*len(a.Addresses))
		b[0], b[1], b[6], b[7] = 6<<4|trafficClass>>4, trafficClass<<4&0xff, protocolVRRP, hopLimit
		copy(b[8:], source.AsSlice())
		copy(b[24:], destination.AsSlice())
		b = a.Append(b, source, destination)
		binary.BigEndian.PutUint16(b[4:], uint16(len(b)-40))
		return b
	}
	b := make([]byte, 20, 20+16+4*len(a.Addresses))
	b[0], b[1], b[8], b[9] = 0x45, trafficClass, hopLimit, protocolVRRP
	copy(b[12:], source.AsSlice())
	copy(b[16:], destination.AsSlice())
	b = a.Append(b, source, destination)
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	number(b, 1)
	return b
}

// number gives an IPv4 packet its identification, and the checksum of its header.
func number(b []byte, id uint16) {
	binary.BigEndian.PutUint16(b[4:], id)
	b[10], b[11] = 0, 0
	binary.BigEndian.PutUint16(b[10:], ^internetSum(b[:20]))
}
