package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// maxInstances and maxAddresses bound what one box is asked to do.
const (
	maxInstances = 1000
	maxAddresses = 255 // an advert counts them in one byte
)

// holders is the path of the instance that holds each virtual address.
type holders map[netip.Addr]string

// instances checks all instances and returns the path of the instance that holds each virtual address.
func (d *decoder) instances(instances []Instance) holders {
	type router struct {
		networkInterface string
		six              bool
		id               uint8
	}
	if len(instances) > maxInstances {
		d.wrongAt("vrrp.instances", "%d instances; allowed: at most %d", len(instances), maxInstances)
	}
	names, routers, macs := map[string]string{}, map[router]string{}, map[string]string{}
	held, local, routes := holders{}, map[string]string{}, map[Route]string{}
	networkInterfaces := map[string]bool{}
	for _, i := range instances {
		networkInterfaces[i.Interface] = true
	}
	for n, i := range instances {
		path := fmt.Sprintf("vrrp.instances[%d]", n)
		six := d.family(path+".virtual_addresses", len(i.VirtualAddresses)) == 6
		if other, ok := taken(names, i.Name, path); ok {
			d.wrongAt(path+".name", "%s is the name of %s too; every instance needs its own", quote(i.Name), other)
		}
		if i.Interface != "" && i.VirtualRouterID != 0 {
			if other, ok := taken(routers, router{i.Interface, six, i.VirtualRouterID}, path); ok {
				d.wrongAt(path+".virtual_router_id", "%d is used on %s by %s already; allowed: 1 to 255, each once per interface and family", i.VirtualRouterID, i.Interface, other)
			}
		}
		d.version(path, i, six)
		d.preemption(path, i)
		d.addresses(path, i, held, local)
		d.peers(path, i, six)
		d.routes(path, i, routes)
		switch other, ok := taken(macs, i.VirtualMAC, path); {
		case ok:
			d.wrongAt(path+".virtual_mac", "%s has a macvlan of the name %s already; write another name, like virtual_mac: {name: vmac%d}", other, i.VirtualMAC, n+1)
		case i.VirtualMAC != "" && networkInterfaces[i.VirtualMAC]:
			d.wrongAt(path+".virtual_mac", "%s is the interface of an instance; the macvlan needs a name of its own", i.VirtualMAC)
		}
	}
	return held
}

func (d *decoder) version(path string, i Instance, six bool) {
	switch {
	case six && i.Version == 2:
		d.wrongAt(path+".version", "version 2 has no IPv6; leave it out, or write version: 3")
	case six && d.written(path+".authentication"):
		d.wrongAt(path+".authentication", "IPv6 is always version 3, which has no authentication; leave it out")
	case i.Version == 3 && d.written(path+".authentication"):
		d.wrongAt(path+".authentication", "version 3 has no authentication; leave it out, or write version: 2")
	}
	switch {
	case !d.written(path+".checksum") || d.reported(path+".checksum"):
	case six:
		d.wrongAt(path+".checksum", "IPv6 has one form of checksum only; leave it out")
	case i.Version == 2:
		d.wrongAt(path+".checksum", "version 2 has one form of checksum only; leave it out, or write version: 3")
	}
}

func (d *decoder) preemption(path string, i Instance) {
	if i.Priority == 255 && d.written(path+".preempt") && !i.Preempt {
		d.warnAt(path+".preempt", "false has no effect with priority 255: the owner of the addresses always takes over")
	} else if d.written(path+".preempt") && !i.Preempt && i.PreemptDelay > 0 {
		d.warnAt(path+".preempt_delay", "it has no effect with preempt: false; leave one of the two out")
	}
}

