package xdp

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/xdirector/xdirector/pkg/lb"
)

func prefixes(list ...string) (all []netip.Prefix) {
	for _, p := range list {
		all = append(all, netip.MustParsePrefix(p))
	}
	return all
}

func limited(s lb.Service, l lb.Limits) lb.Service {
	s.Limits = l
	return s
}

// capped is server n with at most so many active flows.
func capped(n int, most uint32) lb.RealServer {
	r := server(n)
	r.MaxConnections = most
	return r
}

// limitedServices are the packet table's, with server 1; port 89 has server 2 too.
func limitedServices() []lb.Service {
	with := func(to netip.Addr, protocol lb.Protocol, port uint16, r lb.RealServer, l lb.Limits) lb.Service {
		return limited(service(lb.ServiceKey{Address: to, Port: port, Protocol: protocol}, r), l)
	}
	return []lb.Service{
		with(vip, lb.TCP, 86, server(1), lb.Limits{Allow: prefixes("192.0.2.0/24", "192.0.2.129/32"), Deny: prefixes("192.0.2.128/25")}),
		with(vip, lb.TCP, 87, server(1), lb.Limits{Packets: lb.Rate{PerSecond: 1, Burst: 3}, New: lb.Rate{PerSecond: 1, Burst: 2}}),
		with(vip, lb.UDP, 55, server(1), lb.Limits{New: lb.Rate{PerSecond: 1}}),
		service(lb.ServiceKey{Address: vip, Port: 89, Protocol: lb.TCP}, capped(1, 1), capped(2, 2)),
		with(vip, lb.UDP, 56, capped(1, 1), lb.Limits{}),
		with(vip6, lb.TCP, 86, server6(1), lb.Limits{Deny: prefixes("2001:db8:1::/48")}),
	}
}

