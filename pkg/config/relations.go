package config

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/xdirector/xdirector/pkg/health"
	"github.com/xdirector/xdirector/pkg/lb"
)

// relations checks what must hold between the values of c. A zero value was already reported, and is passed over.
func (d *decoder) relations(c *Config) {
	wrong := d.reported("") || d.reported("vrrp") || d.reported("vrrp.instances") || d.reported("services")
	if len(c.Instances) == 0 && len(c.Services) == 0 && !wrong {
		d.wrongAt("", "neither vrrp.instances nor services; write at least one of them")
	}
	held := d.instances(c.Instances)
	d.syncGroups(c)
	d.tracking(c)
	d.fastPath(c)
	d.services(c.Services, held)
	d.overlaps(c)
	d.planes(c)
	d.paths(c)
	d.interfaces(c)
	d.notifyNames(c)
}

// taken keeps the first owner of every key; it returns the owner and true when there is one already.
func taken[K comparable](owners map[K]string, key K, owner string) (string, bool) {
	var zero K
	if key == zero {
		return "", false
	}
	if first, ok := owners[key]; ok {
		return first, true
	}
	owners[key] = owner
	return "", false
}

func (d *decoder) services(services []Service, held map[netip.Addr]string) {
	names, keys := map[string]string{}, map[lb.ServiceKey]string{}
	for n, s := range services {
		path := fmt.Sprintf("services[%d]", n)
		if other, ok := taken(names, s.Name, path); ok {
			d.wrongAt(path+".name", "%s is the name of %s too; every service needs its own", quote(s.Name), other)
		}
		if d.identified(path, s) {
			key := s.Key()
			if other, ok := taken(keys, key, path); ok {
				d.wrongAt(path+"."+d.identity(path), "%s is %s already; allowed: one service for each address, port and protocol, or firewall mark", key, other)
			}
		}
		if _, ok := held[s.Address]; s.Address.IsValid() && s.Bits == 0 && !ok {
			d.warnAt(path+".address", "no instance holds %s; add it to virtual_addresses of one, unless something else brings its packets here", s.Address)
		}
		d.markAlone(path, s)
		d.persistence(path, s)
		d.flowKeys(path, s)
		d.clientLimits(path, s)
		if d.written(path + ".check") {
			d.checkKeys(path+".check", s.Check)
		}
		d.realServers(path, s, held)
		d.serverLife(path, s, held)
	}
	d.groups(services)
}

// identity is the key of a service that says which packets are its own.
func (d *decoder) identity(path string) string {
	if d.written(path + ".firewall_mark") {
		return "firewall_mark"
	}
	return "address"
}

// identified says whether all that makes a service's key was read without a problem.
func (d *decoder) identified(path string, s Service) bool {
	if d.identity(path) == "firewall_mark" {
		return s.FirewallMark != 0 && len(s.RealServers) > 0 && s.RealServers[0].Address.IsValid()
	}
	return s.Address.IsValid() && d.written(path+".port") && !d.reported(path+".port") && s.Protocol != 0
}

// markAlone reports what a service by firewall mark can't have.
func (d *decoder) markAlone(path string, s Service) {
	if d.identity(path) != "firewall_mark" {
		return
	}
	for _, key := range []string{"address", "port", "protocol"} {
		if at := path + "." + key; d.written(at) {
			d.wrongAt(at, "the packets of this service are told by their firewall_mark; leave %s out, and match it in the rule that sets the mark", key)
		}
	}
}

// persistence checks how clients are bound.
func (d *decoder) persistence(path string, s Service) {
	at := path + ".persistence.prefix"
	bits := 32
	if d.serviceFamily(path, s) == 6 {
		bits = 128
	}
	if d.written(at) && !d.reported(at) && int(s.PersistenceBits) > bits {
		d.wrongAt(at, "%d is out of range; allowed: 1 to %d, the bits of a client's address", s.PersistenceBits, bits)
	}
}

// serviceFamily is 4 or 6, or 0 if it is not known.
func (d *decoder) serviceFamily(path string, s Service) int {
	if family := d.families[path+".address"]; family != 0 || s.FirewallMark == 0 {
		return family
	}
	return d.families[path+".real_servers[0].address"]
}

