package e2e

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/xdirector/xdirector/pkg/status"
	"github.com/xdirector/xdirector/test/lab"
)

// patientCheck finds a real server that refuses connections at once, and takes none on a busy machine for dead.
const patientCheck = "{type: tcp, interval: 200ms, timeout: 5s, retries: 1, retry_delay: 100ms}"

// connect opens a connection to the service, and says which real server has it.
func (c *cluster) connect() (conn net.Conn, server string) {
	c.t.Helper()
	conn, err := c.lab.Client.Dial(c.t.Context(), "tcp4", web.String())
	c.ok(err)
	c.t.Cleanup(func() { conn.Close() })
	return conn, c.ask(conn)
}

// address is that of a real server.
func (c *cluster) address(name string) netip.Addr {
	c.t.Helper()
	for _, r := range c.lab.RealServers {
		if r.Name == name {
			return r.Address
		}
	}
	c.t.Fatalf("no real server %q", name)
	return netip.Addr{}
}

// goesTo checks where new connections go.
func (c *cluster) goesTo(when string, want ...string) {
	c.t.Helper()
	got := tally(c.get(web, 6))
	for _, name := range want {
		if got[name] != 6/len(want) {
			c.t.Errorf("%s: 6 new connections went to %v, want %v", when, got, want)
			return
		}
	}
}

func TestDrainedRealServerKeepsItsConnections(t *testing.T) {
	t.Parallel()
	onPlanes(t, func(t *testing.T, plane string) {
		c := newCluster(t, plane, 1, 3)
		s := c.service()
		s.Check = patientCheck
		if plane != ipvs {
			s.More = []string{"timeouts: {closing: 1s}"}
		}
		d := c.d[0]
		c.ok(d.Install(nil))
		c.start(s)
		conn, mine := c.connect()
		others := slices.DeleteFunc([]string{"r1", "r2", "r3"}, func(name string) bool { return name == mine })
		free, idle := others[0], others[1]
		stays := func(when string) {
			t.Helper()
			if got := c.ask(conn); got != mine {
				t.Errorf("%s: the open connection is answered by %s, want %s", when, got, mine)
			}
		}
		target := func(name string) string { return "web/" + c.address(name).String() }

		// Nobody has been at the second: it is drained at once.
		out, err := d.Command("drain", target(idle), "--wait", "--json")
		c.ok(err)
		var done struct {
			Done  bool
			Flows *int
		}
		if err := json.Unmarshal(out, &done); err != nil || !done.Done || done.Flows == nil || *done.Flows != 0 {
			t.Errorf("drain --wait of a real server without flows: %s (%v)", out, err)
		}
		if out, err = d.Command("drain", target(mine)); err != nil || !strings.Contains(string(out), "1 flow left") {
			t.Errorf("drain printed %q (%v)", out, err)
		}
		c.goesTo("two are drained", free)
		stays("drained")
		c.ok(d.Reload(t.Context()))
		stays("reloaded")
		c.goesTo("reloaded", free)
		before, err := d.Status(t.Context())
		c.ok(err)
		out, err = d.Command("events", "--follow=false", "--service", "web", "--kinds", "override")
		c.ok(err)
		if n := strings.Count(string(out), " is drained until xdirector undrain web/"); n != 2 {
			t.Errorf("events tell of %d drains, want 2:\n%s", n, out)
		}
		d.Kill()
		stays("the agent is dead")
		c.ok(d.Start())
		c.ok(d.WaitState(t.Context(), "VI_1", "MASTER", patience))
		stays("restarted")
		c.goesTo("restarted", free)
		c.ok(d.Install(nil))
		_, err = d.Signal(lab.Supervisor, syscall.SIGUSR2)
		c.ok(err)
		c.ok(d.Process().WaitLog(t.Context(), patience, "msg=upgraded", 1))
		c.ready(d, 2)
		stays("upgraded")
		c.goesTo("upgraded", free)
		after, err := d.Status(t.Context())
		c.ok(err)
		if len(before.Overrides) != 2 || len(after.Overrides) != 2 || !after.Overrides[0].Since.Equal(before.Overrides[0].Since) {
			t.Errorf("overrides before: %+v, after restart and upgrade: %+v", before.Overrides, after.Overrides)
		}

		_, err = d.Command("undrain", target(idle))
		c.ok(err)
		c.goesTo("one is back", free, idle)
		_, err = d.Command("drain", target(mine), "--deadline", "3s", "--wait")
		if err == nil || !strings.Contains(err.Error(), "exit status 1: xdirector: the deadline of draining "+target(mine)+" is over: 1 flow left") {
			t.Errorf("drain --wait for a deadline: %v", err)
		}
		// Another real server gets the next packet, and knows nothing of the connection.
		if _, err := conn.Write([]byte("GET / HTTP/1.1\r\nHost: web\r\n\r\n")); err == nil {
			if n, err := conn.Read(make([]byte, 1)); err == nil {
				t.Errorf("after the deadline the connection goes on, with %d bytes", n)
			}
		}
		c.goesTo("after the deadline", free, idle)
		_, err = d.Command("undrain", target(mine))
		c.ok(err)
		c.goesTo("all are back", "r1", "r2", "r3")
		if plane == ipvs { // where it takes the kernel's two minutes
			return
		}
		conn, mine = c.connect()
		ended := make(chan error, 1)
		go func() {
			_, err := d.Command("drain", target(mine), "--wait")
			ended <- err
		}()
		c.ok(d.WaitStatus(t.Context(), patience, func(s *status.Status) error {
			if len(s.Overrides) == 0 || !s.Counted.After(s.Overrides[0].Since) || s.Overrides[0].Active != 1 {
				return fmt.Errorf("overrides %+v, want a drain with one active flow", s.Overrides)
			}
			return nil
		}))
		select {
		case err := <-ended:
			t.Errorf("drain --wait ended before the last connection: %v", err)
		default:
			stays("waited for")
			conn.Close()
			if err := <-ended; err != nil {
				t.Errorf("drain --wait: %v", err)
			}
		}
	})
}

