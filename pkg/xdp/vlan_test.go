package xdp

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/xdirector/xdirector/pkg/lb"
)

// knobs is a driver's offloads.
type knobs struct {
	takes, fixed bool // VLAN tags
	merge, cut   bool
	failure      error
}

func (k *knobs) takesTags(string) (bool, error) { return k.takes, k.failure }

func (k *knobs) setTakesTags(_ string, on bool) error {
	if k.fixed && on != k.takes {
		return errors.New("fixed")
	}
	k.takes = on
	return k.failure
}

func (k *knobs) merges(string) (bool, error) { return k.merge, k.failure }

func (k *knobs) setMerges(_ string, on bool) error {
	k.merge = on
	return k.failure
}

func (k *knobs) segments(string) (bool, error) { return k.cut, k.failure }

const (
	vlan10Index = 10
	vlan20Index = 20
)

var (
	vlan10MAC = lb.MAC{2, 0, 0, 0, 0, 0xda}
	vlan20MAC = lb.MAC{2, 0, 0, 0, 0, 0xdb}
)

// taggedInterfaces are the two with VLANs 10 and 20 on the first.
func taggedInterfaces() ([]device, error) {
	two, err := twoInterfaces()
	return append(two,
		device{Index: vlan10Index, Name: "eth0.10", HardwareAddr: vlan10MAC[:], kind: "vlan", vlan: 10, lower: eth0Index},
		device{Index: vlan20Index, Name: "eth0.20", HardwareAddr: vlan20MAC[:], kind: "vlan", vlan: 20, lower: eth0Index},
	), err
}

