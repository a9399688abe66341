package xdp

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/xdirector/xdirector/pkg/lb"
)

// nic is one interface that the plane works on: a configured one, or one that those lie on.
type nic struct {
	name       string
	index      int
	slot       uint32 // in the maps `interfaces` and `frames`
	mac        lb.MAC
	configured bool   // the frames of its own network are balanced
	hiddenOn   int    // index of the interface whose driver hides which frames are for this VLAN; 0: none
	lower      *nic   // whose program sees its frames; nil: its own
	vlan       uint16 // id in the tag of its frames there; 0: they have none
	sibling    uint8  // slot, plus one, of the next interface whose frames come the same way; 0: none
	restore    uint8  // what we have set otherwise than we found it, see offload.go
	program    *ebpf.Program
	dry        *dryRun   // its second copy; nil: not needed yet
	link       link.Link // nil: not attached
	mode       Mode

	balanced    uint64    // frames with the verdict pass_balanced, at the last look
	suspectedAt time.Time // when they were last warned of
	alone       string    // why adverts there are left alone; empty: they are not
}

// carrier is the interface with the program that sees the frames of this one.
func (n *nic) carrier() *nic {
	if n.lower != nil {
		return n.lower
	}
	return n
}

// carriers are the interfaces that get a program.
func (p *Plane) carriers() []*nic {
	var list []*nic
	for _, n := range p.nics {
		if n.lower == nil {
			list = append(list, n)
		}
	}
	return list
}

// placeInterfaces finds the configured interfaces and those that they lie on, and gives each a slot: the one it had, or a
// free one with zeroed counters. Slots of interfaces that are no longer used become free.
func (p *Plane) placeInterfaces() error {
	present, err := p.system()
	if err != nil {
		return fmt.Errorf("list interfaces: %w", err)
	}
	byIndex := byIndex(present)
	p.present = byIndex
	for _, name := range p.config.Interfaces {
		i := slices.IndexFunc(present, func(candidate device) bool { return candidate.Name == name })
		if i < 0 {
			return fmt.Errorf("find interface %s: there is none; correct dataplane.interfaces or create it", name)
		}
		if err := p.place(present[i], byIndex); err != nil {
			return err
		}
	}
	for _, n := range p.carriers() {
		if lower := byIndex[n.hiddenOn]; slices.ContainsFunc(p.nics, func(other *nic) bool { return other.index == n.hiddenOn }) {
			return fmt.Errorf("find interface %s: the driver of %s hides VLAN tags, so the frames of the two can't be told apart: take one of them out of dataplane.interfaces, or try ethtool -K %s rxvlan off",
				n.name, lower.Name, lower.Name)
		}
	}
	slots := make([]xdirectorInterface, p.maps.Interfaces.MaxEntries())
	if len(p.nics) > len(slots) {
		return fmt.Errorf("place interfaces: %d are needed, at most %d are supported", len(p.nics), len(slots))
	}
	for slot := range slots {
		if err := p.maps.Interfaces.Lookup(uint32(slot), &slots[slot]); err != nil {
			return fmt.Errorf("read slot %d of interfaces: %w", slot, err)
		}
	}
	for slot, value := range slots {
		i := slices.IndexFunc(p.nics, func(n *nic) bool { return value.Index == uint32(n.index) })
		switch {
		case value.Index == 0:
		case i >= 0 && p.nics[i].slot == noSlot:
			p.nics[i].slot = uint32(slot)
			p.nics[i].restore |= value.Restore
		default:
			p.restore(byIndex[int(value.Index)], byIndex, value.Restore)
			slots[slot] = xdirectorInterface{}
			if err := p.maps.Interfaces.Put(uint32(slot), slots[slot]); err != nil {
				return fmt.Errorf("free slot %d of interfaces: %w", slot, err)
			}
		}
	}
	for _, n := range p.nics {
		if n.slot == noSlot {
			free := slices.IndexFunc(slots, func(value xdirectorInterface) bool { return value.Index == 0 })
			n.slot = uint32(free) // there is one: no more interfaces than slots are allowed
			slots[free].Index = uint32(n.index)
			if err := p.maps.Frames.Put(n.slot, make([]xdirectorInterfaceCounters, ebpf.MustPossibleCPU())); err != nil {
				return fmt.Errorf("reset counters of %s: %w", n.name, err)
			}
		}
	}
	if err := p.chainSiblings(); err != nil {
		return err
	}
	for _, n := range p.nics {
		if n.balanced, err = p.countBalanced(n); err != nil {
			return err
		}
		if err := p.writeInterface(n); err != nil {
			return err
		}
	}
	return nil
}

