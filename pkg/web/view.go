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

const (
	mostEvents   = 100
	mostWarnings = 20
	stamp        = "2006-01-02 15:04:05"
)

// view is what a page shows: words in cells. The page is made of it once by the server, in page.html, and then kept up to
// date from its JSON by page.js. Neither knows what the words mean.
type view struct {
	Head   head
	Tables []table
	Query  string
}

type part struct {
	name  string
	value any
}

// parts are what is sent apart, since it changes apart.
func (v view) parts() []part {
	parts := []part{{"head", v.Head}}
	for _, t := range v.Tables {
		parts = append(parts, part{t.ID, t})
	}
	return parts
}

// What costs traffic at once is said loudly.
const (
	splitBrain = "SPLIT BRAIN: "
	collision  = "VRID COLLISION: "
)

// head is the box as a whole. Level is empty, warning or error.
type head struct {
	Name     string    `json:"name"`
	State    string    `json:"state"`
	Level    string    `json:"level"`
	At       string    `json:"at"`
	Facts    []fact    `json:"facts"`
	Warnings []warning `json:"warnings"`
}

type warning struct {
	Level string `json:"c"`
	Text  string `json:"t"`
}

type fact struct {
	Label string `json:"k"`
	Level string `json:"c"`
	Text  string `json:"t"`
}

// table has a group of rows for each thing.
type table struct {
	ID      string   `json:"-"`
	Title   string   `json:"-"`
	Columns []column `json:"-"`
	Note    string   `json:"note"`
	Samples uint64   `json:"samples"` // how many rates there have been
	Groups  []group  `json:"groups"`
}

type column struct{ Label, Class string }

type group struct {
	Key   string `json:"k"`
	Class string `json:"c"`
	Rows  []row  `json:"r"`
}

// row has a text for each column, or one for all of them. Key is the row's own within its group.
type row struct {
	Key   string   `json:"k"`
	Class string   `json:"c"`
	Cells []string `json:"t"`
	Rate  *float64 `json:"v,omitempty"` // packets/s, if the row ends with a curve
	Curve string   `json:"-"`           // the points up to now
}

func note(key, class, text string) row {
	return row{Key: key, Class: "note " + class, Cells: []string{plain(text)}}
}

func cells(texts ...string) []string {
	for i := range texts {
		texts[i] = plain(texts[i])
	}
	return texts
}

// see makes the view of a picture and the events before it for who looks for q, which is in lower case; empty: everything.
func see(s *status.Status, recent []status.Event, h *history, q string) view {
	v := view{Query: q}
	services := services(s, h, q)
	v.Tables = []table{instances(s, q), services, overrides(s, q), events(recent, q)}
	v.Head = heading(s, h)
	return v
}

// has says whether one of the texts holds q.
func has(q string, texts ...string) bool {
	return q == "" || slices.ContainsFunc(texts, func(t string) bool { return strings.Contains(strings.ToLower(t), q) })
}

func heading(s *status.Status, h *history) head {
	v := head{Name: plain(s.RouterID), State: "healthy", At: s.Time.Format(stamp + " MST"), Warnings: []warning{}}
	switch {
	case s.Stopping:
		v.State, v.Level = "stopping: hands its instances over", "warning"
	case !s.Healthy:
		v.State, v.Level = "NOT HEALTHY: "+plain(s.Unhealthy), "error"
	case s.Maintenance:
		v.State, v.Level = "maintenance: this box takes part in no election, until xdirector maintenance off", "warning"
	}
	tell := func(label, text string, warn bool) {
		level := ""
		if warn {
			level = "warning"
		}
		if text != "" {
			v.Facts = append(v.Facts, fact{label, level, plain(text)})
		}
	}
	plane := "none"
	if s.Plane.Name != "" {
		plane = s.Plane.Name + ": " + s.Plane.Reason
	} else if s.Plane.Reason != "" {
		plane += ": " + s.Plane.Reason
	}
	tell("Plane", plane, s.Plane.Degraded)
	var all rates
	for _, t := range h.traces {
		all.add(t.rates)
	}
	tell("Traffic", perSecond(all.flows, "flows")+", "+perSecond(all.packets, "packets")+", "+perSecond(8*all.bytes, "bit"), false)
	if t := s.FlowTable; t.Size > 0 {
		tell("Flow table", fmt.Sprintf("%s of %s (%.1f %%)", count(t.Flows), count(t.Size), 100*float64(t.Flows)/float64(t.Size)), t.Flows > t.Size/10*9)
	}
	var interfaces []string
	for _, i := range s.Interfaces {
		interfaces = append(interfaces, i.Name+" ("+i.Mode+")")
	}
	tell("Interfaces", strings.Join(interfaces, ", "), false)
	if len(s.Instances) > 0 {
		tell("Election", s.Election.Line(), false)
	}
	tell("Configuration", "loaded "+s.Age(s.Reload.Time)+" ago", !s.Reload.Success || !s.Reload.TrialUntil.IsZero())
	for _, n := range s.Notifications {
		text := fmt.Sprintf("%s: %s sent", n.Target, count(n.Sent))
		if n.Failed > 0 || n.Dropped > 0 {
			text += fmt.Sprintf(", %s failed, %s dropped", count(n.Failed), count(n.Dropped))
		}
		if n.Error != "" {
			text += ": " + n.Error
		}
		tell("Notifications", text, n.Error != "")
	}
	tell("Version", "xdirector "+s.Version+", up "+s.Age(s.Started), false)
	warnings := slices.DeleteFunc(s.Warnings(), func(w string) bool { return strings.HasPrefix(w, "not healthy: ") }) // that is the state
	if len(warnings) > 0 && v.Level == "" {
		v.State, v.Level = "healthy, but look at the warnings", "warning"
	}
	for i, text := range warnings[:min(len(warnings), mostWarnings)] {
		if i == mostWarnings-1 && len(warnings) > mostWarnings {
			text = fmt.Sprintf("and %s more", count(uint64(len(warnings)-i)))
		}
		w := warning{"warning", plain(text)}
		if strings.Contains(text, splitBrain) || strings.Contains(text, collision) {
			w.Level = "error"
		}
		v.Warnings = append(v.Warnings, w)
	}
	return v
}

