package xdp

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/xdirector/xdirector/pkg/lb"
)

// wish is an lb.State in terms of the maps, before ids are given.
type wish struct {
	services []wishedService
	facts    map[boxFact]struct{}
	routers  []wishedRouter
}

type wishedService struct {
	lb.Service               // its RealServers with the next hops that are really used
	schedule, fallback []int // indexes into RealServers, see lb.Schedule and lb.Unscheduled
}

// boxFact is a xdirectorBoxFact whose service has no id yet.
type boxFact struct {
	mac     lb.MAC
	kind    xdirectorBoxFactKind
	value   xdirectorAddress
	service lb.ServiceKey // with BOX_NEXT_HOP
}

// newWish checks a State and completes it: a next hop that is not known now stays the one that the tables know, and
// one over an interface without an address of its own can't be used.
func newWish(s lb.State, t *tables, exits map[int]exit) (*wish, error) {
	w := &wish{facts: map[boxFact]struct{}{}}
	seen := map[lb.ServiceKey]bool{}
	for _, service := range s.Services {
		if service.Key.Protocol != lb.TCP && service.Key.Protocol != lb.UDP {
			return nil, fmt.Errorf("service %s: the XDP plane balances tcp and udp only", service.Key)
		}
		if seen[service.Key] {
			return nil, fmt.Errorf("service %s: it is there twice", service.Key)
		}
		seen[service.Key] = true
		wished, err := newWishedService(service, t, exits)
		if err != nil {
			return nil, err
		}
		w.services = append(w.services, wished)
		w.noteNextHops(wished)
	}
	for _, d := range s.Directors {
		if d.MAC.IsZero() {
			continue
		}
		w.noteBox(d.MAC, boxFact{kind: xdirectorBoxFactKindBOX_DIRECTOR})
		if d.Address.IsValid() {
			w.noteAddress(d.MAC, d.Address)
		}
	}
	return w, nil
}

func newWishedService(service lb.Service, t *tables, exits map[int]exit) (wishedService, error) {
	servers := slices.Clone(service.RealServers)
	seen := map[netip.Addr]bool{}
	for i := range servers {
		r := &servers[i]
		if r.Address.Is4() != service.Key.Address.Is4() {
			return wishedService{}, fmt.Errorf("service %s, real server %s: they are of different families", service.Key, r.Address)
		}
		if seen[r.Address] {
			return wishedService{}, fmt.Errorf("service %s, real server %s: it is there twice", service.Key, r.Address)
		}
		seen[r.Address] = true
		r.NextHop = usableHop(r.NextHop, t.servers[lb.ServerKey{Service: service.Key, Address: r.Address}], exits)
	}
	service.RealServers = servers
	wished := wishedService{Service: service}
	wished.schedule, wished.fallback = scheduleOf(service, t.services[service.Key])
	return wished, nil
}

// scheduleOf makes no schedule anew that it has made before.
func scheduleOf(service lb.Service, entry *serviceEntry) (schedule, fallback []int) {
	switch {
	case entry == nil:
		return lb.Schedule(service), lb.Unscheduled(service)
	case !lb.SameSchedule(entry.of, service):
		entry.of, entry.schedule, entry.fallback = service, lb.Schedule(service), lb.Unscheduled(service)
	}
	return entry.schedule, entry.fallback
}

func usableHop(hop lb.NextHop, entry *serverEntry, exits map[int]exit) lb.NextHop {
	if !hop.Known() && entry != nil && entry.written {
		hop = lb.NextHop{
			Interface: int(entry.value.Device),
			MAC:       entry.value.Destination,
			Local:     entry.value.Flags&serverLocal != 0,
		}
	}
	if _, present := exits[hop.Interface]; !hop.Local && !present {
		return lb.NextHop{}
	}
	return hop
}

func (w *wish) serverKeys() map[lb.ServerKey]bool {
	keys := map[lb.ServerKey]bool{}
	for _, service := range w.services {
		for _, r := range service.RealServers {
			keys[lb.ServerKey{Service: service.Key, Address: r.Address}] = true
		}
	}
	return keys
}

func (w *wish) noteNextHops(service wishedService) {
	for _, r := range service.RealServers {
		if r.NextHop.Local || !r.NextHop.Known() {
			continue
		}
		w.noteBox(r.NextHop.MAC, boxFact{kind: xdirectorBoxFactKindBOX_NEXT_HOP, service: service.Key})
		w.noteAddress(r.NextHop.MAC, r.Address)
	}
}

func (w *wish) noteBox(mac lb.MAC, fact boxFact) {
	fact.mac = mac
	w.facts[fact] = struct{}{}
}

func (w *wish) noteAddress(mac lb.MAC, address netip.Addr) {
	w.facts[boxFact{mac: mac, kind: xdirectorBoxFactKindBOX_ADDRESS, value: wireAddress(address)}] = struct{}{}
}
