// Package xdp is the plane that forwards in the network driver. It loads the programs in bpf/, turns an lb.State into
// their maps, attaches them to interfaces and reads their counters.
//
// Programs, links and maps are pinned: forwarding goes on when the agent dies, and the next agent adopts what it
// finds. Linux 6.1 or later is needed.
package xdp

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

const (
	layoutVersion    = uint32(xdirectorLayoutVersionLAYOUT_VERSION)
	noSlot           = math.MaxUint32
	clientsPerFlows  = 4 // the table of persistent clients holds one for so many flows, and that of sources with rates too
	tcpTimeout       = 15 * time.Minute
	openingTimeout   = time.Minute     // before anything but SYN
	closingTimeout   = 2 * time.Minute // after a FIN or RST
	udpTimeout       = 5 * time.Minute
	leastNewFlows    = 100_000 // a second, of a service
	flowCountBudget  = 50      // counting flows may take one part in so many of the time
	ringsPerBatch    = 256     // each is an open file for a moment
	ringWriters      = 16
	maxFlowTableSize = 1 << 26
)

// Config says where the plane works.
type Config struct {
	Interfaces    []string // names; at least one, all must exist
	PinPath       string   // absolute; see Open
	FlowTableSize uint32   // flows that are remembered without loss, 1 or more; each costs 34 to 68 bytes of kernel memory
}

// Mode is the way a program is attached to an interface.
type Mode string

// The modes, in the order of preference.
const (
	Native  Mode = "native"  // in the driver
	Generic Mode = "generic" // in the kernel's stack, before everything else; works on every interface
)

// Plane is the XDP plane of one director. Its methods may be called from several goroutines.
type Plane struct {
	config Config
	log    *slog.Logger
	pins   pins
	system func() ([]device, error)

	offloads offloads

	lock *os.File // keeps others away from the pin path; nil: closed

	mu        sync.Mutex
	maps      xdirectorMaps
	watched   *ebpf.Map     // what somebody looks at, see Capture
	ring      *ebpf.MapSpec // of one service; its size varies
	sources   *ebpf.MapSpec // made if there is a service with rates
	clock     *ebpf.Program
	changer   *ebpf.Program // of rings
	nics      []*nic
	tables    *tables
	applied   *applied // nil: nothing, or the last wish was not carried out
	directory *directory
	flows     *flowTable
	loads     *loads
	traffic   *traffic
	seed      flowSeed
	losses    map[xdirectorRedirectKey]loss // that were told of
	merging   string                        // see Offloads
	present   map[int]device                // all interfaces by index, at the last look
	reason    string                        // why an earlier mode was not taken
	warned    map[netip.Addr]string         // real servers that can't be reached in native mode, and what was said about them

	mostArrays    int                  // of rings that are kept open
	object        *ebpf.CollectionSpec // the built-in one while the plane opens, which makes many programs of it
	flowClock     flowClock
	explaining    sync.Mutex // held while packets are explained; taken before the others
	counting      sync.Mutex // held while flows are counted; taken before mu
	flowCounts    []uint64   // by server id
	flowCountsDue time.Time
	flowsAt       time.Time // when that count began
}

// Open creates the maps under cfg.PinPath, or adopts those of an earlier agent with every flow in them, and loads the
// programs. It attaches nothing. PinPath must lie on a bpffs; missing folders below one are created; a bpffs is
// mounted only if this process is in the host's mount namespace, since it would vanish with any other.
//
// Maps that don't fit cfg or this version are removed, with the programs that use them, and made anew. A pin path that
// another running process has open is refused (ErrInUse).
func Open(cfg Config, log *slog.Logger) (*Plane, error) {
	return open(cfg, log, devices)
}

func open(cfg Config, log *slog.Logger, system func() ([]device, error)) (*Plane, error) {
	return openOn(cfg, log, system, ethtool{})
}

