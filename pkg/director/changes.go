package director

import (
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	"github.com/xdirector/xdirector/pkg/config"
	"github.com/xdirector/xdirector/pkg/health"
	"github.com/xdirector/xdirector/pkg/lb"
	"github.com/xdirector/xdirector/pkg/status"
)

// comparison lists what differs between two configurations, and what follows from it for a director that goes from the old
// one to the new one. It is pure.
type comparison struct {
	old, now *config.Config
	here     here
	list     []status.Change
}

// here is what the consequences of a change depend on, besides the configurations.
type here struct {
	masters map[string]bool // instances that are MASTER
	plane   lb.Plane
}

// compare lists the changes from one configuration to another.
func compare(old, now *config.Config, at here) []status.Change {
	c := comparison{old: old, now: now, here: at}
	c.instances()
	c.named("script", old.Scripts, now.Scripts)
	c.named("sync group", old.SyncGroups, now.SyncGroups)
	c.services()
	c.top()
	return c.list
}

func (c *comparison) add(op, kind, name, effect string, interrupts bool) {
	c.list = append(c.list, status.Change{Op: op, Kind: kind, Name: name, Effect: effect, Interrupts: interrupts})
}

// byName are the elements of a list by what names them.
func byName[T any, K comparable](list []T, name func(*T) K) map[K]*T {
	m := make(map[K]*T, len(list))
	for i := range list {
		m[name(&list[i])] = &list[i]
	}
	return m
}

func (c *comparison) instances() {
	name := func(i *config.Instance) string { return i.Name }
	was, is := byName(c.old.Instances, name), byName(c.now.Instances, name)
	for n := range c.old.Instances {
		if i := &c.old.Instances[n]; is[i.Name] == nil {
			c.add(status.Removed, "instance", i.Name, i.Name+" is BACKUP here: nobody notices", false)
			if c.here.masters[i.Name] {
				last := &c.list[len(c.list)-1]
				last.Interrupts = true
				last.Effect = fmt.Sprintf("%s is MASTER here and hands over to another director; if there is none, nobody answers for %s any more", i.Name, addressList(i.Held()))
			}
		}
	}
	for n := range c.now.Instances {
		i := &c.now.Instances[n]
		if o := was[i.Name]; o == nil {
			c.add(status.Added, "instance", i.Name, i.Name+" begins as BACKUP, and takes over from a MASTER of lower priority if preempt is true", false)
		} else {
			c.instance(o, i)
		}
	}
}

func (c *comparison) instance(o, i *config.Instance) {
	keys := differences(*o, *i)
	if len(keys) == 0 {
		return
	}
	var effects []string
	interrupts := false
	changed := func(names ...string) bool {
		return slices.ContainsFunc(keys, func(k status.KeyChange) bool { return slices.Contains(names, k.Key) })
	}
	held := map[netip.Addr]bool{}
	for _, a := range i.Held() {
		held[a.Prefix.Addr()] = true
	}
	gone := slices.DeleteFunc(slices.Clone(o.Held()), func(a config.VirtualAddress) bool { return held[a.Prefix.Addr()] })
	if len(gone) > 0 && c.here.masters[i.Name] {
		effects = append(effects, "nobody answers for "+addressList(gone)+" any more, unless another instance holds it")
		interrupts = true
	}
	if changed("authentication.password") || i.Version == 2 && changed("advert_interval") {
		effects = append(effects, "until the other directors have the same, they refuse our adverts and we theirs: both are MASTER")
		interrupts = true
	} else if changed("advert_interval", "virtual_addresses", "checksum") {
		effects = append(effects, "make the same change on the other directors")
	}
	if changed("priority", "preempt", "unicast_peers", "unicast_ttl", "source_address") || slices.ContainsFunc(keys, func(k status.KeyChange) bool { return strings.HasPrefix(k.Key, "track.") }) {
		effects = append(effects, "the election may make another director MASTER, or this one: a handover, which keeps the flows")
	}
	if was, is := family(*o), family(*i); was != is {
		keys = append(keys, status.KeyChange{Key: familyKey, Old: was, New: is})
	}
	c.list = append(c.list, status.Change{Op: status.Changed, Kind: "instance", Name: i.Name, Keys: c.restarts("instance", keys),
		Effect: strings.Join(effects, "; "), Interrupts: interrupts})
}

// addressList names a few addresses.
func addressList(list []config.VirtualAddress) string {
	var names []string
	for _, a := range list {
		names = append(names, a.Prefix.Addr().String())
	}
	return some(names)
}

