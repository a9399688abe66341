package xdp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/xdirector/xdirector/pkg/lb"
)

// enterNamespace moves the test into a network namespace of its own, which ends with the test's thread.
func enterNamespace(t *testing.T) {
	t.Helper()
	needRoot(t)
	runtime.LockOSThread() // never unlocked: the thread must not go back to work for others
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatalf("make network namespace: %v", err)
	}
}

// ip runs ip(8) in the test's namespace.
func ip(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command("ip", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("ip %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// veth makes a pair, both ends up.
func veth(t *testing.T, name, end string) {
	t.Helper()
	ip(t, "link", "add", name, "type", "veth", "peer", "name", end)
	ip(t, "link", "set", name, "up")
	ip(t, "link", "set", end, "up")
}

// modeOf asks the kernel in which mode a program is attached; "": none is.
func modeOf(t *testing.T, name string) Mode {
	t.Helper()
	shown := ip(t, "-o", "link", "show", "dev", name)
	switch {
	case strings.Contains(shown, " xdpgeneric "):
		return Generic
	case strings.Contains(shown, " xdp "):
		return Native
	}
	return ""
}

func wantModes(t *testing.T, want map[string]Mode) {
	t.Helper()
	for name, mode := range want {
		if got := modeOf(t, name); got != mode {
			t.Errorf("%s has a program in mode %q, want %q", name, got, mode)
		}
	}
}

func attachedPlane(t *testing.T, cfg Config, modes ...Mode) (*Plane, map[string]Mode) {
	t.Helper()
	p := openPlane(t, cfg, devices)
	attached, err := p.Attach(modes...)
	if err != nil {
		t.Fatal(err)
	}
	return p, attached
}

func interfaceNamed(t *testing.T, name string) *device {
	t.Helper()
	all, err := devices()
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range all {
		if d.Name == name {
			return &d
		}
	}
	t.Fatalf("no interface %s", name)
	return nil
}

// wire is a raw socket on one interface.
type wire struct {
	fd    int
	index int
}

func openWire(t *testing.T, name string) wire {
	t.Helper()
	all := uint16(unix.ETH_P_ALL)<<8 | uint16(unix.ETH_P_ALL)>>8
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(all))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	w := wire{fd: fd, index: interfaceNamed(t, name).Index}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: w.index}); err != nil {
		t.Fatal(err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_AUXDATA, 1); err != nil {
		t.Fatal(err)
	}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 100_000}); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w wire) send(t *testing.T, frame []byte) {
	t.Helper()
	if err := unix.Sendto(w.fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: w.index}); err != nil {
		t.Fatal(err)
	}
}

// expect waits until exactly this frame arrives.
func (w wire) expect(t *testing.T, frame []byte) {
	t.Helper()
	buffer, aside := make([]byte, 16384), make([]byte, 256)
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); {
		n, oobn, _, _, err := unix.Recvmsg(w.fd, buffer[:len(buffer)-4], aside, 0)
		if err == nil {
			n = putTagBack(t, buffer, n, aside[:oobn])
		}
		if err != nil && !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) {
			t.Fatal(err)
		}
		if err == nil && bytes.Equal(buffer[:n], frame) {
			return
		}
	}
	t.Fatalf("frame did not arrive:\n%x", frame)
}

// putTagBack undoes what the kernel does to a frame with a VLAN tag before a socket sees it.
func putTagBack(t *testing.T, frame []byte, length int, aside []byte) int {
	t.Helper()
	const valid = 1 << 4 // TP_STATUS_VLAN_VALID
	messages, err := unix.ParseSocketControlMessage(aside)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range messages {
		if m.Header.Level != unix.SOL_PACKET || m.Header.Type != unix.PACKET_AUXDATA || binary.NativeEndian.Uint32(m.Data)&valid == 0 {
			continue
		}
		copy(frame[16:], frame[12:length])
		binary.BigEndian.PutUint16(frame[12:], 0x8100)
		binary.BigEndian.PutUint16(frame[14:], binary.NativeEndian.Uint16(m.Data[16:]))
		length += 4
	}
	return length
}

// street is a director with eth0 towards a client and server 1, and eth1 towards server 3. The far ends, c0 and s1,
// carry programs too: a native veth sends only to an end that has one.
type street struct {
	c0, s1     wire
	eth0, eth1 lb.MAC
}

func buildStreet(t *testing.T) (street, Config, lb.State) {
	t.Helper()
	enterNamespace(t)
	veth(t, "eth0", "c0")
	veth(t, "eth1", "s1")
	s := street{
		c0: openWire(t, "c0"), s1: openWire(t, "s1"),
		eth0: macOf(*interfaceNamed(t, "eth0")), eth1: macOf(*interfaceNamed(t, "eth1")),
	}
	near, far := server(1), server(3)
	near.NextHop.Interface, far.NextHop.Interface = interfaceNamed(t, "eth0").Index, interfaceNamed(t, "eth1").Index
	cfg := testConfig(mountBPFFS(t))
	cfg.Interfaces = []string{"eth0", "eth1", "c0", "s1"}
	return s, cfg, lb.State{Services: []lb.Service{service(webKey, near, far)}}
}

