package xdp

import (
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/xdirector/xdirector/pkg/lb"
)

// What the tests' director looks like: eth0 with a client and two real servers on it, eth1 with a third one.
const (
	eth0Index = 1 // where frames come from in a test run, says the kernel
	eth1Index = 8
)

var (
	eth0MAC   = lb.MAC{2, 0, 0, 0, 0, 0xd1}
	eth1MAC   = lb.MAC{2, 0, 0, 0, 0, 0xd2}
	routerMAC = lb.MAC{2, 0, 0, 0, 0, 0xc1} // where clients' frames come from
	peerMAC   = lb.MAC{2, 0, 0, 0, 0, 0xe1} // another director
	vip       = netip.MustParseAddr("10.0.0.100")
	client    = netip.MustParseAddr("192.0.2.1")
	vip6      = netip.MustParseAddr("2001:db8::100")
	client6   = netip.MustParseAddr("2001:db8:1::1")
	peer      = netip.MustParseAddr("10.0.0.9")
	webKey    = lb.ServiceKey{Address: vip, Port: 80, Protocol: lb.TCP}
	dnsKey    = lb.ServiceKey{Address: vip, Port: 53, Protocol: lb.UDP}
)

func serverAddress(n int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, 0, byte(n)}) }
func serverMAC(n int) lb.MAC         { return lb.MAC{2, 0, 0, 0, 1, byte(n)} }

// server6 is server n in a service of IPv6.
func server6(n int) lb.RealServer {
	r := server(n)
	r.Address = netip.MustParseAddr(fmt.Sprintf("2001:db8::%d", n))
	return r
}

// server is real server n of weight 1, up, on eth0.
func server(n int) lb.RealServer {
	return lb.RealServer{
		Address: serverAddress(n), Weight: 1, Up: true,
		NextHop: lb.NextHop{Interface: eth0Index, MAC: serverMAC(n)},
	}
}

func service(key lb.ServiceKey, servers ...lb.RealServer) lb.Service {
	for i := range servers {
		servers[i].Port = key.Port
	}
	return lb.Service{Name: key.String(), Key: key, Scheduler: lb.RoundRobin, RealServers: servers}
}

func state(services ...lb.Service) lb.State {
	return lb.State{Services: services, Directors: []lb.Director{{MAC: peerMAC, Address: peer}}}
}

// needRoot skips without root; with LAB=1 that is a failure.
func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("LAB") == "1" {
		t.Fatal("LAB=1 needs root")
	}
	t.Skip("not root")
}

// mountBPFFS makes a bpffs for one test.
func mountBPFFS(t testing.TB) string {
	t.Helper()
	needRoot(t)
	folder := t.TempDir()
	if err := unix.Mount("test", folder, "bpf", 0, "mode=0700"); err != nil {
		t.Fatalf("mount bpffs: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(folder, 0); err != nil {
			t.Errorf("unmount bpffs: %v", err)
		}
	})
	return folder
}

func twoInterfaces() ([]device, error) {
	return []device{
		{Index: eth0Index, Name: "eth0", HardwareAddr: eth0MAC[:]},
		{Index: eth1Index, Name: "eth1", HardwareAddr: eth1MAC[:]},
	}, nil
}

