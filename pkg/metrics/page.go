package metrics

import (
	"io"
	"net"
	"slices"
	"strconv"

	"github.com/xdirector/xdirector/pkg/status"
)

// The kinds of a metric, as Prometheus calls them.
const (
	gauge     = "gauge"
	counter   = "counter"
	histogram = "histogram"
)

// metric describes one metric. Name and labels are a promise to the operators' dashboards and alerts.
type metric struct {
	name   string // without the prefix
	kind   string
	help   string
	labels []string
	write  func(p *page)
}

const prefix = "xdirector_"

// page is the text of one scrape, of one picture. It is written as it is made: all of it for twenty thousand real servers
// would be tens of megabytes.
type page struct {
	out    io.Writer
	line   []byte // what is not written yet
	metric metric // that is being written
	begun  bool   // it has a sample
	status *status.Status

	instances []labelled[status.Instance]
	services  []labelled[status.Service]
	servers   []server
}

// labelled is one thing with the labels that its samples have, as they are written.
type labelled[T any] struct {
	of     *T
	labels string
}

// server is a real server, or the sorry server of a service.
type server struct {
	*status.RealServer // nil: the sorry server
	sorry              *status.SorryServer
	labels             string
}

const flushAt = 64 << 10 // bytes

func newPage(s *status.Status, out io.Writer) *page {
	p := &page{out: out, status: s, line: make([]byte, 0, flushAt+flushAt/16)}
	for n := range s.Instances {
		p.instances = append(p.instances, labelled[status.Instance]{&s.Instances[n], pairs("instance", s.Instances[n].Name)})
	}
	for n := range s.Services {
		v := &s.Services[n]
		service := pairs("service", v.Name)
		p.services = append(p.services, labelled[status.Service]{v, service})
		for i := range v.RealServers {
			r := &v.RealServers[i]
			p.servers = append(p.servers, server{RealServer: r, labels: service + "," + serverLabel(r.Address, r.Port)})
		}
		if r := v.SorryServer; r != nil {
			p.servers = append(p.servers, server{sorry: r, labels: service + "," + serverLabel(r.Address, r.Port)})
		}
	}
	return p
}

func serverLabel(address string, port uint16) string {
	return pairs("real_server", net.JoinHostPort(address, strconv.Itoa(int(port))))
}

// write writes every metric of which the picture has a sample.
func (p *page) write() {
	for _, m := range metrics() {
		p.metric, p.begun = m, false
		m.write(p)
	}
	p.flush()
}

// flush writes what there is. What can't be written is lost: its reader is gone.
func (p *page) flush() {
	_, _ = p.out.Write(p.line)
	p.line = p.line[:0]
}

// float and count write a sample. more are names and values of labels behind those that are written already.
func (p *page) float(v float64, labels string, more ...string) {
	p.begin("", labels, more)
	p.line = strconv.AppendFloat(p.line, v, 'g', -1, 64)
	p.end()
}

func (p *page) count(v uint64, labels string, more ...string) {
	p.begin("", labels, more)
	p.line = strconv.AppendUint(p.line, v, 10)
	p.end()
}

// counts writes a sample for every key of values, which is the last label.
func (p *page) counts(values map[string]uint64, labels, name string) {
	var some [32]string // on the stack
	keys := some[:0]
	for key := range values {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	for _, key := range keys {
		p.count(values[key], labels, name, key)
	}
}

func (p *page) truth(b bool, labels string, more ...string) {
	v := uint64(0)
	if b {
		v = 1
	}
	p.count(v, labels, more...)
}

func (p *page) begin(suffix, labels string, more []string) {
	if !p.begun {
		p.begun = true
		p.line = append(p.line, "# HELP "+prefix+p.metric.name+" "+p.metric.help+"\n# TYPE "+prefix+p.metric.name+" "+p.metric.kind+"\n"...)
	}
	p.line = append(append(append(p.line, prefix...), p.metric.name...), suffix...)
	if labels != "" || len(more) > 0 {
		p.line = append(append(p.line, '{'), labels...)
		p.line = append(appendPairs(p.line, labels != "", more), '}')
	}
	p.line = append(p.line, ' ')
}

func (p *page) end() {
	p.line = append(p.line, '\n')
	if len(p.line) >= flushAt {
		p.flush()
	}
}

// pairs writes names and values of labels in turn.
func pairs(nameValue ...string) string { return string(appendPairs(nil, false, nameValue)) }

func appendPairs(b []byte, comma bool, nameValue []string) []byte {
	for n := 0; n+1 < len(nameValue); n += 2 {
		if comma {
			b = append(b, ',')
		}
		comma = true
		b = append(append(b, nameValue[n]...), '=', '"')
		b = append(appendEscaped(b, nameValue[n+1]), '"')
	}
	return b
}

// appendEscaped writes the value of a label. A reason may quote what another box sent: bytes that aren't UTF-8 would cost
// the whole scrape.
func appendEscaped(b []byte, value string) []byte {
	for _, r := range value {
		switch r {
		case '\\':
			b = append(b, `\\`...)
		case '"':
			b = append(b, `\"`...)
		case '\n':
			b = append(b, `\n`...)
		case '\uFFFD':
			b = append(b, '?')
		default:
			b = append(b, string(r)...)
		}
	}
	return b
}
