package ha

import (
	"encoding/binary"
	"net/netip"

	"github.com/xdirector/xdirector/pkg/vrrp"
)

// group is the multicast group of VRRP over IPv4.
var group = netip.AddrFrom4([4]byte{224, 0, 0, 18})

const protocolVRRP = 112

// parseIP checks the IPv4 header of a packet that a packet socket delivered, which the kernel did not, and cuts what
// follows the packet in its frame. Options are allowed. The VRID is where an advert has it; it is 0, which no
// instance has, when there is none to be found. A reason tells what is wrong with the header; the packet is still
// filled in as far as possible, to be counted for its instance.
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
