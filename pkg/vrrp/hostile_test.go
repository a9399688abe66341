package vrrp

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"
)

// kinds are routers of every kind, with a peer.
func kinds() []kind {
	base := Config{Version: 3, VRID: 51, Priority: 100, Interval: time.Second, Preempt: true, Addresses: []netip.Addr{vip}}
	two, unicast, six := base, base, base
	two.Version, two.Password = 2, "1111"
	unicast.Peers = []netip.Addr{lb2}
	six.Addresses = []netip.Addr{netip.MustParseAddr("fe80::100")}
	all := []kind{
		{name: "version 2 with password", cfg: two, ours: lb1, peer: lb2, to: multicast4},
		{name: "version 3", cfg: base, ours: lb1, peer: lb2, to: multicast4},
		{name: "version 3 with unicast peers", cfg: unicast, ours: lb1, peer: lb2, to: lb1},
		{name: "version 3 over IPv6", cfg: six, ours: ll1, peer: ll2, to: multicast6},
	}
	for i := range all {
		all[i].sender = New(all[i].cfg)
	}
	return all
}

type kind struct {
	name       string
	cfg        Config
	ours, peer netip.Addr
	to         netip.Addr // where good adverts go
	sender     *Machine   // of those
}

// master returns a machine that is MASTER since a millisecond.
func (k kind) master() *Machine {
	m := New(k.cfg)
	m.Step(0, Start{Source: k.ours, Resume: true})
	return m
}

// advert is a good one of the peer.
func (k kind) advert(priority uint8) Packet {
	return Packet{Source: k.peer, Destination: k.to, TTL: 255, Payload: k.sender.advert(priority).Append(nil, k.peer, k.to)}
}

// TestAMillionBadAdvertsChangeNothing throws random and mutated adverts at routers of every kind. Whatever happens, a
// state changes only when an oracle, which shares no code with the package, calls the packet a good advert of this
// virtual router.
func TestAMillionBadAdvertsChangeNothing(t *testing.T) {
	for _, k := range kinds() {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			random := rand.New(rand.NewPCG(1, 2))
			m := k.master()
			before, accepted := *m, 0
			for range 250_000 {
				p := k.advert(uint8(random.IntN(256)))
				mutate(random, &p, k.ours)
				if wrong := judge(k, m, p); wrong != "" {
					t.Fatalf("%s: %+v\nbefore %+v\nafter  %+v", wrong, p, before, *m)
				}
				if !reflect.DeepEqual(*m, before) {
					accepted++
				}
				*m = before
			}
			if accepted < 1000 || accepted > 200_000 {
				t.Errorf("%d of the packets are good adverts: the test is lopsided", accepted)
			}
		})
	}
}

// FuzzPacket looks for a packet that the oracle judges differently.
func FuzzPacket(f *testing.F) {
	for n, k := range kinds() {
		for _, priority := range []uint8{0, 50, 200} {
			f.Add(n, k.advert(priority).Payload, uint8(255), false)
			f.Add(n, k.advert(priority).Payload[1:], uint8(254), true)
		}
	}
	f.Fuzz(func(t *testing.T, n int, payload []byte, ttl uint8, repair bool) {
		k := kinds()[uint(n)%4]
		p := k.advert(100)
		p.Payload, p.TTL = payload, ttl
		if repair && len(payload) >= headerLength {
			putChecksum(payload, p.Source, p.Destination)
		}
		if wrong := judge(k, k.master(), p); wrong != "" {
			t.Errorf("%s: %+v", wrong, p)
		}
	})
}

// judge gives a packet to a MASTER and says what is wrong with what it makes of it.
func judge(k kind, m *Machine, p Packet) string {
	before, payload := *m, bytes.Clone(p.Payload)
	actions := m.Step(time.Millisecond, p)
	valid := oracle(k.cfg, k.ours, p)
	heard := len(actions) > 0 && reflect.TypeOf(actions[0]) == reflect.TypeFor[Accepted]()
	switch {
	case !bytes.Equal(p.Payload, payload):
		return "the packet was changed"
	case !valid && !reflect.DeepEqual(*m, before):
		return "a bad packet changes the machine"
	case valid != heard:
		return fmt.Sprintf("the packet is good: %t, but accepted: %t", valid, heard)
	}
	return ""
}

