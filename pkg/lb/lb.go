// Package lb holds the values that describe load balancing: services, their real servers and the wished State of
// a plane. It has no side effects; pkg/director makes a State and a plane (pkg/xdp, pkg/ipvs) applies it.
package lb

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Protocol is an IP protocol number; only TCP, UDP and SCTP are balanced, SCTP by IPVS alone.
type Protocol uint8

// The protocols a service can have, by their IANA numbers.
const (
	TCP  Protocol = 6
	UDP  Protocol = 17
	SCTP Protocol = 132
)

// ParseProtocol turns "tcp", "udp" or "sctp" into a Protocol.
func ParseProtocol(s string) (Protocol, error) {
	switch s {
	case "tcp":
		return TCP, nil
	case "udp":
		return UDP, nil
	case "sctp":
		return SCTP, nil
	}
	return 0, fmt.Errorf("protocol %q: allowed are tcp, udp, sctp", s)
}

// String returns the name used in the configuration, "tcp", "udp" or "sctp".
func (p Protocol) String() string {
	switch p {
	case TCP:
		return "tcp"
	case UDP:
		return "udp"
	case SCTP:
		return "sctp"
	}
	return fmt.Sprintf("protocol-%d", uint8(p))
}

// Scheduler names the way a new flow finds its real server, with keepalived's and IPVS's names.
type Scheduler string

// The schedulers of this version.
const (
	RoundRobin              Scheduler = "rr"
	WeightedRoundRobin      Scheduler = "wrr"
	LeastConnection         Scheduler = "lc"
	WeightedLeastConnection Scheduler = "wlc"
	SourceHashing           Scheduler = "sh"
	MaglevHashing           Scheduler = "mh"
)

// Hashes says that the address of a client, and nothing else, decides which real server its new flows get.
func (s Scheduler) Hashes() bool { return s == SourceHashing || s == MaglevHashing }

// Weighs says that a real server's weight decides its share of the new flows, and that a change of it by little moves few
// clients.
func (s Scheduler) Weighs() bool {
	return s == WeightedRoundRobin || s == WeightedLeastConnection || s == MaglevHashing
}

// Counts says that the active flows of the real servers decide.
func (s Scheduler) Counts() bool { return s == LeastConnection || s == WeightedLeastConnection }

// IgnoresWeights says that a weight is no more than 0 or not 0.
func (s Scheduler) IgnoresWeights() bool { return s == RoundRobin || s == LeastConnection }

// Forwarding is how packets get to a real server.
type Forwarding string

// The ways of forwarding. The kernel's IPVS has all of them, XDP the first.
const (
	Direct Forwarding = ""       // direct return: only the MAC address changes, the real server answers the client
	NAT    Forwarding = "nat"    // address and port are translated both ways: answers come through the director
	Tunnel Forwarding = "tunnel" // in another IP packet (IPIP): the real server answers the client
)

// MAC is an Ethernet address.
type MAC [6]byte

// String returns the usual form, aa:bb:cc:dd:ee:ff.
func (m MAC) String() string {
	return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5])
}

// IsZero says that the address is not known.
func (m MAC) IsZero() bool { return m == MAC{} }

// ServiceKey identifies a service on the wire. The packets of a service with fewer ports or addresses than another one's are
// its own.
type ServiceKey struct {
	Address  netip.Addr // with Bits the first one of a network
	Bits     uint8      // length of the prefix if all addresses of a network are meant; 0: Address alone
	Port     uint16     // 0: all ports
	LastPort uint16     // of a range, above Port; 0: Port alone
	Protocol Protocol
	Mark     uint32 // a firewall mark instead of all of these, of which Address then is unspecified and tells the family; IPVS only
}

// MarkKey is the key of the service that balances packets of one family with a firewall mark.
func MarkKey(mark uint32, ipv6 bool) ServiceKey {
	if ipv6 {
		return ServiceKey{Mark: mark, Address: netip.IPv6Unspecified()}
	}
	return ServiceKey{Mark: mark, Address: netip.IPv4Unspecified()}
}

