package ipvs

import (
	"fmt"
	"maps"
	"time"

	"github.com/cloudflare/ipvs"
	"github.com/xdirector/xdirector/pkg/lb"
	"github.com/xdirector/xdirector/pkg/statefile"
)

// tally makes one ever-growing count of a real server from the kernel's, which starts anew when a real server
// or its service is made again, or when somebody zeroes it.
type tally struct {
	packets, bytes, flowsCreated *statefile.Counter
	flows, active                uint64
}

// tally returns that of a real server.
func (p *Plane) tally(server lb.ServerKey) *tally {
	if p.counters.Lacking() {
		_ = p.counters.Keep() // until then they are in memory; the director tells that state_dir can't be written
	}
	count := func(what string) *statefile.Counter {
		return p.counters.Counter(what + " " + server.Service.String() + " " + server.Address.String())
	}
	return &tally{packets: count("packets"), bytes: count("bytes"), flowsCreated: count("flows created")}
}

func (t *tally) observe(now lb.Traffic) {
	statefile.Observe([]*statefile.Counter{t.packets, t.bytes, t.flowsCreated}, []uint64{now.Packets, now.Bytes, now.FlowsCreated})
	t.flows, t.active = now.Flows, now.Active
}

func (t *tally) total() lb.Traffic {
	return lb.Traffic{Packets: t.packets.Total(), Bytes: t.bytes.Total(), FlowsCreated: t.flowsCreated.Total(), Flows: t.flows, Active: t.active}
}

// observe notes a reading of all real servers of one of our services.
func (p *Plane) observe(key lb.ServiceKey, destinations []ipvs.DestinationExtended) {
	for _, d := range destinations {
		server := lb.ServerKey{Service: key, Address: d.Address}
		if p.tallies[server] == nil {
			p.tallies[server] = p.tally(server)
		}
		p.tallies[server].observe(lb.Traffic{
			Packets:      d.Stats64.IncomingPackets,
			Bytes:        d.Stats64.IncomingBytes,
			FlowsCreated: d.Stats64.Connections,
			// Inactive ones too: they haven't timed out, and all of UDP is inactive to IPVS.
			Flows:  uint64(d.ActiveConnections) + uint64(d.InactiveConnections),
			Active: uint64(d.ActiveConnections),
		})
	}
}

// tallySpare is how many real servers that are no longer wished are remembered: one that comes back goes on counting.
const tallySpare = 1024

// forget drops the counts of real servers that are no longer wished when there are very many: years of changes must not
// fill the memory.
func (p *Plane) forget() {
	wished := map[lb.ServerKey]bool{}
	for _, s := range p.wish {
		for _, r := range s.RealServers {
			wished[lb.ServerKey{Service: s.Key, Address: r.Address}] = true
		}
	}
	if len(p.tallies) > len(wished)+tallySpare {
		maps.DeleteFunc(p.tallies, func(server lb.ServerKey, _ *tally) bool { return !wished[server] })
		p.counters.Begin()
		for server := range p.tallies {
			p.tally(server)
		}
		p.counters.Sweep()
	}
}

// Counters reads what was forwarded to the real servers of the last wish, also to those that are out of the kernel
// because they are down. Counts include those of earlier runs of this boot. The kernel
// renews the numbers of packets, bytes and flows created every two seconds.
func (p *Plane) Counters() (lb.Counters, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	began := time.Now()
	if _, err := p.read(); err != nil {
		return lb.Counters{}, fmt.Errorf("read ipvs counters: %w", err)
	}
	counters := lb.Counters{FlowsAt: began, RealServers: map[lb.ServerKey]lb.Traffic{}}
	for _, s := range p.wish {
		for _, r := range s.RealServers {
			key := lb.ServerKey{Service: s.Key, Address: r.Address}
			if t := p.tallies[key]; t != nil {
				counters.RealServers[key] = t.total()
			}
		}
	}
	return counters, nil
}
