package vrrp

import (
	"bytes"
	"encoding/hex"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var (
	lb1 = netip.MustParseAddr("10.9.0.1")
	ll1 = netip.MustParseAddr("fe80::1")
	ll2 = netip.MustParseAddr("fe80::2")
	lb2 = netip.MustParseAddr("10.9.0.2")
	vip = netip.MustParseAddr("10.9.0.100")

	group = multicast4

	equateAddrs = cmp.Comparer(func(a, b netip.Addr) bool { return a == b })
)

// golden are the IP payloads that keepalived 2.4.3 was seen to send: priority 100, interval 1 s.
var golden = []struct {
	name     string
	hex      string
	src, dst netip.Addr
	advert   Advert
	readOnly bool // a form that we understand, but never send
}{
	{
		name:   "version 2 with password",
		hex:    "2133640101010cfb 0a090064 3131313100000000",
		src:    lb1,
		dst:    group,
		advert: Advert{Version: 2, VRID: 51, Priority: 100, Interval: time.Second, AuthType: 1, Password: [8]byte{'1', '1', '1', '1'}, Addresses: []netip.Addr{vip}},
	},
	{
		name:   "version 2 without authentication",
		hex:    "213364010001705d 0a090064 0000000000000000",
		src:    lb1,
		dst:    group,
		advert: Advert{Version: 2, VRID: 51, Priority: 100, Interval: time.Second, Addresses: []netip.Addr{vip}},
	},
	{
		name:   "version 3 with the pseudo-header",
		hex:    "3133640100647561 0a090064",
		src:    lb1,
		dst:    group,
		advert: Advert{Version: 3, VRID: 51, Priority: 100, Interval: time.Second, Addresses: []netip.Addr{vip}},
	},
	{
		name:   "version 3 to a unicast peer",
		hex:    "3133640100644b69 0a090064",
		src:    lb1,
		dst:    lb2,
		advert: Advert{Version: 3, VRID: 51, Priority: 100, Interval: time.Second, Addresses: []netip.Addr{vip}},
	},
	{
		name:     "version 3 to a unicast peer with the checksum of keepalived 1.3.6",
		hex:      "3133640100647561 0a090064",
		src:      lb1,
		dst:      lb2,
		advert:   Advert{Version: 3, VRID: 51, Priority: 100, Interval: time.Second, Addresses: []netip.Addr{vip}},
		readOnly: true,
	},
	{
		name:   "version 3 with the checksum of RFC 9568",
		hex:    "3133640100645ffa 0a090064",
		src:    lb1,
		dst:    group,
		advert: Advert{Version: 3, VRID: 51, Priority: 100, Interval: time.Second, Checksum: MessageOnly, Addresses: []netip.Addr{vip}},
	},
	{
		name: "version 3 over IPv6",
		hex:  "313d640200643df3 fe800000000000000000000000000100 20010db8000000000000000000000100",
		src:  ll1,
		dst:  multicast6,
		advert: Advert{Version: 3, VRID: 61, Priority: 100, Interval: time.Second,
			Addresses: []netip.Addr{netip.MustParseAddr("fe80::100"), netip.MustParseAddr("2001:db8::100")}},
	},
}

func TestAdvertsLookAsKeepalivedSendsThem(t *testing.T) {
	for _, g := range golden {
		if g.readOnly {
			continue
		}
		prefix := []byte("in front")
		got := g.advert.Append(prefix, g.src, g.dst)
		if !bytes.HasPrefix(got, prefix) {
			t.Errorf("%s: append lost what was there before: %x", g.name, got)
		}
		if got := got[len(prefix):]; !bytes.Equal(got, bytesOf(t, g.hex)) {
			t.Errorf("%s: append gives\n%x, keepalived sends\n%x", g.name, got, bytesOf(t, g.hex))
		}
	}
}

func TestAdvertsOfKeepalivedAreUnderstood(t *testing.T) {
	for _, g := range golden {
		got, err := Parse(bytesOf(t, g.hex), g.src, g.dst)
		if err != nil {
			t.Errorf("%s: %v", g.name, err)
		}
		if diff := cmp.Diff(g.advert, got, equateAddrs); diff != "" {
			t.Errorf("%s: parse differs (-want +got):\n%s", g.name, diff)
		}
	}
}

func TestAnAdvertOfAnotherSenderOrForAnotherReceiverIsRefused(t *testing.T) {
	for _, g := range golden {
		if g.advert.Version == 2 || g.advert.Checksum == MessageOnly {
			continue // no addresses in the checksum
		}
		wantRefused(t, g.name+" from another", bytesOf(t, g.hex), g.src.Next(), g.dst, RefusedChecksum)
		if g.dst != group && !g.readOnly { // what is for the group could be for a peer of keepalived 1.3.6
			wantRefused(t, g.name+" for another", bytesOf(t, g.hex), g.src, g.dst.Next(), RefusedChecksum)
		}
	}
}

func TestIPv6HasOneFormOfTheChecksum(t *testing.T) {
	a := Advert{Version: 3, VRID: 51, Priority: 100, Interval: time.Second, Checksum: MessageOnly, Addresses: []netip.Addr{netip.MustParseAddr("fe80::100")}}
	got, err := Parse(a.Append(nil, ll1, multicast6), ll1, multicast6)
	if err != nil || got.Checksum != PseudoHeader {
		t.Errorf("an IPv6 advert configured with the IPv4 form is read with form %d, error %v; want the pseudo-header", got.Checksum, err)
	}
	b := a.Append(nil, ll1, multicast6)
	b[6], b[7] = 0, 0
	sum := ^fold(add(b))
	b[6], b[7] = byte(sum>>8), byte(sum)
	wantRefused(t, "the message alone", b, ll1, multicast6, RefusedChecksum)
}

func TestBytesBehindAnAdvertAreIgnored(t *testing.T) {
	for _, g := range golden {
		for _, more := range []int{1, 2, 6, 32, 1000} {
			got, err := Parse(append(bytesOf(t, g.hex), bytes.Repeat([]byte{0xa5}, more)...), g.src, g.dst)
			if err != nil {
				t.Errorf("%s and %d bytes: %v", g.name, more, err)
			}
			if diff := cmp.Diff(g.advert, got, equateAddrs); diff != "" {
				t.Errorf("%s and %d bytes: parse differs (-want +got):\n%s", g.name, more, diff)
			}
		}
	}
}

func TestEveryTruncationIsRefusedForItsLength(t *testing.T) {
	for _, g := range golden {
		whole := bytesOf(t, g.hex)
		for n := range whole {
			wantRefused(t, g.name, whole[:n], g.src, g.dst, RefusedLength)
		}
	}
}

func TestEveryFlippedBitIsRefused(t *testing.T) {
	for _, g := range golden {
		whole := bytesOf(t, g.hex)
		for bit := range len(whole) * 8 {
			damaged := bytes.Clone(whole)
			damaged[bit/8] ^= 1 << (bit % 8)
			if a, err := Parse(damaged, g.src, g.dst); err == nil {
				t.Errorf("%s with bit %d flipped is accepted as %+v", g.name, bit, a)
			}
		}
	}
}

func TestPacketsThatAreNoAdvertsAreRefused(t *testing.T) {
	v6 := netip.MustParseAddr("fe80::1")
	for _, c := range []struct {
		name     string
		hex      string // with the checksum of the message alone put right
		src, dst netip.Addr
		reason   Reason
	}{
		{"nothing", "", lb1, group, RefusedLength},
		{"version 0", "0133640100640000 0a090064", lb1, group, RefusedVersion},
		{"version 1", "1133640100640000 0a090064", lb1, group, RefusedVersion},
		{"version 4", "4133640100640000 0a090064", lb1, group, RefusedVersion},
		{"type 0", "3033640100640000 0a090064", lb1, group, RefusedType},
		{"type 2", "3233640100640000 0a090064", lb1, group, RefusedType},
		{"type 15", "3f33640100640000 0a090064", lb1, group, RefusedType},
		{"no address", "3133640000640000", lb1, group, RefusedCount},
		{"no address in version 2", "2133640000010000 0000000000000000", lb1, group, RefusedCount},
		{"more addresses counted than there are", "3133640200640000 0a090064", lb1, group, RefusedLength},
		{"255 addresses counted", "313364ff00640000 0a090064", lb1, group, RefusedLength},
		{"version 2 without the authentication bytes", "2133640100010000 0a090064", lb1, group, RefusedLength},
		{"version 3 with interval 0", "3133640100000000 0a090064", lb1, group, RefusedInterval},
		{"version 3 with reserved bits as interval", "31336401f0000000 0a090064", lb1, group, RefusedInterval},
		{"version 2 with interval 0", "2133640100000000 0a090064 0000000000000000", lb1, group, RefusedInterval},
		{"an IPv6 source", "3133640100640000 0a090064", v6, group, RefusedDestination},
		{"an IPv6 destination", "3133640100640000 0a090064", lb1, v6, RefusedDestination},
		{"no source", "3133640100640000 0a090064", netip.Addr{}, group, RefusedSource},
	} {
		b := bytesOf(t, c.hex)
		if len(b) >= headerLength {
			putChecksum(b, lb1, group)
		}
		wantRefused(t, c.name, b, c.src, c.dst, c.reason)
	}
}

func TestReservedBitsAreNoPartOfTheInterval(t *testing.T) {
	b := bytesOf(t, "31336401f00a0000 0a090064")
	putChecksum(b, lb1, group)
	a, err := Parse(b, lb1, group)
	if err != nil || a.Interval != 100*time.Millisecond {
		t.Errorf("parse: interval %s, error %v; want 100ms", a.Interval, err)
	}
}

func TestLimitsOfTheFormatSurviveBothWays(t *testing.T) {
	many, many6 := make([]netip.Addr, 255), make([]netip.Addr, 255)
	for i := range many {
		many[i] = netip.AddrFrom4([4]byte{10, 0, 1, byte(i)})
		many6[i] = netip.AddrFrom16([16]byte{0: 0xfe, 1: 0x80, 2: 0xff, 15: byte(i)})
	}
	for _, a := range []Advert{
		{Version: 3, VRID: 1, Priority: 1, Interval: 10 * time.Millisecond, Checksum: MessageOnly, Addresses: many},
		{Version: 3, VRID: 1, Priority: 0, Interval: 10 * time.Millisecond, Addresses: many},
		{Version: 3, VRID: 255, Priority: 255, Interval: 40950 * time.Millisecond, Addresses: many6},
		{Version: 3, VRID: 255, Priority: 255, Interval: 40950 * time.Millisecond, Addresses: many[:2]},
		{Version: 2, VRID: 255, Priority: 255, Interval: 255 * time.Second, Addresses: many},
		{Version: 2, VRID: 1, Priority: 1, Interval: time.Second, AuthType: 1, Password: [8]byte{'1', '2', '3', '4', '5', '6', '7', '8'}, Addresses: many[:1]},
	} {
		src, dst := lb1, group
		if a.Addresses[0].Is6() {
			src, dst = ll1, multicast6
		}
		got, err := Parse(a.Append(nil, src, dst), src, dst)
		if err != nil {
			t.Errorf("parse %+v: %v", a, err)
		}
		if diff := cmp.Diff(a, got, equateAddrs); diff != "" {
			t.Errorf("advert differs after both ways (-before +after):\n%s", diff)
		}
	}
}

// FuzzParse looks for IPv4 packets that make Parse panic, that are accepted with a wrong checksum, or that mean
// something else when sent again.
func FuzzParse(f *testing.F) { fuzzParse(f, lb1, group) }

// FuzzParseIPv6 does the same for IPv6.
func FuzzParseIPv6(f *testing.F) { fuzzParse(f, ll1, multicast6) }

func fuzzParse(f *testing.F, src, dst netip.Addr) {
	for _, g := range golden {
		b, err := hex.DecodeString(strings.ReplaceAll(g.hex, " ", ""))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, false)
		f.Add(append(b, 1, 2, 3), true)
	}
	f.Add([]byte{}, true)
	f.Add([]byte{0x31, 51, 100, 0, 0, 100, 0, 0}, true)
	f.Fuzz(func(t *testing.T, b []byte, repair bool) {
		if repair && len(b) >= headerLength {
			putChecksum(b, src, dst) // or nearly every input would end at the checksum
		}
		a, err := Parse(b, src, dst)
		if err != nil {
			if (a.Addresses != nil) || a.Version != 0 {
				t.Errorf("%x is refused, but gives %+v", b, a)
			}
			return
		}
		message := b[:messageLength(b, src)]
		form, right := PseudoHeader, slowChecksum(message, nil)
		if a.Version == 3 {
			whole := slowChecksum(message, front(message, src, dst))
			if right = right && src.Is4(); right && !whole {
				form = MessageOnly
			}
			right = right || whole
		}
		if !right || form != a.Checksum {
			t.Errorf("%x is accepted with form %d of the checksum, want form %d, right: %t", b, a.Checksum, form, right)
		}
		again, err := Parse(a.Append(nil, src, dst), src, dst)
		if err != nil {
			t.Errorf("%x is accepted, but not when sent again: %v", b, err)
		}
		if diff := cmp.Diff(a, again, equateAddrs); diff != "" {
			t.Errorf("%x changes when sent again (-before +after):\n%s", b, diff)
		}
	})
}

