package web

import (
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/xdirector/xdirector/pkg/status"
)

const (
	step   = 2 * time.Second // between two samples of a history
	points = 60              // of a history: two minutes
)

// history is how much real servers had to do in the last two minutes.
type history struct {
	traces  map[server]*trace
	samples uint64
	last    time.Time // of the picture of the last sample
}

// server names a real server, or the sorry server of a service.
type server struct {
	service, address string
	sorry            bool
}

// trace is the history of one real server.
type trace struct {
	sampled uint64 // the last sample that had it
	total   totals
	rates   rates
	busy    float64 // packets/s, smoothed, so that the order of the busiest doesn't jump
	ring    [points]float32
}

type totals struct{ packets, bytes, flows uint64 }

// rates are per second.
type rates struct{ packets, bytes, flows float64 }

func (r *rates) add(o rates) {
	r.packets += o.packets
	r.bytes += o.bytes
	r.flows += o.flows
}

// sample takes the counters of a picture, if it is time to.
func (h *history) sample(s *status.Status) {
	seconds := s.Time.Sub(h.last).Seconds()
	if seconds < (step - beat/4).Seconds() {
		return
	}
	if h.traces == nil {
		h.traces = map[server]*trace{}
	}
	h.samples++
	h.last = s.Time
	n := 0
	for i := range s.Services {
		v := &s.Services[i]
		for k := range v.RealServers {
			r := &v.RealServers[k]
			h.take(server{v.Name, r.Address, false}, totals{r.Packets, r.Bytes, r.FlowsCreated}, seconds)
		}
		n += len(v.RealServers)
		if r := v.SorryServer; r != nil {
			h.take(server{v.Name, r.Address, true}, totals{r.Packets, r.Bytes, r.FlowsCreated}, seconds)
			n++
		}
	}
	if len(h.traces) > n {
		for name, t := range h.traces {
			if t.sampled != h.samples {
				delete(h.traces, name)
			}
		}
	}
}

func (h *history) take(name server, now totals, seconds float64) {
	t := h.traces[name]
	if t == nil {
		t = &trace{total: now} // what it did before is no rate
		h.traces[name] = t
	}
	rate := func(before, now uint64) float64 {
		if now < before {
			return 0
		}
		return float64(now-before) / seconds
	}
	t.rates = rates{rate(t.total.packets, now.packets), rate(t.total.bytes, now.bytes), rate(t.total.flows, now.flows)}
	t.busy += (t.rates.packets - t.busy) / 8
	t.ring[h.samples%points] = float32(t.rates.packets)
	t.sampled, t.total = h.samples, now
}

// of is the trace of a real server, also of one that no sample has had yet.
func (h *history) of(name server) *trace {
	if t := h.traces[name]; t != nil {
		return t
	}
	return &trace{}
}

// curve is packets per second, the oldest first.
type curve [points]float64

// add adds a trace.
func (c *curve) add(h *history, t *trace) {
	for i := range c {
		c[i] += float64(t.ring[(h.samples+1+uint64(i))%points])
	}
}

// String lists the points for the script; empty: all are 0.
func (c *curve) String() string {
	if *c == (curve{}) {
		return ""
	}
	var b strings.Builder
	for i, v := range c {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(strconv.FormatFloat(math.Round(v), 'f', -1, 64))
	}
	return b.String()
}
