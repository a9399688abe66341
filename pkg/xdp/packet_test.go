package xdp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/xdirector/xdirector/pkg/lb"
)

// One director with everything that a row may need. Its services, by port:
//
//	80   servers 1, 2 in turn
//	81   this box alone
//	82   server 3, behind eth1
//	83   server 4, which is down
//	84   server 6, in VLAN 10
//	85   server 7, in VLAN 20, where no frames are taken
//	88   server 1, what is unknown is refused
//	53   UDP, server 1
//	54   UDP, server 4, which is down
//	86, 87, 89, UDP 55 and 56, IPv6 86: see limitedServices
//
// At other addresses: IPv6 port 80 as the first one; of 10.0.0.101 the ports 8000 to 8099 have server 1, but 8042 has server 2; all
// ports of 10.0.0.102 have server 1, but 443 has server 2; port 80 of 10.9.0.0/16 has server 1, but in 10.9.8.0/24 and of IPv6
// 2001:db8:9::/48 server 2.
func tableState() lb.State {
	key := func(port uint16, protocol lb.Protocol) lb.ServiceKey {
		return lb.ServiceKey{Address: vip, Port: port, Protocol: protocol}
	}
	local := lb.RealServer{Address: serverAddress(5), Weight: 1, Up: true, NextHop: lb.NextHop{Local: true}}
	far := server(3)
	far.NextHop.Interface = eth1Index
	down := server(4)
	down.Up = false
	s := state(
		service(key(80, lb.TCP), server(1), server(2)),
		service(key(81, lb.TCP), local),
		service(key(82, lb.TCP), far),
		service(key(83, lb.TCP), down),
		service(key(53, lb.UDP), server(1)),
		service(key(54, lb.UDP), down),
		service(key(84, lb.TCP), tagged(6, vlan10Index)),
		service(key(85, lb.TCP), tagged(7, vlan20Index)),
		refusing(service(key(88, lb.TCP), server(1))),
	)
	add := func(address string, bits uint8, first, last uint16, r lb.RealServer) {
		key := lb.ServiceKey{Address: netip.MustParseAddr(address), Bits: bits, Port: first, LastPort: last, Protocol: lb.TCP}
		s.Services = append(s.Services, service(key, r))
	}
	s.Services = append(s.Services, limitedServices()...)
	s.Services = append(s.Services, service(lb.ServiceKey{Address: vip6, Port: 80, Protocol: lb.TCP}, server6(1), server6(2)))
	add("10.0.0.101", 0, 8000, 8099, server(1))
	add("10.0.0.101", 0, 8042, 0, server(2))
	add("10.0.0.102", 0, 0, 0, server(1))
	add("10.0.0.102", 0, 443, 0, server(2))
	add("10.9.0.0", 16, 80, 0, server(1))
	add("10.9.8.0", 24, 80, 0, server(2))
	add("2001:db8:9::", 48, 80, 0, server6(2))
	s.Routers = append(testRouters(), lb.Router{Name: "tagged", Interface: "eth0.10", Version: 3, VRID: vridV3, Filter: true, VirtualMAC: true})
	return s
}

func refusing(s lb.Service) lb.Service {
	s.RefuseUnknown = true
	return s
}

type packetRow struct {
	name    string
	packet  packet
	verdict string
	reason  string // of a drop
	server  int    // that the frame goes to; 0: it is untouched
	egress  lb.MAC // source address of the frame sent
	vlan    int    // in the tag of the frame sent; 0: it has none
	seenOn  string // interface that counts it; empty: eth0
	before  []packet

	adverts []advert // instead of packet: the last one, and those before it
	router  string   // whose counters the last one raises; empty: none
	fate    string   // the one that it raises
	prepare func(f *FastPath, slot uint32)

	exhausted bool // the senders of those before it have used up their rates
}

// frames are the one in question and those before it.
func (r packetRow) frames() (frame []byte, before [][]byte) {
	for _, earlier := range r.before {
		before = append(before, earlier.bytes())
	}
	for _, a := range r.adverts {
		before = append(before, a.bytes())
	}
	if n := len(r.adverts); n > 0 {
		return before[n-1], before[:n-1]
	}
	return r.packet.bytes(), before
}

