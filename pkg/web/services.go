package web

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/xdirector/xdirector/pkg/status"
)

// With ten thousand services a page has to be as small as with a hundred.
const (
	most        = 200  // services, and instances
	mostServers = 1000 // real servers on the page, then only few of each further service
	manyServers = 50   // of one service
	fewServers  = 3
)

// found is a service that is looked for.
type found struct {
	place   int // in the configuration
	v       *status.Service
	all     bool                 // it is looked for with all of its real servers
	servers []*status.RealServer // else those that are
	wrong   int                  // 2: clients notice, 1: something is not as it should be
	busy    float64
}

func services(s *status.Status, h *history, q string) table {
	t := table{ID: "services", Title: "Services", Samples: h.samples, Columns: []column{
		{"Service", "name"}, {"State", "state"}, {"Weight", "num"}, {"Flows", "num"}, {"Active", "num"},
		{"New", "num"}, {"Packets", "num"}, {"Bits", "num"}, {"Two minutes", "curve"},
	}}
	var list []found
	for n := range s.Services {
		if f := find(s, n, q); f.all || f.servers != nil {
			list = append(list, f)
		}
	}
	t.Note = told(min(len(list), most), len(list), len(s.Services), q, "services", "those with something wrong, then the busiest")
	if len(list) > most {
		for n := range list {
			list[n].busy = busy(h, list[n].v)
		}
		slices.SortStableFunc(list, func(a, b found) int { return cmp.Or(b.wrong-a.wrong, cmp.Compare(b.busy, a.busy)) })
		list = list[:most]
	}
	// Among those shown the order is the file's, so that lines stay where they are.
	slices.SortFunc(list, func(a, b found) int { return cmp.Or(b.wrong-a.wrong, a.place-b.place) })
	left := mostServers
	for _, f := range list {
		g := service(s, h, f, max(fewServers, min(manyServers, left)))
		left -= len(g.Rows)
		t.Groups = append(t.Groups, g)
	}
	return t
}

// find looks whether a service, or else some of its real servers, are looked for.
func find(s *status.Status, place int, q string) found {
	v := &s.Services[place]
	f := found{place: place, v: v, wrong: wrong(v), all: q == "" || has(q, v.Name, v.Endpoint(), v.Plane.Name, v.Scheduler)}
	for n := range v.RealServers {
		if r := &v.RealServers[n]; !f.all && has(q, r.Endpoint(), s.ServerText(*r)) {
			f.servers = append(f.servers, r)
		}
	}
	return f
}

// wrong says how much an operator should look at the service.
func wrong(v *status.Service) int {
	up, level := 0, 0
	for n := range v.RealServers {
		r := &v.RealServers[n]
		if r.Up {
			up++
		}
		if !r.Up || r.NextHopError != "" {
			level = 1
		}
	}
	if v.Plane.Name == "" || up == 0 || !v.Quorum.Up {
		level = 2
	}
	return level
}

func busy(h *history, v *status.Service) (sum float64) {
	for n := range v.RealServers {
		sum += h.of(server{v.Name, v.RealServers[n].Address, false}).busy
	}
	return sum
}

