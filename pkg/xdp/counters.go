package xdp

import (
	"fmt"
	"slices"
	"time"

	"github.com/xdirector/xdirector/pkg/lb"
)

// verdictNames and dropNames are what the enums of bpf/layout_frames.h are called in metrics.
var verdictNames = [xdirectorVerdictVERDICT_COUNT]string{
	xdirectorVerdictVERDICT_PASS_NOT_OURS:  "pass_not_ours",
	xdirectorVerdictVERDICT_PASS_OTHER_MAC: "pass_other_mac",
	xdirectorVerdictVERDICT_PASS_BALANCED:  "pass_balanced",
	xdirectorVerdictVERDICT_PASS_REFUSED:   "pass_refused",
	xdirectorVerdictVERDICT_PASS_LOCAL:     "pass_local",
	xdirectorVerdictVERDICT_PASS_ADVERT:    "pass_advert",
	xdirectorVerdictVERDICT_PREVIOUS:       "to_previous_master",
	xdirectorVerdictVERDICT_TX:             "tx",
	xdirectorVerdictVERDICT_REDIRECT:       "redirect",
	xdirectorVerdictVERDICT_DROP:           "drop",
}

var dropNames = [xdirectorDropReasonDROP_COUNT]string{
	xdirectorDropReasonDROP_FRAGMENT:        "fragment",
	xdirectorDropReasonDROP_FRAGMENT_SHORT:  "fragment_short",
	xdirectorDropReasonDROP_HEADERS:         "headers",
	xdirectorDropReasonDROP_NO_FLOW:         "no_flow",
	xdirectorDropReasonDROP_SECOND_CHANCE:   "second_chance",
	xdirectorDropReasonDROP_NO_REAL_SERVER:  "no_real_server",
	xdirectorDropReasonDROP_ADVERT_REFUSED:  "advert_refused",
	xdirectorDropReasonDROP_ADVERT_RATE:     "advert_rate",
	xdirectorDropReasonDROP_ADVERT_ABSORBED: "advert_absorbed",
	xdirectorDropReasonDROP_DENIED:          "denied",
	xdirectorDropReasonDROP_RATE_PACKETS:    "rate_packets",
	xdirectorDropReasonDROP_RATE_NEW:        "rate_new",
	xdirectorDropReasonDROP_FULL:            "full",
}

// refusalNames are why a service refused a packet.
var refusalNames = [xdirectorRefusalREFUSAL_COUNT]string{
	xdirectorRefusalREFUSED_DENIED:       "denied",
	xdirectorRefusalREFUSED_RATE_PACKETS: "rate_packets",
	xdirectorRefusalREFUSED_RATE_NEW:     "rate_new",
	xdirectorRefusalREFUSED_FULL:         "full",
}

// fateNames are what became of an advert, and why.
var fateNames = [xdirectorAdvertFateADVERT_FATE_COUNT]string{
	xdirectorAdvertFateADVERT_PASSED:        "passed",
	xdirectorAdvertFateADVERT_SAMPLED:       "sampled",
	xdirectorAdvertFateADVERT_ABSORBED:      "absorbed",
	xdirectorAdvertFateADVERT_HEADER:        "header",
	xdirectorAdvertFateADVERT_FRAGMENT:      "fragment",
	xdirectorAdvertFateADVERT_TTL:           "ttl",
	xdirectorAdvertFateADVERT_LENGTH:        "length",
	xdirectorAdvertFateADVERT_VERSION:       "version",
	xdirectorAdvertFateADVERT_TYPE:          "type",
	xdirectorAdvertFateADVERT_ADDRESS_COUNT: "address_count",
	xdirectorAdvertFateADVERT_INTERVAL:      "interval",
	xdirectorAdvertFateADVERT_CHECKSUM:      "checksum",
	xdirectorAdvertFateADVERT_ECHO:          "echo",
	xdirectorAdvertFateADVERT_SOURCE:        "source",
	xdirectorAdvertFateADVERT_RATE:          "rate",
}

// Counters reads all counters: of every real server in the last State applied or adopted, and of every interface.
// Flows are counted by walking their table, which takes time but doesn't hold up Apply: the numbers may be up to fifty
// times as old as a walk takes.
func (p *Plane) Counters() (lb.Counters, error) {
	p.counting.Lock()
	defer p.counting.Unlock()
	if err := p.countFlows(); err != nil {
		return lb.Counters{}, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	read := lb.Counters{FlowsAt: p.flowsAt, RealServers: map[lb.ServerKey]lb.Traffic{}, Interfaces: map[string]lb.InterfaceCounters{}}
	for key, entry := range p.tables.servers {
		sum := p.traffic.of(entry.id)
		sum.Flows, sum.Active = p.flowCounts[entry.id], p.loads.active(entry.id) // of an id given since: there can be none
		read.RealServers[key] = sum
	}
	refused, err := p.readRefusals()
	if err != nil {
		return read, err
	}
	read.Refused = refused
	read.FlowTable = lb.FlowTable{Size: uint64(p.config.FlowTableSize)}
	for _, flows := range p.flowCounts {
		read.FlowTable.Flows += flows
	}
	losses, err := p.readLosses()
	if err != nil {
		return read, err
	}
	for _, n := range p.nics {
		counters, unstored, err := p.readInterface(n)
		if err != nil {
			return read, err
		}
		counters.Lost = p.lossesOf(n, losses)
		read.Interfaces[n.name] = counters
		read.FlowTable.Unstored += unstored
	}
	adverts, err := p.readAdverts()
	if err != nil {
		return read, err
	}
	read.Adverts = adverts
	return read, nil
}

func (p *Plane) readInterface(n *nic) (read lb.InterfaceCounters, unstored uint64, err error) {
	read = lb.InterfaceCounters{Verdicts: map[string]uint64{}, Drops: map[string]uint64{}}
	var perCPU []xdirectorInterfaceCounters
	if err := p.maps.Frames.Lookup(n.slot, &perCPU); err != nil {
		return read, 0, fmt.Errorf("read counters of %s: %w", n.name, err)
	}
	for _, c := range perCPU {
		for verdict, frames := range c.Verdicts {
			read.Verdicts[verdictNames[verdict]] += frames
		}
		for reason, frames := range c.Drops {
			read.Drops[dropNames[reason]] += frames
		}
		unstored += c.Unstored
	}
	return read, unstored, nil
}

// countFlows counts the flows of each server that have not timed out, unless that was done a short while ago. It holds
// p.counting, which Close waits for, but not p.mu.
func (p *Plane) countFlows() error {
	p.mu.Lock()
	if p.clock == nil {
		p.mu.Unlock()
		return errClosed
	}
	table, loads, generations := p.flows, p.loads, slices.Clone(p.tables.generations)
	p.mu.Unlock()

	start := time.Now()
	if start.Before(p.flowCountsDue) {
		return nil
	}
	now, err := p.ticks()
	if err != nil {
		return err
	}
	counts := make([]uint64, len(generations))
	isCurrent := func(flow flowState) bool {
		id := flow.server()
		return int(id) < len(generations) && generations[id] == flow.generation()
	}
	table.sweep(uint32(now>>p.flowClock.shift), func(flow flowState) {
		if isCurrent(flow) {
			counts[flow.server()]++
		}
	}, func(flow flowState) {
		if isCurrent(flow) {
			loads.forget(flow)
		}
	})
	p.flowCounts, p.flowsAt = counts, start
	p.flowCountsDue = time.Now().Add(flowCountBudget * time.Since(start))
	return nil
}
