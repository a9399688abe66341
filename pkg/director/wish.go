package director

import (
	"slices"

	"github.com/xdirector/xdirector/pkg/config"
	"github.com/xdirector/xdirector/pkg/lb"
)

// wish makes the one State that the plane should have, from the configuration and what is so beside it. It is pure.
//
// The sorry server of a service is always among its real servers, so that its next hop is known when it is needed; it is down
// until then. One that can't be reached leaves the new flows to what is up.
//
// On IPVS a service with this very box among its real servers is left out while another director holds its
// address: the frames that arrive then were balanced there, and IPVS, which can't see that, would send them back. What IPVS
// can't have is left out there too.
func wish(cfg *config.Config, plane lb.Plane, f facts) lb.State {
	state := lb.State{Directors: f.directors}
	for _, s := range cfg.Services {
		on := planeOf(s, plane)
		if on == "" {
			continue
		}
		service := lb.Service{
			Name:            s.Name,
			Key:             s.Key(),
			Scheduler:       s.Scheduler,
			Forwarding:      s.Forwarding,
			Persistence:     s.Persistence,
			PersistenceBits: s.PersistenceBits,
			Group:           s.Group,
			Timeouts:        s.Timeouts,
			RefuseUnknown:   s.RefuseUnknown,
			NewFlows:        s.NewFlows,
			Limits:          s.Limits,
		}
		local := false
		claims := f.claims(s)
		_, there := quorate(s, claims, f.lost[s.Name])
		sorry := lb.RealServer{Address: s.SorryServer.Address, Port: s.SorryServer.Port, Weight: 1, NextHop: f.hops[s.SorryServer.Address].NextHop}
		sorry.Up = sorry.Address.IsValid() && (sorry.NextHop.Known() || s.Forwarding != lb.Direct) && !there
		for i, p := range parts(claims, sorry.Up) {
			r := s.RealServers[i]
			hop := f.hops[r.Address].NextHop
			local = local || hop.Local && s.Forwarding == lb.Direct
			service.RealServers = append(service.RealServers, lb.RealServer{
				Address: r.Address,
				Port:    r.Port,
				Weight:  p.weight,
				Up:      p.up,
				Failed:  p.up && !claims[i].up,
				NextHop: hop,

				MaxConnections: r.MaxConnections,
			})
		}
		if sorry.Address.IsValid() {
			local = local || sorry.Up && sorry.NextHop.Local && s.Forwarding == lb.Direct
			service.RealServers = append(service.RealServers, sorry)
		}
		if isHeld, ours := f.held[s.Address]; on == lb.IPVS && local && ours && !isHeld {
			continue
		}
		state.Services = append(state.Services, service)
	}
	return state
}

func serviceKey(s config.Service) lb.ServiceKey { return s.Key() }

// planeOf is where a service is, while the others are on the given plane; empty: nowhere, since IPVS can't have it.
func planeOf(s config.Service, plane lb.Plane) lb.Plane {
	switch {
	case plane.IsXDP() && s.OnlyIPVS() != "":
		return lb.IPVS
	case plane == lb.IPVS && slices.ContainsFunc(s.LacksOnIPVS(), func(l config.Lack) bool { return l.Whole }):
		return ""
	}
	return plane
}
