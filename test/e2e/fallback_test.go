package e2e

import (
	"strings"
	"testing"

	"github.com/xdirector/xdirector/test/lab"
)

func TestInterfaceWithoutNativeXDPGetsGeneric(t *testing.T) {
	t.Parallel()
	onPlanes(t, func(t *testing.T, _ string) {
		c := newCluster(t, "auto", 1, 2)
		c.ok(c.lab.Directors[0].Bridge())
		config := c.config(0, c.service())
		config.Instances[0].Interface = "br0"
		c.fallsBack(c.d[0], config, generic)
	})
}

func TestWithoutBPFCapabilityIPVSForwards(t *testing.T) {
	t.Parallel()
	onPlanes(t, func(t *testing.T, _ string) {
		c := newCluster(t, "auto", 1, 2)
		c.ok(c.d[0].DenyBPF())
		c.fallsBack(c.d[0], c.config(0, c.service()), ipvs)
	})
}

// fallsBack starts a director alone and checks that it forwards by the plane, and says why.
func (c *cluster) fallsBack(d *lab.Director, config lab.Config, plane string) {
	c.t.Helper()
	c.ok(d.Configure(config))
	c.ok(d.Start())
	c.ok(d.WaitState(c.t.Context(), "VI_1", "MASTER", patience))
	c.ok(d.WaitStatus(c.t.Context(), patience, serversUp))
	s, err := d.Status(c.t.Context())
	c.ok(err)
	if s.Plane.Name != plane || s.Plane.Reason == "" {
		c.t.Fatalf("plane is %q because of %q, want %s and a reason", s.Plane.Name, s.Plane.Reason, plane)
	}
	if !strings.Contains(d.Log(), plane) {
		c.t.Errorf("the log does not name %s", plane)
	}
	if got := tally(c.get(web, 10)); got["r1"] != 5 || got["r2"] != 5 {
		c.t.Errorf("10 requests by rr: %v, want 5 each", got)
	}
}
