package ha

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/xdirector/xdirector/pkg/vrrp"
)

// wish is what the loop wants of a holder.
type wish struct {
	instance   *Instance // not changed once told
	deadMan    time.Duration
	links      snapshot // the newest
	handedOver bool     // see vrrp.Start: what a former run left stays until hold is taken back
	decided    bool     // the machine has spoken; until then what a former run left stays as it is
	hold       bool     // addresses and routes shall be there
	rounds     int      // of announcements not sent yet: a frame for each address is a round
	quit       bool     // let go of everything and end
	retry      bool     // try again what failed, and look for routes
	news       bool     // something of all this was told since it was taken

	// What happened to its things since it looked last, as netlink told: also what it did itself.
	came, went []place
	routes     bool // one of its routes was removed
	moved      bool // one of its interfaces came, went or changed
	blind      bool // maybe more than that
}

// holder keeps what one instance puts on the box there, or off it: virtual addresses, routes, the macvlan of a virtual
// MAC. A crew does its work, so that neither the kernel's configuration lock nor a disk nor thousands of ARP frames keep
// the loop from its adverts. It is told the wish, not the steps: whatever was missed while somebody was at work, it ends
// where it should.
type holder struct {
	log      *slog.Logger
	host     *host
	claimed  func(claim)   // never waits
	gone     func(*holder) // never waits
	restored atomic.Uint64 // what somebody else removed, put back
	turn     turn          // belongs to the crew

	mu   sync.Mutex
	wish wish

	// What follows belongs to who is at work. The maps are made when something is put into them: most stay empty.
	began   bool                     // it has looked around
	ended   bool                     // and let go of everything
	held    map[spot]*VirtualAddress // put there by us
	foreign map[netip.Addr]bool      // put there by somebody else: never touched
	routes  map[Route]int            // put there by us, with the index of their interface
	theirs  map[Route]bool           // there already, or one that differs in its way only: told
	owed    bool                     // a route was removed, and it is too early to put it back
	mac     macvlan                  // made by us
	slot    int                      // see record
	failed  map[string]string        // errors told already, by what they are about
	missing map[spot]bool            // removed by somebody else, not put back yet
	fight   fight
	removed map[spot]bool // by us and not added again; the loop looks at it when the holder has ended
	adopted bool          // held is from a former run: its lifetimes are old
	burst   burst
	deadMan time.Duration // of what is held

	retrying, pacing *time.Timer // nil: never needed
}

// put puts something into a map that may not be there yet.
func put[K comparable, V any](m *map[K]V, key K, value V) {
	if *m == nil {
		*m = map[K]V{}
	}
	(*m)[key] = value
}

// claim is the first message of a holder: what it found. advert may be nil.
type claim struct {
	holder  *holder
	resume  bool         // we were MASTER a moment ago
	left    bool         // priority 0 was sent for us, and addresses are still held: see vrrp.Start
	fault   string       // why the instance can't take part until it is started anew; empty: it can
	foreign []netip.Addr // virtual addresses that somebody else put on the interface
	advert  *lastAdvert  // to note the time of adverts in
}

// set changes the wish.
func (h *holder) set(change func(*wish)) {
	h.mu.Lock()
	change(&h.wish)
	h.wish.news = true
	h.mu.Unlock()
	h.wake()
}

// same gives it an equal instance in place of its own, and nothing to do.
func (h *holder) same(i *Instance) {
	h.mu.Lock()
	h.wish.instance = i
	h.mu.Unlock()
}

// nudge has it look again at what is wished.
func (h *holder) nudge() { h.set(func(*wish) {}) }

// wake has it look whether there is anything to do.
func (h *holder) wake() { h.host.crew.wake(h) }

// later calls f after a while, instead of when it was to be called.
func later(t **time.Timer, d time.Duration, f func()) {
	if *t == nil {
		*t = time.AfterFunc(d, f)
	} else {
		(*t).Reset(d)
	}
}

// see tells of a new state of the interfaces; it wakes the holder only if that is about something of its own.
func (h *holder) see(s sighting) {
	h.mu.Lock()
	defer h.mu.Unlock()
	w := &h.wish
	w.links = s.snapshot
	woken := s.blind || s.moved[w.instance.Interface] || w.instance.VirtualMAC != "" && s.moved[w.instance.VirtualMAC]
	w.moved = w.moved || woken
	for _, v := range w.instance.VirtualAddresses {
		at := place{s.snapshot[w.instance.device(v)].Index, v.Prefix.Addr()}
		if s.came[at] {
			w.came, woken = append(w.came, at), true
		}
		if s.removed[at] {
			w.went, woken = append(w.went, at), true
		}
		if v.Interface != "" && s.moved[v.Interface] {
			w.moved, woken = true, true
		}
	}
	for _, r := range w.instance.Routes {
		if len(s.routes) > 0 && s.routes[r.key()] || s.moved[w.instance.routeDevice(r)] {
			w.routes, woken = true, true
		}
	}
	w.blind = w.blind || s.blind
	if woken {
		w.news = true
		h.wake()
	}
}

