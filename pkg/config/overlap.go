package config

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/xdirector/xdirector/pkg/lb"
)

// network is all services that have the same addresses.
type network []int // indexes of services

// overlaps looks at services that share addresses or ports. A packet belongs to the service with the smallest network, and of
// those to the one with the fewest ports.
func (d *decoder) overlaps(c *Config) {
	networks := map[netip.Prefix]network{}
	lengths := map[int]bool{}
	var prefixes []netip.Prefix // as the file has them, so that messages always come in one order
	for n, s := range c.Services {
		if d.identified(fmt.Sprintf("services[%d]", n), s) && s.FirewallMark == 0 {
			prefix := s.Key().Prefix()
			if networks[prefix] == nil {
				prefixes = append(prefixes, prefix)
			}
			networks[prefix] = append(networks[prefix], n)
			lengths[prefix.Bits()] = true
		}
	}
	order := slices.Sorted(maps.Keys(lengths))
	for _, prefix := range prefixes {
		members := networks[prefix]
		d.crossed(c.Services, members)
		for _, bits := range order {
			if bits > prefix.Bits() {
				break
			}
			wider, err := prefix.Addr().Prefix(bits)
			if err != nil {
				break // IPv4 has no such length
			}
			d.shadowed(c, members, networks[wider])
		}
	}
}

// crossed reports ranges of ports of which neither lies in the other.
func (d *decoder) crossed(services []Service, members network) {
	ranges := slices.DeleteFunc(slices.Clone(members), func(n int) bool { return services[n].LastPort == 0 })
	for i, n := range ranges {
		for _, m := range ranges[:i] {
			a, b := services[n], services[m]
			if a.Protocol == b.Protocol && max(a.Port, b.Port) <= min(a.LastPort, b.LastPort) && !holds(a, b) && !holds(b, a) {
				d.wrongAt(fmt.Sprintf("services[%d].port", n), "%d-%d and %d-%d of services[%d] overlap; allowed: ranges apart from one another, or one within the other, which then has its ports",
					a.Port, a.LastPort, b.Port, b.LastPort, m)
			}
		}
	}
}

// holds says whether all ports of inner are ports of s.
func holds(s, inner Service) bool {
	first, last := s.Key().Ports()
	from, to := inner.Key().Ports()
	return s.Protocol == inner.Protocol && first <= from && to <= last
}

// shadowed reports services on IPVS whose packets an XDP service would take before.
func (d *decoder) shadowed(c *Config, members, wider network) {
	if c.Dataplane.Mode == ModeIPVS {
		return
	}
	for _, n := range members {
		s := c.Services[n]
		why := s.OnlyIPVS()
		if why == "" || s.Protocol == lb.SCTP {
			continue
		}
		for _, m := range wider {
			if o := c.Services[m]; o.OnlyIPVS() == "" && o.Key() != s.Key() && holds(o, s) {
				path := fmt.Sprintf("services[%d]", n)
				d.wrongAt(path+"."+d.identity(path), "%s: but the packets for %s are those of services[%d] (%s) too, which XDP takes before IPVS sees them; give one of them other addresses or ports",
					why, s.Key(), m, o.Key())
			}
		}
	}
}
