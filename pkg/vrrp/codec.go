package vrrp

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"
)

const (
	headerLength = 8 // both versions: version+type, VRID, priority, count, 2 bytes that differ, checksum
	authLength   = 8 // v2: always present behind the addresses
	typeAdvert   = 1 // the only type there is

	authNone     = 0
	authPassword = 1

	protocolVRRP = 112
)

// Where adverts go without unicast peers.
var (
	multicast4 = netip.AddrFrom4([4]byte{224, 0, 0, 18})
	multicast6 = netip.AddrFrom16([16]byte{0: 0xff, 1: 0x02, 15: 0x12})
)

// ParseError says why a packet is no advert that anybody could use.
type ParseError struct {
	Reason Reason
	Detail string // what is wrong with it, as the end of the sentence "the advert is refused: ..."
}

// Error returns the detail with what was tried.
func (e *ParseError) Error() string { return "parse advert: " + e.Detail }

// Append appends the wire form of the advert, an IP payload, to b. The version is 2 or 3, the interval fits it
// (see Config), there are 1 to 255 addresses, and all addresses, src and dst included, are of one family, which is IPv4
// in version 2. src and dst are part of the version 3 checksum, except with MessageOnly over IPv4: each unicast
// peer needs its own.
func (a Advert) Append(b []byte, src, dst netip.Addr) []byte {
	start := len(b)
	b = append(b, a.Version<<4|typeAdvert, a.VRID, a.Priority, uint8(len(a.Addresses)))
	if a.Version == 2 {
		b = append(b, a.AuthType, uint8(a.Interval/time.Second))
	} else {
		b = binary.BigEndian.AppendUint16(b, uint16(a.Interval/centisecond))
	}
	b = append(b, 0, 0) // the checksum, below
	for _, address := range a.Addresses {
		b = append(b, address.AsSlice()...)
	}
	sum := uint32(0)
	switch {
	case a.Version == 2:
		b = append(b, a.Password[:]...)
	case src.Is6() || a.Checksum == PseudoHeader:
		sum = pseudoHeader(src, dst, len(b)-start)
	}
	message := b[start:]
	binary.BigEndian.PutUint16(message[6:], ^fold(sum+add(message)))
	return b
}

// Parse reads an IP payload that came from src for dst, both IPv4 or both IPv6 without a zone. Everything that a
// receiver must check without knowing its own configuration is checked; what stands behind the advert is ignored,
// because keepalived 2.4 may put a trailer there. The error is a *ParseError.
func Parse(b []byte, src, dst netip.Addr) (Advert, error) {
	a, err := parse(b, src, dst)
	if err != nil {
		return Advert{}, err
	}
	return a, nil
}

func parse(b []byte, src, dst netip.Addr) (Advert, *ParseError) {
	v6 := isIPv6(src)
	if !v6 && !src.Is4() {
		return Advert{}, refuse(RefusedSource, "%s is neither an IPv4 nor an IPv6 address", src)
	}
	if v6 != isIPv6(dst) || !v6 && !dst.Is4() {
		return Advert{}, refuse(RefusedDestination, "its destination %s and its source %s are of different families", dst, src)
	}
	if len(b) < headerLength {
		return Advert{}, refuse(RefusedLength, "its length is %d bytes, a header alone has %d", len(b), headerLength)
	}
	a := Advert{Version: b[0] >> 4, VRID: b[1], Priority: b[2]}
	switch {
	case a.Version == 2 && v6:
		return Advert{}, refuse(RefusedVersion, "its VRRP version is 2, which IPv6 does not have")
	case a.Version != 2 && a.Version != 3:
		return Advert{}, refuse(RefusedVersion, "its VRRP version is %d", a.Version)
	}
	if kind := b[0] & 0xf; kind != typeAdvert {
		return Advert{}, refuse(RefusedType, "its type is %d, an advert has %d", kind, typeAdvert)
	}
	count := int(b[3])
	if count == 0 {
		return Advert{}, refuse(RefusedCount, "it names no virtual address")
	}
	size := 4
	if v6 {
		size = 16
	}
	end := headerLength + count*size
	if a.Version == 2 {
		end += authLength
	}
	if len(b) < end {
		return Advert{}, refuse(RefusedLength, "its length is %d bytes, its address count of %d needs %d", len(b), count, end)
	}
	// RFC 9568 5.2.8: the checksum is that of the message "ending after the last IPv4 address".
	b = b[:end]
	form, right := checksum(a.Version, b, src, dst)
	if !right {
		return Advert{}, refuse(RefusedChecksum, "its checksum is wrong")
	}
	a.Checksum = form
	if a.Version == 2 {
		a.AuthType = b[4]
		a.Interval = time.Duration(b[5]) * time.Second
		copy(a.Password[:], b[end-authLength:])
	} else {
		// RFC 9568 5.2.6: the upper four bits "MUST be [...] ignored on reception".
		a.Interval = time.Duration(binary.BigEndian.Uint16(b[4:])&0xfff) * centisecond
	}
	if a.Interval == 0 {
		// Taken at its word, such a sender would make everybody take over at once, again and again.
		return Advert{}, refuse(RefusedInterval, "its advert_interval is 0")
	}
	a.Addresses = make([]netip.Addr, count)
	for i := range a.Addresses {
		a.Addresses[i], _ = netip.AddrFromSlice(b[headerLength+i*size:][:size])
	}
	return a, nil
}

// checksum verifies the checksum of a message and says which form it has. Over IPv4 the RFCs of version 3 differ:
// RFC 5798 puts a pseudo-header in front, and keepalived and FRR demand it; RFC 9568 does not. Both are
// accepted: that halves the strength of 16 bits, behind all the other checks.
func checksum(version uint8, message []byte, src, dst netip.Addr) (form ChecksumForm, right bool) {
	sum := add(message)
	whole := func(dst netip.Addr) bool { return fold(sum+pseudoHeader(src, dst, len(message))) == 0xffff }
	switch {
	case version == 2:
		return PseudoHeader, fold(sum) == 0xffff
	case whole(dst):
		return PseudoHeader, true
	case src.Is6():
		return PseudoHeader, false
	case fold(sum) == 0xffff:
		return MessageOnly, true
	}
	// keepalived up to 1.3.6 computes it for the multicast group when it sends to a unicast peer.
	return PseudoHeader, whole(multicast4)
}

// isIPv6 is false for an IPv4 address in IPv6 form, which no packet has.
func isIPv6(a netip.Addr) bool { return a.Is6() && !a.Is4In6() }

const centisecond = 10 * time.Millisecond

func refuse(reason Reason, format string, args ...any) *ParseError {
	return &ParseError{Reason: reason, Detail: fmt.Sprintf(format, args...)}
}

// pseudoHeader is the unfolded sum of what stands in front of a message for its checksum: the addresses, the protocol
// and the length. RFC 8200 8.1 has wider fields than IPv4 for the last two; their sum is the same.
func pseudoHeader(src, dst netip.Addr, length int) uint32 {
	s, d := src.As16(), dst.As16()
	if src.Is4() {
		return add(s[12:]) + add(d[12:]) + protocolVRRP + uint32(length)
	}
	return add(s[:]) + add(d[:]) + protocolVRRP + uint32(length)
}

// add sums up 16-bit words. At most 4128 bytes are ever added, so 32 bits can't overflow.
func add(b []byte) uint32 {
	sum := uint32(0)
	for ; len(b) >= 2; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	return sum
}

func fold(sum uint32) uint16 {
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}
