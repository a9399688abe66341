package e2e

import (
	"bufio"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/xdirector/xdirector/pkg/status"
	"github.com/xdirector/xdirector/test/lab"
)

// perFamily is how many virtual routers fit on an interface and family.
const perFamily = 255

// everyVRID is an instance for each VRID in both families.
func everyVRID(priority uint8) []lab.Instance {
	var list []lab.Instance
	for vrid := 1; vrid <= perFamily; vrid++ {
		list = append(list,
			lab.Instance{Name: fmt.Sprintf("four%d", vrid), VRID: uint8(vrid), Version: 3, Priority: priority, Interval: time.Second,
				Addresses: []string{fmt.Sprintf("10.77.6.%d/32", vrid)}},
			lab.Instance{Name: fmt.Sprintf("six%d", vrid), VRID: uint8(vrid), Version: 3, Priority: priority, Interval: time.Second,
				Addresses: []string{fmt.Sprintf("fe80::77:6:%d/128", vrid)}})
	}
	return list
}

// TestEveryVRIDOfAnInterfaceFailsOverTogether: V-137. 255 virtual routers of each family on one interface have one packet
// socket for each family, or one for all, and all of them change to the other director and back.
func TestEveryVRIDOfAnInterfaceFailsOverTogether(t *testing.T) {
	t.Parallel()
	onPlanes(t, func(t *testing.T, _ string) {
		c := newCluster(t, "", 2, 0)
		first, second := c.d[0], c.d[1]
		states := func(d *lab.Director, want string) {
			t.Helper()
			c.ok(d.WaitStatus(t.Context(), patience, func(s *status.Status) error {
				count := map[string]int{}
				for _, i := range s.Instances {
					count[i.State]++
				}
				if count[want] != 2*perFamily {
					return fmt.Errorf("states %v, want all %s", count, want)
				}
				return nil
			}))
		}
		for n, d := range c.d {
			c.ok(d.Configure(lab.Config{Instances: everyVRID(uint8(200 - 100*n))}))
			c.ok(d.Start())
			states(d, []string{"MASTER", "BACKUP"}[n])
		}
		if got, err := packetSockets(first.Process().PIDsWith("election")[0]); err != nil || got == 0 || got > 4 {
			t.Errorf("%d packet sockets (%v), want at most 4: two families, receiving and sending", got, err)
		}
		killed := time.Now()
		first.Kill()
		states(second, "MASTER")
		began, ended := c.allAnnounced(second, killed)
		t.Logf("first gratuitous ARP %v after the last director was killed, the last one %v later", began.Sub(killed), ended.Sub(began))
		if spread := ended.Sub(began); spread > lab.Slack*time.Second {
			t.Errorf("%v from the first to the last address announced", spread)
		}
		c.ok(first.Start())
		states(first, "MASTER")
		states(second, "BACKUP")
		c.ok(lab.Wait(t.Context(), patience, func() error {
			held, err := second.Addresses("eth0")
			if slices.ContainsFunc(held, func(a string) bool { return strings.HasPrefix(a, "10.77.6.") || strings.HasPrefix(a, "fe80::77:6:") }) {
				err = errors.Join(err, fmt.Errorf("%d addresses on the BACKUP", len(held)))
			}
			return err
		}))
	})
}

// electionMemory is what the process of the election may need with a thousand instances: PSS in bytes.
const electionMemory = 20 << 20

// TestTheElectionOfAThousandInstancesIsSmall: all of its memory is locked in place, so what it needs once it may keep.
func TestTheElectionOfAThousandInstancesIsSmall(t *testing.T) {
	t.Parallel()
	onPlanes(t, func(t *testing.T, _ string) {
		const networks, each = 4, 250
		c := newCluster(t, "", 2, 0)
		c.ok(c.lab.AddNetworks(networks - 1))
		small := func(d *lab.Director, state string) {
			t.Helper()
			c.ok(d.WaitStatus(t.Context(), patience, func(s *status.Status) error {
				if n := slices.IndexFunc(s.Instances, func(i status.Instance) bool { return i.State != state }); n >= 0 || len(s.Instances) != networks*each {
					return fmt.Errorf("%d instances, not all %s", len(s.Instances), state)
				}
				return nil
			}))
			var pss int64
			c.ok(lab.Wait(t.Context(), 3*patience, func() (err error) { // a change of all makes garbage
				if pss, _, err = lab.Memory(d.Process().PIDsWith("election")); pss >= electionMemory {
					err = fmt.Errorf("the election of a thousand instances, %s, needs %d kB, want less than %d", state, pss>>10, electionMemory>>10)
				}
				return err
			}))
			t.Logf("%s: %d kB", state, pss>>10)
		}
		configure := func(n int, priority uint8) {
			t.Helper()
			var config lab.Config
			for k := range networks * each {
				network, vrid := k/each, k%each+1
				config.Instances = append(config.Instances, lab.Instance{Name: fmt.Sprintf("R%d", k), Interface: fmt.Sprintf("eth%d", network), VRID: uint8(vrid),
					Version: 3, Priority: priority, Interval: time.Second, Addresses: []string{fmt.Sprintf("10.%d.6.%d/32", 77+network, vrid)}})
			}
			c.ok(c.d[n].Configure(config))
		}
		for n, d := range c.d {
			configure(n, uint8(200-100*n))
			c.ok(d.Start())
			small(d, []string{"MASTER", "BACKUP"}[n])
		}
		for n, d := range c.d {
			configure(n, uint8(210-100*n))
			c.ok(d.Reload(t.Context()))
			small(d, []string{"MASTER", "BACKUP"}[n])
		}
		c.d[0].Kill()
		small(c.d[1], "MASTER")
		c.ok(c.d[0].Start())
		small(c.d[0], "MASTER")
		small(c.d[1], "BACKUP")
	})
}

// allAnnounced waits until a director has announced every address, and says when the first and the last one came.
func (c *cluster) allAnnounced(d *lab.Director, from time.Time) (first, last time.Time) {
	c.t.Helper()
	c.ok(lab.Wait(c.t.Context(), patience, func() error {
		seen := map[netip.Addr]bool{}
		for _, f := range c.wire.Frames(from) {
			a, ok := lab.ParseAnnouncement(f.Data)
			if !ok || a.From.String() != d.MAC.String() || seen[a.Address] {
				continue
			}
			seen[a.Address] = true
			if len(seen) == 1 {
				first = f.Time
			}
			last = f.Time
		}
		if len(seen) < 2*perFamily {
			return fmt.Errorf("%d of %d addresses announced", len(seen), 2*perFamily)
		}
		return nil
	}))
	return first, last
}

// packetSockets counts the packet sockets of a process.
func packetSockets(pid int) (int, error) {
	inodes := map[string]bool{}
	f, err := os.Open(fmt.Sprintf("/proc/%d/net/packet", pid))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if fields := strings.Fields(s.Text()); len(fields) > 8 {
			inodes["socket:["+fields[8]+"]"] = true
		}
	}
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	files, err := os.ReadDir(dir)
	count := 0
	for _, file := range files {
		if name, err := os.Readlink(dir + "/" + file.Name()); err == nil && inodes[name] {
			count++
		}
	}
	return count, err
}
