package ha

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"reflect"
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xdirector/xdirector/pkg/lb"
	"github.com/xdirector/xdirector/pkg/vrrp"
)

// Bounds of what is taken out of a queue before the timers are looked at again, so that a flood stops no advert. A
// receive queue never holds more than the second.
const (
	receiveBatch = 64
	drainLimit   = 2048
)

// reportInterval is the longest time between two reports.
const reportInterval = time.Second

// loop owns the machines and their timers.
type loop struct {
	runtime  *Runtime
	log      *slog.Logger
	cfg      Config
	host     *host // of the holders
	snapshot snapshot
	owns     map[int][]ownAddress // see own; by interface index, until something changes
	stopping bool
	changed  bool // an instance is gone: a report is due
	opened   bool // all sockets of the first configuration are open: reports may go out

	instances []*instance
	ports     map[string]*port
	buffer    [2048]byte // larger than any advert: 60 of header, 8, 255 addresses of 4, 8

	wire      *wire
	readable  chan *port
	claimed   chan claim
	gone      chan *holder
	abandoned chan struct{}
	wg        sync.WaitGroup // of the holders
}

// Run runs the instances until Stop is through, and returns nil then. When ctx ends it leaves at once and touches
// nothing, as a crash would: addresses stay until their lifetime ends, nobody is told; the error is ctx's. An error
// of the start (an interface that doesn't exist, no permission) is returned at once, and nothing is left behind.
// Everything is opened in the network namespace of the calling thread. Run may be called once.
func (r *Runtime) Run(ctx context.Context) error {
	// Sysctls and new sockets belong to the namespace of the thread.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	queue := newLogQueue()
	defer queue.close()
	l := &loop{
		runtime:   r,
		log:       queue.logger(r.log),
		ports:     map[string]*port{},
		owns:      map[int][]ownAddress{},
		readable:  make(chan *port),
		claimed:   make(chan claim),
		gone:      make(chan *holder),
		abandoned: make(chan struct{}),
	}
	cfg, _, stopping := r.mail()
	w, err := l.open(cfg)
	if w != nil {
		defer w.close()
	}
	defer l.leave()
	if err != nil {
		return err
	}
	if stopping {
		l.stop()
	}
	return l.run(ctx, w)
}

// apply makes the instances those of the configuration.
func (l *loop) apply(cfg Config) {
	clear(l.owns)
	sameLife := cfg.DeadMan == l.cfg.DeadMan
	l.cfg = cfg
	now := clock(unix.CLOCK_MONOTONIC)
	for _, i := range slices.Clone(l.instances) {
		at := slices.IndexFunc(cfg.Instances, func(c Instance) bool { return c.Name == i.cfg.Name })
		if at < 0 && !i.leaving {
			i.leaving = true
			i.step(now, vrrp.Stop{}, lb.MAC{})
		}
	}
	for _, c := range cfg.Instances {
		at := slices.IndexFunc(l.instances, func(i *instance) bool { return i.cfg.Name == c.Name })
		if at < 0 {
			if !l.handingOver(c) {
				l.start(c)
			}
			continue
		}
		i := l.instances[at]
		if i.leaving {
			continue // comes back when it is gone: see released
		}
		same := reflect.DeepEqual(i.cfg, c)
		if !same || !sameLife {
			i.holder.set(func(w *wish) { w.instance, w.deadMan = c, cfg.DeadMan })
		}
		if !same {
			i.cfg, i.changed = c, true
			i.step(now, vrrp.Configure{Config: c.VRRP}, lb.MAC{})
		}
	}
}

// handingOver says whether an instance that leaves is not yet through with what the new one needs: its VRID, since
// adverts reach one instance only and the new one would take that for the silence of a MASTER, or one of its
// addresses, which would look like somebody else's. The new one starts when the old one is gone: see released.
func (l *loop) handingOver(c Instance) bool {
	return slices.ContainsFunc(l.instances, func(i *instance) bool {
		return i.leaving && i.cfg.Interface == c.Interface && (i.cfg.VRRP.VRID == c.VRRP.VRID ||
			slices.ContainsFunc(c.VRRP.Addresses, func(a netip.Addr) bool { return slices.Contains(i.cfg.VRRP.Addresses, a) }))
	})
}

// start makes an instance; it takes part when its holder has looked around.
func (l *loop) start(c Instance) {
	log := l.log.With("instance", c.Name)
	h := &holder{log: log, host: l.host, claimed: l.onClaim, gone: l.onGone, abandon: l.abandoned, wake: make(chan struct{}, 1)}
	i := &instance{cfg: c, log: log, machine: vrrp.New(c.VRRP), holder: h, port: l.ports[c.Interface], notices: newNotices(log),
		since: time.Now(), reason: "starting", changed: true, into: map[vrrp.State]uint64{}, refused: map[vrrp.Reason]uint64{}}
	h.wish = wish{instance: c, deadMan: l.cfg.DeadMan, links: l.snapshot}
	l.instances = append(l.instances, i)
	l.wg.Go(h.run)
}

// onClaim, onGone and poke are called by others than the loop.
func (l *loop) onClaim(c claim) {
	select {
	case l.claimed <- c:
	case <-l.abandoned:
	}
}

