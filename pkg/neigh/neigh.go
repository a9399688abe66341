// Package neigh knows how to reach every real server on the link: egress interface and MAC address, kept fresh by
// the kernel and watched by netlink.
package neigh

import (
	"net/netip"

	"github.com/xdirector/xdirector/pkg/lb"
)

// Hop is what is known about the way to one address. A next hop that was once known stays in NextHop, also beside an
// Err, until a new one is learnt or its interface is deleted: whether the real server is still there is the check's
// to decide.
type Hop struct {
	lb.NextHop
	InterfaceName string
	Routed        bool       // a router is in between, see Watcher.Routed: there is no next hop to know
	Source        netip.Addr // own address that checks of this real server must use; never one that may be virtual
	Err           error      // why there is no way, for example no on-link route; nil while resolving
}

// same says whether two hops tell their reader the same.
func (h Hop) same(o Hop) bool {
	return h.NextHop == o.NextHop && h.Routed == o.Routed && h.InterfaceName == o.InterfaceName && h.Source == o.Source && text(h.Err) == text(o.Err)
}

// text is the message of an error, "" for none.
func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
