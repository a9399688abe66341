package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/xdirector/xdirector/pkg/status"
	"github.com/xdirector/xdirector/test/lab"
)

// safeFolder is one that only root can write, all the way up, so that scripts in it are run.
func safeFolder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/var/lib", "xdirector-e2e-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// startTracking is start, with more in the configuration of the first director.
func (c *cluster) startTracking(more func(*lab.Config), services ...lab.Service) {
	c.t.Helper()
	for i, d := range c.d {
		cfg := c.config(i, services...)
		if i == 0 {
			more(&cfg)
		}
		c.ok(d.Configure(cfg))
		c.ok(d.Start())
		c.ok(d.WaitStatus(c.t.Context(), patience, serversUp))
	}
	c.ok(c.d[0].WaitState(c.t.Context(), "VI_1", "MASTER", patience))
}

// says waits until the director tells of its instance what holds it, or changes its priority.
func (c *cluster) says(d *lab.Director, text string) {
	c.t.Helper()
	c.ok(d.WaitStatus(c.t.Context(), patience, func(s *status.Status) error {
		if i := s.Instances[0]; !strings.Contains(i.Tracked, text) || text == "" && i.Tracked != "" {
			return fmt.Errorf("it says %q, want %q", i.Tracked, text)
		}
		return nil
	}))
}

func (c *cluster) write(path, text string) {
	c.t.Helper()
	c.ok(os.WriteFile(path, []byte(text), 0o644))
}

func TestFailedScriptHandsOverWithoutLosingARequest(t *testing.T) {
	onPlanes(t, func(t *testing.T, plane string) {
		dir := safeFolder(t)
		broken, script := filepath.Join(dir, "broken"), filepath.Join(dir, "chk")
		c := newCluster(t, plane, 2, 3)
		c.ok(os.WriteFile(script, []byte("#!/bin/sh\n[ ! -e "+broken+" ] || { echo no answer; exit 1; }\n"), 0o755))
		const interval, fall = 200 * time.Millisecond, 3
		hooks, notified := c.hooks(dir)
		c.more = func(director int) []string { return []string{hooks(director)} }
		c.startTracking(func(cfg *lab.Config) {
			cfg.VRRP = []string{fmt.Sprintf("scripts: [{name: chk, command: [%s], interval: %v, fall: %d}]", script, interval, fall)}
			cfg.Instances[0].More = append(cfg.Instances[0].More, "track: {scripts: [{name: chk}]}")
		}, c.service())
		first, second := c.d[0], c.d[1]
		load := c.load()

		// The next agent knows what the script was worth, and what was notified.
		c.ok(lab.Wait(t.Context(), patience, func() error {
			text, err := os.ReadFile(filepath.Join(filepath.Dir(first.ConfigFile()), "state", "notified.json"))
			if err != nil || !strings.Contains(string(text), `"instance VI_1": "MASTER"`) {
				return fmt.Errorf("what was notified is not recorded: %s (%v)", text, err)
			}
			return nil
		}))
		killed := time.Now()
		c.killAgent(first)
		c.ok(c.waitAdverts(t.Context(), first, killed, 10))
		c.ok(first.WaitStatus(t.Context(), patience, func(s *status.Status) error {
			if i := s.Instances[0]; i.State != "MASTER" || i.Transitions["MASTER"] != 1 || i.Transitions["FAULT"] > 1 {
				t.Errorf("after the death of the agent: %s, transitions %v", i.State, i.Transitions)
			}
			return nil
		}))

		failed := time.Now()
		c.write(broken, "")
		garp := c.takeover(second, failed)
		// The runs, and the skew of the other one.
		took, promised := garp.Sub(failed), interval*fall+100*time.Millisecond
		t.Logf("the other director took over after %v (%v are promised)", took, promised)
		if took > lab.Slack*promised {
			t.Errorf("the other director took over after %v, promised are %v", took, promised)
		}
		c.ok(first.WaitState(t.Context(), "VI_1", "FAULT", patience))
		c.says(first, "script chk failed 3 times: exit status 1: no answer")
		c.ok(c.waitCount(first.Node, 0))
		c.answered(load, garp, 100)

		repaired := time.Now()
		c.ok(os.Remove(broken))
		returned := c.takeover(first, repaired)
		c.answered(load, returned, 100)
		c.oneMaster(first, second, patience)
		requests := load.Stop()
		c.handover("script failed", requests.Between(failed, repaired), garp)
		c.handover("script succeeds", requests.Between(repaired, time.Now()), returned)

		// What each director's notify scripts were called with, in this order: nothing twice though the agent was killed. Who
		// hands over is BACKUP for a moment.
		c.ok(first.Stop())
		notified(first, "INSTANCE VI_1 BACKUP 200", "to MASTER", "INSTANCE VI_1 MASTER 200", "INSTANCE VI_1 BACKUP 200",
			"INSTANCE VI_1 FAULT 200", "INSTANCE VI_1 BACKUP 200", "to MASTER", "INSTANCE VI_1 MASTER 200", "INSTANCE VI_1 BACKUP 200", "INSTANCE VI_1 STOP 200")
		notified(second, "INSTANCE VI_1 BACKUP 100", "to MASTER", "INSTANCE VI_1 MASTER 100", "INSTANCE VI_1 BACKUP 100",
			"to MASTER", "INSTANCE VI_1 MASTER 100")
	})
}

