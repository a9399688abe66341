package director

import (
	"context"
	"errors"
	"net/netip"
	"reflect"
	"slices"
	"time"

	"github.com/xdirector/xdirector/pkg/config"
	"github.com/xdirector/xdirector/pkg/lb"
	"github.com/xdirector/xdirector/pkg/vrrp"
	"github.com/xdirector/xdirector/pkg/xdp"
)

// apply makes the plane as wished, if the wish is a new one. A failure is logged once and tried again at each tick:
// the plane stays as it is meanwhile.
func (d *Director) apply(ctx context.Context) {
	d.judge()
	if d.plane.Plane == nil {
		return
	}
	state := d.wish(d.cfg)
	if d.applied == nil || d.applyErr != nil || !same(*d.applied, state) {
		d.enforce(ctx, state)
	}
}

// same says that two wishes are one. Real servers, of which there may be very many, are compared without reflection.
func same(a, b lb.State) bool {
	return slices.EqualFunc(a.Services, b.Services, func(a, b lb.Service) bool {
		equal := slices.Equal(a.RealServers, b.RealServers)
		a.RealServers, b.RealServers = nil, nil
		return equal && reflect.DeepEqual(a, b)
	}) && slices.Equal(a.Directors, b.Directors) && reflect.DeepEqual(a.Routers, b.Routers)
}

// enforce applies the state, and makes the plane anew if its interface was: at once, since the election goes on as
// soon as the new interface works, and a MASTER without a plane refuses clients.
func (d *Director) enforce(ctx context.Context, state lb.State) {
	d.applyState(ctx, state)
	if errors.Is(d.applyErr, xdp.ErrReplaced) {
		d.reopen(ctx)
	}
}

// applyAnyway has the plane compare itself with the wish even if that is the same.
func (d *Director) applyAnyway(ctx context.Context) {
	if d.plane.Plane != nil {
		d.applyState(ctx, d.wish(d.cfg))
	}
}

// reapply has the plane compare itself with the wish even if that is the same: the plane may have lost something,
// and an interface may have another MAC address. A plane that needs long for that is asked less often.
func (d *Director) reapply(ctx context.Context) {
	switch {
	case d.plane.Plane == nil && len(d.cfg.Services) > 0:
		d.reopen(ctx)
	case d.plane.Plane == nil && filtersAlone(d.cfg) && time.Since(d.appliedAt) > filterRetry:
		d.reopen(ctx)
	case d.plane.Plane == nil || time.Since(d.appliedAt) < 20*d.applyTook:
	default:
		d.enforce(ctx, d.wish(d.cfg))
	}
}

// reopen makes the plane anew, on the interfaces as they are now.
func (d *Director) reopen(ctx context.Context) {
	before := d.applyErr
	d.meter.watch(nil)
	d.plane.close()
	if err := d.openPlane(ctx, d.cfg); err != nil {
		if before == nil || before.Error() != err.Error() {
			d.log.Error("no packet is forwarded; tried again every second", "error", err)
		}
		d.plane, d.applyErr = plane{reason: err.Error()}, err
	}
	d.meter.watch(d.plane.Plane)
	d.giveMaps()
}

// filterRetry is the time between attempts to attach programs for adverts alone.
const filterRetry = 10 * time.Second

func (d *Director) applyState(ctx context.Context, state lb.State) {
	began := time.Now()
	err := d.plane.Apply(ctx, state)
	d.appliedAt, d.applyTook = time.Now(), time.Since(began)
	if err != nil && (d.applyErr == nil || d.applyErr.Error() != err.Error()) {
		d.log.Error("the plane could not be updated; tried again every second", "plane", d.planeName(), "error", err)
	}
	if err == nil && d.applyErr != nil {
		d.log.Info("the plane is up to date again", "plane", d.planeName())
	}
	d.applied, d.applyErr = &state, err
	d.tellSlots()
	if x, ok := d.plane.Plane.(interface{ Offloads() string }); ok {
		d.plane.offloads = x.Offloads()
	}
	if reporter, ok := d.plane.Plane.(interface{ Differences() []string }); ok {
		d.plane.differences = reporter.Differences()
	}
}

func (d *Director) wish(cfg *config.Config) lb.State {
	state := wish(cfg, d.plane.name, d.facts(cfg))
	if d.plane.name.IsXDP() {
		state.Routers = routers(cfg, d.report.Instances)
		if d.applied != nil {
			more := state
			more.Routers = append(more.Routers, leaving(cfg, d.applied.Routers, d.report.Instances)...)
			if d.fits(more) == nil {
				state = more
			}
		}
	}
	return state
}

// facts are those of this moment, for a configuration. They are not to be kept: the loop changes them.
func (d *Director) facts(cfg *config.Config) facts {
	f := facts{
		now: time.Now(), servers: d.servers, overrides: d.operator.Servers, lost: d.lost(),
		hops: d.hops, directors: d.directors(), held: map[netip.Addr]bool{},
	}
	states := map[string]vrrp.State{}
	for _, i := range d.report.Instances {
		states[i.Name] = i.State
	}
	for _, i := range cfg.Instances {
		for _, a := range i.Held() {
			f.held[a.Prefix.Addr()] = f.held[a.Prefix.Addr()] || states[i.Name] == vrrp.Master
		}
	}
	return f
}

// fits says why the plane has no room for a state; nil: it has.
func (d *Director) fits(s lb.State) error {
	if bounded, ok := d.plane.Plane.(interface{ Fits(lb.State) error }); ok {
		return bounded.Fits(s)
	}
	return nil
}

// directors lists every other box whose adverts were accepted since the start, each once.
func (d *Director) directors() []lb.Director {
	var list []lb.Director
	seen := map[lb.Director]bool{}
	for _, i := range d.report.Instances {
		for _, p := range i.Peers {
			if !seen[p] {
				seen[p] = true
				list = append(list, p)
			}
		}
	}
	return list
}
