package xdp

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/cilium/ebpf"

	"github.com/xdirector/xdirector/pkg/lb"
)

// mapWatched is the section of bpf/watch.h.
const mapWatched = ".data.watch"

// dryRun is a second copy of an interface's program, which shares all maps and writes to none; see bpf/dry.h.
type dryRun struct {
	program *ebpf.Program
	trace   *ebpf.Variable
}

func (d *dryRun) close() error {
	if d == nil {
		return nil
	}
	return d.program.Close()
}

// loadDryRun loads the copy of one interface. It has memory of its own for what it notes.
func loadDryRun(spec *ebpf.CollectionSpec, options *ebpf.CollectionOptions) (*dryRun, error) {
	if err := spec.Variables[xdirectorVarDryRun].Set(uint8(1)); err != nil {
		return nil, fmt.Errorf("set constant %s: %w", xdirectorVarDryRun, err)
	}
	delete(options.MapReplacements, xdirectorMapScratch)
	var loaded struct {
		Program *ebpf.Program  `ebpf:"xdirector"`
		Trace   *ebpf.Variable `ebpf:"traced"`
	}
	if err := spec.LoadAndAssign(&loaded, options); err != nil {
		return nil, err
	}
	return &dryRun{program: loaded.Program, trace: loaded.Trace}, nil
}

// whyNames are the enum why of bpf/dry.h.
var whyNames = [xdirectorWhyWHY_COUNT]string{
	xdirectorWhyWHY_NONE:     "",
	xdirectorWhyWHY_FLOW:     lb.WhyFlow,
	xdirectorWhyWHY_CLIENT:   lb.WhyPersistence,
	xdirectorWhyWHY_TURN:     lb.WhyTurn,
	xdirectorWhyWHY_HASH:     lb.WhyHash,
	xdirectorWhyWHY_FALLBACK: lb.WhyFallback,
	xdirectorWhyWHY_LEAST:    lb.WhyLeast,
	xdirectorWhyWHY_ROOM:     lb.WhyRoom,
}

// phaseNames are the enum flow_phase of bpf/layout_flows.h.
var phaseNames = map[xdirectorFlowPhase]string{
	xdirectorFlowPhaseFLOW_OPENING:   lb.PhaseOpening,
	xdirectorFlowPhaseFLOW_OPEN:      lb.PhaseEstablished,
	xdirectorFlowPhaseFLOW_CLOSING:   lb.PhaseClosing,
	xdirectorFlowPhaseFLOW_UDP:       lb.PhaseUDP,
	xdirectorFlowPhaseFLOW_UDP_FIRST: lb.PhaseUDP,
}

// ErrNoInterface is in the error of Explain about an interface that has no program.
var ErrNoInterface = errors.New("is not one that frames are balanced on")

