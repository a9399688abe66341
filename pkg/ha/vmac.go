package ha

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// virtualMAC is the Ethernet address of the virtual router, "00-00-5E-00-01-{VRID}" for IPv4 and
// "00-00-5E-00-02-{VRID}" for IPv6 (RFC 9568, 7.3), or nil for an instance that uses its interface's own.
func virtualMAC(i *Instance) net.HardwareAddr {
	if i.VirtualMAC == "" {
		return nil
	}
	family := byte(1)
	if i.ipv6() {
		family = 2
	}
	return net.HardwareAddr{0, 0, 0x5e, 0, family, i.VRRP.VRID}
}

func (i Instance) ipv6() bool {
	return len(i.VRRP.Addresses) > 0 && i.VRRP.Addresses[0].Is6()
}

// macvlan is the device that carries the addresses of an instance with a virtual MAC. Its mode is bridge: in private
// mode the kernel hides frames that come from this very MAC, a peer's adverts, from the interface and all that
// listens there. It is up only while MASTER: while it is down the box takes no frame to the virtual MAC.
type macvlan struct {
	name   string
	index  int // 0: there is none
	parent int
	up     bool // as wished: it is set down a little later
}

// adoptMAC takes the device that a former run left as ours, and removes what it left under another name or with another
// MAC. It says why no device of the wished name can be had.
func (h *holder) adoptMAC(w wish, rec record) (fault string) {
	parent, name := w.links[w.instance.Interface].Index, w.instance.VirtualMAC
	for _, m := range rec.VirtualMAC {
		if m.Name == name && m.Parent == parent && bytes.Equal(m.hardware(), virtualMAC(w.instance)) {
			continue
		}
		if k, err := h.host.handle.LinkByName(m.Name); err == nil && isOurs(k, m.Parent, m.hardware()) {
			h.mac = macvlan{name: m.Name, index: k.Attrs().Index, parent: m.Parent}
			h.dropMAC("left by a former run")
		}
	}
	if _, there := w.links[name]; !there {
		return ""
	}
	k, err := h.host.handle.LinkByName(name)
	if err != nil {
		return "" // it is gone meanwhile
	}
	if !isOurs(k, parent, virtualMAC(w.instance)) {
		return fmt.Sprintf("interface %s is there already and is no macvlan with the virtual MAC %s on %s; remove it, or give virtual_mac another name",
			name, virtualMAC(w.instance), w.instance.Interface)
	}
	h.mac = macvlan{name: name, index: k.Attrs().Index, parent: parent, up: k.Attrs().Flags&net.FlagUp != 0}
	return ""
}

// isOurs says whether a device is the macvlan that we would make.
func isOurs(k netlink.Link, parent int, mac net.HardwareAddr) bool {
	m, ok := k.(*netlink.Macvlan)
	return ok && m.ParentIndex == parent && bytes.Equal(m.HardwareAddr, mac) && m.Mode == netlink.MACVLAN_MODE_BRIDGE
}

// keepMAC makes the device as wished.
func (h *holder) keepMAC(w wish) {
	parent := w.links[w.instance.Interface].Index
	switch {
	case h.mac.index == 0:
	case h.mac.name != w.instance.VirtualMAC:
		h.dropMAC("not in the configuration any more")
	case h.mac.parent != parent:
		h.dropMAC("its interface is gone")
	}
	if w.instance.VirtualMAC == "" || parent == 0 {
		return
	}
	if h.mac.index != 0 && (w.moved || w.blind) {
		h.checkMAC()
	}
	if h.mac.index == 0 && !h.fight.wait(h.nudge) {
		if err := h.makeMAC(w, parent); err != nil {
			h.fail(w.instance.VirtualMAC, err)
			return
		}
		delete(h.failed, w.instance.VirtualMAC)
	}
	if h.mac.index != 0 && h.mac.up != w.hold {
		h.setMAC(w.hold)
	}
	if h.mac.up && w.instance.ipv6() {
		p := ownLinkLocal(w.links[w.instance.Interface].MAC, h.mac.name)
		err := h.host.handle.AddrAdd(device(h.mac.index), &netlink.Addr{IPNet: ipNet(p), Flags: unix.IFA_F_NODAD})
		if err != nil && !errors.Is(err, unix.EEXIST) {
			h.fail(p.String(), fmt.Errorf("add link-local address %s to %s: %w", p, h.mac.name, err))
		}
	}
}

// checkMAC finds out whether somebody else removed the device or switched it.
func (h *holder) checkMAC() {
	k, err := h.host.handle.LinkByIndex(h.mac.index)
	var none netlink.LinkNotFoundError
	switch {
	case errors.As(err, &none):
		for s := range h.held { // they went with it
			if s.index == h.mac.index {
				h.letGo(s)
			}
		}
		h.lost("virtual MAC", h.mac.name, h.mac.name)
		h.mac = macvlan{}
	case err == nil && h.mac.up && k.Attrs().Flags&net.FlagUp == 0:
		h.lost("virtual MAC", h.mac.name+" (set down)", h.mac.name)
		h.mac.up = false
	}
}

