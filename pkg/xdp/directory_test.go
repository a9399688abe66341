package xdp

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/xdirector/xdirector/pkg/lb"
)

func TestBlocksOfPortsCoverARangeAndNothingElse(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 8))
	ranges := [][2]uint16{{0, 65535}, {1, 65535}, {0, 0}, {80, 80}, {8000, 8099}, {1, 65534}, {65535, 65535}}
	for range 200 {
		a, b := uint16(random.Uint32()), uint16(random.Uint32())
		ranges = append(ranges, [2]uint16{min(a, b), max(a, b)})
	}
	for _, r := range ranges {
		next := uint32(r[0])
		list := blocks(r[0], r[1])
		for _, b := range list {
			if b.first != next || b.first%(1<<b.level) != 0 {
				t.Fatalf("ports %d-%d: block of level %d begins at %d, want %d", r[0], r[1], b.level, b.first, next)
			}
			next = b.first + 1<<b.level
		}
		if next != uint32(r[1])+1 || len(list) > 30 {
			t.Errorf("ports %d-%d: %d blocks end at %d", r[0], r[1], len(list), next)
		}
	}
}

// Ten thousand services are told apart, all at once, and so are those that follow them.
func TestManyServicesAreTheOnesThatPacketsMeet(t *testing.T) {
	address := func(n int) netip.Addr { return netip.AddrFrom4([4]byte{10, 1, byte(n >> 4 >> 8), byte(n >> 4)}) }
	key := func(n int) lb.ServiceKey {
		return lb.ServiceKey{Address: address(n), Port: uint16(8000 + n&15), Protocol: lb.TCP}
	}
	many := func(first, last int) (s lb.State) {
		for n := first; n < last; n++ {
			s.Services = append(s.Services, service(key(n), server(1+n%200)))
		}
		return s
	}
	p := openPlane(t, testConfig(mountBPFFS(t)), twoInterfaces)
	met := func(n int) int {
		action, out := run(t, p, packet{to: address(n), toPort: uint16(8000 + n&15), flags: syn}.bytes())
		if action != xdpTX {
			return 0
		}
		return int(out[5])
	}
	for _, listed := range [][2]int{{0, 10000}, {5000, 10100}} {
		apply(t, p, many(listed[0], listed[1]))
		for n := 0; n < 10200; n += 7 {
			want := 0
			if n >= listed[0] && n < listed[1] {
				want = 1 + n%200
			}
			if got := met(n); got != want {
				t.Fatalf("of services %v, a packet for number %d went to server %d, want %d", listed, n, got, want)
			}
		}
	}
}

func TestPacketBelongsToTheNarrowestRangeAroundItsPort(t *testing.T) {
	ports := func(first, last uint16) lb.ServiceKey {
		return lb.ServiceKey{Address: webKey.Address, Port: first, LastPort: last, Protocol: lb.TCP}
	}
	// 64 to 95 is a block of 32 ports both in 64-95 and in 1-99.
	p := newTestPlane(t, state(service(ports(0, 0), server(1)), service(ports(1, 99), server(2)), service(ports(64, 95), server(3)), service(ports(80, 0), server(4))))
	for port, want := range map[uint16]int{100: 1, 63: 2, 99: 2, 64: 3, 95: 3, 79: 3, 80: 4} {
		if got := sentTo(t, p, packet{toPort: port, flags: syn}); got != want {
			t.Errorf("port %d went to server %d, want %d", port, got, want)
		}
	}
}

func TestPacketBelongsToTheSmallestNetworkThatHasItsPort(t *testing.T) {
	at := func(network string, first, last uint16) lb.ServiceKey {
		p := netip.MustParsePrefix(network)
		key := lb.ServiceKey{Address: p.Addr(), Port: first, LastPort: last, Protocol: lb.TCP}
		if !p.IsSingleIP() {
			key.Bits = uint8(p.Bits())
		}
		return key
	}
	all := []lb.Service{
		service(at("10.20.0.0/16", 0, 0), server(1)), service(at("10.20.30.0/24", 1, 99), server(2)), service(at("10.20.30.0/24", 443, 0), server(3)),
		service(at("10.20.30.40/32", 64, 95), server(4)), service(at("10.20.30.40/32", 8000, 8099), server(5)),
		service(at("2001:db8::/32", 80, 0), server6(6)), service(at("2001:db8::1/128", 443, 0), server6(7)),
	}
	p := newTestPlane(t, state(all...))
	check := func(to string, port uint16, want int) {
		t.Helper()
		if got := sentTo(t, p, packet{to: netip.MustParseAddr(to), toPort: port, flags: syn}); got != want {
			t.Errorf("%s port %d went to server %d, want %d", to, port, got, want)
		}
	}
	check("10.20.1.1", 80, 1)
	check("10.20.30.1", 80, 2)
	check("10.20.30.1", 443, 3)
	check("10.20.30.1", 8000, 1)
	check("10.20.30.40", 80, 4) // though the block of ports 80 to 95 is in two of them
	check("10.20.30.40", 63, 2)
	check("10.20.30.40", 96, 2)
	check("10.20.30.40", 443, 3)
	check("10.20.30.40", 8099, 5)
	check("10.20.30.40", 100, 1)
	check("2001:db8::2", 80, 6)
	check("2001:db8::1", 80, 6)
	check("2001:db8::1", 443, 7)
	apply(t, p, state(all[0], all[1]))
	check("10.20.30.40", 80, 2)
	check("10.20.30.40", 443, 1)
	apply(t, p, state(all[0]))
	check("10.20.30.40", 80, 1)
}