// wantForwarding opens two connections and expects one at each server.
func (s street) wantForwarding(t *testing.T, port uint16) {
	t.Helper()
	near, far := serverMAC(1), serverMAC(3)
	s.c0.send(t, packet{destination: s.eth0, flags: syn, fromPort: port}.bytes())
	s.c0.expect(t, packet{destination: near, source: s.eth0, flags: syn, fromPort: port}.bytes())
	s.c0.send(t, packet{destination: s.eth0, flags: syn, fromPort: port + 1}.bytes())
	s.s1.expect(t, packet{destination: far, source: s.eth1, flags: syn, fromPort: port + 1}.bytes())
}

func testForwarding(t *testing.T, mode Mode) {
	s, cfg, wish := buildStreet(t)
	p, attached := attachedPlane(t, cfg, mode)
	want := map[string]Mode{"eth0": mode, "eth1": mode, "c0": mode, "s1": mode}
	if !reflect.DeepEqual(attached, want) {
		t.Errorf("attached %v, want %v", attached, want)
	}
	wantModes(t, want)
	apply(t, p, wish)
	s.wantForwarding(t, 1000)
	verdicts := counters(t, p).Interfaces["eth0"].Verdicts
	if verdicts["tx"] != 1 || verdicts["redirect"] != 1 {
		t.Errorf("verdicts %v, want one tx and one redirect", verdicts)
	}
}

func TestFramesReachServersOnBothInterfacesInNativeMode(t *testing.T) { testForwarding(t, Native) }

func TestFramesReachServersOnBothInterfacesInGenericMode(t *testing.T) { testForwarding(t, Generic) }

func TestForwardingGoesOnWithoutAnAgentAndTheNextOneAdopts(t *testing.T) {
	s, cfg, wish := buildStreet(t)
	p, attached := attachedPlane(t, cfg, Native, Generic)
	apply(t, p, wish)
	before := linkIDs(t, p)
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	s.wantForwarding(t, 1000)

	p, again := attachedPlane(t, cfg, Native, Generic)
	if !reflect.DeepEqual(again, attached) {
		t.Errorf("adopted %v, want %v", again, attached)
	}
	if after := linkIDs(t, p); !reflect.DeepEqual(after, before) {
		t.Errorf("links %v, want the same as before, %v: a new one means that forwarding stopped", after, before)
	}
	s.wantForwarding(t, 2000)
	if once, err := p.Attach(Native); err != nil || !reflect.DeepEqual(once, attached) {
		t.Errorf("attaching again gave %v, %v, want %v", once, err, attached)
	}
	s.wantForwarding(t, 3000)
}

func linkIDs(t *testing.T, p *Plane) map[string]link.ID {
	t.Helper()
	ids := map[string]link.ID{}
	for _, n := range p.nics {
		info, err := n.link.Info()
		if err != nil {
			t.Fatal(err)
		}
		ids[n.name] = info.ID
	}
	return ids
}

func TestAdoptedProgramKeepsItsModeUnlessThatIsNotAllowed(t *testing.T) {
	_, cfg, _ := buildStreet(t)
	p, _ := attachedPlane(t, cfg, Generic)
	for _, row := range []struct {
		modes []Mode
		want  Mode
	}{
		{[]Mode{Native, Generic}, Generic},
		{[]Mode{Native}, Native},
		{[]Mode{Generic, Native}, Native},
		{[]Mode{Generic}, Generic},
	} {
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
		var attached map[string]Mode
		p, attached = attachedPlane(t, cfg, row.modes...)
		for name, mode := range attached {
			if mode != row.want {
				t.Errorf("modes %v: %s attached as %s, want %s", row.modes, name, mode, row.want)
			}
		}
		wantModes(t, attached)
	}
}