// String returns "tcp 192.168.5.100:80", as ipvsadm prints it, in lower case; of a network "tcp 192.168.5.0/24:80", of a range
// "tcp 192.168.5.100:8000-8099", of all ports "tcp 192.168.5.100:0", of a firewall mark "fwmark 7", "fwmark 7 ipv6".
func (k ServiceKey) String() string {
	if k.Mark != 0 {
		family := ""
		if k.Address.Is6() {
			family = " ipv6"
		}
		return fmt.Sprintf("fwmark %d%s", k.Mark, family)
	}
	address := k.Address.String()
	if k.Address.Is6() {
		address = "[" + address + "]"
	}
	if k.Bits > 0 {
		address += fmt.Sprintf("/%d", k.Bits)
	}
	port := fmt.Sprint(k.Port)
	if k.LastPort > 0 {
		port += fmt.Sprintf("-%d", k.LastPort)
	}
	return k.Protocol.String() + " " + address + ":" + port
}

// Prefix returns the addresses of the service.
func (k ServiceKey) Prefix() netip.Prefix {
	if k.Bits > 0 {
		return netip.PrefixFrom(k.Address, int(k.Bits)).Masked()
	}
	return netip.PrefixFrom(k.Address, k.Address.BitLen())
}

// Ports returns the first and the last port of the service.
func (k ServiceKey) Ports() (first, last uint16) {
	switch {
	case k.Port == 0:
		return 0, math.MaxUint16
	case k.LastPort == 0:
		return k.Port, k.Port
	}
	return k.Port, k.LastPort
}

// ServerKey identifies a real server within a service.
type ServerKey struct {
	Service ServiceKey
	Address netip.Addr
}

// NextHop says how a frame reaches a real server from here.
type NextHop struct {
	Interface int  // index of the egress interface; 0: the next hop is not known
	MAC       MAC  // of the real server; zero: not known
	Local     bool // the real server is this director itself: the kernel takes the frame
}

// Known says whether frames can be sent to the real server.
func (n NextHop) Known() bool { return n.Local || n.Interface != 0 && !n.MAC.IsZero() }

// RealServer is one server behind a service, with everything a plane needs to send to it.
type RealServer struct {
	Address netip.Addr
	Port    uint16 // only NAT can change it: else the service's, or 0 if that has no single one
	Weight  uint16 // 0: keeps its flows, gets no new ones
	Up      bool   // false: gets no new flows, its flows and persistent clients are scheduled afresh
	Failed  bool   // with Up: it has failed, and keeps its flows, but for those of which a SYN comes: see on_down. XDP only
	NextHop NextHop

	MaxConnections uint32 // so many active flows at most, except those of persistent clients; 0: as many as come
}

// Schedulable says whether new flows may go to the real server.
func (r RealServer) Schedulable() bool { return r.Up && r.Weight > 0 }

// Timeouts are how long a flow is known after its last packet. Zero: the plane's default, which is IPVS's but for Opening.
type Timeouts struct {
	Opening     time.Duration // TCP: one packet was seen, or nothing but SYN; 1 minute
	Established time.Duration // 15 minutes
	Closing     time.Duration // a FIN or RST was seen; 2 minutes
	UDP         time.Duration // 5 minutes
}

// Service is one virtual address, port and protocol and the real servers behind it.
type Service struct {
	Name            string
	Key             ServiceKey
	Scheduler       Scheduler
	Forwarding      Forwarding
	Persistence     time.Duration // whole seconds; 0: none
	PersistenceBits uint8         // so many bits of a client's address count; 0: all
	Group           string        // services with persistence that share their clients' real servers; empty: none
	Timeouts        Timeouts      // XDP only
	RefuseUnknown   bool          // what has no flow and is no SYN is refused; false: it goes where Maglev says. XDP only
	NewFlows        uint32        // so many a second are remembered; 0: the plane's default. XDP only
	Limits          Limits        // XDP only
	RealServers     []RealServer
}

// OnlyIPVS says what no XDP plane can do of the service; empty: nothing.
func (s Service) OnlyIPVS() string {
	switch {
	case s.Key.Mark != 0:
		return "only IPVS balances by firewall mark"
	case s.Key.Protocol == SCTP:
		return "only IPVS balances sctp"
	case s.Forwarding == NAT:
		return "only IPVS forwards by NAT"
	case s.Forwarding == Tunnel:
		return "only IPVS forwards through tunnels"
	}
	return ""
}

