package xdp

import (
	"bytes"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/xdirector/xdirector/pkg/lb"
)

// box is one director on a made-up wire.
type box struct {
	plane   *Plane
	mac     lb.MAC
	address int // serverAddress(address) is its own
}

// twoDirectors makes two directors that are each other's real servers, and know each other as directors if told so.
func twoDirectors(t *testing.T, acquainted bool) []*box {
	boxes := []*box{{mac: serverMAC(1), address: 1}, {mac: serverMAC(2), address: 2}}
	folder := mountBPFFS(t)
	for i, b := range boxes {
		other := boxes[1-i]
		system := func() ([]device, error) {
			return []device{{Index: eth0Index, Name: "eth0", HardwareAddr: b.mac[:]}}, nil
		}
		cfg := testConfig(folder)
		cfg.PinPath = filepath.Join(folder, fmt.Sprint("director", i))
		b.plane = openPlane(t, cfg, system)
		here := server(b.address)
		here.NextHop = lb.NextHop{Local: true}
		servers := []lb.RealServer{here, server(other.address)}
		if i == 1 {
			servers[0], servers[1] = servers[1], servers[0]
		}
		s := lb.State{Services: []lb.Service{service(webKey, servers...)}}
		if acquainted {
			s.Directors = []lb.Director{{MAC: other.mac, Address: serverAddress(other.address)}}
		}
		apply(t, b.plane, s)
	}
	return boxes
}

// deliver passes a frame along the wire until it is taken. Every box sees every frame, as on a hub or while a switch
// floods. It returns how often a box sent the frame on and how often a kernel with that MAC address took it.
func deliver(t *testing.T, boxes []*box, frame []byte) (sent, taken int) {
	t.Helper()
	wire := [][]byte{frame}
	for len(wire) > 0 {
		if sent > 4 {
			t.Fatalf("a frame circulates: sent on %d times", sent)
		}
		frame, wire = wire[0], wire[1:]
		for _, b := range boxes {
			if bytes.Equal(frame[6:12], b.mac[:]) {
				continue // its own
			}
			action, out := run(t, b.plane, frame)
			switch {
			case action == xdpTX:
				sent++
				wire = append(wire, out)
			case action == xdpPass && bytes.Equal(frame[:6], b.mac[:]):
				taken++
			}
		}
	}
	return sent, taken
}

func TestNoFrameCirculatesBetweenDirectorsThatAreEachOthersRealServers(t *testing.T) {
	for _, acquainted := range []bool{true, false} {
		for _, row := range []struct {
			name    string
			masters []int // clients' frames go to these in turn: who holds the address
		}{
			{"the first is MASTER", []int{0}},
			{"the second is MASTER", []int{1}},
			{"two MASTERs", []int{0, 1}},
		} {
			t.Run(fmt.Sprintf("%s, acquainted %v", row.name, acquainted), func(t *testing.T) {
				boxes := twoDirectors(t, acquainted)
				random := rand.New(rand.NewPCG(1, 2))
				sentOn := 0
				for i := range 400 {
					flags := []byte{syn, ack, fin | ack, syn | ack}[random.IntN(4)]
					master := boxes[row.masters[i%len(row.masters)]]
					frame := packet{destination: master.mac, fromPort: uint16(1000 + random.IntN(50)), flags: flags}.bytes()
					sent, taken := deliver(t, boxes, frame)
					if sent > 1 || taken != 1 {
						t.Fatalf("frame %d was sent on %d times and taken %d times, want at most 1 and exactly 1", i, sent, taken)
					}
					sentOn += sent
				}
				if sentOn == 0 {
					t.Error("nothing was ever sent to the other director")
				}
			})
		}
	}
}

