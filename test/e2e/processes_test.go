package e2e

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/xdirector/xdirector/pkg/status"
	"github.com/xdirector/xdirector/test/lab"
)

// restarted waits until the log tells so often that a process was started again.
func (c *cluster) restarted(d *lab.Director, part lab.Part, n int) {
	c.t.Helper()
	c.ok(d.Process().WaitLog(c.t.Context(), patience, `msg="the `+string(part)+` has ended`, n))
}

// ready waits until the agent that runs now answers.
func (c *cluster) ready(d *lab.Director, n int) {
	c.t.Helper()
	c.ok(d.Process().WaitLog(c.t.Context(), patience, "msg=ready", n))
	c.ok(d.WaitState(c.t.Context(), "VI_1", "MASTER", patience))
}

// silence is the longest time without an advert of a director since from, and fails the test if it sent priority 0.
func (c *cluster) silence(d *lab.Director, from time.Time) time.Duration {
	c.t.Helper()
	var longest time.Duration
	last := time.Time{}
	for _, a := range c.wire.AdvertsOf(d.Node, from) {
		if a.Priority == 0 {
			c.t.Errorf("%s sent priority 0 %v after it began", d.Name, a.Time.Sub(from))
		}
		if !last.IsZero() {
			longest = max(longest, a.Time.Sub(last))
		}
		last = a.Time
	}
	if last.IsZero() {
		c.t.Errorf("%s sent no advert", d.Name)
	}
	return longest
}

// stayed checks that a director was MASTER all the time since from, without an advert that came later than the peers
// wait for.
func (c *cluster) stayed(d, peer *lab.Director, from time.Time, interval time.Duration) {
	c.t.Helper()
	longest := c.silence(d, from)
	c.t.Logf("longest time between two adverts: %v, interval %v", longest, interval)
	if longest > lab.Slack*interval {
		c.t.Errorf("no advert for %v: the peers take over", longest)
	}
	if adverts := c.wire.AdvertsOf(peer.Node, from); len(adverts) > 0 {
		c.t.Errorf("%s sent %d adverts: it was MASTER", peer.Name, len(adverts))
	}
}

func TestKilledAgentAloneIsMissedByNobody(t *testing.T) {
	onPlanes(t, func(t *testing.T, plane string) {
		c := newCluster(t, plane, 2, 3)
		c.calm(calmInterval)
		c.start(c.service())
		first, second := c.d[0], c.d[1]
		load := c.load()
		election, err := first.PID(lab.Election)
		c.ok(err)
		began := time.Now()
		for n := range 2 {
			killed, err := first.Signal(lab.Agent, syscall.SIGKILL)
			c.ok(err)
			c.restarted(first, lab.Agent, n+1)
			c.ready(first, n+2)
			if now, err := first.PID(lab.Agent); err != nil || now == killed {
				t.Errorf("agent %d was %d before it was killed (%v)", now, killed, err)
			}
		}
		c.answered(load, time.Now(), 50)
		c.handover("agent killed twice", load.Stop(), time.Time{})
		c.stayed(first, second, began, c.interval)
		c.ok(first.WaitStatus(t.Context(), patience, func(s *status.Status) error {
			if s.Election.PID != election || s.Election.Restarts != 0 {
				return fmt.Errorf("election %+v, want process %d, never restarted", s.Election, election)
			}
			return serversUp(s)
		}))
		if !strings.Contains(first.Log(), `cause="killed by SIGKILL"`) {
			t.Error("the log doesn't say how the agent ended")
		}
	})
}

func TestKilledElectionGoesOnAsMaster(t *testing.T) {
	onPlanes(t, func(t *testing.T, plane string) {
		for _, interval := range []time.Duration{interval, time.Second} {
			t.Run(interval.String(), func(t *testing.T) {
				c := newCluster(t, plane, 2, 1)
				for i, d := range c.d {
					config := c.config(i, c.service())
					config.Instances[0].Interval = interval
					c.ok(d.Configure(config))
					c.ok(d.Start())
				}
				first, second := c.d[0], c.d[1]
				c.ok(first.WaitState(t.Context(), "VI_1", "MASTER", patience))
				c.ok(first.WaitStatus(t.Context(), patience, serversUp))
				load := c.load()
				agent, err := first.PID(lab.Agent)
				c.ok(err)
				began := time.Now()
				_, err = first.Signal(lab.Election, syscall.SIGKILL)
				c.ok(err)
				c.ok(first.WaitStatus(t.Context(), patience, func(s *status.Status) error {
					if s.Election.Restarts != 1 || s.Election.PID == 0 || s.Instances[0].State != "MASTER" {
						return fmt.Errorf("election %+v, instance %+v", s.Election, s.Instances[0])
					}
					return nil
				}))
				c.ok(c.waitAdverts(t.Context(), first, began, 4))
				c.answered(load, time.Now(), 50)
				c.handover("election killed", load.Stop(), time.Time{})
				c.stayed(first, second, began, interval)
				if n, err := c.count(first.Node); err != nil || n != 1 {
					t.Errorf("the MASTER holds the address %d times (%v)", n, err)
				}
				if now, err := first.PID(lab.Agent); err != nil || now != agent {
					t.Errorf("agent %d (%v), was %d", now, err, agent)
				}
			})
		}
	})
}