func (l *loop) onGone(h *holder) {
	select {
	case l.gone <- h:
	case <-l.abandoned:
	}
}

func (l *loop) poke() {}

// run is the loop itself.
func (l *loop) run(ctx context.Context, w *watcher) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	ticker := time.NewTicker(reportInterval)
	defer ticker.Stop()
	for {
		timer.Reset(l.nextDeadline())
		tick := false
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-l.runtime.wake:
			l.readMail()
		case p := <-l.readable:
			if l.ports[p.name] == p {
				l.receive(p, receiveBatch)
			}
			poke(p.again)
		case s := <-w.sightings:
			l.look(s)
		case c := <-l.claimed:
			l.claim(c)
		case h := <-l.gone:
			l.released(h)
		case <-timer.C:
		case <-ticker.C:
			tick = true
		}
		if ctx.Err() != nil { // the choice among several is random, and leaving comes first
			return ctx.Err()
		}
		l.fire()
		if l.report(tick) {
			return nil
		}
	}
}

func (l *loop) readMail() {
	cfg, changed, stopping := l.runtime.mail()
	if stopping && !l.stopping {
		l.stop()
	}
	if !changed || l.stopping {
		return
	}
	if err := l.openPorts(cfg); err != nil {
		l.log.Error("sockets of an instance not open", "error", err)
	}
	l.apply(cfg)
	for _, i := range l.instances {
		l.evaluate(i)
	}
}

func (l *loop) stop() {
	l.stopping = true
	now := clock(unix.CLOCK_MONOTONIC)
	for _, i := range l.instances {
		if !i.leaving {
			i.leaving = true
			i.step(now, vrrp.Stop{}, lb.MAC{})
		}
	}
}

// claim hears what a holder found at its start.
func (l *loop) claim(c claim) {
	for _, i := range l.instances {
		if i.holder == c.holder {
			i.claimed, i.resume, i.owned, i.advert, i.fault = true, c.resume, c.foreign, c.advert, c.fault
			l.evaluate(i)
		}
	}
}

// released forgets an instance whose holder has ended, and starts it anew if the configuration wants it again.
func (l *loop) released(h *holder) {
	at := slices.IndexFunc(l.instances, func(i *instance) bool { return i.holder == h })
	i := l.instances[at]
	i.advert.close()
	i.gone = true
	if l.stopping {
		return // stays for the last report
	}
	l.instances, l.changed = slices.Delete(l.instances, at, at+1), true
	// The watcher may not have seen yet that they are gone, and who starts now would take them for somebody else's.
	l.snapshot = l.snapshot.without(h.removed)
	clear(l.owns)
	if !slices.ContainsFunc(l.instances, func(o *instance) bool { return o.cfg.Interface == i.cfg.Interface }) && i.port != nil {
		delete(l.ports, i.port.name)
		i.port.close()
	}
	if err := l.openPorts(l.cfg); err != nil {
		l.log.Error("sockets of an instance not open", "error", err)
	}
	l.apply(l.cfg)
}

// look takes a new state of the interfaces.
func (l *loop) look(seen sighting) {
	s := seen.snapshot
	l.snapshot = s
	clear(l.owns)
	moved := map[string]bool{}
	for name, p := range l.ports {
		k, ok := s[name]
		switch {
		case !ok || k.Index != p.index:
			delete(l.ports, name) // the sockets belong to an interface that is no more
			p.close()
		case !slices.Equal(p.mac, k.MAC):
			p.mac = k.MAC
			moved[name] = true
		}
	}
	if err := l.openPorts(l.cfg); err != nil {
		l.log.Error("sockets of an instance not open", "error", err)
	}
	for _, i := range l.instances {
		p := l.ports[i.cfg.Interface]
		i.holder.see(seen)
		if i.port != p || moved[i.cfg.Interface] {
			i.port = p
			if i.machine.State() == vrrp.Master {
				i.holder.set(func(w *wish) { w.rounds += 5 }) // the neighbours know the old MAC
			}
		}
		l.evaluate(i)
	}
}

// evaluate tells the machine whether it can take part, and from which source.
func (l *loop) evaluate(i *instance) {
	if !i.claimed || i.handed {
		return
	}
	now := clock(unix.CLOCK_MONOTONIC)
	k, found := l.snapshot[i.cfg.Interface]
	why := unusable(i.cfg.Interface, k, found)
	if i.fault != "" {
		why = i.fault
	}
	if why == "" && i.port == nil {
		why = fmt.Sprintf("the sockets on interface %s could not be opened", i.cfg.Interface)
	}
	var source netip.Addr
	if why == "" {
		var owned []netip.Addr
		if i.cfg.VRRP.Priority == vrrp.Owner {
			owned = i.owned
		}
		source = chooseSource(k.Addresses, l.own(k), i.source, owned)
		if !source.IsValid() {
			why = fmt.Sprintf("%s has no IPv4 address of its own; add one", i.cfg.Interface)
		}
	}
	switch {
	case why != "":
		if why != i.broken {
			i.running, i.broken, i.changed = false, why, true
			i.source = netip.Addr{}
			if i.machine.State() == vrrp.Fault { // one failure follows another: no transition
				i.reason = why
				i.log.Warn("still in FAULT", "reason", why)
			}
			i.step(now, vrrp.Fail{Reason: why}, lb.MAC{})
		}
	case !i.running && i.leaving:
	case !i.running:
		i.running, i.broken, i.source, i.changed = true, "", source, true
		i.step(now, vrrp.Start{Source: source, Resume: i.resume}, lb.MAC{})
	case source != i.source:
		i.log.Info("source of adverts changed", "from", i.source, "to", source)
		i.source, i.changed = source, true
		i.step(now, vrrp.SourceChange{Source: source}, lb.MAC{})
	}
	i.resume = false
	i.holder.set(func(w *wish) { w.decided = true })
}

