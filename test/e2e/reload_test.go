package e2e

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/xdirector/xdirector/pkg/status"
	"github.com/xdirector/xdirector/test/lab"
)

func TestReloadTouchesOnlyWhatChanged(t *testing.T) {
	t.Parallel()
	onPlanes(t, func(t *testing.T, plane string) {
		c := newCluster(t, plane, 1, 3)
		c.start(c.service())
		d := c.d[0]
		before, err := d.Status(t.Context())
		c.ok(err)
		load := c.load()

		// A bad file: every error is told, the old state is kept.
		c.ok(d.WriteFile("router_id: lb1\nvrrp: {instances: [{nmae: VI_1}]}\n"))
		if err := d.Reload(t.Context()); err == nil || !strings.Contains(err.Error(), "nmae") {
			t.Errorf("reload of a bad file: %v, want an error that names the key", err)
		}
		c.ok(d.WaitStatus(t.Context(), patience, func(s *status.Status) error {
			if s.Reload.Success || s.Reload.Error == "" {
				return fmt.Errorf("reload: %+v, want a failure", s.Reload)
			}
			return nil
		}))

		// What can't change while it runs is refused, and nothing of that file is applied.
		for key, change := range map[string]func(*lab.Config){
			"interface": func(x *lab.Config) { x.Instances[0].Interface = "lo" },
			"socket":    func(x *lab.Config) { x.Socket = d.Dir + "/other.sock" },
			"pin_path":  func(x *lab.Config) { x.PinPath = d.PinPath + "-other" },
		} {
			changed := c.config(0, c.service())
			change(&changed)
			changed.Services[0].RealServers = changed.Services[0].RealServers[:1]
			c.ok(d.Configure(changed))
			if err := d.Reload(t.Context()); err == nil || !strings.Contains(err.Error(), "restart") || !strings.Contains(err.Error(), key) {
				t.Errorf("reload with another %s: %v, want an error that names it and a restart", key, err)
			}
			if s, err := d.Status(t.Context()); err != nil || len(s.Services[0].RealServers) != 3 {
				t.Errorf("refused reload with another %s: %v, %+v, want the three old real servers", key, err, s)
			}
		}

		if failed := load.Requests().Failed(); len(failed) > 0 {
			t.Errorf("refused reloads: %v; first: %+v", load.Requests().Outcomes(), failed[0])
		}

		// A good file by SIGHUP: r3 leaves, with the connections that it has.
		sent := time.Now()
		fewer := c.config(0, c.service())
		fewer.Services[0].RealServers = fewer.Services[0].RealServers[:2]
		c.ok(d.Configure(fewer))
		c.ok(d.Process().Signal(syscall.SIGHUP))
		c.ok(d.WaitStatus(t.Context(), patience, func(s *status.Status) error {
			if !s.Reload.Success || len(s.Services[0].RealServers) != 2 {
				return fmt.Errorf("reload: %+v, %d real servers, want 2", s.Reload, len(s.Services[0].RealServers))
			}
			return nil
		}))
		reloaded := time.Now()
		c.answered(load, reloaded, 40)
		requests := load.Stop()
		if n := requests.Between(reloaded, time.Now()).Servers(); n["r3"] > 0 || n["r1"] == 0 || n["r2"] == 0 {
			t.Errorf("after r3 was taken out: %v", n)
		}
		for _, r := range requests.Failed() {
			if r.Outcome != lab.Reset || r.End.Before(sent) || r.Start.After(reloaded) {
				t.Errorf("a request failed %v after the reload: %s (%v)", r.Start.Sub(reloaded), r.Outcome, r.Err)
			}
		}
		after, err := d.Status(t.Context())
		c.ok(err)
		if was, is := before.Instances[0], after.Instances[0]; !maps.Equal(was.Transitions, is.Transitions) || !was.Since.Equal(is.Since) {
			t.Errorf("instance before: %v since %v, after: %v since %v; it did not change", was.Transitions, was.Since, is.Transitions, is.Since)
		}
		if _, err := os.Stat(filepath.Join(d.Dir, "other.sock")); err == nil {
			t.Error("the refused control socket was made")
		}
	})
}

func TestStartWithoutServicesRemovesWhatAKilledAgentForwarded(t *testing.T) {
	t.Parallel()
	onPlanes(t, func(t *testing.T, plane string) {
		c := newCluster(t, plane, 1, 1)
		c.start(c.service())
		d := c.d[0]
		c.get(web, 1)
		d.Kill()
		c.ok(d.Configure(c.config(0)))
		c.ok(d.Start())
		c.ok(d.WaitState(t.Context(), "VI_1", "MASTER", patience))
		if r := c.lab.Client.Get(web, 10*requestLimit()); r.Outcome != lab.Refused {
			t.Errorf("a request to the service that is gone: %s (%v), want %s", r.Outcome, r.Err, lab.Refused)
		}
	})
}

func TestReloadToOtherRealServersRefusesNobody(t *testing.T) {
	onPlanes(t, func(t *testing.T, plane string) {
		c := newCluster(t, plane, 1, 4)
		d := c.d[0]
		use := func(servers []lab.RealServer) {
			changed := c.config(0, c.service())
			changed.Services[0].RealServers = servers
			c.ok(d.Configure(changed))
		}
		all := c.service().RealServers
		c.start(c.service())
		use(all[:2])
		c.ok(d.Reload(t.Context()))
		load := c.load()
		c.answered(load, time.Now(), 40)
		use(all[2:])
		c.ok(d.Reload(t.Context()))
		reloaded := time.Now()
		c.answered(load, reloaded, 40)
		requests := load.Stop()
		if n := requests.Between(reloaded, time.Now()).Servers(); n["r1"]+n["r2"] > 0 || n["r3"] == 0 || n["r4"] == 0 {
			t.Errorf("after the change to r3 and r4: %v", n)
		}
		for _, r := range requests.Failed() {
			if r.Outcome != lab.Reset { // those were open with a real server that left
				t.Errorf("a request failed %v after the reload: %s (%v)", r.Start.Sub(reloaded), r.Outcome, r.Err)
			}
		}
	})
}
