package xdp

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/xdirector/xdirector/pkg/lb"
)

func weighted(n int, weight uint16) lb.RealServer {
	r := server(n)
	r.Weight = weight
	return r
}

func downServer(n int) lb.RealServer {
	r := server(n)
	r.Up = false
	return r
}

// newFlows opens n connections from different ports and returns their servers.
func newFlows(t *testing.T, p *Plane, first, n int) []int {
	t.Helper()
	var servers []int
	for i := range n {
		servers = append(servers, sentTo(t, p, packet{flags: syn, fromPort: uint16(first + i)}))
	}
	return servers
}

func TestNewFlowsFollowTheScheduleExactly(t *testing.T) {
	for _, row := range []struct {
		name    string
		service lb.Service
	}{
		{"rr", service(webKey, server(1), server(2), server(3))},
		{"rr ignores weights", service(webKey, weighted(1, 5), weighted(2, 1))},
		{"rr without weight 0 and down", service(webKey, weighted(1, 0), server(2), downServer(3), server(4))},
		{"wrr", wrr(service(webKey, weighted(1, 4), weighted(2, 3), weighted(3, 2)))},
		{"wrr with a common divisor", wrr(service(webKey, weighted(1, 10), weighted(2, 30)))},
		{"wrr longer than one line of the ring", wrr(service(webKey, weighted(1, 40), weighted(2, 39), weighted(3, 7)))},
		{"wrr without weight 0", wrr(service(webKey, weighted(1, 0), weighted(2, 2), weighted(3, 1)))},
		{"one server", service(webKey, server(1))},
		{"as many as fill a line with the length", service(webKey, manyServers(15)...)},
		{"as many as a line", service(webKey, manyServers(16)...)},
		{"many", service(webKey, manyServers(100)...)},
	} {
		t.Run(row.name, func(t *testing.T) {
			p := newTestPlane(t, state(row.service))
			order := lb.Schedule(row.service)
			for i, got := range newFlows(t, p, 1000, 1000) {
				want := row.service.RealServers[order[i%len(order)]].Address
				if serverAddress(got) != want {
					t.Fatalf("flow %d went to %s, want %s", i, serverAddress(got), want)
				}
			}
		})
	}
}

func TestHashedFlowsGoWhereTheTableSaysWithoutMemory(t *testing.T) {
	for _, scheduler := range []lb.Scheduler{lb.SourceHashing, lb.MaglevHashing} {
		t.Run(string(scheduler), func(t *testing.T) {
			list := []lb.RealServer{server(1), weighted(2, 3), weighted(3, 0), downServer(4), server(5)}
			first := service(webKey, list...)
			first.Scheduler = scheduler
			turned := first
			turned.RealServers = slices.Clone(list)
			slices.Reverse(turned.RealServers)
			one, other := newTestPlane(t, state(first)), newTestPlane(t, state(turned))
			used := map[int]int{}
			for n := range 500 {
				opening := packet{flags: syn, from: netip.AddrFrom4([4]byte{192, 0, 2, byte(n)}), fromPort: uint16(1024 + n)}
				chosen := sentTo(t, one, opening)
				used[chosen]++
				next := opening
				next.flags, next.fromPort = ack, opening.fromPort+1
				if got := sentTo(t, one, next); got != chosen {
					t.Fatalf("client %d: its flows go to servers %d and %d", n%256, chosen, got)
				}
				opening.flags = ack
				if got := sentTo(t, other, opening); got != chosen {
					t.Fatalf("client %d: one director chose server %d, the other one %d", n%256, chosen, got)
				}
			}
			if len(used) != 3 || used[2] < used[1] || used[2] < used[5] {
				t.Errorf("flows by server: %v, want three servers and most for 2", used)
			}
		})
	}
}

func TestAHashTableIsMadeOnceForOneWish(t *testing.T) {
	s := service(webKey, server(1), server(2))
	s.Scheduler = lb.MaglevHashing
	p := newTestPlane(t, state(s))
	apply(t, p, state(s))
	entry := p.tables.services[webKey]
	before := &entry.schedule[0]
	apply(t, p, state(s))
	if &entry.schedule[0] != before {
		t.Error("an unchanged table was made anew")
	}
	s.RealServers[0].Up = false
	apply(t, p, state(s))
	if got := newFlows(t, p, 1000, 1); got[0] != 2 {
		t.Errorf("a new flow went to server %d, which is down", got[0])
	}
}

