// Package config turns the YAML file of a director into a valid, complete and typed configuration: every default is
// filled in, and nothing that reads a Config has to check it again. Reading is strict: an unknown key, a wrong type,
// a duplicate or a value out of range is a Problem with its place in the file, and all problems of a file come at
// once. Nothing here looks at the box: whether an interface exists is not this package's question.
package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/xdirector/xdirector/pkg/health"
	"github.com/xdirector/xdirector/pkg/lb"
)

// DefaultPath is the file that is read when none is named.
const DefaultPath = "/etc/xdirector/config.yaml"

// maxFileSize is far above any real file, and keeps a mistaken name (/dev/zero) from eating the memory.
const maxFileSize = 16 << 20

// Config is a whole configuration, valid and with all defaults filled in. It is never changed after Parse.
type Config struct {
	RouterID   string // empty: the host name, which the one that runs it looks up
	StateDir   string // absolute
	Instances  []Instance
	Scripts    []Script    // vrrp.scripts, which instances track
	SyncGroups []SyncGroup // vrrp.sync_groups
	Services   []Service
	Dataplane  Dataplane
	Notify     Notify
	Metrics    Metrics
	Control    Control
	Log        Log
	Warnings   []Problem // what is valid but most likely a mistake, in the order of the file
}

// Instance is one VRRP virtual router.
type Instance struct {
	Name             string // unique
	Interface        string // a name that Linux allows; it need not exist
	Version          uint8  // 2 or 3
	VirtualRouterID  uint8  // 1-255, unique on the interface
	Priority         uint8  // 1-255
	AdvertInterval   time.Duration
	Preempt          bool
	PreemptDelay     time.Duration
	Password         string           // version 2 only, at most 8 bytes; empty: no authentication
	VirtualAddresses []VirtualAddress // in the order of the file, all of one family

	SourceAddress     netip.Addr       // source_address: of adverts; invalid: chosen
	DownTimerAdverts  int              // down_timer_adverts 1-100 (3)
	StartupDelay      time.Duration    // startup_delay (0s)
	Checksum          string           // checksum: ChecksumRFC5798 or ChecksumRFC9568; version 3 over IPv4
	UnicastPeers      []netip.Addr     // unicast_peers
	UnicastTTL        uint8            // unicast_ttl 1-255 (255): the lowest TTL accepted from peers; adverts are always sent with 255
	GARP              GARP             // garp
	ExcludedAddresses []VirtualAddress // excluded_addresses: held but not advertised; of either family
	Routes            []Route          // routes
	VirtualMAC        string           // virtual_mac: true (vrrp4-VRID, vrrp6-VRID), or {name: ...}; empty: none
	Accept            bool             // accept (true)
	Track             Track            // track
	Notify            *Hooks           // notify; nil: none
}

// IPv6 says which family the instance advertises.
func (i Instance) IPv6() bool {
	return len(i.VirtualAddresses) > 0 && i.VirtualAddresses[0].Prefix.Addr().Is6()
}

// Held lists all addresses that the instance holds while MASTER, the advertised ones first.
func (i Instance) Held() []VirtualAddress {
	return slices.Concat(i.VirtualAddresses, i.ExcludedAddresses)
}

// The values of Instance.Checksum: what the checksum of version 3 over IPv4 covers.
const (
	ChecksumRFC5798 = "rfc5798" // a pseudo-header and the message, as keepalived and FRR demand by default
	ChecksumRFC9568 = "rfc9568" // the message alone
)

// VirtualAddress is an address that an instance holds while MASTER: an address with or without a prefix length, or
// {address, interface, label, scope}.
type VirtualAddress struct {
	Prefix    netip.Prefix // the address is not masked; a bare address has all bits
	Interface string       // another than the instance's; empty: that
	Label     string       // IPv4, at most 15 bytes; empty: none
	Scope     string       // IPv4: site, link or host; empty: global
}

// GARP is how gratuitous ARP and unsolicited neighbour advertisements are sent; keepalived's defaults.
type GARP struct {
	Repeat        int           // repeat 1-100 (5)
	Delay         time.Duration // delay (5s); 0s: no second burst
	Refresh       time.Duration // refresh (0s): never
	RefreshRepeat int           // refresh_repeat 1-100 (1)
	Interval      time.Duration // interval (0s) between two frames
	LowerRepeat   int           // lower_priority_repeat 0-100 (repeat); 0: none
	LowerDelay    time.Duration // lower_priority_delay (delay)
}