// threeDirectors are all directors of one service whose real servers are the given ones of them, and know each other as
// directors if told so.
func threeDirectors(t *testing.T, real []int, acquainted bool) []*box {
	boxes := []*box{{mac: serverMAC(1), address: 1}, {mac: serverMAC(2), address: 2}, {mac: serverMAC(3), address: 3}}
	folder := mountBPFFS(t)
	for i, b := range boxes {
		system := func() ([]device, error) {
			return []device{{Index: eth0Index, Name: "eth0", HardwareAddr: b.mac[:]}}, nil
		}
		cfg := testConfig(folder)
		cfg.PinPath = filepath.Join(folder, fmt.Sprint("director", i))
		b.plane = openPlane(t, cfg, system)
		var s lb.State
		var servers []lb.RealServer
		for j, other := range boxes {
			r := server(other.address)
			if i == j {
				r.NextHop = lb.NextHop{Local: true}
			} else if acquainted {
				s.Directors = append(s.Directors, lb.Director{MAC: other.mac, Address: serverAddress(other.address)})
			}
			if slices.Contains(real, other.address) {
				servers = append(servers, r)
			}
		}
		s.Services = []lb.Service{service(webKey, servers...)}
		apply(t, b.plane, s)
	}
	return boxes
}

func TestNoFrameCirculatesAmongThreeDirectorsWhoeverIsMaster(t *testing.T) {
	for _, row := range []struct {
		real       []int
		acquainted bool
		most       int // times that a frame may be sent on
	}{
		{[]int{1, 2, 3}, true, 1},
		{[]int{1, 2, 3}, false, 1},
		{[]int{1, 2}, true, 1},
		// The third one's address is no next hop of anybody: its frames are balanced once more.
		{[]int{1, 2}, false, 2},
	} {
		t.Run(fmt.Sprintf("real servers %v, acquainted %v", row.real, row.acquainted), func(t *testing.T) {
			boxes := threeDirectors(t, row.real, row.acquainted)
			random := rand.New(rand.NewPCG(1, 2))
			for i := range 600 {
				flags := []byte{syn, ack, fin | ack, syn | ack}[random.IntN(4)]
				// Every one may be the MASTER, or be taken for it by a client with a stale ARP entry. Some clients use the
				// address of a director.
				from := []netip.Addr{client, serverAddress(1), serverAddress(2), serverAddress(3)}[random.IntN(4)]
				frame := packet{destination: boxes[i%3].mac, from: from, fromPort: uint16(1000 + random.IntN(50)), flags: flags}.bytes()
				sent, taken := deliver(t, boxes, frame)
				if most := row.most + int(b2n(from != client)); sent > most || taken != 1 {
					t.Fatalf("frame %d from %s was sent on %d times and taken %d times, want at most %d and exactly 1", i, from, sent, taken, most)
				}
			}
		})
	}
}

func TestAClientOnTheOtherDirectorIsBalanced(t *testing.T) {
	boxes := twoDirectors(t, true)
	sentOn := 0
	for i := range 10 {
		frame := packet{
			destination: boxes[0].mac, source: boxes[1].mac, from: serverAddress(2), fromPort: uint16(1000 + i), flags: syn,
		}.bytes()
		action, _ := run(t, boxes[0].plane, frame)
		if action == xdpTX {
			sentOn++
		}
	}
	if sentOn != 5 {
		t.Errorf("%d of 10 connections of the other director's own were sent on, want half", sentOn)
	}
}

func TestFramesOfARealServerThatIsARouterAreToldOfUnlessThisBoxIsARealServer(t *testing.T) {
	local := server(2)
	local.NextHop = lb.NextHop{Local: true}
	for _, row := range []struct {
		name    string
		servers []lb.RealServer
		lines   int
	}{
		{"two others", []lb.RealServer{server(1), server(2)}, 1},
		{"this box is one of them", []lb.RealServer{server(1), local}, 0},
	} {
		t.Run(row.name, func(t *testing.T) {
			var said bytes.Buffer
			p, err := open(testConfig(mountBPFFS(t)), slog.New(slog.NewTextHandler(&said, nil)), twoInterfaces)
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			apply(t, p, state(service(webKey, row.servers...)))
			for range 3 {
				run(t, p, packet{source: serverMAC(1), flags: syn}.bytes())
				apply(t, p, state(service(webKey, row.servers...)))
			}
			if n := strings.Count(said.String(), "proxy ARP"); n != row.lines {
				t.Errorf("told %d times, want %d:\n%s", n, row.lines, said.String())
			}
		})
	}
}
