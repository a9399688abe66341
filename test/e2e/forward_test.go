package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/xdirector/xdirector/pkg/status"
	"github.com/xdirector/xdirector/test/lab"
)

// tally counts names.
func tally(names []string) map[string]int {
	count := make(map[string]int)
	for _, n := range names {
		count[n]++
	}
	return count
}

func TestRoundRobinServesRealServersInTurn(t *testing.T) {
	t.Parallel()
	onPlanes(t, func(t *testing.T, plane string) {
		c := newCluster(t, plane, 1, 3)
		c.start(c.service())
		servers := c.get(web, 30)
		for i := 3; i < len(servers); i++ {
			if servers[i] != servers[i-3] {
				t.Errorf("request %d went to %s, want the same order again: %v", i, servers[i], servers)
			}
		}
		if got := tally(servers); got["r1"] != 10 || got["r2"] != 10 || got["r3"] != 10 {
			t.Errorf("30 requests by rr: %v, want 10 each", got)
		}
		c.ok(c.d[0].WaitStatus(t.Context(), patience, func(s *status.Status) error {
			for _, r := range s.Services[0].RealServers {
				if r.FlowsCreated != 10 || r.Packets < 40 || r.Bytes < 40*40 {
					return fmt.Errorf("counted for %s: %d flows, %d packets, %d bytes; want 10 flows of 4 packets or more",
						r.Address, r.FlowsCreated, r.Packets, r.Bytes)
				}
			}
			return nil
		}))
	})
}

func TestWeightedRoundRobinFollowsTheWeights(t *testing.T) {
	t.Parallel()
	onPlanes(t, func(t *testing.T, plane string) {
		c := newCluster(t, plane, 1, 3)
		s := c.service()
		s.Scheduler = "wrr"
		s.RealServers[0].Weight, s.RealServers[1].Weight, s.RealServers[2].Weight = 3, 1, -1
		c.start(s)
		if got := tally(c.get(web, 40)); got["r1"] != 30 || got["r2"] != 10 || got["r3"] != 0 {
			t.Errorf("40 requests by weights 3, 1, 0: %v, want 30, 10, 0", got)
		}
	})
}

func TestUDPClientsStayWithTheirRealServer(t *testing.T) {
	t.Parallel()
	onPlanes(t, func(t *testing.T, plane string) {
		c := newCluster(t, plane, 1, 2)
		s := c.service()
		s.Protocol, s.Port, s.Check = "udp", 53, ""
		target := netip.AddrPortFrom(vipAddress, 53)
		for _, r := range c.lab.RealServers {
			c.ok(r.StartUDPEcho(target))
		}
		c.start(s)
		var sockets []net.Conn
		var first []string
		for range 8 {
			conn, err := c.lab.Client.Dial(t.Context(), "udp4", target.String())
			c.ok(err)
			t.Cleanup(func() { _ = conn.Close() })
			server, err := lab.ExchangeOn(conn, 10*requestLimit())
			c.ok(err)
			sockets, first = append(sockets, conn), append(first, server)
		}
		if got := tally(first); got["r1"] != 4 || got["r2"] != 4 {
			t.Errorf("8 UDP clients by rr: %v, want 4 each", got)
		}
		for i, conn := range sockets {
			server, err := lab.ExchangeOn(conn, 10*requestLimit())
			c.ok(err)
			if server != first[i] {
				t.Errorf("second datagram of client %d went to %s, the first to %s", i, server, first[i])
			}
			// In three fragments, there and back.
			large, answer := bytes.Repeat([]byte{'a' + byte(i)}, 4000), make([]byte, 1<<13)
			_, err = conn.Write(large)
			c.ok(err)
			size, err := conn.Read(answer)
			if want := first[i] + " " + string(large); err != nil || string(answer[:size]) != want {
				t.Errorf("large datagram of client %d: %d bytes beginning with %.4q, %v; want %d of %s", i, size, answer, err, len(want), first[i])
			}
		}
	})
}

func TestPersistentClientStaysUntilItsRealServerFails(t *testing.T) {
	t.Parallel()
	onPlanes(t, func(t *testing.T, plane string) {
		c := newCluster(t, plane, 1, 2)
		s := c.service()
		s.Persistence = 50 * time.Second
		c.start(s)
		got := tally(c.get(web, 10))
		if len(got) != 1 {
			t.Fatalf("10 requests of one client with persistence: %v, want one real server", got)
		}
		mine, other := 0, "r2"
		if got["r2"] > 0 {
			mine, other = 1, "r1"
		}
		c.servers[mine].Kill()
		c.ok(c.d[0].WaitStatus(t.Context(), patience, func(s *status.Status) error {
			if s.Services[0].RealServers[mine].Up {
				return fmt.Errorf("real server %d is up", mine)
			}
			return nil
		}))
		if got := tally(c.get(web, 10)); got[other] != 10 {
			t.Errorf("10 requests after the client's real server failed: %v, want all to %s", got, other)
		}
	})
}