// Route is a route that is there while the instance is MASTER: {destination, via, interface, source, metric, table}.
type Route struct {
	Destination netip.Prefix
	Via         netip.Addr // invalid: on the link
	Interface   string     // empty: the instance's
	Source      netip.Addr // preferred source; invalid: none
	Metric      uint32
	Table       uint32 // 0: main
}

// Track is what an instance depends on. Weights are -253 to 253. 0, the default: FAULT while it is bad; negative: added
// to the priority while it is bad; positive: added while it is good.
type Track struct {
	Interfaces []TrackInterface
	Scripts    []TrackScript
	Files      []TrackFile
	Processes  []TrackProcess
	Services   []TrackService
}

// TrackInterface is a tracked interface: {name, weight}.
type TrackInterface struct {
	Name   string
	Weight int
}

// TrackScript names one of vrrp.scripts: {name, weight}. Weight is the script's own by default.
type TrackScript struct {
	Name   string
	Weight int
}

// TrackFile is a tracked file: {path, weight}. The number in the file, times the weight, is added to the priority; with
// weight 0 any other number than 0 is FAULT. A file that is missing counts as 0, an empty one as 1.
type TrackFile struct {
	Path   string
	Weight int
}

// TrackProcess is good while at least Min processes have the name: {name, min, weight}.
type TrackProcess struct {
	Name   string // of the executable, or a whole path
	Min    int    // min 1-1000 (1)
	Weight int
}

// TrackService is good while at least MinUp real servers of the service can take new flows: {name, min_up, weight}.
type TrackService struct {
	Name   string
	MinUp  int // min_up 1-65535 (1)
	Weight int
}

// Script is a check of anything by a command: {name, command, interval, timeout, rise, fall, weight, user}.
type Script struct {
	Name     string
	Command  []string      // an absolute path and its arguments; never a shell's line
	Interval time.Duration // interval (1s)
	Timeout  time.Duration // timeout (interval)
	Rise     int           // rise (1): good after so many exits with 0
	Fall     int           // fall (1): bad after so many others
	Weight   int           // weight (0), where an instance gives none
	User     string        // user (nobody): never root unless written
}

// SyncGroup is instances that change state together: {name, instances, notify}.
type SyncGroup struct {
	Name      string
	Instances []string // two or more
	Notify    *Hooks   // notify; nil: none
}

// Service is a virtual address, port and protocol, or a firewall mark, with the real servers behind it.
type Service struct {
	Name         string     // unique
	Address      netip.Addr // with Bits the first one of a network; invalid with a firewall mark
	Bits         uint8      // length of the network's prefix; 0: Address alone
	Port         uint16     // 0: all ports
	LastPort     uint16     // of a range, above Port; 0: Port alone
	FirewallMark uint32     // of packets, instead of address, port and protocol; 0: none
	Protocol     lb.Protocol
	Scheduler    lb.Scheduler
	Forwarding   lb.Forwarding
	Persistence  time.Duration // persistence.timeout: whole seconds; 0: none
	// PersistenceBits is persistence.prefix: so many bits of a client's address count; 0: all.
	PersistenceBits uint8
	Group           string        // persistence.group: services that share their clients' real servers; empty: none
	Timeouts        lb.Timeouts   // timeouts: syn, established, closing, udp; zero: the plane's
	RefuseUnknown   bool          // unknown: refuse
	NewFlows        uint32        // new_flows a second that are remembered; 0: the plane's
	Limits          lb.Limits     // allow, deny, limits: prefix, new_connections, packets
	Check           *health.Check // nil: none
	SlowStart       time.Duration // slow_start (0s: none)
	OnDown          string        // on_down: one of the OnDown constants
	Quorum          int           // quorum (1): so much weight must be up
	Hysteresis      int           // hysteresis (0): below Quorum
	SorryServer     SorryServer   // sorry_server; without an address: none
	RealServers     []RealServer  // at least one
	Notify          *Hooks        // notify: of the quorum; nil: none
}

// Key identifies the service on the wire.
func (s Service) Key() lb.ServiceKey {
	if s.FirewallMark != 0 {
		return lb.MarkKey(s.FirewallMark, len(s.RealServers) > 0 && s.RealServers[0].Address.Is6())
	}
	return lb.ServiceKey{Address: s.Address, Bits: s.Bits, Port: s.Port, LastPort: s.LastPort, Protocol: s.Protocol}
}

// The values of Service.OnDown: what becomes of the flows of a real server that goes down.
const (
	OnDownRemove = "remove"        // the default: they are scheduled afresh
	OnDownKeep   = "keep-weight-0" // they stay, and it gets no new ones
)

// SorryServer gets the new flows of a service that has lost its quorum: {address, port}.
type SorryServer struct {
	Address netip.Addr // none of the real servers'
	Port    uint16     // the service's
}

