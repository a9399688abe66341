package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/xdirector/xdirector/pkg/status"
	"github.com/xdirector/xdirector/test/lab"
)

func TestAddressOfTheAdministratorIsLeftAlone(t *testing.T) {
	t.Parallel()
	onPlanes(t, func(t *testing.T, _ string) {
		c := newCluster(t, "", 1, 0)
		c.ok(c.lab.Directors[0].AddAddress("eth0", vip+"/32"))
		c.start()
		d := c.d[0]
		held := func() {
			t.Helper()
			if n, err := c.count(d.Node); err != nil || n != 1 {
				t.Errorf("the administrator's address is there %d times (%v), want once", n, err)
			}
		}
		held()
		warnings := 0
		for line := range strings.Lines(d.Log()) {
			if strings.Contains(line, "level=WARN") && strings.Contains(line, vip) {
				warnings++
			}
		}
		if warnings != 1 {
			t.Errorf("%d warnings name %s, want one", warnings, vip)
		}
		c.ok(d.Stop())
		held()
	})
}

func TestInterfaceThatIsMissingAtTheStartIsWaitedFor(t *testing.T) {
	t.Parallel()
	onPlanes(t, func(t *testing.T, plane string) {
		c := newCluster(t, plane, 1, 1)
		d := c.d[0]
		config := c.config(0, c.service())
		waits := func() error {
			if status := d.NotifiedStatus(); status != "waiting for interfaces that do not exist: eth0" {
				return fmt.Errorf("the service manager was told %q", status)
			}
			return nil
		}
		if plane == election {
			config = c.config(0)
			config.Mode = ""
			waits = func() error {
				s, err := d.Status(t.Context())
				if err != nil || s.Instances[0].State != "FAULT" || !strings.Contains(s.Instances[0].Reason, "eth0 does not exist") {
					return fmt.Errorf("status %+v (%v)", s, err)
				}
				return nil
			}
		}
		rename := func(from, to string) {
			c.ok(d.Run("ip", "link", "set", from, "down"))
			c.ok(d.Run("ip", "link", "set", from, "name", to))
			c.ok(d.Run("ip", "link", "set", to, "up"))
		}
		c.ok(d.Configure(config))
		rename("eth0", "away0")
		_, err := d.Launch()
		c.ok(err)
		c.ok(lab.Wait(t.Context(), patience, waits))
		c.ok(d.Process().WaitLog(t.Context(), patience, "missing=eth0 \"this box has\"=\"lo, away0\"", 1))
		rename("away0", "eth0")
		c.ok(d.WaitState(t.Context(), "VI_1", "MASTER", patience))
		if plane != election {
			c.ok(d.WaitStatus(t.Context(), patience, serversUp))
			c.get(web, 5)
		}
	})
}

func TestInterfaceSetDownAndUpForwardsAgain(t *testing.T) {
	t.Parallel()
	onPlanes(t, func(t *testing.T, plane string) {
		c := newCluster(t, plane, 1, 2)
		c.start(c.service())
		d := c.d[0]
		c.get(web, 1)
		c.ok(d.SetInterface("eth0", false))
		c.ok(d.WaitState(t.Context(), "VI_1", "FAULT", patience))
		c.ok(c.waitCount(d.Node, 0))
		c.ok(d.SetInterface("eth0", true))
		c.ok(d.WaitState(t.Context(), "VI_1", "MASTER", patience))
		c.ok(c.waitCount(d.Node, 1))
		c.ok(d.WaitStatus(t.Context(), patience, serversUp))
		if got := tally(c.get(web, 6)); got["r1"] != 3 || got["r2"] != 3 {
			t.Errorf("6 requests by rr after the interface came back: %v, want 3 each", got)
		}
	})
}

func TestTakenMetricsPortIsTriedAgain(t *testing.T) {
	t.Parallel()
	onPlanes(t, func(t *testing.T, _ string) {
		c := newCluster(t, "", 1, 0)
		d := c.d[0]
		taken, err := d.Listen("127.0.0.1:9112")
		c.ok(err)
		c.start()
		c.ok(d.Process().WaitLog(t.Context(), patience, "9112", 1))
		c.ok(taken.Close())
		// Every 10 s.
		c.ok(lab.Wait(t.Context(), lab.Slack*10*time.Second, func() error {
			_, body, err := scrape(d, "/metrics")
			if err != nil {
				return err
			}
			if !strings.Contains(body, `xdirector_vrrp_state{instance="VI_1"} 2`) {
				return fmt.Errorf("metrics don't say that VI_1 is MASTER:\n%s", body)
			}
			return nil
		}))
	})
}

func TestLeftOverControlSocketIsRemovedAndALivingOneIsKept(t *testing.T) {
	t.Parallel()
	onPlanes(t, func(t *testing.T, _ string) {
		c := newCluster(t, "", 1, 0)
		c.start()
		d := c.d[0]
		d.Kill()
		c.ok(d.Start()) // over the socket of the killed one
		c.ok(d.WaitState(t.Context(), "VI_1", "MASTER", patience))
		living := d.Process()
		second, err := d.Launch()
		c.ok(err)
		code, err := second.Wait(patience)
		c.ok(err)
		if log := second.Log(); code != 1 || !strings.Contains(log, "already running") {
			t.Errorf("second process: exit code %d, want 1 and \"already running\"", code)
		}
		if !living.Running() {
			t.Error("the first process ended")
		}
		if state := d.State(t.Context(), "VI_1"); state != "MASTER" {
			t.Errorf("the first process is %q, want MASTER", state)
		}
	})
}

func TestServiceManagerIsToldTheStates(t *testing.T) {
	t.Parallel()
	onPlanes(t, func(t *testing.T, _ string) {
		c := newCluster(t, "", 1, 0)
		c.start()
		c.ok(c.d[0].WaitStatus(t.Context(), patience, func(*status.Status) error {
			if text := c.d[0].NotifiedStatus(); !strings.Contains(text, "VI_1") || !strings.Contains(text, "MASTER") {
				return fmt.Errorf("STATUS=%s, want VI_1 and MASTER", text)
			}
			return nil
		}))
	})
}