var packetTable = []packetRow{
	{name: "not IPv4", packet: packet{etherType: 0x0806}, verdict: "pass_not_ours"},
	{name: "IPv6 type, IPv4 header", packet: packet{etherType: 0x86dd}, verdict: "pass_not_ours"},
	{name: "IPv4 type, IPv6 header", packet: packet{to: vip6, etherType: 0x0800}, verdict: "pass_not_ours"},
	{name: "IPv6 to another address", packet: packet{to: client6, from: vip6}, verdict: "pass_not_ours"},
	{name: "IPv6 to another port", packet: packet{to: vip6, toPort: 81}, verdict: "pass_not_ours"},
	{name: "IPv6 address that begins as an IPv4 one", packet: packet{to: netip.MustParseAddr("a00:64::")}, verdict: "pass_not_ours"},
	{name: "half an IPv6 header", packet: packet{to: vip6, cut: 14 + 39}, verdict: "pass_not_ours"},
	{name: "IPv6, half a TCP header", packet: packet{to: vip6, cut: 14 + 40 + 19}, verdict: "pass_not_ours"},
	{name: "below the range", packet: packet{to: netip.MustParseAddr("10.0.0.101"), toPort: 7999, flags: syn}, verdict: "pass_not_ours"},
	{name: "above the range", packet: packet{to: netip.MustParseAddr("10.0.0.101"), toPort: 8100, flags: syn}, verdict: "pass_not_ours"},
	{name: "range, another protocol", packet: packet{to: netip.MustParseAddr("10.0.0.101"), toPort: 8001, protocol: lb.UDP}, verdict: "pass_not_ours"},
	{name: "beside the network", packet: packet{to: netip.MustParseAddr("10.10.0.0"), flags: syn}, verdict: "pass_not_ours"},
	{name: "another port of the network", packet: packet{to: netip.MustParseAddr("10.9.0.1"), toPort: 81, flags: syn}, verdict: "pass_not_ours"},
	{name: "VLAN tag", packet: packet{etherType: 0x8100}, verdict: "pass_not_ours"},
	{name: "no IP header", packet: packet{cut: 14}, verdict: "pass_not_ours"},
	{name: "half an IP header", packet: packet{cut: 14 + 19}, verdict: "pass_not_ours"},
	{name: "wrong IP version", packet: packet{version: 5}, verdict: "pass_not_ours"},
	{name: "half a TCP header", packet: packet{cut: 14 + 20 + 19}, verdict: "pass_not_ours"},
	{name: "half a UDP header", packet: packet{protocol: lb.UDP, toPort: 53, cut: 14 + 20 + 7}, verdict: "pass_not_ours"},
	{name: "IP options cut short", packet: packet{options: make([]byte, 40), cut: 14 + 59}, verdict: "pass_not_ours"},
	{name: "ICMP", packet: packet{protocol: 1}, verdict: "pass_not_ours"},
	{name: "another port", packet: packet{flags: syn, toPort: 8080}, verdict: "pass_not_ours"},
	{name: "another address", packet: packet{flags: syn, to: peer}, verdict: "pass_not_ours"},
	{name: "UDP to a TCP service", packet: packet{protocol: lb.UDP, toPort: 80}, verdict: "pass_not_ours"},

	{name: "flooded frame of a service", packet: packet{destination: serverMAC(9), flags: syn}, verdict: "pass_other_mac"},
	{name: "broadcast frame of a service", packet: packet{destination: lb.MAC{255, 255, 255, 255, 255, 255}, flags: syn}, verdict: "pass_other_mac"},
	{name: "virtual MAC address while MASTER", packet: packet{destination: lb.MAC{0, 0, 0x5e, 0, 1, vridV3}, flags: syn}, verdict: "tx", server: 1, egress: eth0MAC},
	{name: "virtual MAC address while BACKUP", packet: packet{destination: lb.MAC{0, 0, 0x5e, 0, 1, vridV3}, flags: syn}, router: "v3", prepare: shut, verdict: "pass_other_mac"},
	{name: "virtual MAC address while BACKUP, known flow", packet: packet{destination: lb.MAC{0, 0, 0x5e, 0, 1, vridV3}, flags: ack}, before: []packet{{flags: syn}},
		router: "v3", prepare: shut, verdict: "pass_other_mac"},
	{name: "own MAC address while BACKUP", packet: packet{flags: syn}, router: "v3", prepare: shut, verdict: "tx", server: 1, egress: eth0MAC},
	{name: "virtual MAC address, server behind another interface", packet: packet{destination: lb.MAC{0, 0, 0x5e, 0, 1, vridV3}, flags: syn, toPort: 82},
		verdict: "redirect", server: 3, egress: eth1MAC},
	{name: "virtual MAC address, known flow", packet: packet{destination: lb.MAC{0, 0, 0x5e, 0, 1, vridV3}, flags: ack}, before: []packet{{flags: syn}},
		verdict: "tx", server: 1, egress: eth0MAC},
	{name: "virtual MAC address, from another director", packet: packet{destination: lb.MAC{0, 0, 0x5e, 0, 1, vridV3}, source: peerMAC, flags: syn}, verdict: "pass_balanced"},
	{name: "virtual MAC address of a router without a filter", packet: packet{destination: lb.MAC{0, 0, 0x5e, 0, 1, vridOff}, flags: syn}, verdict: "tx", server: 1, egress: eth0MAC},
	{name: "virtual MAC address of IPv6 while not MASTER", packet: packet{destination: lb.MAC{0, 0, 0x5e, 0, 2, vridV3}, flags: syn}, verdict: "pass_other_mac"},
	{name: "virtual MAC address that is not used", packet: packet{destination: lb.MAC{0, 0, 0x5e, 0, 1, vridV2}, flags: syn}, verdict: "pass_other_mac"},
	{name: "virtual MAC address of another VRID", packet: packet{destination: lb.MAC{0, 0, 0x5e, 0, 1, 99}, flags: syn}, verdict: "pass_other_mac"},
	{name: "MAC address that is nearly virtual", packet: packet{destination: lb.MAC{0, 0, 0x5e, 0, 3, vridV3}, flags: syn}, verdict: "pass_other_mac"},
	{name: "from another director", packet: packet{source: peerMAC, flags: syn}, verdict: "pass_balanced"},
	{name: "from a next hop of the service", packet: packet{source: serverMAC(1), flags: syn}, verdict: "pass_balanced"},
	{name: "from a next hop that is down", packet: packet{source: serverMAC(4), flags: syn, toPort: 83}, verdict: "pass_balanced"},
	{name: "from a next hop of another service", packet: packet{source: serverMAC(3), flags: syn, fromPort: 1}, verdict: "tx", server: 1, egress: eth0MAC},
	{name: "MAC address that ends like a director's", packet: packet{source: lb.MAC{2, 0, 0, 9, peerMAC[4], peerMAC[5]}, flags: syn}, verdict: "tx", server: 1, egress: eth0MAC},
	{name: "another director as a client", packet: packet{source: peerMAC, from: peer, flags: syn}, verdict: "tx", server: 1, egress: eth0MAC},
	{name: "a real server as a client", packet: packet{source: serverMAC(1), from: serverAddress(1), flags: syn}, verdict: "tx", server: 1, egress: eth0MAC},
	{name: "a real server with another's address", packet: packet{source: serverMAC(1), from: serverAddress(2), flags: syn}, verdict: "pass_balanced"},

	{name: "reset without a flow", packet: packet{flags: rst}, verdict: "drop", reason: "no_flow"},
	{name: "reset with ACK without a flow", packet: packet{flags: rst | ack}, verdict: "drop", reason: "no_flow"},
	{name: "SYN while no server is live", packet: packet{toPort: 83, flags: syn}, verdict: "pass_refused"},
	{name: "ACK while no server is live", packet: packet{toPort: 83, flags: ack}, verdict: "drop", reason: "no_real_server"},
	{name: "SYN+ACK while no server is live", packet: packet{toPort: 83, flags: syn | ack}, verdict: "drop", reason: "no_real_server"},
	{name: "UDP while no server is live", packet: packet{toPort: 54, protocol: lb.UDP}, verdict: "drop", reason: "no_real_server"},

	{name: "SYN", packet: packet{flags: syn}, verdict: "tx", server: 1, egress: eth0MAC},
	{name: "SYN with data", packet: packet{flags: syn, payload: 1400}, verdict: "tx", server: 1, egress: eth0MAC},
	{name: "don't fragment", packet: packet{flags: syn, fragment: 0x4000}, verdict: "tx", server: 1, egress: eth0MAC},
	{name: "4 bytes of IP options", packet: packet{flags: syn, options: make([]byte, 4)}, verdict: "tx", server: 1, egress: eth0MAC},
	{name: "40 bytes of IP options", packet: packet{flags: syn, options: make([]byte, 40)}, verdict: "tx", server: 1, egress: eth0MAC},
	{name: "middle of an unknown connection", packet: packet{toPort: 82, flags: ack}, verdict: "redirect", server: 3, egress: eth1MAC},
	{name: "UDP", packet: packet{protocol: lb.UDP, toPort: 53}, verdict: "tx", server: 1, egress: eth0MAC},
	{name: "server behind another interface", packet: packet{flags: syn, toPort: 82}, verdict: "redirect", server: 3, egress: eth1MAC},
	{name: "this box is the server", packet: packet{flags: syn, toPort: 81}, verdict: "pass_local"},
	{name: "IPv6 SYN", packet: packet{to: vip6, flags: syn}, verdict: "tx", server: 1, egress: eth0MAC},
	{name: "IPv6, known flow", packet: packet{to: vip6, flags: ack}, before: []packet{{to: vip6, flags: syn}, {to: vip6, flags: syn, fromPort: 9}},
		verdict: "tx", server: 1, egress: eth0MAC},
	{name: "IPv6, second flow, of an address that differs in its last word", packet: packet{to: vip6, flags: syn, from: netip.MustParseAddr("2001:db8:1::2")},
		before: []packet{{to: vip6, flags: syn}}, verdict: "tx", server: 2, egress: eth0MAC},
	{name: "first port of a range", packet: packet{to: netip.MustParseAddr("10.0.0.101"), toPort: 8000, flags: syn}, verdict: "tx", server: 1, egress: eth0MAC},
	{name: "last port of a range", packet: packet{to: netip.MustParseAddr("10.0.0.101"), toPort: 8099, flags: syn}, verdict: "tx", server: 1, egress: eth0MAC},
	{name: "a service of its own within the range", packet: packet{to: netip.MustParseAddr("10.0.0.101"), toPort: 8042, flags: syn}, verdict: "tx", server: 2, egress: eth0MAC},
	{name: "any port", packet: packet{to: netip.MustParseAddr("10.0.0.102"), toPort: 65535, flags: syn}, verdict: "tx", server: 1, egress: eth0MAC},
	{name: "a service of its own beside all ports", packet: packet{to: netip.MustParseAddr("10.0.0.102"), toPort: 443, flags: syn}, verdict: "tx", server: 2, egress: eth0MAC},
	{name: "network", packet: packet{to: netip.MustParseAddr("10.9.0.1"), flags: syn}, verdict: "tx", server: 1, egress: eth0MAC},
	{name: "network within a network", packet: packet{to: netip.MustParseAddr("10.9.8.7"), flags: syn}, verdict: "tx", server: 2, egress: eth0MAC},
	{name: "IPv6 network", packet: packet{to: netip.MustParseAddr("2001:db8:9:ffff::1"), flags: syn}, verdict: "tx", server: 2, egress: eth0MAC},
	{name: "known flow", packet: packet{flags: ack}, before: []packet{{flags: syn}, {flags: syn, fromPort: 9}},
		verdict: "tx", server: 1, egress: eth0MAC},
	{name: "second flow", packet: packet{flags: syn, fromPort: 9}, before: []packet{{flags: syn}},
		verdict: "tx", server: 2, egress: eth0MAC},
	{name: "reset of a known flow", packet: packet{flags: rst}, before: []packet{{flags: syn}},
		verdict: "tx", server: 1, egress: eth0MAC},
	{name: "repeated SYN", packet: packet{flags: syn}, before: []packet{{flags: syn}},
		verdict: "tx", server: 1, egress: eth0MAC},
	{name: "SYN after FIN", packet: packet{flags: syn}, before: []packet{{flags: syn}, {flags: fin | ack}},
		verdict: "tx", server: 2, egress: eth0MAC},
	{name: "SYN after reset", packet: packet{flags: syn}, before: []packet{{flags: syn}, {flags: rst}},
		verdict: "tx", server: 2, egress: eth0MAC},
	{name: "ACK after FIN", packet: packet{flags: ack}, before: []packet{{flags: syn}, {flags: fin | ack}},
		verdict: "tx", server: 1, egress: eth0MAC},
	{name: "another SYN in a connection reopened after FIN", packet: packet{flags: syn},
		before: []packet{{flags: syn}, {flags: fin | ack}, {flags: syn}}, verdict: "tx", server: 2, egress: eth0MAC},
	{name: "SYN after a flow that began with FIN", packet: packet{flags: syn}, before: []packet{{flags: fin | ack}},
		verdict: "tx", server: 1, egress: eth0MAC},
}