func TestGenericModeIsTakenEverywhereIfOneDriverHasNoXDP(t *testing.T) {
	enterNamespace(t)
	veth(t, "eth0", "c0")
	ip(t, "link", "add", "br0", "type", "bridge")
	cfg := testConfig(mountBPFFS(t))
	cfg.Interfaces = []string{"eth0", "br0"}
	ip(t, "link", "set", "br0", "up")
	veth(t, "p1", "s1")
	ip(t, "link", "set", "p1", "master", "br0")
	p, attached := attachedPlane(t, cfg, Native, Generic)
	want := map[string]Mode{"eth0": Generic, "br0": Generic}
	if !reflect.DeepEqual(attached, want) {
		t.Errorf("attached %v, want %v", attached, want)
	}
	wantModes(t, want)
	if reason := p.Reason(); !strings.Contains(reason, "native") || !strings.Contains(reason, "br0") {
		t.Errorf("the reason %q does not name the mode and the interface", reason)
	}
	far := server(3)
	far.NextHop.Interface = interfaceNamed(t, "br0").Index
	apply(t, p, lb.State{Services: []lb.Service{service(webKey, far)}})
	c0, s1 := openWire(t, "c0"), openWire(t, "s1")
	c0.send(t, packet{destination: macOf(*interfaceNamed(t, "eth0")), flags: syn}.bytes())
	s1.expect(t, packet{destination: serverMAC(3), source: macOf(*interfaceNamed(t, "br0")), flags: syn}.bytes())
}

func TestNativeModeIsNotTakenForAServerBehindAnInterfaceThatHasNoProgram(t *testing.T) {
	s, cfg, wish := buildStreet(t)
	cfg.Interfaces = []string{"eth0"}
	p := openPlane(t, cfg, devices)
	apply(t, p, wish)
	if _, err := p.Attach(Native); err == nil || !strings.Contains(err.Error(), "add eth1 to dataplane.interfaces") {
		t.Errorf("native alone: error %v, want one with the cure", err)
	}
	wantModes(t, map[string]Mode{"eth0": ""})
	attached, err := p.Attach(Native, Generic)
	if want := map[string]Mode{"eth0": Generic}; err != nil || !reflect.DeepEqual(attached, want) {
		t.Errorf("attached %v (%v), want %v", attached, err, want)
	}
	s.wantForwarding(t, 1000)
}

func TestServerThatMovesBehindAnInterfaceThatNativeModeCanNotSendToIsNoTargetAndSaidSo(t *testing.T) {
	s, cfg, wish := buildStreet(t)
	cfg.Interfaces = []string{"eth0", "c0"}
	var said bytes.Buffer
	p, err := open(cfg, slog.New(slog.NewTextHandler(&said, nil)), devices)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if _, err := p.Attach(Native); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		apply(t, p, wish)
	}
	if n := strings.Count(said.String(), "add eth1 to dataplane.interfaces"); n != 1 {
		t.Errorf("told %d times, want once:\n%s", n, said.String())
	}
	near := serverMAC(1)
	for port := range uint16(4) {
		s.c0.send(t, packet{destination: s.eth0, flags: syn, fromPort: 1000 + port}.bytes())
		s.c0.expect(t, packet{destination: near, source: s.eth0, flags: syn, fromPort: 1000 + port}.bytes())
	}
}

func TestNothingIsAttachedIfOneInterfaceCanNotBe(t *testing.T) {
	enterNamespace(t)
	veth(t, "eth0", "c0")
	ip(t, "link", "add", "br0", "type", "bridge")
	cfg := testConfig(mountBPFFS(t))
	cfg.Interfaces = []string{"eth0", "br0"}
	p := openPlane(t, cfg, devices)
	_, err := p.Attach(Native)
	if err == nil || !strings.Contains(err.Error(), "br0") || !strings.Contains(err.Error(), "native") {
		t.Errorf("error %v, want one that names the interface and the mode", err)
	}
	wantModes(t, map[string]Mode{"eth0": "", "br0": ""})
	if found, err := p.pins.list(); err != nil || len(found) > 0 {
		t.Errorf("pinned links %v (%v), want none", found, err)
	}
	if attached, err := p.Attach(Native, Generic); err != nil || attached["br0"] != Generic {
		t.Errorf("with generic allowed: %v, %v", attached, err)
	}
}

func TestProgramOfSomebodyElseIsLeftAloneAndNamedAsTheReason(t *testing.T) {
	enterNamespace(t)
	veth(t, "eth0", "c0")
	cfg := testConfig(mountBPFFS(t))
	p := openPlane(t, cfg, devices)
	foreign, err := link.AttachXDP(link.XDPOptions{Program: p.Program("eth0"), Interface: interfaceNamed(t, "eth0").Index, Flags: link.XDPGenericMode})
	if err != nil {
		t.Fatal(err)
	}
	defer foreign.Close()
	_, err = p.Attach(Native, Generic)
	if err == nil || !strings.Contains(err.Error(), "another XDP program") {
		t.Errorf("error %v, want one that says why", err)
	}
	wantModes(t, map[string]Mode{"eth0": Generic})
}

func TestProgramOnAnInterfaceNoLongerConfiguredIsDetached(t *testing.T) {
	_, cfg, _ := buildStreet(t)
	p, _ := attachedPlane(t, cfg, Native)
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	cfg.Interfaces = []string{"eth1"}
	p, _ = attachedPlane(t, cfg, Native)
	wantModes(t, map[string]Mode{"eth0": "", "eth1": Native, "c0": "", "s1": ""})
	if n := len(counters(t, p).Interfaces); n != 1 {
		t.Errorf("counters of %d interfaces, want 1", n)
	}
}

