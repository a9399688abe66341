package neigh

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/xdirector/xdirector/pkg/lb"
)

// testBox has a LAN with two own addresses, one of them virtual, a second interface that has virtual addresses only,
// and a tunnel.
func testBox() box {
	return box{
		links: map[int]link{
			1: {name: "lo", up: true},
			2: {name: "eth0", up: true, ether: true},
			3: {name: "eth1", up: true, ether: true},
			4: {name: "tun0", up: true},
		},
		own: map[int][]netip.Prefix{
			1: {netip.MustParsePrefix("127.0.0.1/8"), netip.MustParsePrefix("::1/128")},
			2: {
				netip.MustParsePrefix("10.0.0.100/24"), netip.MustParsePrefix("172.16.0.1/24"), netip.MustParsePrefix("10.0.0.1/24"),
				netip.MustParsePrefix("fe80::1/64"), netip.MustParsePrefix("fd00::1/64"),
			},
			3: {netip.MustParsePrefix("10.3.0.100/32")},
		},
		virtual: map[netip.Addr]bool{
			netip.MustParseAddr("10.0.0.100"): true, netip.MustParseAddr("10.3.0.100"): true, netip.MustParseAddr("fd00::100"): true,
		},
		routed: map[netip.Addr]bool{netip.MustParseAddr("10.9.9.10"): true, netip.MustParseAddr("10.0.0.8"): true},
	}
}

func TestJudge(t *testing.T) {
	ip := netip.MustParseAddr
	tests := []struct {
		name   string
		target string
		route  route
		failed error
		want   way    // without errors
		err    string // how err begins
		source string // how sourceErr begins
	}{
		{"on the link", "10.0.0.7", route{2, unix.RTN_UNICAST, netip.Addr{}, ip("10.0.0.1")}, nil, way{index: 2, source: ip("10.0.0.1")}, "", ""},
		{"on the link, by a gateway that is the target itself", "10.0.0.7", route{2, unix.RTN_UNICAST, ip("10.0.0.7"), ip("10.0.0.1")}, nil,
			way{index: 2, source: ip("10.0.0.1")}, "", ""},
		{"kernel prefers a virtual source", "10.0.0.7", route{2, unix.RTN_UNICAST, netip.Addr{}, ip("10.0.0.100")}, nil,
			way{index: 2, source: ip("10.0.0.1")}, "", ""},
		{"no own address in the target's network", "10.5.0.7", route{2, unix.RTN_UNICAST, netip.Addr{}, ip("10.0.0.100")}, nil,
			way{index: 2, source: ip("172.16.0.1")}, "", ""},
		{"IPv6, kernel prefers a virtual source", "fd00::7", route{2, unix.RTN_UNICAST, netip.Addr{}, ip("fd00::100")}, nil,
			way{index: 2, source: ip("fd00::1")}, "", ""},
		{"only virtual addresses", "10.3.0.7", route{3, unix.RTN_UNICAST, netip.Addr{}, ip("10.3.0.100")}, nil,
			way{index: 3}, "", "no own address for checks of real server 10.3.0.7: eth1 has none but virtual ones"},
		{"this box", "10.0.0.1", route{1, unix.RTN_LOCAL, netip.Addr{}, ip("10.0.0.1")}, nil, way{index: 1, local: true, source: ip("10.0.0.1")}, "", ""},
		{"this box, at a virtual address", "10.0.0.100", route{1, unix.RTN_LOCAL, netip.Addr{}, ip("10.0.0.100")}, nil,
			way{index: 1, local: true, source: ip("10.0.0.1")}, "", ""},
		{"behind a router", "10.9.9.9", route{2, unix.RTN_UNICAST, ip("10.0.0.254"), ip("10.0.0.1")}, nil, way{},
			"real server 10.9.9.9 is not on a directly connected network (route via 10.0.0.254 dev eth0)", "real server 10.9.9.9 is not"},
		{"through a tunnel", "10.4.0.7", route{4, unix.RTN_UNICAST, netip.Addr{}, ip("10.4.0.1")}, nil, way{},
			"real server 10.4.0.7 is reached by tun0, which is no Ethernet interface", "real server 10.4.0.7"},
		{"behind a router, to which IPVS sends", "10.9.9.10", route{2, unix.RTN_UNICAST, ip("10.0.0.254"), ip("10.0.0.100")}, nil,
			way{index: 2, routed: true, source: ip("172.16.0.1")}, "", ""},
		{"on the link, to which IPVS sends", "10.0.0.8", route{2, unix.RTN_UNICAST, netip.Addr{}, ip("10.0.0.1")}, nil,
			way{index: 2, source: ip("10.0.0.1")}, "", ""},
		{"the address of the network", "10.0.0.255", route{2, unix.RTN_BROADCAST, netip.Addr{}, ip("10.0.0.1")}, nil, way{},
			"real server 10.0.0.255 is not the address of one host", "real server 10.0.0.255"},
		{"no route", "10.8.8.8", route{}, syscall.ENETUNREACH, way{},
			"no route to real server 10.8.8.8: network is unreachable; give this director an address in its network", "no route"},
		{"blackhole", "10.8.8.8", route{}, syscall.EINVAL, way{}, "no route to real server 10.8.8.8: blackhole route;", "no route"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got := testBox().judge(netip.MustParseAddr(test.target), test.route, test.failed)
			if !begins(got.err, test.err) || !begins(got.sourceErr, test.source) {
				t.Errorf("errors %v; %v, want ones that begin with %q; %q", got.err, got.sourceErr, test.err, test.source)
			}
			got.err, got.sourceErr = nil, nil
			if got != test.want {
				t.Errorf("way %+v, want %+v", got, test.want)
			}
		})
	}
}

