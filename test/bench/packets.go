package main

import (
	"context"
	"encoding/binary"
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
	servers        = 64
	actionPass     = 2
	actionTX       = 3
)

// benchCase is one kind of packet.
type benchCase struct {
	name    string
	port    uint16
	flows   uint64 // a power of two; 0: no flow comes twice
	bare    bool   // measured is the bare program
	answer  uint32
	creates bool   // every packet makes a flow; else none does
	advert  []byte // instead of a packet of a flow
	router  string // that the advert is for; empty: none of ours
	fate    string // of the advert
	driver  *benchObjects
}

func cases() []*benchCase {
	const ours, others = 80, 81
	return append([]*benchCase{
		{name: "bare swap of MAC addresses", port: ours, flows: 1 << 14, bare: true, answer: actionTX},
		{name: "known flow, 1", port: ours, flows: 1, answer: actionTX},
		{name: "known flow, 16384", port: ours, flows: 1 << 14, answer: actionTX},
		{name: "known flow, 131072", port: ours, flows: 1 << 17, answer: actionTX},
		{name: "new flow", port: ours, answer: actionTX, creates: true},
		{name: "not ours", port: others, flows: 1 << 14, answer: actionPass},
	}, advertCases()...)
}

// measure runs all cases in turn, rounds times, on a plane of its own.
func measure(rounds, repeat int, tableSize uint32) (results []result, err error) {
	folder, err := os.MkdirTemp("", "xdirector-bench-")
	if err != nil {
		return nil, err
	}
	defer os.Remove(folder)
	cfg := xdp.Config{Interfaces: []string{benchInterface}, PinPath: filepath.Join(folder, "bpf"), FlowTableSize: tableSize}
	plane, err := xdp.Open(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, plane.Remove()) }()
	if err := plane.Apply(context.Background(), wish()); err != nil {
		return nil, err
	}
	absorbing, err := absorb(plane)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, absorbing.Close()) }()
	all := cases()
	names, times := make([]string, len(all)), make([][]int64, len(all))
	for i, c := range all {
		if err := c.load(plane); err != nil {
			return nil, fmt.Errorf("prepare %q: %w", c.name, err)
		}
		defer c.driver.Close()
		names[i] = c.name
	}
	for range rounds {
		for i, c := range all {
			took, err := c.round(plane, repeat)
			if err != nil {
				return nil, fmt.Errorf("measure %q: %w", c.name, err)
			}
			times[i] = append(times[i], took)
		}
	}
	return summarize(names, times), nil
}

func benchService() lb.ServiceKey {
	return lb.ServiceKey{Address: netip.AddrFrom4([4]byte{192, 0, 2, 1}), Port: 80, Protocol: lb.TCP}
}

func wish() lb.State {
	s := lb.Service{Name: "bench", Key: benchService(), Scheduler: lb.RoundRobin, NewFlows: math.MaxUint32}
	for i := range byte(servers) {
		s.RealServers = append(s.RealServers, lb.RealServer{
			Address: netip.AddrFrom4([4]byte{192, 0, 2, 100 + i}), Port: 80, Weight: 1, Up: true,
			NextHop: lb.NextHop{Interface: 1, MAC: lb.MAC{2, 0, 0, 0, 1, i}},
		})
	}
	return lb.State{Services: []lb.Service{s}, Routers: benchRouters()}
}

// load makes a driver for the case and points it at what is measured.
func (c *benchCase) load(plane *xdp.Plane) error {
	spec, err := loadBench()
	if err != nil {
		return err
	}
	mask := c.flows - 1 // of 0: all ones
	if err := spec.Variables[benchVarFlowMask].Set(mask); err != nil {
		return err
	}
	source := uint32(10 << 24)
	if c.creates {
		source = 32 << 24 // unlike those of the other cases
	}
	if err := spec.Variables[benchVarFirstSource].Set(source); err != nil {
		return err
	}
	addresses := [12]byte{6: 2, 11: 0xcc} // to the loopback's, from a client's
	if err := spec.Variables[benchVarAddresses].Set(addresses); err != nil {
		return err
	}
	if c.advert != nil {
		if err := spec.Variables[benchVarUntouched].Set(uint8(1)); err != nil {
			return err
		}
	}
	c.driver = new(benchObjects)
	if err := spec.LoadAndAssign(c.driver, nil); err != nil {
		return err
	}
	measured := plane.Program(benchInterface)
	if c.bare {
		measured = c.driver.Bare
	}
	return c.driver.Measured.Put(uint32(0), measured)
}

// round returns the nanoseconds per packet of one measurement, and an error if the packets did not go the way that
// the case is about: then the figure would mean nothing.
func (c *benchCase) round(plane *xdp.Plane, repeat int) (int64, error) {
	if !c.creates { // other cases may have pushed the flows out
		if _, _, err := c.driver.Driver.Benchmark(c.frame(), int(c.flows), nil); err != nil {
			return 0, err
		}
	}
	before, fatesBefore, err := c.counted(plane)
	if err != nil {
		return 0, err
	}
	answer, took, err := c.driver.Driver.Benchmark(c.frame(), repeat, nil)
	if err != nil {
		return 0, err
	}
	after, fates, err := c.counted(plane)
	if err != nil {
		return 0, err
	}
	if c.router != "" { // some pass, so that user space sees them
		if n := fates - fatesBefore; n < uint64(repeat)*9/10 {
			return 0, fmt.Errorf("%d of %d adverts were %s", n, repeat, c.fate)
		}
	} else if answer != c.answer {
		return 0, fmt.Errorf("the program answered %d, want %d", answer, c.answer)
	}
	created := after - before
	if c.creates && created < uint64(repeat) || !c.creates && created > 0 {
		return 0, fmt.Errorf("%d of %d packets made a flow", created, repeat)
	}
	return took.Nanoseconds(), nil
}

// counted is how many flows were made, and adverts had the fate of the case.
func (c *benchCase) counted(plane *xdp.Plane) (flows, adverts uint64, err error) {
	counters, err := plane.Counters()
	if err != nil {
		return 0, 0, err
	}
	for _, traffic := range counters.RealServers {
		flows += traffic.FlowsCreated
	}
	return flows, counters.Adverts[c.router][c.fate], nil
}

// frame is a TCP packet with ACK, or SYN, of which the driver fills in addresses and source, or the advert.
func (c *benchCase) frame() []byte {
	if c.advert != nil {
		return c.advert
	}
	frame := make([]byte, 64)
	binary.BigEndian.PutUint16(frame[12:], 0x0800)
	ip, tcp := frame[14:], frame[34:]
	ip[0], ip[8], ip[9] = 0x45, 64, byte(lb.TCP)
	binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)))
	copy(ip[16:], benchService().Address.AsSlice())
	binary.BigEndian.PutUint16(tcp[2:], c.port)
	tcp[12], tcp[13] = 5<<4, 0x10
	if c.creates { // nothing follows: so a full table has room for the next one
		tcp[13] = 0x02
	}
	return frame
}
