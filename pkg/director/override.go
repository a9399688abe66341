package director

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/xdirector/xdirector/pkg/config"
	"github.com/xdirector/xdirector/pkg/control"
	"github.com/xdirector/xdirector/pkg/lb"
	"github.com/xdirector/xdirector/pkg/status"
)

// override is what operators wish of one real server until they take it back.
type override struct {
	Drain  *drain       `json:"drain,omitempty"`
	Weight *otherWeight `json:"weight,omitempty"`
}

// drain keeps new flows from a real server.
type drain struct {
	Since    time.Time `json:"since"`
	Deadline time.Time `json:"deadline,omitzero"` // its flows may stay so long; zero: as long as they like
	Over     bool      `json:"over,omitempty"`    // the deadline is past: what was left is scheduled afresh
}

// otherWeight takes the place of the configured weight.
type otherWeight struct {
	Since time.Time `json:"since"`
	Value uint16    `json:"value"`
}

// serverName is what commands call a real server: web/192.168.5.103.
func serverName(service string, server netip.Addr) string { return service + "/" + server.String() }

// Drain keeps new flows from a real server, whose flows go on. After a deadline, if it is not 0, those that are left are scheduled
// afresh.
func (d *Director) Drain(ctx context.Context, service string, server netip.Addr, deadline time.Duration) (control.ServerOrder, error) {
	return d.overrule(ctx, service, server, func(name string, o override) override {
		if o.Drain != nil && !o.Drain.Over && o.Drain.Deadline.IsZero() && deadline == 0 {
			return o
		}
		now := time.Now().Round(0)
		wish := &drain{Since: now}
		if o.Drain != nil {
			wish.Since = o.Drain.Since
		}
		until := ", until xdirector undrain " + name
		if deadline > 0 {
			wish.Deadline = now.Add(deadline)
			until = ", for " + deadline.String() + ", then they are scheduled afresh"
		}
		d.log.Info("an operator drains "+name+": it gets no new flows, and those that it has go on"+until, "service", service, "real_server", server)
		o.Drain = wish
		return o
	})
}

// Undrain takes a Drain back.
func (d *Director) Undrain(ctx context.Context, service string, server netip.Addr) (control.ServerOrder, error) {
	return d.overrule(ctx, service, server, func(name string, o override) override {
		if o.Drain == nil {
			return o
		}
		d.log.Info("an operator has "+name+" take new flows again", "service", service, "real_server", server)
		o.Drain = nil
		d.comesBack(service, server)
		return o
	})
}

// Weight gives a real server another weight than the configured one; nil takes that back.
func (d *Director) Weight(ctx context.Context, service string, server netip.Addr, weight *uint16) (control.ServerOrder, error) {
	return d.overrule(ctx, service, server, func(name string, o override) override {
		switch {
		case weight == nil && o.Weight != nil:
			d.log.Info("an operator has "+name+" weigh as configured again", "service", service, "real_server", server)
			o.Weight = nil
		case weight != nil && (o.Weight == nil || o.Weight.Value != *weight):
			d.log.Info(fmt.Sprintf("an operator gives %s the weight %d, until xdirector weight %s default", name, *weight, name), "service", service, "real_server", server)
			o.Weight = &otherWeight{Since: time.Now().Round(0), Value: *weight}
		}
		return o
	})
}

// overrule has the loop change what operators wish of a real server. It returns when the plane obeys.
func (d *Director) overrule(ctx context.Context, service string, server netip.Addr, change func(name string, o override) override) (control.ServerOrder, error) {
	var result control.ServerOrder
	err := d.command(ctx, func() error {
		s, r, err := d.realServer(service, server)
		if err != nil {
			return err
		}
		name := serverName(service, server)
		before := d.operator.Servers[name]
		after := change(name, before)
		if d.operator.Servers[name] = after; after == (override{}) {
			delete(d.operator.Servers, name)
		}
		result = control.ServerOrder{Service: service, RealServer: server.String(), Changed: before != after, Drained: after.Drain != nil}
		if after.Drain != nil {
			result.Deadline = after.Drain.Deadline
		}
		c := claim{configured: r.Weight, override: after}
		result.Weight, result.ConfiguredWeight = c.weight(), r.Weight
		result.Warning = d.ordered()
		d.apply(context.WithoutCancel(ctx))
		result.Warning = joinWarnings(result.Warning, d.overruled(s, after))
		result.InForce = time.Now()
		return nil
	})
	return result, err
}

// overruled says what keeps an override from its effect.
func (d *Director) overruled(s config.Service, o override) string {
	switch {
	case d.applyErr != nil:
		return "the plane could not be updated, and is tried again every second: " + d.applyErr.Error()
	case o.Weight != nil && o.Weight.Value > 0 && o.Drain != nil:
		return "the real server is drained; the weight counts after xdirector undrain"
	case o.Weight != nil && o.Weight.Value > 0 && s.Scheduler.IgnoresWeights():
		return fmt.Sprintf("%s ignores weights other than 0", s.Scheduler)
	}
	return ""
}