// shut is the state of a BACKUP.
func shut(f *FastPath, slot uint32) { f.Gate(slot, false) }

func TestEachPacketGetsItsVerdict(t *testing.T) {
	p := newTaggedPlane(t, tableState())
	openGate(t, p, "v3")
	openGate(t, p, "tagged")
	openGate(t, p, "off")
	verdicts, drops, fates := map[string]uint64{}, map[string]uint64{}, map[string]uint64{}
	for _, row := range slices.Concat(packetTable, rareTable, vlanTable, limitTable, advertTable, absorbTable()) {
		t.Run(row.name, func(t *testing.T) {
			forget(t, p)
			if row.prepare != nil {
				row.prepare(openFastPath(t, p), p.Slots()[row.router])
			}
			frame, earlier := row.frames()
			for _, f := range earlier {
				run(t, p, f)
				if row.exhausted {
					exhaust(t, p)
				}
			}
			all := counters(t, p)
			seenOn := orDefault(row.seenOn, "eth0")
			before, advertsBefore := all.Interfaces[seenOn], all.Adverts
			said := explainFrame(t, p, frame)
			action, out := run(t, p, frame)
			if said.Verdict != row.verdict || said.Drop != row.reason || !bytes.Equal(said.Frame, out) || row.fate != "" && row.fate != said.Advert {
				t.Errorf("the other copy says %+v", said)
			}
			all = counters(t, p)
			after := all.Interfaces[seenOn]

			checkAction(t, row, action)
			checkFrame(t, row, frame, out)
			for verdict, n := range after.Verdicts {
				if got, want := n-before.Verdicts[verdict], b2n(verdict == row.verdict); got != want {
					t.Errorf("verdict %s rose by %d, want %d", verdict, got, want)
				}
				verdicts[verdict] += n - before.Verdicts[verdict]
			}
			for reason, n := range after.Drops {
				if got, want := n-before.Drops[reason], b2n(reason == row.reason); got != want {
					t.Errorf("drop reason %s rose by %d, want %d", reason, got, want)
				}
				drops[reason] += n - before.Drops[reason]
			}
			for router, adverts := range all.Adverts {
				for fate, n := range adverts {
					if got, want := n-advertsBefore[router][fate], b2n(router == row.router && fate == row.fate); got != want {
						t.Errorf("adverts %s of router %s rose by %d, want %d", fate, router, got, want)
					}
					fates[fate] += n - advertsBefore[router][fate]
				}
			}
		})
	}
	for _, verdict := range verdictNames {
		if verdict == "" || verdicts[verdict] == 0 && verdict != "to_previous_master" { // what belongs to a handover has tests of its own
			t.Errorf("no row raises verdict %q", verdict)
		}
	}
	for _, reason := range dropNames {
		if reason == "" || drops[reason] == 0 && reason != "second_chance" {
			t.Errorf("no row raises drop reason %q", reason)
		}
	}
	for _, fate := range fateNames {
		if fate == "" || fates[fate] == 0 {
			t.Errorf("no row raises adverts %q", fate)
		}
	}
}

