// Package ha runs the VRRP instances of a director: sockets, timers, virtual addresses and gratuitous ARP. It is
// driven by messages only, commands in and reports out, and waits for nobody: an election depends on no health
// check, no map write and no reader of its reports.
package ha

import (
	"net/netip"
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