// flowKeys reports keys that have no meaning for the protocol of the service.
func (d *decoder) flowKeys(path string, s Service) {
	only := func(key string, p lb.Protocol) {
		if at := path + "." + key; d.written(at) && s.Protocol != 0 && s.Protocol != p {
			d.wrongAt(at, "a service of protocol %s has no %s; leave it out; allowed with: %s", s.Protocol, key, p)
		}
	}
	if s.FirewallMark != 0 || s.Protocol == lb.SCTP {
		return // only IPVS can serve those, so planes says more
	}
	for _, key := range []string{"timeouts.syn", "timeouts.established", "timeouts.closing", "unknown"} {
		only(key, lb.TCP)
	}
	only("timeouts.udp", lb.UDP)
}

// groups checks that services which share their clients bind them in the same way.
func (d *decoder) groups(services []Service) {
	first := map[string]int{}
	for n, s := range services {
		if s.Group == "" {
			continue
		}
		at := fmt.Sprintf("services[%d].persistence.group", n)
		f, ok := first[s.Group]
		if !ok {
			first[s.Group] = n
			continue
		}
		o := services[f]
		for _, differs := range []struct {
			what string
			is   bool
		}{
			{"persistence.timeout", s.Persistence != o.Persistence && s.Persistence != 0 && o.Persistence != 0},
			{"persistence.prefix", s.PersistenceBits != o.PersistenceBits},
			{"family", s.Address.IsValid() && o.Address.IsValid() && s.Address.Is4() != o.Address.Is4()},
		} {
			if differs.is {
				d.wrongAt(at, "the %s of this service is not that of services[%d], which is in group %s too; make them equal, or leave one out of it", differs.what, f, quote(s.Group))
			}
		}
	}
}

func (d *decoder) realServers(path string, s Service, held map[netip.Addr]string) {
	list := path + ".real_servers"
	if len(s.RealServers) == 0 && d.written(list) && !d.reported(list) {
		d.wrongAt(list, "the list is empty; a service needs at least one real server, like {address: 192.168.5.103}")
	}
	addresses := map[netip.Addr]string{}
	weights := map[uint16]bool{}
	for n, r := range s.RealServers {
		at := fmt.Sprintf("%s[%d]", list, n)
		if first, ok := taken(addresses, r.Address, at); ok {
			d.wrongAt(at+".address", "%s is in the service twice, first as %s; write it once", r.Address, first)
		} else if r.Address.IsValid() && s.Address.IsValid() && s.Key().Prefix().Contains(r.Address) {
			d.wrongAt(at+".address", "%s is an address of the service itself; write the real server's own address", r.Address)
		} else if other, ok := held[r.Address]; ok {
			d.warnAt(at+".address", "%s is a virtual address of %s; a real server is reached at its own address", r.Address, other)
		}
		if family, own := d.serviceFamily(path, s), d.families[at+".address"]; family != own && family != 0 && own != 0 {
			d.wrongAt(at+".address", "it is IPv%d, the service's address is IPv%d; allowed: real servers of the service's family", own, family)
		}
		d.realPort(path, at, s, r)
		if d.written(at + ".check") {
			d.checkKeys(at+".check", r.Check)
		}
		weights[r.Weight] = true
	}
	if weights[0] && len(weights) == 1 {
		d.warnAt(list, "all weights are 0; no real server takes new connections")
	}
	delete(weights, 0)
	if s.Scheduler.IgnoresWeights() && len(weights) > 1 {
		d.warnAt(path+".scheduler", "%s ignores that the weights differ; write w%[1]s to use them", s.Scheduler)
	}
}