func TestStoppedElectionIsHandedOver(t *testing.T) {
	onPlanes(t, func(t *testing.T, plane string) {
		c := newCluster(t, plane, 2, 3)
		c.start(c.service())
		first, second := c.d[0], c.d[1]
		load := c.load()
		began := time.Now()
		_, err := first.Signal(lab.Election, syscall.SIGSTOP)
		c.ok(err)
		taken := c.takeover(second, began)
		c.restarted(first, lab.Election, 1)
		returned := c.takeover(first, taken) // it has the higher priority
		c.answered(load, returned, 50)
		c.oneMaster(first, second, patience)
		requests := load.Stop()
		c.handover("election stopped", requests.Between(began, taken.Add(interval)), taken)
		c.handover("return", requests.Between(taken.Add(interval), time.Now()), returned)

		var last lab.Advert // before the peer took over
		for _, a := range c.wire.AdvertsOf(first.Node, began.Add(-interval)) {
			if a.Time.Before(taken) {
				last = a
			}
		}
		skew := (256 - 100) * interval / 256
		t.Logf("priority 0 %v after the stop, the peer's gratuitous ARP %v after that", last.Time.Sub(began), taken.Sub(last.Time))
		if limit := 2 * interval; last.Priority != 0 || last.Time.Sub(began) > lab.Slack*limit {
			t.Errorf("the last advert has priority %d, %v after the stop; want 0 within %v", last.Priority, last.Time.Sub(began), limit)
		}
		if after := taken.Sub(last.Time); after > lab.Slack*skew {
			t.Errorf("the peer took over %v after priority 0, its skew is %v", after, skew)
		}
	})
}

func TestPauseOfTheElectionMovesItsFastInstanceAlone(t *testing.T) {
	t.Parallel()
	onPlanes(t, func(t *testing.T, _ string) {
		const quick, slow, slowID = 10 * time.Millisecond, time.Second, 52
		c := newCluster(t, "", 2, 0)
		for i, d := range c.d {
			config := c.config(i)
			config.Instances[0].Interval = quick
			other := c.instance(i)
			other.Name, other.VRID, other.Interval, other.Addresses = "VI_2", slowID, slow, []string{"10.77.0.101/32"}
			config.Instances = append(config.Instances, other)
			c.ok(d.Configure(config))
			c.ok(d.Start())
		}
		first, second := c.d[0], c.d[1]
		for _, name := range []string{"VI_1", "VI_2"} {
			c.ok(first.WaitState(t.Context(), name, "MASTER", patience))
			c.ok(second.WaitState(t.Context(), name, "BACKUP", patience))
		}
		election := c.pid(first, lab.Election)
		began := time.Now()
		_, err := first.Signal(lab.Election, syscall.SIGSTOP)
		c.ok(err)
		taken := c.takeover(second, began)
		_, err = first.Signal(lab.Election, syscall.SIGCONT)
		c.ok(err)
		t.Logf("the peer's gratuitous ARP came %v after the stop", taken.Sub(began))
		if after := taken.Sub(began); after > lab.Slack*3*quick { // two intervals, and the peer's skew
			t.Errorf("the fast instance was taken over after %v", after)
		}
		c.ok(first.Process().WaitLog(t.Context(), patience, "its fastest instances are handed over", 1))
		c.oneMaster(first, second, patience) // it has the higher priority
		c.ok(first.WaitStatus(t.Context(), patience, func(s *status.Status) error {
			if s.Election.PID != election || s.Election.Restarts != 0 || s.Instances[1].Transitions["MASTER"] != 1 {
				return fmt.Errorf("election %+v, slow instance %+v; want that both went on", s.Election, s.Instances[1])
			}
			return nil
		}))
		c.ok(c.waitAdverts(t.Context(), first, time.Now(), 10))
		adverts := c.wire.AdvertsFor(false, slowID, began)
		for _, a := range adverts {
			if second.Node.Is(a.Source) || a.Priority == 0 {
				t.Errorf("advert of the slow instance from %s with priority %d", a.Source, a.Priority)
			}
		}
		fast := c.wire.AdvertsFor(false, 51, began)
		if !slices.ContainsFunc(fast, func(a lab.Advert) bool { return first.Node.Is(a.Source) && a.Priority == 0 }) {
			t.Error("no priority 0 of the fast instance")
		}
	})
}