func wrr(s lb.Service) lb.Service {
	s.Scheduler = lb.WeightedRoundRobin
	return s
}

func manyServers(n int) []lb.RealServer {
	var servers []lb.RealServer
	for i := range n {
		servers = append(servers, server(i+1))
	}
	return servers
}

func TestTurnGoesOnAfterAReload(t *testing.T) {
	p := newTestPlane(t, state(service(webKey, server(1), server(2))))
	newFlows(t, p, 1000, 1)
	apply(t, p, state(service(webKey, server(1), server(2)), service(dnsKey, server(1))))
	if got := newFlows(t, p, 2000, 1); got[0] != 2 {
		t.Errorf("first flow after the reload went to server %d, want 2, whose turn it is", got[0])
	}
}

func TestFlowsAndWhatHappensToTheirServer(t *testing.T) {
	udp := func(f packet) packet {
		f.protocol, f.toPort = lb.UDP, 53
		return f
	}
	for _, row := range []struct {
		name   string
		key    lb.ServiceKey
		after  []lb.RealServer // the flow was on server 1
		packet packet
		want   int
	}{
		{"weight 0 keeps a flow", webKey, []lb.RealServer{weighted(1, 0), server(2)}, packet{flags: ack}, 1},
		{"weight 0 keeps a repeated SYN", webKey, []lb.RealServer{weighted(1, 0), server(2)}, packet{flags: syn}, 1},
		{"weight 0 gets no new flow", webKey, []lb.RealServer{weighted(1, 0), server(2)}, packet{flags: syn, fromPort: 9}, 2},
		{"down with its flows kept: an ACK goes on", webKey, []lb.RealServer{failed(1), server(2)}, packet{flags: ack}, 1},
		{"down with its flows kept: a SYN is scheduled afresh", webKey, []lb.RealServer{failed(1), server(2)}, packet{flags: syn}, 2},
		{"down with its flows kept: UDP goes on", dnsKey, []lb.RealServer{failed(1), server(2)}, udp(packet{}), 1},
		{"down: a SYN is scheduled afresh", webKey, []lb.RealServer{downServer(1), server(2)}, packet{flags: syn}, 2},
		{"down: an ACK too, so that the client learns", webKey, []lb.RealServer{downServer(1), server(2)}, packet{flags: ack}, 2},
		{"down: UDP too", dnsKey, []lb.RealServer{downServer(1), server(2)}, udp(packet{}), 2},
		{"removed: scheduled afresh", webKey, []lb.RealServer{server(2)}, packet{flags: ack}, 2},
		{"a new MAC is used", webKey, []lb.RealServer{moved(1, 77), server(2)}, packet{flags: ack}, 77},
		{"an unknown MAC stays the last one", webKey, []lb.RealServer{unknown(1), server(2)}, packet{flags: ack}, 1},
	} {
		t.Run(row.name, func(t *testing.T) {
			p := newTestPlane(t, state(service(row.key, server(1), server(2))))
			first := packet{flags: syn}
			if row.key == dnsKey {
				first = udp(first)
			}
			if got := sentTo(t, p, first); got != 1 {
				t.Fatalf("first flow went to server %d, want 1", got)
			}
			apply(t, p, state(service(row.key, row.after...)))
			if got := sentTo(t, p, row.packet); got != row.want {
				t.Errorf("went to server %d, want %d", got, row.want)
			}
		})
	}
}

// failed is down, and keeps its flows.
func failed(n int) lb.RealServer {
	r := weighted(n, 0)
	r.Failed = true
	return r
}

func moved(n, mac int) lb.RealServer {
	r := server(n)
	r.NextHop.MAC = serverMAC(mac)
	return r
}

func unknown(n int) lb.RealServer {
	r := server(n)
	r.NextHop = lb.NextHop{}
	return r
}

