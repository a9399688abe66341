package e2e

import (
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/xdirector/xdirector/test/lab"
)

// TestVirtualMACServesOnBothDirectorsAndAcceptsNothingElse has two directors share a virtual MAC and keep from
// themselves what is not for a service.
func TestVirtualMACServesOnBothDirectorsAndAcceptsNothingElse(t *testing.T) {
	onPlanes(t, func(t *testing.T, plane string) {
		c := newCluster(t, plane, 2, 2)
		mac := net.HardwareAddr{0, 0, 0x5e, 0, 1, 51}
		from := func(b []byte) bool { // ARP that tells where the virtual address is
			return len(b) >= 42 && b[12] == 8 && b[13] == 6 && slices.Equal(b[28:32], vipAddress.AsSlice())
		}
		arps, err := c.lab.Client.Capture("eth0", from)
		c.ok(err)
		service := c.service()
		for i, d := range c.d {
			config := c.config(i, service)
			config.Instances[0].More = []string{"virtual_mac: true", "accept: false"}
			c.ok(d.Configure(config))
			c.ok(d.Start())
			c.ok(d.WaitStatus(t.Context(), patience, serversUp))
			_, err := d.StartNginx(81)
			c.ok(err)
		}
		c.ok(c.d[0].WaitState(t.Context(), "VI_1", "MASTER", patience))
		serves := func(d *lab.Director) {
			t.Helper()
			if got := tally(c.get(web, 10)); got["r1"] != 5 || got["r2"] != 5 {
				t.Errorf("10 requests through %s: %v, want 5 each", d.Name, got)
			}
			if r := c.lab.Client.Get(netip.AddrPortFrom(d.Address, 81), 10*requestLimit()); r.Outcome != lab.OK {
				t.Errorf("%s at its own address: %s (%v)", d.Name, r.Outcome, r.Err)
			}
			if r := c.lab.Client.Get(netip.AddrPortFrom(vipAddress, 81), min(requestLimit(), time.Second)); r.Outcome != lab.Timeout {
				t.Errorf("%s at the virtual address, beside the service: %s, want nothing at all", d.Name, r.Outcome)
			}
		}
		serves(c.d[0])
		c.ok(c.d[0].Stop())
		c.ok(c.d[1].WaitState(t.Context(), "VI_1", "MASTER", patience))
		serves(c.d[1])
		seen := arps.Frames(time.Time{})
		for _, f := range seen {
			if !slices.Equal(f.Data[6:12], mac) || !slices.Equal(f.Data[22:28], mac) {
				t.Errorf("ARP from %s tells %s for the virtual address, want %s", net.HardwareAddr(f.Data[6:12]), net.HardwareAddr(f.Data[22:28]), mac)
			}
		}
		if len(seen) < 10 {
			t.Errorf("%d ARP frames about the virtual address, want the announcements of both directors at least", len(seen))
		}
	})
}

// An instance that the file has no longer hands over as one does whose director stops.
func TestReloadThatRemovesAMasterWithAVirtualMACLosesNoRequest(t *testing.T) {
	onPlanes(t, func(t *testing.T, plane string) {
		c := newCluster(t, plane, 2, 2)
		var rest lab.Config
		for i, d := range c.d {
			config := c.config(i, c.service())
			config.Instances[0].More = []string{"virtual_mac: true"}
			other := c.instance(i)
			other.Name, other.VRID, other.Addresses = "VI_2", 52, []string{"10.77.0.101/32"}
			config.Instances = append(config.Instances, other)
			c.ok(d.Configure(config))
			c.ok(d.Start())
			c.ok(d.WaitStatus(t.Context(), patience, serversUp))
			if i == 0 {
				rest = config
				rest.Instances = config.Instances[1:]
			}
		}
		c.ok(c.d[0].WaitState(t.Context(), "VI_1", "MASTER", patience))
		load := c.load()
		c.ok(c.d[0].Configure(rest))
		c.ok(c.d[0].Reload(t.Context()))
		c.ok(c.d[1].WaitState(t.Context(), "VI_1", "MASTER", patience))
		after, err := c.d[1].Status(t.Context())
		c.ok(err)
		took := after.Instances[0].Since
		c.answered(load, took.Add(time.Second), 40) // the old one's address is gone too by then
		for _, r := range load.Stop().Failed() {
			if r.Outcome != lab.Reset { // those were open with the other director's real server
				t.Errorf("a request failed %v after the change of the MASTER: %s (%v)", r.Start.Sub(took), r.Outcome, r.Err)
			}
		}
	})
}
