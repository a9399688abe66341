package director

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/xdirector/xdirector/pkg/config"
	"github.com/xdirector/xdirector/pkg/status"
)

// reload is the outcome of reading the configuration file, on its way to the loop.
type reload struct {
	cfg   *config.Config
	err   error // the file is invalid
	reply chan error
}

// Reload reads the configuration file again. A file that is invalid, or that changes what only a restart can
// change, is refused with all reasons, and everything goes on as it was. What the file leaves as it is, is not
// touched.
func (d *Director) Reload(ctx context.Context) error {
	// One at a time from the reading to the end: of two, the one that has read an older file could come last.
	select {
	case d.reading <- struct{}{}:
		defer func() { <-d.reading }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	cfg, err := config.Load(d.opts.ConfigFile)
	r := reload{cfg: cfg, err: err, reply: make(chan error, 1)}
	select {
	case d.reloads <- r:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	select {
	case err := <-r.reply:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// reload makes the new configuration the one in use, or says why not.
func (d *Director) reload(ctx context.Context, r reload) error {
	if d.stopping { // says nothing about the file
		d.log.Warn("reload refused: this director is stopping; the next start reads the file", "file", d.opts.ConfigFile)
		return errors.New("this director is stopping; the next start reads the file")
	}
	err := r.err
	if err == nil {
		err = d.adopt(ctx, r.cfg)
	}
	if err != nil {
		d.reloaded = status.Reload{Success: false, Time: d.reloaded.Time, Error: err.Error()}
		d.log.Error("reload refused: everything goes on with the configuration as it was", "file", d.opts.ConfigFile, "error", err)
		return err
	}
	d.reloaded = status.Reload{Success: true, Time: time.Now()}
	d.log.Info("configuration reloaded", "file", d.opts.ConfigFile)
	return nil
}

func (d *Director) adopt(ctx context.Context, cfg *config.Config) error {
	if err := needsRestart(d.cfg, cfg); err != nil {
		return err
	}
	if err := checkInterfaces(cfg, d.cfg); err != nil {
		return err
	}
	// What doesn't fit would keep every later change, of health too, from the plane.
	if err := d.fits(d.wish(cfg)); err != nil {
		return err
	}
	d.learnHops(ctx, cfg)
	before := d.plane.Plane
	switch had, has := d.plane.Plane != nil, needsPlane(cfg); {
	case !had && has:
		plane, failure := d.plane, d.applyErr
		if err := d.attachFirst(ctx, cfg); err != nil {
			d.plane, d.applyErr = plane, failure
			if len(d.cfg.Services) == 0 {
				d.neigh.Routed(routed(d.cfg))
				d.neigh.Watch(targets(d.cfg), virtual(d.cfg))
				return err
			}
			// There was no plane before either: the new configuration is tried every second like the old one.
		}
	case had && !has:
		d.meter.watch(nil)
		if err := d.plane.remove(); err != nil {
			d.log.Error("the plane of the removed services could not be removed", "error", err)
		}
	}
	for _, w := range cfg.Warnings {
		d.log.Warn("configuration: " + w.String())
	}
	if d.opts.Level != nil {
		d.opts.Level.Set(cfg.Log.Level)
	}
	d.cfg = cfg
	d.meter.watch(d.plane.Plane)
	d.neigh.Routed(routed(cfg))
	d.neigh.Watch(targets(cfg), virtual(cfg))
	d.checks.Configure(d.targets(cfg))
	d.configureElection()
	if d.plane.Plane != before {
		d.giveMaps()
	}
	d.configureTracking(cfg)
	if d.pruneOperator(cfg) {
		d.ordered()
	}
	d.track()
	d.apply(ctx)
	d.remember()
	return nil
}

// attachFirst opens a plane while elections run. Many drivers stop their queues for a first program, some for seconds: a
// BACKUP must not take that for the silence of the MASTER. What is tried again every second has no such word: if it
// never worked, nobody would ever take over.
func (d *Director) attachFirst(ctx context.Context, cfg *config.Config) error {
	d.attaching = true
	d.track()
	defer func() {
		d.attaching = false
		d.track()
	}()
	return d.openPlane(ctx, cfg)
}

// hopPatience is how long a reload waits for the next hops of the real servers that it adds. On a quiet network they
// answer within a millisecond; one that doesn't answer at all gets no client anyway.
const hopPatience = 200 * time.Millisecond

// learnHops finds the next hops of new real servers before the plane hears of them: a service that changes to other
// real servers would refuse its clients until then.
func (d *Director) learnHops(ctx context.Context, cfg *config.Config) {
	old, wanted := targets(d.cfg), targets(cfg)
	added := slices.DeleteFunc(slices.Clone(wanted), func(a netip.Addr) bool { return slices.Contains(old, a) })
	if len(added) == 0 {
		return
	}
	d.neigh.Routed(routed(cfg))
	d.neigh.Watch(append(old, added...), append(virtual(d.cfg), virtual(cfg)...))
	limit := time.After(hopPatience)
	for slices.ContainsFunc(added, func(a netip.Addr) bool { h := d.hops[a]; return h.Err == nil && !h.Local && !h.Routed && !h.Known() }) {
		select {
		case d.hops = <-d.neigh.Changes():
		case <-limit:
			return
		case <-ctx.Done():
			return
		}
	}
}

// needsRestart says what a new configuration changes that a running director can't.
func needsRestart(old, new *config.Config) error {
	var errs []error
	refuse := func(key string, was, is any) {
		if !reflect.DeepEqual(was, is) {
			errs = append(errs, fmt.Errorf("%s changes from %v to %v: this needs a restart", key, was, is))
		}
	}
	for _, o := range old.Instances {
		for _, n := range new.Instances {
			if o.Name == n.Name {
				key := "vrrp.instances " + o.Name + ": "
				refuse(key+"interface", o.Interface, n.Interface)
				refuse(key+"version", o.Version, n.Version)
				refuse(key+"virtual_router_id", o.VirtualRouterID, n.VirtualRouterID)
				refuse(key+"virtual_addresses: family", family(o), family(n))
				refuse(key+"virtual_mac", orNone(o.VirtualMAC), orNone(n.VirtualMAC))
			}
		}
	}
	refuse("state_dir", old.StateDir, new.StateDir)
	refuse("control.socket", old.Control.Socket, new.Control.Socket)
	refuse("metrics.listen", old.Metrics.Listen, new.Metrics.Listen)
	refuse("log.format", old.Log.Format, new.Log.Format)
	refuse("dataplane.pin_path", old.Dataplane.PinPath, new.Dataplane.PinPath)
	if needsPlane(old) && needsPlane(new) {
		refuse("dataplane.mode", old.Dataplane.Mode, new.Dataplane.Mode)
		refuse("dataplane.interfaces", strings.Join(old.Dataplane.Interfaces, ","), strings.Join(new.Dataplane.Interfaces, ","))
		refuse("dataplane.flow_table_size", old.Dataplane.FlowTableSize, new.Dataplane.FlowTableSize)
	}
	return errors.Join(errs...)
}