func openOn(cfg Config, log *slog.Logger, system func() ([]device, error), drivers offloads) (*Plane, error) {
	if len(cfg.Interfaces) == 0 {
		return nil, errors.New("open xdp plane: no interface given")
	}
	if cfg.FlowTableSize == 0 || cfg.FlowTableSize > maxFlowTableSize {
		return nil, fmt.Errorf("open xdp plane: flow table size %d: allowed are 1 to %d", cfg.FlowTableSize, maxFlowTableSize)
	}
	if !filepath.IsAbs(cfg.PinPath) {
		return nil, fmt.Errorf("open xdp plane: pin path %q is not absolute", cfg.PinPath)
	}
	p := &Plane{config: cfg, mostArrays: mostArrays(), log: log, pins: pins{path: filepath.Clean(cfg.PinPath)}, system: system, offloads: drivers}
	if err := EnsureBPFFS(p.pins.path); err != nil {
		return nil, err
	}
	var err error
	if p.flowClock, err = newFlowClock(); err != nil {
		return nil, fmt.Errorf("open xdp plane: %w", err)
	}
	if p.object, err = builtIn(); err != nil {
		return nil, fmt.Errorf("open xdp plane: %w", err)
	}
	if p.lock, err = p.pins.lock(); err != nil {
		return nil, fmt.Errorf("open xdp plane: %w", err)
	}
	fresh, err := p.openMaps()
	if err == nil {
		err = p.prepare()
	}
	p.object = nil // a program that is made later is worth reading it again, not keeping it
	if err != nil {
		err = explain(err, "/proc/thread-self/status")
		p.Close()
		if fresh {
			return nil, errors.Join(err, p.pins.removeAll())
		}
		return nil, err
	}
	return p, nil
}

// prepare reads what the maps hold and loads one program for each interface.
func (p *Plane) prepare() error {
	var err error
	if p.tables, err = readTables(&p.maps); err != nil {
		return err
	}
	if p.directory, err = openDirectory(&p.maps); err != nil {
		return err
	}
	if p.flows, err = mapFlows(p.maps.Flows); err != nil {
		return err
	}
	if p.loads, err = mapLoads(p.maps.Loads); err != nil {
		return err
	}
	if p.traffic, err = mapTraffic(p.maps.Traffic); err != nil {
		return err
	}
	var layout xdirectorLayout
	if err := p.maps.Layout.Lookup(uint32(0), &layout); err != nil {
		return fmt.Errorf("read layout: %w", err)
	}
	p.seed = layout.FlowSeed
	spec, err := p.spec()
	if err != nil {
		return err
	}
	var programs struct {
		Clock *ebpf.Program `ebpf:"read_clock"`
		Rings *ebpf.Program `ebpf:"change_ring"`
	}
	options := ebpf.CollectionOptions{MapReplacements: map[string]*ebpf.Map{xdirectorMapRings: p.maps.Rings}}
	if err := spec.LoadAndAssign(&programs, &options); err != nil {
		return fmt.Errorf("load programs that aren't for packets: %w", err)
	}
	p.clock, p.changer = programs.Clock, programs.Rings
	if err := p.placeInterfaces(); err != nil {
		return err
	}
	for _, n := range p.carriers() {
		if err := p.loadProgram(n); err != nil {
			return err
		}
	}
	p.watchRedirects()
	return nil
}

// openMaps makes or adopts the pinned maps. It says whether they are new.
func (p *Plane) openMaps() (fresh bool, err error) {
	version, err := p.pins.layoutVersion()
	if err != nil {
		return false, err
	}
	if version == layoutVersion {
		err = p.loadMaps()
		if err == nil {
			return false, nil
		}
		if !errors.Is(err, ebpf.ErrMapIncompatible) {
			return false, err
		}
	} else if found, foundErr := p.pins.exist(); foundErr != nil {
		return false, foundErr
	} else if found {
		err = fmt.Errorf("layout version %d found, %d needed", version, layoutVersion)
	}
	if err != nil {
		p.log.Warn("pinned maps don't fit and are made anew: forwarding by XDP stops for a moment, known flows and counters are lost",
			"path", p.pins.path, "reason", err)
		p.unlock()
		if err := p.pins.removeAll(); err != nil {
			return false, err
		}
		if err := EnsureBPFFS(p.pins.path); err != nil {
			return false, err
		}
		if p.lock, err = p.pins.lock(); err != nil {
			return false, err
		}
	}
	if err := p.loadMaps(); err != nil {
		return true, err
	}
	if err := p.maps.Layout.Put(uint32(0), xdirectorLayout{Version: xdirectorLayoutVersionLAYOUT_VERSION, FlowSeed: newFlowSeed()}); err != nil {
		return true, fmt.Errorf("write layout version: %w", err)
	}
	return true, nil
}

