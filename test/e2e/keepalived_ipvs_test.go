package e2e

import (
	"fmt"
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/xdirector/xdirector/test/lab"
)

// peerLimit is nearly four times what is promised, as the machine is an emulated one, and shorter than the second after which
// a SYN is sent again: so a lost one is a failure.
const peerLimit = 950 * time.Millisecond

// TestKeepalivedWithIPVSAsThePeerLosesNoRequest has xdirector share an address and its real servers with a keepalived
// that balances by IPVS. Each of the two is replaced by the other one.
func TestKeepalivedWithIPVSAsThePeerLosesNoRequest(t *testing.T) {
	onPlanes(t, func(t *testing.T, plane string) {
		c := newCluster(t, plane, 2, 3)
		ours, theirs := c.d[0], c.d[1] // keepalived runs in the latter's place
		service := c.service()
		c.interval = calmInterval
		c.ok(ours.Configure(c.config(0, service)))
		k := lab.Keepalived{Version: 3, VRID: 51, Priority: 150, Interval: c.interval, Addresses: []string{vip + "/32"}}
		keepalived, err := theirs.StartBalancingKeepalived(lab.KeepalivedServices{service}, k)
		c.ok(err)
		c.showLog(func() *lab.Process { return keepalived })
		entered := c.logsLast(func() *lab.Process { return keepalived }, "(VI_1) Entering %s STATE")
		priority := func(p uint8) {
			t.Helper()
			k.Priority = p
			c.ok(theirs.ConfigureBalancingKeepalived(lab.KeepalivedServices{service}, k))
			c.ok(keepalived.Signal(syscall.SIGHUP))
		}

		c.ok(entered("MASTER"))
		c.ok(lab.Wait(t.Context(), patience, func() error {
			if n, err := theirs.IPVSRealServers(); err != nil || n != len(service.RealServers) {
				return fmt.Errorf("keepalived balances to %d real servers (%v)", n, err)
			}
			return nil
		}))
		sent, err := c.lab.Client.CaptureOwn("eth0", func(b []byte) bool {
			return isTCP(b) && netip.AddrFrom4([4]byte(b[30:34])) == vipAddress
		})
		c.ok(err)
		load, err := c.lab.Client.StartLoad(web, loadRate(), peerLimit)
		c.ok(err)
		c.answered(load, time.Now(), 10)

		began := time.Now()
		c.ok(ours.Start())
		garp := c.takeover(ours, began)
		c.ok(entered("BACKUP"))
		c.answered(load, garp, loadRate())
		// From here on: those before it are keepalived's to lose, which gives the address up at once.
		c.lost("xdirector comes and preempts", load, garp, c.switched(sent, theirs, garp))
		c.ok(ours.WaitStatus(t.Context(), patience, serversUp))

		began = time.Now()
		_, err = ours.Signal(lab.Agent, syscall.SIGKILL)
		c.ok(err)
		c.restarted(ours, lab.Agent, 1)
		c.ready(ours, 2)
		c.ok(c.waitAdverts(t.Context(), ours, began, 5)) // longer than keepalived's patience
		c.lost("agent killed", load, began, time.Time{})
		c.stayed(ours, theirs, began, c.interval)

		began = time.Now()
		priority(250)
		garp = c.takeover(theirs, began)
		c.ok(ours.WaitState(t.Context(), "VI_1", "BACKUP", patience))
		c.answered(load, garp, loadRate())
		c.lost("keepalived preempts", load, began, c.switched(sent, ours, garp))

		began = time.Now()
		priority(150)
		garp = c.takeover(ours, began)
		c.ok(entered("BACKUP"))
		c.answered(load, garp, loadRate())
		c.lost("xdirector preempts again", load, garp, c.switched(sent, theirs, garp))

		began = time.Now()
		c.ok(ours.Stop())
		garp = c.takeover(theirs, began)
		c.answered(load, garp, loadRate())
		adverts := c.wire.AdvertsOf(ours.Node, began)
		zero := slices.IndexFunc(adverts, func(a lab.Advert) bool { return a.Priority == 0 })
		if zero < 0 {
			t.Fatalf("adverts of the stopped MASTER: %v, want priority 0", adverts)
		}
		c.lost("clean stop", load, adverts[zero].Time, c.switched(sent, ours, garp))
	})
}

// switched is when the client has sent its last frame to the old MASTER: on a busy machine that is later than the first
// gratuitous ARP of the new one has reached it.
func (c *cluster) switched(sent *lab.Wire, old *lab.Director, garp time.Time) time.Time {
	c.t.Helper()
	last := garp
	for _, f := range sent.Frames(garp) {
		if slices.Equal(f.Data[:6], old.MAC) {
			last = f.Time
		}
	}
	if late := last.Sub(garp); late > peerLimit {
		c.t.Errorf("the client sends frames to %s, which is no longer MASTER, %v after the other one has announced itself", old.Name, late)
	}
	return last
}

// lost fails the test for every request that was opened since a moment and failed, but for those that were open at the
// switch and reset: the new MASTER doesn't know them. No switch is the zero time.
func (c *cluster) lost(what string, load *lab.Load, since, at time.Time) {
	c.t.Helper()
	requests := load.Requests().Between(since, time.Now())
	open, excused, failed := 0, 0, 0
	last, gap := since, time.Duration(0)
	for _, r := range requests {
		switch {
		case r.Outcome == lab.OK:
			gap, last = max(gap, r.End.Sub(last)), r.End
		case r.Outcome == lab.Reset && !r.Start.After(at) && r.End.After(at):
			open++
		case r.Excused():
			excused++
		default:
			failed++
			c.t.Errorf("%s: a request failed that was opened %v after that, the switch was %v after that: %s after %v (%v); the load stood still for %v",
				what, r.Start.Sub(since), at.Sub(since), r.Outcome, r.End.Sub(r.Start), r.Err, r.Pause)
		}
	}
	if len(requests) <= excused {
		c.t.Errorf("%s: %d requests, of which the machine kept %d from being answered: that proves nothing", what, len(requests), excused)
	}
	c.t.Logf("%s: %d requests, %d failed, %d open at the switch were reset, %d while the load stood still; %v without an answer at most",
		what, len(requests), failed, open, excused, gap)
}
