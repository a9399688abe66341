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
			if r := c.lab.Client.Get(netip.AddrPortFrom(vipAddress, 81), requestLimit()); r.Outcome != lab.Timeout {
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
