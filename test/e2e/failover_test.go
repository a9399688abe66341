package e2e

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/xdirector/xdirector/test/lab"
)

func TestCleanStopAndReturnLoseNoRequest(t *testing.T) {
	onPlanes(t, func(t *testing.T, plane string) {
		c := newCluster(t, plane, 2, 3)
		c.start(c.service())
		first, second := c.d[0], c.d[1]
		load := c.load()

		stop := time.Now()
		c.ok(first.Stop())
		stopped := c.takeover(second, stop)
		c.answered(load, stopped, 100)
		if a := c.wire.AdvertsOf(first.Node, stop); len(a) == 0 || a[len(a)-1].Priority != 0 {
			t.Errorf("adverts of the stopped MASTER: %v, want priority 0 last", a)
		}
		if n, err := c.count(first.Node); err != nil || n != 0 {
			t.Errorf("the stopped MASTER holds the address %d times (%v)", n, err)
		}

		start := time.Now()
		c.ok(first.Start())
		returned := c.takeover(first, start)
		c.answered(load, returned, 100)
		c.oneMaster(first, second, patience)
		requests := load.Stop()
		c.handover("clean stop", requests.Between(stop, start), stopped)
		c.handover("return", requests.Between(start, time.Now()), returned)
	})
}

func TestKilledAgentForwardsOnAndIsAdopted(t *testing.T) {
	onPlanes(t, func(t *testing.T, plane string) {
		c := newCluster(t, plane, 2, 3)
		c.start(c.service())
		first, second := c.d[0], c.d[1]
		load := c.load()
		c.answered(load, time.Now(), 50)
		before := c.flowsCreated(first)

		kill := time.Now()
		first.Kill()
		killed := c.takeover(second, kill)
		c.answered(load, killed, 100)
		if plane != ipvs {
			c.stillForwards(first.Node)
		}

		start := time.Now()
		c.ok(first.Start())
		returned := c.takeover(first, start)
		c.answered(load, returned, 100)
		c.oneMaster(first, second, patience)
		c.ok(lab.Wait(t.Context(), patience, func() error {
			if after := c.flowsCreated(first); after < before {
				return fmt.Errorf("flows created: %d before the kill, %d after the restart: counters were not adopted", before, after)
			}
			return nil
		}))
		requests := load.Stop()
		c.handover("agent killed", requests.Between(kill, start), killed)
		c.handover("restart", requests.Between(start, time.Now()), returned)
	})
}

// flowsCreated is the sum over all real servers.
func (c *cluster) flowsCreated(d *lab.Director) uint64 {
	c.t.Helper()
	s, err := d.Status(c.t.Context())
	c.ok(err)
	var sum uint64
	for _, service := range s.Services {
		for _, r := range service.RealServers {
			sum += r.FlowsCreated
		}
	}
	return sum
}

// stillForwards checks that a client with a stale ARP entry is served by a director that has no agent.
func (c *cluster) stillForwards(n *lab.Node) {
	c.t.Helper()
	source := netip.AddrPortFrom(c.lab.Client.Address, 999)
	answers, err := c.lab.Client.Capture("eth0", func(b []byte) bool {
		return isTCP(b) && source.Port() == binary.BigEndian.Uint16(b[36:]) && b[47]&2 != 0
	})
	c.ok(err)
	c.ok(c.lab.Client.Send(lab.SYN(n.MAC, c.lab.Client.MAC, source, web)))
	c.ok(lab.Wait(c.t.Context(), patience, func() error {
		if len(answers.Frames(time.Time{})) == 0 {
			return fmt.Errorf("no answer to a SYN sent to %s", n.Name)
		}
		return nil
	}))
}

// isTCP says whether a frame is TCP over IPv4 without options.
func isTCP(b []byte) bool {
	return len(b) >= 54 && binary.BigEndian.Uint16(b[12:]) == 0x0800 && b[14] == 0x45 && b[23] == 6
}

func TestOpenConnectionOutlivesTheAgent(t *testing.T) {
	t.Parallel()
	onPlanes(t, func(t *testing.T, plane string) {
		c := newCluster(t, plane, 1, 3)
		c.start(c.service())
		conn, err := c.lab.Client.Dial(t.Context(), "tcp4", web.String())
		c.ok(err)
		defer conn.Close()
		server := c.ask(conn)
		c.d[0].Kill()
		if again := c.ask(conn); again != server {
			t.Errorf("with the agent killed: answer of %s, first of %s", again, server)
		}
		c.ok(c.d[0].Start())
		c.ok(c.d[0].WaitState(t.Context(), "VI_1", "MASTER", patience))
		if again := c.ask(conn); again != server {
			t.Errorf("after the restart: answer of %s, first of %s", again, server)
		}
	})
}

// A planned handover cuts no connection, though the new MASTER has none of the flows of the old one, and schedules in turn.
func TestOpenConnectionsOutliveAPlannedHandover(t *testing.T) {
	onPlanes(t, func(t *testing.T, plane string) {
		c := newCluster(t, plane, 2, 3)
		c.start(c.service())
		first, second := c.d[0], c.d[1]
		open := func() (conns []net.Conn, servers []string) {
			t.Helper()
			for range 20 {
				conn, err := c.lab.Client.Dial(t.Context(), "tcp4", web.String())
				c.ok(err)
				t.Cleanup(func() { conn.Close() })
				conns, servers = append(conns, conn), append(servers, c.ask(conn))
			}
			return conns, servers
		}
		same := func(what string, conns []net.Conn, servers []string) {
			t.Helper()
			for n, conn := range conns {
				if again := c.ask(conn); again != servers[n] {
					t.Errorf("%s: connection %d is answered by %s, was by %s", what, n, again, servers[n])
				}
			}
		}
		conns, servers := open()
		stop := time.Now()
		stopped := make(chan error, 1)
		go func() { stopped <- first.Stop() }()
		c.takeover(second, stop)
		same("clean stop", conns, servers)
		c.ok(<-stopped)

		c.ok(second.WaitState(t.Context(), "VI_1", "MASTER", patience))
		conns, servers = open()
		start := time.Now()
		c.ok(first.Start())
		c.takeover(first, start)
		same("preemption", conns, servers)
	})
}