// newTaggedPlane takes the frames of eth0 and of its VLAN 10.
func newTaggedPlane(t *testing.T, s lb.State) *Plane {
	t.Helper()
	cfg := testConfig(mountBPFFS(t))
	cfg.Interfaces = []string{"eth0", "eth0.10"}
	p, err := openOn(cfg, quiet(), taggedInterfaces, &knobs{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	apply(t, p, s)
	return p
}

// tagged is real server n behind a VLAN interface.
func tagged(n, index int) lb.RealServer {
	s := server(n)
	s.NextHop.Interface = index
	return s
}

var vlanTable = []packetRow{
	{name: "a tag is taken out", packet: packet{vlan: 10, destination: vlan10MAC, flags: syn}, seenOn: "eth0.10", verdict: "tx", server: 1, egress: eth0MAC},
	{name: "a tag is taken out on the way to another interface", packet: packet{vlan: 10, destination: vlan10MAC, flags: syn, toPort: 82}, seenOn: "eth0.10",
		verdict: "redirect", server: 3, egress: eth1MAC},
	{name: "a tag stays, with its priority", packet: packet{vlan: 5<<13 | 10, destination: vlan10MAC, flags: syn, toPort: 84}, seenOn: "eth0.10",
		verdict: "tx", server: 6, egress: vlan10MAC, vlan: 5<<13 | 10},
	{name: "a tag is changed, but for its priority", packet: packet{vlan: 7<<13 | 10, destination: vlan10MAC, flags: syn, toPort: 85}, seenOn: "eth0.10",
		verdict: "tx", server: 7, egress: vlan20MAC, vlan: 7<<13 | 20},
	{name: "a tag is added", packet: packet{flags: syn, toPort: 84, payload: 1400}, verdict: "tx", server: 6, egress: vlan10MAC, vlan: 10},
	{name: "a tag is taken out of IPv6", packet: packet{vlan: 10, destination: vlan10MAC, to: vip6, flags: syn}, seenOn: "eth0.10", verdict: "tx", server: 1, egress: eth0MAC},
	{name: "a tag is added in a known flow", packet: packet{flags: ack, toPort: 84}, before: []packet{{flags: syn, toPort: 84}}, verdict: "tx", server: 6, egress: vlan10MAC, vlan: 10},
	{name: "a tag of priority alone", packet: packet{vlan: -1, flags: syn}, verdict: "tx", server: 1, egress: eth0MAC},
	{name: "a tag of priority alone is given an id", packet: packet{vlan: 3 << 13, flags: syn, toPort: 84}, verdict: "tx", server: 6, egress: vlan10MAC, vlan: 3<<13 | 10},
	{name: "VLAN that is none of ours", packet: packet{vlan: 99, flags: syn}, verdict: "pass_not_ours"},
	{name: "VLAN that only servers are in", packet: packet{vlan: 20, destination: vlan20MAC, flags: syn}, verdict: "pass_not_ours"},
	{name: "two tags", packet: packet{vlan: 10, destination: vlan10MAC, etherType: 0x8100, flags: syn}, verdict: "pass_not_ours", seenOn: "eth0.10"},
	{name: "half a tag", packet: packet{vlan: 10, cut: 16}, verdict: "pass_not_ours"},
	{name: "tag and half an IP header", packet: packet{vlan: 10, cut: 18 + 19}, verdict: "pass_not_ours", seenOn: "eth0.10"},
	{name: "another network's address in a VLAN", packet: packet{vlan: 10, flags: syn}, verdict: "pass_other_mac", seenOn: "eth0.10"},
	{name: "another port in a VLAN", packet: packet{vlan: 10, destination: vlan10MAC, flags: syn, toPort: 8080}, verdict: "pass_not_ours", seenOn: "eth0.10"},
	{name: "virtual MAC address in a VLAN while MASTER", packet: packet{vlan: 10, destination: lb.MAC{0, 0, 0x5e, 0, 1, vridV3}, flags: syn}, seenOn: "eth0.10",
		verdict: "tx", server: 1, egress: eth0MAC},
	{name: "virtual MAC address in a VLAN while BACKUP", packet: packet{vlan: 10, destination: lb.MAC{0, 0, 0x5e, 0, 1, vridV3}, flags: syn}, seenOn: "eth0.10",
		router: "tagged", prepare: shut, verdict: "pass_other_mac"},
	{name: "advert in a VLAN", adverts: []advert{{vlan: 10}}, seenOn: "eth0.10", verdict: "pass_advert", router: "tagged", fate: "passed"},
	{name: "advert in a VLAN, of VRRP version 2", adverts: []advert{{vlan: 10, version: 2, vrid: vridV3}, {vlan: 10, version: 2, vrid: vridV3}}, seenOn: "eth0.10",
		verdict: "drop", reason: "advert_refused", router: "tagged", fate: "version"},
	{name: "advert in a VLAN, checksum broken", adverts: []advert{{vlan: 10, broken: true}, {vlan: 10, broken: true}}, seenOn: "eth0.10",
		verdict: "drop", reason: "advert_refused", router: "tagged", fate: "checksum"},
	{name: "our own advert in a VLAN", adverts: []advert{{vlan: 10, source: vlan10MAC}, {vlan: 10, source: vlan10MAC}}, seenOn: "eth0.10",
		verdict: "drop", reason: "advert_refused", router: "tagged", fate: "echo"},
	{name: "repeated advert in a VLAN", adverts: []advert{{vlan: 10}, {vlan: 10}}, seenOn: "eth0.10", prepare: func(f *FastPath, slot uint32) {
		f.Gate(slot, false)
		absorbing(advert{})(f, slot)
	},
		verdict: "drop", reason: "advert_absorbed", router: "tagged", fate: "absorbed"},
	{name: "advert of another router in a VLAN", adverts: []advert{{vlan: 10, vrid: vridFast}}, seenOn: "eth0.10", verdict: "pass_not_ours"},
	{name: "advert in a VLAN that is none of ours", adverts: []advert{{vlan: 99}}, verdict: "pass_not_ours"},
	{name: "from another director in a VLAN", packet: packet{vlan: 10, destination: vlan10MAC, source: peerMAC, flags: syn}, seenOn: "eth0.10", verdict: "pass_balanced"},
	{name: "drop in a VLAN", packet: packet{vlan: 10, destination: vlan10MAC, flags: rst}, seenOn: "eth0.10", verdict: "drop", reason: "no_flow"},
}

func TestTheLoopbackTakesNoTags(t *testing.T) {
	if takes, err := (ethtool{}).takesTags("lo"); err != nil || takes {
		t.Errorf("%t, %v", takes, err)
	}
	if takes, err := (ethtool{}).takesTags("nowhere"); err == nil || !takes {
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
	driver := &knobs{takes: true}
	p.offloads = driver
	passes(false)
	p.system = func() ([]device, error) {
		two, err := twoInterfaces()
		return append(two, device{Index: 20, Name: "eth0.20", kind: "vlan", vlan: 20, lower: eth0Index}), err
	}
	passes(true)
	passes(true)
	if n := strings.Count(log.String(), "ethtool -K eth0 rxvlan off"); n != 1 {
		t.Errorf("said %d times:\n%s", n, log.String())
	}
	if d := p.Differences(); len(d) != 1 || !strings.Contains(d[0], "eth0 are neither filtered nor absorbed") || !strings.Contains(d[0], "ethtool -K eth0 rxvlan off") {
		t.Errorf("differences %q", d)
	}
	driver.failure = errors.New("no answer")
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
	*driver = knobs{}
	passes(false)
}

func TestANextAgentThatKnowsNoNextHopYetGoesOnWithTheTag(t *testing.T) {
	p := newTaggedPlane(t, tableState())
	cfg := p.config
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	p, err := openOn(cfg, quiet(), taggedInterfaces, &knobs{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	s := tableState()
	for n := range s.Services {
		for m := range s.Services[n].RealServers {
			if hop := &s.Services[n].RealServers[m].NextHop; !hop.Local {
				*hop = lb.NextHop{}
			}
		}
	}
	apply(t, p, s)
	for port, want := range map[uint16]packetRow{
		80: {server: 1, egress: eth0MAC}, 84: {server: 6, egress: vlan10MAC, vlan: 10}, 85: {server: 7, egress: vlan20MAC, vlan: 20},
	} {
		in := packet{flags: syn, toPort: port}.bytes()
		_, out := run(t, p, in)
		checkFrame(t, want, in, out)
	}
}
