package e2e

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/xdirector/xdirector/pkg/status"
	"github.com/xdirector/xdirector/test/lab"
)

// waitUp waits until the first service says that a real server is up or down.
func (c *cluster) waitUp(d *lab.Director, server int, up bool) {
	c.t.Helper()
	c.ok(d.WaitStatus(c.t.Context(), patience, func(s *status.Status) error {
		if r := s.Services[0].RealServers[server]; r.Up != up {
			return fmt.Errorf("real server %s: up=%v (%s), want %v", r.Address, r.Up, r.Reason, up)
		}
		return nil
	}))
}

func TestFailedRealServerLeavesAndComesBack(t *testing.T) {
	onPlanes(t, func(t *testing.T, plane string) {
		c := newCluster(t, plane, 1, 3)
		c.start(c.service())
		load := c.load()
		c.servers[1].Kill()
		c.waitUp(c.d[0], 1, false)
		down := time.Now()
		c.answered(load, down, 60)
		back := time.Now()
		c.serve(1)
		c.waitUp(c.d[0], 1, true)
		up := time.Now()
		c.answered(load, up, 60)
		requests := load.Stop()

		without := requests.Between(down, back)
		if failed := without.Failed(); len(failed) > 0 {
			t.Errorf("after r2 was found down: %v, want no failed request; first: %+v", without.Outcomes(), failed[0])
		}
		if n := without.Servers(); n["r2"] > 0 || n["r1"] == 0 || n["r3"] == 0 {
			t.Errorf("while r2 was down: %v", n)
		}
		again := requests.Between(up, time.Now())
		if n := again.Servers(); n["r2"] == 0 || len(again.Failed()) > 0 {
			t.Errorf("after r2 came back: %v, %v", n, again.Outcomes())
		}
		s, err := c.d[0].Status(t.Context())
		c.ok(err)
		if r := s.Services[0].RealServers[1]; r.Checks["down"] == 0 || r.Checks["up"] == 0 {
			t.Errorf("checks of r2 counted: %v, want both results", r.Checks)
		}
		if log := c.d[0].Log(); !strings.Contains(log, "refused") {
			t.Error("the log does not say that the connection was refused")
		}
	})
}

func TestRealServerWithoutMACGetsNoConnection(t *testing.T) {
	t.Parallel()
	onPlanes(t, func(t *testing.T, plane string) {
		c := newCluster(t, plane, 1, 2)
		s := c.service()
		s.Check = "" // nothing else would keep the absent one out
		s.RealServers = append(s.RealServers, lab.RealServer{Address: netip.MustParseAddr("10.77.0.29")})
		d := c.d[0]
		c.ok(d.Configure(c.config(0, s)))
		c.ok(d.Start())
		c.ok(d.WaitState(t.Context(), "VI_1", "MASTER", patience))
		c.ok(d.WaitStatus(t.Context(), patience, func(s *status.Status) error {
			r := s.Services[0].RealServers
			if r[0].NextHopError != "" || r[1].NextHopError != "" || r[2].NextHopError == "" {
				return fmt.Errorf("next hops: %+v, want an error for the third alone", r)
			}
			return nil
		}))
		if got := tally(c.get(web, 10)); got["r1"] != 5 || got["r2"] != 5 {
			t.Errorf("10 requests: %v, want 5 for each that has a MAC", got)
		}
	})
}

func TestRealServerThatComesBackGetsItsShareStepByStep(t *testing.T) {
	t.Parallel()
	onPlanes(t, func(t *testing.T, plane string) {
		c := newCluster(t, plane, 1, 2)
		s := c.service()
		s.Scheduler, s.More = "wrr", []string{"slow_start: 2s"}
		more := 1 // percent, from one third to the next
		if inVM() {
			s.More, more = []string{"slow_start: 6s"}, 0 // the emulated machine may miss steps, which are a second apart
		}
		c.start(s)
		c.goesTo("xdirector was started", "r1", "r2")
		c.servers[1].Kill()
		c.waitUp(c.d[0], 1, false)
		load := c.load()
		c.serve(1)
		var back lab.Requests // from the first that it answers
		c.ok(lab.Wait(t.Context(), patience, func() error {
			back = load.Requests()
			back = back[slices.IndexFunc(back, func(r lab.Request) bool { return r.Server == "r2" })+1:]
			last := back[max(0, len(back)-40):].Servers()
			if len(back) < 60 || last["r1"] != last["r2"] {
				return fmt.Errorf("the last of %d connections went to %v, want as many to each", len(back), last)
			}
			return nil
		}))
		third := len(back) / 3
		var shares []int // percent
		for n := range 3 {
			shares = append(shares, 100*back[n*third : (n+1)*third].Servers()["r2"]/third)
		}
		t.Logf("of each third of %d connections %v %% went to the one that is back", len(back), shares)
		if shares[0] > 30 || shares[1] < shares[0]+more || shares[2] <= shares[1] {
			t.Errorf("of each third of %d connections %v %% went to the one that is back, want a growing share of at most 30 %% at first", len(back), shares)
		}
		if failed := load.Stop().Failed(); len(failed) > 0 {
			t.Errorf("%d requests failed; first: %+v", len(failed), failed[0])
		}
	})
}