func TestInterfaceMadeAnewIsAttachedAgain(t *testing.T) {
	enterNamespace(t)
	veth(t, "eth0", "c0")
	cfg := testConfig(mountBPFFS(t))
	p, _ := attachedPlane(t, cfg, Native)
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	ip(t, "link", "del", "eth0")
	veth(t, "eth0", "c0")
	var said bytes.Buffer
	next, err := open(cfg, slog.New(slog.NewTextHandler(&said, nil)), devices)
	if err != nil {
		t.Fatal(err)
	}
	defer next.Close()
	if _, err := next.Attach(Native); err != nil {
		t.Fatal(err)
	}
	wantModes(t, map[string]Mode{"eth0": Native})
	if found, err := next.pins.list(); err != nil || len(found) != 1 {
		t.Errorf("pinned links %v (%v), want one; log:\n%s", found, err, said.String())
	}
}

func TestProgramThatSomebodyHasDetachedIsMissedAndAttachedAgain(t *testing.T) {
	s, cfg, wish := buildStreet(t)
	p, _ := attachedPlane(t, cfg, Native)
	apply(t, p, wish)
	pinned, err := link.LoadPinnedLink(p.pins.link(Native, interfaceNamed(t, "eth0").Index), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := pinned.Detach(); err != nil {
		t.Fatal(err)
	}
	pinned.Close()
	if err := p.Apply(t.Context(), wish); !errors.Is(err, ErrReplaced) || !strings.Contains(err.Error(), "eth0") {
		t.Errorf("error %v, want %v and the interface", err, ErrReplaced)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	p, _ = attachedPlane(t, cfg, Native)
	apply(t, p, wish)
	s.wantForwarding(t, 1000)
}

func TestAttachToAnInterfaceThatVanishedNamesIt(t *testing.T) {
	enterNamespace(t)
	veth(t, "eth0", "c0")
	p := openPlane(t, testConfig(mountBPFFS(t)), devices)
	ip(t, "link", "del", "eth0")
	if _, err := p.Attach(Native, Generic); err == nil || !strings.Contains(err.Error(), "eth0") {
		t.Errorf("error %v, want one that names eth0", err)
	}
}

func TestRemoveDetachesEverything(t *testing.T) {
	for _, closed := range []bool{false, true} {
		_, cfg, wish := buildStreet(t)
		p, _ := attachedPlane(t, cfg, Native)
		apply(t, p, wish)
		if closed { // and removed by the next process
			if err := p.Close(); err != nil {
				t.Fatal(err)
			}
			p = openPlane(t, cfg, devices)
		}
		if err := p.Remove(); err != nil {
			t.Fatal(err)
		}
		wantModes(t, map[string]Mode{"eth0": "", "eth1": "", "c0": "", "s1": ""})
		if _, err := os.Stat(cfg.PinPath); err == nil {
			t.Errorf("closed before %v: the pin path is still there", closed)
		}
	}
}

// A frame that is larger than a page lies in several of them.
func TestJumboFramesAreForwardedWholeAndCounted(t *testing.T) {
	enterNamespace(t)
	ip(t, "link", "add", "eth0", "mtu", "9000", "type", "veth", "peer", "name", "c0", "mtu", "9000")
	ip(t, "link", "set", "eth0", "up")
	ip(t, "link", "set", "c0", "up")
	passAll(t, "c0")
	p := openPlane(t, testConfig(mountBPFFS(t)), devices)
	near := server(1)
	near.NextHop.Interface = interfaceNamed(t, "eth0").Index
	s := lb.State{Services: []lb.Service{service(webKey, near)}}
	own, c0 := macOf(*interfaceNamed(t, "eth0")), openWire(t, "c0")
	for round, mode := range []Mode{Native, Generic} {
		if _, err := p.Attach(mode); err != nil {
			t.Fatal(err)
		}
		apply(t, p, s)
		large := packet{destination: own, flags: ack, payload: 8960}
		sent := large.bytes()
		for i := range sent[54:] {
			sent[54+i] = byte(i / 7)
		}
		want := bytes.Clone(sent)
		to := serverMAC(1)
		copy(want, to[:])
		copy(want[6:], own[:])
		c0.send(t, sent)
		c0.expect(t, want)
		traffic := counters(t, p).RealServers[lb.ServerKey{Service: webKey, Address: serverAddress(1)}]
		if traffic.Packets != uint64(round+1) || traffic.Bytes != traffic.Packets*uint64(len(sent)) {
			t.Errorf("%s: counted %d packets and %d bytes, want %d of %d bytes", mode, traffic.Packets, traffic.Bytes, round+1, len(sent))
		}
	}
}