// device returns the name of the interface of an address. The virtual MAC is one of the instance's family: an excluded
// address of the other one is on the interface itself.
func (i Instance) device(v VirtualAddress) string {
	switch {
	case v.Interface != "":
		return v.Interface
	case i.VirtualMAC != "" && v.Prefix.Addr().Is6() == i.ipv6():
		return i.VirtualMAC
	}
	return i.Interface
}

func (h *holder) current() wish {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.wish
}

// take returns the wish and forgets what happened.
func (h *holder) take() wish {
	h.mu.Lock()
	defer h.mu.Unlock()
	w := h.wish
	h.wish.came, h.wish.went, h.wish.routes, h.wish.moved, h.wish.blind, h.wish.rounds = nil, nil, false, false, false, 0
	h.wish.retry, h.wish.news = false, false
	return w
}

// work does what there is to do now. Only the crew calls it.
func (h *holder) work() {
	if !h.began {
		w := h.current()
		h.began, h.deadMan = true, w.deadMan
		h.claimed(h.claim(w))
	}
	switch w := h.current(); {
	case h.ended || !w.decided:
	case w.news:
		h.follow(h.take())
	default:
		h.announce(w)
	}
}

// follow does what is wished.
func (h *holder) follow(w wish) {
	if h.adopted || w.deadMan != h.deadMan {
		h.keepAlive(w)
	}
	h.deadMan = w.deadMan
	settled := h.reconcile(w)
	h.adopted = false
	if !settled {
		later(&h.retrying, renewal(w.deadMan), func() { h.set(func(w *wish) { w.retry = true }) })
	}
	h.burst.add(w.rounds)
	h.announce(w)
	if w.quit {
		h.end(w)
	}
}

// end forgets the instance, unless something of it could not be removed: the next start must know that.
func (h *holder) end(w wish) {
	h.ended = true
	h.dropMAC("the instance has ended")
	_ = h.keepAway(w.instance.Name, nil, nil) // told there
	if len(h.held) == 0 && len(h.routes) == 0 && h.mac.index == 0 {
		_ = h.host.crew.wait(func() error { return h.host.records.remove(w.instance.Name) }) // told there
	}
	h.gone(h)
}

// claim finds out what a former run left and decides, as product.md says under "Life of a director": what is ours is
// kept when the last advert is younger than three intervals or when priority 0 was sent for us and nobody answered
// yet, else removed; what is not ours is left alone.
func (h *holder) claim(w wish) claim {
	c := claim{holder: h}
	rec, valid := h.host.records.of(w.instance.Name)
	var last time.Duration
	h.slot, c.advert, last = h.host.records.slot(w.instance.Name)
	c.fault = h.adoptMAC(w, rec)
	if valid {
		h.recall(w, rec)
	}
	age := clock(unix.CLOCK_BOOTTIME) - last
	same := rec.Version == w.instance.VRRP.Version && rec.VRID == w.instance.VRRP.VRID &&
		rec.Interface == w.instance.Interface && rec.Index == w.links[rec.Interface].Index
	switch {
	case len(h.held) > 0 && same && w.handedOver:
		c.left, h.adopted = true, true
		h.set(func(w *wish) { w.hold = true })
	case len(h.held) > 0 && same && last > 0 && age < 3*rec.Interval:
		c.resume, h.adopted = true, true
	default:
		for r, index := range h.routes {
			h.removeRoute(r, index, "left by a former run")
		}
		for _, s := range sorted(h.held) {
			h.remove(s, "left by a former run")
		}
		if h.mac.index != 0 {
			h.setMAC(false)
		}
	}
	present := map[place]netip.Prefix{}
	for _, k := range w.links.without(h.removed) {
		for _, a := range k.Addresses {
			present[place{k.Index, a.Prefix.Addr()}] = a.Prefix
		}
	}
	h.findForeign(w, present)
	c.foreign = slices.Collect(maps.Keys(h.foreign))
	_ = errors.Join(h.guard(w), h.record(w)) // told there, and tried again
	return c
}

