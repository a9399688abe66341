package main

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"

	"github.com/xdirector/xdirector/pkg/lb"
	"github.com/xdirector/xdirector/pkg/xdp"
)

const swap = "bare swap of MAC addresses" // what all others are compared with

func bareDrop(o *benchObjects) *ebpf.Program { return o.BareDrop }
func bareSwap(o *benchObjects) *ebpf.Program { return o.BareSwap }

func floors() []*benchCase {
	one := shape{}.stream(1 << 14)
	return []*benchCase{
		{name: swap, stream: one, bare: bareSwap, answer: actionTX},
		{name: "bare drop", stream: one, bare: bareDrop, answer: actionDrop},
	}
}

// familyCases are what one service with 64 real servers costs. New flows have planes of their own, so that they don't fill
// that of the known ones.
func (t *testbed) familyCases(ipv6 bool) ([]*benchCase, error) {
	shape := shape{ipv6: ipv6, services: 1, servers: 64, scheduler: lb.RoundRobin}
	var planes [4]*xdp.Plane
	for i := range planes {
		shape.newFlows = unguarded
		if i == 3 {
			shape.newFlows = 1
		}
		wish := shape.wish()
		wish.Routers = benchRouters()
		var err error
		if planes[i], err = t.plane(wish); err != nil {
			return nil, err
		}
	}
	known, room, full, guarded := planes[0], planes[1], planes[2], planes[3]
	var list []*benchCase
	add := func(name string, plane *xdp.Plane, s stream, answer uint32, ns, ratio float64) *benchCase {
		c := &benchCase{name: name, plane: plane, stream: s, answer: answer, wanted: wanted{ns: ns, ratio: ratio}}
		if ipv6 {
			c.name, c.wanted = name+", IPv6", wanted{of: name, ratio: 1.6}
		}
		list = append(list, c)
		return c
	}
	for _, c := range []struct {
		flows     uint64
		ns, ratio float64
	}{{1, 40, 2.3}, {1e4, 60, 3}, {1e5, 180, 7}, {1e6, 230, 8.7}} {
		add(fmt.Sprintf("known flow, %d", c.flows), known, shape.stream(min(c.flows, uint64(t.flows))), actionTX, c.ns, c.ratio)
	}
	syn := shape.stream(0)
	syn.flags = tcpSYN
	ack := shape.stream(0)
	ack.first = 64 << 24
	add("SYN flood, not stored", guarded, syn, actionTX, 40, 2.3).unstored = true
	add("ACK flood, not stored", guarded, ack, actionTX, 40, 2.3).unstored = true
	stored := add("new flow, stored", room, syn, actionTX, 250, 9.3)
	stored.creates, stored.divide = true, 8
	evicting := add("new flow, stored for another", full, syn, actionTX, 250, 9.3)
	evicting.creates, evicting.divide = true, 2
	elsewhere, port := shape.stream(1<<14), shape.stream(1<<14)
	elsewhere.to = netip.AddrPortFrom(shape.address().Prev(), benchPort)
	port.to = netip.AddrPortFrom(shape.address(), benchPort+1)
	add("not ours, by address", known, elsewhere, actionPass, 25, 1.8)
	add("not ours, by port", known, port, actionPass, 25, 1.8)
	return list, fill(full.Program(benchInterface), syn, 8*int(t.flows))
}

// fill leaves no place in a table that is free: its flows begin where those of a measurement don't come to.
func fill(program *ebpf.Program, s stream, packets int) error {
	s.first = 64 << 24
	o, err := s.driver(program)
	if err != nil {
		return err
	}
	_, _, err = drive(o.Driver, s.bytes(), packets)
	return errors.Join(err, o.Close())
}

// packetCases are what each kind of packet costs.
func (t *testbed) packetCases() ([]*benchCase, error) {
	list := floors()
	for _, ipv6 := range []bool{false, true} {
		family, err := t.familyCases(ipv6)
		if err != nil {
			return nil, err
		}
		list = append(list, family...)
	}
	other := shape{}.stream(1)
	other.notIP = true
	list = append(list, &benchCase{name: "not IP", plane: t.planes[0], stream: other, answer: actionPass, wanted: wanted{ns: 5, ratio: 1.2}})
	return append(list, advertCases(t.planes[0])...), nil
}

// measurePackets runs them all in turn.
func (r *report) measurePackets(rounds, packets int) (err error) {
	t, err := newTestbed()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.close()) }()
	t.flows = uint32(min(tableSize, packets))
	cases, err := t.packetCases()
	if err != nil {
		return err
	}
	absorbing, err := absorb(t.planes[0])
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, absorbing.Close()) }()
	if err := measureAll(cases, rounds, packets); err != nil {
		return err
	}
	r.Packets = summarize(cases)
	return nil
}
