package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xdirector/xdirector/pkg/lb"
	"github.com/xdirector/xdirector/pkg/xdp"
)

const (
	floodFlows = 10_000
	floodBatch = 100_000
	floodTimes = 10 // as many packets of a flood as there are flows
)

// flood is packets that never come twice, from the processor that nothing is measured on.
type flood struct {
	stop, done chan struct{}
	packets    int
	took       time.Duration
	err        error
}

func startFlood(plane *xdp.Plane, s stream) (*flood, error) {
	o, err := s.driver(plane.Program(benchInterface))
	if err != nil {
		return nil, err
	}
	f := &flood{stop: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(f.done)
		defer o.Close()
		runtime.LockOSThread() // for good: the thread ends with its goroutine, and nothing else is kept from other processors
		if f.err = pin(0); f.err != nil {
			return
		}
		start := time.Now()
		for {
			select {
			case <-f.stop:
				f.took = time.Since(start)
				return
			default:
			}
			if _, _, f.err = drive(o.Driver, s.bytes(), floodBatch); f.err != nil {
				return
			}
			f.packets += floodBatch
		}
	}()
	return f, nil
}

// end returns the packets per second.
func (f *flood) end() (float64, error) {
	close(f.stop)
	<-f.done
	return float64(f.packets) / f.took.Seconds(), f.err
}

// pin keeps this thread on one processor.
func pin(cpu int) error {
	var one unix.CPUSet
	one.Set(cpu)
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		return fmt.Errorf("stay on processor %d: %w", cpu, err)
	}
	return nil
}

// measureFlood is what floods do to flows that are established: what a packet of those costs, while another processor floods
// the same service, and whether all of them are still known afterwards.
func (r *report) measureFlood(rounds, packets int) (err error) {
	if runtime.NumCPU() < 2 {
		return errors.New("a flood wants a processor of its own; this machine has one")
	}
	t, err := newTestbed()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.close()) }()
	shape := shape{services: 1, servers: 64, scheduler: lb.RoundRobin}
	plane, err := t.plane(shape.wish())
	if err != nil {
		return err
	}
	syn, ack := shape.stream(0), shape.stream(0)
	syn.first, ack.first, syn.flags = 64<<24, 128<<24, tcpSYN
	quiet := &benchCase{name: "quiet", plane: plane, stream: shape.stream(floodFlows)}
	cases := []*benchCase{quiet, {name: "SYN flood", plane: plane, stream: quiet.stream}, {name: "ACK flood", plane: plane, stream: quiet.stream}}
	var rates [3][]float64
	for _, c := range cases {
		if err := c.prepare(); err != nil {
			return err
		}
		defer c.driver.Close()
	}
	for range rounds {
		for i, c := range cases {
			var f *flood
			if i > 0 {
				if f, err = startFlood(plane, []stream{syn, ack}[i-1]); err != nil {
					return err
				}
			}
			_, took, err := drive(c.driver.Driver, c.bytes(), packets)
			if err != nil {
				return err
			}
			c.times = append(c.times, took)
			if f != nil {
				rate, err := f.end()
				if err != nil {
					return err
				}
				rates[i] = append(rates[i], rate)
			}
		}
	}
	r.add(figure{Name: fmt.Sprintf("known flow of %d, quiet", floodFlows), Value: quiet.median(), Unit: "ns"})
	for i, c := range cases[1:] {
		r.add(figure{
			Name: fmt.Sprintf("the same beside a %s of %.1f million a second", c.name, slices.Max(rates[i+1])/1e6), Value: c.median(), Unit: "ns",
		})
	}
	return nil
}

func (r *report) add(f figure) { r.Figures = append(r.Figures, f) }

// measureFlows fills the table with as many flows as it is to hold without loss, and looks at each of them, before and after a
// flood of ten times as many packets. A flow that is lost is an error.
func (r *report) measureFlows() (err error) {
	t, err := newTestbed()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.close()) }()
	shape := shape{services: 1, servers: 64, scheduler: lb.RoundRobin, newFlows: unguarded}
	plane, err := t.plane(shape.wish())
	if err != nil {
		return err
	}
	known := &benchCase{name: "known flow", plane: plane, stream: shape.stream(tableSize)}
	if err := known.prepare(); err != nil {
		return err
	}
	defer known.driver.Close()
	made, err := known.counted()
	if err != nil {
		return err
	}
	if made.flows != tableSize || made.unstored > 0 {
		return fmt.Errorf("%d flows: %d were made, and %d packets were of flows that found no place", tableSize, made.flows, made.unstored)
	}
	first, err := known.servers()
	if err != nil {
		return err
	}
	lost, err := known.lost(first)
	if err != nil {
		return err
	}
	r.add(figure{Name: fmt.Sprintf("flows lost of %d, one by one", tableSize), Value: float64(lost), Wanted: "0", Met: yes(lost == 0)})
	for i, f := range []struct {
		name     string
		flags    uint8
		newFlows uint32
	}{{"SYNs", tcpSYN, 0}, {"ACKs", tcpACK, 0}, {"SYNs, all stored", tcpSYN, unguarded}, {"ACKs, all stored", tcpACK, unguarded}} {
		shape.newFlows = f.newFlows
		if err := plane.Apply(context.Background(), shape.wish()); err != nil {
			return err
		}
		s := shape.stream(0)
		s.first, s.flags = uint32(32*(i+1))<<24, f.flags
		o, err := s.driver(plane.Program(benchInterface))
		if err != nil {
			return err
		}
		_, _, err = drive(o.Driver, s.bytes(), floodTimes*tableSize)
		if err = errors.Join(err, o.Close()); err != nil {
			return err
		}
		after, err := known.lost(first)
		if err != nil {
			return err
		}
		r.add(figure{Name: fmt.Sprintf("flows lost after %d %s", floodTimes*tableSize, f.name), Value: float64(after), Wanted: "0", Met: yes(after == 0)})
		lost += after
	}
	if lost > 0 {
		return fmt.Errorf("%d flows were lost", lost)
	}
	return nil
}

// lost is how many flows go to another real server than they did, or had to be made anew.
func (c *benchCase) lost(before []byte) (int, error) {
	made, err := c.counted()
	if err != nil {
		return 0, err
	}
	now, err := c.servers()
	if err != nil {
		return 0, err
	}
	again, err := c.counted()
	if err != nil {
		return 0, err
	}
	n := 0
	for i := range now {
		if now[i] != before[i] {
			n++
		}
	}
	return max(n, int(again.flows-made.flows+again.unstored-made.unstored)), nil
}

// servers is where a packet of each flow is sent: the last byte of its MAC address.
func (c *benchCase) servers() ([]byte, error) {
	var list bytes.Buffer
	in := c.bytes()
	out := make([]byte, len(in))
	for range c.flows {
		answer, err := c.once(in, out)
		if err != nil {
			return nil, err
		}
		if answer != actionTX {
			return nil, fmt.Errorf("a packet of a known flow got the answer %d, want %d", answer, actionTX)
		}
		list.WriteByte(out[5])
	}
	return list.Bytes(), nil
}
