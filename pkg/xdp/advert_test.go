package xdp

import (
	"encoding/binary"
	"net/netip"
	"time"

	"github.com/xdirector/xdirector/pkg/lb"
)

// The virtual routers of the tests' director, all on eth0.
const (
	vridV2      = 51 // version 2
	vridV3      = 52 // version 3
	vridUnicast = 53 // version 3, with peers
	vridOff     = 54 // version 3, without a filter
	vridFast    = 55 // version 3, of which adverts are absorbed
)

var (
	ownAddress  = netip.MustParseAddr("10.0.0.1")
	ownAddress6 = netip.MustParseAddr("fe80::1")
	peer6       = netip.MustParseAddr("fe80::9")
	group4      = netip.MustParseAddr("224.0.0.18")
	group6      = netip.MustParseAddr("ff02::12")
	virtual6    = []netip.Addr{netip.MustParseAddr("fe80::100"), netip.MustParseAddr("2001:db8::100")}
)

// testRouters are named by version or kind and family.
func testRouters() []lb.Router {
	return []lb.Router{
		{Name: "v2", Interface: "eth0", Version: 2, VRID: vridV2, Filter: true, Source: ownAddress},
		{Name: "v3", Interface: "eth0", Version: 3, VRID: vridV3, Filter: true, Source: ownAddress, VirtualMAC: true},
		{Name: "unicast", Interface: "eth0", Version: 3, VRID: vridUnicast, Filter: true, Source: ownAddress, Peers: []netip.Addr{peer}, PeerTTL: 64},
		{Name: "off", Interface: "eth0", Version: 3, VRID: vridOff, Source: ownAddress, VirtualMAC: true},
		{Name: "fast", Interface: "eth0", Version: 3, VRID: vridFast, Filter: true, Source: ownAddress},
		{Name: "v6", Interface: "eth0", IPv6: true, Version: 3, VRID: vridV3, Filter: true, Source: ownAddress6, VirtualMAC: true},
		{Name: "unicast6", Interface: "eth0", IPv6: true, Version: 3, VRID: vridUnicast, Filter: true, Source: ownAddress6, Peers: []netip.Addr{peer6}},
		{Name: "elsewhere", Interface: "eth9", Version: 3, VRID: vridV3, Filter: true},
	}
}

// advert describes a frame with a VRRP advert; the zero value of a field means the usual: a valid one of version 3 from
// the peer. IPv6 is what has an IPv6 source.
type advert struct {
	source       lb.MAC // the peer's
	from, to     netip.Addr
	version      byte // 3
	kind         byte // 1; 0 with noKind
	noKind       bool
	vrid         byte   // vridV3, vridV2 with version 2
	priority     int    // 200; -1: 0
	count        int    // of addresses as told; -1: 0; 0: as there are
	interval     int    // as it stands there, 100 (1 with version 2); -1: 0
	ttl          int    // 255
	id           uint16 // of the IPv4 packet
	fragment     uint16
	options      []byte // IPv4
	messageOnly  bool   // checksum of version 3 over IPv4 as in RFC 9568
	over         bool   // checksum includes the trailer
	trailer      []byte
	padding      int  // behind the IP packet
	total        int  // added to the length in the IP header
	broken       bool // VRRP checksum
	brokenHeader bool // IPv4 checksum
	ipVersion    byte
	addresses    []netip.Addr
	cut          int
	vlan         uint16 // id of its tag; 0: none
}

func sum16(sum uint32, b []byte) uint32 {
	for ; len(b) >= 2; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	return sum
}

func folded(sum uint32) uint16 {
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}

// number gives the usual for 0 and 0 for -1.
func number(value, usual int) int {
	switch value {
	case 0:
		return usual
	case -1:
		return 0
	}
	return value
}

func (a advert) message() []byte {
	a.version = orDefault(a.version, 3)
	if a.version == 2 {
		a.vrid, a.interval = orDefault(a.vrid, vridV2), orDefault(a.interval, 1)
	}
	a.vrid, a.interval = orDefault(a.vrid, vridV3), number(a.interval, 100)
	if !a.noKind {
		a.kind = orDefault(a.kind, 1)
	}
	m := []byte{a.version<<4 | a.kind, a.vrid, byte(number(a.priority, 200)), byte(number(a.count, len(a.addresses)))}
	m = binary.BigEndian.AppendUint16(m, uint16(a.interval))
	m = append(m, 0, 0)
	for _, address := range a.addresses {
		m = append(m, address.AsSlice()...)
	}
	if a.version == 2 {
		m = append(m, "1111\x00\x00\x00\x00"...)
	}
	summed := m
	if a.over {
		summed = append(m[:len(m):len(m)], a.trailer...)
	}
	sum := uint32(0)
	if a.version != 2 && !a.messageOnly {
		sum = sum16(sum16(uint32(112+len(summed)), a.from.AsSlice()), a.to.AsSlice())
	}
	binary.BigEndian.PutUint16(m[6:], ^folded(sum16(sum, summed)))
	if a.broken {
		m[7] ^= 0x10
	}
	return append(m, a.trailer...)
}

