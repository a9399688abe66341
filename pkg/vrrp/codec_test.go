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
	lb2 = netip.MustParseAddr("10.9.0.2")
	vip = netip.MustParseAddr("10.9.0.100")

	group = multicast4

	equateAddrs = cmp.Comparer(func(a, b netip.Addr) bool { return a == b })
)

// golden are the IP payloads that keepalived 2.4.3 was seen to send: VRID 51, priority 100, interval 1 s, from 10.9.0.1.
var golden = []struct {
	name     string
	hex      string
	dst      netip.Addr
	advert   Advert
	readOnly bool // a form that we understand, but never send
}{
	{
		name:   "version 2 with password",
		hex:    "2133640101010cfb 0a090064 3131313100000000",
		dst:    group,
		advert: Advert{Version: 2, VRID: 51, Priority: 100, Interval: time.Second, AuthType: 1, Password: [8]byte{'1', '1', '1', '1'}, Addresses: []netip.Addr{vip}},
	},
	{
		name:   "version 2 without authentication",
		hex:    "213364010001705d 0a090064 0000000000000000",
		dst:    group,
		advert: Advert{Version: 2, VRID: 51, Priority: 100, Interval: time.Second, Addresses: []netip.Addr{vip}},
	},
	{
		name:   "version 3 with the pseudo-header",
		hex:    "3133640100647561 0a090064",
		dst:    group,
		advert: Advert{Version: 3, VRID: 51, Priority: 100, Interval: time.Second, Addresses: []netip.Addr{vip}},
	},
	{
		name:   "version 3 to a unicast peer",
		hex:    "3133640100644b69 0a090064",
		dst:    lb2,
		advert: Advert{Version: 3, VRID: 51, Priority: 100, Interval: time.Second, Addresses: []netip.Addr{vip}},
	},
	{
		name:     "version 3 to a unicast peer with the checksum of keepalived 1.3.6",
		hex:      "3133640100647561 0a090064",
		dst:      lb2,
		advert:   Advert{Version: 3, VRID: 51, Priority: 100, Interval: time.Second, Addresses: []netip.Addr{vip}},
		readOnly: true,
	},
	{
		name:   "version 3 with the checksum of RFC 9568",
		hex:    "3133640100645ffa 0a090064",
		dst:    group,
		advert: Advert{Version: 3, VRID: 51, Priority: 100, Interval: time.Second, Checksum: MessageOnly, Addresses: []netip.Addr{vip}},
	},
}

func TestAdvertsLookAsKeepalivedSendsThem(t *testing.T) {
	for _, g := range golden {
		if g.readOnly {
			continue
		}
		prefix := []byte("in front")
		got := g.advert.Append(prefix, lb1, g.dst)
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
		got, err := Parse(bytesOf(t, g.hex), lb1, g.dst)
		if err != nil {
			t.Errorf("%s: %v", g.name, err)
		}
		if diff := cmp.Diff(g.advert, got, equateAddrs); diff != "" {
			t.Errorf("%s: parse differs (-want +got):\n%s", g.name, diff)
		}
	}
}

func TestBytesBehindAnAdvertAreIgnored(t *testing.T) {
	for _, g := range golden {
		for _, more := range []int{1, 2, 6, 32, 1000} {
			got, err := Parse(append(bytesOf(t, g.hex), bytes.Repeat([]byte{0xa5}, more)...), lb1, g.dst)
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
			wantRefused(t, g.name, whole[:n], lb1, g.dst, RefusedLength)
		}
	}
}

func TestEveryFlippedBitIsRefused(t *testing.T) {
	for _, g := range golden {
		whole := bytesOf(t, g.hex)
		for bit := range len(whole) * 8 {
			damaged := bytes.Clone(whole)
			damaged[bit/8] ^= 1 << (bit % 8)
			if a, err := Parse(damaged, lb1, g.dst); err == nil {
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
			putChecksum(b)
		}
		wantRefused(t, c.name, b, c.src, c.dst, c.reason)
	}
}

func TestReservedBitsAreNoPartOfTheInterval(t *testing.T) {
	b := bytesOf(t, "31336401f00a0000 0a090064")
	putChecksum(b)
	a, err := Parse(b, lb1, group)
	if err != nil || a.Interval != 100*time.Millisecond {
		t.Errorf("parse: interval %s, error %v; want 100ms", a.Interval, err)
	}
}

func TestLimitsOfTheFormatSurviveBothWays(t *testing.T) {
	many := make([]netip.Addr, 255)
	for i := range many {
		many[i] = netip.AddrFrom4([4]byte{10, 0, 1, byte(i)})
	}
	for _, a := range []Advert{
		{Version: 3, VRID: 1, Priority: 0, Interval: 10 * time.Millisecond, Addresses: many},
		{Version: 3, VRID: 255, Priority: 255, Interval: 40950 * time.Millisecond, Addresses: many[:2]},
		{Version: 2, VRID: 255, Priority: 255, Interval: 255 * time.Second, Addresses: many},
		{Version: 2, VRID: 1, Priority: 1, Interval: time.Second, AuthType: 1, Password: [8]byte{'1', '2', '3', '4', '5', '6', '7', '8'}, Addresses: many[:1]},
	} {
		got, err := Parse(a.Append(nil, lb1, group), lb1, group)
		if err != nil {
			t.Errorf("parse %+v: %v", a, err)
		}
		if diff := cmp.Diff(a, got, equateAddrs); diff != "" {
			t.Errorf("advert differs after both ways (-before +after):\n%s", diff)
		}
	}
}

// FuzzParse looks for packets that make Parse panic, that are accepted with a wrong checksum, or that mean something
// else when sent again.
func FuzzParse(f *testing.F) {
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
			putChecksum(b) // or nearly every input would end at the checksum
		}
		a, err := Parse(b, lb1, group)
		if err != nil {
			if (a.Addresses != nil) || a.Version != 0 {
				t.Errorf("%x is refused, but gives %+v", b, a)
			}
			return
		}
		length := 8 + 4*len(a.Addresses)
		if a.Version == 2 {
			length += 8
		}
		if !slowChecksum(b[:length], nil) && (a.Version == 2 || !slowChecksum(b[:length], bytesOf(t, "0a090001 e0000012 0070"))) {
			t.Errorf("%x is accepted, but its checksum is wrong", b)
		}
		again, err := Parse(a.Append(nil, lb1, group), lb1, group)
		if err != nil {
			t.Errorf("%x is accepted, but not when sent again: %v", b, err)
		}
		if diff := cmp.Diff(a, again, equateAddrs); diff != "" {
			t.Errorf("%x changes when sent again (-before +after):\n%s", b, diff)
		}
	})
}

// slowChecksum checks the Internet checksum of RFC 1071 in another way than the code under test: the message as one
// number must be divisible by 0xffff. front is a pseudo-header without the length.
func slowChecksum(message, front []byte) bool {
	all := bytes.Clone(message)
	if front != nil {
		all = append(all, front...)
		all = append(all, byte(len(message)>>8), byte(len(message)))
	}
	rest := 0
	for _, b := range all {
		rest = (rest<<8 | int(b)) % 0xffff
	}
	return rest == 0
}

// putChecksum puts the checksum of the message alone right: the form of version 2 and of RFC 9568.
func putChecksum(b []byte) {
	length := 8 + 4*int(b[3])
	if b[0]>>4 == 2 {
		length += 8
	}
	b[6], b[7] = 0, 0
	sum := ^fold(add(b[:min(length, len(b))&^1]))
	b[6], b[7] = byte(sum>>8), byte(sum)
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