// realPort checks the port of a real server, and that a check knows where to go.
func (d *decoder) realPort(path, at string, s Service, r RealServer) {
	single := s.FirewallMark == 0 && s.Port != 0 && s.LastPort == 0
	switch {
	case !d.written(at+".port") || d.reported(path+".port") || d.reported(at+".port"):
	case s.Forwarding == lb.NAT && (single || s.FirewallMark != 0):
	case s.Forwarding == lb.NAT:
		d.wrongAt(at+".port", "a service with more than one port has no port that %d could stand for; leave it out: the packet's own stays", r.Port)
	case s.FirewallMark != 0:
		d.wrongAt(at+".port", "leave it out: only forwarding: nat changes ports (check.port sets where a check goes)")
	case !single:
		d.wrongAt(at+".port", "leave it out: a packet keeps its port, since only forwarding: nat changes ports (check.port sets where a check goes)")
	case r.Port != s.Port:
		d.wrongAt(at+".port", "%d is not the service's port; allowed: %d, since only forwarding: nat changes ports (check.port sets where a check goes)", r.Port, s.Port)
	}
	if r.Check == nil || r.Check.Port != 0 || r.Port != 0 || r.Check.Kind == "" || r.Check.Kind == health.ICMP || d.reported(path+".port") || !d.identified(path, s) {
		return
	}
	check := at + ".check"
	if !d.written(check) {
		check = path + ".check"
	}
	if key := check + ".port"; !d.reported(key) {
		d.wrongAt(key, "missing; write the port of the check, since the service has no single one")
	}
}

// checkKeys reports keys that have no meaning for the kind of the check.
func (d *decoder) checkKeys(path string, c *health.Check) {
	if c.Kind == "" {
		return
	}
	only := func(key string, kinds ...health.Kind) {
		names := make([]string, len(kinds))
		for i, k := range kinds {
			if k == c.Kind {
				return
			}
			names[i] = string(k)
		}
		if at := path + "." + key; d.written(at) && !d.reported(at) {
			d.wrongAt(at, "a check of type %s has no %s; leave it out, or change the type; allowed with: %s", c.Kind, key, strings.Join(names, ", "))
		}
	}
	only("port", health.TCP, health.HTTP, health.HTTPS)
	for _, key := range []string{"method", "path", "host", "status", "body"} {
		only(key, health.HTTP, health.HTTPS)
	}
	only("insecure", health.HTTPS)
	if c.Method == "HEAD" && c.Body != "" {
		d.wrongAt(path+".body", "an answer to HEAD has no body to look at; leave it out, or write method: GET")
	}
}

// paths reports files that would have to lie on the bpffs, which holds no files and no sockets.
func (d *decoder) paths(c *Config) {
	for _, p := range []struct{ key, path string }{{"state_dir", c.StateDir}, {"control.socket", c.Control.Socket}} {
		pins := c.Dataplane.PinPath
		if p.path != "" && pins != "" && (p.path == pins || strings.HasPrefix(p.path, pins+"/")) {
			at := p.key
			if !d.written(at) {
				at = "dataplane.pin_path"
			}
			d.wrongAt(at, "%s %s would lie on the bpffs of dataplane.pin_path %s, which holds nothing but pins; separate them", p.key, quote(p.path), quote(pins))
		}
	}
}

func (d *decoder) interfaces(c *Config) {
	const list = "dataplane.interfaces"
	p := c.Dataplane
	if d.written(list) {
		if len(p.Interfaces) == 0 && !d.reported(list) {
			d.wrongAt(list, "the list is empty; write at least one network interface, or leave it out for those of the instances")
		}
		have := map[string]string{}
		for n, name := range p.Interfaces {
			at := fmt.Sprintf("%s[%d]", list, n)
			if first, ok := taken(have, name, at); ok {
				d.wrongAt(at, "%s is in the list twice, first as %s; write it once", quote(name), first)
			}
		}
		return
	}
	if len(c.Instances) > 0 || len(c.Services) == 0 {
		return
	}
	switch p.Mode {
	case ModeXDPNative, ModeXDPGeneric:
		d.wrongAt("dataplane.mode", "%s needs a network interface, and there is no instance to take it from; write dataplane.interfaces, or mode: ipvs", p.Mode)
	case ModeAuto:
		d.warnAt("services", "there is no instance to take network interfaces from, so the plane will be ipvs; write dataplane.interfaces to use XDP")
	}
}