func TestHungElectionOfABackupIsReplaced(t *testing.T) {
	t.Parallel()
	onPlanes(t, func(t *testing.T, _ string) {
		c := newCluster(t, "", 2, 0)
		c.start()
		first, second := c.d[0], c.d[1]
		c.ok(second.WaitState(t.Context(), "VI_1", "BACKUP", patience))
		began := time.Now()
		hung, err := second.Signal(lab.Election, syscall.SIGSTOP)
		c.ok(err)
		c.ok(second.Process().WaitLog(t.Context(), lab.Slack*6*time.Second, "which is MASTER of nothing, has not moved", 1))
		t.Logf("noticed after %v", time.Since(began))
		c.restarted(second, lab.Election, 1)
		c.ok(second.WaitStatus(t.Context(), patience, func(s *status.Status) error {
			if s.Election.PID == hung || s.Election.Restarts != 1 || s.Instances[0].State != "BACKUP" {
				return fmt.Errorf("election %+v, was process %d; instance %+v", s.Election, hung, s.Instances[0])
			}
			return nil
		}))
		c.stayed(first, second, began, interval)
	})
}

func TestKilledSupervisorComesBack(t *testing.T) {
	t.Parallel()
	onPlanes(t, func(t *testing.T, _ string) {
		for _, tt := range []struct {
			interval time.Duration
			resumes  bool
		}{{interval, false}, {2 * time.Second, true}} {
			t.Run(tt.interval.String(), func(t *testing.T) {
				c := newCluster(t, "", 2, 0)
				for i, d := range c.d {
					config := c.config(i)
					config.Instances[0].Interval = tt.interval
					c.ok(d.Configure(config))
					c.ok(d.Start())
				}
				first, second := c.d[0], c.d[1]
				c.ok(first.WaitState(t.Context(), "VI_1", "MASTER", patience))
				c.ok(c.waitAdverts(t.Context(), first, time.Now(), 1))
				children := []int{c.pid(first, lab.Agent), c.pid(first, lab.Election)}
				began := time.Now()
				c.pid(first, lab.Supervisor)
				_, err := first.Signal(lab.Supervisor, syscall.SIGKILL)
				c.ok(err)
				for _, pid := range children {
					c.ok(lab.Wait(t.Context(), patience, func() error {
						if err := syscall.Kill(pid, 0); err == nil {
							return fmt.Errorf("process %d outlives its supervisor", pid)
						}
						return nil
					}))
				}
				if !tt.resumes {
					c.takeover(second, began)
				}
				if n, err := c.count(first.Node); err != nil || n != 1 {
					t.Errorf("who leaves touches nothing: the address is there %d times (%v)", n, err)
				}
				c.ok(first.Start())
				c.oneMaster(first, second, patience)
				adverts := c.wire.AdvertsOf(first.Node, began)
				zero := slices.ContainsFunc(adverts, func(a lab.Advert) bool { return a.Priority == 0 })
				if zero == tt.resumes {
					t.Errorf("priority 0 sent: %v, want %v", zero, !tt.resumes)
				}
				if n := len(c.wire.AdvertsOf(second.Node, began)); tt.resumes && n > 0 {
					t.Errorf("the peer sent %d adverts, though the next supervisor came in time", n)
				}
			})
		}
	})
}

// pid is the process id of a part.
func (c *cluster) pid(d *lab.Director, part lab.Part) int {
	c.t.Helper()
	pid, err := d.PID(part)
	c.ok(err)
	return pid
}

