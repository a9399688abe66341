package vrrp

import (
	"bytes"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"
)

// TestAMillionBadAdvertsChangeNothing throws random and mutated adverts at routers of every kind. Whatever happens, a
// state changes only when an oracle, which shares no code with the package, calls the packet a good advert of this
// virtual router.
func TestAMillionBadAdvertsChangeNothing(t *testing.T) {
	peer := netip.MustParseAddr("10.9.0.2")
	for _, c := range []struct {
		name        string
		cfg         Config
		source      netip.Addr
		from, to    netip.Addr // of the good advert that is mutated
		destination []netip.Addr
	}{
		{name: "version 2 with password", source: lb1, from: peer, to: multicast4,
			cfg: Config{Version: 2, VRID: 51, Priority: 100, Interval: time.Second, Preempt: true, Password: "1111", Addresses: []netip.Addr{vip}}},
		{name: "version 3", source: lb1, from: peer, to: multicast4,
			cfg: Config{Version: 3, VRID: 51, Priority: 100, Interval: time.Second, Preempt: true, Addresses: []netip.Addr{vip}}},
		{name: "version 3 with unicast peers", source: lb1, from: peer, to: lb1,
			cfg: Config{Version: 3, VRID: 51, Priority: 100, Interval: time.Second, Preempt: true, Peers: []netip.Addr{peer}, Addresses: []netip.Addr{vip}}},
		{name: "version 3 over IPv6", source: ll1, from: ll2, to: multicast6,
			cfg: Config{Version: 3, VRID: 51, Priority: 100, Interval: time.Second, Preempt: true, Addresses: []netip.Addr{netip.MustParseAddr("fe80::100")}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			random := rand.New(rand.NewPCG(1, 2))
			m := New(c.cfg)
			m.Step(0, Start{Source: c.source, Resume: true})
			before := *m
			sender := New(c.cfg)
			sender.source = c.from
			accepted := 0
			for range 250_000 {
				good := sender.advert(uint8(random.IntN(256)))
				p := Packet{Source: c.from, Destination: c.to, TTL: 255, Payload: good.Append(nil, c.from, c.to)}
				mutate(random, &p, c.source)
				reference := Packet{Source: p.Source, Destination: p.Destination, TTL: p.TTL, Fragment: p.Fragment, Payload: bytes.Clone(p.Payload)}
				actions := m.Step(time.Millisecond, p)
				if !reflect.DeepEqual(p, reference) {
					t.Fatalf("the packet was changed from %+v to %+v", reference, p)
				}
				changed := !reflect.DeepEqual(*m, before)
				valid := oracle(c.cfg, c.source, p)
				if changed && !valid {
					t.Fatalf("a bad packet changes the machine: %+v\nbefore %+v\nafter  %+v", p, before, *m)
				}
				heard := len(actions) > 0 && reflect.TypeOf(actions[0]) == reflect.TypeFor[Accepted]()
				if heard != valid {
					t.Fatalf("the packet %+v is good: %t, but accepted: %t", p, valid, heard)
				}
				if valid {
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
