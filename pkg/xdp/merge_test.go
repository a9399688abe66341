package xdp

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/xdirector/xdirector/pkg/lb"
)

func TestNothingIsMergedInGenericModeWhereADriverCanNotCutItUp(t *testing.T) {
	_, cfg, wish := buildStreet(t)
	cfg.Interfaces = []string{"eth0"} // frames leave by eth1 too
	driver := ethtool{}
	for _, name := range []string{"eth0", "eth1"} {
		if err := driver.setMerges(name, true); err != nil {
			t.Fatal(err)
		}
	}
	p, _ := attachedPlane(t, cfg, Generic)
	want := func(merges bool, said string) {
		t.Helper()
		apply(t, p, wish)
		got, err := driver.merges("eth0")
		if err != nil || got != merges || !strings.Contains(p.Offloads(), said) {
			t.Errorf("merges: %t (%v), %q; want %t, %q", got, err, p.Offloads(), merges, said)
		}
	}
	cutUp := func(name string, on uint32) {
		t.Helper()
		if err := ethtoolSet(name, unix.ETHTOOL_STSO, on); err != nil {
			t.Fatal(err)
		}
	}
	want(true, "in hardware")
	cutUp("eth1", 0)
	want(false, "the driver of eth1 does not")
	if err := driver.setMerges("eth0", true); err != nil { // somebody
		t.Fatal(err)
	}
	want(false, "GRO is off")
	cutUp("eth1", 1)
	want(true, "in hardware")
	cutUp("eth0", 0)
	want(false, "eth0")
	if merges, err := driver.merges("eth1"); err != nil || !merges {
		t.Errorf("where no program is: merges %t (%v), want it left alone", merges, err)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if err := Cleanup(cfg.PinPath); err != nil {
		t.Fatal(err)
	}
	if merges, err := driver.merges("eth0"); err != nil || !merges {
		t.Errorf("after cleanup: merges %t (%v), want what was so before", merges, err)
	}

	fixed := &knobs{merge: true, failure: unix.EPERM}
	p, err := openOn(cfg, quiet(), devices, fixed)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if _, err := p.Attach(Generic); err != nil {
		t.Fatal(err)
	}
	if said := p.Offloads(); !strings.Contains(said, "GRO should be off") || !strings.Contains(said, "not permitted") {
		t.Errorf("%q, want what is not so and why", said)
	}
	if _, err := p.Attach(Native); err != nil {
		t.Fatal(err)
	}
	if apply(t, p, lb.State{}); p.Offloads() != "" {
		t.Errorf("%q in native mode", p.Offloads())
	}
}