func testConfig(folder string) Config {
	return Config{Interfaces: []string{"eth0"}, PinPath: filepath.Join(folder, "xdirector"), FlowTableSize: 65536}
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// openPlane opens a plane on made-up interfaces, for running its program on made-up packets.
func openPlane(t testing.TB, cfg Config, system func() ([]device, error)) *Plane {
	t.Helper()
	p, err := open(cfg, quiet(), system)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

func newTestPlane(t testing.TB, s lb.State) *Plane {
	t.Helper()
	p := openPlane(t, testConfig(mountBPFFS(t)), twoInterfaces)
	apply(t, p, s)
	return p
}

func apply(t testing.TB, p *Plane, s lb.State) {
	t.Helper()
	if err := p.Apply(context.Background(), s); err != nil {
		t.Fatal(err)
	}
}

// packet describes a frame; the zero value of a field means the usual.
type packet struct {
	destination, source lb.MAC // eth0's, the router's
	vlan                int    // what its tag says, priority and id; 0: no tag; -1: a tag with id 0
	etherType           uint16 // IPv4
	version             byte   // 4
	from, to            netip.Addr
	protocol            lb.Protocol // TCP
	fromPort, toPort    uint16      // 40000, 80
	flags               byte        // TCP
	fragment            uint16      // flags and offset as in the header
	id                  uint32      // of the packet that fragments belong to
	options             []byte      // of IPv4, a multiple of 4 bytes
	headers             []header    // of IPv6, in front of TCP, UDP or data
	data                []byte      // instead of TCP or UDP
	claims              int         // so many bytes more than there are, says the IP header
	payload             int
	cut                 int // keep so many bytes only; 0: all
}

const (
	fin, syn, rst, psh, ack = 0x01, 0x02, 0x04, 0x08, 0x10
	moreFragments           = 0x2000
)

func (p packet) bytes() []byte {
	set := func(to *lb.MAC, usual lb.MAC) {
		if to.IsZero() {
			*to = usual
		}
	}
	set(&p.destination, eth0MAC)
	set(&p.source, routerMAC)
	p.to = orDefault(p.to, vip)
	if p.to.Is6() {
		p.etherType = orDefault(p.etherType, 0x86dd)
		p.version = orDefault(p.version, 6)
		p.from = orDefault(p.from, client6)
	}
	p.etherType = orDefault(p.etherType, 0x0800)
	p.version = orDefault(p.version, 4)
	p.from = orDefault(p.from, client)
	p.protocol = orDefault(p.protocol, lb.TCP)
	p.fromPort = orDefault(p.fromPort, 40000)
	p.toPort = orDefault(p.toPort, 80)

	l4 := make([]byte, 20)
	if p.protocol == lb.UDP {
		l4 = l4[:8]
		binary.BigEndian.PutUint16(l4[4:], uint16(8+p.payload))
	} else {
		l4[12], l4[13] = 5<<4, p.flags
	}
	binary.BigEndian.PutUint16(l4, p.fromPort)
	binary.BigEndian.PutUint16(l4[2:], p.toPort)
	if p.data != nil {
		l4 = p.data
	}

	frame := append(p.destination[:], p.source[:]...)
	if p.vlan != 0 {
		frame = binary.BigEndian.AppendUint16(append(frame, 0x81, 0), uint16(max(p.vlan, 0)))
	}
	frame = binary.BigEndian.AppendUint16(frame, p.etherType)
	if p.to.Is6() {
		first, chain := chained(p.headers, byte(p.protocol))
		frame = append(frame, p.version<<4, 0, 0, 0)
		frame = binary.BigEndian.AppendUint16(frame, uint16(len(chain)+len(l4)+p.payload+p.claims))
		frame = slices.Concat(frame, []byte{first, 64}, p.from.AsSlice(), p.to.AsSlice(), chain, l4, make([]byte, p.payload))
		return frame[:orDefault(p.cut, len(frame))]
	}
	ip := make([]byte, 20, 60)
	ip = append(ip, p.options...)
	ip[0] = p.version<<4 | byte(len(ip)/4)
	binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)+len(l4)+p.payload+p.claims))
	binary.BigEndian.PutUint16(ip[4:], uint16(p.id))
	binary.BigEndian.PutUint16(ip[6:], p.fragment)
	ip[8], ip[9] = 64, byte(p.protocol)
	copy(ip[12:], p.from.AsSlice())
	copy(ip[16:], p.to.AsSlice())

	frame = append(append(frame, ip...), l4...)
	frame = append(frame, make([]byte, p.payload)...)
	if p.cut > 0 {
		frame = frame[:p.cut]
	}
	return frame
}

// header is an extension header of IPv6: its number, and all but its first byte.
type header struct {
	number byte
	rest   []byte
}

// chained is the headers with what they say about each other and about what follows, and the number of the first.
func chained(headers []header, protocol byte) (first byte, b []byte) {
	for _, h := range slices.Backward(headers) {
		b = slices.Concat([]byte{protocol}, h.rest, b)
		protocol = h.number
	}
	return protocol, b
}

func orDefault[T comparable](value, usual T) T {
	var zero T
	if value == zero {
		return usual
	}
	return value
}

// What a program answers, by the kernel's numbers.
const (
	xdpDrop     = 1
	xdpPass     = 2
	xdpTX       = 3
	xdpRedirect = 4
)

// run gives a frame to the program of eth0.
func run(t testing.TB, p *Plane, frame []byte) (action uint32, out []byte) {
	t.Helper()
	action, out, err := p.Program("eth0").Test(frame)
	if err != nil {
		t.Fatal(err)
	}
	return action, out
}

// sentTo runs a frame that must be sent, and returns the number of the server that gets it.
func sentTo(t testing.TB, p *Plane, of packet) int {
	t.Helper()
	action, out := run(t, p, of.bytes())
	if action != xdpTX && action != xdpRedirect {
		t.Fatalf("frame %+v: action %d, want it to be sent", of, action)
	}
	return int(out[5])
}

func counters(t testing.TB, p *Plane) lb.Counters {
	t.Helper()
	p.counting.Lock()
	p.flowCountsDue = p.flowCountsDue.AddDate(-1, 0, 0) // count now
	p.counting.Unlock()
	read, err := p.Counters()
	if err != nil {
		t.Fatal(err)
	}
	return read
}