// addresses checks what an instance holds. A link-local address belongs to its interface alone, so that several
// instances may have the same one: local has these by interface and address.
func (d *decoder) addresses(path string, i Instance, held holders, local map[string]string) {
	list := path + ".virtual_addresses"
	if len(i.VirtualAddresses) == 0 && d.written(list) && !d.reported(list) {
		d.wrongAt(list, "the list is empty; write at least one address, like [192.168.5.100/32]")
	}
	if len(i.VirtualAddresses) > maxAddresses {
		d.wrongAt(list, "%d addresses; allowed: 1 to %d in an instance, more in excluded_addresses", len(i.VirtualAddresses), maxAddresses)
	}
	own, families := map[netip.Addr]string{}, map[int]bool{}
	one := func(at string, v VirtualAddress) {
		p := v.Prefix
		if !p.IsValid() {
			return
		}
		if first, ok := taken(own, p.Addr(), at); ok {
			d.wrongAt(at, "%s is here twice, first as %s; write it once", p.Addr(), first)
			return
		}
		other, twice := "", false
		if p.Addr().IsLinkLocalUnicast() {
			other, twice = taken(local, orElse(v.Interface, i.Interface)+"%"+p.Addr().String(), path)
		} else {
			other, twice = taken(held, p.Addr(), path)
		}
		if twice {
			d.warnAt(at, "%s is held by %s too; it is missing while only one of the two is MASTER and the other takes it away", p.Addr(), other)
		}
		if end := edge(p); end != "" {
			d.warnAt(at, "%s is the %s address of its own prefix; hosts in %s can't use it", p, end, p.Masked())
		}
		if p.Addr().Is6() && d.written(at+".label") {
			d.wrongAt(at+".label", "%s is an IPv6 address, which has no label; leave it out", p.Addr())
		}
		if p.Addr().Is6() && d.written(at+".scope") {
			d.wrongAt(at+".scope", "%s is an IPv6 address, whose scope follows from itself; leave it out", p.Addr())
		}
	}
	for n, v := range i.VirtualAddresses {
		at := fmt.Sprintf("%s[%d]", list, n)
		if family := d.families[at]; family != 0 {
			families[family] = true
		}
		one(at, v)
	}
	for n, v := range i.ExcludedAddresses {
		one(fmt.Sprintf("%s.excluded_addresses[%d]", path, n), v)
	}
	if len(families) > 1 {
		d.wrongAt(list, "it has IPv4 and IPv6 addresses; allowed: one family in an instance, so write an instance for each, or use excluded_addresses")
	} else if first := i.first(); first.Is6() && !first.IsLinkLocalUnicast() {
		d.warnAt(list+"[0]", "%s is not link-local; the first address of an IPv6 instance should be (RFC 9568, 5.2.9), like fe80::%d, for hosts that use the virtual router as their gateway", first, i.VirtualRouterID)
	}
}

// first is the address that stands first in adverts, invalid if there is none.
func (i Instance) first() netip.Addr {
	if len(i.VirtualAddresses) == 0 {
		return netip.Addr{}
	}
	return i.VirtualAddresses[0].Prefix.Addr()
}

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

// edge says whether the address is the first or the last of a prefix that keeps these for itself.
func edge(p netip.Prefix) string {
	if p.Addr().BitLen()-p.Bits() < 2 {
		return ""
	}
	if p.Masked().Addr() == p.Addr() {
		if p.Addr().Is6() {
			return "subnet-router anycast"
		}
		return "network"
	}
	if next := p.Addr().Next(); p.Addr().Is4() && (!next.IsValid() || !p.Contains(next)) {
		return "broadcast"
	}
	return ""
}

// peers checks where adverts come from and go to.
func (d *decoder) peers(path string, i Instance, six bool) {
	source, list := path+".source_address", path+".unicast_peers"
	family := map[bool]int{false: 4, true: 6}[six]
	if i.first() == (netip.Addr{}) {
		return // it has a problem of its own
	}
	held := func(a netip.Addr) bool {
		return slices.ContainsFunc(i.Held(), func(v VirtualAddress) bool { return v.Prefix.Addr() == a })
	}
	if s := i.SourceAddress; s.IsValid() {
		switch {
		case s.Is6() != six:
			d.wrongAt(source, "%s is an IPv%d address, the virtual addresses are IPv%d; write one of that family", s, familyOf(s), family)
		case six && len(i.UnicastPeers) == 0 && !s.IsLinkLocalUnicast():
			d.wrongAt(source, "%s is not link-local; adverts to the multicast group come from a link-local address (RFC 9568, 5.1.2.1)", s)
		case held(s) && i.Priority != 255:
			d.wrongAt(source, "%s is a virtual address of this instance; write an address that this box has in every state, or priority: 255 if it owns the address", s)
		}
	}
	if d.written(list) && len(i.UnicastPeers) == 0 && !d.reported(list) {
		d.wrongAt(list, "the list is empty; write the address of at least one other director, or leave it out for multicast")
	}
	if d.written(path+".unicast_ttl") && !d.written(list) {
		d.warnAt(path+".unicast_ttl", "it has no effect without unicast_peers: an advert to the multicast group always needs 255")
	}
	if len(i.UnicastPeers) > maxAddresses {
		d.wrongAt(list, "%d peers; allowed: 1 to %d in an instance", len(i.UnicastPeers), maxAddresses)
	}
	have, global := map[netip.Addr]string{}, false
	for n, p := range i.UnicastPeers {
		at := fmt.Sprintf("%s[%d]", list, n)
		if !p.IsValid() {
			continue
		}
		if first, ok := taken(have, p, at); ok {
			d.wrongAt(at, "%s is in the list twice, first as %s; write it once", p, first)
			continue
		}
		switch {
		case p.Is6() != six:
			d.wrongAt(at, "%s is an IPv%d address, the virtual addresses are IPv%d; write one of that family", p, familyOf(p), family)
		case p == i.SourceAddress:
			d.wrongAt(at, "%s is our own source_address; write the addresses of the other directors only", p)
		case held(p):
			d.wrongAt(at, "%s is a virtual address of this instance; write the other director's own address", p)
		}
		global = global || p.Is6() && !p.IsLinkLocalUnicast()
	}
	if six && global && !i.SourceAddress.IsValid() && !d.written(source) {
		d.warnAt(list, "the peers are not link-local, but without source_address our adverts come from the link-local address of %s; write source_address, or that address into the peers' lists", i.Interface)
	}
}

