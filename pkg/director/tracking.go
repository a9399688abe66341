package director

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/xdirector/xdirector/pkg/config"
	"github.com/xdirector/xdirector/pkg/ha"
	"github.com/xdirector/xdirector/pkg/lb"
	"github.com/xdirector/xdirector/pkg/track"
)

// firstLook is how long a start waits for files and processes to be looked at once. One on a file system that doesn't
// answer counts for nothing until it is known.
const firstLook = time.Second

// effect is what one tracked thing does to one instance.
type effect struct {
	thing  string // "script chk"
	fact   string // what is so: "failed 3 times: exit status 1: no answer"
	adjust int    // added to the priority
	hold   bool   // the instance must not be MASTER
	unsure bool   // hold because nothing is known yet
	ill    string // a mistake with the thing itself, which changes nothing: "it holds no number"
}

// watching is what of the configuration has to be watched: nothing that no instance tracks.
func watching(cfg *config.Config) track.Wish {
	var w track.Wish
	tracked := map[string]bool{}
	for _, i := range cfg.Instances {
		for _, s := range i.Track.Scripts {
			tracked[s.Name] = true
		}
		for _, f := range i.Track.Files {
			w.Files = append(w.Files, f.Path)
		}
		for _, p := range i.Track.Processes {
			w.Processes = append(w.Processes, p.Name)
		}
	}
	for _, s := range cfg.Scripts {
		if tracked[s.Name] {
			w.Scripts = append(w.Scripts, track.Script{Name: s.Name, Command: s.Command, Interval: s.Interval,
				Timeout: s.Timeout, Rise: s.Rise, Fall: s.Fall, User: s.User})
		}
	}
	return w
}

// isTracked says whether any instance depends on the service.
func isTracked(cfg *config.Config, service string) bool {
	return slices.ContainsFunc(cfg.Instances, func(i config.Instance) bool {
		return slices.ContainsFunc(i.Track.Services, func(t config.TrackService) bool { return t.Name == service })
	})
}

// serviceHealth is how many real servers a service has, and how many of them can take new flows.
type serviceHealth struct{ live, all int }

// effects says what everything that an instance tracks does to it. It is pure. With fresh, the instance waits for the
// first run of its scripts, as keepalived's do: a box whose script fails is not MASTER for the time of that run. Any
// other thing that is not known yet does nothing.
func effects(i config.Instance, seen track.State, services map[string]serviceHealth, fresh bool) []effect {
	var all []effect
	judge := func(e effect, weight int, known, good bool) {
		switch {
		case !known || weight < 0 && good || weight > 0 && !good:
		case weight == 0:
			e.hold = !good
		default:
			e.adjust = weight
		}
		all = append(all, e)
	}
	for _, t := range i.Track.Scripts {
		s := seen.Scripts[t.Name]
		e := effect{thing: "script " + t.Name, fact: s.Reason}
		if !s.Known {
			e.fact = "has not ended its first run"
			e.hold = t.Weight == 0 && fresh
			e.unsure = e.hold
		}
		judge(e, t.Weight, s.Known, s.Good)
	}
	for _, t := range i.Track.Files {
		f, known := seen.Files[t.Path]
		e := effect{thing: "file " + t.Path, fact: fmt.Sprintf("says %d", f.Value), ill: f.Problem}
		if t.Weight == 0 {
			judge(e, 0, known, f.Value == 0)
			continue
		}
		e.adjust = min(max(f.Value*t.Weight, -maxAdjust), maxAdjust)
		all = append(all, e)
	}
	for _, t := range i.Track.Processes {
		n, known := seen.Processes[t.Name]
		e := effect{thing: "process " + t.Name, fact: running(n, t.Min)}
		judge(e, t.Weight, known, n >= t.Min)
	}
	for _, t := range i.Track.Services {
		h := services[t.Name]
		e := effect{thing: "service " + t.Name, fact: fmt.Sprintf("has %d of %d real servers that can take new flows, %d wanted", h.live, h.all, t.MinUp)}
		judge(e, t.Weight, true, h.live >= t.MinUp)
	}
	return all
}

// maxAdjust takes any priority to the other end of its range.
const maxAdjust = 253

func running(n, want int) string {
	if n == 0 {
		return "does not run"
	}
	if want == 1 && n == 1 {
		return "runs"
	}
	return fmt.Sprintf("runs %d times, %d wanted", n, want)
}

// tracking is what the director remembers of what instances depend on.
type tracking struct {
	runner  *track.Runner
	seen    track.State
	fresh   map[string]bool // instances that wait for the first run of their scripts
	effects map[string][]effect
	told    map[string]ha.Track
}

// startTracking begins to watch, with what an earlier run knew.
func (d *Director) startTracking() {
	d.tracking.runner = track.New(d.recallScripts(), d.log)
	d.configureTracking(d.cfg)
}

// configureTracking watches what the configuration names. Instances that it adds wait for their scripts.
func (d *Director) configureTracking(cfg *config.Config) {
	t := &d.tracking
	fresh := map[string]bool{}
	for _, i := range cfg.Instances {
		_, old := t.fresh[i.Name]
		fresh[i.Name] = !old || t.fresh[i.Name]
	}
	t.fresh = fresh
	t.runner.Configure(watching(cfg))
}