// hooks makes a notify script, as one of keepalived's, that writes down what it is called with. key gives it to an instance or a sync
// group of a director, for any state and for MASTER; called waits until it was called as wanted.
func (c *cluster) hooks(dir string) (key func(director int) string, called func(d *lab.Director, want ...string)) {
	c.t.Helper()
	script := filepath.Join(dir, "notify")
	c.ok(os.WriteFile(script, []byte("#!/bin/sh\nfile=$1; shift; echo \"$@\" >>$file\n"), 0o755))
	file := func(n int) string { return filepath.Join(dir, fmt.Sprintf("notified.%d", n)) }
	for n := range c.d {
		c.write(file(n), "")
		c.ok(os.Chmod(file(n), 0o666)) // the scripts run as nobody
	}
	key = func(n int) string {
		return fmt.Sprintf("notify: {any: [%s, %s], master: [%s, %s, to, MASTER]}", script, file(n), script, file(n))
	}
	return key, func(d *lab.Director, want ...string) {
		c.t.Helper()
		c.ok(lab.Wait(c.t.Context(), patience, func() error {
			text, err := os.ReadFile(file(slices.Index(c.d, d)))
			if got := strings.Join(want, "\n") + "\n"; err != nil || string(text) != got {
				return fmt.Errorf("the scripts of %s were called with\n%s\nwant\n%s (%v)", d.Name, text, got, err)
			}
			return nil
		}))
	}
}

func TestTooFewRealServersHandOver(t *testing.T) {
	onPlanes(t, func(t *testing.T, plane string) {
		c := newCluster(t, plane, 2, 3)
		c.startTracking(func(cfg *lab.Config) {
			cfg.Instances[0].More = []string{"track: {services: [{name: web, min_up: 2}]}"}
		}, c.service())
		first, second := c.d[0], c.d[1]
		c.servers[0].Kill()
		c.ok(first.WaitStatus(t.Context(), patience, func(s *status.Status) error {
			if s.Services[0].RealServers[0].Up {
				return errors.New("the real server counts as up")
			}
			return nil
		}))
		c.ok(first.WaitState(t.Context(), "VI_1", "MASTER", patience)) // two are enough
		c.servers[1].Kill()
		c.oneMaster2(second, first, "FAULT")
		c.says(first, "service web has 1 of 3 real servers that can take new flows, 2 wanted")
		c.serve(1)
		c.oneMaster(first, second, patience)
	})
}

