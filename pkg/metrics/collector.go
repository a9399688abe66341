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

	vrrpState, vrrpTransitions, advertsSent, advertsReceived, advertsRefused, vrrpMismatch *prometheus.Desc
	serverUp, serverWeight, serverTransitions, checkDuration, checks                       *prometheus.Desc
	packets, bytes, flowsCreated, flows, verdicts, drops                                   *prometheus.Desc
	plane, reloadSuccess, reloadTime, build                                                *prometheus.Desc
}

func newCollector(latest func() *status.Status) *collector {
	return &collector{
		latest: latest,

		vrrpState:       desc("vrrp_state", "State of the VRRP instance: 0 INIT, 1 BACKUP, 2 MASTER, 3 FAULT.", "instance"),
		vrrpTransitions: desc("vrrp_transitions_total", "Times that the VRRP instance entered the state.", "instance", "to"),
		advertsSent:     desc("vrrp_adverts_sent_total", "VRRP adverts sent.", "instance"),
		advertsReceived: desc("vrrp_adverts_received_total", "VRRP adverts of other directors that took part in the election.", "instance"),
		advertsRefused:  desc("vrrp_adverts_refused_total", "VRRP adverts that had no effect, by the reason.", "instance", "reason"),
		vrrpMismatch:    desc("vrrp_mismatch", "Other boxes on the same virtual router whose configuration differs in this.", "instance", "kind"),

		serverUp:          desc("real_server_up", "1 if the real server is up, 0 if it is down and gets no new flows.", "service", "real_server"),
		serverWeight:      desc("real_server_weight", "Weight of the real server; with 0 it gets no new flows.", "service", "real_server"),
		serverTransitions: desc("real_server_transitions_total", "Times that checks changed the real server to up or down.", "service", "real_server", "to"),
		checkDuration:     desc("check_duration_seconds", "Seconds that the last check of the real server took.", "service", "real_server"),
		checks:            desc("checks_total", "Checks of the real server, by their own result up or down.", "service", "real_server", "result"),

		packets:      desc("packets_total", "Packets forwarded to the real server.", "service", "real_server"),
		bytes:        desc("bytes_total", "Bytes forwarded to the real server: whole frames on an XDP plane, IP packets on IPVS.", "service", "real_server"),
		flowsCreated: desc("flows_created_total", "New flows scheduled to the real server.", "service", "real_server"),
		flows:        desc("flows", "Flows of the real server that have not timed out.", "service", "real_server"),
		verdicts:     desc("verdicts_total", "Frames that the XDP program saw on the interface, by what became of them.", "interface", "verdict"),
		drops:        desc("drops_total", "Frames that the XDP program dropped on the interface, by the reason.", "interface", "reason"),

		plane:         desc("plane_info", "Always 1: the plane that forwards the service's packets, and why this one.", "service", "plane", "reason"),
		reloadSuccess: desc("config_reload_success", "1 if the last load of the configuration file was accepted, 0 if it was refused and the one before is in use."),
		reloadTime:    desc("config_reload_timestamp_seconds", "Time of the last accepted load of the configuration file, in seconds since 1970."),
		build:         desc("build_info", "Always 1: the version of xdirector and of the Go that built it.", "version", "goversion"),
	}
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		c.vrrpState, c.vrrpTransitions, c.advertsSent, c.advertsReceived, c.advertsRefused, c.vrrpMismatch,
		c.serverUp, c.serverWeight, c.serverTransitions, c.checkDuration, c.checks,
		c.packets, c.bytes, c.flowsCreated, c.flows, c.verdicts, c.drops,
		c.plane, c.reloadSuccess, c.reloadTime, c.build,
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
	for _, v := range s.Services {
		out.gauge(c.plane, 1, v.Name, v.Plane.Name, v.Plane.Reason)
		for _, r := range v.RealServers {
			c.realServer(out, v.Name, r)
		}
	}
	for _, i := range s.Interfaces {
		out.counters(c.verdicts, i.Verdicts, i.Name)
		out.counters(c.drops, i.Drops, i.Name)
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
	kinds := map[string]int{}
	for _, m := range i.Mismatches {
		kinds[m.Kind]++
	}
	for kind, n := range kinds {
		out.gauge(c.vrrpMismatch, float64(n), i.Name, kind)
	}
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