func TestTheDocsNameEveryVerdictAndReason(t *testing.T) {
	text, err := os.ReadFile("../../docs/packets.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range slices.Concat(verdictNames[:], dropNames[:]) {
		if !bytes.Contains(text, []byte("`"+name+"`")) {
			t.Errorf("docs/packets.md doesn't say what %q is", name)
		}
	}
}

// forget empties the tables that packets fill, so that a row doesn't depend on those before it.
func forget(t *testing.T, p *Plane) {
	t.Helper()
	clear(p.flows.memory)
	emptied := []*ebpf.Map{p.maps.Clients, p.maps.Senders, p.maps.Fragments}
	if sources := sourceTable(t, p); sources != nil {
		emptied = append(emptied, sources)
	}
	for _, m := range emptied {
		var key []byte
		for m.NextKey(nil, &key) == nil {
			if err := m.Delete(key); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, entry := range p.tables.services {
		if err := p.maps.Turns.Put(entry.id, xdirectorTurn{}); err != nil {
			t.Fatal(err)
		}
	}
	for _, entry := range p.tables.servers {
		p.loads.reset(entry.id)
	}
	for _, slot := range p.Slots() {
		if err := p.maps.Timers.Put(slot, xdirectorTimer{}); err != nil {
			t.Fatal(err)
		}
	}
}

// exhaust leaves the senders that are known nothing of their rates.
func exhaust(t *testing.T, p *Plane) {
	t.Helper()
	var keys []xdirectorSenderKey
	var key xdirectorSenderKey
	var full uint64
	senders := p.maps.Senders.Iterate()
	for senders.Next(&key, &full) {
		keys = append(keys, key)
	}
	if err := senders.Err(); err != nil {
		t.Fatal(err)
	}
	for _, key := range keys {
		if err := p.maps.Senders.Put(key, uint64(monotonic()+time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
}

// openFastPath opens the election's end of the plane for one test. It ends with the gates shut.
func openFastPath(t testing.TB, p *Plane) *FastPath {
	t.Helper()
	files, err := p.Files()
	if err != nil {
		t.Fatal(err)
	}
	f, err := OpenFastPath(files.Words, files.Events)
	if err = errors.Join(err, files.Close()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for name, slot := range p.Slots() {
			f.Gate(slot, name == "v3" || name == "off" || name == "tagged") // as in the packet table
			f.Absorb(slot, nil, 0)
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

// openGate makes this director MASTER of a router.
func openGate(t *testing.T, p *Plane, router string) {
	t.Helper()
	var words xdirectorWords
	if err := p.maps.Words.Lookup(p.Slots()[router], &words); err != nil {
		t.Fatal(err)
	}
	words.Gate = 1
	if err := p.maps.Words.Put(p.Slots()[router], words); err != nil {
		t.Fatal(err)
	}
}

func checkAction(t *testing.T, row packetRow, action uint32) {
	t.Helper()
	want := uint32(xdpPass)
	switch row.verdict {
	case "tx":
		want = xdpTX
	case "redirect":
		want = xdpRedirect
	case "drop":
		want = xdpDrop
	}
	if action != want {
		t.Errorf("action %d, want %d", action, want)
	}
}

func checkFrame(t *testing.T, row packetRow, in, out []byte) {
	t.Helper()
	want := bytes.Clone(in)
	if row.server > 0 {
		mac := serverMAC(row.server)
		want = append(mac[:], row.egress[:]...)
		if row.vlan != 0 {
			want = binary.BigEndian.AppendUint16(append(want, 0x81, 0), uint16(row.vlan))
		}
		payload := in[12:]
		if row.packet.vlan != 0 {
			payload = in[16:]
		}
		want = append(want, payload...)
	}
	if !bytes.Equal(out, want) {
		t.Errorf("frame\n%x, want\n%x", out, want)
	}
}

func b2n(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}

func TestTrafficIsCountedByRealServer(t *testing.T) {
	p := newTestPlane(t, tableState())
	syns, acks := packet{flags: syn}, packet{flags: ack, payload: 100}
	run(t, p, syns.bytes())
	run(t, p, acks.bytes())
	run(t, p, packet{flags: syn, fromPort: 9}.bytes())
	run(t, p, packet{flags: syn, toPort: 81}.bytes())
	run(t, p, packet{flags: rst, fromPort: 10}.bytes())

	got := counters(t, p).RealServers
	key := func(port uint16, address netip.Addr) lb.ServerKey {
		return lb.ServerKey{Service: lb.ServiceKey{Address: vip, Port: port, Protocol: lb.TCP}, Address: address}
	}
	want := map[lb.ServerKey]lb.Traffic{
		key(80, serverAddress(1)): {Packets: 2, Bytes: 54 + 154, FlowsCreated: 1, Flows: 1, Active: 1},
		key(80, serverAddress(2)): {Packets: 1, Bytes: 54, FlowsCreated: 1, Flows: 1, Active: 1},
		key(81, serverAddress(5)): {Packets: 1, Bytes: 54, FlowsCreated: 1, Flows: 1, Active: 1},
		key(82, serverAddress(3)): {},
	}
	for server, traffic := range want {
		if got[server] != traffic {
			t.Errorf("%v: %+v, want %+v", server, got[server], traffic)
		}
	}
}
