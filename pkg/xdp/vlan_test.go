package xdp

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
)

const twoVLANs = `VLAN Dev name	 | VLAN ID
Name-Type: VLAN_NAME_TYPE_RAW_PLUS_VID_NO_PAD
eth0.20        | 20  | eth0
storage        | 30  | bond0
`

func TestInterfacesThatCarryVLANsAreFound(t *testing.T) {
	for name, want := range map[string]bool{"eth0": true, "bond0": true, "eth1": false, "eth0.20": false, "eth": false} {
		if got, err := carriesVLANs(strings.NewReader(twoVLANs), name); err != nil || got != want {
			t.Errorf("%s: %t, %v, want %t", name, got, err, want)
		}
	}
}

func TestTheLoopbackTakesNoTags(t *testing.T) {
	if takes, err := takesTags("lo"); err != nil || takes {
		t.Errorf("%t, %v", takes, err)
	}
	if takes, err := takesTags("nowhere"); err == nil || !takes {
		t.Errorf("an interface that is not there: %t, %v", takes, err)
	}
}

// An advert of VLAN 20 that looks like one of eth0 must reach the one that it is for.
func TestAdvertsThatMayBeOfAVLANAreLeftAloneAndThatIsSaidOnce(t *testing.T) {
	p := newTestPlane(t, tableState())
	var log bytes.Buffer
	p.log = slog.New(slog.NewTextHandler(&log, nil))
	bad := advert{broken: true}
	passes := func(want bool) {
		t.Helper()
		apply(t, p, tableState())
		run(t, p, bad.bytes())
		if action, _ := run(t, p, bad.bytes()); (action == xdpPass) != want {
			t.Errorf("action %d for a bad advert; it must pass: %t", action, want)
		}
	}
	passes(false)
	if d := p.Differences(); len(d) != 0 {
		t.Errorf("differences %q", d)
	}
	p.hidesTags = func(name string) (bool, error) { return name == "eth0", nil }
	passes(true)
	passes(true)
	if n := strings.Count(log.String(), "ethtool -K eth0 rxvlan off"); n != 1 {
		t.Errorf("said %d times:\n%s", n, log.String())
	}
	if d := p.Differences(); len(d) != 1 || !strings.Contains(d[0], "eth0 are neither filtered nor absorbed") || !strings.Contains(d[0], "ethtool -K eth0 rxvlan off") {
		t.Errorf("differences %q", d)
	}
	p.hidesTags = func(name string) (bool, error) { return name == "eth0", errors.New("no answer") }
	passes(true)
	if d := p.Differences(); len(d) != 1 || !strings.Contains(d[0], "no answer") {
		t.Errorf("differences %q", d)
	}
	s := tableState()
	for n := range s.Routers {
		s.Routers[n].Filter = false
	}
	apply(t, p, s)
	if d := p.Differences(); len(d) != 0 {
		t.Errorf("where nothing shall be filtered: differences %q", d)
	}
	p.hidesTags = func(string) (bool, error) { return false, nil }
	passes(false)
}
