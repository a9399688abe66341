package ipvs

import (
	"fmt"
	"maps"
	"time"

	"github.com/cloudflare/ipvs"
	"github.com/xdirector/xdirector/pkg/lb"
)

// tally makes one ever-growing count of a real server from the kernel's, which starts anew when a real server
// or its service is made again, or when somebody zeroes it.
type tally struct {
	before lb.Traffic // what earlier lives of the kernel's counter had
	last   lb.Traffic // its last reading
}

func (t *tally) observe(now lb.Traffic) {
	// All counters of a real server start anew together, so one that fell tells about the others, even those that
	// have overtaken their last reading since.
	if now.Packets < t.last.Packets || now.Bytes < t.last.Bytes || now.FlowsCreated < t.last.FlowsCreated {
		t.before.Packets += t.last.Packets
		t.before.Bytes += t.last.Bytes
		t.before.FlowsCreated += t.last.FlowsCreated
	}
	t.last = now
}

func (t *tally) total() lb.Traffic {
	return lb.Traffic{
		Packets:      t.before.Packets + t.last.Packets,
		Bytes:        t.before.Bytes + t.last.Bytes,
		FlowsCreated: t.before.FlowsCreated + t.last.FlowsCreated,
		Flows:        t.last.Flows,
		Active:       t.last.Active,
	}
}

// observe notes a reading of all real servers of one of our services.
func (p *Plane) observe(key lb.ServiceKey, destinations []ipvs.DestinationExtended) {
	for _, d := range destinations {
		server := lb.ServerKey{Service: key, Address: d.Address}
		if p.tallies[server] == nil {
			p.tallies[server] = &tally{}
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
	}
}

// Counters reads what was forwarded to the real servers of the last wish, also to those that are out of the kernel
// because they are down. Counts include those of earlier runs, as long as the service lived on in the kernel. The kernel
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