func (p *Plane) loadMaps() error {
	spec, err := p.spec()
	if err != nil {
		return err
	}
	p.ring, p.sources = spec.Maps[xdirectorMapRings].InnerMap, spec.Maps[xdirectorMapSources].InnerMap
	if err := p.pins.makeFolders(); err != nil {
		return err
	}
	options := ebpf.CollectionOptions{Maps: ebpf.MapOptions{PinPath: p.pins.maps()}}
	var all struct {
		xdirectorMaps
		Watched *ebpf.Map `ebpf:".data.watch"`
	}
	if err := spec.LoadAndAssign(&all, &options); err != nil {
		return fmt.Errorf("open maps under %s: %w", p.pins.maps(), err)
	}
	p.maps, p.watched = all.xdirectorMaps, all.Watched
	return nil
}

// builtIn reads the programs and maps that the binary carries.
func builtIn() (*ebpf.CollectionSpec, error) {
	object, err := loadXdirector()
	if err != nil {
		return nil, fmt.Errorf("read built-in program: %w", err)
	}
	return object, nil
}

// spec is the program with everything set that is the same on all interfaces.
func (p *Plane) spec() (*ebpf.CollectionSpec, error) {
	spec := p.object.Copy() // nil of nil
	if spec == nil {
		var err error
		if spec, err = builtIn(); err != nil {
			return nil, err
		}
	}
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return nil, fmt.Errorf("count CPUs: %w", err)
	}
	sets := flowSets(p.config.FlowTableSize)
	spec.Maps[xdirectorMapFlows].MaxEntries = sets
	spec.Maps[xdirectorMapFlowHints].MaxEntries = sets
	spec.Maps[xdirectorMapTraffic].MaxEntries = serversMax * uint32(cpus)
	spec.Maps[xdirectorMapClients].MaxEntries = max(1, p.config.FlowTableSize/clientsPerFlows)
	spec.Maps[xdirectorMapSources].InnerMap.MaxEntries = max(leastSources, p.config.FlowTableSize/clientsPerFlows)

	for name, value := range map[string]any{
		xdirectorVarTicksPerSecond: uint32(p.flowClock.hz),
		xdirectorVarFlowSeed:       p.seed,
		xdirectorVarFlowSetsMask:   sets - 1,
		xdirectorVarFlowUnitShift:  p.flowClock.shift,
	} {
		if err := spec.Variables[name].Set(value); err != nil {
			return nil, fmt.Errorf("set constant %s: %w", name, err)
		}
	}
	return spec, nil
}

// shared has programs use the maps of the plane.
func (p *Plane) shared() *ebpf.CollectionOptions {
	m := &p.maps
	return &ebpf.CollectionOptions{MapReplacements: map[string]*ebpf.Map{
		xdirectorMapBoxes: m.Boxes, xdirectorMapClients: m.Clients, xdirectorMapFlows: m.Flows, xdirectorMapFlowHints: m.FlowHints,
		xdirectorMapFrames: m.Frames, xdirectorMapInterfaces: m.Interfaces, xdirectorMapRings: m.Rings,
		xdirectorMapServers: m.Servers, xdirectorMapServices: m.Services, xdirectorMapTraffic: m.Traffic,
		xdirectorMapTurns: m.Turns, xdirectorMapSuspects: m.Suspects, xdirectorMapAdverts: m.Adverts,
		xdirectorMapCaptured: m.Captured, xdirectorMapEvents: m.Events, xdirectorMapPeers: m.Peers,
		xdirectorMapRouters: m.Routers, xdirectorMapScratch: m.Scratch, xdirectorMapSenders: m.Senders,
		xdirectorMapTimers: m.Timers, xdirectorMapWords: m.Words, xdirectorMapSettings: m.Settings,
		xdirectorMapVips: m.Vips, xdirectorMapPorts: m.Ports, xdirectorMapPrefixes: m.Prefixes, xdirectorMapMembers: m.Members,
		xdirectorMapLoads:  m.Loads,
		xdirectorMapLimits: m.Limits, xdirectorMapRules: m.Rules, xdirectorMapSources: m.Sources, xdirectorMapRefusals: m.Refusals,
		xdirectorMapRedirectErrors: m.RedirectErrors, xdirectorMapFragments: m.Fragments,
		mapWatched: p.watched,
	}}
}