func TestServerWithoutAKnownNextHopIsNoTarget(t *testing.T) {
	p := newTestPlane(t, state(service(webKey, unknown(1), server(2))))
	for i, got := range newFlows(t, p, 1000, 4) {
		if got != 2 {
			t.Errorf("flow %d went to server %d, want 2", i, got)
		}
	}
}

func TestServerBehindAMissingInterfaceIsNoTarget(t *testing.T) {
	gone := server(1)
	gone.NextHop.Interface = 99
	p := newTestPlane(t, state(service(webKey, gone, server(2))))
	for i, got := range newFlows(t, p, 1000, 4) {
		if got != 2 {
			t.Errorf("flow %d went to server %d, want 2", i, got)
		}
	}
}

func TestFlowOfARemovedServerDoesNotHitTheNextOwnerOfItsID(t *testing.T) {
	p := newTestPlane(t, state(service(webKey, server(1), server(2))))
	if got := sentTo(t, p, packet{flags: syn}); got != 1 {
		t.Fatalf("first flow went to server %d, want 1", got)
	}
	id := p.tables.servers[lb.ServerKey{Service: webKey, Address: serverAddress(1)}].id
	apply(t, p, state(service(webKey, server(2))))
	apply(t, p, state(service(webKey, server(3), server(2))))
	if got := p.tables.servers[lb.ServerKey{Service: webKey, Address: serverAddress(3)}].id; got != id {
		t.Fatalf("server 3 has id %d, the test needs it to get %d again", got, id)
	}
	if traffic := counters(t, p).RealServers[lb.ServerKey{Service: webKey, Address: serverAddress(3)}]; traffic != (lb.Traffic{}) {
		t.Errorf("a new server inherits counters %+v", traffic)
	}
	if got := sentTo(t, p, packet{flags: syn}); got != 2 {
		t.Errorf("the old flow went to server %d, want 2: scheduled afresh, and it is at its turn", got)
	}
}

func TestPersistentClientOfARemovedServerDoesNotHitTheNextOwnerOfItsID(t *testing.T) {
	p := newTestPlane(t, state(persistent(service(webKey, server(1), server(2)))))
	sentTo(t, p, packet{flags: syn, fromPort: 1000})
	apply(t, p, state(persistent(service(webKey, server(2)))))
	apply(t, p, state(persistent(service(webKey, server(3), server(2)))))
	if got := sentTo(t, p, packet{flags: syn, fromPort: 1001}); got != 2 {
		t.Errorf("the client's next flow went to server %d, want 2: scheduled afresh, and it is at its turn", got)
	}
}

func TestNoPacketMeetsAServiceThatPointsAtNothing(t *testing.T) {
	keeper := func(servers ...lb.RealServer) lb.Service { return service(webKey, servers...) }
	states := []lb.State{
		state(keeper(server(1), server(2)), service(dnsKey, server(1))),
		state(keeper(server(2), downServer(1)), service(dnsKey, server(2))),
		state(keeper(server(3), server(2))),
		state(keeper(server(4)), service(dnsKey, server(5))),
		state(keeper(server(1), weighted(4, 0))),
	}
	p := newTestPlane(t, states[0])
	program := p.Program("eth0")
	stop, wrong := make(chan struct{}), make(chan string, 1)
	go func() {
		defer close(wrong)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			// Every packet opens a flow; UDP belongs to a service that comes and goes.
			web := packet{flags: syn, fromPort: uint16(1 + i%60000)}
			if action, _, err := program.Test(web.bytes()); err != nil || action != xdpTX {
				wrong <- fmt.Sprintf("SYN %d: action %d, %v", i, action, err)
				return
			}
			dns := packet{protocol: lb.UDP, toPort: 53, fromPort: uint16(1 + i%60000)}
			if action, _, err := program.Test(dns.bytes()); err != nil || action == xdpDrop {
				wrong <- fmt.Sprintf("datagram %d: action %d, %v", i, action, err)
				return
			}
		}
	}()
	for i := range 100 {
		apply(t, p, states[i%len(states)])
	}
	close(stop)
	for problem := range wrong {
		t.Error(problem)
	}
}