func TestUpgradeIsSeenByNobody(t *testing.T) {
	onPlanes(t, func(t *testing.T, plane string) {
		c := newCluster(t, plane, 2, 3)
		c.calm(time.Second)
		first, second := c.d[0], c.d[1]
		c.ok(first.Install(nil))
		c.start(c.service())
		load := c.load()
		conn, err := c.lab.Client.Dial(t.Context(), "tcp4", netip.AddrPortFrom(vipAddress, 80).String())
		c.ok(err)
		defer conn.Close()
		server := c.ask(conn)
		main, agent, election := c.pid(first, lab.Supervisor), c.pid(first, lab.Agent), c.pid(first, lab.Election)

		began := time.Now()
		c.ok(first.Install(nil))
		_, err = first.Signal(lab.Supervisor, syscall.SIGUSR2)
		c.ok(err)
		c.ok(first.Process().WaitLog(t.Context(), patience, "msg=upgraded", 1))
		c.ready(first, 2)
		c.answered(load, time.Now(), 50)
		if again := c.ask(conn); again != server {
			t.Errorf("the open connection is answered by %s after the upgrade, by %s before", again, server)
		}
		c.handover("upgrade", load.Stop(), time.Time{})
		c.stayed(first, second, began, c.interval)
		if now := c.pid(first, lab.Supervisor); now != main || !first.Process().Running() {
			t.Errorf("main process %d, was %d", now, main)
		}
		if a, e := c.pid(first, lab.Agent), c.pid(first, lab.Election); a == agent || e == election {
			t.Errorf("agent %d, election %d: they were there before the upgrade", a, e)
		}

		// The signals of the one before work for the one after.
		c.ok(first.Process().Signal(syscall.SIGHUP))
		c.ok(first.Process().WaitLog(t.Context(), patience, "configuration reloaded", 1))
		c.ok(first.Stop())
		c.ok(second.WaitState(t.Context(), "VI_1", "MASTER", patience))
		c.ok(c.waitCount(first.Node, 0))
	})
}

func TestBrokenUpgradeIsRefused(t *testing.T) {
	t.Parallel()
	onPlanes(t, func(t *testing.T, _ string) {
		c := newCluster(t, "", 1, 0)
		d := c.d[0]
		c.ok(d.Install(nil))
		c.start()
		before := []int{c.pid(d, lab.Agent), c.pid(d, lab.Election)}
		began := time.Now()
		for n, broken := range []string{"#!/bin/sh\nexit 0\n", "#!/bin/sh\necho the disk was full >&2\nexit 1\n", "\x7fELF, but not for long"} {
			c.ok(d.Install([]byte(broken)))
			_, err := d.Signal(lab.Supervisor, syscall.SIGUSR2)
			c.ok(err)
			c.ok(d.Process().WaitLog(t.Context(), patience, "upgrade refused", n+1))
		}
		// A file that the new version refuses, too.
		c.ok(d.Install(nil))
		c.ok(d.WriteFile("lob: {}\n"))
		_, err := d.Signal(lab.Supervisor, syscall.SIGUSR2)
		c.ok(err)
		c.ok(d.Process().WaitLog(t.Context(), patience, "upgrade refused", 4))
		if log := d.Log(); !strings.Contains(log, "the disk was full") || !strings.Contains(log, "lob") {
			t.Error("the log doesn't say what is wrong with the new version")
		}
		c.ok(c.waitAdverts(t.Context(), d, time.Now(), 3))
		if now := []int{c.pid(d, lab.Agent), c.pid(d, lab.Election)}; !slices.Equal(now, before) {
			t.Errorf("agent and election are %v, were %v", now, before)
		}
		if longest := c.silence(d, began); longest > lab.Slack*interval {
			t.Errorf("no advert for %v", longest)
		}
	})
}

func TestHungAgentIsReplaced(t *testing.T) {
	t.Parallel()
	onPlanes(t, func(t *testing.T, _ string) {
		c := newCluster(t, "", 1, 0)
		c.start()
		d := c.d[0]
		began := time.Now()
		hung, err := d.Signal(lab.Agent, syscall.SIGSTOP)
		c.ok(err)
		c.ok(d.Process().WaitLog(t.Context(), lab.Slack*10*time.Second, "a process hangs", 1))
		c.ready(d, 2)
		if now := c.pid(d, lab.Agent); now == hung {
			t.Errorf("agent %d still runs", now)
		}
		if longest := c.silence(d, began); longest > lab.Slack*interval {
			t.Errorf("no advert for %v while the agent hung", longest)
		}
	})
}