func (a advert) bytes() []byte {
	frame := a.untagged()
	if a.vlan == 0 {
		return frame
	}
	return append(binary.BigEndian.AppendUint16(append(frame[:12:12], 0x81, 0), a.vlan), frame[12:]...)
}

func (a advert) untagged() []byte {
	if a.source.IsZero() {
		a.source = peerMAC
	}
	v6 := a.from.Is6()
	if v6 {
		a.to = orDefault(a.to, group6)
		if a.addresses == nil {
			a.addresses = virtual6
		}
	} else {
		a.from, a.to = orDefault(a.from, peer), orDefault(a.to, group4)
		if a.addresses == nil {
			a.addresses = []netip.Addr{vip}
		}
	}
	message, ttl := a.message(), byte(number(a.ttl, 255))
	destination := lb.MAC{1, 0, 0x5e, 0, 0, 18}
	if v6 {
		destination = lb.MAC{0x33, 0x33, 0, 0, 0, 0x12}
	}
	if !a.to.IsMulticast() {
		destination = eth0MAC
	}
	frame := append(destination[:], a.source[:]...)
	if v6 {
		frame = binary.BigEndian.AppendUint16(frame, 0x86dd)
		frame = append(frame, orDefault(a.ipVersion, 6)<<4, 0, 0, 0)
		frame = binary.BigEndian.AppendUint16(frame, uint16(len(message)+a.total))
		frame = append(frame, 112, ttl)
		frame = append(append(frame, a.from.AsSlice()...), a.to.AsSlice()...)
	} else {
		ip := append(make([]byte, 20, 60), a.options...)
		ip[0], ip[1] = orDefault(a.ipVersion, 4)<<4|byte(len(ip)/4), 0xc0
		binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)+len(message)+a.total))
		binary.BigEndian.PutUint16(ip[4:], a.id)
		binary.BigEndian.PutUint16(ip[6:], a.fragment)
		ip[8], ip[9] = ttl, 112
		copy(ip[12:], a.from.AsSlice())
		copy(ip[16:], a.to.AsSlice())
		binary.BigEndian.PutUint16(ip[10:], ^folded(sum16(0, ip)))
		if a.brokenHeader {
			ip[11] ^= 1
		}
		frame = append(binary.BigEndian.AppendUint16(frame, 0x0800), ip...)
	}
	frame = append(append(frame, message...), make([]byte, a.padding)...)
	if a.cut > 0 {
		frame = frame[:a.cut]
	}
	return frame
}

// six is the advert over IPv6.
func (a advert) six() advert {
	a.from = peer6
	return a
}

// many makes so many addresses.
func many(n int) []netip.Addr {
	var list []netip.Addr
	for i := range n {
		list = append(list, netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}))
	}
	return list
}

func many6(n int) []netip.Addr {
	var list []netip.Addr
	for i := range n {
		list = append(list, netip.AddrFrom16([16]byte{0xfe, 0x80, 14: byte(i >> 8), 15: byte(i)}))
	}
	return list
}

// twice is a sender's second one within a second.
func twice(a advert) []advert { return []advert{a, a} }

func advertRow(name, router, fate string, adverts ...advert) packetRow {
	row := packetRow{name: "advert: " + name, adverts: adverts, router: router, fate: fate, verdict: "drop", reason: "advert_refused"}
	switch fate {
	case "":
		row.verdict, row.reason = "pass_not_ours", ""
	case "passed", "sampled":
		row.verdict, row.reason = "pass_advert", ""
	case "absorbed":
		row.reason = "advert_absorbed"
	case "rate":
		row.reason = "advert_rate"
	}
	return row
}

