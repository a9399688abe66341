package xdp

import (
	"fmt"
	"slices"
	"strings"
)

// In generic mode the kernel may have merged received packets of a flow into a larger one before a program sees it. What the
// program sends goes straight to a driver: one that can't cut it up again sends what nobody can receive. In native mode
// nothing is merged yet.

// fitOffloads has no packets merged where a driver that frames leave by can't cut them up, and notes what is so.
func (p *Plane) fitOffloads() {
	said, unable := "", ""
	if slices.ContainsFunc(p.nics, func(n *nic) bool { return n.mode == Generic }) {
		unable = p.uncutting()
		said = "GRO may stay on: the drivers cut merged packets up in hardware"
	}
	if unable != "" {
		said = fmt.Sprintf("GRO is off: the driver of %s does not cut merged packets up (tx-tcp-segmentation, tx-checksumming)", unable)
	}
	for _, n := range p.carriers() {
		if err := p.mergeOn(n, n.mode != Generic || unable == ""); err != nil {
			said = fmt.Sprintf("GRO should be off, since the driver of %s does not cut merged packets up: %v", unable, err)
		}
	}
	if said != p.merging && said != "" {
		p.log.Info("generic XDP: " + said)
	}
	p.merging = said
}

// mergeOn lets packets be merged that an interface receives, or has none merged.
func (p *Plane) mergeOn(n *nic, on bool) error {
	d, restore := p.present[n.index], n.restore
	if on {
		if restore&restoreGRO == 0 {
			return nil
		}
		p.restore(d, p.present, restoreGRO)
		restore &^= restoreGRO
	} else {
		for _, name := range drivers(d, p.present) {
			merges, err := p.offloads.merges(name)
			if err == nil && merges {
				restore |= restoreGRO
				err = p.offloads.setMerges(name, false)
			}
			if err != nil {
				return err
			}
		}
	}
	if restore == n.restore {
		return nil
	}
	n.restore = restore
	return p.writeInterface(n)
}

// uncutting names the interfaces that frames of real servers leave by whose drivers don't cut packets up; empty: there is none.
func (p *Plane) uncutting() string {
	used := map[int]bool{}
	for _, n := range p.carriers() {
		used[n.index] = true
	}
	for _, entry := range p.tables.servers {
		if entry.written && entry.value.Flags&serverLive != 0 {
			used[int(entry.value.Interface)] = true
		}
	}
	var list []string
	for index := range used {
		d, ok := p.present[index]
		// What is sent by an interface of the kernel's own, like a bond, comes to a driver by the usual way, on which it is cut up.
		if !ok || d.kind != "" && d.kind != "veth" {
			continue
		}
		if cuts, err := p.offloads.segments(d.Name); err != nil || !cuts {
			list = append(list, d.Name)
		}
	}
	slices.Sort(list)
	return strings.Join(list, ", ")
}

// Offloads says, in generic mode, what is done about packets that the kernel merges before the programs see them; empty in
// native mode, where it does not.
func (p *Plane) Offloads() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.merging
}