// minimal is the file that the documentation shows, with this lab's addresses and places.
const minimal = `
router_id: lb1
vrrp:
  instances:
    - name: VI_1
      interface: eth0
      virtual_router_id: 51
      priority: 100
      advert_interval: 1s
      authentication: {type: pass, password: "1111"}
      virtual_addresses: [10.77.0.100/32]
services:
  - name: web
    address: 10.77.0.100
    port: 80
    protocol: tcp
    scheduler: rr
    persistence: {timeout: 50s}
    check: {type: tcp, interval: 6s, timeout: 3s, retries: 3, retry_delay: 3s}
    real_servers:
      - {address: 10.77.0.21, port: 80, weight: 1}
      - {address: 10.77.0.22, port: 80, weight: 1}
`

func TestMinimalConfigurationForwards(t *testing.T) {
	t.Parallel()
	onPlanes(t, func(t *testing.T, plane string) {
		c := newCluster(t, plane, 1, 2)
		d := c.d[0]
		places := fmt.Sprintf("state_dir: %s/state\ncontrol: {socket: %s}\ndataplane: {mode: %s, pin_path: %s}\n", d.Dir, d.Socket, plane, d.PinPath)
		c.ok(d.WriteFile(minimal + places))
		out, err := d.Command("check")
		c.ok(err)
		if !strings.Contains(string(out), "valid") {
			t.Errorf("check printed %q", out)
		}
		c.ok(d.Start())
		// Nobody else is there: 3 intervals and the skew of VRRPv2, 3.6 s.
		c.ok(d.WaitState(t.Context(), "VI_1", "MASTER", patience))
		c.ok(d.WaitStatus(t.Context(), patience, serversUp))
		if got := tally(c.get(web, 6)); len(got) != 1 {
			t.Errorf("6 requests of one client with persistence: %v", got)
		}
		s, err := d.StatusCommand()
		c.ok(err)
		if s.RouterID != "lb1" || len(s.Instances) != 1 || s.Instances[0].State != "MASTER" || s.Plane.Name != plane {
			t.Errorf("status --json: %+v", s)
		}
		c.ok(d.WaitStatus(t.Context(), patience, func(s *status.Status) error {
			for _, r := range s.Services[0].RealServers {
				if r.Flows > 0 {
					return nil
				}
			}
			return errors.New("no flow is counted")
		}))
		out, err = d.Command("top", "web", "--once", "--json")
		c.ok(err)
		var top struct {
			Seconds  float64
			All      struct{ Flows uint64 }
			Services []status.ServiceRate
		}
		if err := json.Unmarshal(out, &top); err != nil || top.Seconds < 0.5 || top.All.Flows == 0 || len(top.Services) != 1 || len(top.Services[0].RealServers) != 2 {
			t.Errorf("top --json: %s (%v)", out, err)
		}
		// What works is fit. The lab's real servers and switch are as the doctor wants them, too.
		c.ok(d.Run(os.Getenv("XDIRECTOR_BIN"), "doctor", "--listen", "1s", "--config", d.ConfigFile()))
	})
}

// The counts of active connections are those that IPVS has, and decide in the same way on every plane.
func TestServerWithTheFewestActiveConnectionsGetsTheNextOnes(t *testing.T) {
	t.Parallel()
	onPlanes(t, func(t *testing.T, plane string) {
		c := newCluster(t, plane, 1, 3)
		s := c.service()
		s.Scheduler, s.Check = "lc", ""
		c.start(s)
		held := map[string][]net.Conn{}
		open := func(n int) {
			t.Helper()
			for range n {
				conn, err := c.lab.Client.Dial(t.Context(), "tcp4", web.String())
				c.ok(err)
				t.Cleanup(func() { conn.Close() })
				server := c.ask(conn)
				held[server] = append(held[server], conn)
			}
		}
		active := func(want ...int) {
			t.Helper()
			c.ok(c.d[0].WaitStatus(t.Context(), patience, func(s *status.Status) error {
				var got []int
				for _, r := range s.Services[0].RealServers {
					got = append(got, int(r.Active))
				}
				if slices.Sort(got); !slices.Equal(got, want) {
					return fmt.Errorf("active connections %v, want %v", got, want)
				}
				return nil
			}))
		}
		open(12)
		for server, conns := range held {
			if len(conns) != 4 {
				t.Errorf("%s has %d connections of 12", server, len(conns))
			}
		}
		active(4, 4, 4)
		free := slices.Min(slices.Collect(maps.Keys(held)))
		for n, conn := range held[free] {
			if n%2 == 0 {
				c.ok(conn.(*net.TCPConn).SetLinger(0)) // it ends by a reset
			}
			c.ok(conn.Close())
		}
		held[free] = nil
		active(0, 4, 4)
		open(4)
		if n := len(held[free]); n != 4 {
			t.Errorf("%s has %d of the next 4 connections, want all: %v", free, n, held)
		}
		active(4, 4, 4)
	})
}
