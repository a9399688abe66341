package metrics

import (
	"net"
	"runtime"
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/xdirector/xdirector/pkg/status"
)

// desc describes one metric. The names and labels are a promise to the operators' dashboards and alerts.
func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("xdirector_"+name, help, labels, nil)
}

// collector turns the latest picture into metrics. It keeps nothing between two scrapes.
type collector struct {
	latest func() *status.Status

	vrrpState, vrrpPriority, vrrpConfiguredPriority, vrrpYielding, vrrpInterval *prometheus.Desc
	vrrpTransitions, advertsSent, advertsReceived, advertsRefused, vrrpMismatch *prometheus.Desc
	advertsAbsorbed, advertsFiltered, advertsByForm, addressesRestored          *prometheus.Desc
	lateness, electionRestarts, electionDenied, fastPath, maintenance           *prometheus.Desc
	serverUp, serverWeight, serverTransitions, checkDuration, checks            *prometheus.Desc
	packets, bytes, flowsCreated, flows, verdicts, drops, refused               *prometheus.Desc
	redirectErrors                                                              *prometheus.Desc
	flowTableSize, flowTableFlows, flowTableUnstored                            *prometheus.Desc
	plane, reloadSuccess, reloadTime, build                                     *prometheus.Desc
	quorumUp, quorumWeight, sorryActive, overrides                              *prometheus.Desc
}

func newCollector(latest func() *status.Status) *collector {
	return &collector{
		latest: latest,

		vrrpState:       desc("vrrp_state", "State of the VRRP instance: 0 INIT, 1 BACKUP, 2 MASTER, 3 FAULT.", "instance"),
		vrrpTransitions: desc("vrrp_transitions_total", "Times that the VRRP instance entered the state.", "instance", "to"),
		advertsSent:     desc("vrrp_adverts_sent_total", "VRRP adverts sent.", "instance"),
		advertsReceived: desc("vrrp_adverts_received_total", "VRRP adverts of other directors that took part in the election.", "instance"),
		advertsRefused:  desc("vrrp_adverts_refused_total", "VRRP adverts that had no effect, by the reason.", "instance", "reason"),
		vrrpMismatch:    desc("vrrp_mismatch", "Other boxes on the same virtual router that differ from this one in this, or are MASTER too (split_brain).", "instance", "kind"),

		vrrpPriority:           desc("vrrp_priority", "Priority of the VRRP instance in use: the configured one with what is tracked.", "instance"),
		vrrpConfiguredPriority: desc("vrrp_configured_priority", "Priority of the VRRP instance as configured.", "instance"),
		vrrpYielding:           desc("vrrp_yielding", "1 while an operator has the VRRP instance leave MASTER to any other director (xdirector failover), else 0.", "instance"),
		vrrpInterval:           desc("vrrp_advert_interval_seconds", "Advert interval of the VRRP instance as configured.", "instance"),
		advertsAbsorbed:        desc("vrrp_adverts_absorbed_total", "VRRP adverts that the XDP program took for what they repeat; they are not among those received.", "instance"),
		advertsFiltered:        desc("vrrp_adverts_filtered_total", "VRRP adverts that the XDP program dropped, by the reason.", "instance", "reason"),
		advertsByForm:          desc("vrrp_adverts_by_checksum_form_total", "Accepted adverts of version 3 over IPv4, by the form of their checksum.", "instance", "form"),
		addressesRestored:      desc("vrrp_addresses_restored_total", "Virtual addresses of a MASTER that somebody else removed, and that were put back.", "instance"),

		lateness:         desc("vrrp_lateness_seconds", "How late the election was for its own timers."),
		electionRestarts: desc("election_restarts_total", "Restarts of the process that runs the elections, since the service started."),
		electionDenied:   desc("election_denied", "Things that the kernel did not permit the election, for example real-time scheduling; status names them."),
		fastPath:         desc("vrrp_fast_path_info", "Always 1: what the XDP program does with VRRP adverts (off, filter, absorb), and why.", "mode", "reason"),
		maintenance:      desc("maintenance", "1 while an operator has taken this box out of all elections, else 0."),

		serverUp:          desc("real_server_up", "1 if the real server is up, 0 if it is down and gets no new flows.", "service", "real_server"),
		serverWeight:      desc("real_server_weight", "Weight of the real server, an operator's if he has given one; with 0 it gets no new flows.", "service", "real_server"),
		serverTransitions: desc("real_server_transitions_total", "Times that checks changed the real server to up or down.", "service", "real_server", "to"),
		checkDuration:     desc("check_duration_seconds", "Seconds that the last check of the real server took.", "service", "real_server"),
		checks:            desc("checks_total", "Checks of the real server, by their own result up or down.", "service", "real_server", "result"),

		packets:        desc("packets_total", "Packets forwarded to the real server.", "service", "real_server"),
		bytes:          desc("bytes_total", "Bytes forwarded to the real server: whole frames on an XDP plane, IP packets on IPVS.", "service", "real_server"),
		flowsCreated:   desc("flows_created_total", "New flows scheduled to the real server.", "service", "real_server"),
		flows:          desc("flows", "Flows of the real server that have not timed out.", "service", "real_server"),
		verdicts:       desc("verdicts_total", "Frames that the XDP program saw on the interface, by what became of them.", "interface", "verdict"),
		drops:          desc("drops_total", "Frames that the XDP program dropped on the interface, by the reason.", "interface", "reason"),
		redirectErrors: desc("redirect_errors_total", "Frames that were lost after the XDP program had redirected them from the interface to another one, by that one and the reason.", "interface", "to", "reason"),
		refused:        desc("refused_total", "Packets that a limit of the service refused, by the limit: denied, rate_packets, rate_new, full.", "service", "reason"),

		quorumUp:     desc("service_quorum_up", "1 while the real servers of the service that are up have the weight that it wants (quorum), else 0.", "service"),
		quorumWeight: desc("service_weight_up", "Weight of the real servers of the service that are up, together.", "service"),
		sorryActive:  desc("sorry_server_active", "1 while the sorry server gets the new flows of the service, else 0.", "service", "real_server"),
		overrides:    desc("real_server_overrides", "Drains and weights of real servers that operators have set and not taken back (xdirector drain, xdirector weight).", "service"),

		flowTableSize:     desc("flow_table_size", "Flows that the XDP plane's table holds without loss (dataplane.flow_table_size)."),
		flowTableFlows:    desc("flow_table_flows", "Flows in the XDP plane's table that have not timed out."),
		flowTableUnstored: desc("flow_table_unstored_total", "Packets of new flows that found no place in the XDP plane's table: a hash chose their real server."),

		plane:         desc("plane_info", "Always 1: the plane that forwards the service's packets, and why this one.", "service", "plane", "reason"),
		reloadSuccess: desc("config_reload_success", "1 if the last load of the configuration file was accepted, 0 if it was refused and the one before is in use."),
		reloadTime:    desc("config_reload_timestamp_seconds", "Time of the last accepted load of the configuration file, in seconds since 1970."),
		build:         desc("build_info", "Always 1: the version of xdirector and of the Go that built it.", "version", "goversion"),
	}
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		c.vrrpState, c.vrrpPriority, c.vrrpConfiguredPriority, c.vrrpYielding, c.vrrpInterval,
		c.vrrpTransitions, c.advertsSent, c.advertsReceived, c.advertsRefused, c.vrrpMismatch,
		c.advertsAbsorbed, c.advertsFiltered, c.advertsByForm, c.addressesRestored,
		c.lateness, c.electionRestarts, c.electionDenied, c.fastPath, c.maintenance,
		c.serverUp, c.serverWeight, c.serverTransitions, c.checkDuration, c.checks,
		c.packets, c.bytes, c.flowsCreated, c.flows, c.verdicts, c.drops, c.refused, c.redirectErrors,
		c.flowTableSize, c.flowTableFlows, c.flowTableUnstored,
		c.plane, c.reloadSuccess, c.reloadTime, c.build,
		c.quorumUp, c.quorumWeight, c.sorryActive, c.overrides,
	} {
		ch <- d
	}
}

