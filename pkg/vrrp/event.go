package vrrp

import "net/netip"

// Event is something that happened to an instance; one of the types below, given to Machine.Step.
type Event interface{ event() }

// Start says that the instance can take part: its interface is usable and Source is its own address there. It is
// given at the beginning and again when a failure is over. With Resume the machine continues as MASTER: it is the
// same director, restarted, whose last advert is younger than three intervals. With HandedOver priority 0 was sent in
// its name meanwhile: it begins as BACKUP, and the addresses that it still holds go when the new MASTER is heard and
// the usual time after a handover is over.
type Start struct {
	Source     netip.Addr
	Resume     bool
	HandedOver bool
}

// Packet is a received IPv4 or IPv6 packet of protocol 112. Step checks all of it; a refused one has no effect but
// Refused, and one for another VRID has none at all, so that instances can share a socket. INIT and FAULT ignore
// packets. A socket gives an instance only packets of its own family.
type Packet struct {
	Source, Destination netip.Addr
	TTL                 uint8  // IPv6: the hop limit
	Fragment            bool   // more fragments follow, or the offset is not 0
	Payload             []byte // after the IP header, up to the IP total length; not kept
}

// Tick says that time went by; it is given at Machine.Deadline, and does nothing before. Read the socket empty and
// give its packets first: a process that was held up must not take its own delay for the silence of a peer.
type Tick struct{}

// Fail says that the instance can't take part any more, for Reason, until the next Start. Addresses go at once, and a
// Stop under way ends at once. A MASTER tries to say priority 0 first: maybe the link can still send.
type Fail struct{ Reason string }

// Heard says that the kernel has absorbed repeats of the last advert that was Obeyed, the latest of them at At: a BACKUP
// waits on as if it had received that one itself. It is given before the Tick that would end the wait, and before
// anything else arrives from the socket that was sent later.
type Heard struct{ At Time }

// Resigned says that priority 0 was sent in its name while it stood still. A MASTER steps back before it sends anything,
// and keeps its addresses until the new MASTER is heard, or nobody is.
type Resigned struct{}

// SourceChange says that the own address of the interface is another one now. It is valid: without one, give Fail.
type SourceChange struct{ Source netip.Addr }

// Configure replaces the configuration without a change of state; Version and VRID must stay. A MASTER answers with
// AddAddresses and Announce if addresses are new; those that left the list are the caller's to remove. Yield and Hold are
// wishes with consequences: a MASTER to whom one of them is new hands over as with Stop (priority 0, the addresses
// stay until the successor was heard, 200ms longer). After Yield it is BACKUP then, or Stayed MASTER if nobody
// came; after Hold it is in FAULT until Hold is taken back.
type Configure struct{ Config Config }

// Stop begins the handover that ends in Stopped. A MASTER sends priority 0 and stays MASTER until it hears its
// successor (then BACKUP) or gave up waiting for one; INIT comes with Stopped. A second Stop meanwhile does nothing.
type Stop struct{}

func (Start) event()        {}
func (Packet) event()       {}
func (Tick) event()         {}
func (Fail) event()         {}
func (SourceChange) event() {}
func (Configure) event()    {}
func (Stop) event()         {}
func (Heard) event()        {}
func (Resigned) event()     {}

// Action is something that the owner of the machine must do, in the order given.
type Action interface{ action() }

// Send sends one advert from the current source to the multicast group, or one to each of the unicast peers.
type Send struct{ Advert Advert }

// AddAddresses puts the virtual addresses on the interface, those that are not there yet.
type AddAddresses struct{}

// RemoveAddresses takes the virtual addresses off the interface.
type RemoveAddresses struct{}

// Announce sends one burst of gratuitous ARP or neighbour advertisements for all virtual addresses, each Repeat times.
type Announce struct{ Repeat int }

// Changed tells of a transition. Reason says the cause in plain words, with the other box where there is one.
type Changed struct {
	From, To State
	Reason   string
}

// Stayed tells that the state stays what it is for another reason: MASTER because a Yield found no successor, FAULT
// because the failure is another one now.
type Stayed struct{ Reason string }

// Accepted tells of a valid advert of this virtual router, one that lost the election included. Obeyed: it is that of
// the MASTER whom this BACKUP obeys, and an exact repeat of it would change nothing but the timer.
type Accepted struct {
	Source   netip.Addr
	Priority uint8
	Checksum ChecksumForm
	Obeyed   bool
}

// Refused tells of a packet that had no effect. Text is one plain line for the log: who, what and the cure.
type Refused struct {
	Source netip.Addr
	Reason Reason
	Text   string
}

// Mismatch tells of a difference to another box that does not keep its adverts from being used, or of somebody
// else's cluster on the same virtual router (MismatchCollision). Every accepted advert gives exactly one: with an
// empty Kind if there is no difference, which takes back what was told of that source before; a split brain is taken
// back like that too when the other box fell silent. With several differences Kind is the gravest, and Text names all.
type Mismatch struct {
	Source netip.Addr
	Kind   string
	Text   string
}

// The kinds of Mismatch, the gravest first.
const (
	MismatchCollision  = "collision"   // not one virtual address in common: somebody else's cluster
	MismatchSplitBrain = "split_brain" // we are MASTER for longer than one interval, and it sends adverts too
	MismatchAddresses  = "addresses"   // the lists of virtual addresses overlap, but are not equal
	MismatchInterval   = "interval"    // v3: the advert intervals differ
	MismatchOwner      = "owner"       // both have priority 255
	MismatchLinkLocal  = "link_local"  // IPv6: its first address is no link-local one
)

// Stopped ends a Stop: everything is handed over and the addresses are gone.
type Stopped struct{}

func (Send) action()            {}
func (AddAddresses) action()    {}
func (RemoveAddresses) action() {}
func (Announce) action()        {}
func (Changed) action()         {}
func (Stayed) action()          {}
func (Accepted) action()        {}
func (Refused) action()         {}
func (Mismatch) action()        {}
func (Stopped) action()         {}
