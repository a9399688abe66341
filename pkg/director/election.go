package director

import (
	"net/netip"
	"slices"

	"github.com/xdirector/xdirector/pkg/config"
	"github.com/xdirector/xdirector/pkg/ha"
	"github.com/xdirector/xdirector/pkg/lb"
	"github.com/xdirector/xdirector/pkg/vrrp"
)

// haConfig is what the election needs of the configuration. slots are the numbers that the plane has given to
// instances, by name; nil: the plane has none.
func haConfig(cfg *config.Config, slots map[string]uint32) ha.Config {
	groups := syncGroups(cfg)
	c := ha.Config{StateDir: cfg.StateDir, DeadMan: cfg.Dataplane.DeadMan}
	for _, i := range cfg.Instances {
		c.Instances = append(c.Instances, ha.Instance{
			Name:             i.Name,
			Interface:        i.Interface,
			VRRP:             vrrpConfig(i),
			VirtualAddresses: virtualAddresses(i.Held()),
			Routes:           routes(i.Routes),
			Source:           i.SourceAddress,
			StartupDelay:     i.StartupDelay,
			ARPInterval:      i.GARP.Interval,
			VirtualMAC:       i.VirtualMAC,
			Accept:           i.Accept,
			Services:         services(cfg, i),
			Group:            groups[i.Name],
			TrackInterfaces:  trackInterfaces(i.Track.Interfaces),
			Slot:             slots[i.Name],
			Absorb:           slots[i.Name] != 0 && cfg.Dataplane.Absorbs(i),
		})
	}
	return c
}

// syncGroups is the sync group of each instance that is in one.
func syncGroups(cfg *config.Config) map[string]string {
	groups := map[string]string{}
	for _, g := range cfg.SyncGroups {
		for _, name := range g.Instances {
			groups[name] = g.Name
		}
	}
	return groups
}

func vrrpConfig(i config.Instance) vrrp.Config {
	c := vrrp.Config{
		Name:         i.Name,
		Version:      i.Version,
		VRID:         i.VirtualRouterID,
		Priority:     i.Priority,
		Interval:     i.AdvertInterval,
		Preempt:      i.Preempt,
		PreemptDelay: i.PreemptDelay,
		Password:     i.Password,
		DownAdverts:  i.DownTimerAdverts,
		Peers:        i.UnicastPeers,
		PeerTTL:      i.UnicastTTL,
		Announce: vrrp.Announcing{
			Repeat:        i.GARP.Repeat,
			Delay:         orNever(i.GARP.Delay),
			Refresh:       i.GARP.Refresh,
			RefreshRepeat: i.GARP.RefreshRepeat,
			LowerRepeat:   orNever(i.GARP.LowerRepeat),
			LowerDelay:    orNever(i.GARP.LowerDelay),
		},
	}
	if i.Checksum == config.ChecksumRFC9568 {
		c.Checksum = vrrp.MessageOnly
	}
	for _, a := range i.VirtualAddresses {
		c.Addresses = append(c.Addresses, a.Prefix.Addr())
	}
	return c
}

// orNever turns the 0 of the configuration, which means never, into the -1 of vrrp.Announcing, where 0 is the default.
func orNever[T ~int | ~int64](n T) T {
	if n == 0 {
		return -1
	}
	return n
}

// services are those at the addresses of an instance that keeps other packets from this box.
func services(cfg *config.Config, i config.Instance) []lb.ServiceKey {
	var out []lb.ServiceKey
	for _, s := range cfg.Services {
		holds := func(a config.VirtualAddress) bool {
			return s.Address.IsValid() && s.Key().Prefix().Contains(a.Prefix.Addr())
		}
		if !i.Accept && slices.ContainsFunc(i.Held(), holds) {
			out = append(out, s.Key())
		}
	}
	return out
}

func virtualAddresses(list []config.VirtualAddress) []ha.VirtualAddress {
	var out []ha.VirtualAddress
	for _, a := range list {
		out = append(out, ha.VirtualAddress{Prefix: a.Prefix, Interface: a.Interface, Label: a.Label, Scope: a.Scope})
	}
	return out
}

func routes(list []config.Route) []ha.Route {
	var out []ha.Route
	for _, r := range list {
		out = append(out, ha.Route{Destination: r.Destination, Via: r.Via, Interface: r.Interface, Source: r.Source, Metric: r.Metric, Table: r.Table})
	}
	return out
}

func trackInterfaces(list []config.TrackInterface) []ha.TrackInterface {
	var out []ha.TrackInterface
	for _, t := range list {
		out = append(out, ha.TrackInterface{Name: t.Name, Weight: t.Weight})
	}
	return out
}

// virtual lists every address that is or may become virtual here: none of them is ever the source of a check.
func virtual(cfg *config.Config) []netip.Addr {
	var list []netip.Addr
	for _, i := range cfg.Instances {
		for _, a := range i.Held() {
			list = append(list, a.Prefix.Addr())
		}
	}
	for _, s := range cfg.Services {
		if s.Address.IsValid() && s.Bits == 0 { // of a network, this box has none
			list = append(list, s.Address)
		}
	}
	return list
}

// family is the one that an instance advertises, in words.
func family(i config.Instance) string {
	if i.IPv6() {
		return "IPv6"
	}
	return "IPv4"
}
