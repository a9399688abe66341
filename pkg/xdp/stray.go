package xdp

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/xdirector/xdirector/pkg/lb"
)

// What would make frames vanish, or go astray, without a word from the kernel.

// suspectAgain is between warnings about frames that go astray.
const suspectAgain = time.Minute

// suspect warns of frames that are passed to the kernel as balanced already although this box is nobody's real server:
// the kernel has no use for them. It may go unnoticed otherwise, since only some clients are refused.
func (p *Plane) suspect(s lb.State) {
	for _, service := range s.Services {
		if slices.ContainsFunc(service.RealServers, func(r lb.RealServer) bool { return r.NextHop.Local }) {
			return
		}
	}
	for _, n := range p.nics {
		balanced, err := p.countBalanced(n)
		if err != nil || balanced == n.balanced {
			continue
		}
		more, now := balanced-n.balanced, time.Now()
		n.balanced = balanced
		if now.Sub(n.suspectedAt) < suspectAgain {
			continue
		}
		n.suspectedAt = now
		p.log.Warn("frames for services come from the MAC address of a real server or of another director, but not from its own IP address: "+
			"they count as balanced already and are refused here. Is a real server also the router of clients, does a router answer ARP for "+
			"a real server (proxy ARP), or has a real server that is a client a second address?", "interface", n.name, "frames", more)
	}
}

func (p *Plane) countBalanced(n *nic) (uint64, error) {
	read, _, err := p.readInterface(n)
	return read.Verdicts[verdictNames[xdirectorVerdictVERDICT_PASS_BALANCED]], err
}

// usable leaves out the interfaces that frames can't be sent to, and tells which real servers are behind them: the
// kernel would drop such frames without a word.
func (p *Plane) usable(s lb.State, exits map[int]exit) map[int]exit {
	native := slices.ContainsFunc(p.nics, func(n *nic) bool { return n.mode == Native })
	if !native {
		return exits
	}
	warned := map[netip.Addr]string{}
	for _, service := range s.Services {
		for _, r := range service.RealServers {
			if !r.NextHop.Known() || r.NextHop.Local || p.owns(exits[r.NextHop.Interface].index) {
				continue
			}
			text := outsideText(r.Address, r.NextHop.Interface, p.system)
			if p.warned[r.Address] != text && warned[r.Address] == "" {
				p.log.Warn("a real server gets no packets", "real_server", r.Address, "reason", text)
			}
			warned[r.Address] = text
		}
	}
	p.warned = warned
	own := maps.Clone(exits)
	maps.DeleteFunc(own, func(_ int, e exit) bool { return !p.owns(e.index) })
	return own
}

// outside says which real server is reached by an interface that is none of the plane's; empty: none is.
func (p *Plane) outside() string {
	for key, entry := range p.tables.servers {
		live := entry.written && entry.value.Flags&serverLive != 0 && entry.value.Flags&serverLocal == 0
		if live && !p.owns(int(entry.value.Interface)) {
			return outsideText(key.Address, int(entry.value.Device), p.system)
		}
	}
	return ""
}

// owns says whether an interface has a program of ours.
func (p *Plane) owns(index int) bool {
	return slices.ContainsFunc(p.nics, func(n *nic) bool { return n.index == index && n.lower == nil })
}

func outsideText(address netip.Addr, index int, system func() ([]device, error)) string {
	name := fmt.Sprintf("interface %d", index)
	if present, err := system(); err == nil {
		for _, i := range present {
			if i.Index == index {
				name = i.Name
			}
		}
	}
	return fmt.Sprintf("real server %s is reached by %s, where no program of ours is, so native XDP can't send there; add %s to dataplane.interfaces",
		address, name, name)
}
