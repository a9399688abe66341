package neigh

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"reflect"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/xdirector/xdirector/pkg/lb"
)

// table is the state of a Watcher. Only the goroutine of Run touches it.
type table struct {
	kernel  *kernel
	log     *slog.Logger
	box     box
	targets map[netip.Addr]*target
	entries map[key]entry // of the addresses that are watched
	hops    map[netip.Addr]Hop
	wanted  map[key]bool // neighbour entries that must be there

	stale    bool      // links, own addresses and neighbours must be read again
	flushAt  time.Time // when the changes so far are worked on; zero: there are none
	retryAt  time.Time // when a neighbour entry is tried again; zero: none is
	readAt   time.Time // when everything is read again, to be safe
	began    time.Time // of the first watch; zero: there was none
	ready    bool      // the first picture is complete, or its time is over
	orphans  bool      // entries of ours may be there that nobody wants
	relinked bool      // links or own addresses may have changed
	newMAC   bool      // an own interface has another MAC address, which is not yet told
}

// target is one address to resolve.
type target struct {
	address netip.Addr
	way     way
	dirty   bool // its way must be looked up
	hop     lb.NextHop
	addAt   time.Time // its neighbour entry is not made before
	failed  string    // why its neighbour entry could not be made
}

func newTable(k *kernel, log *slog.Logger) *table {
	return &table{kernel: k, log: log, targets: map[netip.Addr]*target{}, entries: map[key]entry{}, stale: true}
}

// watch takes a new wish.
func (t *table) watch(now time.Time, w *wish) {
	old := t.targets
	t.targets = make(map[netip.Addr]*target, len(w.targets))
	for _, a := range w.targets {
		if t.targets[a] = old[a]; t.targets[a] == nil {
			t.targets[a] = &target{address: a}
			t.stale = true // its neighbour entry was ignored until now
		}
	}
	t.box.virtual, t.box.routed = w.virtual, w.routed
	t.dirtyAll()
	if t.began.IsZero() {
		t.began = now
		t.orphans = true // those of a run that was killed
	}
	t.flushAt = now
}

// take notes what has changed; settle works on it.
func (t *table) take(now time.Time, batch []event) {
	relevant := false
	for _, e := range batch {
		switch e.kind {
		case neighbour:
			if t.targets[e.at.address] != nil {
				t.entries[e.at] = e.entry
				relevant = true
			}
		case neighbourGone:
			if t.targets[e.at.address] != nil {
				delete(t.entries, e.at)
				relevant = true
			}
		case links, addresses:
			t.relinked, relevant = true, true
		case routes:
			for a, target := range t.targets {
				if e.prefix.Contains(a) {
					target.dirty, relevant = true, true
				}
			}
		case lost:
			t.log.Warn("netlink events were lost, reading interfaces, routes and neighbours again")
			t.stale, relevant = true, true
		}
	}
	if relevant && t.flushAt.IsZero() {
		t.flushAt = now.Add(coalesce)
	}
}

func (t *table) dirtyAll() {
	for _, target := range t.targets {
		target.dirty = true
	}
}

// deadline is when settle wants to be called without a further change.
func (t *table) deadline() time.Time {
	first := t.readAt
	for _, at := range []time.Time{t.flushAt, t.retryAt} {
		if !at.IsZero() && at.Before(first) {
			first = at
		}
	}
	if end := t.began.Add(patience); !t.ready && !t.began.IsZero() && end.Before(first) {
		first = end
	}
	return first
}

func (t *table) due(now time.Time) bool { return !t.deadline().After(now) }

