package e2e

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/xdirector/xdirector/pkg/status"
	"github.com/xdirector/xdirector/test/lab"
)

func TestIPv6ServiceServesInTurnAndLosesNoRequest(t *testing.T) {
	onPlanes(t, func(t *testing.T, plane string) {
		c := newCluster(t, plane, 2, 3)
		web6 := netip.AddrPortFrom(netip.MustParseAddr(vip6), 80)
		s := lab.Service{Name: "web6", Address: vip6, Port: 80, Check: check()}
		for _, r := range c.lab.RealServers {
			s.RealServers = append(s.RealServers, lab.RealServer{Address: r.Address6})
		}
		for i, d := range c.d {
			cfg := c.config(i, s)
			cfg.Instances[0].Addresses = []string{"fe80::77:100", vip6}
			c.ok(d.Configure(cfg))
			c.ok(d.Start())
			c.ok(d.WaitStatus(t.Context(), patience, serversUp))
		}
		first, second := c.d[0], c.d[1]
		c.ok(first.WaitState(t.Context(), "VI_1", "MASTER", patience))
		servers := c.get(web6, 9)
		for i := 3; i < len(servers); i++ {
			if servers[i] != servers[i-3] || servers[i] == servers[i-1] {
				t.Fatalf("requests went to %v, want the same order of three again and again", servers)
			}
		}
		load := c.loadOn(web6)
		stop := load.Requests()[0].Start
		c.ok(first.Stop())
		announced, err := c.wire.WaitAnnouncement(t.Context(), second.Node, web6.Addr(), stop, patience)
		c.ok(err)
		c.answered(load, announced.Time, 50)
		c.handover("clean stop", load.Stop(), announced.Time)
	})
}

func TestNATServiceIsOnIPVSBesideXDP(t *testing.T) {
	onPlanes(t, func(t *testing.T, plane string) {
		c := newCluster(t, plane, 1, 3)
		d, behind := c.d[0], c.lab.RealServers[2]
		translated := netip.AddrPortFrom(vipAddress, 81)
		_, err := behind.StartNginx(8080)
		c.ok(err)
		// The answers of a real server behind NAT have to come through the director.
		c.ok(behind.Run("ip", "route", "add", c.lab.Client.Address.String(), "via", d.Node.Address.String()))
		for path, value := range map[string]string{"net/ipv4/ip_forward": "1", "net/ipv4/conf/all/send_redirects": "0", "net/ipv4/conf/eth0/send_redirects": "0"} {
			c.ok(d.Node.Sysctl(path, value))
		}
		direct := c.service()
		direct.RealServers = direct.RealServers[:2]
		nat := lab.Service{Name: "nat", Address: vip, Port: 81, Check: check(), More: []string{"forwarding: nat"},
			RealServers: []lab.RealServer{{Address: behind.Address, Port: 8080}}}
		c.start(direct, nat)
		if got := tally(c.get(web, 10)); got["r1"] != 5 || got["r2"] != 5 {
			t.Errorf("10 requests by rr beside IPVS: %v, want 5 each", got)
		}
		if got := tally(c.get(translated, 4)); got["r3"] != 4 {
			t.Errorf("4 requests through NAT: %v, want all at r3", got)
		}
		c.ok(d.WaitStatus(t.Context(), patience, func(s *status.Status) error {
			one, other := s.Services[0], s.Services[1]
			if one.Plane.Name != plane || other.Plane.Name != ipvs || !strings.Contains(other.Plane.Reason, "NAT") || !s.Healthy {
				return fmt.Errorf("planes %+v and %+v, unhealthy %q", one.Plane, other.Plane, s.Unhealthy)
			}
			if a, b := one.RealServers[0].FlowsCreated, other.RealServers[0].FlowsCreated; a != 5 || b != 4 {
				return fmt.Errorf("%d and %d flows counted, want 5 and 4", a, b)
			}
			return nil
		}))

		// It moves to XDP and back, under load on the other one.
		load := c.load()
		moved := c.service()
		moved.Name, moved.Port, moved.RealServers, moved.Check = "nat", 81, moved.RealServers[2:], ""
		_, err = behind.StartNginx(81)
		c.ok(err)
		c.ok(behind.Run("ip", "route", "del", c.lab.Client.Address.String()))
		c.ok(d.Configure(c.config(0, direct, moved)))
		c.ok(d.Reload(t.Context()))
		c.get(translated, 2)
		c.ok(d.Configure(c.config(0, direct)))
		c.ok(d.Reload(t.Context()))
		if r := c.lab.Client.Get(translated, 10*requestLimit()); r.Outcome != lab.Refused {
			t.Errorf("request to the service that is gone: %s", r.Outcome)
		}
		for _, r := range load.Stop().Failed() {
			t.Errorf("a request to the other service failed: %s (%v)", r.Outcome, r.Err)
		}
	})
}
