package ha

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// routeProtocol marks the routes that we install: the number of VRRP, which pkg/neigh uses too.
const routeProtocol = 112

// defaultMetric is what the kernel gives an IPv6 route without a metric.
const defaultMetric = 1024

// key returns what the kernel tells the route by.
func (r Route) key() routeKey {
	k := routeKey{destination: r.Destination.Masked(), table: cmp.Or(r.Table, unix.RT_TABLE_MAIN), metric: r.Metric}
	if r.Destination.Addr().Is6() && k.metric == 0 {
		k.metric = defaultMetric
	}
	return k
}

// routeDevice returns the name of the interface of a route.
func (i Instance) routeDevice(r Route) string { return cmp.Or(r.Interface, i.Interface) }

// netlinkRoute is the route for the kernel.
func netlinkRoute(r Route, index int) *netlink.Route {
	k := r.key()
	out := &netlink.Route{Dst: ipNet(k.destination), LinkIndex: index, Table: int(k.table), Priority: int(k.metric),
		Protocol: routeProtocol, Scope: netlink.SCOPE_LINK}
	if r.Via.IsValid() {
		out.Gw, out.Scope = r.Via.AsSlice(), netlink.SCOPE_UNIVERSE
	}
	if r.Destination.Addr().Is6() {
		out.Scope = netlink.SCOPE_UNIVERSE // it has no scopes
	}
	if r.Source.IsValid() {
		out.Src = r.Source.AsSlice()
	}
	return out
}

// dropRoutes removes the routes that should not be there.
func (h *holder) dropRoutes(w wish) {
	for r, index := range h.routes {
		switch {
		case !slices.Contains(w.instance.Routes, r):
			h.removeRoute(r, index, "not in the configuration any more")
		case w.links[w.instance.routeDevice(r)].Index != index:
			h.removeRoute(r, index, "its interface is another one now")
		case !w.hold:
			h.removeRoute(r, index, "not MASTER")
		}
	}
	for r := range h.theirs {
		if !w.hold || !slices.Contains(w.instance.Routes, r) {
			delete(h.theirs, r)
		}
	}
}

// keepRoutes installs the routes that are not there. The addresses come first: a route may have one as its source, or
// lead to its gateway through the network of one.
func (h *holder) keepRoutes(w wish) {
	look := h.adopted || w.retry || w.routes || w.blind || h.owed
	if h.owed = look && len(h.routes) > 0 && h.fight.lost > fightLimit && h.fight.wait(h.nudge); h.owed {
		return
	}
	for _, r := range w.instance.Routes {
		_, held := h.routes[r]
		if !h.current().hold || held && !look {
			continue
		}
		name := w.instance.routeDevice(r)
		index := w.links[name].Index
		what := "route to " + r.Destination.String()
		if index == 0 {
			h.fail(what, fmt.Errorf("install %s: no interface %s", what, name))
			continue
		}
		err := h.host.handle.RouteAdd(netlinkRoute(r, index)) // never replaces one
		switch {
		case errors.Is(err, unix.EEXIST) && held:
		case errors.Is(err, unix.EEXIST):
			if !h.theirs[r] {
				put(&h.theirs, r, true)
				h.log.Warn(fmt.Sprintf("a route to %s with this metric is there already, not put there by us: it stays in every state. Cure: remove it, or give ours another metric", r.Destination),
					"route", r.Destination, "table", r.key().table, "metric", r.Metric)
			}
		case err != nil:
			h.fail(what, fmt.Errorf("install %s on %s: %w", what, name, err))
		default:
			delete(h.failed, what)
			delete(h.theirs, r)
			put(&h.routes, r, index)
			if held && !h.adopted {
				h.lost("route", r.Destination, name)
				continue
			}
			h.log.Info("route installed", "route", r.Destination, "via", r.Via, "interface", name)
		}
	}
}

func (h *holder) removeRoute(r Route, index int, why string) {
	what := "route to " + r.Destination.String()
	err := h.host.handle.RouteDel(netlinkRoute(r, index)) // matches protocol and way too: another's is not found
	if err != nil && !errors.Is(err, unix.ESRCH) && !errors.Is(err, unix.ENODEV) && !errors.Is(err, unix.ENETUNREACH) {
		h.fail(what, fmt.Errorf("remove %s: %w", what, err))
		return
	}
	delete(h.routes, r)
	delete(h.failed, what)
	if err == nil {
		h.log.Info("route removed", "route", r.Destination, "reason", why)
	}
}

func (h *holder) recordRoutes(w wish, rec *record) {
	all := map[Route]int{}
	for _, r := range w.instance.Routes {
		if !h.theirs[r] {
			all[r] = w.links[w.instance.routeDevice(r)].Index
		}
	}
	for r, index := range h.routes {
		all[r] = index
	}
	for r, index := range all {
		rec.Routes = append(rec.Routes, recordedRoute{Route: r, Index: index})
	}
	slices.SortFunc(rec.Routes, func(a, b recordedRoute) int {
		return cmp.Or(a.Route.Destination.Addr().Compare(b.Route.Destination.Addr()),
			cmp.Compare(fmt.Sprint(a.Route), fmt.Sprint(b.Route)))
	})
}
