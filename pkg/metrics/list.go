package metrics

import (
	"math"
	"runtime"
	"slices"

	dto "github.com/prometheus/client_model/go"

	"github.com/xdirector/xdirector/pkg/status"
)

// The labels that many metrics have.
func ofInstance(more ...string) []string { return append([]string{"instance"}, more...) }
func ofService(more ...string) []string  { return append([]string{"service"}, more...) }
func ofServer(more ...string) []string   { return append([]string{"service", "real_server"}, more...) }

// metrics are all metrics, in the order of the page; docs/metrics.md says what each is for. No value of a label is chosen by
// another box: there are as many samples as the configuration and the box itself have things.
func metrics() []metric {
	var list []metric
	for _, some := range [][]metric{elections(), services(), realServers(), forwarding(), director()} {
		list = append(list, some...)
	}
	return list
}

// elections are the metrics of instances and of the process that runs them.
func elections() []metric {
	perInstance := func(write func(p *page, i *status.Instance, labels pairs)) func(*page) {
		return func(p *page) {
			for _, i := range p.instances {
				write(p, i.of, i.labels)
			}
		}
	}
	ifAny := func(write func(p *page)) func(*page) {
		return func(p *page) {
			if len(p.instances) > 0 {
				write(p)
			}
		}
	}
	return []metric{
		{"vrrp_state", gauge, "State of the VRRP instance: 0 INIT, 1 BACKUP, 2 MASTER, 3 FAULT.", ofInstance(), perInstance(func(p *page, i *status.Instance, labels pairs) {
			for n, state := range states() {
				if i.State == state {
					p.count(uint64(n), labels)
				}
			}
		})},
		// All states from the start: increase() can't see a counter that begins at 1.
		{"vrrp_transitions_total", counter, "Times that the VRRP instance entered the state.", ofInstance("to"), perInstance(func(p *page, i *status.Instance, labels pairs) {
			for _, state := range states() {
				p.count(i.Transitions[state], labels, "to", state)
			}
		})},
		{"vrrp_adverts_sent_total", counter, "VRRP adverts sent.", ofInstance(), perInstance(func(p *page, i *status.Instance, labels pairs) {
			p.count(i.AdvertsSent, labels)
		})},
		{"vrrp_adverts_received_total", counter, "VRRP adverts of other directors that took part in the election.", ofInstance(), perInstance(func(p *page, i *status.Instance, labels pairs) {
			p.count(i.AdvertsReceived, labels)
		})},
		{"vrrp_adverts_refused_total", counter, "VRRP adverts that had no effect, by the reason.", ofInstance("reason"), perInstance(func(p *page, i *status.Instance, labels pairs) {
			p.counts(i.AdvertsRefused, labels, "reason")
		})},
		{"vrrp_adverts_absorbed_total", counter, "VRRP adverts that the XDP program took for what they repeat; they are not among those received.", ofInstance(), perInstance(func(p *page, i *status.Instance, labels pairs) {
			p.count(i.AdvertsAbsorbed, labels)
		})},
		{"vrrp_adverts_filtered_total", counter, "VRRP adverts that the XDP program dropped, by the reason.", ofInstance("reason"), perInstance(func(p *page, i *status.Instance, labels pairs) {
			p.counts(i.AdvertsFiltered, labels, "reason")
		})},
		{"vrrp_adverts_by_checksum_form_total", counter, "Accepted adverts of version 3 over IPv4, by the form of their checksum.", ofInstance("form"), perInstance(func(p *page, i *status.Instance, labels pairs) {
			p.counts(i.AdvertsByForm, labels, "form")
		})},
		{"vrrp_addresses_restored_total", counter, "Virtual addresses of a MASTER that somebody else removed, and that were put back.", ofInstance(), perInstance(func(p *page, i *status.Instance, labels pairs) {
			p.count(i.AddressesRestored, labels)
		})},
		{"vrrp_mismatch", gauge, "Other boxes on the same virtual router that differ from this one in this, or are MASTER too (split_brain).", ofInstance("kind"), perInstance(func(p *page, i *status.Instance, labels pairs) {
			kinds := map[string]uint64{}
			for _, m := range i.Mismatches {
				kinds[m.Kind]++
			}
			p.counts(kinds, labels, "kind")
		})},
		{"vrrp_priority", gauge, "Priority of the VRRP instance in use: the configured one with what is tracked.", ofInstance(), perInstance(func(p *page, i *status.Instance, labels pairs) {
			p.count(uint64(i.Priority), labels)
		})},
		{"vrrp_configured_priority", gauge, "Priority of the VRRP instance as configured.", ofInstance(), perInstance(func(p *page, i *status.Instance, labels pairs) {
			p.count(uint64(i.ConfiguredPriority), labels)
		})},
		{"vrrp_yielding", gauge, "1 while an operator has the VRRP instance leave MASTER to any other director (xdirector failover), else 0.", ofInstance(), perInstance(func(p *page, i *status.Instance, labels pairs) {
			p.truth(i.Yielding, labels)
		})},
		{"vrrp_advert_interval_seconds", gauge, "Advert interval of the VRRP instance as configured.", ofInstance(), perInstance(func(p *page, i *status.Instance, labels pairs) {
			p.float(i.AdvertInterval.Seconds(), labels)
		})},
		{"vrrp_lateness_seconds", histogram, "How late the election was for its own timers.", nil, ifAny(lateness)},
		{"vrrp_fast_path_info", gauge, "Always 1: what the XDP program does with VRRP adverts (off, filter, absorb), and why.", []string{"mode", "reason"}, ifAny(func(p *page) {
			if e := p.status.Election; e.FastPath != "" {
				p.count(1, nil, "mode", e.FastPath, "reason", e.FastPathReason)
			}
		})},
		{"election_restarts_total", counter, "Restarts of the process that runs the elections.", nil, ifAny(func(p *page) { p.count(p.status.Election.Restarts, nil) })},
		{"election_denied", gauge, "Things that the kernel did not permit the election, for example real-time scheduling; status names them.", nil, ifAny(func(p *page) {
			p.count(uint64(len(p.status.Election.Denied)), nil)
		})},
		{"maintenance", gauge, "1 while an operator has taken this box out of all elections, else 0.", nil, ifAny(func(p *page) { p.truth(p.status.Maintenance, nil) })},
	}
}