// place makes the nic of a configured interface, and of the one that its program is on.
func (p *Plane) place(d device, byIndex map[int]device) error {
	if master := byIndex[d.master]; master.kind == "bond" {
		return fmt.Errorf("find interface %s: it is a member of %s, which takes its frames; put %s into dataplane.interfaces instead", d.Name, master.Name, master.Name)
	}
	n := p.nicOf(d)
	if n.configured {
		return fmt.Errorf("find interface %s: it is given twice", d.Name)
	}
	n.configured = true
	w := lanOf(d.Index, byIndex, func(int) bool { return false })
	lower := byIndex[w.index]
	switch {
	case w.index == d.Index:
	case lower.kind == "vlan":
		// It would take two tags. Only generic XDP works there, on the interface itself.
	case w.vlan == 0:
		n.lower = p.nicOf(lower)
	default:
		hidden, err := p.showTags(lower, byIndex)
		if err != nil {
			p.log.Warn("the driver takes VLAN tags off before an XDP program sees the frame, so only generic XDP on the VLAN interface itself can tell its frames",
				"interface", d.Name, "lower", lower.Name, "error", err)
			n.hiddenOn = lower.Index
			break
		}
		n.lower, n.vlan = p.nicOf(lower), w.vlan
		if hidden {
			n.lower.restore |= restoreTags
		}
	}
	return nil
}

// nicOf is the nic of an interface, made if there is none yet.
func (p *Plane) nicOf(d device) *nic {
	for _, n := range p.nics {
		if n.index == d.Index {
			return n
		}
	}
	n := &nic{name: d.Name, index: d.Index, mac: macOf(d), slot: noSlot}
	p.nics = append(p.nics, n)
	return n
}

func (p *Plane) writeInterface(n *nic) error {
	if err := p.maps.Interfaces.Put(n.slot, xdirectorInterface{Mac: n.mac, Index: uint32(n.index), Restore: n.restore, Sibling: n.sibling}); err != nil {
		return fmt.Errorf("write address of %s: %w", n.name, err)
	}
	return nil
}

// Attach puts the programs onto all interfaces, in the first of the modes that works on all of them: a program in
// native mode can send only to interfaces that have one too. Programs that an earlier agent left attached are replaced
// in one step, without a packet missed; their mode is tried first if it is among the modes. Programs on interfaces that
// are no longer configured are detached.
//
// If one interface can't be attached, none is: the error names it, with the reason for each mode.
func (p *Plane) Attach(modes ...Mode) (map[string]Mode, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.clock == nil {
		return nil, errClosed
	}
	if len(modes) == 0 {
		return nil, errors.New("attach xdp plane: no mode given")
	}
	order, err := p.orderModes(modes)
	if err != nil {
		return nil, err
	}
	var reasons []string
	for _, mode := range order {
		attached, err := p.attachAll(mode)
		if err == nil {
			p.reason = strings.Join(reasons, "; ")
			if mode != modes[0] && p.reason == "" {
				p.reason = "kept in the mode in which an earlier run attached it"
			}
			p.fitOffloads()
			return attached, nil
		}
		reasons = append(reasons, fmt.Sprintf("%s: %v", mode, err))
	}
	return nil, errors.Join(errors.New(strings.Join(reasons, "; ")), p.detachAll())
}

// orderModes puts the mode in which programs are attached already before the others.
func (p *Plane) orderModes(modes []Mode) ([]Mode, error) {
	found, err := p.pins.list()
	if err != nil {
		return nil, err
	}
	order := slices.Clone(modes)
	for _, pinned := range found {
		i := slices.Index(order, pinned.mode)
		configured := slices.ContainsFunc(p.nics, func(n *nic) bool { return n.index == pinned.index })
		if i >= 0 && configured {
			order = slices.Insert(slices.Delete(order, i, i+1), 0, pinned.mode)
			break
		}
	}
	return order, nil
}

func (p *Plane) attachAll(mode Mode) (map[string]Mode, error) {
	if mode == Generic {
		if err := p.unstack(); err != nil {
			return nil, err
		}
	}
	if outside := p.outside(); mode == Native && outside != "" {
		return nil, errors.New(outside)
	}
	if err := p.detachStale(mode); err != nil {
		return nil, err
	}
	attached := map[string]Mode{}
	for _, n := range p.carriers() {
		if err := p.attach(n, mode); err != nil {
			return nil, fmt.Errorf("attach to %s: %w", n.name, err)
		}
	}
	for _, n := range p.nics {
		attached[n.name] = mode
	}
	return attached, nil
}

// detachStale ends the pinned links that don't belong to a configured interface, or are of another mode.
func (p *Plane) detachStale(mode Mode) error {
	found, err := p.pins.list()
	if err != nil {
		return err
	}
	for _, pinned := range found {
		carriers := p.carriers()
		i := slices.IndexFunc(carriers, func(n *nic) bool { return n.index == pinned.index })
		if i >= 0 && pinned.mode == mode {
			continue
		}
		p.log.Info("detaching an XDP program that is no longer wanted", "interface_index", pinned.index, "mode", pinned.mode)
		if err := p.pins.detach(pinned.path); err != nil {
			return err
		}
		if i >= 0 {
			carriers[i].dropLink()
		}
	}
	return nil
}

