package config

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/xdirector/xdirector/pkg/lb"
)

// network is all services that have the same addresses, by their indexes.
type network struct {
	all    []int
	single map[portKey]int // on XDP, with one port
	wide   []int           // on XDP, with more than one
}

type portKey struct {
	protocol lb.Protocol
	port     uint16
}

func (n *network) add(index int, s Service) {
	n.all = append(n.all, index)
	switch {
	case s.OnlyIPVS() != "":
	case s.Port == 0 || s.LastPort != 0:
		n.wide = append(n.wide, index)
	default:
		n.single[portKey{s.Protocol, s.Port}] = index
	}
}

// overlaps looks at services that share addresses or ports. A packet belongs to the service with the smallest network, and of
// those to the one with the fewest ports.
func (d *decoder) overlaps(c *Config) {
	networks := map[netip.Prefix]*network{}
	lengths := map[int]bool{}
	var prefixes []netip.Prefix // as the file has them, so that messages always come in one order
	for n, s := range c.Services {
		if d.identified(fmt.Sprintf("services[%d]", n), s) && s.FirewallMark == 0 {
			prefix := s.Key().Prefix()
			if networks[prefix] == nil {
				networks[prefix] = &network{single: map[portKey]int{}}
				prefixes = append(prefixes, prefix)
			}
			networks[prefix].add(n, s)
			lengths[prefix.Bits()] = true
		}
	}
	order := slices.Sorted(maps.Keys(lengths))
	for _, prefix := range prefixes {
		members := networks[prefix]
		d.crossed(c.Services, members.all)
		for _, bits := range order {
			if bits > prefix.Bits() {
				break
			}
			wider, err := prefix.Addr().Prefix(bits)
			if err != nil {
				break // IPv4 has no such length
			}
			if around := networks[wider]; around != nil && c.Dataplane.Mode != ModeIPVS {
				d.shadowed(c.Services, members.all, around)
			}
		}
	}
}

// crossed reports ranges of ports of which neither lies in the other.
func (d *decoder) crossed(services []Service, members []int) {
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

// shadowed reports services on IPVS whose packets an XDP service around them would take before.
func (d *decoder) shadowed(services []Service, members []int, around *network) {
	for _, n := range members {
		s := services[n]
		why := s.OnlyIPVS()
		if why == "" || s.Protocol == lb.SCTP {
			continue
		}
		others := around.wide
		if m, ok := around.single[portKey{s.Protocol, s.Port}]; ok && s.Port != 0 {
			others = append([]int{m}, others...)
		}
		for _, m := range others {
			if o := services[m]; o.Key() != s.Key() && holds(o, s) {
				path := fmt.Sprintf("services[%d]", n)
				d.wrongAt(path+"."+d.identity(path), "%s: but the packets for %s are those of services[%d] (%s) too, which XDP takes before IPVS sees them; give one of them other addresses or ports",
					why, s.Key(), m, o.Key())
			}
		}
	}
}
