package director

import (
	"net/netip"
	"slices"

	"github.com/xdirector/xdirector/pkg/config"
	"github.com/xdirector/xdirector/pkg/lb"
	"github.com/xdirector/xdirector/pkg/neigh"
)

// wish makes the one State that the plane should have, from the configuration, the health of real servers and what
// is known of their next hops. It is pure. A real server that up does not know counts as up: that is what a new one
// is until its first result.
//
// On IPVS a service with this very box among its real servers is left out while another director holds its
// address: the frames that arrive then were balanced there, and IPVS, which can't see that, would send them back. What IPVS
// can't have is left out there too.
func wish(cfg *config.Config, plane lb.Plane, up map[lb.ServerKey]bool, hops map[netip.Addr]neigh.Hop,
	directors []lb.Director, held map[netip.Addr]bool) lb.State {
	state := lb.State{Directors: directors}
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
		}
		local := false
		for _, r := range s.RealServers {
			alive, known := up[lb.ServerKey{Service: service.Key, Address: r.Address}]
			hop := hops[r.Address].NextHop
			local = local || hop.Local && s.Forwarding == lb.Direct
			service.RealServers = append(service.RealServers, lb.RealServer{
				Address: r.Address,
				Port:    r.Port,
				Weight:  r.Weight,
				Up:      alive || !known,
				NextHop: hop,
			})
		}
		if isHeld, ours := held[s.Address]; on == lb.IPVS && local && ours && !isHeld {
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