func joinWarnings(a, b string) string {
	if a != "" && b != "" {
		return a + "; " + b
	}
	return a + b
}

// realServer finds what a command is about.
func (d *Director) realServer(service string, server netip.Addr) (config.Service, config.RealServer, error) {
	if d.stopping {
		return config.Service{}, config.RealServer{}, errors.New("this director is stopping: tell the one that takes over")
	}
	found := d.service(service)
	var s config.Service
	if found != nil {
		s = *found
	} else {
		var names []string
		for _, s := range d.cfg.Services {
			names = append(names, s.Name)
		}
		if names == nil {
			return s, config.RealServer{}, fmt.Errorf("no service %q %w: the configuration has no services", service, control.ErrUnknown)
		}
		return s, config.RealServer{}, fmt.Errorf("no service %q %w%s: there are %s", service, control.ErrUnknown, config.DidYouMean(service, names), some(names))
	}
	var names []string
	for _, r := range s.RealServers {
		if r.Address == server {
			return s, r, nil
		}
		names = append(names, r.Address.String())
	}
	if server == s.SorryServer.Address {
		return s, config.RealServer{}, fmt.Errorf("%s is the sorry server of %s, not one of its real servers: take it out of the configuration and reload", server, service)
	}
	return s, config.RealServer{}, fmt.Errorf("no real server %s of %s %w%s: there are %s", server, service, control.ErrUnknown, config.DidYouMean(server.String(), names), some(names))
}

// comesBack begins the slow start of a real server that was drained.
func (d *Director) comesBack(service string, server netip.Addr) {
	s := d.service(service)
	if s == nil {
		return
	}
	if known := d.servers[lb.ServerKey{Service: serviceKey(*s), Address: server}]; known != nil {
		known.rose = time.Now()
	}
}

// endDrains notes and tells which deadlines are over, and says when the next one is; zero: there is none.
func (d *Director) endDrains(now time.Time) (next time.Time) {
	for name, o := range d.operator.Servers {
		switch {
		case o.Drain == nil || o.Drain.Over || o.Drain.Deadline.IsZero():
		case now.Before(o.Drain.Deadline):
			if next.IsZero() || o.Drain.Deadline.Before(next) {
				next = o.Drain.Deadline
			}
		default:
			over := *o.Drain
			over.Over = true
			d.operator.Servers[name] = override{Drain: &over, Weight: o.Weight}
			d.log.Warn("the deadline of draining "+name+" is over: flows that it still has are scheduled afresh", "since", over.Since.Format(time.DateTime))
		}
	}
	return next
}

// tellOverrides says which wishes of operators from before a restart go on.
func (d *Director) tellOverrides() {
	for _, o := range d.overrides(lb.Counters{}) {
		name := o.Service + "/" + o.RealServer
		if o.Kind == status.KindDrain {
			d.log.Warn("a drain from before the restart goes on, until xdirector undrain "+name, "since", o.Since.Format(time.DateTime))
		} else {
			d.log.Warn(fmt.Sprintf("a weight of %d from before the restart goes on, until xdirector weight %s default", o.Weight, name), "since", o.Since.Format(time.DateTime))
		}
	}
}

// pruneOverrides forgets wishes about real servers that are no longer configured.
func (d *Director) pruneOverrides(cfg *config.Config) (changed bool) {
	configured := map[string]bool{}
	for _, s := range cfg.Services {
		for _, r := range s.RealServers {
			configured[serverName(s.Name, r.Address)] = true
		}
	}
	for _, name := range slices.Sorted(maps.Keys(d.operator.Servers)) {
		if !configured[name] {
			delete(d.operator.Servers, name)
			changed = true
			d.log.Info("the drain or weight of " + name + " is forgotten: it is no longer in the configuration")
		}
	}
	return changed
}

// overrides are the pictures of what operators wish of real servers, in the order of the configuration.
func (d *Director) overrides(counters lb.Counters) []status.Override {
	var list []status.Override
	if len(d.operator.Servers) == 0 {
		return nil
	}
	for _, s := range d.cfg.Services {
		for _, r := range s.RealServers {
			o := d.operator.Servers[serverName(s.Name, r.Address)]
			one := status.Override{Service: s.Name, RealServer: r.Address.String(), ConfiguredWeight: r.Weight}
			if o.Drain != nil {
				one.Kind, one.Since, one.Until, one.Over = status.KindDrain, o.Drain.Since, o.Drain.Deadline, o.Drain.Over
				traffic := counters.RealServers[lb.ServerKey{Service: serviceKey(s), Address: r.Address}]
				one.Flows, one.Active = traffic.Flows, min(traffic.Flows, traffic.Active)
				list = append(list, one)
			}
			if o.Weight != nil {
				one = status.Override{Service: one.Service, RealServer: one.RealServer, ConfiguredWeight: r.Weight}
				one.Kind, one.Since, one.Weight = status.KindWeight, o.Weight.Since, o.Weight.Value
				list = append(list, one)
			}
		}
	}
	return list
}