// oneMaster2 waits until one director is MASTER with the address, and the other one in the state without it.
func (c *cluster) oneMaster2(master, other *lab.Director, state string) {
	c.t.Helper()
	c.ok(master.WaitState(c.t.Context(), "VI_1", "MASTER", patience))
	c.ok(other.WaitState(c.t.Context(), "VI_1", state, patience))
	c.ok(c.waitCount(master.Node, 1))
	c.ok(c.waitCount(other.Node, 0))
}

func TestTrackedFilesAndProcessesDecideWhoIsMaster(t *testing.T) {
	t.Parallel()
	onPlanes(t, func(t *testing.T, _ string) {
		dir := safeFolder(t)
		maintenance, lower := filepath.Join(dir, "off", "maintenance"), filepath.Join(dir, "lower")
		program := filepath.Join(dir, fmt.Sprintf("xd-e2e-%d", os.Getpid()%100000))
		c := newCluster(t, "", 2, 0)
		text, err := os.ReadFile("/bin/sleep")
		c.ok(err)
		c.ok(os.WriteFile(program, text, 0o755))
		begin := func() *exec.Cmd {
			p := exec.Command(program, "1000")
			c.ok(p.Start())
			t.Cleanup(func() { _ = p.Process.Kill(); _ = p.Wait() })
			return p
		}
		p := begin()
		c.startTracking(func(cfg *lab.Config) {
			cfg.Instances[0].More = []string{fmt.Sprintf("track: {files: [{path: %s}, {path: %s, weight: -1}], processes: [{name: %s}]}",
				maintenance, lower, filepath.Base(program))}
		})
		first, second := c.d[0], c.d[1]

		c.ok(os.Mkdir(filepath.Dir(maintenance), 0o755))
		c.write(maintenance, "1\n")
		c.oneMaster2(second, first, "FAULT")
		c.says(first, "file "+maintenance+" says 1")
		c.write(maintenance, "0\n")
		c.oneMaster(first, second, patience)

		c.write(lower, "150") // 200 - 150 is less than the other one's 100
		c.oneMaster(second, first, patience)
		c.says(first, "file "+lower+" says 150: -150")
		c.ok(first.WaitStatus(t.Context(), patience, func(s *status.Status) error {
			if i := s.Instances[0]; i.Priority != 50 || i.ConfiguredPriority != 200 {
				return fmt.Errorf("priority %d of %d", i.Priority, i.ConfiguredPriority)
			}
			return nil
		}))
		c.write(lower, "nonsense") // changes nothing
		c.ok(first.Process().WaitLog(t.Context(), patience, `it holds no number, but`, 1))
		c.oneMaster(second, first, patience)
		c.ok(os.Remove(lower))
		c.oneMaster(first, second, patience)

		c.ok(p.Process.Kill())
		c.oneMaster2(second, first, "FAULT")
		c.says(first, "process "+filepath.Base(program)+" does not run")
		begin()
		c.oneMaster(first, second, patience)
		c.says(first, "")
	})
}

// agent is the process id of a director's agent.
func (c *cluster) agent(d *lab.Director) int {
	c.t.Helper()
	found := 0
	c.ok(lab.Wait(c.t.Context(), patience, func() error {
		lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", d.Process().PID()))
		if err != nil {
			return err
		}
		for _, list := range lists {
			text, _ := os.ReadFile(list) // of a thread, which may have ended
			for _, child := range strings.Fields(string(text)) {
				line, _ := os.ReadFile("/proc/" + child + "/cmdline")
				if words := strings.Split(string(line), "\x00"); len(words) > 1 && words[1] == "agent" {
					found, err = strconv.Atoi(child)
					return err
				}
			}
		}
		return errors.New("no agent runs")
	}))
	return found
}

// killAgent kills the agent of a director and waits for the next one's first status.
func (c *cluster) killAgent(d *lab.Director) {
	c.t.Helper()
	s, err := d.Status(c.t.Context())
	c.ok(err)
	p, err := os.FindProcess(c.agent(d))
	c.ok(err)
	c.ok(p.Kill())
	c.ok(d.WaitStatus(c.t.Context(), patience, func(now *status.Status) error {
		if now.Started.Equal(s.Started) {
			return errors.New("the agent was not killed")
		}
		return nil
	}))
}

