package vrrp

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// group is where adverts go.
var group = netip.AddrFrom4([4]byte{224, 0, 0, 18})

// packet checks a packet before anything of the machine is touched: a refused one must not move a timer, or a
// single bad sender could silence a healthy MASTER.
func (m *Machine) packet(now Time, p Packet) []Action {
	if m.state == Init || m.state == Fault {
		return nil
	}
	if len(p.Payload) > 1 && p.Payload[1] != m.cfg.VRID {
		return nil
	}
	a, bad := m.check(p)
	if bad != nil {
		text := fmt.Sprintf("advert from %s refused: %s", p.Source, bad.Detail)
		out := []Action{Refused{Source: p.Source, Reason: bad.Reason, Text: text}}
		if bad.Reason == RefusedCollision {
			out = append(out, Mismatch{Source: p.Source, Kind: MismatchCollision, Text: bad.Detail})
		}
		return out
	}
	kind, text := m.compare(p.Source, a)
	out := []Action{Accepted{Source: p.Source, Priority: a.Priority}, Mismatch{Source: p.Source, Kind: kind, Text: text}}
	switch {
	case m.state == Backup && !m.stopping:
		m.hearAsBackup(now, p.Source, a)
		return out
	case m.state == Master && m.stopping:
		return m.hearAsStopping(out, now, p.Source, a)
	case m.state == Master:
		return m.hearAsMaster(out, now, p.Source, a)
	}
	return out
}

func (m *Machine) hearAsBackup(now Time, source netip.Addr, a Advert) {
	if a.Priority == 0 {
		// Its interval is not learned: the next MASTER has its own.
		m.timer = at(now + m.skew())
		m.leaving = source
		if source == m.master {
			m.master, m.masterPriority = netip.Addr{}, 0
		}
		return
	}
	lower := a.Priority < m.cfg.Priority
	if lower && m.mayPreempt(now) {
		// RFC 9568 6.4.2: "discard the ADVERTISEMENT": the timer runs on, and we take over when it ends. The lower
		// MASTER is still worth showing, unless a higher one was heard too.
		if !m.master.IsValid() || m.masterPriority < m.cfg.Priority {
			m.master, m.masterPriority = source, a.Priority
			m.preempting = true
		}
		return
	}
	if !lower {
		m.preempt = alarm{}
	}
	m.obey(now, source, a)
}

// obey takes the sender as MASTER.
func (m *Machine) obey(now Time, source netip.Addr, a Advert) {
	m.await(now, a.Interval)
	m.master, m.masterPriority = source, a.Priority
}

// mayPreempt says whether a lower MASTER need not be obeyed. The first question after a time without one starts
// PreemptDelay. Who owns the addresses never waits.
func (m *Machine) mayPreempt(now Time) bool {
	switch {
	case m.cfg.Priority == Owner:
		return true
	case !m.cfg.Preempt:
		return false
	case !m.preempt.set:
		m.preempt = at(now + m.cfg.PreemptDelay)
	}
	return m.preempt.due(now)
}

func (m *Machine) hearAsMaster(out []Action, now Time, source netip.Addr, a Advert) []Action {
	switch {
	case a.Priority == 0:
		// All BACKUPs have just been told to hurry; this keeps them down.
		return m.advertise(out, now)
	case a.Priority > m.cfg.Priority:
		return m.yield(out, now, source, a, fmt.Sprintf("%s has the higher priority %d, ours is %d", source, a.Priority, m.cfg.Priority))
	case a.Priority == m.cfg.Priority && source.Compare(m.source) > 0:
		return m.yield(out, now, source, a, fmt.Sprintf("%s has the same priority %d and the higher address", source, a.Priority))
	case !m.cfg.Preempt && m.cfg.Priority != Owner && now-m.sent >= 3*m.cfg.Interval:
		// We were held up until the others had to give us up. To assert ourselves now would be to preempt.
		return m.yield(out, now, source, a, fmt.Sprintf("%s took over while this director stood still for %s, and preempt is off", source, (now-m.sent).Round(time.Millisecond)))
	}
	// RFC 9568 6.4.3: "Discard the ADVERTISEMENT" and "Send an ADVERTISEMENT immediately to assert the state". What
	// we sent a moment ago asserts it as well, which bounds the answers to a flood at ten an interval.
	if now-m.sent >= m.cfg.Interval/10 {
		out = m.advertise(out, now)
	}
	// The network was split until now, or both took over at the same time: the other one has told all neighbours its
	// own MAC, and nobody but us puts that right.
	if next := m.announced + announcePause; now >= next {
		out = m.announceTwice(out, now)
	} else {
		m.announce, m.disputed = at(next), true
	}
	return out
}

// yield ends being MASTER at once. The addresses stay a little longer, until the neighbours have learned the MAC of
// the new MASTER.
func (m *Machine) yield(out []Action, now Time, source netip.Addr, a Advert, reason string) []Action {
	m.announce = alarm{}
	m.remove = at(now + lingerTime)
	m.obey(now, source, a)
	return m.change(out, Backup, reason)
}

// hearAsStopping looks for the successor, who may have any priority.
func (m *Machine) hearAsStopping(out []Action, now Time, source netip.Addr, a Advert) []Action {
	if a.Priority == 0 || disjoint(a.Addresses, m.cfg.Addresses) { // somebody else's cluster takes over nothing of ours
		return out
	}
	out = m.yield(out, now, source, a, fmt.Sprintf("handed over to %s", source))
	m.timer = alarm{}
	return out
}

