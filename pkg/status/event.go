package status

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// The kinds of an Event.
const (
	KindDirector   = "director"    // it started, is stopping, is healthy again or not; maintenance
	KindInstance   = "instance"    // an instance has another state
	KindSyncGroup  = "sync_group"  // a sync group has another state
	KindMismatch   = "mismatch"    // another box on the virtual router does something differently, or no longer
	KindRealServer = "real_server" // a real server came up or went down
	KindCheck      = "check"       // results of checks of a real server
	KindService    = "service"     // a service has lost its quorum, or has it again
	KindOverride   = "override"    // an operator drains or weighs a real server or has an instance fail over, or no longer
	KindFlows      = "flows"       // a drained real server has fewer or more flows
	KindPlane      = "plane"       // packets are forwarded by another plane, or for another reason
	KindReload     = "reload"      // the configuration was reloaded, or refused
	KindElection   = "election"    // the process of the elections was restarted
)

// Kinds are all kinds of events.
var Kinds = []string{
	KindDirector, KindInstance, KindSyncGroup, KindMismatch, KindRealServer, KindCheck, KindService, KindOverride, KindFlows, KindPlane, KindReload, KindElection,
}

// KindLost is no event of the director's: it tells one listener that it was too slow for so many. It has no ID.
const KindLost = "lost"

// LostEvents is what a listener is told that was too slow for n events.
func LostEvents(n uint64, now time.Time) Event {
	events := "an event is"
	if n > 1 {
		events = fmt.Sprintf("%d events are", n)
	}
	return Event{Time: now, Kind: KindLost, Level: LevelWarning, Text: events + " missing here: this reader was too slow"}
}

// How much an event matters.
const (
	LevelInfo    = "info"
	LevelWarning = "warning" // something is not as configured
	LevelError   = "error"   // clients may notice
)

// Event is one change from one picture to the next. JSON names are part of the control API (/v1/events).
type Event struct {
	ID    uint64    `json:"id,omitzero"` // rises, also over restarts; see Feed
	Time  time.Time `json:"time"`
	Kind  string    `json:"kind"`
	Level string    `json:"level"`

	Instance   string `json:"instance,omitempty"`
	SyncGroup  string `json:"sync_group,omitempty"`
	Service    string `json:"service,omitempty"`
	RealServer string `json:"real_server,omitempty"` // its address
	// State is what was entered: that of an instance or sync group; up or down of a real server, a check or a quorum; drain, weight or
	// off of an override; applied, confirmed, refused or rolled back of a reload; the name of a plane.
	State    string `json:"state,omitempty"`
	Previous string `json:"previous,omitempty"` // of an instance or sync group: the state that it left
	Priority uint8  `json:"priority,omitempty"` // of an instance
	Text     string `json:"text"`               // what happened and why, in one line
}

// IsPassing says that nobody needs to see the event later: it tells how something goes on, not that it changed.
func (e Event) IsPassing() bool { return e.Kind == KindCheck || e.Kind == KindFlows }

// Changes are the events between two pictures, in the order in which things depend on one another: the box, its planes,
// its instances, its services. before may be nil, for the first picture; ID is left to the Feed.
func Changes(before, after *Status) []Event {
	c := changes{now: after.Time}
	if before == nil {
		c.add(Event{Kind: KindDirector, State: "started", Text: fmt.Sprintf("xdirector %s started on %s", after.Version, after.RouterID)})
		before = &Status{Time: after.Started, Started: after.Started, Healthy: true, Reload: after.Reload, Counted: after.Counted, Services: calm(after.Services),
			Election: after.Election, Maintenance: after.Maintenance, Overrides: after.Overrides}
		before.Reload.RolledBack = false
	}
	c.box(before, after)
	c.planes(before, after)
	if !sameList(before.Instances, after.Instances) {
		c.instances(before, after)
	}
	c.services(before, after)
	c.overrides(before, after)
	return c.list
}