// RealServer is one server behind a service.
type RealServer struct {
	Address        netip.Addr    // unique in the service
	Port           uint16        // only NAT can change it: else the service's; 0: the packet's
	Weight         uint16        // 0: no new connections
	MaxConnections uint32        // max_connections: no new ones while it has so many; 0: as many as come
	Check          *health.Check // its own, else the service's; nil: it counts as up always
	Notify         *Hooks        // notify; nil: none
}

// The values of Dataplane.Mode.
const (
	ModeAuto       = "auto"
	ModeXDPNative  = string(lb.XDPNative)
	ModeXDPGeneric = string(lb.XDPGeneric)
	ModeIPVS       = string(lb.IPVS)
)

// The values of Dataplane.VRRPFastPath.
const (
	FastPathOff    = "off"
	FastPathFilter = "filter" // the default
	FastPathAbsorb = "absorb"
)

// AbsorbInterval is the longest advert interval for which FastPathAbsorb is worth its trouble; with a longer one an
// instance has FastPathFilter.
const AbsorbInterval = 30 * time.Millisecond

// Absorbs says whether repeats of the MASTER's adverts to the instance are to be absorbed.
func (d Dataplane) Absorbs(i Instance) bool {
	return d.VRRPFastPath == FastPathAbsorb && i.AdvertInterval <= AbsorbInterval
}

// Dataplane says how packets are forwarded.
type Dataplane struct {
	Mode          string   // one of the Mode constants
	Interfaces    []string // those that get a program; never empty when there are instances
	FlowTableSize uint32   // flows that can be held
	PinPath       string   // absolute; a folder on a bpffs
	DeadMan       time.Duration
	Linger        time.Duration // from the end of our addresses to the end of forwarding, at a stop
	// VRRPFastPath is vrrp_fast_path: one of the FastPath constants. Without services it has an effect only where it is
	// written.
	VRRPFastPath        string
	VRRPFastPathWritten bool
}

// Metrics says where Prometheus and browsers are answered.
type Metrics struct {
	Listen string // host:port; an empty host is every address
}

// Control says where the command line reaches the director.
type Control struct {
	Socket string // absolute, short enough for a unix socket
}

// Log says what is logged and how.
type Log struct {
	Level  slog.Level
	Format string // text, json or journal; empty: journal under systemd, else text
}

// Load reads and parses the file at path. The error is Problems when the file could be read but not used.
func Load(path string) (*Config, error) {
	c, _, err := LoadText(path)
	return c, err
}

// LoadText is Load, and returns what the file says as well.
func LoadText(path string) (*Config, []byte, error) {
	data, exposed, err := read(path)
	if err != nil {
		return nil, nil, fmt.Errorf("read configuration %s: %w%s", path, err, cure(err))
	}
	c, err := parseFile(path, data, exposed)
	return c, data, err
}

// read returns the content of a file, and who else could change it; see exposed.
func read(path string) (data []byte, writers string, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, "", bare(err)
	}
	defer f.Close()
	data, err = io.ReadAll(io.LimitReader(f, maxFileSize+1))
	if err != nil {
		return nil, "", bare(err)
	}
	if len(data) > maxFileSize {
		return nil, "", fmt.Errorf("it is larger than %d MiB: name the YAML file of the director", maxFileSize>>20)
	}
	return data, exposed(f, os.Geteuid()), nil
}

// bare takes "open PATH:" off, since Load names the path itself.
func bare(err error) error {
	if pathError, ok := errors.AsType[*fs.PathError](err); ok {
		return pathError.Err
	}
	return err
}

func cure(err error) string {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return ": write it, or name another file with --config FILE"
	case errors.Is(err, fs.ErrPermission):
		return ": run as root; or for the service: chgrp xdirector and chmod 640"
	case errors.Is(err, syscall.EISDIR):
		return ": name a file with --config FILE"
	}
	return ""
}

// Parse makes a Config of the content of a file; the name of the file is for messages only. The error is Problems:
// every one that the file has, or one alone when it isn't YAML.
func Parse(file string, data []byte) (*Config, error) { return parseFile(file, data, "") }

func parseFile(file string, data []byte, exposed string) (*Config, error) {
	d := newDecoder(file, len(data))
	root := d.document(data)
	if root == nil {
		return nil, d.problems
	}
	c := d.config(value{node: root, place: place{root.Line, root.Column}})
	d.relations(c)
	d.ownership(c, exposed)
	if len(d.problems) > 0 {
		d.problems.sort()
		return nil, d.problems
	}
	d.warnings.sort()
	c.Warnings = d.warnings
	return c, nil
}