// settle brings the table up to date with the kernel and the kernel with the wish, and says whether there is
// something new to tell.
func (t *table) settle(now time.Time) bool {
	if !now.Before(t.readAt) {
		t.stale = true
		t.readAt = now.Add(readAgain)
	}
	t.flushAt, t.retryAt = time.Time{}, time.Time{}
	if err := t.refresh(); err != nil {
		t.log.Error("next hops may be out of date, trying again in a second", "error", err)
		t.retryAt = now.Add(addAgain)
	}
	moved, complete := t.lookUpSome()
	if !complete {
		t.flushAt = now
	}
	t.keepEntries(now, complete)
	changed := t.resolve() || t.newMAC
	t.newMAC = false
	if !t.ready && !t.began.IsZero() && (t.answered() || !now.Before(t.began.Add(patience))) {
		t.ready, changed = true, true
	}
	return changed || moved
}

// refresh reads from the kernel what is not known by events.
func (t *table) refresh() error {
	if !t.stale && !t.relinked {
		return nil
	}
	links, err := t.kernel.links()
	if err != nil {
		return err
	}
	own, err := t.kernel.addresses()
	if err != nil {
		return err
	}
	// Virtual addresses come and go with each switch of MASTER and are no source: that is no reason to look up
	// everything. (One that brings a network with it also brings a route event.)
	if t.stale || !maps.Equal(links, t.box.links) || !reflect.DeepEqual(t.box.lasting(own), t.box.lasting(t.box.own)) {
		t.dirtyAll()
	}
	for index, l := range links {
		if before, known := t.box.links[index]; known && before.mac != l.mac {
			t.newMAC = true
		}
	}
	t.box.links, t.box.own, t.relinked = links, own, false
	if !t.stale {
		return nil
	}
	entries, err := t.kernel.neighbours()
	if err != nil {
		return err
	}
	maps.DeleteFunc(entries, func(at key, _ entry) bool { return t.targets[at.address] == nil })
	t.entries, t.stale = entries, false
	return nil
}

// lookUpSome looks up the ways of some dirty targets, and says whether any is new and whether that was all. 2,000
// lookups take 100 ms: a changed MAC address must not wait for them.
func (t *table) lookUpSome() (moved, complete bool) {
	if t.box.links == nil {
		return false, true // could not be read yet: settle tries again
	}
	const some = 200
	done := 0
	for _, target := range t.targets {
		if !target.dirty {
			continue
		}
		if done == some {
			return moved, false
		}
		done++
		moved = t.lookUp(target) || moved
	}
	return moved, true
}

// lookUp asks for the way to a target and says whether that is another one than before.
func (t *table) lookUp(target *target) bool {
	route, err := t.kernel.route(target.address)
	before := target.way
	target.way, target.dirty = t.box.judge(target.address, route, err), false
	after := target.way
	return before.index != after.index || before.local != after.local || before.routed != after.routed || before.source != after.source ||
		text(before.err) != text(after.err) || text(before.sourceErr) != text(after.sourceErr)
}

// keepEntries makes the kernel resolve every target that has a way, and deletes the entries of ours that are not
// wanted any more, unless it is not yet complete which are. What somebody else takes care of is left alone.
func (t *table) keepEntries(now time.Time, complete bool) {
	wanted := make(map[key]bool, len(t.targets))
	for _, target := range t.targets {
		if target.way.err != nil || target.way.local || target.way.routed || target.way.index == 0 {
			continue
		}
		at := key{target.way.index, target.address}
		wanted[at] = true
		e, there := t.entries[at]
		if there && (e.ours() || e.foreign()) || !t.box.links[at.index].up {
			continue
		}
		if now.Before(target.addAt) {
			t.retry(target.addAt)
			continue
		}
		target.addAt = now.Add(addAgain)
		err := t.kernel.manage(at, there)
		switch {
		case err == nil:
			// Its own event may come late, and not at all before the real server has answered or not.
			t.entries[at] = entry{mac: e.mac, state: e.state, managed: true, protocol: protocol}
			target.failed = ""
		case errors.Is(err, unix.EEXIST):
			t.stale = true // it came just now; what it is says the table
			t.retry(target.addAt)
		default:
			if reason := err.Error(); reason != target.failed {
				target.failed = reason
				t.log.Error("the kernel does not resolve a real server for us, trying again every second",
					"real_server", target.address, "interface", t.box.links[at.index].name, "error", err)
			}
			t.retry(target.addAt)
		}
	}
	for at := range t.wanted {
		t.orphans = t.orphans || !wanted[at]
	}
	t.wanted = wanted
	if !t.orphans || !complete {
		return
	}
	t.orphans = false
	if err := t.kernel.removeOurs(wanted); err != nil {
		t.log.Warn("neighbour entries are left behind", "error", err)
	}
	maps.DeleteFunc(t.entries, func(at key, e entry) bool {
		return t.targets[at.address] == nil || e.ours() && !wanted[at]
	})
}