// limitTable is about the services with limits.
var limitTable = []packetRow{
	{name: "allowed client", packet: packet{flags: syn, toPort: 86}, verdict: "tx", server: 1, egress: eth0MAC},
	{name: "client that is not allowed", packet: packet{flags: syn, toPort: 86, from: netip.MustParseAddr("198.51.100.1")}, verdict: "drop", reason: "denied"},
	{name: "denied among the allowed", packet: packet{flags: syn, toPort: 86, from: netip.MustParseAddr("192.0.2.200")}, verdict: "drop", reason: "denied"},
	{name: "denied, in the middle of a connection", packet: packet{flags: ack, toPort: 86, from: netip.MustParseAddr("192.0.2.200")}, verdict: "drop", reason: "denied"},
	{name: "denied, first fragment", packet: packet{toPort: 86, from: netip.MustParseAddr("192.0.2.200"), fragment: moreFragments}, verdict: "drop", reason: "denied"},
	{name: "denied, flooded frame", packet: packet{destination: serverMAC(9), flags: syn, toPort: 86, from: netip.MustParseAddr("192.0.2.200")}, verdict: "pass_other_mac"},
	{name: "allowed among the denied", packet: packet{flags: syn, toPort: 86, from: netip.MustParseAddr("192.0.2.129")}, verdict: "tx", server: 1, egress: eth0MAC},
	{name: "IPv6, denied client", packet: packet{to: vip6, flags: syn, toPort: 86}, verdict: "drop", reason: "denied"},
	{name: "IPv6, another client", packet: packet{to: vip6, from: netip.MustParseAddr("2001:db8:2::1"), flags: syn, toPort: 86}, verdict: "tx", server: 1, egress: eth0MAC},
	{name: "last packet of the rate", packet: packet{flags: ack, toPort: 87}, before: []packet{{flags: syn, toPort: 87}, {flags: ack, toPort: 87}},
		verdict: "tx", server: 1, egress: eth0MAC},
	{name: "a packet too many", packet: packet{flags: ack, toPort: 87},
		before: []packet{{flags: syn, toPort: 87}, {flags: ack, toPort: 87}, {flags: ack, toPort: 87}}, verdict: "drop", reason: "rate_packets"},
	{name: "a packet too many of another client", packet: packet{flags: syn, toPort: 87, from: netip.MustParseAddr("192.0.2.2")},
		before: []packet{{flags: syn, toPort: 87}, {flags: ack, toPort: 87}, {flags: ack, toPort: 87}}, verdict: "tx", server: 1, egress: eth0MAC},
	{name: "a connection too many", packet: packet{flags: syn, toPort: 87, fromPort: 3},
		before: []packet{{flags: syn, toPort: 87, fromPort: 1}, {flags: syn, toPort: 87, fromPort: 2}}, verdict: "drop", reason: "rate_new"},
	{name: "repeated SYN is no new connection", packet: packet{flags: syn, toPort: 87, fromPort: 1},
		before: []packet{{flags: syn, toPort: 87, fromPort: 1}, {flags: syn, toPort: 87, fromPort: 2}}, verdict: "tx", server: 1, egress: eth0MAC},
	{name: "the middle of an unknown connection is no new one", packet: packet{flags: ack, toPort: 87, fromPort: 3},
		before: []packet{{flags: syn, toPort: 87, fromPort: 1}, {flags: syn, toPort: 87, fromPort: 2}}, verdict: "tx", server: 1, egress: eth0MAC},
	{name: "UDP, a connection too many", packet: packet{protocol: lb.UDP, toPort: 55, fromPort: 2},
		before: []packet{{protocol: lb.UDP, toPort: 55, fromPort: 1}}, verdict: "drop", reason: "rate_new"},
	{name: "past a full server", packet: packet{flags: syn, toPort: 89, fromPort: 3},
		before: []packet{{flags: syn, toPort: 89, fromPort: 1}, {flags: syn, toPort: 89, fromPort: 2}}, verdict: "tx", server: 2, egress: eth0MAC},
	{name: "all servers full", packet: packet{flags: syn, toPort: 89, fromPort: 4},
		before: []packet{{flags: syn, toPort: 89, fromPort: 1}, {flags: syn, toPort: 89, fromPort: 2}, {flags: syn, toPort: 89, fromPort: 3}}, verdict: "pass_refused"},
	{name: "known flow of a full server", packet: packet{flags: ack, toPort: 89, fromPort: 1},
		before: []packet{{flags: syn, toPort: 89, fromPort: 1}, {flags: syn, toPort: 89, fromPort: 2}, {flags: syn, toPort: 89, fromPort: 3}}, verdict: "tx", server: 1, egress: eth0MAC},
	{name: "a flow of a full server has ended", packet: packet{flags: syn, toPort: 89, fromPort: 4},
		before:  []packet{{flags: syn, toPort: 89, fromPort: 1}, {flags: syn, toPort: 89, fromPort: 2}, {flags: syn, toPort: 89, fromPort: 3}, {flags: fin | ack, toPort: 89, fromPort: 1}},
		verdict: "tx", server: 1, egress: eth0MAC},
	{name: "UDP, the only server is full", packet: packet{protocol: lb.UDP, toPort: 56, fromPort: 2},
		before: []packet{{protocol: lb.UDP, toPort: 56, fromPort: 1}}, verdict: "drop", reason: "full"},
	{name: "UDP, a known flow", packet: packet{protocol: lb.UDP, toPort: 55, fromPort: 1},
		before: []packet{{protocol: lb.UDP, toPort: 55, fromPort: 1}}, verdict: "tx", server: 1, egress: eth0MAC},
}

// sourceTable opens the table of sources; nil: there is none.
func sourceTable(t testing.TB, p *Plane) *ebpf.Map {
	t.Helper()
	var id ebpf.MapID
	if err := p.maps.Sources.Lookup(uint32(0), &id); errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil
	} else if err != nil {
		t.Fatal(err)
	}
	table, err := ebpf.NewMapFromID(id)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { table.Close() })
	return table
}

// sourcesOf reads the table of sources.
func sourcesOf(t *testing.T, p *Plane) map[xdirectorSourceKey]xdirectorSource {
	t.Helper()
	all := map[xdirectorSourceKey]xdirectorSource{}
	if err := readAll(sourceTable(t, p), func(key xdirectorSourceKey, s xdirectorSource) { all[key] = s }); err != nil {
		t.Fatal(err)
	}
	return all
}

// elapse makes it so much later for all sources.
func elapse(t *testing.T, p *Plane, d time.Duration) {
	t.Helper()
	table := sourceTable(t, p)
	for key, s := range sourcesOf(t, p) {
		for kind := range s.FullAt {
			s.FullAt[kind] -= uint64(d) * p.flowClock.hz / uint64(time.Second) << tickShift
		}
		if err := table.Put(key, s); err != nil {
			t.Fatal(err)
		}
	}
}

