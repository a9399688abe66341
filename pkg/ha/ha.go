// Package ha runs the VRRP instances of a director: sockets, timers, virtual addresses and gratuitous ARP. It is
// driven by messages only, commands in and reports out, and waits for nobody: an election depends on no health
// check, no map write and no reader of its reports.
//
// One goroutine (loop) on a thread of its own owns all machines and timers, and does nothing else: it waits in epoll for
// packets, for the first of its deadlines and for the bell of its inbox. Nothing that it does depends on the number of
// instances but what is due. What may block lives beside it: a holder per instance, for which a crew of a few goroutines
// adds and removes its virtual addresses, keeps the record of them and announces them; a watcher reads the state of the
// interfaces; a log queue writes the log.
//
// One packet socket per interface and family receives adverts with their Ethernet header, one for all sends those to the
// multicast groups as whole frames. Such sockets are beside netfilter: a firewall rule about VRRP has no effect on them. Adverts
// to unicast peers are routed by the kernel, and pass through its rules on their way out.
package ha

import (
	"log/slog"
	"maps"
	"net/netip"
	"time"

	"github.com/xdirector/xdirector/pkg/lb"
	"github.com/xdirector/xdirector/pkg/vrrp"
)

// Config is everything that ha needs to know. It is sent to the election's process as JSON.
type Config struct {
	Instances []Instance
	StateDir  string        // where held addresses are recorded, so that a restart knows its own
	DeadMan   time.Duration // lifetime of an address that is not renewed; renewed every sixth of it
}

// Instance is one virtual router on one interface.
type Instance struct {
	Name             string
	Interface        string
	VRRP             vrrp.Config      // as configured: ha puts Track and TrackInterfaces into Adjust, Yield and Hold
	VirtualAddresses []VirtualAddress // VRRP.Addresses in the same order, then those that are not advertised
	Routes           []Route          // there while MASTER
	Source           netip.Addr       // of adverts; invalid: the first own address of the interface (IPv6: its link-local one)
	StartupDelay     time.Duration    // from the start of the process to taking part
	ARPInterval      time.Duration    // between two frames of gratuitous ARP or neighbour advertisement; 0: none
	VirtualMAC       string           // name of the macvlan that holds the addresses with 00-00-5E-00-01-VRID (02: IPv6); empty: none
	Accept           bool             // packets for the virtual addresses reach this box; false: they are dropped, but those of Services
	Services         []lb.ServiceKey  // of its addresses
	Group            string           // sync group; empty: none
	TrackInterfaces  []TrackInterface // others than its own, which always counts
	Slot             uint32           // of the instance in the plane's tables, see FastPath; 0: it has none
	Absorb           bool             // repeats of the MASTER's advert may be absorbed by the plane
}

// VirtualAddress is an address that an instance holds while MASTER.
type VirtualAddress struct {
	Prefix    netip.Prefix
	Interface string // other than the instance's; empty: that, or its virtual MAC's
	Label     string // IPv4, at most 15 bytes; empty: none
	Scope     string // global, site, link or host; empty: global
}

// Route is a route that an instance installs while MASTER.
type Route struct {
	Destination netip.Prefix
	Via         netip.Addr // invalid: on the link
	Interface   string     // empty: the instance's
	Source      netip.Addr // preferred source; invalid: none
	Metric      uint32
	Table       uint32 // 0: main
}

// TrackInterface makes an instance depend on an interface.
type TrackInterface struct {
	Name   string
	Weight int // -253 to 253. 0: FAULT while it is down; negative: added to the priority while down; positive: while up
}

// Track is what checks and operators say about an instance, see Runtime.Track.
type Track struct {
	Adjust int    // added to the priority, see vrrp.Machine.Priority
	Text   string // what Adjust is made of, in plain words: "script chk failed: -20"
	Hold   string // why the instance must be in FAULT, in plain words; empty: it may take part
	Yield  bool   // an operator's failover: leave MASTER to any other director
	Deaf   bool   // adverts may be lost at the moment, since programs are being attached: silence proves nothing
}

