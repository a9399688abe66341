package director

import (
	"testing"

	"github.com/xdirector/xdirector/pkg/config"
	"github.com/xdirector/xdirector/pkg/lb"
)

func TestPlaneIsDegradedIfTheConfigurationPermitsAFasterOne(t *testing.T) {
	for _, row := range []struct {
		mode     string
		plane    lb.Plane
		services int
		want     bool
	}{
		{"auto", lb.XDPNative, 1, false},
		{"auto", lb.XDPGeneric, 1, true},
		{"auto", lb.IPVS, 1, true},
		{"xdp-generic", lb.XDPGeneric, 1, false},
		{"ipvs", lb.IPVS, 1, false},
		{"xdp-native", "", 1, true},
		{"auto", "", 0, false},
	} {
		d := &Director{cfg: &config.Config{Services: make([]config.Service, row.services)}, plane: plane{name: row.plane}}
		d.cfg.Dataplane.Mode = row.mode
		if d.degraded() != row.want {
			t.Errorf("mode %s, plane %q with %d services: degraded is %v", row.mode, row.plane, row.services, !row.want)
		}
	}
}
