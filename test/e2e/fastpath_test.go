package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/xdirector/xdirector/pkg/status"
	"github.com/xdirector/xdirector/test/lab"
)

func TestAbsorbedAdvertsEndInATakeover(t *testing.T) {
	onPlanes(t, func(t *testing.T, plane string) {
		const interval = 30 * time.Millisecond // the longest that is absorbed: the machine may stand still for as many
		c := newCluster(t, "", 2, 0)
		for i, d := range c.d {
			instance := c.instance(i)
			instance.Interval = interval
			c.ok(d.Configure(lab.Config{Mode: plane, FastPath: "absorb", Instances: []lab.Instance{instance}}))
			c.ok(d.Start())
			if i == 0 { // also if it stood still at the start: the other one may never have been MASTER
				c.ok(d.WaitState(t.Context(), "VI_1", "MASTER", patience))
			}
		}
		master, backup := c.d[0], c.d[1]
		c.oneMaster(master, backup, patience)
		var before status.Instance
		c.ok(backup.WaitStatus(t.Context(), patience, func(s *status.Status) error {
			if before = s.Instances[0]; s.Election.FastPath != "absorb" || before.AdvertsAbsorbed < 100 || before.AdvertsReceived == 0 {
				return fmt.Errorf("%s (%s); %d adverts absorbed, %d received", s.Election.FastPath, s.Election.FastPathReason, before.AdvertsAbsorbed, before.AdvertsReceived)
			}
			return nil
		}))
		if before.Transitions["MASTER"] != 0 {
			t.Errorf("the BACKUP was MASTER %d times", before.Transitions["MASTER"])
		}
		// A driver that stops its queues for a new program looks like a dead MASTER: the election begins after that. The NIC
		// and the switches deliver what somebody is a member of, also if all of it is absorbed.
		if attached, began := strings.Index(backup.Log(), "XDP program attached"), strings.Index(backup.Log(), "state changed"); attached < 0 || attached > began {
			t.Error("the election began before the program was attached")
		}
		if err := backup.Node.Run("grep", "-q", "120000E0", "/proc/net/igmp"); err != nil {
			t.Errorf("not a member of 224.0.0.18 while adverts are absorbed: %v", err)
		}
		// One of a second still arrives.
		c.ok(backup.WaitStatus(t.Context(), patience, func(s *status.Status) error {
			if now := s.Instances[0]; now.AdvertsReceived <= before.AdvertsReceived || now.AdvertsAbsorbed <= before.AdvertsAbsorbed {
				return fmt.Errorf("%d received and %d absorbed, before %d and %d", now.AdvertsReceived, now.AdvertsAbsorbed, before.AdvertsReceived, before.AdvertsAbsorbed)
			}
			return nil
		}))
		// tcpdump sees that one alone, capture all of them.
		out, err := backup.Command("capture", "--vrrp", "--json", "--count", "30")
		c.ok(err)
		fates := map[string]int{}
		for line := range strings.Lines(string(out)) {
			var advert struct {
				Fate, Source, Destination string
				VRID                      int   `json:"virtual_router_id"`
				Priority, TTL             uint8 // of the MASTER
			}
			c.ok(json.Unmarshal([]byte(line), &advert))
			if advert.VRID != 51 || advert.Priority != 200 || advert.TTL != 255 || advert.Source != master.Address.String() || advert.Destination != "224.0.0.18" {
				t.Errorf("captured %s", line)
			}
			fates[advert.Fate]++
		}
		if fates["absorbed"] < 25 || fates["absorbed"]+fates["sampled"] != 30 {
			t.Errorf("captured %v, want 30, nearly all absorbed", fates)
		}
		// An agent that dies takes nothing of this away, and the next one goes on.
		_, err = backup.Signal(lab.Agent, syscall.SIGKILL)
		c.ok(err)
		c.restarted(backup, lab.Agent, 1)
		c.ok(backup.Process().WaitLog(t.Context(), patience, "msg=ready", 2))
		var adopted uint64
		c.ok(backup.WaitStatus(t.Context(), patience, func(s *status.Status) error {
			now := s.Instances[0]
			if now.Transitions["MASTER"] != 0 {
				t.Fatalf("the BACKUP was MASTER: %s", now.Reason)
			}
			if adopted == 0 {
				adopted = now.AdvertsAbsorbed
			}
			if now.AdvertsAbsorbed < adopted+50 {
				return fmt.Errorf("%d adverts absorbed, %d when the agent was back", now.AdvertsAbsorbed, adopted)
			}
			return nil
		}))
		killed := time.Now()
		master.Kill()
		garp := c.takeover(backup, killed)
		if took, most := garp.Sub(killed), lab.Slack*5*interval; took > most && !inVM() {
			t.Errorf("the takeover took %v, want at most %v", took, most)
		}
	})
}

func TestBadAdvertsEndInTheDriverButOneOfASecond(t *testing.T) {
	t.Parallel()
	onPlanes(t, func(t *testing.T, plane string) {
		c := newCluster(t, plane, 1, 1)
		c.start(c.service())
		d := c.d[0]
		bad := c.lab.Client.Forge(3, 51, 250, interval, vipAddress)
		bad.TTL = 64
		const many = 200
		for range many {
			c.ok(c.lab.Client.Send(bad.Frame()))
		}
		c.ok(d.WaitStatus(t.Context(), patience, func(s *status.Status) error {
			i := s.Instances[0]
			if i.State != "MASTER" || s.Election.FastPath != "filter" {
				t.Fatalf("%s, fast path %s (%s)", i.State, s.Election.FastPath, s.Election.FastPathReason)
			}
			filtered, refused := i.AdvertsFiltered["ttl"], i.AdvertsRefused["ttl"]
			if refused == 0 || filtered+refused < many {
				return fmt.Errorf("%d dropped by the program, %d refused by the election, of %d sent", filtered, refused, many)
			}
			if filtered < many/2 {
				t.Errorf("only %d of %d were dropped by the program", filtered, many)
			}
			return nil
		}))
	})
}
