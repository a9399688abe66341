package director

import (
	"context"
	"fmt"
	"testing"

	"github.com/xdirector/xdirector/pkg/config"
	"github.com/xdirector/xdirector/pkg/lb"
	"github.com/xdirector/xdirector/pkg/xdp"
)

// lost is a plane whose interface was deleted and made anew.
type lost struct{ closed bool }

func (*lost) Apply(context.Context, lb.State) error {
	return fmt.Errorf("interface eth0 %w", xdp.ErrReplaced)
}
func (*lost) Counters() (lb.Counters, error) { return lb.Counters{}, nil }
func (l *lost) Close() error                 { l.closed = true; return nil }
func (*lost) Remove() error                  { return nil }

func TestAPlaneWhoseInterfaceIsANewOneIsMadeAnewAtOnce(t *testing.T) {
	old := &lost{}
	d := forTest(t, t.TempDir())
	d.cfg, d.meter, d.plane = &config.Config{}, newMeter(), plane{Plane: old} // without services: nothing to attach here
	d.apply(t.Context())                                                      // as after a change of state or of a next hop, before the next tick
	if !old.closed || d.plane.Plane != nil || d.plane.reason != "no services" {
		t.Errorf("closed %v, plane now %+v", old.closed, d.plane)
	}
}
