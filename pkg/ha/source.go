package ha

import (
	"fmt"
	"net/netip"
	"slices"
)

// ownAddress is an address on an interface.
type ownAddress struct {
	Prefix    netip.Prefix
	Global    bool // scope global, not link or host
	Secondary bool // IPv4
	Tentative bool // IPv6: the search for duplicates is not through, or found one: can't be a source
}

// wanted is what an instance wants of its source.
type wanted struct {
	current   netip.Addr // kept while it is there: peers use it to break ties
	ipv6      bool
	linkLocal bool // RFC 9568 5.1.2.1: "The source address is the IPv6 link-local address of the interface"
}

func wantedSource(i *instance) wanted {
	far := func(a netip.Addr) bool { return !a.IsLinkLocalUnicast() } // a unicast peer that a link-local source can't reach
	return wanted{current: i.source, ipv6: i.ipv6, linkLocal: i.ipv6 && !slices.ContainsFunc(i.cfg.VRRP.Peers, far)}
}

// chooseSource returns the source of the adverts on a link: one of its addresses that are nobody's virtual ones
// (own), of global scope and primary if there is such, in the kernel's order; link-local in IPv6. The current one is kept
// while it is there. An owner whose only address is the virtual one, put there by somebody else (owned), uses that:
// it is its real address. Without one it says why not.
func chooseSource(name string, all, own []ownAddress, want wanted, owned []netip.Addr) (source netip.Addr, why string) {
	fits := func(a ownAddress) bool {
		address := a.Prefix.Addr()
		return address.Is6() == want.ipv6 && (!want.ipv6 || address.IsLinkLocalUnicast() == want.linkLocal) && !a.Tentative
	}
	best := ownAddress{}
	for _, a := range own {
		switch {
		case !fits(a):
		case a.Prefix.Addr() == want.current:
			return want.current, ""
		case !best.Prefix.IsValid() || a.rank() < best.rank():
			best = a
		}
	}
	if best.Prefix.IsValid() {
		return best.Prefix.Addr(), ""
	}
	for _, a := range all {
		if fits(a) && slices.Contains(owned, a.Prefix.Addr()) {
			return a.Prefix.Addr(), ""
		}
	}
	tentative := slices.ContainsFunc(own, func(a ownAddress) bool {
		a.Tentative = !a.Tentative
		return fits(a)
	})
	switch {
	case tentative:
		return source, fmt.Sprintf("the IPv6 address of %s is still being looked for on other boxes, or is on one (dadfailed); waiting for it", name)
	case want.linkLocal:
		return source, fmt.Sprintf("%s has no IPv6 link-local address; give it one (is IPv6 switched off there?)", name)
	case want.ipv6:
		return source, fmt.Sprintf("%s has no IPv6 address of its own that reaches the unicast peers; add one", name)
	}
	return source, fmt.Sprintf("%s has no IPv4 address of its own; add one", name)
}

func (a ownAddress) rank() int {
	r := 0
	if !a.Global {
		r += 2
	}
	if a.Secondary {
		r++
	}
	return r
}

// unusable says in plain words why no instance can run on the link, or nothing. found is false when it is not there.
func unusable(name string, k link, found bool) string {
	switch {
	case !found:
		return fmt.Sprintf("interface %s does not exist", name)
	case !k.Up:
		return fmt.Sprintf("interface %s is down; set it up with: ip link set %s up", name, name)
	case !k.Carrier:
		return fmt.Sprintf("interface %s has no carrier; look at its cable, switch port or peer", name)
	}
	return ""
}
