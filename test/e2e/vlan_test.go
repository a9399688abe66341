package e2e

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/xdirector/xdirector/pkg/status"
	"github.com/xdirector/xdirector/test/lab"
)

// join puts a node into a VLAN of the trunk, with an address.
func (c *cluster) join(n *lab.Node, vlan int, address string) {
	c.t.Helper()
	name := fmt.Sprintf("eth0.%d", vlan)
	c.ok(n.Run("ip", "link", "add", "link", "eth0", "name", name, "type", "vlan", "id", fmt.Sprint(vlan)))
	c.ok(n.SetInterface(name, true))
	c.ok(n.AddAddress(name, address))
}

// Clients are in VLAN 10 and in none, real servers in VLAN 20, in VLAN 10 and in none: a tag is changed, left, taken out and added.
func TestClientsAndRealServersInVLANsAreServed(t *testing.T) {
	t.Parallel()
	onPlanes(t, func(t *testing.T, plane string) {
		c := newCluster(t, plane, 1, 3)
		d, servers := c.d[0], c.lab.RealServers
		tagged := netip.MustParseAddrPort("10.78.0.100:80")
		c.join(c.lab.Client, 10, "10.78.0.1/24")
		c.join(d.Node, 10, "10.78.0.11/24")
		c.join(d.Node, 20, "10.79.0.11/24")
		c.join(servers[0], 20, "10.79.0.21/24")
		for i, r := range servers { // by VLAN 10 the answers go back
			c.join(r, 10, fmt.Sprintf("10.78.0.%d/24", 21+i))
			c.ok(r.CarryVIPs(tagged.Addr().String()))
		}
		behind := func(addresses ...string) (list []lab.RealServer) {
			for _, a := range addresses {
				list = append(list, lab.RealServer{Address: netip.MustParseAddr(a)})
			}
			return list
		}
		config := c.config(0,
			lab.Service{Name: "plain", Address: vip, Port: 80, Check: check(), RealServers: behind("10.79.0.21")},
			lab.Service{Name: "tagged", Address: tagged.Addr().String(), Port: 80, Check: check(), RealServers: behind("10.79.0.21", "10.78.0.22", "10.77.0.23")})
		other := c.instance(0)
		other.Name, other.Interface, other.VRID, other.Addresses = "VI_2", "eth0.10", 52, []string{tagged.Addr().String() + "/32"}
		config.Instances = append(config.Instances, other)
		c.ok(d.Configure(config))
		c.ok(d.Start())
		c.ok(d.WaitStatus(t.Context(), patience, serversUp))
		for _, name := range []string{"VI_1", "VI_2"} {
			c.ok(d.WaitState(t.Context(), name, "MASTER", patience))
		}

		if got := tally(c.get(tagged, 9)); got["r1"] != 3 || got["r2"] != 3 || got["r3"] != 3 {
			t.Errorf("9 requests from VLAN 10 went to %v, want 3 to each", got)
		}
		if got := tally(c.get(web, 3)); got["r1"] != 3 {
			t.Errorf("3 requests without a tag went to %v, want all at the one in VLAN 20", got)
		}
		// Frames of full length, which a tag makes longer.
		for _, target := range []netip.AddrPort{web, tagged, tagged, tagged} {
			conn, err := c.lab.Client.Dial(t.Context(), "tcp4", target.String())
			c.ok(err)
			_, err = fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: web\r\nCookie: %s\r\n\r\n", strings.Repeat("x", 7000))
			c.ok(err)
			c.answer(conn)
			c.ok(conn.Close())
		}
		c.ok(d.WaitStatus(t.Context(), patience, func(s *status.Status) error {
			if s.Plane.Name != plane || s.Services[0].RealServers[0].FlowsCreated != 4 || s.Services[1].RealServers[0].FlowsCreated != 4 {
				return fmt.Errorf("plane %+v, services %+v, want 4 flows of each at r1", s.Plane, s.Services)
			}
			return nil
		}))
	})
}