// own returns the addresses of the link that are no virtual ones of this director.
func (l *loop) own(k link) []ownAddress {
	if own, ok := l.owns[k.Index]; ok {
		return own
	}
	virtual := map[netip.Addr]bool{}
	for _, i := range l.instances {
		for _, v := range i.cfg.VirtualAddresses {
			virtual[v.Prefix.Addr()] = true
		}
	}
	own := slices.DeleteFunc(slices.Clone(k.Addresses), func(a ownAddress) bool {
		return virtual[a.Prefix.Addr()] || a.Prefix.Addr().Is6()
	})
	l.owns[k.Index] = own
	return own
}

// receive takes up to limit packets from the queue.
func (l *loop) receive(p *port, limit int) {
	for range limit {
		b, mac, err := p.receive(l.buffer[:])
		if err != nil {
			return // empty, or closed
		}
		if b != nil {
			l.packet(p, b, lb.MAC(mac))
		}
	}
}

func (l *loop) packet(p *port, b []byte, mac lb.MAC) {
	packet, vrid, bad := parseIP(b)
	at := slices.IndexFunc(l.instances, func(i *instance) bool { return i.port == p && i.cfg.VRRP.VRID == vrid })
	if at < 0 {
		return
	}
	i, now := l.instances[at], clock(unix.CLOCK_MONOTONIC)
	switch {
	case bad == "":
		i.step(now, packet, mac)
	case i.running:
		i.refuse(now, vrrp.Refused{Source: packet.Source, Reason: bad,
			Text: fmt.Sprintf("advert from %s refused: its IP header is broken (%s); look for a fault in the network or a forger", packet.Source, bad)})
	}
}

// nextDeadline is the time until the first machine wants to be called.
func (l *loop) nextDeadline() time.Duration {
	next := time.Hour
	now := clock(unix.CLOCK_MONOTONIC)
	for _, i := range l.instances {
		if d, ok := i.machine.Deadline(); ok {
			next = min(next, d-now)
		}
	}
	return max(0, next)
}

// fire calls the machines that are due. What has arrived until now comes first: after a pause of this process the
// adverts that say the MASTER lives lie in the queue.
func (l *loop) fire() {
	for _, i := range l.instances {
		d, ok := i.machine.Deadline()
		now := clock(unix.CLOCK_MONOTONIC)
		if !ok || d > now {
			continue
		}
		// Three intervals after our last advert, if not this one is late, the others may think that we are gone.
		if late := now - d; i.machine.State() == vrrp.Master && late >= 2*i.cfg.VRRP.Interval && i.notices.mayLog(now) {
			i.log.Warn("this process stood still and could send no advert; another director may have taken over meanwhile. Is this box overloaded, or was it paused?",
				"late", late.Round(time.Millisecond))
		}
		if i.port != nil {
			l.receive(i.port, drainLimit)
		}
		i.step(clock(unix.CLOCK_MONOTONIC), vrrp.Tick{}, lb.MAC{})
	}
}

// report publishes when something changed or it is time. It returns true when everything is handed over.
func (l *loop) report(tick bool) (stopped bool) {
	now := clock(unix.CLOCK_MONOTONIC)
	due, ready := tick || l.changed, true
	stopped = l.stopping
	for _, i := range l.instances {
		if i.notices.expire(now, i.patience()) || i.changed {
			due = true
		}
		if !i.claimed && !i.gone {
			ready = false
		}
		if !i.gone {
			stopped = false
		}
	}
	if !l.opened && ready {
		l.opened, due = true, true
	}
	if stopped {
		l.opened, due = true, true
	}
	if !due || !l.opened {
		return false
	}
	l.changed = false
	rep := Report{Stopped: stopped}
	for _, i := range l.instances {
		i.changed = false
		rep.Instances = append(rep.Instances, i.report())
	}
	l.runtime.publish(rep)
	return stopped
}

// leave gives back what the process holds, and nothing that the network sees.
func (l *loop) leave() {
	close(l.abandoned)
	done := make(chan struct{})
	go func() { l.wg.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(time.Second): // a holder that hangs in the kernel keeps nobody
	}
	for _, i := range l.instances {
		i.advert.close()
	}
	for _, p := range l.ports {
		p.close()
	}
	if l.host != nil {
		l.host.close()
	}
	if l.wire != nil {
		l.wire.close()
	}
}
