package xdp

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/xdirector/xdirector/pkg/lb"
)

// wish is an lb.State in terms of the maps, before ids are given.
type wish struct {
	services []wishedService
	facts    map[boxFact]struct{}
	routers  []wishedRouter
}

type wishedService struct {
	key         lb.ServiceKey
	persistence uint32
	flags       uint32
	servers     []lb.RealServer // with the next hops that are really used
	ring        []int           // indexes into servers
}

// boxFact is a xdirectorBoxFact whose service has no id yet.
type boxFact struct {
	mac     lb.MAC
	kind    xdirectorBoxFactKind
	value   uint32
	service lb.ServiceKey // with BOX_NEXT_HOP
}

// newWish checks a State and completes it: a next hop that is not known now stays the one that the tables know, and
// one over an interface without an address of its own can't be used.
func newWish(s lb.State, t *tables, macs map[int]lb.MAC) (*wish, error) {
	w := &wish{facts: map[boxFact]struct{}{}}
	seen := map[lb.ServiceKey]bool{}
	for _, service := range s.Services {
		if !service.Key.Address.Is4() {
			return nil, fmt.Errorf("service %s: the XDP plane balances IPv4 only", service.Key)
		}
		if service.Key.Protocol != lb.TCP && service.Key.Protocol != lb.UDP {
			return nil, fmt.Errorf("service %s: the XDP plane balances tcp and udp only", service.Key)
		}
		if seen[service.Key] {
			return nil, fmt.Errorf("service %s: it is there twice", service.Key)
		}
		seen[service.Key] = true
		wished, err := newWishedService(service, t, macs)
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
		if d.Address.Is4() {
			w.noteAddress(d.MAC, d.Address)
		}
	}
	return w, nil
}

func newWishedService(service lb.Service, t *tables, macs map[int]lb.MAC) (wishedService, error) {
	wished := wishedService{key: service.Key, persistence: uint32(service.Persistence / time.Second)}
	seen := map[netip.Addr]bool{}
	for _, r := range service.RealServers {
		if !r.Address.Is4() {
			return wished, fmt.Errorf("service %s, real server %s: the XDP plane balances IPv4 only", service.Key, r.Address)
		}
		if seen[r.Address] {
			return wished, fmt.Errorf("service %s, real server %s: it is there twice", service.Key, r.Address)
		}
		seen[r.Address] = true
		r.NextHop = usableHop(r.NextHop, t.servers[lb.ServerKey{Service: service.Key, Address: r.Address}], macs)
		wished.servers = append(wished.servers, r)
	}
	service.RealServers = wished.servers
	wished.ring = scheduleOf(service, t.services[service.Key])
	if service.Scheduler.Hashes() {
		wished.flags = uint32(xdirectorServiceFlagSERVICE_HASHES)
	}
	return wished, nil
}

// scheduleOf makes no schedule anew that it has made before.
func scheduleOf(service lb.Service, entry *serviceEntry) []int {
	switch {
	case entry == nil:
		return lb.Schedule(service)
	case !lb.SameSchedule(entry.of, service):
		entry.of, entry.schedule = service, lb.Schedule(service)
	}
	return entry.schedule
}

func usableHop(hop lb.NextHop, entry *serverEntry, macs map[int]lb.MAC) lb.NextHop {
	if !hop.Known() && entry != nil && entry.written {
		hop = lb.NextHop{
			Interface: int(entry.value.Interface),
			MAC:       entry.value.Destination,
			Local:     entry.value.Flags&serverLocal != 0,
		}
	}
	if _, present := macs[hop.Interface]; !hop.Local && !present {
		return lb.NextHop{}
	}
	return hop
}

func (w *wish) serverKeys() map[lb.ServerKey]bool {
	keys := map[lb.ServerKey]bool{}
	for _, service := range w.services {
		for _, r := range service.servers {
			keys[lb.ServerKey{Service: service.key, Address: r.Address}] = true
		}
	}
	return keys
}

func (w *wish) noteNextHops(service wishedService) {
	for _, r := range service.servers {
		if r.NextHop.Local || !r.NextHop.Known() {
			continue
		}
		w.noteBox(r.NextHop.MAC, boxFact{kind: xdirectorBoxFactKindBOX_NEXT_HOP, service: service.key})
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