// opened tries n new connections of a client, and returns how many were sent on.
func opened(t *testing.T, p *Plane, from netip.Addr, first, n int) (sent int) {
	t.Helper()
	for i := range n {
		if action, _ := run(t, p, packet{flags: syn, from: from, fromPort: uint16(first + i)}.bytes()); action == xdpTX {
			sent++
		}
	}
	return sent
}

func TestASourceOpensAsManyConnectionsAsItsRateSays(t *testing.T) {
	web := func(l lb.Limits) lb.State { return state(limited(service(webKey, server(1)), l)) }
	p := newTestPlane(t, web(lb.Limits{SourceBits: 24, New: lb.Rate{PerSecond: 2, Burst: 5}}))
	began := time.Now()
	expect := func(what string, sent, want int) {
		t.Helper()
		if most := want + 1 + int(2*time.Since(began)/time.Second); sent < want || sent > most {
			t.Errorf("%s: %d, want %d to %d", what, sent, want, most)
		}
	}
	expect("at once", opened(t, p, client, 1000, 20), 5)
	expect("of a neighbour, which is the same source", opened(t, p, netip.MustParseAddr("192.0.2.77"), 1000, 20), 0)
	expect("of another source", opened(t, p, netip.MustParseAddr("192.0.3.1"), 1000, 20), 5)
	elapse(t, p, 1500*time.Millisecond)
	expect("after a second and a half", opened(t, p, client, 2000, 20), 3)
	elapse(t, p, time.Hour)
	expect("after an hour", opened(t, p, client, 3000, 20), 5)
	if got := sentTo(t, p, packet{flags: ack, fromPort: 3000}); got != 1 {
		t.Errorf("a known flow of a source that has used up its rate went to server %d", got)
	}
	apply(t, p, web(lb.Limits{SourceBits: 24, New: lb.Rate{PerSecond: 1, Burst: 10_000}}))
	if sent := opened(t, p, client, 10_000, 1_000); sent != 1_000 {
		t.Errorf("with a larger limit: %d of 1000", sent)
	}
	apply(t, p, web(lb.Limits{SourceBits: 24, New: lb.Rate{PerSecond: 2, Burst: 3}}))
	expect("with a smaller limit than was used", opened(t, p, client, 4000, 20), 3)
	refused := counters(t, p).Refused[webKey]
	if refused["rate_new"] == 0 || refused["denied"]+refused["rate_packets"] > 0 {
		t.Errorf("the service refused %v, want rate_new alone", refused)
	}
	apply(t, p, web(lb.Limits{}))
	if sent := opened(t, p, client, 5000, 100); sent != 100 {
		t.Errorf("%d of 100 without a limit", sent)
	}
	if sourceTable(t, p) != nil {
		t.Error("without a rate there still is a table of sources")
	}
}

func TestARateIsAsExactAsTheClockOfTheKernelLets(t *testing.T) {
	for _, hz := range []uint64{100, 250, 300, 1000} {
		for _, perSecond := range []uint32{1, 7, 1000, 99_999, 100_000_000} {
			cost, burst := newFlowClockOf(hz).rate(lb.Rate{PerSecond: perSecond, Burst: 1})
			if got, want := float64(hz<<tickShift)/float64(cost), float64(perSecond); got < 0.97*want || got > 1.03*want {
				t.Errorf("%d ticks a second: %.0f a second, want %d", hz, got, perSecond)
			}
			if burst*hz < uint64(perSecond) {
				t.Errorf("%d ticks a second: a burst of %d within a tick makes less than %d a second", hz, burst, perSecond)
			}
		}
	}
}

func TestAListOfClientsIsExchangedWithoutAGap(t *testing.T) {
	good, bad := packet{flags: syn}.bytes(), packet{flags: syn, from: netip.MustParseAddr("198.51.100.1")}.bytes()
	wish := func(n int) lb.State {
		l := lb.Limits{Allow: prefixes("192.0.2.0/24"), Deny: prefixes("192.0.2.64/26")}
		for i := range 200 {
			l.Allow = append(l.Allow, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(n), byte(i), 0}), 24))
		}
		return state(limited(service(webKey, server(1)), l))
	}
	p := newTestPlane(t, wish(0))
	program := p.Program("eth0")
	var load sync.WaitGroup
	stop := make(chan struct{})
	load.Go(func() {
		for {
			for _, f := range []struct {
				frame []byte
				want  uint32
			}{{good, xdpTX}, {bad, xdpDrop}} {
				if action, _, err := program.Test(f.frame); err != nil || action != f.want {
					t.Errorf("while lists are exchanged: action %d, %v, want %d", action, err, f.want)
					return
				}
			}
			select {
			case <-stop:
				return
			default:
			}
		}
	})
	for n := range 12 {
		apply(t, p, wish(n))
	}
	close(stop)
	load.Wait()
	if n := len(p.tables.limits.lists); n != 1 {
		t.Errorf("%d lists, want the last one alone", n)
	}
}