var advertTable = []packetRow{
	advertRow("version 2", "v2", "passed", advert{version: 2}),
	advertRow("version 3", "v3", "passed", advert{}),
	advertRow("checksum of RFC 9568", "v3", "passed", advert{messageOnly: true}),
	advertRow("IPv6", "v6", "passed", advert{}.six()),
	advertRow("priority 0", "v3", "passed", advert{priority: -1}),
	advertRow("no VRID of ours", "", "", advert{vrid: 99}),
	advertRow("VRID of the other family alone", "", "", advert{vrid: vridV2}.six()),
	advertRow("to somebody else's address", "", "", advert{to: netip.MustParseAddr("10.0.0.77")}),
	advertRow("over IPv6 to another group", "", "", advert{from: peer6, to: netip.MustParseAddr("ff02::13")}),
	advertRow("to our address, of a multicast router", "v3", "passed", advert{to: ownAddress}),
	advertRow("router without a filter, checksum broken", "off", "passed", twice(advert{vrid: vridOff, broken: true})...),
	advertRow("padded to the least length of Ethernet", "v3", "passed", advert{padding: 14}),
	advertRow("trailer", "v3", "passed", advert{trailer: make([]byte, 28)}),
	advertRow("trailer of odd length under the checksum", "v3", "passed", advert{trailer: []byte{1, 2, 3}, over: true}),
	advertRow("trailer over IPv6 under the checksum", "v6", "passed", advert{trailer: []byte{1, 2, 3}, over: true}.six()),
	advertRow("trailer over IPv6", "v6", "passed", advert{trailer: []byte{1, 2, 3, 4}}.six()),
	advertRow("reserved bits over the interval", "v3", "passed", advert{interval: 0xf00a}),
	advertRow("IP options", "v3", "passed", advert{options: make([]byte, 40)}),
	advertRow("255 addresses", "v3", "passed", advert{addresses: many(255)}),
	advertRow("255 addresses of version 2", "v2", "passed", advert{version: 2, addresses: many(255)}),
	advertRow("90 addresses of IPv6", "v6", "passed", advert{addresses: many6(90)}.six()),
	advertRow("too long to be read", "v3", "passed", twice(advert{trailer: make([]byte, 1600), broken: true})...),
	advertRow("later fragment, whose nobody knows", "", "", advert{fragment: 3}),
	advertRow("no VRID in it", "", "", advert{cut: 14 + 20 + 1}),
	advertRow("IP length without a VRID", "", "", advert{total: -11}),
	advertRow("IPv6 header of another version", "", "", advert{ipVersion: 5}.six()),
	advertRow("half an IPv6 header", "", "", advert{cut: 14 + 39}.six()),
	advertRow("IPv6 length without a VRID", "", "", advert{total: -39}.six()),

	advertRow("checksum broken, the first of its sender", "v3", "sampled", advert{broken: true}),
	advertRow("checksum broken", "v3", "checksum", twice(advert{broken: true})...),
	advertRow("checksum of 255 addresses broken", "v3", "checksum", twice(advert{addresses: many(255), broken: true})...),
	advertRow("checksum of version 2 broken", "v2", "checksum", twice(advert{version: 2, broken: true})...),
	advertRow("checksum over IPv6 broken", "v6", "checksum", twice(advert{broken: true}.six())...),
	advertRow("checksum over IPv6 without a pseudo-header", "v6", "checksum", twice(advert{messageOnly: true}.six())...),
	advertRow("checksum broken, trailer", "v3", "checksum", twice(advert{broken: true, trailer: []byte{1, 2, 3}})...),
	advertRow("IP header broken", "v3", "header", twice(advert{brokenHeader: true})...),
	advertRow("IP header with options broken", "v3", "header", twice(advert{brokenHeader: true, options: make([]byte, 40)})...),
	advertRow("first fragment", "v3", "fragment", twice(advert{fragment: moreFragments})...),
	advertRow("TTL", "v3", "ttl", twice(advert{ttl: 254})...),
	advertRow("hop limit", "v6", "ttl", twice(advert{ttl: 254}.six())...),
	advertRow("half a header", "v3", "length", twice(advert{total: -8})...),
	advertRow("longer than the frame", "v3", "length", twice(advert{total: 4})...),
	advertRow("fewer addresses than told", "v3", "length", twice(advert{count: 2})...),
	advertRow("version 2 without its authentication", "v2", "length", twice(advert{version: 2, total: -8})...),
	advertRow("version 2 for a router of version 3", "v3", "version", twice(advert{version: 2, vrid: vridV3})...),
	advertRow("version 3 for a router of version 2", "v2", "version", twice(advert{vrid: vridV2})...),
	advertRow("type 0", "v3", "type", twice(advert{noKind: true})...),
	advertRow("type 2", "v3", "type", twice(advert{kind: 2})...),
	advertRow("no address", "v3", "address_count", twice(advert{count: -1})...),
	advertRow("interval 0 of version 2", "v2", "interval", twice(advert{version: 2, interval: -1})...),
	advertRow("interval 0", "v3", "interval", twice(advert{interval: -1})...),
	advertRow("interval 0 under reserved bits", "v3", "interval", twice(advert{interval: 0xf000})...),
	advertRow("our own address", "v3", "echo", twice(advert{from: ownAddress})...),
	advertRow("our own address of IPv6", "v6", "echo", twice(advert{from: ownAddress6})...),
	advertRow("our own MAC address", "v3", "echo", twice(advert{source: eth0MAC})...),
	advertRow("second reason of a sender", "v3", "sampled", advert{broken: true}, advert{ttl: 1}),
	advertRow("second sender of a kind", "v3", "sampled", advert{broken: true}, advert{broken: true, from: serverAddress(77)}),

	advertRow("peer", "unicast", "passed", advert{vrid: vridUnicast, to: ownAddress}),
	advertRow("peer behind a router", "unicast", "passed", advert{vrid: vridUnicast, to: ownAddress, ttl: 64}),
	advertRow("peer too far away", "unicast", "ttl", twice(advert{vrid: vridUnicast, to: ownAddress, ttl: 63})...),
	advertRow("peer by multicast", "unicast", "passed", advert{vrid: vridUnicast}),
	advertRow("no peer", "unicast", "source", twice(advert{vrid: vridUnicast, to: ownAddress, from: serverAddress(78)})...),
	advertRow("peer over IPv6", "unicast6", "passed", advert{vrid: vridUnicast, from: peer6, to: ownAddress6}),
	advertRow("peer over IPv6 with a lower hop limit", "unicast6", "ttl", twice(advert{vrid: vridUnicast, from: peer6, to: ownAddress6, ttl: 254})...),
	advertRow("no peer over IPv6", "unicast6", "source", twice(advert{vrid: vridUnicast, from: netip.MustParseAddr("fe80::8"), to: ownAddress6})...),

	advertRow("as many of a sender as there may be", "v3", "passed", flood(advert{}, 100)...),
	exhausted(advertRow("too many of a sender", "v3", "rate", flood(advert{}, 3)...)),
	exhausted(advertRow("too many of a sender, then priority 0", "v3", "passed", append(flood(advert{}, 3), advert{priority: -1})...)),
	exhausted(advertRow("too many of a sender, then priority 0 twice", "v3", "rate", append(flood(advert{}, 3), advert{priority: -1}, advert{priority: -1})...)),
	exhausted(advertRow("too many of a sender, then a higher priority", "v3", "passed", append(flood(advert{}, 3), advert{priority: 201})...)),
	exhausted(advertRow("too many of a sender, then a lower priority", "v3", "rate", append(flood(advert{}, 3), advert{priority: 199})...)),
	exhausted(advertRow("too many of a sender, then another one", "v3", "passed", append(flood(advert{}, 3), advert{from: serverAddress(79)})...)),
	exhausted(advertRow("too many of a sender, then its address from another MAC address", "v3", "passed",
		append(flood(advert{}, 3), advert{source: serverMAC(79)})...)),
}

