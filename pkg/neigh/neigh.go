// Package neigh knows how to reach every real server on the link: egress interface and MAC address, kept fresh by
// the kernel and watched by netlink.
package neigh

import (
	"net/netip"

	"github.com/xdirector/xdirector/pkg/lb"
)

// Hop is what is known about the way to one address.
type Hop struct {
	lb.NextHop
	InterfaceName string
	Source        netip.Addr // own address that checks of this real server must use; never one that may be virtual
	Err           error      // why there is no way, for example no on-link route; nil while resolving
}
