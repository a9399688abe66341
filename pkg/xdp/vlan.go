package xdp

import (
	"errors"
	"fmt"
)

// hidesTags says whether frames of VLAN interfaces come to an interface's program without their tags: then an advert for
// VRID 51 of VLAN 20 looks like one for VRID 51 of the interface itself. What can't be found out counts as yes.
func (p *Plane) hidesTags(n *nic) (bool, error) {
	for _, d := range p.present {
		if d.kind == "vlan" && d.lower == n.index {
			return p.offloads.takesTags(n.name)
		}
	}
	return false, nil
}

// showTags has the driver of an interface leave VLAN tags on the frames. It says whether it did not do so before.
func (p *Plane) showTags(name string) (changed bool, err error) {
	takes, err := p.offloads.takesTags(name)
	if err != nil || !takes {
		return false, err
	}
	if err := p.offloads.setTakesTags(name, false); err != nil {
		return false, err
	}
	p.log.Info("VLAN tags stay on received frames, as the XDP program needs it: rx-vlan-offload is off until the programs are removed", "interface", name)
	return true, nil
}

// restore gives back what we have set otherwise on an interface.
func (p *Plane) restore(name string, what uint16) {
	if err := restoreOffloads(p.offloads, name, what); err != nil {
		p.log.Warn("an offload that was switched off for XDP stays so", "interface", name, "error", err)
	}
}

func restoreOffloads(o offloads, name string, what uint16) error {
	var err error
	if name == "" { // the interface is gone
		return nil
	}
	if what&restoreTags != 0 {
		err = o.setTakesTags(name, true)
	}
	if what&restoreGRO != 0 {
		err = errors.Join(err, o.setMerges(name, true))
	}
	return err
}

// leaveAlone notes why adverts on an interface are left alone, if those of its VLANs can't be told from them, and tells it
// once.
func (p *Plane) leaveAlone(n *nic) {
	if n.lower != nil {
		n.alone = fmt.Sprintf("adverts on %s are neither filtered nor absorbed: the program on %s sees them, and takes those of %s alone", n.name, n.lower.name, n.lower.name)
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
