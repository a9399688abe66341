package director

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/xdirector/xdirector/pkg/config"
	"github.com/xdirector/xdirector/pkg/lb"
	"github.com/xdirector/xdirector/pkg/neigh"
)

var (
	vip   = netip.MustParseAddr("192.168.5.100")
	first = netip.MustParseAddr("192.168.5.103")
	other = netip.MustParseAddr("192.168.5.104")
	web   = lb.ServiceKey{Address: vip, Port: 80, Protocol: lb.TCP}
	hop1  = neigh.Hop{NextHop: lb.NextHop{Interface: 2, MAC: lb.MAC{2, 0, 0, 0, 0, 3}}, InterfaceName: "eth0"}
)

func oneService() *config.Config {
	return &config.Config{Services: []config.Service{{
		Name: "web", Address: vip, Port: 80, Protocol: lb.TCP, Scheduler: lb.RoundRobin, Quorum: 1, OnDown: config.OnDownRemove,
		RealServers: []config.RealServer{{Address: first, Port: 80, Weight: 1}, {Address: other, Port: 80, Weight: 3}},
	}}}
}

func TestWish(t *testing.T) {
	cfg := oneService()
	servers := map[lb.ServerKey]*server{{Service: web, Address: other}: {up: false}}
	peers := []lb.Director{{MAC: lb.MAC{2, 0, 0, 0, 0, 2}, Address: netip.MustParseAddr("192.168.5.102")}}
	got := wish(cfg, lb.XDPNative, facts{servers: servers, hops: map[netip.Addr]neigh.Hop{first: hop1}, directors: peers})
	want := lb.State{
		Directors: peers,
		Services: []lb.Service{{
			Name: "web", Key: web, Scheduler: lb.RoundRobin,
			RealServers: []lb.RealServer{
				{Address: first, Port: 80, Weight: 1, Up: true, NextHop: hop1.NextHop}, // no result yet: up
				{Address: other, Port: 80, Weight: 3, Up: false},                       // no next hop yet
			},
		}},
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
		t.Errorf("wish (-want +got):\n%s", diff)
	}
}

func TestIPVSLeavesOutAServiceOfThisVeryBoxWhileAnotherHoldsItsAddress(t *testing.T) {
	hops := map[netip.Addr]neigh.Hop{first: {NextHop: lb.NextHop{Local: true}}, other: hop1}
	for _, tt := range []struct {
		name  string
		plane lb.Plane
		held  map[netip.Addr]bool
		want  int
	}{
		{"BACKUP on IPVS", lb.IPVS, map[netip.Addr]bool{vip: false}, 0},
		{"MASTER on IPVS", lb.IPVS, map[netip.Addr]bool{vip: true}, 1},
		{"an address that no instance holds", lb.IPVS, nil, 1},
		{"XDP tells balanced frames apart", lb.XDPGeneric, map[netip.Addr]bool{vip: false}, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := len(wish(oneService(), tt.plane, facts{hops: hops, held: tt.held}).Services); got != tt.want {
				t.Errorf("%d services, want %d", got, tt.want)
			}
		})
	}
}

func TestWhatNeedsARestart(t *testing.T) {
	base := func() *config.Config {
		c := oneService()
		c.Instances = []config.Instance{{Name: "VI_1", Interface: "eth0", Version: 2, VirtualRouterID: 51, Priority: 100}}
		c.Dataplane = config.Dataplane{Mode: "auto", Interfaces: []string{"eth0"}, FlowTableSize: 1024, PinPath: "/run/a"}
		c.Control.Socket = "/run/a.sock"
		return c
	}
	for _, tt := range []struct {
		name   string
		change func(*config.Config)
		want   string
	}{
		{"nothing", func(*config.Config) {}, ""},
		{"a priority", func(c *config.Config) { c.Instances[0].Priority = 200 }, ""},
		{"real servers", func(c *config.Config) { c.Services[0].RealServers = c.Services[0].RealServers[:1] }, ""},
		{"another instance", func(c *config.Config) {
			c.Instances = append(c.Instances, config.Instance{Name: "VI_2", Interface: "eth0"})
		}, ""},
		{"an interface", func(c *config.Config) { c.Instances[0].Interface = "eth1" },
			"vrrp.instances VI_1: interface changes from eth0 to eth1: this needs a restart"},
		{"a VRID", func(c *config.Config) { c.Instances[0].VirtualRouterID = 52 },
			"vrrp.instances VI_1: virtual_router_id changes from 51 to 52: this needs a restart"},
		{"socket and pins at once", func(c *config.Config) { c.Control.Socket = "/run/b.sock"; c.Dataplane.PinPath = "/run/b" },
			"dataplane.pin_path changes from /run/a to /run/b: this needs a restart\n" +
				"control.socket changes from /run/a.sock to /run/b.sock: this needs a restart"},
		{"the plane while there are no services", func(c *config.Config) { c.Services = nil; c.Dataplane.Mode = "ipvs" }, ""},
		{"the plane", func(c *config.Config) { c.Dataplane.Mode = "ipvs" },
			"dataplane.mode changes from auto to ipvs: this needs a restart"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			changed := base()
			tt.change(changed)
			got := ""
			if err := needsRestart(compare(base(), changed, here{})); err != nil {
				got = err.Error()
			}
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestAnyDifferenceMakesAnotherWish(t *testing.T) {
	hops := map[netip.Addr]neigh.Hop{first: hop1, other: hop1}
	build := func() lb.State {
		s := wish(oneService(), lb.XDPNative, facts{hops: hops, directors: []lb.Director{{MAC: lb.MAC{2}}}})
		s.Routers = []lb.Router{{Name: "VI_1", Peers: []netip.Addr{first}}}
		return s
	}
	if !same(build(), build()) {
		t.Error("the same wish is another one")
	}
	for name, change := range map[string]func(*lb.State){
		"a weight":         func(s *lb.State) { s.Services[0].RealServers[1].Weight++ },
		"a next hop":       func(s *lb.State) { s.Services[0].RealServers[0].NextHop.MAC[5]++ },
		"a scheduler":      func(s *lb.State) { s.Services[0].Scheduler = lb.MaglevHashing },
		"a real server":    func(s *lb.State) { s.Services[0].RealServers = s.Services[0].RealServers[:1] },
		"a service":        func(s *lb.State) { s.Services = nil },
		"another director": func(s *lb.State) { s.Directors[0].MAC[5]++ },
		"a router's peers": func(s *lb.State) { s.Routers[0].Peers[0] = other },
	} {
		s := build()
		if change(&s); same(s, build()) {
			t.Errorf("%s makes no difference", name)
		}
	}
}
