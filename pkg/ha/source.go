package ha

import (
	"cmp"
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

// chooseSource returns the source of the adverts on a link: one of its addresses that are nobody's virtual ones
// (own), of global scope and primary if there is such, in the kernel's order. The current one is kept while it is
// there: peers use it to break ties. An owner whose only address is the virtual one, put there by somebody else
// (owned), uses that: it is its real address. invalid: there is none.
func chooseSource(all, own []ownAddress, current netip.Addr, owned []netip.Addr) netip.Addr {
	if slices.ContainsFunc(own, func(a ownAddress) bool { return a.Prefix.Addr() == current }) {
		return current
	}
	if len(own) > 0 {
		return slices.MinFunc(own, func(a, b ownAddress) int { return cmp.Compare(a.rank(), b.rank()) }).Prefix.Addr()
	}
	for _, a := range all {
		if slices.Contains(owned, a.Prefix.Addr()) {
			return a.Prefix.Addr()
		}
	}
	return netip.Addr{}
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