func TestFailoverAndReturnLoseNoRequest(t *testing.T) {
	onPlanes(t, func(t *testing.T, plane string) {
		c := newCluster(t, plane, 2, 3)
		c.start(c.service())
		first, second := c.d[0], c.d[1]
		load := c.load()

		told := time.Now()
		out, err := first.Command("failover", "VI_1")
		c.ok(err)
		want := fmt.Sprintf("VI_1 is BACKUP now, %s is MASTER\nuntil told otherwise: xdirector failover VI_1 --off\n", second.Address)
		if string(out) != want {
			t.Errorf("failover prints\n%swant\n%s", out, want)
		}
		garp := c.takeover(second, told)
		c.answered(load, garp, 100)
		c.ok(first.WaitStatus(t.Context(), patience, func(s *status.Status) error {
			if !s.Instances[0].Yielding {
				return errors.New("the status doesn't say that it yields")
			}
			return nil
		}))
		c.oneMaster(second, first, patience)

		// It yields still: after the death of the agent, a reload, an upgrade, and a restart of all.
		c.killAgent(first)
		c.ok(first.Reload(t.Context()))
		c.ok(first.Process().Signal(syscall.SIGUSR2))
		c.ok(first.Process().WaitLog(t.Context(), patience, "failover from before the restart goes on", 2)) // the stop comes amid the upgrade
		c.ok(first.Stop())
		c.ok(first.Start())
		c.ok(first.WaitState(t.Context(), "VI_1", "BACKUP", patience))
		restarted := time.Now()
		c.ok(c.waitAdverts(t.Context(), second, restarted.Add(10*interval), 3)) // it would have preempted by now
		c.oneMaster(second, first, patience)

		back := time.Now()
		out, err = first.Command("failover", "VI_1", "--off")
		c.ok(err)
		if !strings.HasPrefix(string(out), "VI_1 takes part as configured again. ") {
			t.Errorf("failover --off prints %s", out)
		}
		returned := c.takeover(first, back)
		c.answered(load, returned, 100)
		c.oneMaster(first, second, patience)
		requests := load.Stop()
		c.handover("failover", requests.Between(told, back), garp)
		c.handover("return", requests.Between(back, time.Now()), returned)

		if out, err = first.Command("failover", "VI_1", "--for", "2s"); err != nil || !strings.Contains(string(out), "\nuntil ") {
			t.Errorf("failover --for prints %s (%v)", out, err)
		}
		c.oneMaster(first, second, patience)
	})
}

func TestMaintenanceLosesNoRequestAndSurvivesARestart(t *testing.T) {
	onPlanes(t, func(t *testing.T, plane string) {
		c := newCluster(t, plane, 2, 3)
		c.start(c.service())
		first, second := c.d[0], c.d[1]
		load := c.load()
		began := time.Now()
		out, err := first.Command("maintenance", "on")
		c.ok(err)
		want := fmt.Sprintf("maintenance is on: this box takes part in no election, until: xdirector maintenance off\nVI_1 is FAULT now, %s is MASTER\n", second.Address)
		if string(out) != want {
			t.Errorf("maintenance on prints\n%swant\n%s", out, want)
		}
		garp := c.takeover(second, began)
		c.answered(load, garp, 100)
		c.ok(first.WaitStatus(t.Context(), patience, func(s *status.Status) error {
			if !s.Maintenance || s.Instances[0].State != "FAULT" {
				return fmt.Errorf("maintenance %v, %s", s.Maintenance, s.Instances[0].State)
			}
			return nil
		}))
		c.killAgent(first)
		c.ok(first.Stop())
		c.ok(first.Start())
		c.ok(first.WaitState(t.Context(), "VI_1", "FAULT", patience))
		restarted := time.Now()
		c.ok(c.waitAdverts(t.Context(), second, restarted.Add(10*interval), 3))
		c.oneMaster2(second, first, "FAULT")

		over := time.Now()
		out, err = first.Command("maintenance", "off")
		c.ok(err)
		if !strings.HasPrefix(string(out), "maintenance is off: this box takes part in all elections\n") {
			t.Errorf("maintenance off prints %s", out)
		}
		returned := c.takeover(first, over)
		c.answered(load, returned, 100)
		c.oneMaster(first, second, patience)
		requests := load.Stop()
		c.handover("maintenance on", requests.Between(began, over), garp)
		c.handover("maintenance off", requests.Between(over, time.Now()), returned)
	})
}