func TestFlowsAreKnownAsLongAsTheirServiceSays(t *testing.T) {
	quick := service(webKey, server(1), server(2))
	quick.Timeouts = lb.Timeouts{Opening: 10 * time.Second, Established: 30 * time.Second, Closing: 20 * time.Second}
	slow := service(dnsKey, server(1))
	slow.Timeouts.UDP = time.Hour
	p := newTestPlane(t, state(quick, slow))
	dns := packet{protocol: lb.UDP, toPort: 53}
	flows := func() uint64 { n, _ := flowsAndUnstored(t, p); return n }
	for _, row := range []struct {
		of     string
		before []packet
		after  time.Duration
	}{
		{"SYN", []packet{{flags: syn}}, 10 * time.Second},
		{"established", []packet{{flags: syn}, {flags: ack}}, 30 * time.Second},
		{"closing", []packet{{flags: syn}, {flags: fin | ack}}, 20 * time.Second},
		{"UDP", []packet{dns, dns}, time.Hour},
	} {
		forget(t, p)
		for _, f := range row.before {
			sentTo(t, p, f)
		}
		age(t, p, row.after-2*time.Second)
		if flows() != 1 {
			t.Errorf("%s: forgotten before %v", row.of, row.after)
		}
		age(t, p, 4*time.Second)
		if flows() != 0 {
			t.Errorf("%s: known after %v", row.of, row.after)
		}
	}
}

func TestFloodIsForwardedButNotStored(t *testing.T) {
	web := service(webKey, manyServers(64)...)
	web.NewFlows, web.RefuseUnknown = 100, true
	p := newTestPlane(t, state(web))
	if action, _ := run(t, p, flowPacket(1, ack).bytes()); action != xdpPass {
		t.Errorf("unknown ACK: action %d, want it refused", action)
	}
	servers := map[int]int{}
	const flood = 2000
	for n := range flood {
		servers[n] = sentTo(t, p, flowPacket(n<<12, syn))
	}
	flows, unstored := flowsAndUnstored(t, p)
	if seconds := uint64(3); flows > 100*seconds || flows+unstored != flood {
		t.Errorf("%d flows of %d are stored, %d are not; want about 100 a second", flows, flood, unstored)
	}
	for n := range flood { // also those that are not stored, though what is unknown is refused otherwise
		if got := sentTo(t, p, flowPacket(n<<12, ack)); got != servers[n] {
			t.Fatalf("flow %d went to server %d, then to %d", n, servers[n], got)
		}
	}
}

func TestAGroupSharesTheRealServersOfItsClients(t *testing.T) {
	grouped := func(key lb.ServiceKey, servers ...lb.RealServer) lb.Service {
		s := persistent(service(key, servers...))
		s.Group, s.PersistenceBits = "shop", 24
		return s
	}
	https := webKey
	https.Port = 443
	alone := webKey
	alone.Port = 8080
	wish := func(more ...lb.RealServer) lb.State {
		return state(grouped(webKey, server(1), server(2), server(3)), grouped(https, append(more, server(3), server(2), server(1))...), service(alone, server(9)))
	}
	p := newTestPlane(t, wish())
	at := func(n, host int) netip.Addr { return netip.AddrFrom4([4]byte{198, 51, byte(n), byte(host)}) }
	var servers [20]int
	for n := range servers {
		servers[n] = sentTo(t, p, packet{from: at(n, 1), flags: syn})
	}
	same := func(when string) {
		t.Helper()
		for n, want := range servers {
			if got := sentTo(t, p, packet{from: at(n, 77), toPort: 443, flags: syn}); got != want {
				t.Errorf("%s: network %d has server %d at one service of the group, %d at the other", when, n, want, got)
			}
		}
	}
	same("first")
	p = reopen(t, p, nil)
	apply(t, p, wish(server(4)))
	same("after a restart and a change")
	apply(t, p, wish(server(4)))
	if got := len(p.tables.members); got != 7 {
		t.Errorf("%d members of the group, want 7", got)
	}
	apply(t, p, state(service(alone, server(9))))
	if got := len(p.tables.members); got != 0 {
		t.Errorf("%d members of the group that is gone", got)
	}
}

func TestPrefixesComeAndGo(t *testing.T) {
	p := newTestPlane(t, state(service(webKey, server(1))))
	for n := range 3 {
		key := lb.ServiceKey{Address: netip.MustParseAddr(fmt.Sprintf("10.%d.0.0", 20+n)), Bits: 16, Port: 80, Protocol: lb.TCP}
		apply(t, p, state(service(webKey, server(1)), service(key, server(2+n))))
		p = reopen(t, p, nil)
		for m := range 3 {
			action, _ := run(t, p, packet{to: netip.MustParseAddr(fmt.Sprintf("10.%d.7.7", 20+m)), flags: syn}.bytes())
			if sent := action == xdpTX; sent != (m == n) {
				t.Errorf("network %d of %d: action %d", m, n, action)
			}
		}
	}
	apply(t, p, state(service(webKey, server(1))))
	if len(p.directory.networks) != 0 || p.directory.now.Prefixes != 0 {
		t.Errorf("networks left: %v, %+v", p.directory.networks, p.directory.now)
	}
}