// ask makes one HTTP/1.1 request on an open connection.
func (c *cluster) ask(conn net.Conn) string {
	c.t.Helper()
	c.ok(conn.SetDeadline(time.Now().Add(patience)))
	_, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: web\r\n\r\n")
	c.ok(err)
	return c.answer(conn)
}

// answer reads a server's answer, which is its name.
func (c *cluster) answer(conn net.Conn) string {
	c.t.Helper()
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	c.ok(err)
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	c.ok(err)
	return strings.TrimSpace(string(body))
}

func TestLostDirectorIsReplacedInTime(t *testing.T) {
	onPlanes(t, func(t *testing.T, plane string) {
		c := newCluster(t, plane, 2, 3)
		c.start(c.service())
		first, second := c.d[0], c.d[1]
		load := c.load()
		lost := time.Now()
		first.Kill()
		if plane == ipvs {
			c.ok(first.Run("ipvsadm", "--clear"))
		} else {
			c.ok(first.DetachAll())
		}
		garp := c.takeover(second, lost)
		c.answered(load, garp, 100)
		c.outage(load.Stop(), first, lost)
	})
}

// outage checks how long a director that vanished was missed: from its last advert.
func (c *cluster) outage(requests lab.Requests, lost *lab.Director, at time.Time) {
	c.t.Helper()
	last := at
	for _, a := range c.wire.AdvertsOf(lost.Node, at.Add(-patience)) {
		if a.Time.Before(at.Add(interval)) {
			last = a.Time
		}
	}
	since := requests.Between(last, time.Now())
	outage, promised := lab.Outage(since, last), lab.MaxOutage(interval, 100)
	c.t.Logf("outage %v from the last advert (%v are promised): %v", outage, promised, since.Outcomes())
	if outage > lab.Slack*promised && c.plane != ipvs {
		c.t.Errorf("outage of %v from the last advert, promised are %v", outage, promised)
	}
	if after := since.Between(last.Add(outage), time.Now()); c.plane != ipvs && len(after.Failed()) > lab.MaxResets {
		c.t.Errorf("after the outage: %v", after.Outcomes())
	}
}

func TestPulledCableEndsWithOneMaster(t *testing.T) {
	onPlanes(t, func(t *testing.T, plane string) {
		c := newCluster(t, plane, 2, 3)
		c.start(c.service())
		first, second := c.d[0], c.d[1]
		load := c.load()
		pulled := time.Now()
		c.ok(first.SetLink(false))
		garp := c.takeover(second, pulled)
		c.ok(first.WaitState(t.Context(), "VI_1", "FAULT", patience))
		c.ok(c.waitCount(first.Node, 0))
		c.answered(load, garp, 3*loadRate()) // long enough for every check to miss its answers
		plugged := time.Now()
		c.ok(first.SetLink(true))
		returned := c.takeover(first, plugged)
		c.answered(load, returned, 100)
		c.oneMaster(first, second, patience)
		requests := load.Stop()
		c.outage(requests.Between(pulled.Add(-time.Second), plugged), first, pulled)
		c.handover("cable back", requests.Between(plugged, time.Now()), returned)
	})
}

func TestJoinedDirectorsEndWithOneMaster(t *testing.T) {
	t.Parallel()
	onPlanes(t, func(t *testing.T, plane string) {
		c := newCluster(t, "", 2, 0)
		c.start()
		first, second := c.d[0], c.d[1]
		for _, d := range c.d {
			c.ok(d.Isolate(true))
		}
		c.ok(second.WaitState(t.Context(), "VI_1", "MASTER", patience))
		c.ok(first.WaitState(t.Context(), "VI_1", "MASTER", patience))
		joined := time.Now()
		for _, d := range c.d {
			c.ok(d.Isolate(false))
		}
		ready := time.Now()
		c.oneMaster(first, second, patience)
		// One interval and the skew of the one that has to yield.
		promised := interval + (256-100)*interval/256
		c.ok(c.waitAdverts(t.Context(), first, ready.Add(lab.Slack*promised), 5))
		for _, a := range c.wire.AdvertsOf(second.Node, ready.Add(lab.Slack*promised)) {
			t.Errorf("the director of lower priority sent an advert %v after the join", a.Time.Sub(joined))
		}
		// Whoever had the other director in its ARP table hears from the one that stays.
		c.takeover(first, joined)
	})
}

// waitAdverts waits for n adverts of a director since from.
func (c *cluster) waitAdverts(ctx context.Context, d *lab.Director, from time.Time, n int) error {
	return lab.Wait(ctx, patience, func() error {
		if got := len(c.wire.AdvertsOf(d.Node, from)); got < n {
			return fmt.Errorf("%d adverts of %s, want %d", got, d.Name, n)
		}
		return nil
	})
}
