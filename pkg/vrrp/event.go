package vrrp

import "net/netip"

// Event is something that happened to an instance; one of the types below, given to Machine.Step.
type Event interface{ event() }

// Start says that the instance can take part: its interface is usable and Source is its own address there. It is
// given at the beginning and again when a failure is over. With Resume the machine continues as MASTER: it is the
// same director, restarted, whose last advert is younger than three intervals.
type Start struct {
	Source netip.Addr
	Resume bool
}

// Packet is a received IP packet of protocol 112. Step checks all of it; a refused one has no effect but Refused.
type Packet struct {
	Source, Destination netip.Addr
	TTL                 uint8
	Fragment            bool   // more fragments follow, or the offset is not 0
	Payload             []byte // after the IP header, up to the IP total length; not kept
}

// Tick says that time went by; it is given at Machine.Deadline, and does nothing before.
type Tick struct{}

// Fail says that the instance can't take part any more, for Reason. Addresses go at once.
type Fail struct{ Reason string }

// SourceChange says that the own address of the interface is another one now.
type SourceChange struct{ Source netip.Addr }

// Configure replaces the configuration without a change of state; Version and VRID must stay.
type Configure struct{ Config Config }

// Stop begins the handover that ends in Stopped.
type Stop struct{}

func (Start) event()        {}
func (Packet) event()       {}
func (Tick) event()         {}
func (Fail) event()         {}
func (SourceChange) event() {}
func (Configure) event()    {}
func (Stop) event()         {}

// Action is something that the owner of the machine must do, in the order given.
type Action interface{ action() }

// Send sends one advert from the current source to the group.
type Send struct{ Advert Advert }

// AddAddresses puts the virtual addresses on the interface.
type AddAddresses struct{}

// RemoveAddresses takes the virtual addresses off the interface.
type RemoveAddresses struct{}

// Announce sends one burst of gratuitous ARP for all virtual addresses.
type Announce struct{}

// Changed tells of a transition. Reason says the cause in plain words, with the other box where there is one.
type Changed struct {
	From, To State
	Reason   string
}

// Accepted tells of an advert that took part in the election.
type Accepted struct {
	Source   netip.Addr
	Priority uint8
}

// Refused tells of a packet that had no effect. Text is one plain line for the log: who, what and the cure.
type Refused struct {
	Source netip.Addr
	Reason Reason
	Text   string
}

// Mismatch tells of a difference to another box that does not keep its adverts from being used (Kind "addresses")
// or of somebody else's cluster on the same virtual router (Kind "collision"). It is told with every such advert;
// an advert of the same source without a difference takes it back with an empty Kind.
type Mismatch struct {
	Source netip.Addr
	Kind   string
	Text   string
}

// Stopped ends a Stop: everything is handed over and the addresses are gone.
type Stopped struct{}

func (Send) action()            {}
func (AddAddresses) action()    {}
func (RemoveAddresses) action() {}
func (Announce) action()        {}
func (Changed) action()         {}
func (Accepted) action()        {}
func (Refused) action()         {}
func (Mismatch) action()        {}
func (Stopped) action()         {}
