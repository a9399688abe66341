// Package vrrp is the VRRP protocol without any input or output: a codec for adverts (VRRPv2 as keepalived speaks
// it, RFC 3768 with RFC 2338's simple password; VRRPv3 over IPv4 and IPv6, RFC 9568) and the election machine. The
// machine is told the time and what happened, and answers with actions and with the time at which it wants to be called
// next; pkg/ha carries the actions out. No address in this package has a zone.
package vrrp

import (
	"net/netip"
	"time"
)

// Time is a reading of the monotonic clock: the duration since an arbitrary, fixed moment. A clock that goes on while the
// box is suspended (CLOCK_BOOTTIME) lets a MASTER notice that it was away.
type Time = time.Duration

// State is the state of an instance. The numbers are those of the metric xdirector_vrrp_state.
type State uint8

// The states of an instance.
const (
	Init State = iota
	Backup
	Master
	Fault
)

// String returns INIT, BACKUP, MASTER or FAULT.
func (s State) String() string { return [...]string{"INIT", "BACKUP", "MASTER", "FAULT"}[s&3] }

// Owner is the priority of the router that owns the virtual addresses as its real ones.
const Owner = 255

// Config is what one instance needs to take part in its election.
type Config struct {
	Name         string        // of the instance, for the other members of its sync group; empty: they say the VRID
	Version      uint8         // 2 or 3
	VRID         uint8         // 1-255
	Priority     uint8         // 1-255
	Adjust       int           // by what is tracked, see Machine.Priority
	Interval     time.Duration // between adverts: v2 whole seconds 1-255, v3 10ms-40.95s in steps of 10ms
	Preempt      bool          // take over from a MASTER of lower priority
	PreemptDelay time.Duration // hear a lower MASTER this long before taking over from it
	Password     string        // v2 only, at most 8 bytes; empty: no authentication
	Addresses    []netip.Addr  // advertised, in this order, all of one family; version 3 if it is IPv6

	DownAdverts int          // of the MASTER that may be missed before its place is taken, 1-100; 0: 3
	Checksum    ChecksumForm // of version 3 over IPv4, as sent; both forms are accepted
	Peers       []netip.Addr // unicast: adverts go to these and are accepted from these only; empty: multicast
	PeerTTL     uint8        // unicast: the lowest TTL or hop limit that an advert may arrive with; 0: 255
	Announce    Announcing
	Yield       bool   // an operator's failover: hand over, and take over only from silence, with the lowest priority
	Deaf        bool   // adverts may be lost here at the moment: a BACKUP takes nothing over from silence
	Hold        string // why this router must not be MASTER (a failed check, maintenance): hand over, then FAULT; empty: it may
}

// ChecksumForm says what the checksum of version 3 over IPv4 covers.
type ChecksumForm uint8

// The forms; the zero value is what keepalived and FRR demand.
const (
	PseudoHeader ChecksumForm = iota // RFC 5798: a pseudo-header and the message
	MessageOnly                      // RFC 9568: the message alone
)

// Announcing says how often the neighbours are told who holds the addresses, by gratuitous ARP or unsolicited neighbour
// advertisements. The zero value is keepalived's default.
type Announcing struct {
	Repeat        int           // frames per address in a burst, 1-100; 0: 5
	Delay         time.Duration // from the first burst of a new MASTER to the second; 0: 5s; negative: no second one
	Refresh       time.Duration // a MASTER announces itself again so often; 0: never
	RefreshRepeat int           // frames per address then; 0: 1
	LowerRepeat   int           // frames per address after an advert of a lower MASTER; 0: Repeat; negative: none
	LowerDelay    time.Duration // to the second burst then; 0: Delay; negative: no second one
}

// Advert is one VRRP advertisement.
type Advert struct {
	Version   uint8
	VRID      uint8
	Priority  uint8         // 0: the sender stops
	Interval  time.Duration // of the sender
	AuthType  uint8         // v2: 0 none, 1 simple password
	Checksum  ChecksumForm  // v3 over IPv4
	Password  [8]byte       // v2: as it stands in the packet
	Addresses []netip.Addr
}

// Reason names why an advert was refused; it is the label of xdirector_vrrp_adverts_refused_total.
type Reason string

// The reasons to refuse an advert.
const (
	RefusedTTL         Reason = "ttl"         // too low: it crossed a router, or was forged
	RefusedDestination Reason = "destination" // not the multicast group; with unicast peers: not our own address
	RefusedFragment    Reason = "fragment"
	RefusedLength      Reason = "length"
	RefusedVersion     Reason = "version"
	RefusedType        Reason = "type"
	RefusedChecksum    Reason = "checksum"
	RefusedCount       Reason = "address_count" // no address
	RefusedInterval    Reason = "interval"      // v2: not ours; v3: 0
	RefusedAuthType    Reason = "auth_type"
	RefusedPassword    Reason = "password"
	RefusedSource      Reason = "source"    // not a unicast address, or ours
	RefusedPeer        Reason = "peer"      // not one of the unicast peers
	RefusedCollision   Reason = "collision" // v2: none of its addresses is ours
)
