package lb

import (
	"net/netip"
	"time"
)

// Why a packet goes to its real server: the values of Explanation.Why.
const (
	WhyFlow        = "flow"        // its flow is known
	WhyPersistence = "persistence" // its client is bound to it
	WhyTurn        = "turn"        // the next place of the schedule
	WhyHash        = "hash"        // of the client's address, by which the service schedules
	WhyFallback    = "fallback"    // the same, in a service that schedules otherwise: the packet has no turn
	WhyLeast       = "least"       // it has the fewest active flows for its weight
	WhyRoom        = "room"        // the one that it should have has as many as it may; the next place with room
)

// What a known flow is in: the values of FlowState.Phase.
const (
	PhaseOpening     = "opening" // TCP: one packet was seen, or nothing but SYN
	PhaseEstablished = "established"
	PhaseClosing     = "closing" // a FIN or RST was seen
	PhaseUDP         = "udp"
)

// FlowState is a flow as a plane remembers it.
type FlowState struct {
	Phase      string
	Left       time.Duration // until it is forgotten; 0: it is
	RealServer netip.Addr    // invalid: it is gone
}

// Exit is the way out of this box to a real server.
type Exit struct {
	Local       bool   // it is this box: the kernel takes the frame
	Interface   string // that the frame leaves by
	VLAN        uint16 // id in its tag; 0: none
	MAC, Source MAC    // destination and source of the frame
}

// Explanation is what becomes of one packet, and why.
type Explanation struct {
	Interface  string     // that the packet is for; empty: none of ours
	Verdict    string     // "tx", "redirect", "drop", "pass_not_ours" ..., as in InterfaceCounters
	Drop       string     // the reason, with the verdict "drop"
	Advert     string     // what becomes of an advert for one of our routers; empty: it is none
	Service    ServiceKey // zero: none
	RealServer netip.Addr // invalid: none
	NextHop    Exit
	Why        string // one of the Why constants; empty: it goes to no real server
	Place      uint32 // in the schedule's ring of so many places, from 1, with WhyTurn, WhyHash, WhyFallback and WhyRoom; 0: none
	Places     uint32
	Flow       *FlowState // that the plane has of it, whatever it is worth; nil: none
	Stored     bool       // it begins a flow that will be remembered
	Flooded    bool       // it will not, because the service has too many new ones
	Frame      []byte     // as it would be sent, or as it came
}
