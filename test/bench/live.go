package main

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/xdirector/xdirector/pkg/lb"
)

const (
	livePackets = 1_000_000
	liveWanted  = 0.85
	liveFrames  = 1 << 1 // BPF_F_TEST_XDP_LIVE_FRAMES
	liveLimit   = time.Second
)

// measureLive is packets per second between two interfaces, with the director's program and with the bare swap.
func (r *report) measureLive(rounds int) (err error) {
	w, err := newWire()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	shape, plane := w.shape, w.plane
	var cases []*liveCase
	for _, flows := range []uint64{1, 1e4, 1e6} {
		s := shape.stream(flows)
		s.toMAC, s.out = lb.MAC(w.far.HardwareAddr), w.near.Index
		o, err := s.driver(nil)
		if err != nil {
			return err
		}
		defer o.Close()
		cases = append(cases,
			&liveCase{name: fmt.Sprintf("bare swap, %d flows", flows), stream: s, o: o, program: o.BareSwap},
			&liveCase{name: fmt.Sprintf("xdirector, %d flows", flows), stream: s, o: o, program: plane.Program(w.far.Name)},
		)
	}
	sink, err := link.AttachXDP(link.XDPOptions{Program: cases[0].o.Sink, Interface: w.near.Index, Flags: link.XDPDriverMode})
	if err != nil {
		return fmt.Errorf("attach sink: %w", err)
	}
	defer sink.Close()
	director, err := link.AttachXDP(link.XDPOptions{Program: cases[0].program, Interface: w.far.Index, Flags: link.XDPDriverMode})
	if err != nil {
		return fmt.Errorf("attach director: %w", err)
	}
	defer director.Close()
	for round := range rounds + 1 { // the first one is for the flows to become known
		for _, c := range cases {
			if err := errors.Join(director.Update(c.program), sink.Update(c.o.Sink)); err != nil {
				return err
			}
			took, err := c.run()
			if err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			if round > 0 {
				c.times = append(c.times, took)
			}
		}
	}
	for i, c := range cases {
		f := figure{Name: "live frames: " + c.name, Value: 1e3 / c.median(), Unit: "Mpps"}
		if i%2 == 1 {
			ratio := cases[i-1].median() / c.median()
			f.Wanted, f.Met = fmt.Sprintf("%.2f of the bare swap's, is %.2f", liveWanted, ratio), yes(ratio >= liveWanted)
		}
		r.Figures = append(r.Figures, f)
	}
	return nil
}

type liveCase struct {
	name string
	stream
	o       *benchObjects
	program *ebpf.Program
	times   []float64 // nanoseconds per packet
}

func (c *liveCase) median() float64 {
	sorted := slices.Sorted(slices.Values(c.times))
	return sorted[len(sorted)/2]
}

// run returns the nanoseconds per packet, or an error unless all of them have come back.
func (c *liveCase) run() (float64, error) {
	var before, after uint64
	if err := c.o.Sunk.Get(&before); err != nil {
		return 0, err
	}
	start := time.Now()
	if _, err := c.o.Generator.Run(&ebpf.RunOptions{Data: c.bytes(), Repeat: livePackets, Flags: liveFrames}); err != nil {
		return 0, err
	}
	took := time.Since(start)
	for deadline := time.Now().Add(liveLimit); after-before < livePackets; {
		if err := c.o.Sunk.Get(&after); err != nil {
			return 0, err
		}
		if time.Now().After(deadline) {
			return 0, fmt.Errorf("%d of %d packets came back", after-before, livePackets)
		}
	}
	return float64(took) / livePackets, nil
}