// Explain says what would become of a frame that came in on an interface now, and why. Nothing is changed by that: where a
// packet would take its turn, the answer is what the next one gets. The frame begins with the Ethernet header; the kernel takes
// no shorter one.
func (p *Plane) Explain(name string, frame []byte) (lb.Explanation, error) {
	p.explaining.Lock()
	defer p.explaining.Unlock()
	if err := p.readyDryRun(name); err != nil {
		return lb.Explanation{}, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	n := p.nicNamed(name).carrier()
	if err := n.dry.trace.Set(xdirectorTrace{}); err != nil {
		return lb.Explanation{}, fmt.Errorf("clear what was noted: %w", err)
	}
	_, out, err := n.dry.program.Test(frame)
	if err != nil {
		return lb.Explanation{}, fmt.Errorf("run a frame of %d bytes: %w", len(frame), err)
	}
	var trace xdirectorTrace
	if err := n.dry.trace.Get(&trace); err != nil {
		return lb.Explanation{}, fmt.Errorf("read what was noted: %w", err)
	}
	return p.explanation(trace, out), nil
}

// explanation puts a trace into words, and ids into what they mean.
func (p *Plane) explanation(t xdirectorTrace, out []byte) lb.Explanation {
	e := lb.Explanation{
		Verdict: verdictNames[t.Verdict],
		Why:     whyNames[t.Why],
		Stored:  t.Stored != 0,
		Flooded: t.Flooded != 0,
		Frame:   out,
	}
	for _, n := range p.nics {
		if n.slot+1 == t.Interface {
			e.Interface = n.name
		}
	}
	if t.Advert != 0 && t.Fate < uint32(len(fateNames)) {
		e.Advert = fateNames[t.Fate]
	}
	if t.Verdict == uint32(xdirectorVerdictVERDICT_DROP) {
		e.Drop = dropNames[t.DropReason]
	}
	if t.Places > 0 {
		e.Place, e.Places = t.Place+1, t.Places
	}
	for key, entry := range p.tables.services {
		if entry.id == t.Service {
			e.Service = key
		}
	}
	if state := flowState(t.Flow); state != 0 {
		left := time.Duration(max(0, state.remaining(t.Now))) << p.flowClock.shift * time.Second / time.Duration(p.flowClock.hz)
		e.Flow = &lb.FlowState{Phase: phaseNames[state.phase()], Left: left}
		e.Flow.RealServer = p.serverOf(state.server(), state.generation())
	}
	if t.Server != 0 {
		e.RealServer = p.serverOf(t.Server, p.tables.generations[t.Server])
		e.NextHop = p.hopOf(t.Server)
	}
	if t.Verdict == uint32(xdirectorVerdictVERDICT_PREVIOUS) {
		e.NextHop = lb.Exit{Interface: e.Interface, MAC: lb.MAC(out[:6]), Source: lb.MAC(out[6:12])}
	}
	return e
}

// serverOf is the address of a real server by its id, if that still means the one that it meant.
func (p *Plane) serverOf(id, generation uint32) (address netip.Addr) {
	for key, entry := range p.tables.servers {
		if entry.id == id && p.tables.generations[id] == generation {
			return key.Address
		}
	}
	return netip.Addr{}
}

// hopOf is how a frame reaches a real server.
func (p *Plane) hopOf(id uint32) (hop lb.Exit) {
	for _, entry := range p.tables.servers {
		if entry.id == id {
			v := entry.value
			hop = lb.Exit{MAC: v.Destination, Source: v.Source, VLAN: uint16(v.Vlan), Local: v.Flags&serverLocal != 0}
			if d, ok := p.present[int(v.Interface)]; ok {
				hop.Interface = d.Name
			}
		}
	}
	return hop
}

// readyDryRun loads the copy of the program that sees the frames of an interface, unless it is there. That takes a while, in which
// Apply goes on: p.explaining alone is held.
func (p *Plane) readyDryRun(name string) error {
	p.mu.Lock()
	var spec *ebpf.CollectionSpec
	var options *ebpf.CollectionOptions
	err, n := errClosed, p.nicNamed(name)
	switch {
	case p.clock == nil:
	case n == nil:
		err = fmt.Errorf("interface %q %w", name, ErrNoInterface)
	default:
		n, err = n.carrier(), nil
		if n.dry == nil {
			spec, options, err = p.specOf(n)
		}
	}
	p.mu.Unlock()
	if err != nil || spec == nil {
		return err
	}
	loaded, err := loadDryRun(spec, options)
	if err != nil {
		return fmt.Errorf("load dry run for %s: %w", n.name, err)
	}
	p.mu.Lock()
	n.dry = loaded
	p.mu.Unlock()
	return nil
}

// Arrival is how frames come to an interface that they are balanced on: for which address, and with which VLAN id, 0 being none.
// False: it is no such interface.
func (p *Plane) Arrival(name string) (mac lb.MAC, vlan uint16, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := p.nicNamed(name)
	if n == nil {
		return lb.MAC{}, 0, false
	}
	return n.mac, n.vlan, true
}

func (p *Plane) nicNamed(name string) *nic {
	for _, n := range p.nics {
		if n.name == name {
			return n
		}
	}
	return nil
}