// exhausted has a sender nothing left when the last advert but the one in question has come.
func exhausted(row packetRow) packetRow {
	row.exhausted = true
	return row
}

// flood is the same advert again and again, as a sender numbers it.
func flood(a advert, n int) []advert {
	list := make([]advert, n)
	for i := range list {
		list[i] = a
		list[i].id = uint16(i)
	}
	return list
}

// absorbRow is about adverts after the election has had the plane absorb one of them.
func absorbRow(name, router, fate string, prepare func(*FastPath, uint32), adverts ...advert) packetRow {
	row := advertRow("absorb: "+name, router, fate, adverts...)
	row.prepare = prepare
	return row
}

// absorbing has repeats of the advert absorbed, and the lease last.
func absorbing(a advert) func(*FastPath, uint32) {
	return func(f *FastPath, slot uint32) {
		f.Renew(monotonic() + time.Hour)
		f.Absorb(slot, a.bytes(), time.Hour)
	}
}

func absorbTable() []packetRow {
	fast := advert{vrid: vridFast}
	six := advert{}.six()
	with := func(change func(*advert)) []advert {
		changed := fast
		change(&changed)
		return []advert{fast, changed}
	}
	return []packetRow{
		absorbRow("the first repeat of a second", "fast", "sampled", absorbing(fast), fast),
		absorbRow("a repeat", "fast", "absorbed", absorbing(fast), twice(fast)...),
		absorbRow("another id", "fast", "absorbed", absorbing(fast), with(func(a *advert) { a.id = 4711 })...),
		absorbRow("padding behind the packet", "fast", "absorbed", absorbing(fast), with(func(a *advert) { a.padding = 14 })...),
		absorbRow("padding behind the first", "fast", "absorbed", absorbing(advert{vrid: vridFast, padding: 14}), twice(fast)...),
		absorbRow("IPv6", "v6", "absorbed", absorbing(six), twice(six)...),
		absorbRow("version 2", "v2", "absorbed", absorbing(advert{version: 2}), twice(advert{version: 2})...),
		absorbRow("101 addresses", "fast", "absorbed", absorbing(advert{vrid: vridFast, addresses: many(101)}), twice(advert{vrid: vridFast, addresses: many(101)})...),
		absorbRow("102 addresses", "fast", "passed", absorbing(advert{vrid: vridFast, addresses: many(102)}), twice(advert{vrid: vridFast, addresses: many(102)})...),
		absorbRow("another priority", "fast", "passed", absorbing(fast), with(func(a *advert) { a.priority = 100 })...),
		absorbRow("priority 0", "fast", "passed", absorbing(fast), with(func(a *advert) { a.priority = -1 })...),
		absorbRow("another source", "fast", "passed", absorbing(fast), with(func(a *advert) { a.from = serverAddress(3) })...),
		absorbRow("another MAC address", "fast", "passed", absorbing(fast), with(func(a *advert) { a.source = serverMAC(3) })...),
		absorbRow("another address", "fast", "passed", absorbing(fast), with(func(a *advert) { a.addresses = many(1) })...),
		absorbRow("one address more", "fast", "passed", absorbing(fast), with(func(a *advert) { a.addresses = many(2) })...),
		absorbRow("another form of the checksum", "fast", "passed", absorbing(fast), with(func(a *advert) { a.messageOnly = true })...),
		absorbRow("a trailer", "fast", "passed", absorbing(fast), with(func(a *advert) { a.trailer = make([]byte, 4) })...),
		absorbRow("IP header broken", "fast", "sampled", absorbing(fast), with(func(a *advert) { a.brokenHeader = true })...),
		absorbRow("first fragment", "fast", "sampled", absorbing(fast), with(func(a *advert) { a.fragment = moreFragments })...),
		absorbRow("another router's", "v3", "passed", absorbing(fast), fast, advert{}),
		absorbRow("a router without a filter", "off", "passed", absorbing(advert{vrid: vridOff}), twice(advert{vrid: vridOff})...),
		absorbRow("nothing was given", "fast", "passed", func(f *FastPath, _ uint32) { f.Renew(monotonic() + time.Hour) }, twice(fast)...),
		absorbRow("the lease is over", "fast", "passed", func(f *FastPath, slot uint32) {
			absorbing(fast)(f, slot)
			f.Renew(monotonic())
		}, fast),
		absorbRow("while MASTER", "fast", "passed", func(f *FastPath, slot uint32) {
			absorbing(fast)(f, slot)
			f.Gate(slot, true)
		}, fast),
		absorbRow("MASTER before", "fast", "passed", func(f *FastPath, slot uint32) {
			f.Gate(slot, true)
			absorbing(fast)(f, slot)
			f.Gate(slot, false)
		}, fast),
		absorbRow("released", "fast", "passed", func(f *FastPath, slot uint32) {
			absorbing(fast)(f, slot)
			f.Release(slot)
		}, fast),
		absorbRow("replaced", "fast", "passed", func(f *FastPath, slot uint32) {
			absorbing(fast)(f, slot)
			absorbing(advert{vrid: vridFast, priority: 99})(f, slot)
		}, fast),
		exhausted(absorbRow("known without absorbing, in a flood of its sender", "fast", "passed", func(f *FastPath, slot uint32) {
			f.Absorb(slot, fast.bytes(), 0)
		}, append(flood(advert{vrid: vridFast, priority: 50}, 3), fast)...)),
	}
}