// calm are the services as if nothing had changed yet, so that a start tells only what is not as it should be.
func calm(services []Service) []Service {
	services = slices.Clone(services)
	for i := range services {
		v := &services[i]
		v.Plane, v.Quorum.Up = Plane{}, true
		v.RealServers = slices.Clone(v.RealServers)
		for n := range v.RealServers {
			v.RealServers[n].Up = true
		}
	}
	return services
}

// sameList says that two lists are one in memory, which a picture without changes shares with the one before.
func sameList[T any](a, b []T) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}

type changes struct {
	now  time.Time
	list []Event
}

func (c *changes) add(e Event) {
	if e.Time.IsZero() {
		e.Time = c.now
	}
	e.Level = cmp.Or(e.Level, LevelInfo)
	e.Text = strings.ReplaceAll(strings.TrimRight(e.Text, "\n"), "\n", "; ") // a refused file has a line for each mistake
	c.list = append(c.list, e)
}

func (c *changes) box(before, after *Status) {
	if after.Stopping && !before.Stopping {
		c.add(Event{Kind: KindDirector, State: "stopping", Level: LevelWarning, Text: "this director is stopping, and hands its instances over"})
	}
	switch {
	case after.Stopping:
	case !after.Healthy && before.Unhealthy != after.Unhealthy:
		c.add(Event{Kind: KindDirector, State: "unhealthy", Level: LevelError, Text: "not as configured: " + after.Unhealthy})
	case after.Healthy && !before.Healthy:
		c.add(Event{Kind: KindDirector, State: "healthy", Text: "everything is as configured again"})
	}
	if after.Maintenance != before.Maintenance {
		e := Event{Kind: KindDirector, State: "maintenance", Level: LevelWarning, Text: "an operator took this box out of all elections, until xdirector maintenance off"}
		if !after.Maintenance {
			e = Event{Kind: KindDirector, State: "maintenance off", Text: "maintenance is over: this box takes part in all elections again"}
		}
		c.add(e)
	}
	switch r := after.Reload; {
	case r.RolledBack && before.Reload != r:
		c.add(Event{Kind: KindReload, State: "rolled back", Level: LevelError, Text: r.Error})
	case !r.Success && (before.Reload.Success || before.Reload.Error != r.Error):
		c.add(Event{Kind: KindReload, State: "refused", Level: LevelError, Text: "reload refused, everything goes on with the configuration as it was: " + r.Error})
	case r.Success && !r.Time.Equal(before.Reload.Time):
		e := Event{Kind: KindReload, State: "applied", Text: "configuration reloaded", Time: r.Time}
		if !r.TrialUntil.IsZero() {
			e.Text += ", on trial until " + clock(r.TrialUntil)
		}
		c.add(e)
	case r.Success && r.TrialUntil.IsZero() && !before.Reload.TrialUntil.IsZero():
		c.add(Event{Kind: KindReload, State: "confirmed", Text: "the reload has passed its trial"})
	}
	if n := after.Election.Restarts; n > before.Election.Restarts {
		c.add(Event{Kind: KindElection, State: "restarted", Level: LevelError, Text: fmt.Sprintf("the process of the elections was restarted: %s so far; the log says why", times(n))})
	}
}

// planes tells of the plane of the box, and of services that are on another one.
func (c *changes) planes(before, after *Status) {
	if b, a := before.Plane, after.Plane; a.Name != b.Name || a.Name == "" && a.Reason != b.Reason {
		e := Event{Kind: KindPlane, State: a.Name, Text: fmt.Sprintf("packets are forwarded by %s: %s", a.Name, a.Reason)}
		if a.Name == "" {
			e.Text = "no packet is forwarded"
			if len(after.Services) > 0 {
				e.Level = LevelError
				e.Text += ": " + a.Reason
			}
		}
		c.add(e)
	}
	was := byName(before.Services)
	for i := range after.Services {
		v := &after.Services[i]
		b := was[v.Name]
		if v.Plane.Name == after.Plane.Name || b != nil && b.Plane.Name == v.Plane.Name {
			continue
		}
		e := Event{Kind: KindPlane, Service: v.Name, State: v.Plane.Name, Text: fmt.Sprintf("service %s is on %s: %s", v.Name, v.Plane.Name, v.Plane.Reason)}
		if v.Plane.Name == "" {
			e.Level, e.Text = LevelError, fmt.Sprintf("service %s is on no plane: %s", v.Name, v.Plane.Reason)
		}
		c.add(e)
	}
}