// states are the names of the VRRP states; their places are the values of vrrp_state.
func states() []string { return []string{"INIT", "BACKUP", "MASTER", "FAULT"} }

// lateness writes the histogram, whose counts are not cumulative in the picture.
func lateness(p *page) {
	e := p.status.Election
	if len(e.LatenessCounts) != len(e.LatenessBounds)+1 {
		return // not told yet
	}
	h, count := &dto.Histogram{SampleSum: &e.LatenessSum}, uint64(0)
	for n, bound := range append(slices.Clone(e.LatenessBounds), math.Inf(1)) {
		count += e.LatenessCounts[n]
		upTo := count
		h.Bucket = append(h.Bucket, &dto.Bucket{CumulativeCount: &upTo, UpperBound: &bound})
	}
	h.SampleCount = &count
	p.family.Metric = append(p.family.Metric, &dto.Metric{Histogram: h})
}

// services are the metrics of services as a whole.
func services() []metric {
	each := func(write func(p *page, v *status.Service, labels pairs)) func(*page) {
		return func(p *page) {
			for _, v := range p.services {
				write(p, v.of, v.labels)
			}
		}
	}
	return []metric{
		{"plane_info", gauge, "Always 1: the plane that forwards the service's packets (empty: none), and why this one.", ofService("plane", "reason"), each(func(p *page, v *status.Service, labels pairs) {
			p.count(1, labels, "plane", v.Plane.Name, "reason", v.Plane.Reason)
		})},
		{"plane_degraded", gauge, "1 while the service is on a slower plane than it could be, or on none, because a faster one does not work here, else 0.", ofService(), each(func(p *page, v *status.Service, labels pairs) {
			p.truth(v.Plane.Degraded, labels)
		})},
		{"service_quorum_up", gauge, "1 while the real servers of the service that are up have the weight that it wants (quorum), else 0.", ofService(), each(func(p *page, v *status.Service, labels pairs) {
			p.truth(v.Quorum.Up, labels)
		})},
		{"service_weight_up", gauge, "Weight of the real servers of the service that are up, together.", ofService(), each(func(p *page, v *status.Service, labels pairs) {
			p.count(uint64(v.Quorum.Weight), labels)
		})},
		{"refused_total", counter, "Packets that a limit of the service refused, by the limit: denied, rate_packets, rate_new, full.", ofService("reason"), each(func(p *page, v *status.Service, labels pairs) {
			p.counts(v.Refused, labels, "reason")
		})},
		{"sorry_server_active", gauge, "1 while the sorry server gets the new flows of the service, else 0.", ofServer(), func(p *page) {
			for _, r := range p.servers {
				if r.sorry != nil {
					p.truth(r.sorry.Active, r.labels)
				}
			}
		}},
		{"real_server_overrides", gauge, "Drains and weights of real servers that operators have set and not taken back (xdirector drain, xdirector weight).", ofService(), func(p *page) {
			by := map[string]uint64{}
			for _, o := range p.status.Overrides {
				by[o.Service]++
			}
			for _, v := range p.services {
				p.count(by[v.of.Name], v.labels)
			}
		}},
	}
}

