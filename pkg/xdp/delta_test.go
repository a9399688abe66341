package xdp

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/xdirector/xdirector/pkg/lb"
)

// What a change of a few real servers leaves in the maps is what the whole wish would.
func TestAChangeOfRealServersIsAsGoodAsTheWholeWish(t *testing.T) {
	s := state(service(webKey, server(1), server(2)), service(dnsKey, server(2), server(3)))
	p := newTestPlane(t, s)
	random := rand.New(rand.NewPCG(1, 2))
	for round := range 60 {
		for _, e := range p.tables.services {
			if round%3 > 0 {
				e.ringChanged = time.Time{} // else the ring is too young to be changed, and is swapped
			}
		}
		list := &s.Services[random.IntN(2)]
		was := p.applied
		switch n := random.IntN(8); {
		case n < 3 && len(list.RealServers) > 1:
			list.RealServers = list.RealServers[1:]
		case n == 3 && len(list.RealServers) > 0:
			list.RealServers[0].Up = !list.RealServers[0].Up
		case n == 4 && len(list.RealServers) > 0:
			list.RealServers[0].NextHop.MAC[4] ^= 1
		default:
			one := server(10 + round%5)
			one.Port = list.Key.Port
			if serverIn(*list, one) {
				continue
			}
			list.RealServers = append(list.RealServers, one)
		}
		apply(t, p, s)
		if p.applied != was {
			t.Fatalf("round %d: the whole wish was gone through", round)
		}
		if err := agrees(p, s); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
	}
	s.Services = s.Services[:1]
	apply(t, p, s)
	if err := agrees(p, s); err != nil {
		t.Fatalf("with one service less: %v", err)
	}
}

func serverIn(s lb.Service, one lb.RealServer) bool {
	for _, r := range s.RealServers {
		if r.Address == one.Address {
			return true
		}
	}
	return false
}

// agrees compares the tables, and the maps behind them, with a wish.
func agrees(p *Plane, s lb.State) error {
	w, err := newWish(s, p.tables, p.applied.exits)
	if err != nil {
		return err
	}
	if want := p.tables.wireFacts(w); !maps.Equal(want, p.tables.boxes) {
		return fmt.Errorf("facts %v, want %v", p.tables.boxes, want)
	}
	inMap := map[xdirectorBoxFact]struct{}{}
	if err := readAll(p.maps.Boxes, func(fact xdirectorBoxFact, _ uint32) { inMap[fact] = struct{}{} }); err != nil {
		return err
	}
	if !maps.Equal(inMap, p.tables.boxes) {
		return fmt.Errorf("facts in the map %v, noted %v", inMap, p.tables.boxes)
	}
	keys := w.serverKeys()
	if len(keys) != len(p.tables.servers) {
		return fmt.Errorf("%d real servers, want %d", len(p.tables.servers), len(keys))
	}
	for _, service := range w.services {
		entry := p.tables.services[service.Key]
		var want ring
		for _, i := range service.schedule {
			want.turns = append(want.turns, p.tables.servers[lb.ServerKey{Service: service.Key, Address: service.RealServers[i].Address}].id)
		}
		for _, i := range service.fallback {
			want.fallback = append(want.fallback, p.tables.servers[lb.ServerKey{Service: service.Key, Address: service.RealServers[i].Address}].id)
		}
		if !entry.ringKnown || !entry.ring.equal(want) {
			return fmt.Errorf("ring of %s: %v, want %v", service.Key, entry.ring, want)
		}
		for _, r := range service.RealServers {
			entry := p.tables.servers[lb.ServerKey{Service: service.Key, Address: r.Address}]
			var value xdirectorServer
			if err := p.maps.Servers.Lookup(entry.id, &value); err != nil {
				return err
			}
			if value != entry.value || value.Destination != r.NextHop.MAC || (value.Flags&serverLive != 0) != r.Up {
				return fmt.Errorf("real server %s of %s: %+v, noted %+v, wish %+v", r.Address, service.Key, value, entry.value, r)
			}
		}
	}
	return nil
}
