package status

import (
	"net"
	"strconv"
	"time"
)

// Rate is what a service, or one real server, gets at the moment.
type Rate struct {
	Name     string  `json:"name"`     // of the service, or the address of the real server
	Endpoint string  `json:"endpoint"` // where packets come to: 192.168.5.100:80
	Sorry    bool    `json:"sorry_server,omitempty"`
	Packets  float64 `json:"packets_per_second"`
	Bytes    float64 `json:"bytes_per_second"`
	NewFlows float64 `json:"new_flows_per_second"`
	Flows    uint64  `json:"flows"`
	Active   uint64  `json:"active"` // flows that are not closing; of a sorry server not counted
}

func (r *Rate) add(o Rate) {
	r.Packets += o.Packets
	r.Bytes += o.Bytes
	r.NewFlows += o.NewFlows
	r.Flows += o.Flows
	r.Active += o.Active
}

// ServiceRate is the sum of a service, and what it is made of.
type ServiceRate struct {
	Rate
	RealServers []Rate `json:"real_servers"`
}

// Label names a real server in a table.
func (r Rate) Label() string {
	if r.Sorry {
		return plain(r.Endpoint) + " (sorry server)"
	}
	return plain(r.Endpoint)
}

// Label names the service in a table.
func (r ServiceRate) Label() string { return plain(r.Name + " " + r.Endpoint) }

// Rates are those between two pictures, in the order of the later one, and their sum. A counter that is lower than before began
// anew, and what it has is from this span; of what was not there before nothing is known yet. ok is false if the counters
// of both pictures were read at the same time, or in the other order: then there is no span.
func Rates(before, after *Status) (list []ServiceRate, all Rate, ok bool) {
	span := after.Measured.Sub(before.Measured)
	if span <= 0 || before.Measured.IsZero() {
		return nil, Rate{}, false
	}
	all.Name = "all"
	was := byName(before.Services)
	for i := range after.Services {
		v := &after.Services[i]
		counted := map[string]traffic{}
		if b := was[v.Name]; b != nil {
			for n := range b.RealServers {
				counted[b.RealServers[n].Address] = b.RealServers[n].traffic()
			}
			if s := b.SorryServer; s != nil {
				counted[s.key()] = s.traffic()
			}
		}
		one := ServiceRate{Rate: Rate{Name: v.Name, Endpoint: v.Endpoint()}, RealServers: []Rate{}}
		add := func(key string, now traffic, r Rate) {
			if b, known := counted[key]; known {
				r.Packets, r.Bytes, r.NewFlows = now.since(b, span)
			}
			one.RealServers = append(one.RealServers, r)
			one.add(r)
		}
		for n := range v.RealServers {
			r := &v.RealServers[n]
			add(r.Address, r.traffic(), Rate{Name: r.Address, Endpoint: r.Endpoint(), Flows: r.Flows, Active: r.Active})
		}
		if s := v.SorryServer; s != nil {
			add(s.key(), s.traffic(), Rate{Name: s.Address, Endpoint: net.JoinHostPort(s.Address, strconv.Itoa(int(s.Port))), Sorry: true, Flows: s.Flows})
		}
		list = append(list, one)
		all.add(one.Rate)
	}
	return list, all, true
}

// traffic is what only rises.
type traffic struct{ packets, bytes, flows uint64 }

func (r *RealServer) traffic() traffic  { return traffic{r.Packets, r.Bytes, r.FlowsCreated} }
func (s *SorryServer) traffic() traffic { return traffic{s.Packets, s.Bytes, s.FlowsCreated} }

// key tells a sorry server from a real server with the same address.
func (s *SorryServer) key() string { return "sorry " + s.Address }

func (t traffic) since(b traffic, span time.Duration) (packets, bytes, flows float64) {
	rate := func(before, now uint64) float64 {
		if now < before {
			before = 0
		}
		return float64(now-before) / span.Seconds()
	}
	return rate(b.packets, t.packets), rate(b.bytes, t.bytes), rate(b.flows, t.flows)
}
