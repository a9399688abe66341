package director

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sort"
	"strings"
	"sync/atomic"
	"time"

	"github.com/xdirector/xdirector/pkg/config"
	"github.com/xdirector/xdirector/pkg/ipvs"
	"github.com/xdirector/xdirector/pkg/lb"
	"github.com/xdirector/xdirector/pkg/xdp"
)

// Plane forwards packets.
type Plane interface {
	// Apply makes the plane as the State says, and writes only what differs.
	Apply(ctx context.Context, s lb.State) error
	// Counters reads what was counted. It may be called beside Apply.
	Counters() (lb.Counters, error)
	// Close lets go of the plane, which goes on forwarding.
	Close() error
	// Remove ends the forwarding and leaves nothing behind.
	Remove() error
}

// plane is the Plane in use, and why. The zero value is the plane of a director without services.
type plane struct {
	Plane
	name   lb.Plane
	reason string
	modes  map[string]xdp.Mode // by interface

	offloads    string   // what is done about packets that were merged before generic XDP sees them
	differences []string // what the kernel has set otherwise than the plane needs it
}

// why says for which reason the plane is in use, and what it does about offloads.
func (p *plane) why() string {
	if p.offloads == "" {
		return p.reason
	}
	return p.reason + "; " + p.offloads
}

func (p *plane) close() {
	if p.Plane != nil {
		p.Plane.Close()
	}
}

// remove ends the forwarding of the plane, if there is one.
func (p *plane) remove() error {
	if p.Plane == nil {
		return nil
	}
	err := p.Remove()
	*p = plane{}
	if err != nil {
		return fmt.Errorf("remove the plane: %w", err)
	}
	return nil
}

// openPlane opens the first plane that dataplane.mode allows and that works here, filled with what cfg wishes
// before the first packet reaches it. What an earlier run left on the other plane is removed.
func (d *Director) openPlane(ctx context.Context, cfg *config.Config) error {
	d.applied, d.applyErr = nil, nil
	stateFile := ipvsFile(cfg)
	if filtersAlone(cfg) {
		d.cleanIPVS(stateFile)
		return d.openFilter(ctx, cfg)
	}
	if len(cfg.Services) == 0 {
		d.plane = plane{reason: "no services"}
		d.cleanXDP(cfg)
		d.cleanIPVS(stateFile)
		return nil
	}
	reason := "dataplane.mode is ipvs"
	if cfg.Dataplane.Mode != "ipvs" {
		p, err := d.openXDP(ctx, cfg)
		if err == nil {
			d.plane = p
			d.openBeside(ctx, cfg, stateFile)
			return nil
		}
		if errors.Is(err, xdp.ErrInUse) {
			return err // IPVS would work, but two directors with one configuration are a mistake
		}
		if cfg.Dataplane.Mode != "auto" {
			return fmt.Errorf("dataplane.mode %s does not work here: %w; cure that, or set dataplane.mode to auto", cfg.Dataplane.Mode, err)
		}
		reason = err.Error()
	}
	p, err := ipvs.Open(stateFile, d.log)
	if err != nil {
		return fmt.Errorf("no plane works here: xdp: %s; ipvs: %w", reason, err)
	}
	d.plane = plane{Plane: p, name: lb.IPVS, reason: reason}
	d.apply(ctx)
	// Only now: while the virtual addresses are here and nothing forwards, every packet would be answered by a reset.
	// Programs that are still attached take all packets before IPVS sees them.
	d.cleanXDP(cfg)
	d.log.Info("packets are forwarded by IPVS", "reason", reason)
	return nil
}

// openFilter attaches the XDP programs for adverts alone. An election works without them: what keeps them off is told, and
// tried again now and then.
func (d *Director) openFilter(ctx context.Context, cfg *config.Config) error {
	before := d.plane.reason
	p, err := d.openXDP(ctx, cfg)
	if errors.Is(err, xdp.ErrInUse) {
		return err
	}
	if err != nil {
		p = plane{reason: "no services, and adverts can't be filtered: " + err.Error()}
		if p.reason != before {
			d.log.Warn("adverts are not filtered", "vrrp_fast_path", cfg.Dataplane.VRRPFastPath, "error", err)
		}
	}
	d.plane, d.appliedAt = p, time.Now()
	return nil
}

// cleanXDP removes what a run that was killed left attached and pinned.
func (d *Director) cleanXDP(cfg *config.Config) {
	if err := xdp.Cleanup(cfg.Dataplane.PinPath); err != nil {
		d.log.Warn("XDP programs of an earlier run could not be removed", "pin_path", cfg.Dataplane.PinPath, "error", err)
	}
}

// cleanIPVS removes the services that a run that was killed left in IPVS.
func (d *Director) cleanIPVS(stateFile string) {
	if err := ipvs.Cleanup(stateFile, d.log); err != nil {
		d.log.Warn("services of an earlier run could not be removed from IPVS; see ipvsadm -Ln", "error", err)
	}
}

