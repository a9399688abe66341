package ipvs

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/cloudflare/ipvs"
	"github.com/cloudflare/ipvs/netmask"
	"golang.org/x/sys/unix"

	"github.com/xdirector/xdirector/pkg/lb"
)

// step is one change of the kernel.
type step struct {
	service lb.ServiceKey
	text    string       // what it does, for an operator
	creates lb.Scheduler // of the service itself, which is made; empty: it is there already
	run     func(kernel) error
}

func (s step) failed(err error) error {
	cure := ""
	switch {
	case s.creates == "":
	case errors.Is(err, os.ErrNotExist):
		cure = ": the kernel lacks the scheduler's module: modprobe ip_vs_" + string(s.creates)
	case errors.Is(err, unix.EPROTONOSUPPORT):
		cure = fmt.Sprintf(": this kernel was built without IPVS for %s (CONFIG_IP_VS_PROTO_%s)", s.service.Protocol, strings.ToUpper(s.service.Protocol.String()))
	}
	return fmt.Errorf("service %s: %s: %w%s", s.service, s.text, err, cure)
}

// plan returns the changes that turn what was found into the wish. A service that has a real server for new flows
// before and after has one all the time. Of the services that are found only ours are deleted.
func plan(found snapshot, wish []lb.Service, ours map[lb.ServiceKey]bool) []step {
	var steps []step
	wanted := map[lb.ServiceKey]bool{}
	for _, s := range wish {
		wanted[s.Key] = true
		steps = append(steps, planService(found, s)...)
	}
	for key, s := range found.services {
		if ours[key] && !wanted[key] {
			steps = append(steps, step{service: key, text: "delete service", run: func(k kernel) error { return k.RemoveService(s.Service) }})
		}
	}
	return steps
}

func planService(found snapshot, s lb.Service) []step {
	var steps, last []step
	add := func(steps *[]step, text string, run func(kernel) error) {
		*steps = append(*steps, step{service: s.Key, text: text, run: run})
	}
	want := kernelService(s)
	have, exists := found.services[s.Key]
	switch {
	case !exists:
		steps = append(steps, step{
			service: s.Key,
			text:    fmt.Sprintf("create service with scheduler %s", s.Scheduler),
			creates: s.Scheduler,
			run:     func(k kernel) error { return k.CreateService(want) },
		})
	case !sameService(have.Service, want):
		add(&steps, fmt.Sprintf("set scheduler %s, persistence %s", s.Scheduler, s.Persistence), func(k kernel) error { return k.UpdateService(want) })
	}

	old := map[netip.AddrPort]ipvs.Destination{}
	for _, d := range have.destinations {
		old[netip.AddrPortFrom(d.Address, d.Port)] = d.Destination
	}
	// The kernel puts a new real server in front of the others: the last one first gives the order of lb.Schedule.
	for _, r := range slices.Backward(s.RealServers) {
		if !r.Up || s.Forwarding == lb.Direct && !r.NextHop.Known() { // else the kernel's routes lead there
			continue
		}
		d := kernelDestination(s, r)
		place := netip.AddrPortFrom(d.Address, d.Port)
		have, exists := old[place]
		delete(old, place)
		switch {
		case !exists:
			add(&steps, fmt.Sprintf("add real server %s with weight %d", d.Address, d.Weight), func(k kernel) error { return k.CreateDestination(want, d) })
		case !sameDestination(have, d):
			list := &steps
			if d.Weight == 0 {
				list = &last // after another one may have got a weight
			}
			add(list, fmt.Sprintf("set real server %s to weight %d, %s, at most %d connections", d.Address, d.Weight, d.FwdMethod, d.UpperThreshold), func(k kernel) error { return k.UpdateDestination(want, d) })
		}
	}
	for place, d := range old {
		add(&last, fmt.Sprintf("remove real server %s", place), func(k kernel) error { return k.RemoveDestination(want, d) })
	}
	return append(steps, last...)
}

// kernelService is a service in the kernel's words. One of a firewall mark has no address, port and protocol there.
func kernelService(s lb.Service) ipvs.Service {
	k := ipvs.Service{
		Family:    family(s.Key.Address),
		FWMark:    s.Key.Mark,
		Scheduler: string(s.Scheduler),
	}
	if s.Key.Mark == 0 {
		k.Address, k.Port, k.Protocol = s.Key.Address, s.Key.Port, ipvs.Protocol(s.Key.Protocol)
	}
	bits := int(s.PersistenceBits)
	if bits == 0 {
		bits = s.Key.Address.BitLen()
	}
	k.Netmask = netmask.MaskFrom(bits, s.Key.Address.BitLen())
	if s.Persistence > 0 {
		k.Flags = ipvs.ServicePersistent
		k.Timeout = uint32(s.Persistence / time.Second)
	}
	return k
}

// methods are the ways of forwarding in the kernel's words.
var methods = map[lb.Forwarding]ipvs.ForwardType{lb.Direct: ipvs.DirectRoute, lb.NAT: ipvs.Masquerade, lb.Tunnel: ipvs.Tunnel}

func kernelDestination(s lb.Service, r lb.RealServer) ipvs.Destination {
	port := s.Key.Port // only NAT can change it
	if s.Forwarding == lb.NAT {
		port = r.Port
	}
	return ipvs.Destination{
		Address:   r.Address,
		Port:      port,
		Family:    family(r.Address),
		FwdMethod: methods[s.Forwarding],
		Weight:    uint32(r.Weight),
		// Without the second one a server that was full waits until a quarter of its connections has ended.
		UpperThreshold: r.MaxConnections,
		LowerThreshold: r.MaxConnections,
	}
}

func family(a netip.Addr) ipvs.AddressFamily {
	if a.Is4() {
		return ipvs.INET
	}
	return ipvs.INET6
}

// sameService compares what we set; the kernel keeps a flag of its own among them.
func sameService(have, want ipvs.Service) bool {
	have.Flags &^= ipvs.ServiceHashed
	return have == want
}

// sameDestination compares what we set and what would change the forwarding.
func sameDestination(have, want ipvs.Destination) bool {
	return have.FwdMethod == want.FwdMethod && have.Weight == want.Weight &&
		have.UpperThreshold == want.UpperThreshold && have.LowerThreshold == want.LowerThreshold
}
