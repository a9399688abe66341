package ha

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"time"

	"github.com/xdirector/xdirector/pkg/lb"
	"github.com/xdirector/xdirector/pkg/vrrp"
)

// read does what the letters ask for.
func (l *loop) read(m letters) {
	if m.newPlane {
		l.use(m.plane)
	}
	if m.tracks != nil {
		l.tracks = m.tracks
	}
	if m.config != nil && !l.stopping {
		l.apply(*m.config)
	}
	if m.tracks != nil || m.config != nil {
		for _, i := range l.instances {
			l.evaluate(i)
		}
	}
	for _, c := range m.claims {
		l.claim(c)
	}
	for _, h := range m.gone {
		l.released(h)
	}
	if m.stop && !l.stopping {
		l.stop()
	}
	select {
	case s := <-l.watcher.sightings:
		l.sight(s)
	default:
	}
}

// apply makes the instances those of the configuration.
func (l *loop) apply(cfg Config) {
	clear(l.owns)
	sameLife := cfg.DeadMan == l.cfg.DeadMan
	l.cfg = cfg
	now := l.clock()
	wanted := map[string]bool{}
	for _, c := range cfg.Instances {
		wanted[c.Name] = true
	}
	for _, i := range slices.Clone(l.instances) {
		if !wanted[i.cfg.Name] && !i.leaving {
			l.dismiss(i, now)
		}
	}
	var fresh []*Instance
	l.waiting = false
	for n := range cfg.Instances {
		c := &cfg.Instances[n]
		i := l.byName[c.Name]
		switch {
		case i == nil && !l.handingOver(c):
			fresh = append(fresh, c)
		case i == nil || i.leaving: // comes when the other one is gone: see released
			l.waiting = true
		case isAnother(i.cfg, c): // an agent that was started again has read another file
			l.dismiss(i, now)
			l.waiting = true
		default:
			same := reflect.DeepEqual(i.cfg, c)
			if !same || !sameLife {
				i.holder.set(func(w *wish) { w.instance, w.deadMan = c, cfg.DeadMan })
			}
			if !same {
				l.change(i, c, now)
			} else {
				i.cfg = c // so that the former configuration is needed no more
				i.holder.same(c)
			}
		}
	}
	for _, c := range fresh {
		l.enlist(c).holder.wake()
	}
	l.openPorts()
	for _, i := range l.instances {
		l.connect(i)
	}
	l.formGroups()
}

// isAnother says that two instances of a name are different virtual routers.
func isAnother(old, now *Instance) bool {
	is6 := func(i *Instance) bool { return len(i.VRRP.Addresses) > 0 && i.VRRP.Addresses[0].Is6() }
	return old.Interface != now.Interface || old.VRRP.Version != now.VRRP.Version || old.VRRP.VRID != now.VRRP.VRID ||
		is6(old) != is6(now) || old.VirtualMAC != now.VirtualMAC
}

// change gives an instance another configuration.
func (l *loop) change(i *instance, c *Instance, now vrrp.Time) {
	l.release(i, now)
	i.repeat.forget()
	slot := i.cfg.Slot
	i.cfg, i.changed = c, true
	l.touch(i)
	i.notices.log = i.log
	l.placed(i, slot)
	i.mac = l.sourceMAC(i)
	l.configure(i, now, true)
}

// configure tells the machine its configuration with what is tracked, if that changed or always.
func (l *loop) configure(i *instance, now vrrp.Time, always bool) {
	if i.leaving {
		return
	}
	given, text := weigh(i.cfg, l.tracks[i.cfg.Name], l.snapshot)
	if always || given.Adjust != i.given.Adjust || given.Yield != i.given.Yield || given.Deaf != i.given.Deaf || given.Hold != i.given.Hold {
		i.given, l.lease.stale = given, true
		for _, o := range i.sync.members {
			// With another priority the MASTER may be one to take over from: its adverts must be looked at.
			l.release(o, now)
			o.repeat.forget()
			o.changed = true
			l.touch(o)
		}
		l.step(i, now, vrrp.Configure{Config: given})
	}
	if text != i.tracked {
		i.tracked, i.changed = text, true
		l.touch(i)
		// Who tells what is tracked, tells the log once for all instances.
		level := slog.LevelDebug
		if len(i.cfg.TrackInterfaces) > 0 {
			level = slog.LevelInfo
		}
		if text != "" {
			i.log.Log(context.Background(), level, "tracked", "what", text, "priority", i.machine.Priority())
		} else {
			i.log.Log(context.Background(), level, "nothing tracked weighs any more", "priority", i.machine.Priority())
		}
	}
}