// awaitFirstLook waits until files and processes were looked at once.
func (d *Director) awaitFirstLook(ctx context.Context) {
	limit := time.After(firstLook)
	for !d.tracking.seen.Ready {
		select {
		case d.tracking.seen = <-d.tracking.runner.Changes():
		case <-limit:
			d.log.Warn("not all tracked files and processes could be looked at; those that are not known count for nothing")
			return
		case <-ctx.Done():
			return
		}
	}
}

// serviceHealth counts for each service the real servers that can take new flows.
func (d *Director) serviceHealth() map[string]serviceHealth {
	all := map[string]serviceHealth{}
	for _, s := range d.cfg.Services {
		h := serviceHealth{all: len(s.RealServers)}
		for _, r := range s.RealServers {
			known, ok := d.servers[lb.ServerKey{Service: serviceKey(s), Address: r.Address}]
			if (!ok || known.up) && r.Weight > 0 {
				h.live++
			}
		}
		all[s.Name] = h
	}
	return all
}

// track tells the election what checks and operators say, if that is news, and the log what changed.
func (d *Director) track() {
	t := &d.tracking
	services := d.serviceHealth()
	now, by := map[string][]effect{}, map[string]ha.Track{}
	for _, i := range d.cfg.Instances {
		list := effects(i, t.seen, services, t.fresh[i.Name])
		t.fresh[i.Name] = t.fresh[i.Name] && slices.ContainsFunc(i.Track.Scripts, func(s config.TrackScript) bool { return !t.seen.Scripts[s.Name].Known })
		now[i.Name] = list
		told := d.operator.apply(d.cfg, i.Name, merge(list))
		if told.Deaf = d.attaching; told != (ha.Track{}) {
			by[i.Name] = told
		}
	}
	logEffects(d.log, t.effects, now)
	t.effects = now
	if t.told == nil || !maps.Equal(t.told, by) {
		t.told = by
		d.ha.Track(by)
	}
}

// merge makes one Track of all effects on an instance.
func merge(list []effect) ha.Track {
	var t ha.Track
	var adjusts, holds []string
	for _, e := range list {
		if e.hold {
			holds = append(holds, e.thing+" "+e.fact)
		}
		if e.adjust != 0 {
			t.Adjust += e.adjust
			adjusts = append(adjusts, fmt.Sprintf("%s %s: %+d", e.thing, e.fact, e.adjust))
		}
	}
	t.Text, t.Hold = strings.Join(adjusts, "; "), strings.Join(holds, "; ")
	return t
}

// logEffects tells each thing whose effect changed once, with what follows for all instances.
func logEffects(log *slog.Logger, before, now map[string][]effect) {
	type change struct {
		effect
		worse bool
		then  map[string][]string // consequence: instances
	}
	changes := map[string]*change{}
	for name, list := range now {
		for _, e := range list {
			var was effect
			if n := slices.IndexFunc(before[name], func(b effect) bool { return b.thing == e.thing }); n >= 0 {
				was = before[name][n]
			}
			if was.hold == e.hold && was.adjust == e.adjust && was.ill == e.ill || e.unsure {
				continue
			}
			c := changes[e.thing]
			if c == nil {
				c = &change{effect: e, then: map[string][]string{}}
				changes[e.thing] = c
			}
			c.worse = c.worse || e.hold || e.adjust < was.adjust || e.ill != ""
			c.then[consequence(was, e)] = append(c.then[consequence(was, e)], name)
		}
	}
	for _, thing := range slices.Sorted(maps.Keys(changes)) {
		c := changes[thing]
		message := c.thing + " " + c.fact
		if c.ill != "" {
			message = fmt.Sprintf("%s: %s; until then it counts as %s", c.thing, c.ill, strings.TrimPrefix(c.fact, "says "))
		}
		for _, then := range slices.Sorted(maps.Keys(c.then)) {
			if then != "" {
				message += "; " + some(c.then[then]) + " " + then
			}
		}
		if c.worse {
			log.Warn(message)
		} else {
			log.Info(message)
		}
	}
}

// consequence is what a change of an effect means to an instance.
func consequence(was, e effect) string {
	switch {
	case e.hold:
		return "must not be MASTER"
	case was.hold:
		return "may be MASTER again"
	case e.adjust != 0:
		return fmt.Sprintf("changes its priority by %+d", e.adjust)
	case was.adjust != 0:
		return "has its own priority again"
	}
	return ""
}

// some names a few of many instances.
func some(names []string) string {
	const few = 5
	slices.Sort(names)
	if len(names) > few+1 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:few], ", "), len(names)-few)
	}
	return strings.Join(names, ", ")
}

// onTracked takes what the watching found.
func (d *Director) onTracked(s track.State) {
	changed := !reflect.DeepEqual(d.tracking.seen.Scripts, s.Scripts)
	d.tracking.seen = s
	d.track()
	if changed {
		d.rememberScripts()
	}
}