// mutate damages a packet in one or more ways, or not at all.
func mutate(random *rand.Rand, p *Packet, ours netip.Addr) {
	for range random.IntN(4) {
		switch random.IntN(10) {
		case 0:
			p.TTL = uint8(random.IntN(256))
		case 1:
			p.Fragment = true
		case 2:
			p.Source = []netip.Addr{ours, p.Destination, p.Source.Next(), netip.IPv4Unspecified(), netip.IPv6Unspecified(), vip, ll2}[random.IntN(7)]
		case 3:
			p.Destination = []netip.Addr{ours, multicast4, multicast6, p.Source, lb2}[random.IntN(5)]
		case 4:
			p.Payload = p.Payload[:random.IntN(len(p.Payload)+1)]
		case 5:
			p.Payload = append(p.Payload, make([]byte, random.IntN(40))...)
		case 6:
			p.Payload = make([]byte, random.IntN(60))
			for i := range p.Payload {
				p.Payload[i] = byte(random.Uint32())
			}
		default:
			if len(p.Payload) > 0 {
				p.Payload[random.IntN(len(p.Payload))] = byte(random.Uint32())
			}
		}
		if random.IntN(2) == 0 && len(p.Payload) >= 8 && p.Source.BitLen() == p.Destination.BitLen() {
			putChecksum(p.Payload, p.Source, p.Destination)
		}
	}
}

// oracle says whether a packet is an advert that a router must act on, in its own words.
func oracle(cfg Config, ours netip.Addr, p Packet) bool {
	b, group := p.Payload, netip.MustParseAddr("224.0.0.18")
	if ours.Is6() {
		group = netip.MustParseAddr("ff02::12")
	}
	if p.Fragment || p.TTL != 255 || p.Source == ours || p.Source.BitLen() != ours.BitLen() || p.Source.IsMulticast() ||
		p.Source.IsUnspecified() || p.Source.IsLoopback() || len(b) < 8 || b[1] != cfg.VRID {
		return false
	}
	if len(cfg.Peers) > 0 && (p.Destination != ours || !slices.Contains(cfg.Peers, p.Source)) || len(cfg.Peers) == 0 && p.Destination != group {
		return false
	}
	n := int(b[3])
	if b[0] != cfg.Version<<4+1 || n == 0 {
		return false
	}
	width, tail := 4, 0
	if ours.Is6() {
		width = 16
	}
	if cfg.Version == 2 {
		tail = 8
	}
	end := 8 + n*width + tail
	if len(b) < end {
		return false
	}
	var list []netip.Addr
	for i := range n {
		a, _ := netip.AddrFromSlice(b[8+i*width : 8+(i+1)*width])
		list = append(list, a)
	}
	common := slices.ContainsFunc(list, func(a netip.Addr) bool { return slices.Contains(cfg.Addresses, a) })
	if slices.Contains(cfg.Addresses, p.Source) && b[2] != 255 {
		return false
	}
	if cfg.Version == 2 {
		password := make([]byte, 8)
		copy(password, cfg.Password)
		return slowChecksum(b[:end], nil) && int(b[5]) == int(cfg.Interval/time.Second) && b[4] == 1 && bytes.Equal(b[end-8:end], password) && common
	}
	if b[4]&0xf == 0 && b[5] == 0 {
		return false
	}
	old := slowChecksum(b[:end], front(b[:end], p.Source, group)) // keepalived 1.3.6 with unicast peers
	return slowChecksum(b[:end], front(b[:end], p.Source, p.Destination)) || ours.Is4() && (slowChecksum(b[:end], nil) || old)
}