// dismiss has an instance hand over, alone.
func (l *loop) dismiss(i *instance, now vrrp.Time) {
	i.leaving = true
	l.step(i, now, vrrp.Stop{})
}

func (l *loop) stop() {
	l.stopping = true
	now := l.clock()
	for _, i := range slices.Clone(l.instances) {
		if !i.leaving {
			l.dismiss(i, now)
		}
	}
}

// handingOver says whether an instance that leaves is not yet through with what the new one needs: its VRID, since
// adverts reach one instance only and the new one would take that for the silence of a MASTER, or one of its
// addresses, which would look like somebody else's. The new one starts when the old one is gone: see released.
func (l *loop) handingOver(c *Instance) bool {
	if len(l.instances) == l.staying() {
		return false
	}
	return slices.ContainsFunc(l.instances, func(i *instance) bool {
		return i.leaving && i.cfg.Interface == c.Interface && (i.ipv6 == c.ipv6() && i.cfg.VRRP.VRID == c.VRRP.VRID ||
			slices.ContainsFunc(c.VirtualAddresses, func(a VirtualAddress) bool {
				return slices.ContainsFunc(i.cfg.VirtualAddresses, func(b VirtualAddress) bool { return a.Prefix.Addr() == b.Prefix.Addr() })
			}))
	})
}

func (l *loop) staying() int {
	n := 0
	for _, i := range l.instances {
		if !i.leaving {
			n++
		}
	}
	return n
}

// enlist makes an instance; it takes part when its holder has looked around.
func (l *loop) enlist(c *Instance) *instance {
	log := l.log.With("instance", c.Name)
	given, text := weigh(c, l.tracks[c.Name], l.snapshot)
	i := &instance{cfg: c, given: given, tracked: text, ipv6: c.ipv6(), log: log, machine: vrrp.New(given), notices: newNotices(log),
		heapAt: -1, since: time.Now(), reason: "starting", changed: true, refused: map[vrrp.Reason]uint64{}}
	join(i)
	i.holder = &holder{log: log, host: l.host,
		claimed: func(c claim) { l.runtime.inbox.put(func(m *letters) { m.claims = append(m.claims, c) }) },
		gone:    func(h *holder) { l.runtime.inbox.put(func(m *letters) { m.gone = append(m.gone, h) }) }}
	i.holder.wish = wish{instance: c, deadMan: l.cfg.DeadMan, links: l.snapshot, handedOver: c.VRRP.Interval <= l.handedOver()}
	i.index, i.mac = l.snapshot[c.Interface].Index, l.sourceMAC(i)
	if c.StartupDelay > 0 {
		i.startAt = l.began + c.StartupDelay
	}
	l.instances = append(l.instances, i)
	l.byName[c.Name] = i
	l.placed(i, 0)
	l.unclaimed++
	l.left++
	l.touch(i)
	return i
}

// formGroups puts the instances of a sync group together. One that leaves does so alone.
func (l *loop) formGroups() {
	members := map[string][]*instance{}
	for _, i := range l.instances {
		if i.cfg.Group != "" && !i.leaving {
			members[i.cfg.Group] = append(members[i.cfg.Group], i)
		} else if len(i.sync.members) > 1 {
			join(i)
			l.step(i, l.clock(), vrrp.Tick{}) // brings it in line
		}
	}
	for _, list := range members {
		if !slices.Equal(list, list[0].sync.members) {
			join(list...)
			l.step(list[0], l.clock(), vrrp.Tick{})
		}
	}
}

// claim hears what a holder found at its start.
func (l *loop) claim(c claim) {
	for _, i := range l.instances {
		if i.holder == c.holder {
			if c.resume && i.given.Interval <= l.handedOver() { // since the holder looked around
				c.resume, c.left = false, true
				i.holder.set(func(w *wish) { w.hold = true })
			}
			i.claimed, i.resume, i.left, i.owned, i.advert, i.fault = true, c.resume, c.left, c.foreign, c.advert, c.fault
			l.unclaimed--
			l.evaluate(i)
			l.arm(i)
		}
	}
}

// released forgets an instance whose holder has ended, and starts it anew if the configuration wants it again.
func (l *loop) released(h *holder) {
	at := slices.IndexFunc(l.instances, func(i *instance) bool { return i.holder == h })
	i := l.instances[at]
	i.advert.close()
	i.gone = true
	l.left--
	l.arm(i)
	l.touch(i)
	if i.cfg.Slot != 0 && l.fast.slots[i.cfg.Slot] == i {
		delete(l.fast.slots, i.cfg.Slot)
	}
	if i.port != nil && i.port.routers[i.cfg.VRRP.VRID] == i {
		i.port.routers[i.cfg.VRRP.VRID] = nil
	}
	if l.stopping {
		return // stays for the last report
	}
	l.instances, l.reporter.news = slices.Delete(l.instances, at, at+1), true
	if l.byName[i.cfg.Name] == i {
		delete(l.byName, i.cfg.Name)
	}
	// The watcher may not have seen yet that they are gone, and who starts now would take them for somebody else's.
	l.snapshot = l.snapshot.without(h.removed)
	if l.waiting {
		l.apply(l.cfg)
	} else {
		l.openPorts()
	}
}

