package vrrp

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// What makes two directors MASTER has the same end in every refusal.
const twoMasters = "both directors can become MASTER"

// check returns the advert in a packet, or why it must be refused.
func (m *Machine) check(p Packet) (Advert, *ParseError) {
	if bad := m.checkHeader(p); bad != nil {
		return Advert{}, bad
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

// checkHeader looks at what stands in front of the advert.
func (m *Machine) checkHeader(p Packet) *ParseError {
	group, unicast := multicast4, len(m.cfg.Peers) > 0
	if isIPv6(m.source) {
		group = multicast6
	}
	switch {
	case p.Fragment:
		return refuse(RefusedFragment, "it is a fragment, no director sends those; look for who forges adverts")
	case !m.usable(p.Source):
		return refuse(RefusedSource, "%s is no address of a director; correct the sender's own address", p.Source)
	case p.Source == m.source:
		return refuse(RefusedSource, "its source is our own address; look for a loop in the network, or another box with this address")
	case unicast && p.Destination == group:
		return refuse(RefusedDestination, "it was sent to %s, but here are unicast_peers; set unicast_peers on both directors or on none, or %s", group, twoMasters)
	case unicast && p.Destination != m.source:
		return refuse(RefusedDestination, "it was sent to %s, not to our address %s; correct the unicast_peers of the sender, or %s", p.Destination, m.source, twoMasters)
	case unicast && !slices.Contains(m.cfg.Peers, p.Source):
		return refuse(RefusedPeer, "%s is not one of our unicast_peers; if it is a director of this cluster add it, or %s", p.Source, twoMasters)
	case !unicast && p.Destination != group:
		return refuse(RefusedDestination, "it was sent to %s, not to %s; remove the unicast peers from the other director, or %s", p.Destination, group, twoMasters)
	}
	switch lowest := m.cfg.PeerTTL; {
	case unicast && lowest > 0 && p.TTL < lowest:
		return refuse(RefusedTTL, "its TTL is %d, below the unicast_ttl of %d, so it came through more routers than allowed or is forged", p.TTL, lowest)
	case unicast && lowest > 0 || p.TTL == 255:
		return nil
	case unicast:
		return refuse(RefusedTTL, "its TTL is %d, not 255, so it came through a router or is forged; if there is a router between the directors, set unicast_ttl", p.TTL)
	}
	return refuse(RefusedTTL, "its TTL is %d, not 255, so it came through a router or is forged; keep multicast of other networks out", p.TTL)
}

// usable says whether an address can be the source of an advert to us.
func (m *Machine) usable(a netip.Addr) bool {
	return a.BitLen() == m.source.BitLen() && !a.Is4In6() && !a.IsUnspecified() && !a.IsMulticast() && !a.IsLoopback() && a != netip.AddrFrom4([4]byte{255, 255, 255, 255})
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
func (m *Machine) compare(now Time, source netip.Addr, a Advert) Mismatch {
	var kinds, texts []string
	tell := func(kind, text string) { kinds, texts = append(kinds, kind), append(texts, text) }
	split := false
	if disjoint(a.Addresses, m.cfg.Addresses) {
		tell(MismatchCollision, m.collision(source, a))
	} else {
		// In the first interval it is no more than the last advert of the one before, or of one who took over in the
		// same moment. One that wins makes us BACKUP: then there is no second MASTER any more.
		if split = m.state == Master && !m.handing && now-m.since >= m.cfg.Interval && m.loses(source, a); split {
			tell(MismatchSplitBrain, fmt.Sprintf("%s (priority %d) is MASTER too; this director stays MASTER with priority %d, and %s must give way to its adverts; if this lasts, they do not arrive there: look at the network and the packet filters between the two",
				source, a.Priority, m.Priority(), source))
		}
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
	if isIPv6(m.source) && !a.Addresses[0].IsLinkLocalUnicast() {
		// RFC 9568 5.2.9 with erratum 8300 wants the receiver to check this; but neither keepalived nor FRR sends a
		// link-local address by itself, so to refuse those would make two MASTERs.
		tell(MismatchLinkLocal, fmt.Sprintf("the first virtual address of %s is %s, which is not link-local as RFC 9568 demands; put one (fe80::/10) first on both", source, a.Addresses[0]))
	}
	if split {
		m.rival, m.gone = source, at(now+m.patienceWith(a.Interval))
	}
	if kinds == nil {
		return Mismatch{Source: source}
	}
	return Mismatch{Source: source, Kind: kinds[0], Text: strings.Join(texts, "; ")}
}

// forgetRival takes back what was told about a second MASTER.
func (m *Machine) forgetRival(out []Action) []Action {
	if m.rival.IsValid() {
		out = append(out, Mismatch{Source: m.rival})
	}
	m.rival, m.gone = netip.Addr{}, alarm{}
	return out
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
