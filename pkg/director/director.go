// Package director is the loop that makes one director of the parts: it wishes a state from configuration, health
// and next hops, has the plane apply it, reloads, and publishes the picture of the whole. One goroutine owns all
// of that; the others send it messages.
package director

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/xdirector/xdirector/pkg/config"
	"github.com/xdirector/xdirector/pkg/control"
	"github.com/xdirector/xdirector/pkg/ha"
	"github.com/xdirector/xdirector/pkg/health"
	"github.com/xdirector/xdirector/pkg/lb"
	"github.com/xdirector/xdirector/pkg/metrics"
	"github.com/xdirector/xdirector/pkg/neigh"
	"github.com/xdirector/xdirector/pkg/notify"
	"github.com/xdirector/xdirector/pkg/status"
	"github.com/xdirector/xdirector/pkg/vrrp"
	statuspage "github.com/xdirector/xdirector/pkg/web"
)

const (
	tick         = time.Second           // period of the watchdog, of retries and of an idle director's picture
	pictureDelay = 20 * time.Millisecond // from a change to the picture that shows it: many changes, one picture
	longestStop  = 84 * time.Second      // the supervisor waits a little longer
	loopStuck    = 5 * time.Second       // without a turn of the loop: unhealthy
	reportLate   = 30 * time.Second      // without a report of the election, of which one comes every eleven seconds at least: unhealthy
)

// Options are what a Director is made of besides its configuration file.
type Options struct {
	ConfigFile string
	Version    string
	Log        *slog.Logger
	Level      *slog.LevelVar // set to log.level of the configuration; nil: not set
	// Notify tells the service manager (sd_notify); nil: there is none. WATCHDOG=1 says that the loop turns.
	Notify func(state string)
	// Election starts the election with its first configuration; nil: one in this process.
	Election func(cfg ha.Config) Election
}

// Director is one running director.
type Director struct {
	opts    Options
	log     *slog.Logger
	picture atomic.Pointer[status.Status]

	pictureTook time.Duration // to make the last one
	events      status.Feed
	reloads     chan reload
	reading     chan struct{} // one value: a reload is under way

	trialEnd atomic.Pointer[time.Time] // of the reload that is on trial; nil: none is
	stops    chan struct{}
	stop     sync.Once

	commands chan func() // of operators, for the loop to do

	// Owned by the goroutine of Run.
	cfg       *config.Config
	text      []byte // that cfg was made of
	trial     *trial // nil: none
	started   time.Time
	reloaded  status.Reload
	ha        Election
	report    ha.Report
	reportAt  time.Time
	orders    uint64 // of operators, about elections
	instances instances
	checks    *health.Runner
	servers   map[lb.ServerKey]*server
	named     struct { // the services of cfg by name, see service
		cfg      *config.Config
		services map[string]*config.Service
	}
	quorums   map[string]quorum // by service
	neigh     nextHops
	hops      map[netip.Addr]neigh.Hop
	plane     plane
	slots     map[string]uint32 // of the instances in the plane, as the election knows them
	applied   *lb.State
	appliedAt time.Time
	applyTook time.Duration
	applyErr  error
	attaching bool // the first programs, while elections run
	meter     *meter
	ledger    ledger

	unrecorded map[string]unrecorded // by file
	stopping   bool
	notified   string
	wasMaster  bool
	tracking   tracking
	operator   operator
	notifier   *notify.Notifier
	expiry     <-chan time.Time // of the failover, or the drain's deadline, that ends next
}

// Election runs the instances: ha.Runtime in this process, or one in a process of its own (supervisor.Agent); see there.
type Election interface {
	Run(ctx context.Context) error // until ctx ends, or with the error of the start
	Configure(cfg ha.Config)
	Track(by map[string]ha.Track)
	Stop()
	Reports() <-chan ha.Report
	// Maps gives the election the files of xdp.Files (Words, Events, Timers), and takes them over. None: there is no plane.
	Maps(files []*os.File)
}

// nextHops finds the ways to real servers; see neigh.Watcher.
type nextHops interface {
	Watch(targets, virtual []netip.Addr)
	Routed(targets []netip.Addr)
	Changes() <-chan map[netip.Addr]neigh.Hop
	Source(target netip.Addr) (netip.Addr, error)
}