// realServers are the metrics of real servers.
func realServers() []metric {
	each := func(write func(p *page, r *status.RealServer, labels pairs)) func(*page) {
		return func(p *page) {
			for _, r := range p.servers {
				if r.RealServer != nil {
					write(p, r.RealServer, r.labels)
				}
			}
		}
	}
	checked := func(write func(p *page, r *status.RealServer, labels pairs)) func(*page) {
		return each(func(p *page, r *status.RealServer, labels pairs) {
			if len(r.Checks) > 0 {
				write(p, r, labels)
			}
		})
	}
	both := func(of func(r *status.RealServer) uint64, ofSorry func(r *status.SorryServer) uint64) func(*page) {
		return func(p *page) {
			for _, r := range p.servers {
				if r.RealServer != nil {
					p.count(of(r.RealServer), r.labels)
				} else {
					p.count(ofSorry(r.sorry), r.labels)
				}
			}
		}
	}
	return []metric{
		{"real_server_up", gauge, "1 if the real server is up, 0 if it is down and gets no new flows.", ofServer(), each(func(p *page, r *status.RealServer, labels pairs) {
			p.truth(r.Up, labels)
		})},
		{"real_server_weight", gauge, "Weight of the real server, an operator's if he has given one; with 0 it gets no new flows.", ofServer(), each(func(p *page, r *status.RealServer, labels pairs) {
			p.count(uint64(r.Weight), labels)
		})},
		{"real_server_transitions_total", counter, "Times that checks changed the real server to up or down.", ofServer("to"), checked(func(p *page, r *status.RealServer, labels pairs) {
			p.count(r.Transitions["up"], labels, "to", "up")
			p.count(r.Transitions["down"], labels, "to", "down")
		})},
		{"checks_total", counter, "Checks of the real server, by their own result up or down.", ofServer("result"), checked(func(p *page, r *status.RealServer, labels pairs) {
			p.count(r.Checks["up"], labels, "result", "up")
			p.count(r.Checks["down"], labels, "result", "down")
		})},
		{"check_duration_seconds", gauge, "Seconds that the last check of the real server took.", ofServer(), checked(func(p *page, r *status.RealServer, labels pairs) {
			p.float(r.CheckDuration.Seconds(), labels)
		})},
		{"packets_total", counter, "Packets forwarded to the real server.", ofServer(),
			both(func(r *status.RealServer) uint64 { return r.Packets }, func(r *status.SorryServer) uint64 { return r.Packets })},
		{"bytes_total", counter, "Bytes forwarded to the real server: whole frames on an XDP plane, IP packets on IPVS.", ofServer(),
			both(func(r *status.RealServer) uint64 { return r.Bytes }, func(r *status.SorryServer) uint64 { return r.Bytes })},
		{"flows_created_total", counter, "New flows scheduled to the real server.", ofServer(),
			both(func(r *status.RealServer) uint64 { return r.FlowsCreated }, func(r *status.SorryServer) uint64 { return r.FlowsCreated })},
		{"flows", gauge, "Flows of the real server that have not timed out.", ofServer(),
			both(func(r *status.RealServer) uint64 { return r.Flows }, func(r *status.SorryServer) uint64 { return r.Flows })},
	}
}

