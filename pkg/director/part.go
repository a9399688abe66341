package director

import (
	"net/netip"
	"time"

	"github.com/xdirector/xdirector/pkg/config"
	"github.com/xdirector/xdirector/pkg/lb"
	"github.com/xdirector/xdirector/pkg/neigh"
)

// facts are what is so beside the configuration.
type facts struct {
	now       time.Time
	servers   map[lb.ServerKey]*server
	overrides map[string]override // see serverName
	lost      map[string]bool     // services that had no quorum until now
	hops      map[netip.Addr]neigh.Hop
	directors []lb.Director
	held      map[netip.Addr]bool // virtual addresses, and whether we are MASTER of them
}

// claim is everything that decides how one real server takes part in the plane.
type claim struct {
	configured uint16
	override   override
	up         bool
	keep       bool // on_down: keep-weight-0
	tenths     int  // of its weight that it has as yet
}

// allTenths is a whole weight.
const allTenths = 10

// tenths is how much of its weight a real server has so long after it came up: a tenth at first, one more each ninth of the slow
// start.
func tenths(up, slowStart time.Duration) int {
	if up >= slowStart {
		return allTenths
	}
	return 1 + int((allTenths-1)*up/slowStart)
}

// claims are those of a service's real servers, in their order. One that facts do not know counts as up: that is what a new one
// is until its first result.
func (f facts) claims(s config.Service) []claim {
	list := make([]claim, len(s.RealServers))
	key := lb.ServerKey{Service: serviceKey(s)}
	slow := s.SlowStart > 0 && s.Scheduler.Weighs()
	for i, r := range s.RealServers {
		key.Address = r.Address
		c := claim{configured: r.Weight, up: true, keep: s.OnDown == config.OnDownKeep, tenths: allTenths}
		if is := f.servers[key]; is != nil {
			c.up = is.up
			if slow && !is.rose.IsZero() {
				c.tenths = tenths(f.now.Sub(is.rose), s.SlowStart)
			}
		}
		if len(f.overrides) > 0 {
			c.override = f.overrides[serverName(s.Name, r.Address)]
		}
		list[i] = c
	}
	return list
}

// weight is the one that configuration and operators want, whatever the checks say.
func (c claim) weight() uint16 {
	switch {
	case c.override.Drain != nil:
		return 0
	case c.override.Weight != nil:
		return c.override.Weight.Value
	}
	return c.configured
}

// starts says that the real server has only a part of its weight as yet.
func (c claim) starts() bool { return c.up && c.weight() > 0 && c.tenths < allTenths }

// part is how a real server takes part in the plane, see lb.RealServer.
type part struct {
	weight uint16
	up     bool
}

// parts says how the real servers of a service take part. With aside, the sorry server has all new flows. While a real server
// starts slowly all weights are ten times as large, so that there is a tenth of a small one; their shares are the same.
func parts(claims []claim, aside bool) []part {
	scale, largest, starting := uint32(1), uint16(0), false
	for _, c := range claims {
		largest, starting = max(largest, c.weight()), starting || c.starts()
	}
	if starting && uint32(largest)*allTenths <= 65535 {
		scale = allTenths
	}
	list := make([]part, len(claims))
	for i, c := range claims {
		list[i] = c.part(scale, aside)
	}
	return list
}

// part goes from what is configured to what is in force: override, drain, health, sorry server, slow start.
func (c claim) part(scale uint32, aside bool) part {
	weight := uint32(c.weight()) * scale
	switch {
	case c.override.Drain != nil && c.override.Drain.Over:
		return part{0, false}
	case !c.up && !c.keep:
		return part{c.weight(), false}
	case !c.up, aside, weight == 0:
		return part{0, true}
	}
	return part{uint16(max(1, weight*uint32(c.tenths)/allTenths)), true}
}