// recall takes what is recorded and still there as held by us.
func (h *holder) recall(w wish, rec record) {
	for _, a := range rec.Addresses {
		k := w.links[a.Interface]
		if a.Index == 0 && k.Index != h.mac.index || a.Index != 0 && k.Index != a.Index ||
			!slices.ContainsFunc(k.Addresses, func(o ownAddress) bool { return o.Prefix == a.Prefix }) {
			continue
		}
		v := VirtualAddress{Prefix: a.Prefix, Interface: a.Interface}
		for _, o := range w.instance.VirtualAddresses {
			if o.Prefix == a.Prefix && w.instance.device(o) == a.Interface {
				v = o
			}
		}
		put(&h.held, spot{k.Index, a.Prefix}, &v)
	}
	for _, r := range rec.Routes {
		put(&h.routes, r.Route, r.Index) // those that are not there are not found when they shall be removed
	}
}

// keepAlive renews what is held from now on, with the lifetime of w.
func (h *holder) keepAlive(w wish) {
	for s, v := range h.held {
		h.host.lifetimes.keep(s, renewalMessage(w, s, *v), renewal(w.deadMan), true)
	}
}

// reconcile makes the kernel as wished. It says whether it could: else it must be called again after a while.
func (h *holder) reconcile(w wish) (settled bool) {
	h.dropRoutes(w)
	h.drop(w)
	h.keepMAC(w)
	if h.surprised(w) {
		h.look(w)
	}
	written := errors.Join(h.guard(w), h.record(w)) // told where they fail
	if !w.hold {
		return written == nil && len(h.failed) == 0
	}
	for _, v := range w.instance.VirtualAddresses {
		if now := h.current(); !now.hold {
			return true // there is a newer wish
		}
		s := spot{h.index(w, v), v.Prefix}
		_, held := h.held[s]
		switch {
		case s.index == 0:
			h.fail(v.Prefix.String(), fmt.Errorf("add virtual address %s: no interface %s", v.Prefix, w.instance.device(v)))
		case held, h.foreign[v.Prefix.Addr()], h.missing[s] && h.fight.wait(h.nudge):
		default:
			h.add(w, s, v)
		}
	}
	h.keepRoutes(w)
	return written == nil && len(h.failed) == 0 && len(h.theirs) == 0
}

// letGo forgets an address, so that nothing puts it back.
func (h *holder) letGo(s spot) {
	h.host.lifetimes.end(s)
	h.host.lifetimes.forget(s)
	delete(h.held, s)
}

// drop removes the addresses that should not be there, or not so. Where the name belongs to another interface now,
// they went with the old one, unless that only changed its name.
func (h *holder) drop(w wish) {
	for _, s := range sorted(h.held) {
		at := slices.IndexFunc(w.instance.VirtualAddresses, func(v VirtualAddress) bool { return v == *h.held[s] })
		switch {
		case at < 0:
			h.remove(s, "not in the configuration any more")
		case h.index(w, *h.held[s]) != s.index:
			h.letGo(s)
			_ = h.host.handle.AddrDel(device(s.index), &netlink.Addr{IPNet: ipNet(s.prefix)})
		case !w.hold:
			h.remove(s, "not MASTER")
		}
	}
}

// index returns the index of the interface of an address, 0 if it is not there.
func (h *holder) index(w wish, v VirtualAddress) int {
	if name := w.instance.device(v); name != w.instance.VirtualMAC {
		return w.links[name].Index
	}
	return h.mac.index
}

// surprised says whether somebody else changed the addresses. Reading all addresses of a box takes time that who
// takes over does not have, so it is done only then.
func (h *holder) surprised(w wish) bool {
	holds := map[place]bool{}
	for s := range h.held {
		holds[s.place()] = true
	}
	return w.blind ||
		slices.ContainsFunc(w.came, func(p place) bool { return !holds[p] && !h.foreign[p.address] }) ||
		slices.ContainsFunc(w.went, func(p place) bool { return holds[p] || h.foreign[p.address] })
}