func TestAgentThatIsStartedAgainReadsTheFileAsItIs(t *testing.T) {
	t.Parallel()
	onPlanes(t, func(t *testing.T, _ string) {
		c := newCluster(t, "", 1, 0)
		c.start()
		d := c.d[0]
		election := c.pid(d, lab.Election)
		began := time.Now()

		// With a broken one it can't start, and the election doesn't mind.
		c.ok(d.WriteFile("lob: {}\n"))
		_, err := d.Signal(lab.Agent, syscall.SIGKILL)
		c.ok(err)
		c.ok(d.Process().WaitLog(t.Context(), patience, `cause="exit code 1"`, 2))
		c.ok(c.waitAdverts(t.Context(), d, time.Now(), 3))
		if longest := c.silence(d, began); longest > lab.Slack*interval {
			t.Errorf("no advert for %v while the agent could not start", longest)
		}
		// What only a restart can change is changed by this one.
		other := c.config(0)
		other.Instances[0].VRID = 52
		changed := time.Now()
		c.ok(d.Configure(other))
		c.ready(d, 2)
		c.ok(lab.Wait(t.Context(), patience, func() error {
			before, after := c.wire.AdvertsFor(false, 51, changed), c.wire.AdvertsFor(false, 52, changed)
			if len(before) == 0 || before[len(before)-1].Priority != 0 || len(after) < 3 {
				return fmt.Errorf("adverts of VRID 51 %v, of VRID 52 %v; want a handover and a new MASTER", before, after)
			}
			return nil
		}))
		c.ok(c.waitCount(d.Node, 1))
		if now := c.pid(d, lab.Election); now != election {
			t.Errorf("election %d, was %d", now, election)
		}
	})
}

func TestStopEndsInGoodOrderWhateverHasDied(t *testing.T) {
	t.Parallel()
	onPlanes(t, func(t *testing.T, _ string) {
		for _, part := range []lab.Part{lab.Agent, lab.Election} {
			t.Run(string(part), func(t *testing.T) {
				c := newCluster(t, "", 1, 0)
				c.start()
				d := c.d[0]
				_, err := d.Signal(part, syscall.SIGKILL)
				c.ok(err)
				c.ok(d.Stop())
				if n, err := c.count(d.Node); err != nil || n != 0 {
					t.Errorf("after the stop the address is there %d times (%v)", n, err)
				}
			})
		}
	})
}

func TestCleanupRemovesWhatAKilledDirectorLeft(t *testing.T) {
	t.Parallel()
	onPlanes(t, func(t *testing.T, plane string) {
		c := newCluster(t, plane, 1, 1)
		d := c.d[0]
		config := c.config(0, c.service())
		config.Instances[0].More = []string{
			fmt.Sprintf("routes: [{destination: 198.51.100.0/24, via: %s}, {destination: 203.0.113.0/24, via: %[1]s, source: %s, table: 77}]", c.lab.RealServers[0].Address, vip),
			`excluded_addresses: ["2001:db8:7::1/128"]`, "accept: false",
		}
		c.ok(d.Configure(config))
		c.ok(d.Start())
		c.ok(d.WaitStatus(t.Context(), patience, serversUp))
		left := map[string]string{
			"a route":                   "ip route show 198.51.100.0/24 | grep -q .",
			"a route of another table":  "ip route show table 77 | grep -q .",
			"an excluded address":       "ip address show | grep -q 2001:db8:7::1",
			"a table of packet filters": "nft list tables | grep -q .",
		}
		for what, there := range left {
			c.ok(lab.Wait(t.Context(), patience, func() error {
				if err := d.Node.Run("sh", "-c", there); err != nil {
					return fmt.Errorf("%s is not there: %w", what, err)
				}
				return nil
			}))
		}
		c.get(web, 1)
		if err := d.Node.Run(d.Binary(), "cleanup", "--config", d.ConfigFile()); err == nil || !strings.Contains(err.Error(), "already running") || !strings.Contains(err.Error(), "stop it first") {
			t.Errorf("cleanup beside a running director: %v", err)
		}
		c.get(web, 1)
		d.Kill()
		// What is done is what the doctor says.
		cure := "Cure: xdirector cleanup --config " + d.ConfigFile() + "\n"
		if err := d.Node.Run(d.Binary(), "doctor", "--listen", "0s", "--config", d.ConfigFile()); err == nil || !strings.Contains(err.Error(), cure) {
			t.Errorf("no %q is said: %v", cure, err)
		}
		c.ok(d.Node.Run(d.Binary(), "cleanup", "--config", d.ConfigFile()))
		if err := d.Node.Run(d.Binary(), "doctor", "--listen", "0s", "--config", d.ConfigFile()); err != nil && strings.Contains(err.Error(), "cleanup") {
			t.Error(err)
		}
		if n, err := c.count(d.Node); err != nil || n != 0 {
			t.Errorf("after the cleanup the address is there %d times (%v)", n, err)
		}
		forwards, err := d.Forwarding()
		if err != nil || forwards != "" {
			t.Errorf("after the cleanup there is still %s (%v)", forwards, err)
		}
		for what, there := range left {
			if d.Node.Run("sh", "-c", there) == nil {
				t.Errorf("after the cleanup there is still %s", what)
			}
		}
	})
}
