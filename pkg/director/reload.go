package director

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/xdirector/xdirector/pkg/config"
	"github.com/xdirector/xdirector/pkg/status"
)

// reload is the outcome of reading the configuration file, on its way to the loop.
type reload struct {
	cfg   *config.Config
	text  []byte // that cfg was made of
	err   error  // the file is invalid
	trial time.Duration
	gone  <-chan struct{} // who wants the trial has gone
	reply chan error
}

// Reload reads the configuration file again. A file that is invalid, or that changes what only a restart can
// change, is refused with all reasons, and everything goes on as it was. What the file leaves as it is, is not
// touched.
func (d *Director) Reload(ctx context.Context) error { return d.readAgain(ctx, 0) }

// ReloadOnTrial is Reload, and watches for so long what comes of it. If something is lost that was served before, or ctx ends
// before the time is over, the old configuration is in force again, and the error says why.
func (d *Director) ReloadOnTrial(ctx context.Context, trial time.Duration) error {
	return d.readAgain(ctx, trial)
}

func (d *Director) readAgain(ctx context.Context, trial time.Duration) error {
	// One at a time from the reading to the end: of two, the one that has read an older file could come last. But a trial is
	// not waited for: who reloads then doesn't know of it.
	select {
	case d.reading <- struct{}{}:
	default:
		if until := d.trialEnd.Load(); until != nil {
			err := fmt.Errorf("the reload before this one is on trial until %s: end it with Ctrl-C where it was begun, or wait", until.Format(time.TimeOnly))
			d.log.Warn("reload refused: " + err.Error())
			return err
		}
		select {
		case d.reading <- struct{}{}:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	defer func() { <-d.reading }()
	cfg, text, err := config.LoadText(d.opts.ConfigFile)
	r := reload{cfg: cfg, text: text, err: err, trial: trial, gone: ctx.Done(), reply: make(chan error, 1)}
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

// reload makes the new configuration the one in use, or says why not. Of one on trial, the answer comes at its end.
func (d *Director) reload(ctx context.Context, r reload) {
	if d.stopping { // says nothing about the file
		d.log.Warn("reload refused: this director is stopping; the next start reads the file", "file", d.opts.ConfigFile)
		r.reply <- errors.New("this director is stopping; the next start reads the file")
		return
	}
	err := r.err
	if err == nil {
		err = d.acceptable(r.cfg)
	}
	var t *trial
	if err == nil && r.trial > 0 {
		t, err = d.beginTrial(r)
	}
	if err == nil {
		err = d.adopt(ctx, r.cfg)
	}
	if err != nil {
		if t != nil {
			d.setAside()
		}
		d.reloaded = status.Reload{Success: false, Time: d.reloaded.Time, Error: err.Error()}
		d.log.Error("reload refused: everything goes on with the configuration as it was", "file", d.opts.ConfigFile, "error", err)
		d.publish()
		r.reply <- err
		return
	}
	d.text, d.reloaded = r.text, status.Reload{Success: true, Time: time.Now()}
	if t != nil {
		d.watch(t)
		d.publish()
		return
	}
	d.setAside()
	d.settle()
	d.log.Info("configuration reloaded", "file", d.opts.ConfigFile)
	d.publish()
	r.reply <- nil
}

// acceptable says why a valid configuration can't take the place of the one in force; nil: it can.
func (d *Director) acceptable(cfg *config.Config) error {
	if err := needsRestart(compare(d.cfg, cfg, here{})); err != nil {
		return err
	}
	return d.possible(cfg)
}

// possible says why this box has no place for a configuration.
func (d *Director) possible(cfg *config.Config) error {
	if err := checkInterfaces(cfg, d.cfg); err != nil {
		return err
	}
	// What doesn't fit would keep every later change, of health too, from the plane.
	return d.fits(d.wish(cfg))
}

// adopt puts a configuration into force.
func (d *Director) adopt(ctx context.Context, cfg *config.Config) error {
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
	d.configureNotifying()
	d.meter.watch(d.plane.Plane)
	d.neigh.Routed(routed(cfg))
	d.neigh.Watch(targets(cfg), virtual(cfg))
	d.checks.Configure(d.targets(cfg))
	d.configureElection()
	if d.plane.Plane != before {
		d.giveMaps()
	}
	d.configureTracking(cfg)
	d.track()
	d.apply(ctx)
	d.remember()
	return nil
}

// settle forgets what operators wished of things that are no longer configured.
func (d *Director) settle() {
	if d.pruneOperator(d.cfg) {
		d.ordered()
	}
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

// How long a reload waits for the next hops of the real servers that it adds. On a quiet network they answer within a
// millisecond; one that doesn't answer at all gets no client anyway. A service that has clients and would have no real server to
// send them to waits for the answer to a second request, which the kernel sends a second after the first.
const (
	hopPatience     = 200 * time.Millisecond
	lastHopPatience = 2 * time.Second
)

// learnHops finds the next hops of new real servers before the plane hears of them: a service that changes to other
// real servers would refuse its clients until then.
func (d *Director) learnHops(ctx context.Context, cfg *config.Config) {
	old, wanted := targets(d.cfg), targets(cfg)
	known := map[netip.Addr]bool{}
	for _, a := range old {
		known[a] = true
	}
	added := slices.DeleteFunc(slices.Clone(wanted), func(a netip.Addr) bool { return known[a] })
	if len(added) == 0 {
		return
	}
	d.neigh.Routed(routed(cfg))
	d.neigh.Watch(append(old, added...), append(virtual(d.cfg), virtual(cfg)...))
	limit, lastLimit, patient := time.After(hopPatience), time.After(lastHopPatience), true
	for patient && slices.ContainsFunc(added, d.resolving) || d.strands(cfg) {
		select {
		case d.hops = <-d.neigh.Changes():
		case <-limit:
			patient = false
		case <-lastLimit:
			return
		case <-ctx.Done():
			return
		}
	}
}

// resolving says that the next hop of a real server is asked for and has not answered.
func (d *Director) resolving(a netip.Addr) bool {
	h := d.hops[a]
	return h.Err == nil && !h.Local && !h.Routed && !h.Known()
}

// strands says that a service of now would have no real server whose next hop is known.
func (d *Director) strands(cfg *config.Config) bool {
	return slices.ContainsFunc(cfg.Services, func(s config.Service) bool {
		return d.service(s.Name) != nil && len(s.RealServers) > 0 &&
			!slices.ContainsFunc(s.RealServers, func(r config.RealServer) bool { return !d.resolving(r.Address) })
	})
}