func (d *Director) openXDP(ctx context.Context, cfg *config.Config) (plane, error) {
	modes := []xdp.Mode{xdp.Native, xdp.Generic}
	switch cfg.Dataplane.Mode {
	case string(lb.XDPNative):
		modes = modes[:1]
	case string(lb.XDPGeneric):
		modes = modes[1:]
	}
	x, err := xdp.Open(xdp.Config{
		Interfaces:    cfg.Dataplane.Interfaces,
		PinPath:       cfg.Dataplane.PinPath,
		FlowTableSize: cfg.Dataplane.FlowTableSize,
	}, d.log)
	if err != nil {
		return plane{}, err
	}
	p := plane{Plane: d.withIPVS(x, cfg), name: lb.XDPNative}
	d.plane = p // for the wish, which depends on the plane's kind
	state, _ := divide(d.wish(cfg))
	err = x.Apply(ctx, state)
	if err == nil {
		p.modes, err = x.Attach(modes...)
	}
	if err != nil {
		d.plane = plane{}
		if cleanup := x.Remove(); cleanup != nil {
			d.log.Warn("XDP programs could not be removed", "pin_path", cfg.Dataplane.PinPath, "error", cleanup)
		}
		return plane{}, err
	}
	var generic, all []string
	for name, mode := range p.modes {
		all = append(all, name)
		if mode == xdp.Generic {
			generic = append(generic, name)
		}
	}
	sort.Strings(all)
	sort.Strings(generic)
	p.reason = "native XDP works on " + strings.Join(all, ", ")
	if len(generic) > 0 {
		p.name = lb.XDPGeneric
		p.reason = "dataplane.mode is xdp-generic"
		if cfg.Dataplane.Mode == "auto" {
			p.reason = x.Reason()
		}
	}
	what := "packets are forwarded by XDP"
	if len(cfg.Services) == 0 {
		what = "adverts are filtered by XDP"
	}
	d.log.Info(what, "plane", p.name, "interfaces", strings.Join(all, ","), "reason", p.reason)
	return p, nil
}

// withIPVS is an XDP plane that can have IPVS beside it.
func (d *Director) withIPVS(x *xdp.Plane, cfg *config.Config) *both {
	return &both{Plane: x, xdp: x, log: d.log, open: func() (Plane, error) {
		p, err := ipvs.Open(ipvsFile(cfg), d.log)
		if err != nil {
			return nil, err // a nil *ipvs.Plane would be a Plane
		}
		return p, nil
	}}
}

// openBeside puts what only IPVS can serve there, or removes what an earlier run left. The others don't depend on that: a
// failure is told, and tried again every second.
func (d *Director) openBeside(ctx context.Context, cfg *config.Config, stateFile string) {
	_, state := divide(d.wish(cfg))
	if len(state.Services) == 0 {
		d.cleanIPVS(stateFile)
		return
	}
	if d.applyErr = d.plane.Plane.(*both).applyIPVS(ctx, state); d.applyErr != nil {
		d.log.Error("the plane could not be updated; tried again every second", "plane", lb.IPVS, "error", d.applyErr)
	}
}

// ipvsFile remembers which services of IPVS are ours.
func ipvsFile(cfg *config.Config) string { return filepath.Join(cfg.StateDir, "ipvs.json") }

func (d *Director) planeName() string {
	if d.plane.name == "" {
		return "none"
	}
	return string(d.plane.name)
}

// meter reads the counters of the plane beside the loop, which never waits for a large table: at most a fifth of
// one CPU's time is spent on it.
type meter struct {
	plane    atomic.Pointer[Plane]
	latest   atomic.Pointer[measurement]
	err      atomic.Pointer[error]
	readings chan struct{} // one value: there is a new reading
}

func newMeter() *meter { return &meter{readings: make(chan struct{}, 1)} }

// watch says which plane is to be read; nil: none.
func (m *meter) watch(p Plane) { m.plane.Store(&p) }

func (m *meter) run(ctx context.Context) error {
	wait := time.Duration(0)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
		wait = tick
		p := m.plane.Load()
		if p == nil || *p == nil {
			continue
		}
		began := time.Now()
		counters, err := (*p).Counters()
		wait = max(tick, 4*time.Since(began))
		m.err.Store(&err)
		if err == nil {
			m.latest.Store(&measurement{counters, began})
		}
		select {
		case m.readings <- struct{}{}:
		default:
		}
	}
}

// measurement is what was counted by then.
type measurement struct {
	lb.Counters
	at time.Time
}

// counters are the latest ones, and when they were read; zero: never.
func (m *meter) counters() (lb.Counters, time.Time) {
	if c := m.latest.Load(); c != nil {
		return c.Counters, c.at
	}
	return lb.Counters{}, time.Time{}
}

func (m *meter) failure() error {
	if e := m.err.Load(); e != nil {
		return *e
	}
	return nil
}