// New reads the configuration and returns a director that is not running yet. An invalid file is a
// config.Problems.
func New(opts Options) (*Director, error) {
	cfg, text, err := config.LoadText(opts.ConfigFile)
	if err != nil {
		return nil, err
	}
	d := &Director{
		opts:    opts,
		log:     opts.Log,
		cfg:     cfg,
		text:    text,
		reloads: make(chan reload),
		reading: make(chan struct{}, 1),
		stops:   make(chan struct{}),
		servers: map[lb.ServerKey]*server{},

		commands: make(chan func()),
	}
	d.reloaded = status.Reload{Success: true, Time: time.Now()}
	d.recallTrial()
	return d, nil
}

// Config returns the configuration that the director begins with.
func (d *Director) Config() *config.Config { return d.cfg }

// Stop begins the orderly end: hand over, linger, detach. Run returns when it is done. It never blocks.
func (d *Director) Stop() { d.stop.Do(func() { close(d.stops) }) }

// Run directs until Stop is through, and returns nil then. When ctx ends first it leaves at once and touches
// nothing, as a crash would: packets go on being forwarded by what is in the kernel.
func (d *Director) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	d.started = time.Now()
	d.reloaded.Time = d.started
	if !d.reloaded.Success {
		d.log.Error(d.reloaded.Error, "file", d.opts.ConfigFile)
	}
	if d.opts.Level != nil {
		d.opts.Level.Set(d.cfg.Log.Level)
	}
	for _, w := range d.cfg.Warnings {
		d.log.Warn("configuration: " + w.String())
	}
	listener, err := control.Listen(d.cfg.Control.Socket)
	if err != nil {
		cancel(nil)
		return err
	}
	d.recall()
	d.openLedger()
	defer d.ledger.counters.Close()

	var parts sync.WaitGroup
	defer parts.Wait()
	defer cancel(nil)
	part := func(name string, run func(context.Context) error) {
		parts.Go(func() {
			if err := run(ctx); err != nil && ctx.Err() == nil {
				cancel(fmt.Errorf("%s: %w", name, err))
			}
		})
	}
	d.recallOperator()
	d.setExpiry()
	d.judge()
	d.startTracking()
	part("tracking", d.tracking.runner.Run)
	d.startNotifying()
	part("notifications", d.notifier.Run)
	part("control socket", func(ctx context.Context) error { return control.Serve(ctx, listener, d, d.log) })

	watcher := neigh.New(d.log)
	d.neigh = watcher
	d.neigh.Routed(routed(d.cfg))
	d.neigh.Watch(d.answering(), virtual(d.cfg))
	part("next hops", watcher.Run)
	select {
	case d.hops = <-d.neigh.Changes():
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	d.neigh.Watch(targets(d.cfg), virtual(d.cfg))
	if err := d.awaitInterfaces(ctx, net.Interfaces); errors.Is(err, errNoInterfaces) {
		d.plane = plane{reason: err.Error()}
	} else if err != nil {
		return err
	} else if err := d.openPlane(ctx, d.cfg); err != nil {
		return err
	}
	defer func() { d.plane.close() }()
	d.meter = newMeter()
	part("counters", d.meter.run)
	d.meter.watch(d.plane.Plane)

	d.checks = health.New(d.checkSource, d.log)
	d.checks.Configure(d.targets(d.cfg))
	part("checks", d.checks.Run)
	d.slots = planeSlots(d.plane)
	if d.opts.Election != nil {
		d.ha = d.opts.Election(haConfig(d.cfg, d.slots))
	} else {
		d.ha = local{ha.New(haConfig(d.cfg, d.slots), d.log)}
	}
	d.giveMaps()
	d.awaitFirstLook(ctx)
	d.track()
	part("election", d.ha.Run)
	select {
	case r := <-d.ha.Reports():
		d.onReport(ctx, r)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	d.publish()
	page := statuspage.New(d.Status, d.Events())
	part("status page", page.Run)
	part("metrics", func(ctx context.Context) error {
		return metrics.Serve(ctx, d.cfg.Metrics.Listen, metrics.Handler(d.Status, page), d.log)
	})
	d.notify("READY=1")
	d.log.Info("ready", "router_id", d.routerID(), "version", d.opts.Version, "plane", d.planeName(), "reason", d.plane.reason)
	return d.loop(ctx)
}

// loop turns until the director has stopped.
func (d *Director) loop(ctx context.Context) error {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	stops := d.stops
	var lingerOver, soon <-chan time.Time
	stopping := time.Now()
	for {
		if d.report.Stopped && lingerOver == nil { // maybe before this agent, which came while all stops
			linger := time.Duration(0)
			if d.wasMaster {
				linger = max(0, min(d.cfg.Dataplane.Linger, longestStop-time.Since(stopping)))
			}
			lingerOver = time.After(linger)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-stops:
			stops = nil
			d.stopping, stopping = true, time.Now()
			d.trial.end(errors.New("this director is stopping; the next start reads the file"))
			d.log.Info("stopping: handing over")
			d.notify("STOPPING=1")
			d.ha.Stop()
		case r := <-d.ha.Reports():
			d.onReport(ctx, r)
		case <-lingerOver:
			d.forget()
			err := d.plane.remove()
			d.finishNotifying(stopping)
			d.log.Info("stopped")
			return err
		case result := <-d.checks.Results():
			d.onResults(ctx, result, d.checks.Results())
		case d.hops = <-d.neigh.Changes():
			d.applyAnyway(ctx) // it may be news of an own MAC address, which no wish holds
		case r := <-d.reloads:
			d.reload(ctx, r)
		case seen := <-d.tracking.runner.Changes():
			d.onTracked(seen)
		case command := <-d.commands:
			command()
		case <-d.expiry:
			d.ordered()
			d.apply(ctx)
		case <-d.meter.readings:
		case <-ticker.C:
			d.reapply(ctx)
			d.keepCounters()
			d.recordAgain()
			d.notify("WATCHDOG=1")
		case <-soon:
			soon = nil
			d.publish()
			d.watchTrial(ctx)
			continue
		case <-d.trial.over():
			d.publish()
			d.endTrial(ctx)
		case <-d.trial.abandoned():
			d.rollBack(ctx, "the command that began it has ended, by Ctrl-C or with the operator's session")
		}
		if soon == nil {
			soon = time.After(min(max(pictureDelay, 4*d.pictureTook), tick)) // at most a fifth of one CPU, however many services there are
		}
	}
}

func (d *Director) onReport(ctx context.Context, r ha.Report) {
	d.report, d.reportAt = r, time.Now()
	for _, i := range r.Instances {
		d.wasMaster = d.wasMaster || i.State == vrrp.Master || i.Transitions[vrrp.Master] > 0
	}
	d.apply(ctx)
	text := ""
	for i, instance := range r.Instances {
		if i > 0 {
			text += ", "
		}
		text += instance.Name + " " + instance.State.String()
	}
	if text != d.notified {
		d.notified = text
		d.notify("STATUS=" + text)
	}
}

func (d *Director) notify(state string) {
	if d.opts.Notify != nil {
		d.opts.Notify(state)
	}
}

func (d *Director) routerID() string { return RouterID(d.cfg) }

// RouterID is the name of the director: router_id of its configuration, else the host name.
func RouterID(cfg *config.Config) string {
	if cfg.RouterID != "" {
		return cfg.RouterID
	}
	name, err := os.Hostname()
	if err != nil {
		return "unknown"
	}
	return name
}

// targets lists the addresses of all real servers and sorry servers, each once.
func targets(cfg *config.Config) []netip.Addr {
	var list []netip.Addr
	seen := map[netip.Addr]bool{}
	for _, s := range cfg.Services {
		for _, r := range s.RealServers {
			if !seen[r.Address] {
				seen[r.Address] = true
				list = append(list, r.Address)
			}
		}
		if sorry := s.SorryServer.Address; sorry.IsValid() && !seen[sorry] {
			seen[sorry] = true
			list = append(list, sorry)
		}
	}
	return list
}

// routed lists the real servers that IPVS sends to by the kernel's routes: with a translated address, or in a tunnel. One that
// is behind direct return too must be on a LAN of this box all the same.
func routed(cfg *config.Config) []netip.Addr {
	by := map[netip.Addr]bool{}
	for _, s := range cfg.Services {
		for _, r := range s.RealServers {
			before, known := by[r.Address]
			by[r.Address] = s.Forwarding != lb.Direct && (before || !known)
		}
	}
	var list []netip.Addr
	for a, is := range by {
		if is {
			list = append(list, a)
		}
	}
	return list
}

// answering lists the addresses of the real servers that were not down before a restart, each once: their next hops
// are waited for. To wait a second for one that is dead would cost who was MASTER until a moment ago that role.
func (d *Director) answering() []netip.Addr {
	var list []netip.Addr
	seen := map[netip.Addr]bool{}
	for _, s := range d.cfg.Services {
		for _, r := range s.RealServers {
			known, ok := d.servers[lb.ServerKey{Service: serviceKey(s), Address: r.Address}]
			if (!ok || known.up) && !seen[r.Address] {
				seen[r.Address] = true
				list = append(list, r.Address)
			}
		}
	}
	return list
}