func (c *changes) instances(before, after *Status) {
	was := make(map[string]*Instance, len(before.Instances))
	for i := range before.Instances {
		was[before.Instances[i].Name] = &before.Instances[i]
	}
	groups := syncGroups{}
	for n := range after.Instances {
		i := &after.Instances[n]
		b := was[i.Name]
		if b == nil { // at the start, or added: it comes from INIT, if not an election that was there before this agent
			b = &Instance{State: "INIT", Since: i.Since, Yielding: i.Yielding}
			if i.Since.Before(after.Started) {
				b.State = i.State
			}
		}
		c.instance(b, i)
		c.yielding(b, i)
		c.mismatches(b, i)
		groups.add(i.SyncGroup, b.State, i.State)
	}
	for _, name := range slices.Sorted(maps.Keys(groups)) {
		if g := groups[name]; g.was != g.is {
			c.add(SyncGroupEvent(name, g.was, g.is))
		}
	}
}

func (c *changes) instance(b, i *Instance) {
	if b.State == i.State && b.Since.Equal(i.Since) {
		return
	}
	e := Event{Kind: KindInstance, Instance: i.Name, State: i.State, Previous: b.State, Priority: i.Priority, Time: i.Since,
		Text: fmt.Sprintf("%s is %s, was %s: %s", i.Name, i.State, b.State, i.Reason)}
	if b.State == i.State {
		e.Text = fmt.Sprintf("%s left %s meanwhile, and is %s again: %s", i.Name, i.State, i.State, i.Reason)
	}
	if i.State == "FAULT" {
		e.Level = LevelError
	} else if b.State == "MASTER" {
		e.Level = LevelWarning
	}
	c.add(e)
}

// yielding tells of a failover that an operator has commanded.
func (c *changes) yielding(b, i *Instance) {
	switch {
	case i.Yielding && !b.Yielding:
		c.add(Event{Kind: KindOverride, Instance: i.Name, State: "failover", Text: fmt.Sprintf("%s leaves MASTER to any other director, until xdirector failover %s --off or its time is over", i.Name, i.Name)})
	case b.Yielding && !i.Yielding:
		c.add(Event{Kind: KindOverride, Instance: i.Name, State: "off", Text: fmt.Sprintf("the failover of %s is over: it takes part as configured", i.Name)})
	}
}

func (c *changes) mismatches(b, i *Instance) {
	for _, m := range i.Mismatches {
		if !slices.Contains(b.Mismatches, m) {
			c.add(Event{Kind: KindMismatch, Instance: i.Name, State: m.Kind, Level: LevelWarning, Text: fmt.Sprintf("%s: %s%s", i.Name, m.heading(), m.Text)})
		}
	}
	for _, m := range b.Mismatches {
		if !slices.ContainsFunc(i.Mismatches, func(n Notice) bool { return n.Kind == m.Kind && n.Peer == m.Peer }) {
			c.add(Event{Kind: KindMismatch, Instance: i.Name, State: "over", Text: fmt.Sprintf("%s: the mismatch with %s is over (%s)", i.Name, m.Peer, m.Kind)})
		}
	}
}

func (c *changes) services(before, after *Status) {
	was := byName(before.Services)
	for i := range after.Services {
		v := &after.Services[i]
		b := was[v.Name]
		if b == nil {
			b = &calm(after.Services[i : i+1])[0]
		}
		if v.Quorum.Up != b.Quorum.Up {
			e := Event{Kind: KindService, Service: v.Name, State: "up", Text: fmt.Sprintf("service %s has its quorum again: %d of %d", v.Name, v.Quorum.Weight, v.Quorum.Needed)}
			if !v.Quorum.Up {
				e.Level, e.State = LevelError, "down"
				e.Text = fmt.Sprintf("service %s has lost its quorum: real servers with a weight of %d are up, %d are needed", v.Name, v.Quorum.Weight, v.Quorum.Needed)
				if v.SorryServer != nil {
					e.Text += "; the sorry server gets new flows"
				}
			}
			c.add(e)
		}
		c.realServers(v, b.RealServers)
	}
}

