package e2e

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/xdirector/xdirector/pkg/status"
	"github.com/xdirector/xdirector/test/lab"
)

// trial is a running `xdirector reload --confirm`.
type trial struct {
	cmd    *exec.Cmd
	stderr bytes.Buffer
}

func (c *cluster) trial(d *lab.Director, span time.Duration) *trial {
	c.t.Helper()
	r := &trial{cmd: exec.Command(d.Binary(), "reload", "--confirm", span.String(), "--config", d.ConfigFile())}
	r.cmd.Stderr = &r.stderr
	c.ok(r.cmd.Start())
	return r
}

// wantEnd waits for the end of the command, which exits with 1 and says why.
func (c *cluster) wantEnd(r *trial, why string) {
	c.t.Helper()
	err := r.cmd.Wait()
	if err == nil || r.cmd.ProcessState.ExitCode() != 1 || !strings.Contains(r.stderr.String(), why) {
		c.t.Errorf("reload --confirm: %v, %q, want exit code 1 and %q", err, r.stderr.String(), why)
	}
}

func TestReloadOnTrialIsTakenBackIfItCostsSomething(t *testing.T) {
	t.Parallel()
	onPlanes(t, func(t *testing.T, plane string) {
		c := newCluster(t, plane, 1, 2)
		c.start(c.service())
		d := c.d[0]
		good, dead := c.config(0, c.service()), c.config(0, c.service())
		dead.Services[0].RealServers = []lab.RealServer{{Address: netip.MustParseAddr("10.77.0.250")}}
		inForce := func(servers int, rolledBack bool) {
			t.Helper()
			c.ok(d.WaitStatus(t.Context(), patience, func(s *status.Status) error {
				if n := len(s.Services[0].RealServers); n != servers || s.Reload.RolledBack != rolledBack || !s.Reload.TrialUntil.IsZero() {
					return fmt.Errorf("%d real servers, reload %+v; want %d, rolled back %v", n, s.Reload, servers, rolledBack)
				}
				return nil
			}))
			c.get(web, 2)
		}
		onTrial := func() {
			t.Helper()
			c.ok(d.WaitStatus(t.Context(), patience, func(s *status.Status) error {
				if s.Reload.TrialUntil.IsZero() {
					return fmt.Errorf("reload %+v is not on trial", s.Reload)
				}
				return nil
			}))
		}

		// A real server that nobody answers for costs the service.
		c.ok(d.Configure(dead))
		c.wantEnd(c.trial(d, time.Minute), "the reload was rolled back: service web has no live real server, had 2: 10.77.0.250: ")
		inForce(2, true)
		if out, err := d.Command("plan"); err != nil || !strings.Contains(string(out), "+ real server web/10.77.0.250") {
			t.Errorf("plan of the file that was rolled back: %v\n%s", err, out)
		}

		// One real server less costs nothing; but whoever asked is gone before the time is.
		fewer := c.config(0, c.service())
		fewer.Services[0].RealServers = fewer.Services[0].RealServers[:1]
		c.ok(d.Configure(fewer))
		r := c.trial(d, time.Minute)
		onTrial()
		if err := d.Reload(t.Context()); err == nil || !strings.Contains(err.Error(), "on trial until") {
			t.Errorf("a reload during a trial: %v", err)
		}
		c.ok(r.cmd.Process.Signal(syscall.SIGHUP)) // the operator's session has ended
		c.wantEnd(r, "interrupted: the old configuration is in force again")
		inForce(2, true)

		// The agent dies during a trial: the next one begins with what was proven, and so do those after it.
		r = c.trial(d, time.Minute)
		onTrial()
		for range 2 {
			pid := c.pid(d, lab.Agent)
			_, err := d.Signal(lab.Agent, syscall.SIGKILL)
			c.ok(err)
			c.ok(lab.Wait(t.Context(), patience, func() error {
				if now, err := d.PID(lab.Agent); err != nil || now == pid {
					return fmt.Errorf("agent %d, was %d: %v", now, pid, err)
				}
				return nil
			}))
			inForce(2, true)
		}
		c.wantEnd(r, "xdirector: ")

		// Nothing is lost: it stays, also over the death of the agent.
		if out, err := d.Command("reload", "--confirm", "1s"); err != nil || string(out) != "reloaded; nothing was lost within 1s\n" {
			t.Errorf("%q, %v", out, err)
		}
		inForce(1, false)
		c.ok(d.Configure(good))
		c.ok(d.Reload(t.Context()))
		inForce(2, false)
	})
}

// reloadTime is for how long a director is reloaded: XDIRECTOR_RELOADS, or ten seconds.
func reloadTime(t *testing.T) time.Duration {
	text := os.Getenv("XDIRECTOR_RELOADS")
	if text == "" {
		return 10 * time.Second
	}
	span, err := time.ParseDuration(text)
	if err != nil {
		t.Fatalf("XDIRECTOR_RELOADS: %v", err)
	}
	return span
}

func TestReloadEvery100MillisecondsCostsNoRequest(t *testing.T) {
	t.Parallel()
	onPlanes(t, func(t *testing.T, plane string) {
		c := newCluster(t, plane, 1, 2)
		c.interval = calmInterval
		c.start(c.service())
		d, began := c.d[0], time.Now()
		before, err := d.Status(t.Context())
		c.ok(err)
		one := c.config(0, c.service())
		more := c.config(0, c.service())
		more.Instances[0].Priority--
		more.Services[0].Check = "{type: tcp, interval: 300ms, timeout: 900ms, retries: 2, retry_delay: 100ms}"
		more.Services[0].More = []string{"on_down: keep-weight-0"}
		// Another scheduler would be another matter: IPVS has none for a moment then.
		one.Services[0].Scheduler, more.Services[0].Scheduler, more.Services[0].RealServers[0].Weight = "wrr", "wrr", 3
		other := c.service()
		other.Name, other.Port = "other", 81
		more.Services = append(more.Services, other)
		c.ok(d.Configure(one))
		c.ok(d.Reload(t.Context()))
		load := c.load()
		ticks := time.NewTicker(100 * time.Millisecond)
		defer ticks.Stop()
		reloads := 0
		for end := time.Now().Add(reloadTime(t)); time.Now().Before(end); reloads++ {
			<-ticks.C
			wanted := one
			if reloads%2 == 0 {
				wanted = more
			}
			c.ok(d.Configure(wanted))
			c.ok(d.Reload(t.Context()))
		}
		requests := load.Stop()
		t.Logf("%d reloads, %d requests, %v", reloads, len(requests), requests.Outcomes())
		if failed := requests.Failed(); len(failed) > 0 {
			t.Errorf("%d requests failed; first: %+v", len(failed), failed[0])
		}
		after, err := d.Status(t.Context())
		c.ok(err)
		if was, is := before.Instances[0], after.Instances[0]; !was.Since.Equal(is.Since) {
			t.Errorf("the instance is %s since %v, was since %v", is.State, is.Since, was.Since)
		}
		if longest := c.silence(d, began); longest > lab.Slack*c.interval {
			t.Errorf("no advert for %v, while one is due every %v", longest, c.interval)
		}
	})
}