func (t *table) retry(at time.Time) {
	if t.retryAt.IsZero() || at.Before(t.retryAt) {
		t.retryAt = at
	}
}

// resolve makes the hops anew and says whether any is different.
func (t *table) resolve() bool {
	changed := len(t.hops) != len(t.targets)
	hops := make(map[netip.Addr]Hop, len(t.targets))
	for a, target := range t.targets {
		e := t.entries[key{target.way.index, a}]
		known := target.hop
		target.hop = t.box.next(known, target.way, e.mac)
		hop := Hop{NextHop: target.hop, InterfaceName: t.box.links[target.hop.Interface].name, Routed: target.way.routed, Source: target.way.source}
		hop.Err = t.trouble(target, e)
		before, there := t.hops[a]
		if !there || !hop.same(before) {
			changed = true
			t.tell(a, before, hop)
		}
		hops[a] = hop
	}
	t.hops = hops
	return changed
}

// trouble is the Err of a hop.
func (t *table) trouble(target *target, e entry) error {
	switch {
	case target.way.err != nil:
		return target.way.err
	case target.way.sourceErr != nil:
		return target.way.sourceErr
	case !target.hop.Known() && target.failed != "":
		return fmt.Errorf("resolve real server %s: %s", target.address, target.failed)
	case !target.hop.Known() && e.state&netlink.NUD_FAILED != 0:
		asked := "ARP"
		if target.address.Is6() {
			asked = "neighbour discovery"
		}
		return fmt.Errorf("real server %s does not answer %s on %s: is it running, and on this LAN?", target.address, asked, t.box.links[target.way.index].name)
	}
	return nil
}

// tell logs what an operator wants to know about a changed hop.
func (t *table) tell(a netip.Addr, before, after Hop) {
	switch {
	case after.Err != nil && text(before.Err) != text(after.Err):
		t.log.Warn("next hop has a problem", "real_server", a, "error", after.Err)
	case before.Known() && after.Known() && before.NextHop != after.NextHop:
		t.log.Info("next hop has changed", "real_server", a, "from", describe(before), "to", describe(after))
	case before.Err != nil && after.Err == nil:
		t.log.Info("next hop has no problem any more", "real_server", a, "next_hop", describe(after))
	case !before.Known() && after.Known():
		t.log.Debug("next hop is known", "real_server", a, "next_hop", describe(after))
	}
}

func describe(h Hop) string {
	switch {
	case h.Local:
		return "this director"
	case h.Routed:
		return "by way of a router"
	case !h.Known():
		return "not known yet"
	}
	return h.MAC.String() + " dev " + h.InterfaceName
}

// answered says that nothing more is to be expected soon: every target is known, or failed.
func (t *table) answered() bool {
	for a, h := range t.hops {
		if !h.Known() && h.Err == nil && !h.Routed && !t.targets[a].way.local {
			return false
		}
	}
	return true
}

// ways copies what Source needs, of the targets that were looked up.
func (t *table) ways() map[netip.Addr]way {
	ways := make(map[netip.Addr]way, len(t.targets))
	for a, target := range t.targets {
		if target.way.index != 0 || target.way.err != nil {
			ways[a] = target.way
		}
	}
	return ways
}