// check returns the advert in a packet, or why it must be refused.
func (m *Machine) check(p Packet) (Advert, *ParseError) {
	const twoMasters = "both directors can become MASTER"
	switch {
	case p.Fragment:
		return Advert{}, refuse(RefusedFragment, "it is a fragment, no director sends those; look for who forges adverts")
	case p.TTL != 255:
		return Advert{}, refuse(RefusedTTL, "its TTL is %d, not 255, so it came through a router or is forged; keep multicast of other networks out", p.TTL)
	case p.Destination != group:
		return Advert{}, refuse(RefusedDestination, "it was sent to %s, not to %s; remove the unicast peers from the other director, or %s", p.Destination, group, twoMasters)
	case !usable(p.Source):
		return Advert{}, refuse(RefusedSource, "%s is no address of a director; correct the sender's own address", p.Source)
	case p.Source == m.source:
		return Advert{}, refuse(RefusedSource, "its source is our own address; look for a loop in the network, or another box with this address")
	}
	a, err := parse(p.Payload, p.Source, p.Destination)
	switch ours := m.advert(m.cfg.Priority); {
	case err != nil:
		err.Detail += "; it has no effect, look for a fault in the network or in the sender"
		return Advert{}, err
	case slices.Contains(m.cfg.Addresses, p.Source) && a.Priority != Owner:
		return Advert{}, refuse(RefusedSource, "its source is a virtual address; %s: let it send from its own address", twoMasters)
	case a.Version != ours.Version:
		return Advert{}, refuse(RefusedVersion, "its VRRP version is %d, ours is %d; %s: set the same version on both", a.Version, ours.Version, twoMasters)
	case a.AuthType != ours.AuthType:
		return Advert{}, refuse(RefusedAuthType, "its authentication is %s, ours is %s; %s: set the same authentication on both", authName(a.AuthType), authName(ours.AuthType), twoMasters)
	case a.AuthType == authPassword && !bytes.Equal(a.Password[:], ours.Password[:]):
		return Advert{}, refuse(RefusedPassword, "its password is not ours; %s: set the same password on both", twoMasters)
	case a.Version == 2 && a.Interval != ours.Interval:
		return Advert{}, refuse(RefusedInterval, "its advert_interval is %s, ours is %s; %s: set the same advert_interval on both", a.Interval, ours.Interval, twoMasters)
	case a.Version == 2 && disjoint(a.Addresses, ours.Addresses):
		// RFC 3768 7.1 lets a receiver check the list. Only a list without anything in common is taken as a failure
		// (also with priority 255, where the RFC would go on: somebody else's owner must not take our cluster down).
		return Advert{}, refuse(RefusedCollision, "%s", m.collision(p.Source, a))
	}
	return a, nil
}

// usable says whether an address can be the source of an advert.
func usable(a netip.Addr) bool {
	return a.Is4() && !a.IsUnspecified() && !a.IsMulticast() && !a.IsLoopback() && a != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

func authName(t uint8) string {
	switch t {
	case authNone:
		return "none"
	case authPassword:
		return "pass"
	case 2:
		return "ah (IPsec)"
	}
	return fmt.Sprintf("unknown (%d)", t)
}

// compare tells how an accepted advert differs from ours; an empty kind: not at all.
func (m *Machine) compare(source netip.Addr, a Advert) (kind, text string) {
	var kinds, texts []string
	tell := func(kind, text string) { kinds, texts = append(kinds, kind), append(texts, text) }
	if disjoint(a.Addresses, m.cfg.Addresses) {
		tell(MismatchCollision, m.collision(source, a))
	} else {
		there, here := missing(a.Addresses, m.cfg.Addresses), missing(m.cfg.Addresses, a.Addresses)
		var where []string
		if len(there) > 0 {
			where = append(where, "only there: "+list(there))
		}
		if len(here) > 0 {
			where = append(where, "only here: "+list(here))
		}
		if where != nil {
			tell(MismatchAddresses, fmt.Sprintf("%s has other virtual_addresses (%s); set the same ones on both, or both can be MASTER: keepalived before 2.3.3 refuses such adverts", source, strings.Join(where, "; ")))
		}
	}
	if a.Interval != m.cfg.Interval {
		tell(MismatchInterval, fmt.Sprintf("%s has advert_interval %s, ours is %s; set the same on both", source, a.Interval, m.cfg.Interval))
	}
	if a.Priority == Owner && m.cfg.Priority == Owner {
		tell(MismatchOwner, fmt.Sprintf("%s has priority %d too, which only one can have; give one of the two a lower priority", source, Owner))
	}
	if kinds == nil {
		return "", ""
	}
	return kinds[0], strings.Join(texts, "; ")
}

func (m *Machine) collision(source netip.Addr, a Advert) string {
	return fmt.Sprintf("another cluster uses virtual_router_id %d on this network: %s (priority %d, addresses %s); give one of the two another virtual_router_id",
		m.cfg.VRID, source, a.Priority, list(a.Addresses))
}

func disjoint(a, b []netip.Addr) bool { return len(missing(a, b)) == len(a) }

// missing returns the addresses of a that are not in b.
func missing(a, b []netip.Addr) []netip.Addr {
	var out []netip.Addr
	for _, address := range a {
		if !slices.Contains(b, address) {
			out = append(out, address)
		}
	}
	return out
}

// list names addresses in a line that stays readable: an advert can hold 255.
func list(addresses []netip.Addr) string {
	const most = 8
	var names []string
	for _, a := range addresses[:min(most, len(addresses))] {
		names = append(names, a.String())
	}
	if more := len(addresses) - most; more > 0 {
		names = append(names, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(names, ", ")
}