func begins(err error, want string) bool {
	return (err == nil) == (want == "") && strings.HasPrefix(text(err), want)
}

func TestNextHopIsReplacedOnlyByAnotherOne(t *testing.T) {
	a, b := lb.MAC{2, 0, 0, 0, 0, 1}, lb.MAC{2, 0, 0, 0, 0, 2}
	onLink := func(index int) way { return way{index: index} }
	tests := []struct {
		name  string
		known lb.NextHop
		way   way
		mac   lb.MAC
		want  lb.NextHop
	}{
		{"nothing known, nothing learnt", lb.NextHop{}, onLink(2), lb.MAC{}, lb.NextHop{Interface: 2}},
		{"first MAC", lb.NextHop{Interface: 2}, onLink(2), a, lb.NextHop{Interface: 2, MAC: a}},
		{"another MAC", lb.NextHop{Interface: 2, MAC: a}, onLink(2), b, lb.NextHop{Interface: 2, MAC: b}},
		{"MAC not known any more", lb.NextHop{Interface: 2, MAC: a}, onLink(2), lb.MAC{}, lb.NextHop{Interface: 2, MAC: a}},
		{"no way any more", lb.NextHop{Interface: 2, MAC: a}, noWay(syscall.ENETUNREACH), lb.MAC{}, lb.NextHop{Interface: 2, MAC: a}},
		{"another interface, MAC not known there yet", lb.NextHop{Interface: 2, MAC: a}, onLink(3), lb.MAC{}, lb.NextHop{Interface: 2, MAC: a}},
		{"another interface, MAC known there", lb.NextHop{Interface: 2, MAC: a}, onLink(3), b, lb.NextHop{Interface: 3, MAC: b}},
		{"interface deleted", lb.NextHop{Interface: 9, MAC: a}, onLink(2), lb.MAC{}, lb.NextHop{Interface: 2}},
		{"interface deleted and no way", lb.NextHop{Interface: 9, MAC: a}, noWay(syscall.ENETUNREACH), lb.MAC{}, lb.NextHop{}},
		{"becomes this box", lb.NextHop{Interface: 2, MAC: a}, way{index: 1, local: true}, lb.MAC{}, lb.NextHop{Local: true}},
		{"is this box no longer", lb.NextHop{Local: true}, onLink(2), lb.MAC{}, lb.NextHop{Interface: 2}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := testBox().next(test.known, test.way, test.mac); got != test.want {
				t.Errorf("next hop %+v, want %+v", got, test.want)
			}
		})
	}
}

func TestCutNetlinkMessagesDoNoHarm(t *testing.T) {
	// RTM_NEWNEIGH of 10.1.0.101 on interface 5: REACHABLE, 02:00:00:00:00:01.
	neighbourMessage := []byte{
		2, 0, 0, 0, 5, 0, 0, 0, 2, 0, 0x10, 1,
		8, 0, 1, 0, 10, 1, 0, 101,
		10, 0, 2, 0, 2, 0, 0, 0, 0, 1, 0, 0,
		5, 0, 12, 0, 112, 0, 0, 0,
		8, 0, 15, 0, 1, 0, 0, 0,
	}
	// RTM_NEWROUTE to 10.9.0.0/16.
	routeMessage := []byte{2, 16, 0, 0, 254, 3, 0, 1, 0, 0, 0, 0, 8, 0, 1, 0, 10, 9, 0, 0}
	for kind, whole := range map[uint16][]byte{unix.RTM_NEWNEIGH: neighbourMessage, unix.RTM_NEWROUTE: routeMessage} {
		for n := range len(whole) {
			m := syscall.NetlinkMessage{Header: syscall.NlMsghdr{Type: kind}, Data: slices.Clone(whole[:n])}
			if e, ok := parseEvent(m); ok && e.kind == neighbour && !e.at.address.IsValid() {
				t.Errorf("%d bytes of a neighbour message gave %+v", n, e)
			}
		}
	}
	at, e, ok := parseNeighbour(neighbourMessage)
	wantAt := key{5, server1}
	want := entry{mac: lb.MAC{2, 0, 0, 0, 0, 1}, state: 2, flags: 0x10, managed: true, protocol: 112}
	if !ok || at != wantAt || e != want {
		t.Errorf("%+v %+v %v, want %+v %+v", at, e, ok, wantAt, want)
	}
	if p, ok := parseRoute(routeMessage); !ok || p != netip.MustParsePrefix("10.9.0.0/16") {
		t.Errorf("route %v %v, want 10.9.0.0/16", p, ok)
	}
}

func TestCheckOfATargetBehindADownLinkIsBlind(t *testing.T) {
	target := netip.MustParseAddr("10.0.0.7")
	routed := route{2, unix.RTN_UNICAST, netip.Addr{}, netip.MustParseAddr("10.0.0.1")}
	for _, tt := range []struct {
		name   string
		up     bool
		route  route
		failed error
		blind  bool
	}{
		{"link up", true, routed, nil, false},
		{"no carrier, the route stays", false, routed, nil, true},
		{"link down, no route is left", false, route{}, unix.ENETUNREACH, true},
		{"link down, the default route is left", false, route{3, unix.RTN_UNICAST, netip.MustParseAddr("10.3.0.1"), netip.MustParseAddr("10.3.0.100")}, nil, true},
		{"link up, no route", true, route{}, unix.ENETUNREACH, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := testBox()
			eth0 := b.links[2]
			eth0.up = tt.up
			b.links[2] = eth0
			w := b.judge(target, tt.route, tt.failed)
			if got := errors.Is(w.sourceErr, ErrLinkDown); got != tt.blind {
				t.Errorf("blind %v, want %v: %v", got, tt.blind, w.sourceErr)
			}
		})
	}
}
