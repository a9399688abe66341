package xdp

import (
	"strings"
	"testing"

	"github.com/xdirector/xdirector/pkg/lb"
)

func TestFramesLeaveByTheInterfaceBelowWithTheAddressThatOthersKnow(t *testing.T) {
	eth0, vlan, own, virtual := lb.MAC{2, 0, 0, 0, 0, 1}, lb.MAC{2, 0, 0, 0, 0, 2}, lb.MAC{2, 0, 0, 0, 0, 3}, lb.MAC{0, 0, 0x5e, 0, 1, 51}
	all := byIndex([]device{
		{Index: 1, Name: "eth0", HardwareAddr: eth0[:]},
		{Index: 2, Name: "eth0.10", HardwareAddr: vlan[:], kind: "vlan", vlan: 10, lower: 1},
		{Index: 3, Name: "eth0.10.20", HardwareAddr: vlan[:], kind: "vlan", vlan: 20, lower: 2},
		{Index: 4, Name: "eth0.30", HardwareAddr: vlan[:], kind: "vlan", lower: 1}, // 802.1ad
		{Index: 5, Name: "mac0", HardwareAddr: own[:], kind: "macvlan", lower: 1},
		{Index: 6, Name: "vrrp4-51", HardwareAddr: virtual[:], kind: "macvlan", lower: 1},
		{Index: 7, Name: "mac1", HardwareAddr: own[:], kind: "macvlan", lower: 2},
		{Index: 8, Name: "vrrp4-52", HardwareAddr: virtual[:], kind: "macvlan", lower: 2},
		{Index: 9, Name: "mac2", HardwareAddr: own[:], kind: "macvlan"}, // of a container
		{Index: 10, Name: "bond0", HardwareAddr: own[:], kind: "bond"},
		{Index: 11, Name: "bond0.10", HardwareAddr: own[:], kind: "vlan", vlan: 10, lower: 10},
		{Index: 12, Name: "loop", HardwareAddr: own[:], kind: "macvlan", lower: 13},
		{Index: 13, Name: "loop2", HardwareAddr: own[:], kind: "macvlan", lower: 12},
	})
	p := &Plane{}
	got := p.exits(all)
	for index, want := range map[int]exit{
		1: {eth0, lan{1, 0}}, 2: {vlan, lan{1, 10}}, 3: {vlan, lan{2, 20}}, 4: {vlan, lan{4, 0}}, 5: {own, lan{1, 0}}, 6: {eth0, lan{1, 0}},
		7: {own, lan{1, 10}}, 8: {vlan, lan{1, 10}}, 9: {own, lan{9, 0}}, 10: {own, lan{10, 0}}, 11: {own, lan{10, 10}},
	} {
		if got[index] != want {
			t.Errorf("%s: %+v, want %+v", all[index].Name, got[index], want)
		}
	}
	// An interface with a program is the end of the way.
	p.nics = []*nic{{index: 2}}
	if e := p.exits(all)[7]; e != (exit{own, lan{2, 0}}) {
		t.Errorf("%+v above an interface with a program", e)
	}
}

func TestAMemberOfABondIsRefusedWithTheBondsName(t *testing.T) {
	system := func() ([]device, error) {
		two, err := twoInterfaces()
		two[0].master, two[1].kind = eth1Index, "bond"
		return two, err
	}
	_, err := open(testConfig(mountBPFFS(t)), quiet(), system)
	if err == nil || !strings.Contains(err.Error(), "put eth1 into dataplane.interfaces instead") {
		t.Errorf("%v, want an error with the cure", err)
	}
}

// A macvlan has no driver: what is for it comes by the interface below, which may be in use itself.
func TestMacvlansAreServedOnTheInterfaceBelow(t *testing.T) {
	s, cfg, wish := buildStreet(t)
	passAll(t, "c0")
	passAll(t, "s1")
	for _, name := range []string{"mac0", "mac1"} {
		ip(t, "link", "add", "link", "eth0", "name", name, "type", "macvlan", "mode", "bridge")
		ip(t, "link", "set", name, "up")
	}
	cfg.Interfaces = []string{"mac0"}
	wish.Services[0].RealServers = wish.Services[0].RealServers[:1]
	wish.Services[0].RealServers[0].NextHop.Interface = interfaceNamed(t, "mac1").Index
	mac0, mac1 := macOf(*interfaceNamed(t, "mac0")), macOf(*interfaceNamed(t, "mac1"))
	p, attached := attachedPlane(t, cfg, Native)
	if attached["mac0"] != Native || attached["eth0"] != Native {
		t.Errorf("attached %v", attached)
	}
	apply(t, p, wish)
	out := packet{destination: serverMAC(1), source: mac1, flags: syn}
	s.c0.send(t, packet{destination: mac0, flags: syn}.bytes())
	s.c0.expect(t, out.bytes())
	s.c0.send(t, packet{destination: s.eth0, flags: syn}.bytes()) // not in dataplane.interfaces: the kernel's
	s.c0.send(t, packet{destination: mac0, flags: ack}.bytes())
	out.flags = ack
	s.c0.expect(t, out.bytes())
	if v := counters(t, p).Interfaces["mac0"].Verdicts; v["tx"] != 2 || v["pass_other_mac"] != 1 {
		t.Errorf("verdicts %v, want 2 sent and one left alone", v)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}

	cfg.Interfaces = []string{"eth0", "mac0", "mac1"}
	p, _ = attachedPlane(t, cfg, Native)
	apply(t, p, wish)
	for _, own := range []lb.MAC{s.eth0, mac0, mac1} {
		s.c0.send(t, packet{destination: own, flags: ack}.bytes())
		s.c0.expect(t, out.bytes())
	}
	s.c0.send(t, packet{destination: serverMAC(9), flags: ack}.bytes())
	s.c0.send(t, packet{destination: s.eth0, flags: ack}.bytes())
	s.c0.expect(t, out.bytes())
	if v := counters(t, p).Interfaces["eth0"].Verdicts; v["tx"] != 4 || v["pass_other_mac"] != 1 {
		t.Errorf("verdicts %v, want 4 sent and one left alone", v)
	}
}