// makeMAC makes the device, down, with everything set before it is up.
func (h *holder) makeMAC(w wish, parent int) error {
	i := w.instance
	m := &netlink.Macvlan{Mode: netlink.MACVLAN_MODE_BRIDGE,
		LinkAttrs: netlink.LinkAttrs{Name: i.VirtualMAC, ParentIndex: parent, HardwareAddr: virtualMAC(i)}}
	if err := h.host.handle.LinkAdd(m); err != nil {
		return fmt.Errorf("make macvlan %s on %s: %w", i.VirtualMAC, i.Interface, err)
	}
	h.mac = macvlan{name: i.VirtualMAC, index: m.Index, parent: parent}
	h.log.Info("virtual MAC made", "interface", i.VirtualMAC, "on", i.Interface, "mac", virtualMAC(i).String())
	h.prepareMAC(w)
	return nil
}

// prepareMAC sets what makes the box answer for the addresses once, and with the virtual MAC alone.
func (h *holder) prepareMAC(w wish) {
	below, device, s := w.instance.Interface, w.instance.VirtualMAC, h.host.sysctls
	quiet := slog.New(lowered{h.log.Handler()}) // settings of our own device are nobody's concern
	s.promote(quiet, device)
	// The kernel answers ARP on any interface for any address of the box, unless told not to: that of an IPv6 instance too.
	s.set(quiet, false, device, "arp_ignore", "1", "the virtual MAC answers for the virtual addresses alone")
	if !w.instance.ipv6() {
		s.set(h.log, false, below, "arp_ignore", "1", "only the virtual MAC answers for the virtual addresses")
		// Answers to clients leave by the interface itself: its ARP requests must not have a virtual address as their sender.
		s.set(h.log, false, below, "arp_announce", "2", "the interface's own MAC is never told for a virtual address")
		// The way back to a client is the interface, not the macvlan: strict filtering would drop what comes in there.
		filter := "0"
		if all := s.get(false, "all", "rp_filter"); all != "0" && all != "" {
			filter = "2" // the larger of the two counts
		}
		s.set(quiet, false, device, "rp_filter", filter, "packets that come in by the virtual MAC are not dropped")
		s.set(quiet, false, device, "arp_filter", "0", "the virtual MAC answers although the way back is the interface")
		s.set(quiet, true, device, "disable_ipv6", "1", "the virtual MAC of an IPv4 instance has no IPv6 address")
		return
	}
	// RFC 9568, 7.4: no interface identifier is made from the virtual router's MAC, since all its routers have that.
	s.set(quiet, true, device, "addr_gen_mode", "1", "no address is made from the virtual MAC, which other directors have too")
	s.set(quiet, true, device, "accept_ra", "0", "the virtual MAC gets no other addresses than the virtual ones")
	s.set(quiet, true, device, "autoconf", "0", "the virtual MAC gets no other addresses than the virtual ones")
	s.set(quiet, true, device, "forwarding", s.get(true, below, "forwarding"), "the virtual MAC says of itself what the interface says")
}

// lowered is a log handler for what is worth no more than level debug, errors apart.
type lowered struct{ slog.Handler }

func (l lowered) Handle(ctx context.Context, r slog.Record) error {
	if r.Level == slog.LevelInfo {
		r.Level = slog.LevelDebug
	}
	if !l.Enabled(ctx, r.Level) {
		return nil
	}
	return l.Handler.Handle(ctx, r)
}

// setMAC sets the device up at once, or down soon.
func (h *holder) setMAC(up bool) {
	h.mac.up = up
	if !up {
		h.host.janitor.setDown(h.mac.index)
		return
	}
	h.host.janitor.keep(h.mac.index)
	if err := h.host.handle.LinkSetUp(device(h.mac.index)); err != nil {
		h.mac.up = false
		h.fail(h.mac.name, fmt.Errorf("set %s up: %w", h.mac.name, err))
		return
	}
	delete(h.failed, h.mac.name)
}

// dropMAC removes the device and what it carries.
func (h *holder) dropMAC(why string) {
	if h.mac.index == 0 {
		return
	}
	if err := h.host.crew.wait(func() error { return h.host.janitor.remove(h.mac.index) }); err != nil {
		h.fail(h.mac.name, fmt.Errorf("remove virtual MAC %s: %w", h.mac.name, err))
		return
	}
	for s := range h.held {
		if s.index == h.mac.index {
			h.letGo(s)
		}
	}
	h.log.Info("virtual MAC removed", "interface", h.mac.name, "reason", why)
	h.mac = macvlan{}
}

func (h *holder) recordMAC(w wish, r *record) {
	if parent := w.links[w.instance.Interface].Index; w.instance.VirtualMAC != "" && parent != 0 {
		r.VirtualMAC = append(r.VirtualMAC, recordedDevice{Name: w.instance.VirtualMAC, Parent: parent, MAC: virtualMAC(w.instance).String()})
	}
	// One under another name is not removed yet.
	if h.mac.index != 0 && h.mac.name != w.instance.VirtualMAC {
		r.VirtualMAC = append(r.VirtualMAC, recordedDevice{Name: h.mac.name, Parent: h.mac.parent, MAC: virtualMAC(w.instance).String()})
	}
}

// ownLinkLocal is the link-local address of a virtual MAC's device: made from the MAC of the interface below and the
// name, so that each director has one of its own.
func ownLinkLocal(parent net.HardwareAddr, name string) netip.Prefix {
	sum := fnv.New64a()
	sum.Write(parent)
	sum.Write([]byte(name))
	a := [16]byte{0: 0xfe, 1: 0x80}
	copy(a[8:], sum.Sum(nil))
	a[8] &^= 2 // not made from a universal MAC
	return netip.PrefixFrom(netip.AddrFrom16(a), 64)
}
