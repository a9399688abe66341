package ha

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/xdirector/xdirector/pkg/statefile"
	"github.com/xdirector/xdirector/pkg/vrrp"
)

// wish is what the loop wants of a holder.
type wish struct {
	instance Instance
	deadMan  time.Duration
	index    int // of the interface; 0: it is gone
	mac      net.HardwareAddr
	decided  bool // the machine has spoken; until then what a former run left stays as it is
	hold     bool // the addresses shall be on the interface
	bursts   int  // of gratuitous ARP not sent yet
	quit     bool // let go of everything and end

	// What happened to its addresses since it looked last, as netlink told: also what it did itself.
	came, went []netip.Addr
	blind      bool // maybe more than that
}

// holder keeps the virtual addresses of one instance on its interface, or off it. It has a goroutine of its own, so
// that neither the kernel's configuration lock nor a disk nor thousands of ARP frames keep the loop from its
// adverts. It is told the wish, not the steps: whatever was missed while it was busy, it ends where it should.
type holder struct {
	log      *slog.Logger
	handle   *netlink.Handle
	stateDir string
	bootID   string
	found    snapshot // when the holder was made
	wire     *wire
	claimed  func(claim)     // never waits
	gone     func(*holder)   // never waits
	abandon  <-chan struct{} // leave everything as it is and end
	wake     chan struct{}

	mu   sync.Mutex
	wish wish

	// What follows belongs to the goroutine.
	index     int                     // of the interface that held is about
	held      map[netip.Prefix]bool   // put there by us
	foreign   map[netip.Addr]bool     // put there by somebody else: never touched
	failed    map[netip.Prefix]string // errors told already
	recorded  record
	removed   map[netip.Prefix]bool // by us and not added again; the loop looks at it when the holder has ended
	unwritten string                // why the record could not be written; told already
	adopted   bool                  // held is from a former run: its lifetimes are old
}

// claim is the first message of a holder: what it found. advert may be nil.
type claim struct {
	holder  *holder
	resume  bool         // we were MASTER a moment ago
	foreign []netip.Addr // virtual addresses that somebody else put on the interface
	advert  *lastAdvert  // to note the time of adverts in
}

// set changes the wish.
func (h *holder) set(change func(*wish)) {
	h.mu.Lock()
	change(&h.wish)
	h.mu.Unlock()
	poke(h.wake)
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
	h.wish.came, h.wish.went, h.wish.blind = nil, nil, false
	return w
}

func (h *holder) run() {
	w := h.current()
	h.held, h.foreign, h.failed = map[netip.Prefix]bool{}, map[netip.Addr]bool{}, map[netip.Prefix]string{}
	h.removed = map[netip.Prefix]bool{}
	h.claimed(h.claim(w))
	renew := time.NewTicker(renewal(w.deadMan))
	defer renew.Stop()
	for {
		due := false
		select {
		case <-h.abandon:
			return
		case <-h.wake:
		case <-renew.C:
			due = true
		}
		if !h.current().decided {
			continue
		}
		now := h.take()
		if now.deadMan != w.deadMan {
			renew.Reset(renewal(now.deadMan))
		}
		w = now
		h.reconcile(w, due || h.adopted)
		h.adopted = false
		h.announce(w)
		if w.quit {
			if len(h.held) == 0 { // else the next start must know what could not be removed
				if err := removeRecord(recordPath(h.stateDir, w.instance.Name)); err != nil {
					h.log.Warn("record not removed", "error", err)
				}
			}
			h.gone(h)
			return
		}
	}
}

// claim finds out what a former run left and decides, as product.md says under "Life of a director": an address of
// ours is kept when the last advert is younger than three intervals, else removed; one that is not ours is left
// alone.
func (h *holder) claim(w wish) claim {
	c := claim{holder: h}
	advert, last, err := openLastAdvert(h.stateDir, w.instance.Name)
	if err != nil {
		h.log.Warn("a restart will not know that it was MASTER", "error", err)
	}
	c.advert = advert
	var rec record
	valid, err := statefile.Read(recordPath(h.stateDir, w.instance.Name), h.bootID, &rec)
	if err != nil {
		h.log.Warn("record of a former run is of no use; its addresses go when their lifetime ends", "error", err)
	}
	h.index = w.index
	valid = valid && rec.Instance == w.instance.Name && rec.Interface == w.instance.Interface && rec.Index == w.index
	present := h.found[w.instance.Interface].Addresses
	if valid {
		for _, p := range rec.Addresses {
			if slices.ContainsFunc(present, func(a ownAddress) bool { return a.Prefix == p }) {
				h.held[p] = true
			}
		}
	}
	age := clock(unix.CLOCK_BOOTTIME) - last
	same := rec.Version == w.instance.VRRP.Version && rec.VRID == w.instance.VRRP.VRID
	switch {
	case len(h.held) == 0:
	case same && last > 0 && age < 3*rec.Interval:
		c.resume, h.adopted = true, true
	default:
		for _, p := range sorted(h.held) {
			h.remove(w, p, "left by a former run")
		}
		present = slices.DeleteFunc(slices.Clone(present), func(a ownAddress) bool { return slices.Contains(rec.Addresses, a.Prefix) })
	}
	h.findForeign(w, present)
	for a := range h.foreign {
		c.foreign = append(c.foreign, a)
	}
	h.record(w)
	return c
}

