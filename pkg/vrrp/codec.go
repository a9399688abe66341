package vrrp

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"
)

const (
	headerLength  = 8 // both versions: version+type, VRID, priority, count, 2 bytes that differ, checksum
	addressLength = 4 // IPv4
	authLength    = 8 // v2: always present behind the addresses
	typeAdvert    = 1 // the only type there is

	authNone     = 0
	authPassword = 1

	protocolVRRP = 112
)

// ParseError says why a packet is no advert that anybody could use.
type ParseError struct {
	Reason Reason
	Detail string // what is wrong with it, as the end of the sentence "the advert is refused: ..."
}

// Error returns the detail with what was tried.
func (e *ParseError) Error() string { return "parse advert: " + e.Detail }

// Append appends the wire form of the advert, an IP payload, to b. The version is 2 or 3, the interval fits it
// (see Config), there are 1 to 255 addresses, and all addresses, src and dst included, are IPv4: src and dst are part of the
// version 3 checksum.
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
	if a.Version == 2 {
		b = append(b, a.Password[:]...)
	} else {
		// RFC 5798 and RFC 9568 differ about a pseudo-header in IPv4. The peers in the field, keepalived and FRR,
		// demand it, so that form is sent.
		sum = pseudoHeader(src, dst, len(b)-start)
	}
	message := b[start:]
	binary.BigEndian.PutUint16(message[6:], ^fold(sum+add(message)))
	return b
}

// Parse reads an IP payload that came from src for dst. Everything that a receiver must check without knowing its
// own configuration is checked; what stands behind the advert is ignored, because keepalived 2.4 may put a trailer
// there. The error is a *ParseError.
func Parse(b []byte, src, dst netip.Addr) (Advert, error) {
	a, err := parse(b, src, dst)
	if err != nil {
		return Advert{}, err
	}
	return a, nil
}

func parse(b []byte, src, dst netip.Addr) (Advert, *ParseError) {
	if !src.Is4() {
		return Advert{}, refuse(RefusedSource, "%s is not an IPv4 address", src)
	}
	if !dst.Is4() {
		return Advert{}, refuse(RefusedDestination, "%s is not an IPv4 address", dst)
	}
	if len(b) < headerLength {
		return Advert{}, refuse(RefusedLength, "its length is %d bytes, a header alone has %d", len(b), headerLength)
	}
	a := Advert{Version: b[0] >> 4, VRID: b[1], Priority: b[2]}
	if a.Version != 2 && a.Version != 3 {
		return Advert{}, refuse(RefusedVersion, "its VRRP version is %d", a.Version)
	}
	if kind := b[0] & 0xf; kind != typeAdvert {
		return Advert{}, refuse(RefusedType, "its type is %d, an advert has %d", kind, typeAdvert)
	}
	count := int(b[3])
	if count == 0 {
		return Advert{}, refuse(RefusedCount, "it names no virtual address")
	}
	end := headerLength + count*addressLength
	if a.Version == 2 {
		end += authLength
	}
	if len(b) < end {
		return Advert{}, refuse(RefusedLength, "its length is %d bytes, its address count of %d needs %d", len(b), count, end)
	}
	// RFC 9568 5.2.8: the checksum is that of the message "ending after the last IPv4 address".
	b = b[:end]
	sum := add(b)
	if fold(sum) != 0xffff && (a.Version == 2 || fold(sum+pseudoHeader(src, dst, len(b))) != 0xffff) {
		return Advert{}, refuse(RefusedChecksum, "its checksum is wrong")
	}
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
		a.Addresses[i] = netip.AddrFrom4([addressLength]byte(b[headerLength+i*addressLength:]))
	}
	return a, nil
}

const centisecond = 10 * time.Millisecond

func refuse(reason Reason, format string, args ...any) *ParseError {
	return &ParseError{Reason: reason, Detail: fmt.Sprintf(format, args...)}
}

// pseudoHeader is the unfolded sum of what RFC 5798 puts in front of an IPv4 message for its checksum.
func pseudoHeader(src, dst netip.Addr, length int) uint32 {
	s, d := src.As4(), dst.As4()
	return add(s[:]) + add(d[:]) + protocolVRRP + uint32(length)
}

// add sums up 16-bit words. At most 1036 bytes are ever added, so 32 bits can't overflow.
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
