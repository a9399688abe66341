// Package ha runs the VRRP instances of a director: sockets, timers, virtual addresses and gratuitous ARP. It is
// driven by messages only, commands in and reports out, and waits for nobody: an election depends on no health
// check, no map write and no reader of its reports.
//
// One goroutine (loop) owns all machines and timers. What may block lives beside it: a holder per instance adds and
// removes its virtual addresses, keeps the record of them and sends gratuitous ARP; a watcher reads the state of the
// interfaces; a log queue writes the log.
//
// Adverts are received by packet sockets, because the Ethernet source of each accepted one is needed. Such sockets
// see a frame before netfilter does: a firewall rule that drops VRRP on its way in has no effect on this package
// (one that drops it on its way out does).
package ha

import (
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/xdirector/xdirector/pkg/lb"
	"github.com/xdirector/xdirector/pkg/vrrp"
)

// Config is everything that ha needs to know.
type Config struct {
	Instances []Instance
	StateDir  string        // where held addresses are recorded, so that a restart knows its own
	DeadMan   time.Duration // lifetime of an address that is not renewed; renewed every sixth of it
}

// Instance is one virtual router on one interface.
type Instance struct {
	Name             string
	Interface        string
	VRRP             vrrp.Config
	VirtualAddresses []netip.Prefix // VRRP.Addresses with their prefix lengths, in the same order
}

// Report is the whole picture of all instances. One is sent after every change, at least every second, and a last
// one with Stopped set when everything is handed over.
type Report struct {
	Instances []InstanceReport
	Stopped   bool
}

// InstanceReport is the picture of one instance.
type InstanceReport struct {
	Name            string
	Interface       string
	State           vrrp.State
	Since           time.Time // wall clock of the last transition
	Reason          string    // cause of the last transition, in plain words
	Source          netip.Addr
	Master          netip.Addr // source of the MASTER's adverts, ours while MASTER; invalid: not known
	MasterPriority  uint8
	Transitions     map[vrrp.State]uint64
	AdvertsSent     uint64
	AdvertsReceived uint64 // accepted
	AdvertsRefused  map[vrrp.Reason]uint64
	Mismatches      []Mismatch
	Peers           []lb.Director // senders of accepted adverts since the start
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
	reports chan Report
	wake    chan struct{} // capacity 1: something is in the mailbox

	mu       sync.Mutex
	config   Config // the newest
	changed  bool   // config was not taken yet
	stopping bool
}

// New makes a Runtime. It opens nothing; Run does.
func New(cfg Config, log *slog.Logger) *Runtime {
	return &Runtime{log: log, reports: make(chan Report, 1), wake: make(chan struct{}, 1), config: cfg}
}

// Configure replaces the configuration. Instances are told apart by name: a new one is started, a missing one handed
// over as by Stop, a changed one told without a change of state; an unchanged one sees nothing. Interface, version
// and VRID of a name must stay. Never blocks.
func (r *Runtime) Configure(cfg Config) {
	r.mu.Lock()
	r.config, r.changed = cfg, true
	r.mu.Unlock()
	poke(r.wake)
}

// Stop hands all instances over to the other routers; when that is through, the last Report has Stopped set and Run
// returns nil. Never blocks.
func (r *Runtime) Stop() {
	r.mu.Lock()
	r.stopping = true
	r.mu.Unlock()
	poke(r.wake)
}

// Reports gives the reports. The newest replaces one that was not read; counters are cumulative, so nothing is lost
// by that. The first comes when all sockets are open and every instance takes part or says why not. The channel is
// never closed.
func (r *Runtime) Reports() <-chan Report { return r.reports }

// mail takes what Configure and Stop left.
func (r *Runtime) mail() (cfg Config, changed, stopping bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	cfg, changed, stopping = r.config, r.changed, r.stopping
	r.changed = false
	return cfg, changed, stopping
}

// publish leaves the report for the reader. Only the loop calls it, so there is room after the second select.
func (r *Runtime) publish(rep Report) {
	select {
	case <-r.reports:
	default:
	}
	r.reports <- rep
}

// poke wakes the reader of a channel of capacity 1, unless that is going to wake anyway.
func poke(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
