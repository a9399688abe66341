package main

import (
	"errors"
	"fmt"

	"github.com/xdirector/xdirector/pkg/lb"
)

const (
	scaleFlows = 100_000
	scaleRatio = 1.3
)

// measureScale is what size costs: packets of many services with few real servers and of one with many, beside those of one
// service with two.
func (r *report) measureScale(rounds, packets int) error {
	for _, scheduler := range []lb.Scheduler{lb.RoundRobin, lb.WeightedRoundRobin, lb.SourceHashing, lb.MaglevHashing} {
		rows, err := measureSizes(scheduler, rounds, packets)
		if err != nil {
			return fmt.Errorf("%s: %w", scheduler, err)
		}
		r.Scale = append(r.Scale, rows...)
	}
	return nil
}

func measureSizes(scheduler lb.Scheduler, rounds, packets int) (rows []row, err error) {
	t, err := newTestbed()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, t.close()) }()
	cases := floors()[:1]
	var first [2]string
	for i, s := range []shape{{services: 1, servers: 2}, {services: 1, servers: 1000}, {services: 10_000, servers: 2}} {
		s.scheduler, s.newFlows = scheduler, unguarded
		plane, err := t.plane(s.wish())
		if err != nil {
			return nil, err
		}
		known, syn := s.stream(scaleFlows), s.stream(0)
		known.services, syn.services, syn.flags = uint32(s.services), uint32(s.services), tcpSYN
		syn.first = 64 << 24
		size := fmt.Sprintf(", %s, %d x %d", scheduler, s.services, s.servers)
		kinds := []*benchCase{
			{name: "known flow" + size, stream: known, divide: 2},
			{name: "new flow, stored" + size, stream: syn, creates: true, divide: 10},
		}
		if s.services > 1 {
			known.services, known.first = 1, 32<<24
			kinds = append(kinds, &benchCase{name: "known flow" + size + ", one of them busy", stream: known, divide: 2})
		}
		for j, c := range kinds {
			c.plane, c.answer = plane, actionTX
			if i == 0 {
				first[j] = c.name
			} else {
				c.wanted = wanted{of: first[j%2], ratio: scaleRatio}
			}
			cases = append(cases, c)
		}
	}
	if err := measureAll(cases, rounds, packets); err != nil {
		return nil, err
	}
	return summarize(cases)[1:], nil
}
