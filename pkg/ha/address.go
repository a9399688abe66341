package ha

import (
	"maps"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// device names an interface to netlink.
func device(index int) netlink.Link {
	return &netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Index: index}}
}

// renewal is the time between two renewals of a lifetime.
func renewal(deadMan time.Duration) time.Duration { return max(100*time.Millisecond, deadMan/6) }

// address is the address as we add it: it goes by itself when nobody renews it.
func address(w wish, v VirtualAddress) *netlink.Addr {
	seconds := max(1, int(w.deadMan/time.Second))
	a := &netlink.Addr{IPNet: ipNet(v.Prefix), ValidLft: seconds, PreferedLft: seconds, Label: v.Label, Scope: scope(v.Scope)}
	if v.Prefix.Addr().Is6() {
		a.Flags = unix.IFA_F_NODAD // a second in which nobody answers, and the old MASTER would object
		if v.Prefix.IsSingleIP() {
			a.PreferedLft = 0 // deprecated: never chosen as a source
		}
	}
	if !v.Prefix.IsSingleIP() && w.instance.device(v) == w.instance.VirtualMAC {
		a.Flags |= unix.IFA_F_NOPREFIXROUTE // the way to the network is the interface's, not the virtual MAC's
	}
	return a
}

// scope is the kernel's number of a scope.
func scope(name string) int {
	switch name {
	case "site":
		return unix.RT_SCOPE_SITE
	case "link":
		return unix.RT_SCOPE_LINK
	case "host":
		return unix.RT_SCOPE_HOST
	}
	return unix.RT_SCOPE_UNIVERSE
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func sorted[V any](set map[spot]V) []spot {
	return slices.SortedFunc(maps.Keys(set), func(a, b spot) int {
		if c := a.prefix.Addr().Compare(b.prefix.Addr()); c != 0 {
			return c
		}
		return a.index - b.index
	})
}