// Collect implements prometheus.Collector. All metrics of one scrape are of one picture.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	s := c.latest()
	if s == nil {
		return
	}
	out := sink(ch)
	for _, i := range s.Instances {
		c.instance(out, i)
	}
	if len(s.Instances) > 0 {
		c.election(out, s)
	}
	for _, v := range s.Services {
		out.gauge(c.plane, 1, v.Name, v.Plane.Name, v.Plane.Reason)
		out.counters(c.refused, v.Refused, v.Name)
		for _, r := range v.RealServers {
			c.realServer(out, v.Name, r)
		}
		c.service(out, s, v)
	}
	for _, i := range s.Interfaces {
		out.counters(c.verdicts, i.Verdicts, i.Name)
		out.counters(c.drops, i.Drops, i.Name)
		for _, lost := range i.Lost {
			out.counter(c.redirectErrors, lost.Frames, i.Name, lost.To, lost.Reason)
		}
	}
	if s.FlowTable.Size > 0 {
		out.gauge(c.flowTableSize, float64(s.FlowTable.Size))
		out.gauge(c.flowTableFlows, float64(s.FlowTable.Flows))
		out.counter(c.flowTableUnstored, s.FlowTable.Unstored)
	}
	out.gauge(c.reloadSuccess, truth(s.Reload.Success))
	if !s.Reload.Time.IsZero() {
		out.gauge(c.reloadTime, float64(s.Reload.Time.UnixMilli())/1000)
	}
	out.gauge(c.build, 1, s.Version, runtime.Version())
}

// states are the names of the VRRP states; their places are the values of vrrp_state.
func states() []string { return []string{"INIT", "BACKUP", "MASTER", "FAULT"} }

