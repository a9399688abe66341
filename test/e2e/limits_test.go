package e2e

import (
	"errors"
	"fmt"
	"net"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/xdirector/xdirector/pkg/status"
	"github.com/xdirector/xdirector/test/lab"
)

func TestFullRealServersRefuseAndDeniedClientsHearNothing(t *testing.T) {
	t.Parallel()
	onPlanes(t, func(t *testing.T, plane string) {
		c := newCluster(t, plane, 1, 2)
		d := c.d[0]
		s := c.service()
		s.Check = ""
		for i := range s.RealServers {
			s.RealServers[i].MaxConnections = 2
		}
		c.start(s)
		open := func() net.Conn {
			t.Helper()
			conn, err := c.lab.Client.Dial(t.Context(), "tcp4", web.String())
			c.ok(err)
			t.Cleanup(func() { conn.Close() })
			return conn
		}
		full := func() {
			t.Helper()
			if conn, err := c.lab.Client.Dial(t.Context(), "tcp4", web.String()); !errors.Is(err, unix.ECONNREFUSED) {
				t.Errorf("one more than the real servers may have: %v, %v, want it to be refused", conn, err)
			}
		}
		refused := func(reason string) {
			t.Helper()
			c.ok(d.WaitStatus(t.Context(), patience, func(s *status.Status) error {
				if got := s.Services[0].Refused; got[reason] == 0 {
					return fmt.Errorf("refused %v, want some as %s", got, reason)
				}
				return nil
			}))
		}
		at := map[string][]net.Conn{}
		for range 4 {
			conn := open()
			server := c.ask(conn)
			at[server] = append(at[server], conn)
		}
		if len(at["r1"]) != 2 || len(at["r2"]) != 2 {
			t.Fatalf("connections: %v, want two each", at)
		}
		full()
		if plane == ipvs { // which counts closed connections too
			return
		}
		refused("full")
		c.ok(at["r2"][0].Close())
		c.ok(lab.Wait(t.Context(), patience, func() error {
			conn, err := c.lab.Client.Dial(t.Context(), "tcp4", web.String())
			if err == nil {
				at["r2"][0] = conn
				t.Cleanup(func() { conn.Close() })
			}
			return err
		}))
		if got := c.ask(at["r2"][0]); got != "r2" {
			t.Errorf("r2 alone had room, and %s got the next connection", got)
		}
		full()

		denied := s
		denied.More = []string{fmt.Sprintf("deny: [%s/32, 10.99.0.0/16]", c.lab.Client.Address)}
		c.ok(d.Configure(c.config(0, denied)))
		c.ok(d.Reload(t.Context()))
		if r := c.lab.Client.Get(web, requestLimit()); r.Outcome != lab.Timeout {
			t.Errorf("new connection of a denied client: %s (%v), want no answer", r.Outcome, r.Err)
		}
		refused("denied")
		c.ok(d.Configure(c.config(0, s)))
		c.ok(d.Reload(t.Context()))
		for server, conns := range at {
			for _, conn := range conns {
				if got := c.ask(conn); got != server {
					t.Errorf("open connection of %s was answered by %s", server, got)
				}
			}
		}
	})
}