// forwarding are the metrics of the XDP plane's programs and of its table of flows.
func forwarding() []metric {
	each := func(write func(p *page, i *status.Interface, labels pairs)) func(*page) {
		return func(p *page) {
			for n := range p.status.Interfaces {
				i := &p.status.Interfaces[n]
				write(p, i, pair("interface", i.Name))
			}
		}
	}
	table := func(of func(t status.FlowTable) uint64) func(*page) {
		return func(p *page) {
			if p.status.FlowTable.Size > 0 {
				p.count(of(p.status.FlowTable), nil)
			}
		}
	}
	return []metric{
		{"verdicts_total", counter, "Frames that the XDP program saw on the interface, by what became of them.", []string{"interface", "verdict"}, each(func(p *page, i *status.Interface, labels pairs) {
			p.counts(i.Verdicts, labels, "verdict")
		})},
		{"drops_total", counter, "Frames that the XDP program dropped on the interface, by the reason.", []string{"interface", "reason"}, each(func(p *page, i *status.Interface, labels pairs) {
			p.counts(i.Drops, labels, "reason")
		})},
		{"redirect_errors_total", counter, "Frames that were lost after the XDP program had redirected them from the interface to another one, by that one and the reason.", []string{"interface", "to", "reason"}, each(func(p *page, i *status.Interface, labels pairs) {
			for _, lost := range i.Lost {
				p.count(lost.Frames, labels, "to", lost.To, "reason", lost.Reason)
			}
		})},
		{"flow_table_size", gauge, "Flows that the XDP plane's table holds without loss (dataplane.flow_table_size).", nil, table(func(t status.FlowTable) uint64 { return t.Size })},
		{"flow_table_flows", gauge, "Flows in the XDP plane's table that have not timed out.", nil, table(func(t status.FlowTable) uint64 { return t.Flows })},
		{"flow_table_unstored_total", counter, "Packets of new flows that found no place in the XDP plane's table, or that the guard against floods kept from it: a hash chose their real server.", nil,
			table(func(t status.FlowTable) uint64 { return t.Unstored })},
	}
}

// director are the metrics of the director itself.
func director() []metric {
	return []metric{
		{"healthy", gauge, "1 while the loop turns and every plane is as configured, else 0; /healthz has the reason.", nil, func(p *page) { p.truth(p.status.Healthy, nil) }},
		{"config_reload_success", gauge, "1 if the last load of the configuration file was accepted, 0 if it was refused and the one before is in use.", nil, func(p *page) {
			p.truth(p.status.Reload.Success, nil)
		}},
		{"config_reload_timestamp_seconds", gauge, "Time of the last accepted load of the configuration file, in seconds since 1970.", nil, func(p *page) {
			if t := p.status.Reload.Time; !t.IsZero() {
				p.float(float64(t.UnixMilli())/1000, nil)
			}
		}},
		{"notifications_total", counter, "Notifications that a target of notify took (sent), or that were given up after all attempts (failed).", []string{"target", "result"}, func(p *page) {
			for _, n := range p.status.Notifications {
				p.count(n.Sent, nil, "target", n.Target, "result", "sent")
				p.count(n.Failed, nil, "target", n.Target, "result", "failed")
			}
		}},
		{"notifications_dropped_total", counter, "Notifications that were never tried, since too many waited for the target already.", []string{"target"}, func(p *page) {
			for _, n := range p.status.Notifications {
				p.count(n.Dropped, nil, "target", n.Target)
			}
		}},
		{"build_info", gauge, "Always 1: the version of xdirector and of the Go that built it.", []string{"version", "goversion"}, func(p *page) {
			p.count(1, nil, "version", p.status.Version, "goversion", runtime.Version())
		}},
	}
}
