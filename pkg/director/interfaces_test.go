package director

import (
	"errors"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/xdirector/xdirector/pkg/config"
)

// waiting is a director that needs eth0 and eth1.
func waiting(t *testing.T) *Director {
	d := forTest(t, t.TempDir())
	d.stops = make(chan struct{})
	d.cfg.Instances = []config.Instance{{Name: "a", Interface: "eth0"}}
	d.cfg.Dataplane = config.Dataplane{Mode: config.ModeAuto, Interfaces: []string{"eth0", "eth1"}}
	return d
}

func TestAStartWaitsForTheInterfacesOfThePlane(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := waiting(t)
		var told []string
		d.opts.Notify = func(state string) { told = append(told, state) }
		began := time.Now()
		present := func() ([]net.Interface, error) {
			list := []net.Interface{{Name: "lo"}, {Name: "eth1"}}
			if time.Since(began) >= 100*time.Second { // longer than a service manager waits for a start by itself
				list = append(list, net.Interface{Name: "eth0"})
			}
			return list, nil
		}
		if err := d.awaitInterfaces(t.Context(), present); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took != 100*time.Second {
			t.Errorf("it took %s", took)
		}
		if len(told) != 100 || told[0] != "EXTEND_TIMEOUT_USEC=30000000\nSTATUS=waiting for interfaces that do not exist: eth0" {
			t.Errorf("the service manager was told %d times, first %q", len(told), told[0])
		}
	})
}

func TestAStopEndsTheWaitForInterfaces(t *testing.T) {
	d := waiting(t)
	close(d.stops)
	none := func() ([]net.Interface, error) { return nil, nil }
	if err := d.awaitInterfaces(t.Context(), none); !errors.Is(err, errNoInterfaces) {
		t.Errorf("error %v", err)
	}
}

func TestOnlyAnXDPPlaneWaitsForInterfaces(t *testing.T) {
	none := func() ([]net.Interface, error) { return nil, nil }
	for name, change := range map[string]func(*config.Config){
		"no services": func(c *config.Config) { c.Services = nil },
		"mode ipvs":   func(c *config.Config) { c.Dataplane.Mode = config.ModeIPVS },
	} {
		d := waiting(t)
		change(d.cfg)
		if err := d.awaitInterfaces(t.Context(), none); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	d := waiting(t)
	if err := d.awaitInterfaces(t.Context(), func() ([]net.Interface, error) { return nil, errors.New("no netlink") }); err == nil || !strings.Contains(err.Error(), "no netlink") {
		t.Errorf("error %v", err)
	}
}