// FastPath is what the plane knows of adverts, as the election uses it: shared memory, never a call that can wait. A slot
// is an Instance's.
type FastPath interface {
	// Gate opens or closes the plane for frames to the virtual MAC of an instance.
	Gate(slot uint32, master bool)
	// SecondChance is for the connections that outlive a handover, until then in CLOCK_MONOTONIC: the plane gives to previous, the
	// MASTER before us on that interface, what it doesn't know. The zero MAC: we were that, and the plane looks up what comes so.
	SecondChance(slot uint32, previous lb.MAC, interfaceIndex int, until vrrp.Time)
	// Absorb has the plane absorb exact repeats of the frame, Ethernet header included, and wake us when none came for
	// down. False: it can't, and every advert still arrives. With a down of 0 it absorbs nothing, but no limit on the adverts of a
	// sender keeps back repeats of the frame.
	Absorb(slot uint32, frame []byte, down time.Duration) bool
	// Release ends Absorb. When it returns, no further advert is absorbed and LastSeen is final.
	Release(slot uint32)
	// LastSeen is when an advert was absorbed last, in CLOCK_MONOTONIC; 0: none since Absorb.
	LastSeen(slot uint32) vrrp.Time
	// Renew lets all absorbing go on until then, in CLOCK_MONOTONIC: nobody absorbs for a process that is gone.
	Renew(until vrrp.Time)
	// FD becomes readable when a timer of Absorb has run out.
	FD() int
	// Expired takes the slots whose timers have run out since it was called last.
	Expired() []uint32
}

// Options are what a supervisor gives to the election, and what a plane does for it. The zero value is an election that
// stands alone.
type Options struct {
	// Lease is a word of memory shared with the supervisor, in which the loop stores until when (CLOCK_MONOTONIC,
	// nanoseconds) it will have stored again: SilentIntervals of the fastest MASTER ahead; without one, some seconds. 0: it has
	// not begun. When that time is over, this process is dead or stands still. nil: nobody looks.
	Lease *uint64
	// Alarm is a timerfd of CLOCK_MONOTONIC, shared with the supervisor, that the loop moves to the time in Lease whenever a
	// MASTER renews that: who waits for the end of the lease need not wake before. 0: there is none.
	Alarm int
	// HandedOver is a second such word, in which the supervisor stores before it sends ready packets up to which interval
	// (nanoseconds) it does so. An instance with that or a shorter one steps back before it sends anything; after a restart it
	// begins as BACKUP, and keeps what it still holds until the new MASTER is heard. The loop stores 0 when all know. nil: nobody
	// hands over.
	HandedOver *uint64
	// FastPath absorbs adverts and gates frames to virtual MACs; nil: none. See Runtime.Use.
	FastPath FastPath
	// Realtime makes the process one that a busy box does not hold up: the loop's thread is SCHED_FIFO, memory stays in
	// place, the OOM killer takes others first. What the kernel did not permit is in Report.Denied. For a process that does
	// nothing but the election.
	Realtime bool
}

// ReadyPacket is a priority-0 advert of one MASTER instance, ready to be sent in its name by another process, see Sender.
type ReadyPacket struct {
	Interface   int        // index of the interface that Packet, then an Ethernet frame, goes out of; 0: Packet is an IP packet, routed by the kernel
	Destination netip.Addr // the group, or a unicast peer
	Packet      []byte
	Interval    time.Duration // between adverts of the instance
}

// Report is the whole picture of all instances. One is sent at once after a change of state, with little delay after other
// changes (thousands of them make tens of reports), every ten seconds for the counters, and a last one with Stopped set
// when everything is handed over.
type Report struct {
	Instances []InstanceReport
	Stopped   bool
	Lateness  Histogram // how late this process was for its own timers
	Denied    []string  // what the kernel did not permit (real-time scheduling, locked memory), with the cure
}

// Histogram counts durations; the bounds are those of LatenessBounds.
type Histogram struct {
	Counts []uint64 // by bound, not cumulative; one more than bounds
	Sum    time.Duration
}

// LatenessBounds are the upper bounds of the buckets of Report.Lateness.
func LatenessBounds() []time.Duration {
	return []time.Duration{100 * time.Microsecond, 300 * time.Microsecond, time.Millisecond, 3 * time.Millisecond,
		10 * time.Millisecond, 30 * time.Millisecond, 100 * time.Millisecond, 300 * time.Millisecond, time.Second}
}

