package e2e

import (
	"fmt"
	"testing"
	"time"

	"github.com/xdirector/xdirector/test/lab"
)

// peer is one side of a virtual router, xdirector or keepalived.
type peer struct {
	name  string
	node  *lab.Node
	start func() error
	stop  func() error // clean, with priority 0
	kill  func()
	// entered waits until the peer itself says that it went to a state, MASTER or BACKUP.
	entered func(state string) error
}

func TestKeepalivedPeerFailsOverBothWays(t *testing.T) {
	t.Parallel()
	onPlanes(t, func(t *testing.T, plane string) {
		for _, version := range []int{2, 3} {
			for _, keepalivedFirst := range []bool{true, false} {
				name := fmt.Sprintf("version %d, keepalived is preferred: %v", version, keepalivedFirst)
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					besideKeepalived(t, version, keepalivedFirst)
				})
			}
		}
	})
}

// besideKeepalived lets a preferred peer and another one hand the address to and fro.
func besideKeepalived(t *testing.T, version int, keepalivedFirst bool) {
	c := newCluster(t, "", 2, 0)
	x, k := c.xdirectorPeer(version, 100), c.keepalivedPeer(version, 200)
	preferred, other := k, x
	if !keepalivedFirst {
		x, k = c.xdirectorPeer(version, 200), c.keepalivedPeer(version, 100)
		preferred, other = x, k
	}
	begin := time.Now()
	c.ok(other.start())
	c.announces(other, begin)
	c.ok(other.entered("MASTER"))

	step := func(what string, do func() error, winner peer) {
		t.Helper()
		from := time.Now()
		c.ok(do())
		took := c.announces(winner, from)
		t.Logf("%s: %s is MASTER after %v", what, winner.name, took)
	}
	step("the preferred one comes", preferred.start, preferred)
	c.ok(other.entered("BACKUP"))
	stopped := time.Now()
	step("clean stop", preferred.stop, other)
	if a := c.wire.AdvertsOf(preferred.node, stopped); len(a) == 0 || a[len(a)-1].Priority != 0 {
		t.Errorf("adverts of %s after its stop: %v, want priority 0 last", preferred.name, a)
	}
	step("it comes back", preferred.start, preferred)
	c.ok(other.entered("BACKUP"))
	step("killed", func() error { preferred.kill(); return nil }, other)
	step("it comes back after a crash", preferred.start, preferred)
	c.ok(other.entered("BACKUP"))
	c.ok(c.waitCount(preferred.node, 1))
	c.ok(c.waitCount(other.node, 0))
	// The one that is not preferred stops without a word of the other.
	c.ok(other.stop())
}

// announces waits for the gratuitous ARP of a peer and returns how long it took.
func (c *cluster) announces(p peer, from time.Time) time.Duration {
	c.t.Helper()
	g, err := c.wire.WaitGratuitousARP(c.t.Context(), p.node, vipAddress, from, patience)
	if err != nil {
		c.t.Fatalf("%s: %v", p.name, err)
	}
	return g.Time.Sub(from)
}

func peerInterval(version int) (time.Duration, string) {
	if version == 2 {
		return time.Second, "1111"
	}
	return interval, ""
}

func (c *cluster) xdirectorPeer(version int, priority uint8) peer {
	every, password := peerInterval(version)
	d := c.d[0]
	i := lab.Instance{Version: version, Priority: priority, Interval: every, Password: password, Addresses: []string{vip + "/32"}}
	c.ok(d.Configure(lab.Config{Instances: []lab.Instance{i}}))
	return peer{
		name: "xdirector", node: d.Node, start: d.Start, stop: d.Stop, kill: d.Kill,
		entered: func(state string) error { return d.WaitState(c.t.Context(), "VI_1", state, patience) },
	}
}

func (c *cluster) keepalivedPeer(version int, priority uint8) peer {
	every, password := peerInterval(version)
	n := c.lab.Directors[1]
	var p *lab.Process
	c.t.Cleanup(func() {
		if c.t.Failed() && p != nil {
			c.t.Logf("log of keepalived:\n%s", p.Log())
		}
	})
	seen := make(map[string]int) // times that a state was waited for
	return peer{
		name: "keepalived", node: n,
		start: func() (err error) {
			p, err = n.StartKeepalived(lab.Keepalived{
				Version: version, VRID: 51, Priority: priority, Interval: every, Password: password, Addresses: []string{vip + "/32"},
			})
			return err
		},
		stop: func() error { return p.Terminate(patience) },
		kill: func() { p.Kill() },
		entered: func(state string) error {
			seen[state]++
			// It enters BACKUP at its start too.
			return p.WaitLog(c.t.Context(), patience, "Entering "+state+" STATE", seen[state])
		},
	}
}
