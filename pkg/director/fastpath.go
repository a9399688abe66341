package director

import (
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"

	"github.com/xdirector/xdirector/pkg/config"
	"github.com/xdirector/xdirector/pkg/ha"
	"github.com/xdirector/xdirector/pkg/lb"
	"github.com/xdirector/xdirector/pkg/xdp"
)

// filtersAlone says that XDP programs are wanted for adverts only: there are no services, and the key is written.
func filtersAlone(cfg *config.Config) bool {
	d := cfg.Dataplane
	return len(cfg.Services) == 0 && len(cfg.Instances) > 0 && d.VRRPFastPathWritten && d.VRRPFastPath != config.FastPathOff && d.Mode != config.ModeIPVS
}

// needsPlane says whether there is anything for a plane to do.
func needsPlane(cfg *config.Config) bool { return len(cfg.Services) > 0 || filtersAlone(cfg) }

// routers are the instances as a plane has to know them: those whose adverts it filters, or whose virtual MAC it serves.
func routers(cfg *config.Config, reports []ha.InstanceReport) []lb.Router {
	sources := map[string]netip.Addr{}
	for _, r := range reports {
		sources[r.Name] = r.Source
	}
	filter := cfg.Dataplane.VRRPFastPath != config.FastPathOff
	var list []lb.Router
	for _, i := range cfg.Instances {
		if !filter && i.VirtualMAC == "" {
			continue
		}
		list = append(list, lb.Router{
			Name:       i.Name,
			Interface:  i.Interface,
			IPv6:       i.IPv6(),
			Version:    i.Version,
			VRID:       i.VirtualRouterID,
			Filter:     filter,
			VirtualMAC: i.VirtualMAC != "",
			Source:     sources[i.Name],
			Addresses:  held(i),
			Peers:      i.UnicastPeers,
			PeerTTL:    i.UnicastTTL,
		})
	}
	return list
}

// held are the addresses of an instance.
func held(i config.Instance) []netip.Addr {
	var list []netip.Addr
	for _, a := range i.Held() {
		list = append(list, a.Prefix.Addr())
	}
	return list
}

// leaving are those of the routers before that cfg has no longer while the election still reports them: until another
// director has taken over, frames to their virtual MAC are for a service here.
func leaving(cfg *config.Config, before []lb.Router, reports []ha.InstanceReport) []lb.Router {
	filter := cfg.Dataplane.VRRPFastPath != config.FastPathOff
	var list []lb.Router
	for _, r := range before {
		reported := slices.ContainsFunc(reports, func(i ha.InstanceReport) bool { return i.Name == r.Name })
		replaced := slices.ContainsFunc(cfg.Instances, func(i config.Instance) bool {
			return i.Name == r.Name || i.Interface == r.Interface && i.IPv6() == r.IPv6 && i.VirtualRouterID == r.VRID
		})
		if r.Filter = r.Filter && filter; reported && !replaced && (r.Filter || r.VirtualMAC) {
			list = append(list, r)
		}
	}
	return list
}

// configureElection gives the election the configuration, with the slots that the plane has for its instances.
func (d *Director) configureElection() {
	d.slots = planeSlots(d.plane)
	d.ha.Configure(haConfig(d.cfg, d.slots))
}

// tellSlots configures the election anew if the plane has come to give other slots.
func (d *Director) tellSlots() {
	if d.ha != nil && !maps.Equal(d.slots, planeSlots(d.plane)) {
		d.configureElection()
	}
}

func planeSlots(p plane) map[string]uint32 {
	if s, ok := p.Plane.(interface{ Slots() map[string]uint32 }); ok {
		return s.Slots()
	}
	return nil
}

// giveMaps gives the election what it shares with the plane that was opened, or closed, before.
func (d *Director) giveMaps() {
	if d.ha == nil {
		return
	}
	var files []*os.File
	if p, ok := d.plane.Plane.(interface{ Files() (xdp.Files, error) }); ok {
		f, err := p.Files()
		if err != nil {
			d.log.Error("adverts are not absorbed, and frames to virtual MACs not forwarded: the election gets no part of the plane", "error", err)
		} else {
			files = []*os.File{f.Words, f.Events, f.Timers}
		}
	}
	d.ha.Maps(files)
	d.tellSlots()
}

// fastPath says what is done with adverts before the kernel sees them, and why that.
func (d *Director) fastPath() (mode, reason string) {
	switch {
	case d.plane.Plane == nil:
		return config.FastPathOff, "no XDP program is attached: " + d.plane.reason
	case !d.plane.name.IsXDP():
		return config.FastPathOff, "plane " + d.planeName() + " has none"
	}
	mode = d.cfg.Dataplane.VRRPFastPath
	reason = "dataplane.vrrp_fast_path"
	if mode == config.FastPathOff {
		return mode, reason
	}
	var without, slow []string
	for _, i := range d.cfg.Instances {
		switch {
		case d.slots[i.Name] == 0:
			without = append(without, i.Name)
		case mode == config.FastPathAbsorb && !d.cfg.Dataplane.Absorbs(i):
			slow = append(slow, i.Name)
		}
	}
	if len(slow) > 0 {
		reason += fmt.Sprintf("; filter for %s, with an advert_interval above %s", some(slow), config.AbsorbInterval)
	}
	if len(without) > 0 {
		reason += fmt.Sprintf("; off for %s, on an interface without a program", some(without))
	}
	for _, difference := range d.plane.differences { // of an XDP plane, all are about adverts
		reason += "; " + difference
	}
	return mode, reason
}