func (c *collector) instance(out sink, i status.Instance) {
	for n, state := range states() {
		if i.State == state {
			out.gauge(c.vrrpState, float64(n), i.Name)
		}
		// All states from the start: increase() can't see a counter that begins at 1.
		out.counter(c.vrrpTransitions, i.Transitions[state], i.Name, state)
	}
	out.counter(c.advertsSent, i.AdvertsSent, i.Name)
	out.counter(c.advertsReceived, i.AdvertsReceived, i.Name)
	out.counters(c.advertsRefused, i.AdvertsRefused, i.Name)
	out.counter(c.advertsAbsorbed, i.AdvertsAbsorbed, i.Name)
	out.counters(c.advertsFiltered, i.AdvertsFiltered, i.Name)
	out.counters(c.advertsByForm, i.AdvertsByForm, i.Name)
	out.counter(c.addressesRestored, i.AddressesRestored, i.Name)
	out.gauge(c.vrrpPriority, float64(i.Priority), i.Name)
	out.gauge(c.vrrpConfiguredPriority, float64(i.ConfiguredPriority), i.Name)
	out.gauge(c.vrrpYielding, truth(i.Yielding), i.Name)
	out.gauge(c.vrrpInterval, i.AdvertInterval.Seconds(), i.Name)
	kinds := map[string]int{}
	for _, m := range i.Mismatches {
		kinds[m.Kind]++
	}
	for kind, n := range kinds {
		out.gauge(c.vrrpMismatch, float64(n), i.Name, kind)
	}
}

func (c *collector) election(out sink, s *status.Status) {
	e := s.Election
	out.counter(c.electionRestarts, e.Restarts)
	out.gauge(c.electionDenied, float64(len(e.Denied)))
	out.gauge(c.maintenance, truth(s.Maintenance))
	if e.FastPath != "" {
		out.gauge(c.fastPath, 1, e.FastPath, e.FastPathReason)
	}
	if len(e.LatenessCounts) != len(e.LatenessBounds)+1 {
		return // not told yet
	}
	buckets, count := map[float64]uint64{}, uint64(0)
	for n, bound := range e.LatenessBounds {
		count += e.LatenessCounts[n]
		buckets[bound] = count
	}
	count += e.LatenessCounts[len(e.LatenessBounds)]
	m, err := prometheus.NewConstHistogram(c.lateness, count, e.LatenessSum, buckets)
	if err != nil {
		m = prometheus.NewInvalidMetric(c.lateness, err)
	}
	out <- m
}

func (c *collector) realServer(out sink, service string, r status.RealServer) {
	server := net.JoinHostPort(r.Address, strconv.Itoa(int(r.Port)))
	out.gauge(c.serverUp, truth(r.Up), service, server)
	out.gauge(c.serverWeight, float64(r.Weight), service, server)
	if len(r.Checks) > 0 {
		out.gauge(c.checkDuration, r.CheckDuration.Seconds(), service, server)
		for _, result := range []string{"up", "down"} {
			out.counter(c.checks, r.Checks[result], service, server, result)
			out.counter(c.serverTransitions, r.Transitions[result], service, server, result)
		}
	}
	out.counter(c.packets, r.Packets, service, server)
	out.counter(c.bytes, r.Bytes, service, server)
	out.counter(c.flowsCreated, r.FlowsCreated, service, server)
	out.gauge(c.flows, float64(r.Flows), service, server)
}

func (c *collector) service(out sink, s *status.Status, v status.Service) {
	out.gauge(c.quorumUp, truth(v.Quorum.Up), v.Name)
	out.gauge(c.quorumWeight, float64(v.Quorum.Weight), v.Name)
	overrides := 0
	for _, o := range s.Overrides {
		if o.Service == v.Name {
			overrides++
		}
	}
	out.gauge(c.overrides, float64(overrides), v.Name)
	if r := v.SorryServer; r != nil {
		server := net.JoinHostPort(r.Address, strconv.Itoa(int(r.Port)))
		out.gauge(c.sorryActive, truth(r.Active), v.Name, server)
		out.counter(c.packets, r.Packets, v.Name, server)
		out.counter(c.bytes, r.Bytes, v.Name, server)
		out.counter(c.flowsCreated, r.FlowsCreated, v.Name, server)
		out.gauge(c.flows, float64(r.Flows), v.Name, server)
	}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// sink takes the metrics of one scrape.
type sink chan<- prometheus.Metric

func (s sink) gauge(d *prometheus.Desc, v float64, labels ...string) {
	s.add(d, prometheus.GaugeValue, v, labels)
}

func (s sink) counter(d *prometheus.Desc, v uint64, labels ...string) {
	s.add(d, prometheus.CounterValue, float64(v), labels)
}

// counters writes one counter for every key of values, which is the last label.
func (s sink) counters(d *prometheus.Desc, values map[string]uint64, name string) {
	for key, v := range values {
		s.counter(d, v, name, key)
	}
}

func (s sink) add(d *prometheus.Desc, kind prometheus.ValueType, v float64, labels []string) {
	for i := range labels {
		// A reason may quote what another box sent; labels that aren't UTF-8 would cost the whole scrape.
		labels[i] = strings.ToValidUTF8(labels[i], "?")
	}
	m, err := prometheus.NewConstMetric(d, kind, v, labels...)
	if err != nil {
		m = prometheus.NewInvalidMetric(d, err)
	}
	s <- m
}
