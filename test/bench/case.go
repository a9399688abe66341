package main

import (
	"fmt"
	"slices"

	"github.com/cilium/ebpf"

	"github.com/xdirector/xdirector/pkg/xdp"
)

const (
	actionDrop = 1
	actionPass = 2
	actionTX   = 3
)

// benchCase is one kind of packet, and what must become of it.
type benchCase struct {
	name string
	stream
	bare     func(*benchObjects) *ebpf.Program // what is measured instead of the plane's program
	plane    *xdp.Plane
	answer   uint32
	creates  bool   // every packet makes a flow; else none does
	unstored bool   // every packet is one of a flow that is not stored; else none is
	router   string // that an advert is for; empty: none of ours
	fate     string // of the advert
	divide   int    // so many packets less
	wanted   wanted

	driver *benchObjects
	times  []float64 // nanoseconds per packet
}

// wanted is a bar; zero: there is none.
type wanted struct {
	ns    float64 // net
	ratio float64 // of the raw time to that of another case
	of    string  // name of that case; empty: the bare swap
}

// counted is what a plane has done so far.
type counted struct {
	flows, unstored, adverts uint64
}

func (c *benchCase) counted() (n counted, err error) {
	if c.plane == nil {
		return n, nil
	}
	counters, err := c.plane.Counters()
	if err != nil {
		return n, err
	}
	for _, traffic := range counters.RealServers {
		n.flows += traffic.FlowsCreated
	}
	n.unstored, n.adverts = counters.FlowTable.Unstored, counters.Adverts[c.router][c.fate]
	return n, nil
}

// prepare loads the case's driver, and has the plane know its flows.
func (c *benchCase) prepare() (err error) {
	measured := (*ebpf.Program)(nil)
	if c.plane != nil {
		measured = c.plane.Program(benchInterface)
	}
	if c.driver, err = c.stream.driver(measured); err != nil {
		return err
	}
	if c.bare != nil {
		if err := c.driver.Measured.Put(uint32(0), c.bare(c.driver)); err != nil {
			return err
		}
	}
	if c.plane != nil && c.flows > 0 && !c.creates {
		// Twice: the second packet of a flow changes what is known about it, too.
		_, _, err = drive(c.driver.Driver, c.bytes(), 2*int(c.flows)*int(c.flood+1))
	}
	return err
}

// measure adds one measurement, or returns an error if the packets did not go the way that the case is about: then the figure
// would mean nothing.
func (c *benchCase) measure(packets int) error {
	packets = max(packets/max(c.divide, 1), 1)
	if c.flows > 0 { // other cases have had the caches since
		if _, _, err := drive(c.driver.Driver, c.bytes(), int(c.flows)); err != nil {
			return err
		}
	}
	before, err := c.counted()
	if err != nil {
		return err
	}
	answer, took, err := drive(c.driver.Driver, c.bytes(), packets)
	if err != nil {
		return err
	}
	after, err := c.counted()
	if err != nil {
		return err
	}
	if c.router != "" { // some pass, so that user space sees them
		if n := after.adverts - before.adverts; n < uint64(packets)*9/10 {
			return fmt.Errorf("%d of %d adverts were %s", n, packets, c.fate)
		}
	} else if answer != c.answer {
		return fmt.Errorf("the program answered %d, want %d", answer, c.answer)
	}
	few := uint64(0) // a flood's first packets of a second are stored
	if c.unstored {
		few = max(uint64(packets)/1000, 10)
	}
	for _, check := range []struct {
		what string
		n    uint64
		all  bool
	}{
		{"made a flow", after.flows - before.flows, c.creates},
		{"were not stored", after.unstored - before.unstored, c.unstored},
	} {
		if check.all && check.n < uint64(packets)-few || !check.all && check.n > few {
			return fmt.Errorf("%d of %d packets %s", check.n, packets, check.what)
		}
	}
	c.times = append(c.times, took)
	return nil
}

// measureAll takes the cases in turn, round by round.
func measureAll(cases []*benchCase, rounds, packets int) error {
	for _, c := range cases {
		if err := c.prepare(); err != nil {
			return fmt.Errorf("prepare %q: %w", c.name, err)
		}
		defer c.driver.Close()
	}
	for range rounds {
		for _, c := range cases {
			if err := c.measure(packets); err != nil {
				return fmt.Errorf("measure %q: %w", c.name, err)
			}
		}
	}
	return nil
}

// least and median are of the case's measurements.
func (c *benchCase) least() float64 { return slices.Min(c.times) }

func (c *benchCase) median() float64 {
	sorted := slices.Sorted(slices.Values(c.times))
	return sorted[len(sorted)/2]
}
