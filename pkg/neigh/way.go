package neigh

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/xdirector/xdirector/pkg/lb"
)

// route is the kernel's answer to a route lookup.
type route struct {
	index   int // of the egress interface
	kind    int // RTN_UNICAST, ...
	gateway netip.Addr
	source  netip.Addr
}

// way is what a route lookup means for a real server.
type way struct {
	index     int // of the egress interface; 0 with err
	local     bool
	routed    bool  // a router is in between, which is no error for this real server
	err       error // why no frame can be sent to it
	source    netip.Addr
	sourceErr error // why no check can be sent to it
}

// box is what this director is, besides its routes.
type box struct {
	links   map[int]link
	own     map[int][]netip.Prefix
	virtual map[netip.Addr]bool
	routed  map[netip.Addr]bool // real servers that the kernel's routes may lead to
}

// judge says which way leads to a real server, from the result of the route lookup. It has no side effect.
func (b box) judge(target netip.Addr, r route, failed error) way {
	w := b.follow(target, r, failed)
	if name := b.cut(target); name != "" {
		w.sourceErr = fmt.Errorf("real server %s is on the network of %s, which %w", target, name, ErrLinkDown)
		if w.err != nil {
			w.err = w.sourceErr // the cure is a cable, not a route
		}
	}
	return w
}

// cut names the interface on whose network a target is, if it is down or has no carrier; empty: it is not so.
func (b box) cut(target netip.Addr) string {
	name := ""
	for index, own := range b.own {
		for _, p := range own {
			if !p.Contains(target) || p.IsSingleIP() {
				continue
			}
			if b.links[index].up {
				return ""
			}
			name = b.links[index].name
		}
	}
	return name
}

// follow judges the route alone.
func (b box) follow(target netip.Addr, r route, failed error) way {
	if failed != nil {
		reason := failed
		if errors.Is(failed, unix.EINVAL) {
			reason = errors.New("blackhole route") // what the kernel says instead
		}
		return noWay(fmt.Errorf("no route to real server %s: %w; give this director an address in its network", target, reason))
	}
	name := b.links[r.index].name
	switch {
	case r.kind == unix.RTN_LOCAL:
		w := way{index: r.index, local: true}
		w.source, w.sourceErr = b.source(target, r)
		return w
	case r.kind != unix.RTN_UNICAST:
		return noWay(fmt.Errorf("real server %s is not the address of one host: the route to it says broadcast or multicast (dev %s)", target, name))
	case b.routed[target] && (r.gateway.IsValid() && r.gateway != target || !b.links[r.index].ether):
		w := way{index: r.index, routed: true}
		w.source, w.sourceErr = b.source(target, r)
		return w
	case r.gateway.IsValid() && r.gateway != target:
		return noWay(fmt.Errorf("real server %s is not on a directly connected network (route via %s dev %s): direct return rewrites only the MAC "+
			"address, so a router would get a frame for an address that is not its own; put it on the same LAN as this director, or give this director "+
			"an address in its network", target, r.gateway, name))
	case !b.links[r.index].ether:
		return noWay(fmt.Errorf("real server %s is reached by %s, which is no Ethernet interface: direct return rewrites the MAC address; "+
			"put it on a LAN of this director", target, name))
	}
	w := way{index: r.index}
	w.source, w.sourceErr = b.source(target, r)
	return w
}

func noWay(err error) way { return way{err: err, sourceErr: err} }

// lasting returns the addresses in own that are not virtual.
func (b box) lasting(own map[int][]netip.Prefix) map[int][]netip.Prefix {
	kept := map[int][]netip.Prefix{}
	for index, list := range own {
		for _, p := range list {
			if !b.virtual[p.Addr()] {
				kept[index] = append(kept[index], p)
			}
		}
	}
	return kept
}

// source chooses the own address for checks: the kernel's choice, unless that one is virtual and may be on another box
// by the time the answer comes; then another address of the interface, first one in the target's network.
func (b box) source(target netip.Addr, r route) (netip.Addr, error) {
	if r.source.IsValid() && !b.virtual[r.source] {
		return r.source, nil
	}
	var other netip.Addr
	for _, own := range b.candidates(r) {
		a := own.Addr()
		if a.Is4() != target.Is4() || b.virtual[a] || a.IsLinkLocalUnicast() != target.IsLinkLocalUnicast() {
			continue
		}
		if own.Contains(target) {
			return a, nil
		}
		if !other.IsValid() {
			other = a
		}
	}
	if other.IsValid() {
		return other, nil
	}
	return netip.Addr{}, fmt.Errorf("no own address for checks of real server %s: %s has none but virtual ones, which another director may hold; "+
		"give it an address of its own", target, b.links[r.index].name)
}

// candidates are the addresses of the egress interface; of every interface if the target is this box itself.
func (b box) candidates(r route) []netip.Prefix {
	if r.kind != unix.RTN_LOCAL {
		return b.own[r.index]
	}
	var all []netip.Prefix
	for _, index := range slices.Sorted(maps.Keys(b.own)) {
		for _, p := range b.own[index] {
			if !p.Addr().IsLoopback() {
				all = append(all, p)
			}
		}
	}
	return all
}

// next is the next hop after a way and a MAC address (zero: not known) were learnt. What was known stays until there
// is something new to replace it, interface and MAC address together.
func (b box) next(known lb.NextHop, w way, mac lb.MAC) lb.NextHop {
	switch {
	case w.err == nil && w.local:
		return lb.NextHop{Local: true}
	case w.err == nil && !mac.IsZero():
		return lb.NextHop{Interface: w.index, MAC: mac}
	}
	if _, there := b.links[known.Interface]; there && known.Known() && !known.Local {
		return known
	}
	return lb.NextHop{Interface: w.index}
}
