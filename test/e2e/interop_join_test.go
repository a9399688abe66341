package e2e

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/xdirector/xdirector/pkg/status"
	"github.com/xdirector/xdirector/test/lab"
)

// TestBothMastersBecomeOneWhenTheNetworkIsWholeAgain lets xdirector and live peers be MASTER of the same virtual routers
// behind a cut network, and joins it: the higher priority stays, of the same priority the higher address, and it tells the
// neighbours so, who may have heard the other one.
func TestBothMastersBecomeOneWhenTheNetworkIsWholeAgain(t *testing.T) {
	t.Parallel()
	onPlanes(t, func(t *testing.T, _ string) {
		c := newCluster(t, "", 3, 0)
		low, d, high := c.lab.Directors[0], c.d[1], c.lab.Directors[2]
		lower, higher := joined(1), joined(10)
		for i := range lower {
			if r := &lower[i]; r.ours.Priority == r.theirs.Priority {
				r.later = us // our address is higher than theirs
			}
		}
		rivals := []rival{c.frrRival(low, lower), c.keepalivedRival(high, higher)}
		var ours []lab.Instance
		for i, k := range rivals {
			for _, r := range k.rows {
				ours = append(ours, r.ours)
			}
			c.ok(c.d[2*i].Isolate(true))
			c.ok(k.start())
		}
		c.ok(d.Isolate(true))
		c.ok(d.Configure(lab.Config{Instances: ours}))
		c.ok(d.Start())
		c.ok(d.WaitStatus(t.Context(), patience, func(s *status.Status) error {
			for _, i := range s.Instances {
				if i.State != "MASTER" {
					return fmt.Errorf("%s is %s", i.Name, i.State)
				}
			}
			return nil
		}))
		for _, k := range rivals {
			c.ok(lab.Wait(t.Context(), patience, func() error {
				for _, r := range k.rows {
					if !k.master(k.log(), r) {
						return fmt.Errorf("%s: %s is not MASTER", r.name, k.name)
					}
				}
				return nil
			}))
		}
		from := time.Now()
		for _, x := range c.d {
			c.ok(x.Isolate(false))
		}
		c.ok(lab.Wait(t.Context(), patience, func() error {
			s, err := d.Status(t.Context())
			if err != nil {
				return err
			}
			states := map[string]string{}
			for _, i := range s.Instances {
				states[i.Name] = i.State
			}
			var wrong []error
			for _, k := range rivals {
				log := k.log()
				for _, r := range k.rows {
					if we, they := states[r.ours.Name] == "MASTER", k.master(log, r); we != (r.later == us) || they != (r.later == them) {
						wrong = append(wrong, fmt.Errorf("%s, %s: MASTER here %v, there %v; want %s alone", k.name, r.name, we, they, r.later))
					}
				}
			}
			return errors.Join(wrong...)
		}))
		for _, k := range rivals {
			for _, r := range k.rows {
				if r.later == us {
					_, err := c.wire.WaitAnnouncement(t.Context(), d.Node, netip.MustParsePrefix(r.ours.Addresses[0]).Addr(), from, patience)
					c.ok(err)
				}
			}
		}
	})
}

// joined are routers that agree, with each order of priorities, from a VRID on.
func joined(vrid uint8) []difference {
	var rows []difference
	for _, version := range []int{2, 3} {
		for _, priority := range []uint8{50, 100, 200} {
			d := difference{name: fmt.Sprintf("v%d, our priority is %d", version, priority), later: them}
			if priority == 200 {
				d.later = us
			}
			pair := v3Pair
			if version == 2 {
				pair = v2Pair
			}
			d.ours, d.theirs = pair(priority, 100)
			d.ours.Name, d.ours.VRID = fmt.Sprintf("R%d", vrid), vrid
			d.ours.Addresses = []string{fmt.Sprintf("10.77.2.%d/32", vrid)}
			d.theirs.Name, d.theirs.VRID, d.theirs.Addresses = d.ours.Name, vrid, d.ours.Addresses
			rows = append(rows, d)
			vrid++
		}
	}
	return rows
}