func TestSorryServerServesWithoutAQuorum(t *testing.T) {
	t.Parallel()
	onPlanes(t, func(t *testing.T, plane string) {
		c := newCluster(t, plane, 1, 3)
		s := c.service()
		// What is checked is not what serves: the one that fails its check could go on.
		s.Check = strings.Replace(patientCheck, "tcp", "tcp, port: 8081", 1)
		s.RealServers = s.RealServers[:2]
		s.More = []string{"quorum: 2", "on_down: keep-weight-0", fmt.Sprintf("sorry_server: {address: %s}", c.lab.RealServers[2].Address)}
		var checked []*lab.Process
		for _, r := range c.lab.RealServers[:2] {
			p, err := r.StartNginx(8081)
			c.ok(err)
			checked = append(checked, p)
		}
		c.start(s)
		quorum := func(up bool) {
			t.Helper()
			c.ok(c.d[0].WaitStatus(t.Context(), patience, func(s *status.Status) error {
				if v := s.Services[0]; v.Quorum.Up != up || v.SorryServer.Active == up || v.RealServers[0].KeepsFlows == up {
					return fmt.Errorf("quorum %+v, sorry server %+v, first real server %+v, want that the quorum is up: %v", v.Quorum, v.SorryServer, v.RealServers[0], up)
				}
				return nil
			}))
		}
		quorum(true)
		c.goesTo("a quorum", "r1", "r2")
		open := map[string]net.Conn{}
		for range 2 {
			conn, server := c.connect()
			open[server] = conn
		}
		stay := func(when string) {
			t.Helper()
			for server, conn := range open {
				if got := c.ask(conn); got != server || len(open) != 2 {
					t.Errorf("%s: the connection that %s had before is answered by %s", when, server, got)
				}
			}
		}
		checked[0].Kill()
		quorum(false)
		c.goesTo("the quorum is lost", "r3")
		stay("the quorum is lost")
		// On IPVS the kernel counts every two seconds, and only while it is there.
		c.ok(c.d[0].WaitStatus(t.Context(), patience, func(s *status.Status) error {
			if r := s.Services[0].SorryServer; r.FlowsCreated != 6 || r.Packets == 0 {
				return fmt.Errorf("counted for the sorry server: %+v, want 6 flows created", r)
			}
			return nil
		}))
		_, err := c.lab.RealServers[0].StartNginx(8081)
		c.ok(err)
		quorum(true)
		c.goesTo("the quorum is there again", "r1", "r2")
		stay("the quorum is there again")
	})
}