// sight takes a new state of the interfaces.
func (l *loop) sight(seen sighting) {
	l.snapshot = seen.snapshot
	maps.DeleteFunc(l.former, func(s spot, _ bool) bool { // one that comes again is somebody's own
		return !slices.ContainsFunc(slices.Collect(maps.Values(l.snapshot)), func(k link) bool { return k.Index == s.index && k.has(s.prefix) })
	})
	clear(l.owns)
	l.openPorts()
	for _, i := range l.instances {
		l.connect(i)
		i.holder.see(seen)
		index, mac := l.snapshot[i.cfg.Interface].Index, l.sourceMAC(i)
		if i.index != index || i.mac != mac {
			i.index, i.mac = index, mac
			if i.machine.State() == vrrp.Master {
				l.lease.stale = true
				i.holder.set(func(w *wish) { w.rounds += 5 }) // the neighbours know the old MAC
			}
		}
		l.evaluate(i)
	}
}

// sourceMAC is the Ethernet source of an instance's adverts.
func (l *loop) sourceMAC(i *instance) (mac lb.MAC) {
	if virtual := virtualMAC(i.cfg); virtual != nil {
		return lb.MAC(virtual)
	}
	copy(mac[:], l.snapshot[i.cfg.Interface].MAC)
	return mac
}

// evaluate tells the machine whether it can take part, with which configuration, and from which source.
func (l *loop) evaluate(i *instance) {
	if !i.claimed || i.handed {
		return
	}
	now := l.clock()
	l.configure(i, now, false)
	if i.startAt != 0 && !i.running {
		if now < i.startAt && !i.resume && !i.left && !i.leaving {
			i.reason = fmt.Sprintf("startup_delay of %s is not over", i.cfg.StartupDelay)
			return
		}
		i.startAt = 0
	}
	source, why := l.canRun(i)
	switch {
	case why != "":
		if why != i.broken {
			l.touch(i)
			i.running, i.broken, i.changed = false, why, true
			i.source = netip.Addr{}
			l.step(i, now, vrrp.Fail{Reason: why})
		}
	case !i.running && i.leaving:
	case !i.running:
		l.touch(i)
		i.running, i.broken, i.source, i.changed = true, "", source, true
		i.holds = i.left
		l.step(i, now, vrrp.Start{Source: source, Resume: i.resume, HandedOver: i.left})
	case source != i.source:
		i.log.Info("source of adverts changed", "from", i.source, "to", source)
		l.touch(i)
		i.source, i.changed = source, true
		l.step(i, now, vrrp.SourceChange{Source: source})
	}
	i.resume, i.left = false, false
	i.holder.set(func(w *wish) { w.decided = true })
}

// canRun says why an instance can't take part, or from which source it can.
func (l *loop) canRun(i *instance) (source netip.Addr, why string) {
	name := i.cfg.Interface
	k, found := l.snapshot[name]
	if i.fault != "" {
		return source, i.fault
	}
	if !found {
		return source, unusable(name, k, false) + "; waiting for it"
	}
	if why := unusable(name, k, true); why != "" {
		return source, why
	}
	if i.port == nil {
		return source, l.shut[portKey{name, i.ipv6}]
	}
	if s := i.cfg.Source; s.IsValid() {
		if !slices.ContainsFunc(k.Addresses, func(a ownAddress) bool { return a.Prefix.Addr() == s && !a.Tentative }) {
			return source, fmt.Sprintf("the source address %s is not on interface %s; add it, or leave the source out", s, name)
		}
		return s, ""
	}
	var owned []netip.Addr
	if i.cfg.VRRP.Priority == vrrp.Owner {
		owned = i.owned
	}
	return chooseSource(name, k.Addresses, l.own(k), wantedSource(i), owned)
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
		return virtual[a.Prefix.Addr()] || l.former[spot{k.Index, a.Prefix}]
	})
	l.owns[k.Index] = own
	return own
}

// brokenHeader is the refusal of a packet that no machine needs to see.
func brokenHeader(source netip.Addr, reason vrrp.Reason) vrrp.Refused {
	return vrrp.Refused{Source: source, Reason: reason,
		Text: fmt.Sprintf("advert from %s refused: its IP header is broken (%s); look for a fault in the network or a forger", source, reason)}
}
