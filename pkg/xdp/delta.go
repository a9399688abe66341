package xdp

import (
	"errors"
	"maps"
	"reflect"
	"slices"

	"github.com/xdirector/xdirector/pkg/lb"
)

// Most wishes differ from the last one in a real server that came or went. Of thousands of services nothing but that one is
// gone through then.

// applied is the last State that was carried out, with what it became in terms of the maps.
type applied struct {
	state    lb.State
	services []wishedService
	exits    map[int]exit
}

func newApplied(s lb.State, w *wish, exits map[int]exit) *applied {
	s.Services = slices.Clone(s.Services)
	for i := range s.Services {
		s.Services[i].RealServers = slices.Clone(s.Services[i].RealServers)
	}
	return &applied{state: s, services: w.services, exits: exits}
}

// changed returns the places of the services that have other real servers; false: more than that differs.
func (a *applied) changed(s lb.State, exits map[int]exit) ([]int, bool) {
	if a == nil || len(s.Services) != len(a.state.Services) || !maps.Equal(exits, a.exits) ||
		!slices.Equal(s.Directors, a.state.Directors) || !reflect.DeepEqual(s.Routers, a.state.Routers) {
		return nil, false
	}
	var list []int
	for i, service := range s.Services {
		old := a.state.Services[i]
		if !slices.Equal(service.RealServers, old.RealServers) {
			list = append(list, i)
		}
		service.RealServers, old.RealServers = nil, nil
		if !reflect.DeepEqual(service, old) {
			return nil, false
		}
	}
	return list, true
}

// applyServers carries out what newly differs in the real servers of a few services, in the order of steps. False: the whole
// wish has to be gone through.
func (p *Plane) applyServers(s lb.State, exits, usable map[int]exit) (done bool, err error) {
	last := p.applied
	changed, ok := last.changed(s, usable)
	if !ok {
		return false, nil
	}
	var part lb.State
	before := &wish{facts: map[boxFact]struct{}{}}
	for _, i := range changed {
		if s.Services[i].Group != "" { // its real servers are known to others
			return false, nil
		}
		part.Services = append(part.Services, s.Services[i])
		before.services = append(before.services, last.services[i])
		before.noteNextHops(last.services[i])
	}
	w, err := newWish(part, p.tables, usable)
	if err != nil || !p.hasRoom(w) {
		return false, err
	}
	p.applied = nil // until all is done
	scopes := p.tables.scopes
	if err := p.giveIDs(w); err != nil {
		return true, err
	}
	p.tables.scopes = scopes
	facts := p.tables.wireFacts(w)
	if len(missing(facts, p.tables.boxes)) > 0 {
		if err := p.addFacts(facts); err != nil {
			return true, err
		}
	}
	wished := w.serverKeys()
	gone := before.serverKeys()
	maps.DeleteFunc(gone, func(key lb.ServerKey, _ bool) bool { return wished[key] })
	for _, step := range []func() error{
		func() error { return p.writeServers(w, exits, true) },
		func() error { return p.writeRings(w) },
		func() error { return p.writeServices(w) }, // what they are flagged with by their real servers
		func() error { return p.writeServers(w, exits, false) },
		func() error { return p.removeServers(gone) },
	} {
		if err := step(); err != nil {
			return true, err
		}
	}
	for n, i := range changed {
		last.state.Services[i].RealServers = slices.Clone(s.Services[i].RealServers)
		last.services[i] = w.services[n]
	}
	if stale := slices.DeleteFunc(missing(p.tables.wireFacts(before), facts), last.needs); len(stale) > 0 {
		if err := errors.Join(p.forgetFacts(stale), p.writeSuspects()); err != nil {
			return true, err
		}
	}
	p.applied = last
	return true, nil
}

// needs says that a fact about a box is so by another service or director, too.
func (a *applied) needs(fact xdirectorBoxFact) bool {
	if fact.Kind != uint16(xdirectorBoxFactKindBOX_ADDRESS) {
		return false
	}
	for _, service := range a.services {
		for _, r := range service.RealServers {
			if lb.MAC(fact.Mac) == r.NextHop.MAC && !r.NextHop.Local && wireAddress(r.Address) == fact.Value {
				return true
			}
		}
	}
	return slices.ContainsFunc(a.state.Directors, func(d lb.Director) bool {
		return lb.MAC(fact.Mac) == d.MAC && d.Address.IsValid() && wireAddress(d.Address) == fact.Value
	})
}