// InstanceReport is the picture of one instance. A report of a thousand is sent as JSON: what is nothing is left out.
type InstanceReport struct {
	Name            string
	Interface       string
	State           vrrp.State
	Since           time.Time              // wall clock of the last transition
	Reason          string                 `json:",omitempty"` // cause of the last transition, in plain words
	Source          netip.Addr             `json:",omitzero"`
	Master          netip.Addr             `json:",omitzero"` // source of the MASTER's adverts, ours while MASTER; invalid: not known
	MasterPriority  uint8                  `json:",omitempty"`
	Transitions     map[vrrp.State]uint64  `json:",omitempty"`
	AdvertsSent     uint64                 `json:",omitempty"`
	AdvertsReceived uint64                 `json:",omitempty"` // accepted
	AdvertsRefused  map[vrrp.Reason]uint64 `json:",omitempty"`
	AdvertsByForm   map[string]uint64      `json:",omitempty"` // accepted ones of version 3 over IPv4, by form of the checksum: rfc5798, rfc9568
	AdvertsAbsorbed uint64                 `json:",omitempty"` // by the plane, not among the received ones
	Mismatches      []Mismatch             `json:",omitempty"`
	Peers           []lb.Director          `json:",omitempty"` // senders of accepted adverts since the start
	Priority        uint8                  // in use: the configured one with what is tracked
	Tracked         string                 `json:",omitempty"` // what changes the priority or keeps the instance down, in plain words; empty: nothing
	Restored        uint64                 `json:",omitempty"` // virtual addresses that somebody else removed, put back
}

// Mismatch is a difference to another router on the same virtual router.
type Mismatch struct {
	Kind string // "addresses", "collision", or the vrrp.Reason of a refusal that is a configuration difference
	Peer netip.Addr
	Text string // one plain line that names the other box and the cure
}

// Runtime runs the instances. Configure, Stop and Reports may be called from any goroutine at any time.
type Runtime struct {
	log     *slog.Logger
	options Options
	reports chan Report
	ready   chan []ReadyPacket
	inbox   inbox
}

// New makes a Runtime that stands alone. It opens nothing; Run does.
func New(cfg Config, log *slog.Logger) *Runtime { return NewWith(cfg, Options{}, log) }

// NewWith makes a Runtime with a supervisor or a plane. It opens nothing; Run does. The election waits for the log: one that
// may block belongs behind a logging.Queue.
func NewWith(cfg Config, opts Options, log *slog.Logger) *Runtime {
	return &Runtime{log: log, options: opts, reports: make(chan Report, 1), ready: make(chan []ReadyPacket, 1),
		inbox: inbox{bell: -1, letters: letters{config: &cfg, plane: opts.FastPath, newPlane: opts.FastPath != nil}}}
}

// Configure replaces the configuration. Instances are told apart by name: a new one is started, a missing one handed
// over as by Stop, a changed one told without a change of state; an unchanged one sees nothing. One with another
// interface, version, VRID, family or virtual MAC is another virtual router: the old one is handed over first. Never blocks.
func (r *Runtime) Configure(cfg Config) {
	r.inbox.put(func(l *letters) { l.config = &cfg })
}

// Track replaces what checks and operators say, by instance; one that is not in it is as configured. Never blocks.
func (r *Runtime) Track(by map[string]Track) {
	by = maps.Clone(by)
	if by == nil {
		by = map[string]Track{}
	}
	r.inbox.put(func(l *letters) { l.tracks = by })
}

// Stop hands all instances over to the other routers; when that is through, the last Report has Stopped set and Run
// returns nil. Never blocks.
func (r *Runtime) Stop() {
	r.inbox.put(func(l *letters) { l.stop = true })
}

// Reports gives the reports. The newest replaces one that was not read; counters are cumulative, so nothing is lost
// by that. The first comes when all sockets are open and every instance takes part or says why not. The channel is
// never closed.
func (r *Runtime) Reports() <-chan Report { return r.reports }

// Ready gives the priority-0 adverts of all instances that are MASTER now, whenever that set or a packet in it changes; an
// empty list when none is. The newest replaces one that was not read. The channel is never closed.
func (r *Runtime) Ready() <-chan []ReadyPacket { return r.ready }

// Use replaces the plane that absorbs adverts; nil: there is none. The former one is released, and closed if it has a
// method for that, as the last one is when Run ends. Never blocks.
func (r *Runtime) Use(f FastPath) {
	r.inbox.put(func(l *letters) { l.plane, l.newPlane = f, true })
}

// publish leaves the report for the reader. Only the loop calls it, so there is room after the second select.
func (r *Runtime) publish(rep Report) {
	select {
	case <-r.reports:
	default:
	}
	r.reports <- rep
}

// publishReady does it for ready packets.
func (r *Runtime) publishReady(list []ReadyPacket) {
	select {
	case <-r.ready:
	default:
	}
	r.ready <- list
}

// poke wakes the reader of a channel of capacity 1, unless that is going to wake anyway.
func poke(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