// age makes every flow, every persistent client and every noted fragment look so much older.
func age(t *testing.T, p *Plane, by time.Duration) {
	t.Helper()
	hz, err := ticksPerSecond()
	if err != nil {
		t.Fatal(err)
	}
	ticks := uint64(by) * hz / uint64(time.Second)
	units := uint64(ticks >> p.flowClock.shift)
	for i := range p.flows.places {
		if place := &p.flows.places[i]; place.Print != flowFree {
			const shift, mask = xdirectorFlowBitsFLOW_EXPIRES_SHIFT, 1<<xdirectorFlowBitsFLOW_EXPIRES_BITS - 1
			expires := place.State>>shift - units
			place.State = place.State&^(mask<<shift) | expires&mask<<shift
		}
	}
	var clientKey xdirectorClientKey
	var value xdirectorClient
	clients := map[xdirectorClientKey]xdirectorClient{}
	for all := p.maps.Clients.Iterate(); all.Next(&clientKey, &value); {
		value.Expires -= ticks
		clients[clientKey] = value
	}
	for key, value := range clients {
		if err := p.maps.Clients.Put(key, value); err != nil {
			t.Fatal(err)
		}
	}
	var fragmentKey xdirectorFragmentKey
	var fragment xdirectorFragment
	fragments := map[xdirectorFragmentKey]xdirectorFragment{}
	for all := p.maps.Fragments.Iterate(); all.Next(&fragmentKey, &fragment); {
		fragment.Expires -= ticks
		fragments[fragmentKey] = fragment
	}
	for key, value := range fragments {
		if err := p.maps.Fragments.Put(key, value); err != nil {
			t.Fatal(err)
		}
	}
}

func TestIdleFlowsAreForgotten(t *testing.T) {
	const second = time.Second // a flow is forgotten up to two units after its timeout
	for _, row := range []struct {
		name   string
		key    lb.ServiceKey
		before []packet
		age    time.Duration
		kept   bool
	}{
		{"TCP before 15 minutes", webKey, []packet{{flags: syn}, {flags: ack}}, tcpTimeout - time.Minute, true},
		{"TCP after 15 minutes", webKey, []packet{{flags: syn}, {flags: ack}}, tcpTimeout + second, false},
		{"only a SYN, before a minute", webKey, []packet{{flags: syn}}, openingTimeout - second, true},
		{"only a SYN, after a minute", webKey, []packet{{flags: syn}, {flags: syn}}, openingTimeout + second, false},
		{"finished TCP before 2 minutes", webKey, []packet{{flags: syn}, {flags: fin | ack}}, closingTimeout - second, true},
		{"finished TCP after 2 minutes", webKey, []packet{{flags: syn}, {flags: fin | ack}}, closingTimeout + second, false},
		{"UDP before 5 minutes", dnsKey, []packet{{protocol: lb.UDP, toPort: 53}}, udpTimeout - second, true},
		{"UDP after 5 minutes", dnsKey, []packet{{protocol: lb.UDP, toPort: 53}}, udpTimeout + second, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			p := newTestPlane(t, state(service(row.key, server(1), server(2))))
			for _, earlier := range row.before {
				sentTo(t, p, earlier)
			}
			age(t, p, row.age)
			flows := counters(t, p).RealServers[lb.ServerKey{Service: row.key, Address: serverAddress(1)}].Flows
			if flows != b2n(row.kept) {
				t.Errorf("%d flows counted, want %d", flows, b2n(row.kept))
			}
			next, want := row.before[0], 2 // a new flow, at its turn
			if row.kept {
				want = 1
			}
			if row.kept && next.protocol != lb.UDP {
				next.flags = ack
			}
			if got := sentTo(t, p, next); got != want {
				t.Errorf("next packet went to server %d, want %d", got, want)
			}
		})
	}
}

func TestTrafficKeepsAFlowAlive(t *testing.T) {
	p := newTestPlane(t, state(service(webKey, server(1), server(2))))
	sentTo(t, p, packet{flags: syn})
	sentTo(t, p, packet{flags: ack})
	for range 3 {
		age(t, p, tcpTimeout-time.Minute)
		if got := sentTo(t, p, packet{flags: ack}); got != 1 {
			t.Fatalf("a flow in use went to server %d, want 1", got)
		}
	}
}

func persistent(s lb.Service) lb.Service {
	s.Persistence = 50 * time.Second
	return s
}