// named compares lists of things that interrupt nothing, by their names.
func (c *comparison) named(kind string, old, now any) {
	o, n := reflect.ValueOf(old), reflect.ValueOf(now)
	was, is := map[string]reflect.Value{}, map[string]bool{}
	for i := range o.Len() {
		was[o.Index(i).FieldByName("Name").String()] = o.Index(i)
	}
	for i := range n.Len() {
		is[n.Index(i).FieldByName("Name").String()] = true
	}
	effect := ""
	if kind == "sync group" {
		effect = "its instances change state together from now on, or no longer"
	}
	for i := range o.Len() {
		if name := o.Index(i).FieldByName("Name").String(); !is[name] {
			c.add(status.Removed, kind, name, effect, false)
		}
	}
	for i := range n.Len() {
		name := n.Index(i).FieldByName("Name").String()
		before, known := was[name]
		if !known {
			c.add(status.Added, kind, name, effect, false)
		} else if keys := differences(before.Interface(), n.Index(i).Interface()); len(keys) > 0 {
			c.list = append(c.list, status.Change{Op: status.Changed, Kind: kind, Name: name, Keys: keys, Effect: effect})
		}
	}
}

// services compares them by name; one that only has another name, by its address.
func (c *comparison) services() {
	was := byName(c.old.Services, func(s *config.Service) string { return s.Name })
	is := byName(c.now.Services, func(s *config.Service) string { return s.Name })
	before := byName(c.old.Services, (*config.Service).Key)
	after := byName(c.now.Services, (*config.Service).Key)
	for n := range c.old.Services {
		s := &c.old.Services[n]
		if successor := after[s.Key()]; is[s.Name] == nil && (successor == nil || was[successor.Name] != nil) {
			c.add(status.Removed, "service", s.Name, fmt.Sprintf("flows of %s end: nothing forwards %s any more", s.Name, s.Key()), true)
		}
	}
	for n := range c.now.Services {
		s := &c.now.Services[n]
		o := was[s.Name]
		if renamed := before[s.Key()]; o == nil && renamed != nil && is[renamed.Name] == nil {
			o = renamed
		}
		if o == nil {
			c.add(status.Added, "service", s.Name, "", false)
			continue
		}
		c.service(o, s)
	}
}

func (c *comparison) service(o, s *config.Service) {
	if o != s && reflect.DeepEqual(o, s) {
		return
	}
	var keys []status.KeyChange
	was, is := identity(*o), identity(*s)
	for n, key := range identityKeys() {
		if was[n] != is[n] {
			keys = append(keys, status.KeyChange{Key: key, Old: was[n], New: is[n]})
		}
	}
	moved := len(keys) > 0
	keys = append(keys, differences(*o, *s)...)
	if o.RefuseUnknown != s.RefuseUnknown {
		keys = append(keys, status.KeyChange{Key: "unknown", Old: unknown(*o), New: unknown(*s)})
	}
	if len(keys) > 0 {
		change := status.Change{Op: status.Changed, Kind: "service", Name: s.Name, Keys: keys}
		change.Effect, change.Interrupts = c.serviceEffect(o, s, moved)
		c.list = append(c.list, change)
	}
	c.check(s.Name, o.Check, s.Check)
	c.realServers(o, s)
}

func unknown(s config.Service) string {
	if s.RefuseUnknown {
		return "refuse"
	}
	return "maglev"
}

// serviceEffect is what follows from other keys of a service.
func (c *comparison) serviceEffect(o, s *config.Service, moved bool) (effect string, interrupts bool) {
	switch {
	case moved:
		return fmt.Sprintf("flows of %s end: nothing forwards %s any more, and %s begins without any", o.Name, o.Key(), s.Key()), true
	case o.Forwarding != s.Forwarding:
		return "flows of " + s.Name + " end: they don't go along to another way of forwarding", true
	case !slices.Equal(o.Limits.Allow, s.Limits.Allow) || !slices.Equal(o.Limits.Deny, s.Limits.Deny):
		return "clients that are denied now are cut off in the middle", true
	case o.Name != s.Name:
		return "drains and weights that an operator has set under the old name are forgotten", false
	case o.Scheduler != s.Scheduler && planeOf(*s, c.here.plane) == lb.IPVS:
		return "for a moment, new connections to " + s.Name + " are refused: the kernel takes the old scheduler out of IPVS before it puts in the new one", true
	case o.Scheduler != s.Scheduler, o.Persistence != s.Persistence, o.PersistenceBits != s.PersistenceBits, o.Group != s.Group:
		return "new flows only: those that are known stay where they are", false
	case o.Quorum != s.Quorum, o.Hysteresis != s.Hysteresis:
		return "the service may lose its quorum by this, or have it again", false
	}
	return "", false
}

// check compares those of a service, or of one real server with a check of its own.
func (c *comparison) check(name string, o, s *health.Check) {
	const kept = "real servers count as they do now until the first result"
	switch {
	case o == nil && s == nil:
	case o == nil:
		c.add(status.Added, "check", name, kept, false)
	case s == nil:
		c.add(status.Removed, "check", name, "real servers count as up from now on, also those that are down", false)
	default:
		if keys := differences(*o, *s); len(keys) > 0 {
			c.list = append(c.list, status.Change{Op: status.Changed, Kind: "check", Name: name, Keys: keys, Effect: kept})
		}
	}
}

