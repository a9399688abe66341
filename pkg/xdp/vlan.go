package xdp

import (
	"errors"
	"fmt"
	"slices"

	"github.com/xdirector/xdirector/pkg/lb"
)

// hidesTags says whether frames of VLAN interfaces come to an interface's program without their tags: then an advert for
// VRID 51 of VLAN 20 looks like one for VRID 51 of the interface itself. What can't be found out counts as yes.
func (p *Plane) hidesTags(n *nic) (bool, error) {
	n = n.carrier()
	for _, d := range p.present {
		if d.kind == "vlan" && d.lower == n.index {
			return p.offloads.takesTags(n.name)
		}
	}
	return false, nil
}

// showTags has the drivers below an interface leave VLAN tags on the frames. It says whether one did not do so before.
func (p *Plane) showTags(d device, all map[int]device) (changed bool, err error) {
	for _, name := range drivers(d, all) {
		takes, err := p.offloads.takesTags(name)
		if err == nil && takes {
			err = p.offloads.setTakesTags(name, false)
			changed = true
		}
		if err != nil {
			return changed, err
		}
	}
	if changed {
		p.log.Info("VLAN tags stay on received frames, as the XDP program needs it: rx-vlan-offload is off until the programs are removed", "interface", d.Name)
	}
	return changed, nil
}

// drivers names the interfaces whose drivers receive the frames of one: itself, and the members of a bond.
func drivers(d device, all map[int]device) []string {
	names := []string{d.Name}
	for _, member := range all {
		if d.kind == "bond" && member.master == d.Index {
			names = append(names, member.Name)
		}
	}
	return names
}

// restore gives back what we have set otherwise on an interface.
func (p *Plane) restore(d device, all map[int]device, what uint8) {
	if err := restoreOffloads(p.offloads, d, all, what); err != nil {
		p.log.Warn("an offload that was switched off for XDP stays so", "interface", d.Name, "error", err)
	}
}

func restoreOffloads(o offloads, d device, all map[int]device, what uint8) error {
	var err error
	if what == 0 || d.Name == "" { // gone
		return nil
	}
	for _, name := range drivers(d, all) {
		if what&restoreTags != 0 {
			err = errors.Join(err, o.setTakesTags(name, true))
		}
		if what&restoreGRO != 0 {
			err = errors.Join(err, o.setMerges(name, true))
		}
	}
	return err
}

// unstack has the VLANs of interfaces like bonds served on their own interfaces, which is where generic XDP sees their frames:
// the kernel takes the tags off when such an interface takes frames over from its members, and runs generic XDP after that.
func (p *Plane) unstack() error {
	for _, n := range p.nics {
		if n.vlan == 0 || p.present[n.lower.index].kind == "" || p.present[n.lower.index].kind == "veth" {
			continue
		}
		lower := n.lower
		if lower.configured {
			return fmt.Errorf("generic XDP on %s sees no VLAN tags, so its frames and those of %s can't be told apart: take one of them out of dataplane.interfaces",
				lower.name, n.name)
		}
		n.lower, n.vlan = nil, 0
		if err := p.loadProgram(n); err != nil {
			return err
		}
	}
	// What nobody lies on any more needs no program. Its slot keeps what has to be restored.
	p.nics = slices.DeleteFunc(p.nics, func(n *nic) bool {
		unused := !n.configured && !slices.ContainsFunc(p.nics, func(other *nic) bool { return other.lower == n })
		if unused && n.program != nil {
			n.program.Close()
		}
		return unused
	})
	return nil
}

// findAlone looks where adverts have to be left alone, and says whether that has changed: somebody may have set an offload.
func (p *Plane) findAlone(s lb.State) (changed bool) {
	for _, n := range p.nics {
		before := n.alone
		if slices.ContainsFunc(s.Routers, func(r lb.Router) bool { return r.Filter && r.Interface == n.name }) {
			p.leaveAlone(n)
		} else {
			n.alone = ""
		}
		changed = changed || n.alone != before
	}
	return changed
}

// leaveAlone notes why adverts on an interface are left alone, if those of its VLANs can't be told from them, and tells it
// once.
func (p *Plane) leaveAlone(n *nic) {
	if first := p.networksOn(n.carrier())[n.vlan]; uint32(first) != n.slot+1 {
		n.alone = fmt.Sprintf("adverts on %s are neither filtered nor absorbed: they come as those of another interface on the same network do", n.name)
		return
	}
	why := ""
	if hidden, err := p.hidesTags(n); err != nil {
		why = "whether its driver hides the VLANs that it may carry is not known: " + err.Error()
	} else if hidden {
		why = "its driver hides the VLAN of a frame, and it carries VLANs"
	}
	if why != "" {
		why = fmt.Sprintf("adverts on %s are neither filtered nor absorbed: %s; cure: ethtool -K %s rxvlan off", n.name, why, n.name)
	}
	if why != "" && n.alone == "" {
		p.log.Warn(why, "interface", n.name)
	}
	n.alone = why
}

// Differences names the interfaces whose adverts are left alone, with the reason and the cure, as of the last Apply.
func (p *Plane) Differences() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var list []string
	for _, n := range p.nics {
		if n.alone != "" {
			list = append(list, n.alone)
		}
	}
	return list
}
