package director

import (
	"net/netip"

	"github.com/xdirector/xdirector/pkg/config"
	"github.com/xdirector/xdirector/pkg/lb"
	"github.com/xdirector/xdirector/pkg/neigh"
)

// wish makes the one State that the plane should have, from the configuration, the health of real servers and what
// is known of their next hops. It is pure. A real server that up does not know counts as up: that is what a new one
// is until its first result.
//
// On IPVS a service with this very box among its real servers is left out while another director holds its
// address: the frames that arrive then were balanced there, and IPVS, which can't see that, would send them back.
func wish(cfg *config.Config, plane lb.Plane, up map[lb.ServerKey]bool, hops map[netip.Addr]neigh.Hop,
	directors []lb.Director, held map[netip.Addr]bool) lb.State {
	state := lb.State{Directors: directors}
	for _, s := range cfg.Services {
		service := lb.Service{
			Name:        s.Name,
			Key:         serviceKey(s),
			Scheduler:   s.Scheduler,
			Persistence: s.Persistence,
		}
		local := false
		for _, r := range s.RealServers {
			alive, known := up[lb.ServerKey{Service: service.Key, Address: r.Address}]
			hop := hops[r.Address].NextHop
			local = local || hop.Local
			service.RealServers = append(service.RealServers, lb.RealServer{
				Address: r.Address,
				Port:    r.Port,
				Weight:  r.Weight,
				Up:      alive || !known,
				NextHop: hop,
			})
		}
		if isHeld, ours := held[s.Address]; plane == lb.IPVS && local && ours && !isHeld {
			continue
		}
		state.Services = append(state.Services, service)
	}
	return state
}

func serviceKey(s config.Service) lb.ServiceKey {
	return lb.ServiceKey{Address: s.Address, Port: s.Port, Protocol: s.Protocol}
}