// Capped says whether some of the real servers have no more than so many flows.
func (s Service) Capped() bool {
	return slices.ContainsFunc(s.RealServers, func(r RealServer) bool { return r.MaxConnections > 0 })
}

// Limits are what a service takes from its clients. Zero: everything.
type Limits struct {
	// Of all prefixes that a client's address is in, the longest one decides; Deny, if it is in both. One that is in none is
	// denied if there is any in Allow.
	Allow, Deny []netip.Prefix
	SourceBits  uint8 // so many bits of a client's address make it one source; 0: all
	Packets     Rate  // of one source
	New         Rate  // new connections of one source
}

// Rate is how often something may happen. Zero: as often as it likes.
type Rate struct {
	PerSecond uint32
	Burst     uint32 // so often at once; 0: PerSecond
}

// Director is another box that shares virtual addresses with this one: a frame from it was already balanced.
type Director struct {
	MAC     MAC
	Address netip.Addr // a frame from its own address is a client's, and is balanced
}

// Router is a VRRP instance as a plane needs to know it: for the filter of adverts, and for frames to its virtual MAC.
type Router struct {
	Name       string
	Interface  string // where its adverts are
	IPv6       bool
	Version    uint8 // 2 or 3
	VRID       uint8
	Filter     bool         // drop adverts that nobody could use; false: all of them pass
	VirtualMAC bool         // frames to its virtual MAC are balanced while it is MASTER
	Source     netip.Addr   // of our own adverts; invalid: not known yet
	Addresses  []netip.Addr // virtual ones that it holds while MASTER
	Peers      []netip.Addr // unicast; empty: multicast, from anybody
	PeerTTL    uint8        // unicast: the lowest TTL accepted
}

// State is the whole wish for a plane. Apply makes a plane so; applying the same State twice changes nothing.
type State struct {
	Services  []Service
	Directors []Director
	Routers   []Router // ignored by IPVS
}

// Traffic counts what went to one real server. Counters only grow while the plane lives.
type Traffic struct {
	Packets      uint64
	Bytes        uint64 // whole frames on XDP, IP packets on IPVS
	FlowsCreated uint64
	Flows        uint64 // a gauge: flows that have not timed out
	Active       uint64 // a gauge: those of them that are not closing
}

// RedirectErrors counts frames that were lost after an XDP program had redirected them to another interface.
type RedirectErrors struct {
	To     string // interface
	Reason string // for example "down"
	Frames uint64
}

// InterfaceCounters counts every frame that an XDP program saw on one interface.
type InterfaceCounters struct {
	Verdicts map[string]uint64 // by verdict, for example "tx", "pass_not_ours"
	Drops    map[string]uint64 // by reason, for example "no_real_server"
	Lost     []RedirectErrors  // sorted
}

// FlowTable says how full the table of flows is.
type FlowTable struct {
	Size     uint64 // flows that it holds without loss
	Flows    uint64 // that it holds now
	Unstored uint64 // packets of new flows that found no place since the plane lives: a hash chose their real server
}

// Counters is one reading of a plane.
type Counters struct {
	FlowsAt     time.Time // flows that ended before are not counted any more
	FlowTable   FlowTable // zero on IPVS, whose table has no limit
	RealServers map[ServerKey]Traffic
	Refused     map[ServiceKey]map[string]uint64 // packets of the services with Limits or MaxConnections, by reason; empty on IPVS
	Interfaces  map[string]InterfaceCounters     // by interface name; empty on IPVS
	Adverts     map[string]map[string]uint64     // by Router.Name and what was done: passed, absorbed, sampled, or a reason to drop; empty on IPVS
}

// Plane names what forwards a service's packets.
type Plane string

// The planes, in the order of preference.
const (
	XDPNative  Plane = "xdp-native"
	XDPGeneric Plane = "xdp-generic"
	IPVS       Plane = "ipvs"
)

// IsXDP says whether the plane is one of the two XDP modes.
func (p Plane) IsXDP() bool { return strings.HasPrefix(string(p), "xdp") }