func TestPersistentClientStaysWithItsServer(t *testing.T) {
	first, second := packet{flags: syn, fromPort: 1000}, packet{flags: syn, fromPort: 1001}
	for _, row := range []struct {
		name  string
		after []lb.RealServer
		age   time.Duration
		want  int
	}{
		{"at once", []lb.RealServer{server(1), server(2)}, 0, 1},
		{"before the timeout", []lb.RealServer{server(1), server(2)}, 49 * time.Second, 1},
		{"not after the timeout", []lb.RealServer{server(1), server(2)}, 50 * time.Second, 2},
		{"weight 0 keeps its clients, as in IPVS", []lb.RealServer{weighted(1, 0), server(2)}, 0, 1},
		{"down loses its clients", []lb.RealServer{downServer(1), server(2)}, 0, 2},
		{"removed loses its clients", []lb.RealServer{server(2)}, 0, 2},
	} {
		t.Run(row.name, func(t *testing.T) {
			p := newTestPlane(t, state(persistent(service(webKey, server(1), server(2)))))
			if got := sentTo(t, p, first); got != 1 {
				t.Fatalf("first flow went to server %d, want 1", got)
			}
			apply(t, p, state(persistent(service(webKey, row.after...))))
			age(t, p, row.age)
			if got := sentTo(t, p, second); got != row.want {
				t.Errorf("second flow went to server %d, want %d", got, row.want)
			}
		})
	}
}

func TestPersistenceIsPerClientAndLivesAsLongAsItsFlows(t *testing.T) {
	p := newTestPlane(t, state(persistent(service(webKey, server(1), server(2)))))
	if got := sentTo(t, p, packet{flags: syn, fromPort: 1000}); got != 1 {
		t.Fatalf("first client went to server %d, want 1", got)
	}
	if got := sentTo(t, p, packet{flags: syn, from: serverAddress(200)}); got != 2 {
		t.Errorf("second client went to server %d, want 2", got)
	}
	for range 3 { // a known flow's packets keep the client bound beyond the timeout
		age(t, p, 40*time.Second)
		sentTo(t, p, packet{flags: ack, fromPort: 1000})
	}
	if got := sentTo(t, p, packet{flags: syn, fromPort: 1001}); got != 1 {
		t.Errorf("second flow of the first client went to server %d, want 1", got)
	}
}

func TestOldFlowDoesNotPullAMovedClientBack(t *testing.T) {
	p := newTestPlane(t, state(persistent(service(webKey, server(1), server(2)))))
	sentTo(t, p, packet{flags: syn, fromPort: 1000}) // server 1
	age(t, p, 50*time.Second)
	if got := sentTo(t, p, packet{flags: syn, fromPort: 1001}); got != 2 {
		t.Fatalf("after the timeout the client went to server %d, want 2", got)
	}
	age(t, p, 10*time.Second)
	if got := sentTo(t, p, packet{flags: ack, fromPort: 1000}); got != 1 {
		t.Fatalf("the old flow went to server %d, want 1", got)
	}
	if got := sentTo(t, p, packet{flags: syn, fromPort: 1002}); got != 2 {
		t.Errorf("the client's next flow went to server %d, want 2", got)
	}
}

func TestApplyRefusesWhatItCanNotDo(t *testing.T) {
	ipv6 := netip.MustParseAddr("2001:db8::1")
	p := newTestPlane(t, state(service(webKey, server(1))))
	bad := lb.ServiceKey{Address: ipv6, Port: 80, Protocol: lb.TCP}
	for name, s := range map[string]lb.State{
		"IPv6 service":     state(service(bad, server(1))),
		"service twice":    state(service(webKey, server(1)), service(webKey, server(2))),
		"server twice":     state(service(webKey, server(1), server(1))),
		"unknown protocol": state(service(lb.ServiceKey{Address: vip, Port: 80, Protocol: 132}, server(1))),
		"IPv6 real server": state(service(webKey, lb.RealServer{Address: ipv6, Up: true, Weight: 1})),
	} {
		if err := p.Apply(context.Background(), s); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if got := sentTo(t, p, packet{flags: syn}); got != 1 {
		t.Errorf("after refused states a flow went to server %d, want 1 as before", got)
	}
}