// reconcile makes the kernel as wished. due says that lifetimes must be renewed.
func (h *holder) reconcile(w wish, due bool) {
	if w.index != h.index { // another interface has the name, or none
		for p := range h.held { // they went with the old one, unless that only changed its name
			_ = h.handle.AddrDel(&netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Index: h.index}}, &netlink.Addr{IPNet: ipNet(p)})
		}
		clear(h.held)
		clear(h.foreign)
		h.index = w.index
	}
	if h.index == 0 {
		return
	}
	wanted := prefixes(w.instance.VirtualAddresses)
	if !w.hold {
		wanted = nil
	}
	for _, p := range sorted(h.held) {
		switch {
		case slices.Contains(wanted, p):
		case slices.Contains(prefixes(w.instance.VirtualAddresses), p):
			h.remove(w, p, "not MASTER")
		default:
			h.remove(w, p, "not in the configuration any more")
		}
	}
	if h.surprised(w) {
		h.look(w)
	}
	h.record(w)
	for _, p := range wanted {
		if now := h.current(); !now.hold || now.index != w.index {
			return // there is a newer wish
		}
		switch {
		case h.held[p] && due:
			h.renew(w, p)
		case !h.held[p] && !h.foreign[p.Addr()]:
			h.add(w, p)
		}
	}
}

// surprised says whether somebody else changed the addresses. Reading all addresses of a box takes time that who
// takes over does not have, so it is done only then.
func (h *holder) surprised(w wish) bool {
	holds := func(a netip.Addr) bool {
		for p := range h.held {
			if p.Addr() == a {
				return true
			}
		}
		return false
	}
	return w.blind ||
		slices.ContainsFunc(w.came, func(a netip.Addr) bool { return !holds(a) && !h.foreign[a] }) ||
		slices.ContainsFunc(w.went, func(a netip.Addr) bool { return holds(a) || h.foreign[a] })
}

// look compares what we think with what is there: an address of ours that somebody removed is put back by the caller,
// one that somebody else added is theirs.
func (h *holder) look(w wish) {
	list, err := whole(func() ([]netlink.Addr, error) { return h.handle.AddrList(device(w), netlink.FAMILY_V4) })
	if err != nil {
		h.log.Warn("addresses not read", "interface", w.instance.Interface, "error", err)
		return
	}
	var present []ownAddress
	for _, a := range list {
		present = append(present, ownAddress{Prefix: prefixOf(a)})
	}
	for _, p := range sorted(h.held) {
		if !slices.ContainsFunc(present, func(a ownAddress) bool { return a.Prefix == p }) {
			delete(h.held, p)
			h.log.Warn("virtual address was removed by somebody else, or its lifetime ended while this process stood still; put back. Is another program in charge of the addresses of this interface?",
				"address", p, "interface", w.instance.Interface)
		}
	}
	h.findForeign(w, present)
}

// findForeign notes the virtual addresses that are there without us, and tells the cure once.
func (h *holder) findForeign(w wish, present []ownAddress) {
	now := map[netip.Addr]bool{}
	for _, v := range prefixes(w.instance.VirtualAddresses) {
		for _, a := range present {
			if a.Prefix.Addr() != v.Addr() || h.held[a.Prefix] {
				continue
			}
			now[v.Addr()] = true
			if !h.foreign[v.Addr()] {
				h.tellForeign(w, a.Prefix)
			}
		}
	}
	h.foreign = now
}

func (h *holder) tellForeign(w wish, p netip.Prefix) {
	if w.instance.VRRP.Priority == vrrp.Owner {
		return // the owner's real address: as it should be
	}
	h.log.Warn(fmt.Sprintf("virtual address is on the interface already, not put there by us: it stays in every state. Cure: ip address del %s dev %s, or priority %d if this box owns it",
		p, w.instance.Interface, vrrp.Owner), "address", p, "interface", w.instance.Interface)
}

func (h *holder) add(w wish, p netip.Prefix) {
	err := h.handle.AddrAdd(device(w), lifetime(p, w.deadMan))
	switch {
	case errors.Is(err, unix.EEXIST):
		h.foreign[p.Addr()] = true
		h.tellForeign(w, p)
		h.record(w)
	case err != nil:
		h.fail(p, fmt.Errorf("add virtual address %s to %s: %w", p, w.instance.Interface, err))
	default:
		h.held[p] = true
		delete(h.failed, p)
		delete(h.removed, p)
		h.log.Info("virtual address added", "address", p, "interface", w.instance.Interface)
	}
}