// loadProgram loads the program of one interface.
func (p *Plane) loadProgram(n *nic) error {
	spec, options, err := p.specOf(n)
	if err != nil {
		return err
	}
	var programs struct {
		Xdirector *ebpf.Program `ebpf:"xdirector"`
	}
	if err := spec.LoadAndAssign(&programs, options); err != nil {
		return fmt.Errorf("load program for %s: %w", n.name, err)
	}
	n.program = programs.Xdirector
	return nil
}

// specOf is the program with the constants of one interface, on the shared maps.
func (p *Plane) specOf(n *nic) (*ebpf.CollectionSpec, *ebpf.CollectionOptions, error) {
	spec, err := p.spec()
	if err != nil {
		return nil, nil, err
	}
	for name, value := range map[string]any{
		xdirectorVarOwnSlot:      n.slot,
		xdirectorVarOwnInterface: uint32(n.index),
		xdirectorVarOwnNetworks:  p.networksOn(n),
	} {
		if err := spec.Variables[name].Set(value); err != nil {
			return nil, nil, fmt.Errorf("set constant %s: %w", name, err)
		}
	}
	return spec, p.shared(), nil
}

// Program returns the program loaded for an interface, nil if there is none. It belongs to the plane: it is for
// running it on made-up packets, in tests and benchmarks.
func (p *Plane) Program(name string) *ebpf.Program {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, n := range p.nics {
		if n.name == name {
			return n.carrier().program
		}
	}
	return nil
}

// errClosed is returned by what is called after Close or Remove.
var errClosed = errors.New("xdp plane is closed")

// Close lets go of everything. What is pinned stays, and forwards.
func (p *Plane) Close() error {
	p.explaining.Lock()
	defer p.explaining.Unlock()
	p.counting.Lock()
	defer p.counting.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	err := p.maps.Close()
	if p.tables != nil {
		for _, service := range p.tables.services {
			service.closeArray()
		}
	}
	if p.watched != nil {
		err = errors.Join(err, p.watched.Close())
	}
	if p.flows != nil {
		err = errors.Join(err, p.flows.close())
	}
	if p.loads != nil {
		err = errors.Join(err, p.loads.close())
	}
	if p.traffic != nil {
		err = errors.Join(err, p.traffic.close())
	}
	if p.directory != nil {
		err = errors.Join(err, p.directory.close())
	}
	if p.clock != nil {
		err = errors.Join(err, p.clock.Close(), p.changer.Close())
	}
	for _, n := range p.nics {
		if n.link != nil {
			err = errors.Join(err, n.link.Close())
		}
		if n.program != nil {
			err = errors.Join(err, n.program.Close())
		}
		err = errors.Join(err, n.dry.close())
	}
	p.nics, p.clock, p.flows, p.loads, p.traffic, p.directory, p.maps, p.watched = nil, nil, nil, nil, nil, nil, xdirectorMaps{}, nil
	p.unlock()
	if err != nil {
		return fmt.Errorf("close xdp plane: %w", err)
	}
	return nil
}

// Remove detaches the programs and removes everything of ours under the pin path, then closes the plane. Forwarding
// by XDP ends.
func (p *Plane) Remove() error {
	p.mu.Lock()
	p.unlock()
	err := p.pins.removeAll()
	p.mu.Unlock()
	return errors.Join(err, p.Close())
}

// unlock lets others use the pin path. The open folder would hold up an unmount.
func (p *Plane) unlock() {
	if p.lock != nil {
		p.lock.Close()
		p.lock = nil
	}
}

// ticksPerSecond is the kernel's HZ: its coarse clock advances once a tick.
func ticksPerSecond() (uint64, error) {
	var tick unix.Timespec
	if err := unix.ClockGetres(unix.CLOCK_MONOTONIC_COARSE, &tick); err != nil {
		return 0, fmt.Errorf("read length of a kernel tick: %w", err)
	}
	length := tick.Nano()
	if length <= 0 || length > int64(time.Second) {
		return 0, fmt.Errorf("read length of a kernel tick: %d ns makes no sense", length)
	}
	return uint64(math.Round(float64(time.Second) / float64(length))), nil
}

// ticks reads the clock that flows are dated by.
func (p *Plane) ticks() (uint64, error) {
	var now struct{ Ticks uint64 }
	if _, err := p.clock.Run(&ebpf.RunOptions{Context: now, ContextOut: &now}); err != nil {
		return 0, fmt.Errorf("read kernel ticks: %w", err)
	}
	return now.Ticks, nil
}