// look compares what we think with what is there: an address of ours that somebody removed is put back by the caller,
// one that somebody else added is theirs.
func (h *holder) look(w wish) {
	list, err := whole(func() ([]netlink.Addr, error) { return h.host.handle.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		h.log.Warn("addresses not read", "interface", w.instance.Interface, "error", err)
		return
	}
	present := map[place]netip.Prefix{}
	for _, a := range list {
		p := prefixOf(a)
		present[place{a.LinkIndex, p.Addr()}] = p
	}
	for _, s := range sorted(h.held) {
		if present[s.place()] == s.prefix {
			continue
		}
		name := w.instance.device(*h.held[s])
		h.letGo(s)
		if name == w.instance.VirtualMAC || w.links[name].Up { // else it went with the link
			put(&h.missing, s, true)
			h.lost("virtual address", s.prefix, name)
		}
	}
	h.findForeign(w, present)
}

// findForeign notes the virtual addresses that are there without us, and tells the cure once.
func (h *holder) findForeign(w wish, present map[place]netip.Prefix) {
	var now map[netip.Addr]bool
	for _, v := range w.instance.VirtualAddresses {
		at := place{h.index(w, v), v.Prefix.Addr()}
		p, there := present[at]
		if _, held := h.held[spot{at.index, p}]; !there || held || h.host.lifetimes.has(spot{at.index, p}) {
			continue
		}
		put(&now, v.Prefix.Addr(), true)
		if !h.foreign[v.Prefix.Addr()] {
			h.tellForeign(w, v, p)
		}
	}
	h.foreign = now
}

func (h *holder) tellForeign(w wish, v VirtualAddress, p netip.Prefix) {
	if w.instance.VRRP.Priority == vrrp.Owner {
		return // the owner's real address: as it should be
	}
	h.log.Warn(fmt.Sprintf("virtual address is on the interface already, not put there by us: it stays in every state. Cure: ip address del %s dev %s, or priority %d if this box owns it",
		p, w.instance.device(v), vrrp.Owner), "address", p, "interface", w.instance.device(v))
}

func (h *holder) add(w wish, s spot, v VirtualAddress) {
	if v.Interface != "" {
		h.host.sysctls.promote(h.log, v.Interface) // for the others it was done before
	}
	err := h.host.handle.AddrAdd(device(s.index), address(w, v))
	switch {
	case errors.Is(err, unix.EEXIST) && h.host.lifetimes.has(s): // another instance's that is about to let it go: we hear of it then
	case errors.Is(err, unix.EEXIST):
		put(&h.foreign, s.prefix.Addr(), true)
		h.tellForeign(w, v, s.prefix)
		_ = errors.Join(h.guard(w), h.record(w)) // told there, and tried again with the next change
	case err != nil:
		h.fail(s.prefix.String(), fmt.Errorf("add virtual address %s to %s: %w", s.prefix, w.instance.device(v), err))
	default:
		put(&h.held, s, &v)
		h.host.lifetimes.keep(s, renewalMessage(w, s, v), renewal(w.deadMan), false)
		delete(h.failed, s.prefix.String())
		delete(h.removed, s)
		if h.missing[s] {
			delete(h.missing, s)
			h.burst.add(1) // whoever had it meanwhile may have told the neighbours
			return
		}
		h.log.Info("virtual address added", "address", s.prefix, "interface", w.instance.device(v))
	}
}

func (h *holder) remove(s spot, why string) {
	h.host.lifetimes.end(s)
	err := h.host.handle.AddrDel(device(s.index), &netlink.Addr{IPNet: ipNet(s.prefix)})
	h.host.lifetimes.forget(s)
	if err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) && !errors.Is(err, unix.ENODEV) {
		// Still held: it is tried again, and the kernel ends its lifetime at the latest.
		h.fail(s.prefix.String(), fmt.Errorf("remove virtual address %s: %w", s.prefix, err))
		return
	}
	delete(h.held, s)
	delete(h.missing, s)
	delete(h.failed, s.prefix.String())
	put(&h.removed, s, true)
	h.log.Info("virtual address removed", "address", s.prefix, "reason", why)
}

// fail tells an error once until it is over: it is tried again every few seconds.
func (h *holder) fail(what string, err error) {
	if h.failed[what] == err.Error() {
		return
	}
	put(&h.failed, what, err.Error())
	h.log.Error("not as it should be; trying again", "error", err)
}

// record writes down what is, or will be when we become MASTER, ours. Usually it stands there already from the start:
// becoming MASTER waits for no disk.
func (h *holder) record(w wish) error {
	i := w.instance
	r := record{Interface: i.Interface, Index: w.links[i.Interface].Index, Version: i.VRRP.Version, VRID: i.VRRP.VRID,
		Interval: i.VRRP.Interval, Slot: h.slot}
	addresses := map[spot]string{}
	for s, v := range h.held {
		addresses[s] = i.device(*v)
	}
	for _, v := range i.VirtualAddresses {
		if !h.foreign[v.Prefix.Addr()] {
			addresses[spot{h.index(w, v), v.Prefix}] = i.device(v)
		}
	}
	for _, s := range sorted(addresses) {
		index := s.index
		if addresses[s] == i.VirtualMAC {
			index = 0
		}
		r.Addresses = append(r.Addresses, recordedAddress{Prefix: s.prefix, Interface: addresses[s], Index: index})
	}
	h.recordRoutes(w, &r)
	h.recordMAC(w, &r)
	version, news := h.host.records.put(i.Name, r)
	if !news {
		return nil
	}
	return h.host.crew.wait(func() error { return h.host.records.flush(version) })
}