func (h *holder) renew(w wish, p netip.Prefix) {
	if err := h.handle.AddrReplace(device(w), lifetime(p, w.deadMan)); err != nil {
		h.fail(p, fmt.Errorf("renew virtual address %s on %s: %w", p, w.instance.Interface, err))
		return
	}
	delete(h.failed, p)
}

func (h *holder) remove(w wish, p netip.Prefix, why string) {
	err := h.handle.AddrDel(device(w), &netlink.Addr{IPNet: ipNet(p)})
	if err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) && !errors.Is(err, unix.ENODEV) {
		// Still held: the next renewal tries again, and the kernel ends its lifetime at the latest.
		h.fail(p, fmt.Errorf("remove virtual address %s from %s: %w", p, w.instance.Interface, err))
		return
	}
	delete(h.held, p)
	delete(h.failed, p)
	h.removed[p] = true
	h.log.Info("virtual address removed", "address", p, "interface", w.instance.Interface, "reason", why)
}

// fail tells an error once until it is over: it is tried again every few seconds.
func (h *holder) fail(p netip.Prefix, err error) {
	if h.failed[p] == err.Error() {
		return
	}
	h.failed[p] = err.Error()
	h.log.Error("virtual address not as it should be; trying again", "error", err)
}

// record writes down which addresses are, or will be when we become MASTER, ours. Usually it stands there already
// from the start: becoming MASTER waits for no disk.
func (h *holder) record(w wish) {
	r := record{Instance: w.instance.Name, Interface: w.instance.Interface, Index: h.index,
		Version: w.instance.VRRP.Version, VRID: w.instance.VRRP.VRID, Interval: w.instance.VRRP.Interval}
	for _, p := range prefixes(w.instance.VirtualAddresses) {
		if !h.foreign[p.Addr()] || h.held[p] {
			r.Addresses = append(r.Addresses, p)
		}
	}
	for _, p := range sorted(h.held) {
		if !slices.Contains(r.Addresses, p) {
			r.Addresses = append(r.Addresses, p)
		}
	}
	if r.equal(h.recorded) {
		return
	}
	if err := statefile.Write(recordPath(h.stateDir, r.Instance), h.bootID, r); err != nil {
		if h.unwritten != err.Error() {
			h.log.Error("virtual addresses not recorded: after a crash they stay until their lifetime ends; tried again every few seconds", "error", err)
		}
		h.unwritten = err.Error()
		return
	}
	if h.unwritten != "" {
		h.log.Info("virtual addresses recorded again")
	}
	h.recorded, h.unwritten = r, ""
}

// The gratuitous ARP of one burst, and how it is paced: a thousand addresses make five thousand frames.
const (
	arpRepeats = 5
	arpBatch   = 64
	arpPause   = time.Millisecond
	arpLimit   = 100 * time.Millisecond // for one frame; it takes microseconds unless the queue of the interface is full
)

// announce sends the bursts that are asked for; it ends when MASTER is lost.
func (h *holder) announce(w wish) {
	if w.bursts == 0 {
		return
	}
	h.mu.Lock()
	h.wish.bursts -= w.bursts
	h.mu.Unlock()
	if !w.hold || w.index == 0 || len(w.mac) != 6 {
		return
	}
	sent, missed := 0, 0
	var missing error
	for range arpRepeats {
		for _, p := range prefixes(w.instance.VirtualAddresses) {
			if now := h.current(); !now.hold || now.index != w.index {
				return
			}
			if err := h.sendARP(w, p.Addr()); err != nil {
				missed, missing = missed+1, err
			}
			if sent++; sent%arpBatch == 0 {
				time.Sleep(arpPause)
			}
		}
	}
	if missed > 0 {
		h.log.Warn("gratuitous ARP not sent: neighbours may send to the old MASTER until they ask again", "frames", missed, "of", sent,
			"interface", w.instance.Interface, "error", missing)
	}
}

func (h *holder) sendARP(w wish, a netip.Addr) error {
	err := h.wire.sendWithin(arpLimit, w.index, gratuitousARP(w.mac, a))
	if errors.Is(err, unix.ENETDOWN) { // told once after the interface was down, however long it is up again
		err = h.wire.sendWithin(arpLimit, w.index, gratuitousARP(w.mac, a))
	}
	return err
}

func device(w wish) netlink.Link {
	return &netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Index: w.index, Name: w.instance.Interface}}
}

// renewal is the time between two renewals of a lifetime.
func renewal(deadMan time.Duration) time.Duration { return max(100*time.Millisecond, deadMan/6) }

// lifetime is the address as we add it: it goes by itself when nobody renews it.
func lifetime(p netip.Prefix, deadMan time.Duration) *netlink.Addr {
	seconds := max(1, int(deadMan/time.Second))
	return &netlink.Addr{IPNet: ipNet(p), ValidLft: seconds, PreferedLft: seconds}
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func sorted(set map[netip.Prefix]bool) []netip.Prefix {
	var list []netip.Prefix
	for p := range set {
		list = append(list, p)
	}
	slices.SortFunc(list, func(a, b netip.Prefix) int { return a.Addr().Compare(b.Addr()) })
	return list
}