func (p *Plane) detachAll() error {
	found, err := p.pins.list()
	for _, pinned := range found {
		err = errors.Join(err, p.pins.detach(pinned.path))
	}
	for _, n := range p.nics {
		n.dropLink()
	}
	return err
}

func (n *nic) dropLink() {
	if n.link != nil {
		n.link.Close()
		n.link = nil
	}
	n.mode = ""
}

func (p *Plane) attach(n *nic, mode Mode) error {
	adopted, err := p.adopt(n, mode)
	if adopted || err != nil {
		return err
	}
	if err := p.attachAs(n, mode); err != nil {
		return err
	}
	p.log.Info("XDP program attached", "interface", n.name, "mode", mode)
	return nil
}

func (p *Plane) attachAs(n *nic, mode Mode) error {
	flags := link.XDPGenericMode
	if mode == Native {
		flags = link.XDPDriverMode
	}
	made, err := link.AttachXDP(link.XDPOptions{Program: n.program, Interface: n.index, Flags: flags})
	if errors.Is(err, unix.EBUSY) || errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("another XDP program is attached there or to an interface above it (ip link set dev %s xdp off removes one that is not a link): %w",
			n.name, err)
	}
	if errors.Is(err, unix.ERANGE) {
		return fmt.Errorf("the MTU is too large for XDP in this driver: %w", err)
	}
	if errors.Is(err, unix.EOPNOTSUPP) {
		return fmt.Errorf("the driver can't: %w", err)
	}
	if err != nil {
		return err
	}
	if err := made.Pin(p.pins.link(mode, n.index)); err != nil {
		made.Close()
		return fmt.Errorf("pin link: %w", err)
	}
	n.link, n.mode = made, mode
	return nil
}

// adopt takes over the link that is pinned for an interface. False: there is none that is still alive.
func (p *Plane) adopt(n *nic, mode Mode) (bool, error) {
	if n.link != nil && isAttached(n.link, n.index) {
		return true, nil
	}
	n.dropLink()
	path := p.pins.link(mode, n.index)
	pinned, err := link.LoadPinnedLink(path, nil)
	if err != nil {
		return false, nil // nothing there, which is usual
	}
	if isAttached(pinned, n.index) {
		err := pinned.Update(n.program)
		if err == nil {
			n.link, n.mode = pinned, mode
			p.log.Info("XDP program replaced, forwarding went on", "interface", n.name, "mode", mode)
			return true, nil
		}
		p.log.Warn("the XDP program of an earlier run can't be replaced and is detached", "interface", n.name, "error", err)
	}
	pinned.Close()
	return false, p.pins.detach(path)
}

// isAttached says whether a link still holds on to its interface: it loses it when the interface is deleted.
func isAttached(l link.Link, index int) bool {
	info, err := l.Info()
	return err == nil && info.XDP() != nil && int(info.XDP().Ifindex) == index
}

// ErrReplaced is in the error of Apply when an interface has no program of ours any more: it was deleted and made anew,
// or somebody has detached the program. The plane must be closed, opened and attached again.
var ErrReplaced = errors.New("is without our XDP program: it was made anew, or somebody has detached the program")

// refreshInterfaces notices changed MAC addresses, lost programs and hidden tags, and returns the way out by each interface
// of this box, by index.
func (p *Plane) refreshInterfaces() (map[int]exit, error) {
	present, err := p.system()
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	now := byIndex(present)
	p.present = now
	for _, n := range p.nics {
		d, ok := now[n.index]
		mac := macOf(d)
		switch {
		case !ok && slices.ContainsFunc(present, func(candidate device) bool { return candidate.Name == n.name }):
			return nil, fmt.Errorf("interface %s %w", n.name, ErrReplaced)
		case !ok:
			return nil, fmt.Errorf("interface %s is gone, and our XDP program with it", n.name)
		case n.link != nil && !isAttached(n.link, n.index):
			return nil, fmt.Errorf("interface %s %w", n.name, ErrReplaced)
		}
		if n.vlan != 0 {
			if _, err := p.showTags(now[n.lower.index], now); err != nil {
				return nil, fmt.Errorf("interface %s gets no frames: %w", n.name, err)
			}
		}
		if mac == n.mac {
			continue
		}
		p.log.Info("MAC address changed", "interface", n.name, "from", n.mac, "to", mac)
		n.mac = mac
		if err := p.writeInterface(n); err != nil {
			return nil, err
		}
	}
	return p.exits(now), nil
}