func instances(s *status.Status, q string) table {
	t := table{ID: "instances", Title: "Instances", Columns: []column{
		{"Instance", "name"}, {"State", "state"}, {"Since", "num"}, {"Interface", "text"}, {"VRID", "num"}, {"Priority", "num"}, {"Master", "text"}, {"Addresses", "text addresses"},
	}}
	var found []*status.Instance
	for n := range s.Instances {
		if i := &s.Instances[n]; has(q, i.Name, i.Interface, i.State, i.SyncGroup, i.Reason) || slices.ContainsFunc(i.Addresses, func(a string) bool { return has(q, a) }) {
			found = append(found, i)
		}
	}
	sorted := slices.SortedStableFunc(slices.Values(found), func(a, b *status.Instance) int { return cmp.Compare(troubled(b), troubled(a)) })
	shown := sorted[:min(len(sorted), most)]
	t.Note = told(len(shown), len(found), len(s.Instances), q, "instances", "those with something wrong first")
	for _, i := range shown {
		t.Groups = append(t.Groups, instance(s, i))
	}
	return t
}

// troubled is 1 if an operator should look at the instance.
func troubled(i *status.Instance) int {
	if i.State == "FAULT" || len(i.Mismatches) > 0 {
		return 1
	}
	return 0
}

func instance(s *status.Status, i *status.Instance) group {
	g := group{Key: i.Name, Class: strings.ToLower(i.State)}
	name := i.Name
	if i.SyncGroup != "" {
		name += "\ngroup " + i.SyncGroup
	}
	g.Rows = append(g.Rows, row{Key: "", Cells: cells(name, i.State, s.Age(i.Since), i.Interface,
		strconv.Itoa(int(i.VirtualRouterID)), i.PriorityText(), i.MasterText(), i.AddressesText())})
	for n, m := range i.Mismatches {
		level, text := "warning", m.Text
		switch m.Kind {
		case "split_brain":
			level, text = "error", splitBrain+text
		case "collision":
			level, text = "error", collision+text
		}
		if n == mostWarnings {
			break
		}
		g.Rows = append(g.Rows, note(m.Kind+" "+m.Peer, level, text))
	}
	if i.Reason != "" {
		g.Rows = append(g.Rows, note("reason", "", i.Reason))
	}
	if i.Tracked != "" && !strings.Contains(i.Reason, i.Tracked) {
		g.Rows = append(g.Rows, note("tracked", "", "tracked: "+i.Tracked))
	}
	if i.Yielding {
		g.Rows = append(g.Rows, note("yielding", "warning", "leaves MASTER to any other director, until xdirector failover "+i.Name+" --off or its time is over"))
	}
	return g
}

func overrides(s *status.Status, q string) table {
	t := table{ID: "overrides", Title: "Overrides of operators", Columns: []column{{"What", "name"}, {"Since", "num"}, {"Until", "text"}}}
	found := 0
	for _, o := range s.Overrides {
		if !has(q, o.Name()) {
			continue
		}
		if found++; len(t.Groups) < most {
			t.Groups = append(t.Groups, group{Key: o.Kind + " " + o.Name(), Rows: []row{{Cells: cells(o.What(), s.Age(o.Since), o.UntilText())}}})
		}
	}
	t.Note = told(len(t.Groups), found, len(s.Overrides), q, "overrides", "")
	return t
}

// events are the latest first.
func events(recent []status.Event, q string) table {
	t := table{ID: "events", Title: "Recent events", Columns: []column{{"Time", "time"}, {"Level", "level"}, {"Event", "text"}}}
	for _, e := range slices.Backward(recent) {
		if len(t.Groups) == mostEvents {
			break
		}
		if has(q, e.Text, e.Kind, e.Level) {
			t.Groups = append(t.Groups, group{Key: strconv.FormatUint(e.ID, 10), Class: e.Level, Rows: []row{{Cells: cells(e.Time.In(time.Local).Format(stamp), e.Level, e.Text)}}})
		}
	}
	return t
}

// told says what of a table is shown, if that is not all.
func told(shown, found, all int, q, what, order string) string {
	n := func(n int) string { return count(uint64(n)) }
	text := ""
	if q != "" && all > 0 {
		text = fmt.Sprintf("%s of %s %s match %q. ", n(found), n(all), what, q)
	}
	if shown < found {
		text += fmt.Sprintf("%s of %s are shown", n(shown), n(found))
		if order != "" {
			text += ", " + order
		}
		text += ". Search to see others."
	}
	return strings.TrimSpace(text)
}
