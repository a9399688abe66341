package xdp

import (
	"bytes"
	"flag"
	"log/slog"
	"os"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/xdirector/xdirector/pkg/lb"
)

// TestMain: what is named TestKernel needs VLANs and bonds, which not every kernel has, and exists only where test/vm/exec
// says that there is one.
func TestMain(m *testing.M) {
	flag.Parse()
	if os.Getenv("XDIRECTOR_VM") != "1" {
		if err := flag.Set("test.skip", "^TestKernel"); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}

// passAll puts a native program on the far end of a veth pair, without which the near end can't send natively.
func passAll(t *testing.T, name string) link.Link {
	t.Helper()
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "pass", Type: ebpf.XDP, Flags: unix.BPF_F_XDP_HAS_FRAGS, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, xdpPass), asm.Return()},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	made, err := link.AttachXDP(link.XDPOptions{Program: program, Interface: interfaceNamed(t, name).Index, Flags: link.XDPDriverMode})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { made.Close() })
	return made
}

// taggedStreet is a street whose eth0 carries VLANs 10 and 20, with server 1 in no VLAN, 2 in VLAN 10, 3 in VLAN 20 and 4
// behind eth1, each with a service of its own.
func taggedStreet(t *testing.T) (s street, cfg Config, wish lb.State, vlan10, vlan20 lb.MAC) {
	t.Helper()
	s, cfg, _ = buildStreet(t)
	passAll(t, "c0")
	passAll(t, "s1")
	for _, id := range []string{"10", "20"} {
		ip(t, "link", "add", "link", "eth0", "name", "eth0."+id, "address", "02:00:00:00:aa:"+id, "type", "vlan", "id", id)
		ip(t, "link", "set", "eth0."+id, "up")
	}
	cfg.Interfaces = []string{"eth0.10", "eth0", "eth1"}
	for n, name := range []string{"eth0", "eth0.10", "eth0.20", "eth1"} {
		key := webKey
		key.Port = uint16(80 + n)
		to := server(n + 1)
		to.NextHop.Interface = interfaceNamed(t, name).Index
		wish.Services = append(wish.Services, service(key, to))
	}
	return s, cfg, wish, macOf(*interfaceNamed(t, "eth0.10")), macOf(*interfaceNamed(t, "eth0.20"))
}

// wantTagged sends into VLAN 10 what is for a server in each network.
func (s street) wantTagged(t *testing.T, vlan10, vlan20 lb.MAC) {
	t.Helper()
	in := packet{vlan: 10, destination: vlan10, flags: syn}
	for _, row := range []struct {
		out packet
		at  wire
	}{
		{packet{source: s.eth0, flags: syn}, s.c0},
		{packet{source: vlan10, vlan: 10, flags: syn}, s.c0},
		{packet{source: vlan20, vlan: 20, flags: syn}, s.c0},
		{packet{source: s.eth1, flags: syn}, s.s1},
	} {
		in.toPort = orDefault(in.toPort, 79) + 1
		row.out.toPort, row.out.destination = in.toPort, serverMAC(int(in.toPort-79))
		s.c0.send(t, in.bytes())
		row.at.expect(t, row.out.bytes())
	}
}

