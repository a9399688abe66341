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
	d.paths(c)
	d.interfaces(c)
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
		key := lb.ServiceKey{Address: s.Address, Port: s.Port, Protocol: s.Protocol}
		if s.Address.IsValid() && s.Port != 0 && s.Protocol != 0 {
			if other, ok := taken(keys, key, path); ok {
				d.wrongAt(path+".address", "%s is %s already; allowed: one service for each address, port and protocol", key, other)
			}
		}
		if _, ok := held[s.Address]; s.Address.IsValid() && !ok {
			d.warnAt(path+".address", "no instance holds %s; add it to virtual_addresses of one, unless something else brings its packets here", s.Address)
		}
		if d.written(path + ".check") {
			d.checkKeys(path+".check", s.Check)
		}
		d.realServers(path, s, held)
		d.serverLife(path, s, held)
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
		} else if r.Address.IsValid() && r.Address == s.Address {
			d.wrongAt(at+".address", "%s is the address of the service itself; write the real server's own address", r.Address)
		} else if other, ok := held[r.Address]; ok {
			d.warnAt(at+".address", "%s is a virtual address of %s; a real server is reached at its own address", r.Address, other)
		}
		if family, own := d.families[path+".address"], d.families[at+".address"]; family != own && family != 0 && own != 0 {
			d.wrongAt(at+".address", "it is IPv%d, the service's address is IPv%d; allowed: real servers of the service's family", own, family)
		}
		if s.Port != 0 && r.Port != 0 && r.Port != s.Port {
			d.wrongAt(at+".port", "%d is not the service's port; allowed: %d, since direct return can't change ports (check.port sets where a check goes)", r.Port, s.Port)
		}
		if d.written(at + ".check") {
			d.checkKeys(at+".check", r.Check)
		}
		weights[r.Weight] = true
	}
	if weights[0] && len(weights) == 1 {
		d.warnAt(list, "all weights are 0; no real server takes new connections")
	}
	delete(weights, 0)
	if s.Scheduler == lb.RoundRobin && len(weights) > 1 {
		d.warnAt(path+".scheduler", "rr ignores that the weights differ; write wrr to use them")
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