func TestServicesWithTheSamePrefixesShareAListAndARestartFindsIt(t *testing.T) {
	l := lb.Limits{Deny: prefixes("198.51.100.0/24"), New: lb.Rate{PerSecond: 1, Burst: 2}}
	turned := lb.Limits{Deny: prefixes("203.0.113.0/24", "198.51.100.0/24"), Allow: prefixes("0.0.0.0/0")}
	same := lb.Limits{Deny: prefixes("198.51.100.77/24", "203.0.113.0/24"), Allow: prefixes("0.0.0.0/0")}
	key := func(port uint16) lb.ServiceKey { return lb.ServiceKey{Address: vip, Port: port, Protocol: lb.TCP} }
	wish := state(limited(service(webKey, server(1)), l), limited(service(key(81), server(1)), turned), limited(service(key(82), server(1)), same))
	p := newTestPlane(t, wish)
	if n := len(p.tables.limits.lists); n != 2 {
		t.Fatalf("%d lists, want 2", n)
	}
	if sent := opened(t, p, client, 1000, 2); sent != 2 {
		t.Fatalf("%d new connections, want 2", sent)
	}
	// An agent that dies in the middle of a list leaves some of it.
	if _, err := p.listOf(rulesOf(lb.Limits{Deny: prefixes("10.0.0.0/8", "10.1.0.0/16")})); err != nil {
		t.Fatal(err)
	}
	before, used := fmt.Sprint(p.tables.limits.services), sourcesOf(t, p)

	p = reopen(t, p, nil)
	apply(t, p, wish)
	if got := fmt.Sprint(p.tables.limits.services); got != before {
		t.Errorf("after a restart\n%s, want\n%s", got, before)
	}
	if n := len(p.tables.limits.lists); n != 2 {
		t.Errorf("%d lists after a restart, want 2", n)
	}
	if now := sourcesOf(t, p); len(used) != 1 || !maps.Equal(now, used) {
		t.Errorf("after a restart the sources have used\n%v, want\n%v", now, used)
	}
	for port, from := range map[uint16]string{80: "198.51.100.7", 81: "203.0.113.7", 82: "198.51.100.7"} {
		if action, _ := run(t, p, packet{flags: syn, toPort: port, from: netip.MustParseAddr(from)}.bytes()); action != xdpDrop {
			t.Errorf("port %d, client %s: action %d, want %d", port, from, action, xdpDrop)
		}
	}
	apply(t, p, state(service(dnsKey, server(1))))
	p = reopen(t, p, nil)
	if l := p.tables.limits; len(l.services)+len(l.lists) > 0 || l.sources {
		t.Errorf("without services there are still %+v", l)
	}
}

func TestAListThatCannotBeWrittenLeavesTheOldOne(t *testing.T) {
	p := newTestPlane(t, state(limited(service(webKey, server(1)), lb.Limits{Allow: prefixes("192.0.2.0/24")})))
	if err := p.maps.Rules.Freeze(); err != nil {
		t.Fatal(err)
	}
	other := lb.Limits{Allow: prefixes("198.51.100.0/24"), Deny: prefixes("192.0.2.0/24")}
	if err := p.Apply(t.Context(), state(limited(service(webKey, server(1)), other))); err == nil || !strings.Contains(err.Error(), "1048576 at most") {
		t.Fatalf("error %v, want one with how many prefixes there is room for", err)
	}
	if action, _ := run(t, p, packet{flags: syn}.bytes()); action != xdpTX {
		t.Errorf("a client of the old list: action %d, want %d", action, xdpTX)
	}
	if action, _ := run(t, p, packet{flags: syn, from: netip.MustParseAddr("198.51.100.1")}.bytes()); action != xdpDrop {
		t.Errorf("one of the new list: action %d, want %d", action, xdpDrop)
	}
}
