package config

import (
	"net/netip"

	"github.com/xdirector/xdirector/pkg/lb"
)

// maxQuorum is above the weight of any real service.
const maxQuorum = 1000000

func (d *decoder) sorryServer(v value) (s SorryServer) {
	d.object(v,
		required("address", into(&s.Address, d.boxAddress), "the sorry server's own address, like 192.168.5.109"),
		optional("port", into(&s.Port, integer[uint16](d, 1, 65535))),
	)
	return s
}

// serverLife checks what a service says of real servers that come and go.
func (d *decoder) serverLife(path string, s Service, held map[netip.Addr]string) {
	if s.SlowStart > 0 && s.Scheduler != "" && !s.Scheduler.Weighs() {
		why := "which ignores weights other than 0"
		if s.Scheduler == lb.SourceHashing {
			why = "where every step would move nearly all clients"
		}
		d.warnAt(path+".slow_start", "it has no effect with %s, %s; write wrr, wlc or mh, or leave it out", s.Scheduler, why)
	}
	weight := 0
	for _, r := range s.RealServers {
		weight += int(r.Weight)
	}
	switch {
	case s.Quorum > 0 && s.Hysteresis >= s.Quorum:
		d.wrongAt(path+".hysteresis", "%d, with a quorum of %d; allowed: 0 to %d", s.Hysteresis, s.Quorum, s.Quorum-1)
	case s.Quorum+s.Hysteresis > max(weight, 1): // without any weight there is another warning
		d.warnAt(path+".quorum", "%d and a hysteresis of %d, but all real servers together have the weight %d: it is never there again once it is lost", s.Quorum, s.Hysteresis, weight)
	}
	d.sorryServerOf(path+".sorry_server", path, s, held)
}

func (d *decoder) sorryServerOf(at, service string, s Service, held map[netip.Addr]string) {
	address := s.SorryServer.Address
	if !address.IsValid() {
		return
	}
	for n, r := range s.RealServers {
		if r.Address == address {
			d.wrongAt(at+".address", "%s is real_servers[%d] already; write another server, which has time when no real server has", address, n)
		}
	}
	if s.Address.IsValid() && s.Key().Prefix().Contains(address) {
		d.wrongAt(at+".address", "%s is an address of the service itself; write the sorry server's own address", address)
	} else if other, ok := held[address]; ok {
		d.warnAt(at+".address", "%s is a virtual address of %s; a sorry server is reached at its own address", address, other)
	}
	if family, own := d.serviceFamily(service, s), d.families[at+".address"]; family != own && family != 0 && own != 0 {
		d.wrongAt(at+".address", "it is IPv%d, the service's address is IPv%d; allowed: a sorry server of the service's family", own, family)
	}
	d.realPort(service, at, s, RealServer{Port: s.SorryServer.Port})
}
