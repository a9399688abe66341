package metrics

import (
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"

	dto "github.com/prometheus/client_model/go"

	"github.com/xdirector/xdirector/pkg/status"
)

// The kinds of a metric.
const (
	gauge     = dto.MetricType_GAUGE
	counter   = dto.MetricType_COUNTER
	histogram = dto.MetricType_HISTOGRAM
)

// metric describes one metric. Name and labels are a promise to the operators' dashboards and alerts.
type metric struct {
	name   string // without the prefix
	kind   dto.MetricType
	help   string
	labels []string
	write  func(p *page)
}

const prefix = "xdirector_"

// pairs are labels with their values. The samples of one thing share them.
type pairs []*dto.LabelPair

// page is one scrape of one picture, as client_golang writes it. It is not gathered by a Registry, which looks at each of the
// hundred thousands of samples of a large director for mistakes that this package can't make, for longer than a scrape may take.
type page struct {
	status   *status.Status
	families []*dto.MetricFamily
	family   *dto.MetricFamily // of the metric that is being written

	instances []labelled[status.Instance]
	services  []labelled[status.Service]
	servers   []server
}

// labelled is one thing with the labels that its samples have.
type labelled[T any] struct {
	of     *T
	labels pairs
}

// server is a real server, or the sorry server of a service.
type server struct {
	*status.RealServer // nil: the sorry server
	sorry              *status.SorryServer
	labels             pairs
}

func newPage(s *status.Status) *page {
	p := &page{status: s}
	for n := range s.Instances {
		p.instances = append(p.instances, labelled[status.Instance]{&s.Instances[n], pair("instance", s.Instances[n].Name)})
	}
	for n := range s.Services {
		v := &s.Services[n]
		service := pair("service", v.Name)
		p.services = append(p.services, labelled[status.Service]{v, service})
		of := func(address string, port uint16) pairs {
			return slices.Concat(service, pair("real_server", net.JoinHostPort(address, strconv.Itoa(int(port)))))
		}
		for i := range v.RealServers {
			r := &v.RealServers[i]
			p.servers = append(p.servers, server{RealServer: r, labels: of(r.Address, r.Port)})
		}
		if r := v.SorryServer; r != nil {
			p.servers = append(p.servers, server{sorry: r, labels: of(r.Address, r.Port)})
		}
	}
	return p
}

// gather returns every metric of which the picture has a sample.
func (p *page) gather() []*dto.MetricFamily {
	for _, m := range metrics() {
		name := prefix + m.name
		p.family = &dto.MetricFamily{Name: &name, Help: &m.help, Type: &m.kind}
		m.write(p)
		if len(p.family.Metric) > 0 {
			p.families = append(p.families, p.family)
		}
	}
	return p.families
}

// float and count add a sample. more are names and values of labels behind those that are given.
func (p *page) float(v float64, labels pairs, more ...string) {
	m := &dto.Metric{Label: labels}
	if len(more) > 0 {
		m.Label = slices.Concat(labels, pair(more...))
	}
	if p.family.GetType() == counter {
		m.Counter = &dto.Counter{Value: &v}
	} else {
		m.Gauge = &dto.Gauge{Value: &v}
	}
	p.family.Metric = append(p.family.Metric, m)
}

func (p *page) count(v uint64, labels pairs, more ...string) { p.float(float64(v), labels, more...) }

// counts adds a sample for every key of values, which is the last label.
func (p *page) counts(values map[string]uint64, labels pairs, name string) {
	for _, key := range slices.Sorted(maps.Keys(values)) {
		p.count(values[key], labels, name, key)
	}
}

func (p *page) truth(b bool, labels pairs, more ...string) {
	v := uint64(0)
	if b {
		v = 1
	}
	p.count(v, labels, more...)
}

// pair makes labels of names and values in turn. A reason may quote what another box sent: bytes that aren't UTF-8 would cost the
// whole scrape.
func pair(nameValue ...string) pairs {
	var labels pairs
	for n := 0; n+1 < len(nameValue); n += 2 {
		name, value := nameValue[n], strings.ToValidUTF8(nameValue[n+1], "?")
		labels = append(labels, &dto.LabelPair{Name: &name, Value: &value})
	}
	return labels
}