func (c *comparison) realServers(o, s *config.Service) {
	if slices.Equal(o.RealServers, s.RealServers) {
		return // the very same checks, too
	}
	address := func(r *config.RealServer) netip.Addr { return r.Address }
	was, is := byName(o.RealServers, address), byName(s.RealServers, address)
	for n := range o.RealServers {
		if r := &o.RealServers[n]; is[r.Address] == nil {
			name := serverName(s.Name, r.Address)
			c.add(status.Removed, "real server", name, "flows of "+name+" are scheduled afresh", true)
		}
	}
	for n := range s.RealServers {
		r := &s.RealServers[n]
		name := serverName(s.Name, r.Address)
		before := was[r.Address]
		if before == nil {
			c.add(status.Added, "real server", name, "", false)
			continue
		}
		like := *before
		if like.Port == o.Port && r.Port == s.Port {
			like.Port = r.Port // that is the service's
		}
		if keys := differences(like, *r); len(keys) > 0 {
			change := status.Change{Op: status.Changed, Kind: "real server", Name: name, Keys: keys}
			switch {
			case before.Port != r.Port && s.Forwarding == lb.NAT:
				change.Effect, change.Interrupts = "flows of "+name+" are scheduled afresh", true
			case before.Weight > 0 && r.Weight == 0:
				change.Effect = "it gets no new flows; those that it has go on"
			}
			c.list = append(c.list, change)
		}
		if mine, own := ownCheck(o, before), ownCheck(s, r); mine != nil || own != nil {
			c.check(name, mine, own)
		}
	}
}

// ownCheck is the check of a real server that isn't the service's; nil: it has none of its own.
func ownCheck(s *config.Service, r *config.RealServer) *health.Check {
	if r.Check == s.Check {
		return nil
	}
	return r.Check
}

// topLevel is the kind of a change of a key that is below no other one.
const topLevel = "top level"

// top compares the rest of the file, by its top-level keys.
func (c *comparison) top() {
	old, now := *c.old, *c.now
	if !needsPlane(&old) || !needsPlane(&now) {
		// Interfaces and mode of a plane that isn't there, or is made anew, may be any.
		old.Dataplane.Interfaces, now.Dataplane.Interfaces = nil, nil
	}
	var order []string
	by := map[string][]status.KeyChange{}
	for _, k := range differences(old, now) {
		kind, key, below := strings.Cut(k.Key, ".")
		if !below {
			kind, key = topLevel, k.Key
		}
		if by[kind] == nil {
			order = append(order, kind)
		}
		k.Key = key
		by[kind] = append(by[kind], k)
	}
	for _, kind := range order {
		c.list = append(c.list, status.Change{Op: status.Changed, Kind: kind, Keys: c.restarts(kind, by[kind])})
	}
	switch had, has := needsPlane(c.old), needsPlane(c.now); {
	case !had && has:
		c.add(status.Added, "dataplane", "", "the first programs are attached; some drivers stop their queues for that, which can cost a MASTER its place: reload the BACKUP first", false)
	case had && !has:
		c.add(status.Removed, "dataplane", "", "nothing is left to forward: the programs are detached", false)
	}
}

// familyKey is of all addresses that an instance advertises.
const familyKey = "virtual_addresses: family"

// restarts marks the keys that only a restart can change: the one list of them, for plan and for reload.
func (c *comparison) restarts(kind string, keys []status.KeyChange) []status.KeyChange {
	fixed := map[string][]string{
		"instance": {"interface", "version", "virtual_router_id", "virtual_mac", familyKey},
		topLevel:   {"state_dir"},
		"control":  {"socket"},
		"metrics":  {"listen"},
		"log":      {"format"},
	}[kind]
	if kind == "dataplane" {
		fixed = []string{"pin_path"}
		if needsPlane(c.old) && needsPlane(c.now) {
			fixed = append(fixed, "mode", "interfaces", "flow_table_size")
		}
	}
	for n := range keys {
		keys[n].Restart = slices.Contains(fixed, keys[n].Key)
	}
	return keys
}

// needsRestart says which of the changes a running director can't do.
func needsRestart(changes []status.Change) error {
	var errs []error
	for _, c := range changes {
		for _, k := range c.Keys {
			if !k.Restart {
				continue
			}
			key := c.Kind + "." + k.Key
			switch c.Kind {
			case "instance":
				key = "vrrp.instances " + c.Name + ": " + k.Key
			case topLevel:
				key = k.Key
			}
			errs = append(errs, fmt.Errorf("%s changes from %s to %s: this needs a restart", key, k.Old, k.New))
		}
	}
	return errors.Join(errs...)
}