func TestKernelVLANsAreServedOnTheLowerInterface(t *testing.T) {
	s, cfg, wish, vlan10, vlan20 := taggedStreet(t)
	driver := ethtool{}
	if err := driver.setTakesTags("eth0", true); err != nil {
		t.Fatal(err)
	}
	p := openPlane(t, cfg, devices)
	for round, mode := range []Mode{Native, Generic} {
		attached, err := p.Attach(mode)
		if want := (map[string]Mode{"eth0.10": mode, "eth0": mode, "eth1": mode}); err != nil || !reflect.DeepEqual(attached, want) {
			t.Errorf("attached %v (%v), want %v", attached, err, want)
		}
		wantModes(t, map[string]Mode{"eth0.10": "", "eth0": mode, "eth1": mode})
		apply(t, p, wish)
		s.wantTagged(t, vlan10, vlan20)
		for port, out := range map[uint16]packet{81: {source: vlan10, vlan: 10}, 82: {source: vlan20, vlan: 20}} {
			s.c0.send(t, packet{destination: s.eth0, flags: syn, toPort: port}.bytes())
			out.destination, out.flags, out.toPort = serverMAC(int(port-79)), syn, port
			s.c0.expect(t, out.bytes())
		}
		all, rounds := counters(t, p).Interfaces, uint64(round+1)
		if tagged, plain := all["eth0.10"].Verdicts, all["eth0"].Verdicts; tagged["tx"] != 3*rounds || tagged["redirect"] != rounds || plain["tx"] != 2*rounds {
			t.Errorf("%s: verdicts in the VLAN %v, without a tag %v", mode, tagged, plain)
		}
	}

	// Somebody switches the offload on again, and the tags are gone: the next look puts that right.
	if err := driver.setTakesTags("eth0", true); err != nil {
		t.Fatal(err)
	}
	apply(t, p, wish)
	if takes, err := driver.takesTags("eth0"); takes || err != nil {
		t.Errorf("tags are taken off: %t (%v)", takes, err)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	s.c0.send(t, packet{vlan: 10, destination: vlan10, flags: syn, toPort: 82}.bytes())
	s.c0.expect(t, packet{vlan: 20, source: vlan20, destination: serverMAC(3), flags: syn, toPort: 82}.bytes())
	if err := Cleanup(cfg.PinPath); err != nil {
		t.Fatal(err)
	}
	if takes, err := driver.takesTags("eth0"); !takes || err != nil {
		t.Errorf("after cleanup tags are taken off: %t (%v), want what was so before", takes, err)
	}
}

func TestKernelVLANWhoseTagsTheDriverHidesIsServedOnItsOwnInterface(t *testing.T) {
	s, cfg, wish, vlan10, vlan20 := taggedStreet(t)
	hides := &knobs{takes: true, fixed: true}
	if _, err := openOn(cfg, quiet(), devices, hides); err == nil || !strings.Contains(err.Error(), "hides VLAN tags") {
		t.Errorf("with eth0 itself: %v, want an error with the reason", err)
	}
	cfg.Interfaces = []string{"eth0.10", "eth1"}
	var said bytes.Buffer
	p, err := openOn(cfg, slog.New(slog.NewTextHandler(&said, nil)), devices, hides)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	apply(t, p, wish)
	attached, err := p.Attach(Native, Generic)
	if want := (map[string]Mode{"eth0.10": Generic, "eth1": Generic}); err != nil || !reflect.DeepEqual(attached, want) {
		t.Errorf("attached %v (%v), want %v", attached, err, want)
	}
	wantModes(t, map[string]Mode{"eth0.10": Generic, "eth0": ""})
	if !strings.Contains(said.String(), "takes VLAN tags off") {
		t.Errorf("not told:\n%s", said.String())
	}
	apply(t, p, wish)
	s.wantTagged(t, vlan10, vlan20)
}

func testBond(t *testing.T, kind string, want Mode) {
	enterNamespace(t)
	veth(t, "m1", "s1")
	veth(t, "m2", "s2")
	ip(t, "link", "add", "bond0", "type", "bond", "mode", kind, "miimon", "100")
	passAll(t, "s1")
	passAll(t, "s2")
	for _, member := range []string{"m1", "m2"} {
		ip(t, "link", "set", member, "down")
		ip(t, "link", "set", member, "master", "bond0")
	}
	ip(t, "link", "set", "bond0", "up")
	ip(t, "link", "add", "link", "bond0", "name", "bond0.10", "type", "vlan", "id", "10")
	ip(t, "link", "set", "bond0.10", "up")
	cfg := testConfig(mountBPFFS(t))
	cfg.Interfaces = []string{"m1"}
	if _, err := open(cfg, quiet(), devices); err == nil || !strings.Contains(err.Error(), "put bond0 into dataplane.interfaces") {
		t.Errorf("a member: %v, want an error with the cure", err)
	}
	cfg.Interfaces = []string{"bond0.10"}
	if want == Native {
		cfg.Interfaces = append(cfg.Interfaces, "bond0")
	}
	p, attached := attachedPlane(t, cfg, Native, Generic)
	if attached["bond0.10"] != want {
		t.Errorf("attached %v (%s), want %s", attached, p.Reason(), want)
	}
	on := map[Mode]string{Native: "bond0", Generic: "bond0.10"}[want]
	wantModes(t, map[string]Mode{on: want})
	near, far := server(1), server(2)
	near.NextHop.Interface, far.NextHop.Interface = interfaceNamed(t, "bond0").Index, interfaceNamed(t, "bond0.10").Index
	apply(t, p, lb.State{Services: []lb.Service{service(webKey, near, far)}})
	own := macOf(*interfaceNamed(t, "bond0"))
	s1 := openWire(t, "s1")
	eventually(t, "the first member carries the traffic", func() bool {
		state, err := os.ReadFile("/proc/thread-self/net/bonding/bond0")
		return err == nil && strings.Contains(string(state), "Slave Interface: m1\nMII Status: up") &&
			(kind != "active-backup" || strings.Contains(string(state), "Currently Active Slave: m1"))
	})
	// From the VLAN into no VLAN, and from there into itself.
	s1.send(t, packet{vlan: 10, destination: own, flags: syn, fromPort: 1000}.bytes())
	s1.expect(t, packet{destination: serverMAC(1), source: own, flags: syn, fromPort: 1000}.bytes())
	s1.send(t, packet{vlan: 10, destination: own, flags: syn, fromPort: 1001}.bytes())
	s1.expect(t, packet{vlan: 10, destination: serverMAC(2), source: own, flags: syn, fromPort: 1001}.bytes())
	if want == Native {
		s1.send(t, packet{destination: own, flags: syn, fromPort: 1002}.bytes())
		s1.expect(t, packet{destination: serverMAC(1), source: own, flags: syn, fromPort: 1002}.bytes())
	}
}

func TestKernelBondForwardsByItsMembersInNativeMode(t *testing.T) {
	testBond(t, "active-backup", Native)
}

func TestKernelBondThatXDPCanNotBeInForwardsInGenericMode(t *testing.T) {
	testBond(t, "broadcast", Generic)
}

func eventually(t *testing.T, what string, fact func() bool) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); !fact(); {
		if time.Now().After(deadline) {
			t.Fatalf("not after 5 s: %s", what)
		}
		runtime.Gosched()
	}
}