func service(s *status.Status, h *history, f found, most int) group {
	v := f.v
	g := group{Key: v.Name, Class: []string{"", "warning", "error"}[f.wrong]}
	var sum rates
	var curve curve
	var up, weight int
	var flows, active uint64
	add := func(name server) {
		t := h.of(name)
		sum.add(t.rates)
		curve.add(h, t)
	}
	for _, r := range v.RealServers {
		if r.Up {
			up++
			weight += int(r.Weight)
		}
		flows += r.Flows
		active += r.Active
		add(server{v.Name, r.Address, false})
	}
	if r := v.SorryServer; r != nil {
		flows += r.Flows
		add(server{v.Name, r.Address, true})
	}
	state := fmt.Sprintf("%d of %d up", up, len(v.RealServers))
	if v.Quorum.Needed > 1 {
		state += fmt.Sprintf(", quorum %d of %d", v.Quorum.Weight, v.Quorum.Needed)
	}
	g.Rows = append(g.Rows, line("", "service", sum, &curve,
		v.Name+"\n"+kind(v), state, strconv.Itoa(weight), count(flows), count(active)))
	for n, text := range troubles(s, v) {
		g.Rows = append(g.Rows, note("trouble "+strconv.Itoa(n), "error", text))
	}
	if v.Plane.Name != "" && v.Plane.Name != s.Plane.Name {
		g.Rows = append(g.Rows, note("plane", "", "on "+v.Plane.Name+": "+v.Plane.Reason))
	}
	if refused := v.RefusedText(); refused != "" {
		g.Rows = append(g.Rows, note("refused", "", "packets refused so far: "+refused))
	}
	shown := f.servers
	for n := range v.RealServers {
		if f.all {
			shown = append(shown, &v.RealServers[n])
		}
	}
	if len(shown) > most { // those that are down first, the order as it was
		shown = slices.SortedStableFunc(slices.Values(shown), func(a, b *status.RealServer) int {
			return cmp.Compare(index(a.Up), index(b.Up))
		})[:most]
	}
	for _, r := range shown {
		g.Rows = append(g.Rows, realServer(s, h, v, r))
	}
	if r := v.SorryServer; r != nil {
		class := "server idle"
		if r.Active {
			class = "server warning"
		}
		g.Rows = append(g.Rows, traced(h, server{v.Name, r.Address, true}, class, r.Endpoint(), r.StateText(), "-", count(r.Flows), ""))
	}
	if n := len(v.RealServers) - len(shown); n > 0 {
		g.Rows = append(g.Rows, note("more", "", count(uint64(n))+" more real servers"))
	}
	return g
}

func realServer(s *status.Status, h *history, v *status.Service, r *status.RealServer) row {
	state, class := s.ServerText(*r), "server up"
	switch {
	case r.NextHopError != "":
		class = "server error"
		state += "; it can't be reached: " + r.NextHopError
	case !r.Up:
		class = "server error"
	case r.Weight == 0:
		class = "server warning"
	}
	for _, o := range s.Overrides {
		if o.Service == v.Name && o.RealServer == r.Address && o.Kind == status.KindWeight {
			state += fmt.Sprintf("; an operator's weight, not %d", o.ConfiguredWeight)
		}
	}
	weight := strconv.Itoa(int(r.Weight))
	return traced(h, server{v.Name, r.Address, false}, class, r.Endpoint(), state, weight, count(r.Flows), count(r.Active))
}

func traced(h *history, name server, class string, texts ...string) row {
	t := h.of(name)
	var c curve
	c.add(h, t)
	key := name.address
	if name.sorry {
		key = "sorry " + key
	}
	return line(key, class, t.rates, &c, texts...)
}

// line is a row with rates and a curve behind its texts.
func line(key, class string, r rates, c *curve, texts ...string) row {
	texts = append(texts, perSecond(r.flows, ""), perSecond(r.packets, ""), bits(r.bytes), "")
	return row{Key: key, Class: class, Cells: cells(texts...), Rate: &r.packets, Curve: c.String()}
}

// bits is a rate of bytes in bits, as interfaces are measured.
func bits(bytes float64) string {
	if bytes == 0 {
		return "0"
	}
	return perSecond(8*bytes, "bit")
}

// kind is what ipvsadm -Ln says of a service: TCP 192.168.5.100:80 wlc persistent 50.
func kind(v *status.Service) string {
	text := strings.ToUpper(v.Protocol) + " "
	if v.FirewallMark != 0 {
		text = ""
	}
	text += v.Endpoint() + " " + v.Scheduler
	if v.Persistence > 0 {
		text += fmt.Sprintf(" persistent %d s", v.Persistence/time.Second)
	}
	if v.Forwarding != "" && v.Forwarding != "direct" {
		text += " " + v.Forwarding
	}
	return text
}

// troubles are what clients of the service notice.
func troubles(s *status.Status, v *status.Service) []string {
	var list []string
	up := slices.ContainsFunc(v.RealServers, func(r status.RealServer) bool { return r.Up })
	if v.Plane.Name == "" {
		list = append(list, "no plane forwards it: "+cmp.Or(v.Plane.Reason, s.Plane.Reason))
	}
	switch {
	case v.SorryServer != nil && v.SorryServer.Active:
		list = append(list, "the quorum is lost: new connections go to the sorry server")
	case !up:
		list = append(list, "no real server is up: new connections are refused")
	case !v.Quorum.Up:
		list = append(list, fmt.Sprintf("the quorum is lost: real servers of weight %d are up, %d wanted", v.Quorum.Weight, v.Quorum.Needed))
	}
	return list
}

func index(b bool) int {
	if b {
		return 1
	}
	return 0
}
