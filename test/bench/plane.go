package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/xdirector/xdirector/pkg/lb"
	"github.com/xdirector/xdirector/pkg/xdp"
)

const (
	benchInterface = "lo" // nothing is attached to it; its MAC address is all zeroes
	benchPort      = 80
	tableSize      = 1 << 20
)

// testbed is planes to measure on; nothing is attached.
type testbed struct {
	folder string
	flows  uint32 // that each table is for
	planes []*xdp.Plane
}

func newTestbed() (*testbed, error) {
	folder, err := os.MkdirTemp("", "xdirector-bench-")
	return &testbed{folder: folder, flows: tableSize}, err
}

// plane opens another one and applies the wish.
func (t *testbed) plane(wish lb.State) (*xdp.Plane, error) {
	return t.planeOn(benchInterface, wish)
}

func (t *testbed) planeOn(name string, wish lb.State) (*xdp.Plane, error) {
	folder := filepath.Join(t.folder, fmt.Sprint(len(t.planes)))
	p, err := xdp.Open(xdp.Config{
		Interfaces: []string{name}, PinPath: filepath.Join(folder, "bpf"), FlowTableSize: t.flows,
	}, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, err
	}
	t.planes = append(t.planes, p)
	return p, p.Apply(context.Background(), wish)
}

func (t *testbed) close() error {
	var errs []error
	for _, p := range t.planes {
		errs = append(errs, p.Remove())
	}
	return errors.Join(append(errs, os.RemoveAll(t.folder))...)
}

// unguarded stores every new flow.
const unguarded = math.MaxUint32

// shape is a wish in figures.
type shape struct {
	ipv6              bool
	services, servers int // servers of each
	scheduler         lb.Scheduler
	newFlows          uint32 // that are stored in a second; 0: the plane's default
}

// address is the first virtual address.
func (s shape) address() netip.Addr {
	if s.ipv6 {
		return netip.MustParseAddr("2001:db8::1:0")
	}
	return netip.AddrFrom4([4]byte{172, 16, 0, 0})
}

func (s shape) wish() lb.State {
	var state lb.State
	address := s.address()
	for i := range s.services {
		service := lb.Service{
			Name: "bench", Key: lb.ServiceKey{Address: address, Port: benchPort, Protocol: lb.TCP}, Scheduler: s.scheduler, NewFlows: s.newFlows,
		}
		for j := range s.servers {
			service.RealServers = append(service.RealServers, s.server(i*s.servers+j))
		}
		state.Services = append(state.Services, service)
		address = address.Next()
	}
	return state
}

func (s shape) server(i int) lb.RealServer {
	address := netip.AddrFrom4([4]byte{192, byte(i >> 16), byte(i >> 8), byte(i)})
	if s.ipv6 {
		address = netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 5: 2, 13: byte(i >> 16), 14: byte(i >> 8), 15: byte(i)})
	}
	return lb.RealServer{
		Address: address, Port: benchPort, Weight: uint16(1 + i%2), Up: true,
		NextHop: lb.NextHop{Interface: 1, MAC: lb.MAC{2, 0, 1, byte(i >> 16), byte(i >> 8), byte(i)}},
	}
}

// stream is packets to the first of the services.
func (s shape) stream(flows uint64) stream {
	return stream{to: netip.AddrPortFrom(s.address(), benchPort), flows: flows, first: 10 << 24, flags: tcpACK}
}
