package director

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/xdirector/xdirector/pkg/config"
	"github.com/xdirector/xdirector/pkg/control"
	"github.com/xdirector/xdirector/pkg/ha"
	"github.com/xdirector/xdirector/pkg/statefile"
)

// maintenance is why no instance takes part while an operator works on this box.
const maintenance = "maintenance: an operator took this box out of all elections (xdirector maintenance off)"

// operator is what operators wish until they take it back. It is kept in state_dir: it survives reload, restart and
// upgrade, not a reboot.
type operator struct {
	Maintenance bool             `json:"maintenance"`
	Yield       map[string]yield `json:"yield"` // by the instances that were named

	Servers map[string]override `json:"servers,omitempty"` // see serverName
}

// yield is a failover that an operator asked for.
type yield struct {
	Until time.Time `json:"until,omitzero"` // zero: until it is taken back
}

// apply puts what operators wish of an instance into its Track.
func (o operator) apply(cfg *config.Config, instance string, t ha.Track) ha.Track {
	if o.Maintenance {
		if t.Hold != "" {
			t.Hold = "; " + t.Hold
		}
		t.Hold = maintenance + t.Hold
	}
	if len(o.Yield) > 0 {
		_, members := together(cfg, instance)
		t.Yield = slices.ContainsFunc(members, func(name string) bool { _, yields := o.Yield[name]; return yields })
	}
	return t
}

// together lists the instances that change state with one: all of its sync group, in the order of the file, or itself.
func together(cfg *config.Config, instance string) (group string, instances []string) {
	for _, g := range cfg.SyncGroups {
		if slices.Contains(g.Instances, instance) {
			return g.Name, g.Instances
		}
	}
	return "", []string{instance}
}

// expire drops failovers that are over, and says when the next one ends; zero: none does.
func (o *operator) expire(now time.Time) (over []string, next time.Time) {
	for name, y := range o.Yield {
		switch {
		case y.Until.IsZero():
		case !now.Before(y.Until):
			delete(o.Yield, name)
			over = append(over, name)
		case next.IsZero() || y.Until.Before(next):
			next = y.Until
		}
	}
	slices.Sort(over)
	return over, next
}

// yielding says whether an operator has the instance leave MASTER to others.
func (d *Director) yielding(instance string) bool {
	return d.operator.apply(d.cfg, instance, ha.Track{}).Yield
}

// Failover has an instance, and all of its sync group, leave MASTER to any other director, for a time or, with 0, until
// Return.
func (d *Director) Failover(ctx context.Context, instance string, span time.Duration) (control.Order, error) {
	var result control.Order
	err := d.command(ctx, func() error {
		group, members, err := d.members(instance)
		if err != nil {
			return err
		}
		y := yield{}
		if span > 0 {
			y.Until = time.Now().Add(span).Round(0)
		}
		for _, name := range members {
			delete(d.operator.Yield, name)
		}
		d.operator.Yield[instance] = y
		until := "until it is taken back"
		if span > 0 {
			until = "for " + span.String()
		}
		d.log.Info("an operator has "+strings.Join(members, ", ")+" leave MASTER to any other director "+until, "instance", instance)
		result = control.Order{Instances: members, Group: group, Until: y.Until, Changed: true, Warning: d.ordered(), HandoverLimit: d.handoverLimit(members)}
		return nil
	})
	return result, err
}

// Return takes a Failover back.
func (d *Director) Return(ctx context.Context, instance string) (control.Order, error) {
	var result control.Order
	err := d.command(ctx, func() error {
		group, members, err := d.members(instance)
		if err != nil {
			return err
		}
		for _, name := range members {
			if _, yields := d.operator.Yield[name]; yields {
				delete(d.operator.Yield, name)
				result.Changed = true
			}
		}
		result.Instances, result.Group = members, group
		if result.Changed {
			d.log.Info("an operator has "+strings.Join(members, ", ")+" take part as configured again", "instance", instance)
			result.Warning = d.ordered()
		}
		return nil
	})
	return result, err
}

// Maintenance takes this box out of all elections, or back into them.
func (d *Director) Maintenance(ctx context.Context, on bool) (control.Order, error) {
	var result control.Order
	err := d.command(ctx, func() error {
		if d.stopping {
			return errStopping
		}
		for _, i := range d.cfg.Instances {
			result.Instances = append(result.Instances, i.Name)
		}
		result.Changed = d.operator.Maintenance != on
		result.HandoverLimit = d.handoverLimit(result.Instances)
		if !result.Changed {
			return nil
		}
		d.operator.Maintenance = on
		if on {
			d.log.Warn("maintenance: an operator took this box out of all elections, until xdirector maintenance off")
		} else {
			d.log.Info("maintenance is over: this box takes part in all elections again")
		}
		result.Warning = d.ordered()
		return nil
	})
	return result, err
}