func TestFailoverWithoutAnotherDirectorChangesNothing(t *testing.T) {
	t.Parallel()
	onPlanes(t, func(t *testing.T, _ string) {
		c := newCluster(t, "", 2, 0)
		d, late := c.d[0], c.d[1]
		c.ok(d.Configure(c.config(0)))
		c.ok(d.Start())
		c.ok(d.WaitState(t.Context(), "VI_1", "MASTER", patience))
		_, err := d.Command("failover", "VI_1")
		if err == nil || !strings.Contains(err.Error(), "exit status 1") || !strings.Contains(err.Error(), "xdirector: no other director took over: VI_1 stays MASTER") {
			t.Errorf("error %v", err)
		}
		c.ok(d.WaitState(t.Context(), "VI_1", "MASTER", patience))
		c.ok(c.waitCount(d.Node, 1))
		if _, err := d.Command("failover", "VI_2"); err == nil || !strings.Contains(err.Error(), `no instance "VI_2" is configured here (did you mean "VI_1"?): there are VI_1`) {
			t.Errorf("error %v", err)
		}

		// One that comes later takes over, even one that preempts nobody: it is offered the place every ten seconds.
		config := c.config(1)
		config.Instances[0].NoPreempt = true
		c.ok(late.Configure(config))
		c.ok(late.Start())
		c.oneMaster(late, d, lab.Slack*10*time.Second)
	})
}

func TestFailoverOfASyncGroup(t *testing.T) {
	t.Parallel()
	onPlanes(t, func(t *testing.T, _ string) {
		c := newCluster(t, "", 2, 0)
		hooks, notified := c.hooks(safeFolder(t))
		for i, d := range c.d {
			cfg := c.config(i)
			other := c.instance(i)
			other.Name, other.VRID, other.Addresses = "VI_2", 52, []string{"10.77.0.101/32"}
			cfg.Instances = append(cfg.Instances, other)
			cfg.VRRP = []string{fmt.Sprintf("sync_groups: [{name: both, instances: [VI_1, VI_2], %s}]", hooks(i))}
			c.ok(d.Configure(cfg))
			c.ok(d.Start())
		}
		first, second := c.d[0], c.d[1]
		both := func(master, backup *lab.Director) {
			t.Helper()
			for _, name := range []string{"VI_1", "VI_2"} {
				c.ok(master.WaitState(t.Context(), name, "MASTER", patience))
				c.ok(backup.WaitState(t.Context(), name, "BACKUP", patience))
			}
		}
		both(first, second)
		out, err := first.Command("failover", "VI_2")
		c.ok(err)
		for _, line := range []string{"sync group both goes together: VI_1, VI_2\n", "VI_1 is BACKUP now, ", "VI_2 is BACKUP now, "} {
			if !strings.Contains(string(out), line) {
				t.Errorf("failover prints\n%swithout %q", out, line)
			}
		}
		both(second, first)
		_, err = first.Command("failover", "VI_1", "--off")
		c.ok(err)
		both(first, second)
		notified(first, "GROUP both BACKUP 0", "to MASTER", "GROUP both MASTER 0", "GROUP both BACKUP 0", "to MASTER", "GROUP both MASTER 0")
		notified(second, "GROUP both BACKUP 0", "to MASTER", "GROUP both MASTER 0", "GROUP both BACKUP 0")
	})
}