// realServers compares those of a service. A list is nearly always in the order of the one before.
func (c *changes) realServers(v *Service, before []RealServer) {
	var was map[string]*RealServer
	for n := range v.RealServers {
		r := &v.RealServers[n]
		var b *RealServer
		if n < len(before) && before[n].Address == r.Address {
			b = &before[n]
		} else {
			if was == nil {
				was = make(map[string]*RealServer, len(before))
				for i := range before {
					was[before[i].Address] = &before[i]
				}
			}
			b = was[r.Address]
		}
		if b == nil { // a new one is up until its first result
			b = &RealServer{Up: true}
		}
		c.realServer(v.Name, b, r)
	}
}

func (c *changes) realServer(service string, b, r *RealServer) {
	name := service + "/" + r.Address
	for _, result := range []string{"up", "down"} {
		if r.Checks[result] > b.Checks[result] {
			c.add(Event{Kind: KindCheck, Service: service, RealServer: r.Address, State: result, Text: fmt.Sprintf("%s: a check says %s", name, result)})
		}
	}
	if b.Up == r.Up {
		return
	}
	e := Event{Kind: KindRealServer, Service: service, RealServer: r.Address, State: "up", Time: r.Since, Text: fmt.Sprintf("%s is up: %s", name, r.Reason)}
	if !r.Up {
		e.Level, e.State = LevelWarning, "down"
		e.Text = fmt.Sprintf("%s is down: %s; its flows are scheduled afresh", name, r.Reason)
		if r.KeepsFlows {
			e.Text = fmt.Sprintf("%s is down: %s; it gets no new flows", name, r.Reason)
		}
	}
	c.add(e)
}

func (c *changes) overrides(before, after *Status) {
	if len(before.Overrides) == 0 && len(after.Overrides) == 0 {
		return
	}
	was := map[string]Override{}
	for _, o := range before.Overrides {
		was[o.Kind+" "+o.Name()] = o
	}
	for _, o := range after.Overrides {
		key := o.Kind + " " + o.Name()
		b, known := was[key]
		delete(was, key)
		e := Event{Kind: KindOverride, Service: o.Service, RealServer: o.RealServer, State: o.Kind}
		switch {
		case !known || b.Weight != o.Weight || !b.Until.Equal(o.Until) || b.Over != o.Over:
			e.Text = o.news()
			c.add(e)
		case o.Kind == KindDrain && after.Counted.After(before.Counted) && o.Flows != b.Flows:
			e.Kind, e.Text = KindFlows, fmt.Sprintf("%s: %s left", o.Name(), o.Left())
			c.add(e)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(was)) {
		o := was[key]
		c.add(Event{Kind: KindOverride, Service: o.Service, RealServer: o.RealServer, State: "off", Text: fmt.Sprintf("the %s of %s is over", o.Kind, o.Name())})
	}
}

// news is the wish in words.
func (o Override) news() string {
	switch {
	case o.Kind == KindWeight:
		return fmt.Sprintf("%s has the weight %d, not %d, until xdirector weight %s default", o.Name(), o.Weight, o.ConfiguredWeight, o.Name())
	case o.Over:
		return fmt.Sprintf("the deadline of draining %s is over: flows that it still has are scheduled afresh", o.Name())
	case !o.Until.IsZero():
		return fmt.Sprintf("%s is drained, and its flows may go on until %s", o.Name(), clock(o.Until))
	}
	return fmt.Sprintf("%s is drained until xdirector undrain %s", o.Name(), o.Name())
}

func byName(services []Service) map[string]*Service {
	m := make(map[string]*Service, len(services))
	for i := range services {
		m[services[i].Name] = &services[i]
	}
	return m
}

// Line is the event in one line for a terminal, in the local time zone.
func (e Event) Line() string {
	return fmt.Sprintf("%s  %-7s  %-11s  %s", e.Time.Local().Format("2006-01-02 15:04:05.000"), e.Level, e.Kind, plain(e.Text))
}