// command has the loop do something. When it returns, the picture of the whole shows what that changed.
func (d *Director) command(ctx context.Context, do func() error) error {
	return d.ask(ctx, func() error {
		err := do()
		d.publish()
		return err
	})
}

// ask has the loop do something that changes nothing.
func (d *Director) ask(ctx context.Context, do func() error) error {
	done := make(chan error, 1)
	select {
	case d.commands <- func() { done <- do() }:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return <-done
}

var errStopping = errors.New("this director is stopping: it hands over all instances anyway")

// members are the instances that a command about one is about.
func (d *Director) members(instance string) (group string, instances []string, err error) {
	if d.stopping {
		return "", nil, errStopping
	}
	var names []string
	for _, i := range d.cfg.Instances {
		names = append(names, i.Name)
	}
	if !slices.Contains(names, instance) {
		return "", nil, fmt.Errorf("no instance %q %w%s: there are %s", instance, control.ErrUnknown, config.DidYouMean(instance, names), some(names))
	}
	group, instances = together(d.cfg, instance)
	return group, instances, nil
}

// ordered puts a new wish of an operator into force, and says why it would not survive a restart.
func (d *Director) ordered() (warning string) {
	d.orders++
	d.setExpiry()
	d.track()
	d.rememberOperator()
	if u, failed := d.unrecorded[d.operatorFile()]; failed {
		return "it is in force, but would not survive a restart of the service: " + u.told
	}
	return ""
}

// setExpiry ends failovers and notes drains whose time is over, and has the loop look again when the next one's is.
func (d *Director) setExpiry() {
	now := time.Now()
	over, next := d.operator.expire(now)
	for _, name := range over {
		d.log.Info("the failover of "+name+" is over: it takes part as configured again", "instance", name)
	}
	if deadline := d.endDrains(now); next.IsZero() || !deadline.IsZero() && deadline.Before(next) {
		next = deadline
	}
	d.expiry = nil
	if !next.IsZero() {
		d.expiry = time.After(time.Until(next))
	}
}

// handoverLimit is how long it takes at most until it is certain that nobody takes over from the instances: twice the
// largest skew that a peer may have and 100 ms, and two seconds for everything else on a busy box.
func (d *Director) handoverLimit(instances []string) time.Duration {
	var skew time.Duration
	for _, i := range d.cfg.Instances {
		switch {
		case !slices.Contains(instances, i.Name):
		case i.Version == 2:
			skew = max(skew, time.Second)
		default:
			skew = max(skew, i.AdvertInterval)
		}
	}
	return 2*(skew+100*time.Millisecond) + 2*time.Second
}

func (d *Director) operatorFile() string { return filepath.Join(d.cfg.StateDir, "operator.json") }

// recallOperator reads what operators wished before a restart.
func (d *Director) recallOperator() {
	boot, err := statefile.BootID()
	if err == nil {
		_, err = statefile.Read(d.operatorFile(), boot, &d.operator)
	}
	if err != nil {
		d.log.Error("what operators wished before the restart is not known: failover, maintenance, drains and weights are off", "file", d.operatorFile(), "error", err)
		d.operator = operator{}
	}
	if d.operator.Yield == nil {
		d.operator.Yield = map[string]yield{}
	}
	if d.operator.Servers == nil {
		d.operator.Servers = map[string]override{}
	}
	d.pruneOperator(d.cfg)
	if d.operator.Maintenance {
		d.log.Warn("maintenance is on since before the restart: this box takes part in no election, until xdirector maintenance off")
	}
	d.tellOverrides()
	for name := range d.operator.Yield {
		d.log.Warn("an operator's failover from before the restart goes on, until xdirector failover "+name+" --off", "instance", name)
	}
}

// pruneOperator forgets wishes about instances and real servers that are no longer configured: one that gets such a name later
// must not obey them.
func (d *Director) pruneOperator(cfg *config.Config) (changed bool) {
	for name := range d.operator.Yield {
		if !slices.ContainsFunc(cfg.Instances, func(i config.Instance) bool { return i.Name == name }) {
			delete(d.operator.Yield, name)
			changed = true
		}
	}
	return d.pruneOverrides(cfg) || changed
}

// rememberOperator writes what operators wish.
func (d *Director) rememberOperator() {
	d.record(d.operatorFile(), d.rememberOperator, d.operator, "a wish of an operator could not be recorded: it is in force, but would not survive a restart")
}