func (d *decoder) routes(path string, i Instance, routes map[Route]string) {
	for n, r := range i.Routes {
		at := fmt.Sprintf("%s.routes[%d]", path, n)
		if !r.Destination.IsValid() {
			continue
		}
		for key, a := range map[string]netip.Addr{"via": r.Via, "source": r.Source} {
			if a.IsValid() && a.Is4() != r.Destination.Addr().Is4() {
				d.wrongAt(at+"."+key, "%s is an IPv%d address, the destination is IPv%d; allowed: one family in a route", a, familyOf(a), familyOf(r.Destination.Addr()))
			}
		}
		// The kernel knows a route by these.
		key := Route{Destination: r.Destination, Metric: r.Metric, Table: r.Table}
		switch other, ok := taken(routes, key, path); {
		case ok && other == path:
			d.wrongAt(at, "a route to %s with this metric and table is in the list already; write another metric", r.Destination)
		case ok:
			d.warnAt(at, "%s has a route to %s with this metric and table too; it is missing while only one of the two is MASTER and the other takes it away", other, r.Destination)
		}
	}
}

// fastPath warns of instances that dataplane.vrrp_fast_path: absorb leaves out.
func (d *decoder) fastPath(c *Config) {
	if c.Dataplane.VRRPFastPath != FastPathAbsorb {
		return
	}
	var slow []string
	for _, i := range c.Instances {
		if !c.Dataplane.Absorbs(i) {
			slow = append(slow, i.Name)
		}
	}
	if len(slow) > 0 {
		d.warnAt("dataplane.vrrp_fast_path", "absorb is for an advert_interval of at most %s; these instances have filter: %s", AbsorbInterval, several(slow))
	}
}

// several lists names, so many as an operator wants to read.
func several(names []string) string {
	const most = 5
	if len(names) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
	}
	return strings.Join(names, ", ")
}

func (d *decoder) syncGroups(c *Config) {
	var known []string
	byName := map[string]Instance{}
	for _, i := range c.Instances {
		known = append(known, i.Name)
		byName[i.Name] = i
	}
	names, member := map[string]string{}, map[string]string{}
	for n, g := range c.SyncGroups {
		path := fmt.Sprintf("vrrp.sync_groups[%d]", n)
		if other, ok := taken(names, g.Name, path); ok {
			d.wrongAt(path+".name", "%s is the name of %s too; every sync group needs its own", quote(g.Name), other)
		}
		if len(g.Instances) < 2 && d.written(path+".instances") && !d.reported(path+".instances") {
			d.wrongAt(path+".instances", "a list of %d; write two or more instances, or leave the sync group out", len(g.Instances))
		}
		var members []Instance
		for k, name := range g.Instances {
			at := fmt.Sprintf("%s.instances[%d]", path, k)
			if i, ok := byName[name]; ok {
				members = append(members, i)
			} else if name != "" {
				d.wrongAt(at, "there is no instance %s%s", quote(name), d.among(name, known))
			}
			switch other, ok := taken(member, name, path); {
			case ok && other == path:
				d.wrongAt(at, "%s is in the list twice; write it once", quote(name))
			case ok:
				d.wrongAt(at, "%s is in %s already; allowed: one sync group for an instance", quote(name), other)
			}
		}
		d.alike(path, members)
	}
}

// alike warns of members whose elections may have different winners: a group that wins one election and loses another
// one has no rest. What one member tracks with a weight counts for all of them.
func (d *decoder) alike(path string, members []Instance) {
	for k, i := range members {
		first := members[0]
		if i.Priority != first.Priority {
			d.warnAt(fmt.Sprintf("%s.instances[%d]", path, k), "%s has priority %d, %s has %d; a group whose members have different winners finds no rest, so give all of them the same priority", i.Name, i.Priority, first.Name, first.Priority)
			return
		}
	}
}

// among lists what there is, with the one that was most likely meant. To look for that costs time, so it is done for the
// first hundred mistakes of a file.
func (d *decoder) among(name string, known []string) string {
	if len(known) == 0 {
		return "; there is none"
	}
	likely := ""
	if len(d.problems) < 100 {
		likely = didYouMean(name, known)
	}
	return likely + "; there are " + several(known)
}