// messageLength is the length that the header tells.
func messageLength(b []byte, src netip.Addr) int {
	length := headerLength + int(b[3])*src.BitLen()/8
	if b[0]>>4 == 2 {
		length += 8
	}
	return length
}

// front is the pseudo-header of RFC 8200 8.1, or that of IPv4.
func front(message []byte, src, dst netip.Addr) []byte {
	length := []byte{byte(len(message) >> 8), byte(len(message))}
	addresses := append(src.AsSlice(), dst.AsSlice()...)
	if src.Is4() {
		return append(addresses, 0, 112, length[0], length[1])
	}
	return append(addresses, 0, 0, length[0], length[1], 0, 0, 0, 112)
}

// slowChecksum checks the Internet checksum of RFC 1071 in another way than the code under test: the message as one
// number must be divisible by 0xffff.
func slowChecksum(message, front []byte) bool {
	rest := 0
	for _, b := range append(bytes.Clone(front), message...) {
		rest = (rest<<8 | int(b)) % 0xffff
	}
	return rest == 0
}

// putChecksum puts the checksum right: over IPv4 the form of version 2 and of RFC 9568.
func putChecksum(b []byte, src, dst netip.Addr) {
	message := b[:min(messageLength(b, src), len(b))&^1]
	b[6], b[7] = 0, 0
	sum := add(message)
	if src.Is6() {
		sum += add(front(message, src, dst))
	}
	b[6], b[7] = byte(^fold(sum)>>8), byte(^fold(sum))
}

func wantRefused(t *testing.T, name string, b []byte, src, dst netip.Addr, reason Reason) {
	t.Helper()
	_, err := Parse(b, src, dst)
	var refused *ParseError
	if !errors.As(err, &refused) {
		t.Errorf("%s: parse %x: error %v, want a *ParseError", name, b, err)
	} else if refused.Reason != reason || refused.Detail == "" || !strings.Contains(refused.Error(), refused.Detail) {
		t.Errorf("%s: parse %x: refused for %q (%v), want %q", name, b, refused.Reason, refused, reason)
	}
}

func bytesOf(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}
