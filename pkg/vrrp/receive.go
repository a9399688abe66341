package vrrp

import (
	"fmt"
	"net/netip"
)

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
	accepted := Accepted{Source: p.Source, Priority: a.Priority, Checksum: a.Checksum}
	out := make([]Action, 2, 8)
	if m.overslept(now) {
		// Its advert waited in the socket while we did not send any: it is not asserted against, but heard.
		out = m.stepBack(out, now)
	}
	out[1] = m.compare(now, p.Source, a)
	switch {
	case m.handing:
		out = m.hearAsLeaving(out, now, p.Source, a)
	case m.state == Master:
		out = m.hearAsMaster(out, now, p.Source, a)
	case !m.leaves():
		accepted.Obeyed = m.hearAsBackup(now, p.Source, a)
	}
	out[0] = accepted
	return out
}

// hearAsBackup says whether the advert is that of the MASTER, and a repeat of it would change nothing but the timer.
func (m *Machine) hearAsBackup(now Time, source netip.Addr, a Advert) (obeyed bool) {
	if a.Priority == 0 {
		// Its interval is not learned: the next MASTER has its own.
		switch {
		case m.yields() && source == m.leaving && now < m.heard+m.skewUnit(m.interval)/2:
			return false // a copy of the one before
		case m.yields() && source == m.master && m.masterPriority == 1:
			// It yields too, and offers its place to others. If it has to leave, it says so again.
			m.timer = at(now + m.Patience() + stopGrace)
		default:
			m.timer = at(now + m.skew())
		}
		m.heard = now
		m.leaving = source
		if source == m.master {
			m.master, m.masterPriority = netip.Addr{}, 0
		}
		return false
	}
	if m.held && !m.remove.set && !disjoint(a.Addresses, m.cfg.Addresses) {
		m.remove = at(now + lingerTime)
	}
	lower := a.Priority < m.Priority()
	if lower && m.mayPreempt(now) {
		// RFC 9568 6.4.2: "discard the ADVERTISEMENT": the timer runs on, and we take over when it ends. The lower
		// MASTER is still worth showing, unless a higher one was heard too.
		if !m.master.IsValid() || m.masterPriority < m.Priority() {
			m.master, m.masterPriority = source, a.Priority
			m.preempting = true
		}
		return false
	}
	if !lower {
		m.preempt = alarm{}
	}
	m.obey(now, source, a)
	return !m.preempt.set
}

// obey takes the sender as MASTER.
func (m *Machine) obey(now Time, source netip.Addr, a Advert) {
	m.await(now, a.Interval)
	m.master, m.masterPriority = source, a.Priority
}

// preempts says whether it may take over from a lower MASTER at all.
func (m *Machine) preempts() bool { return m.cfg.Preempt || m.Priority() == Owner }

// mayPreempt says whether a lower MASTER need not be obeyed. The first question after a time without one starts
// PreemptDelay. Who owns the addresses never waits.
func (m *Machine) mayPreempt(now Time) bool {
	switch {
	case m.Priority() == Owner:
		return true
	case !m.preempts():
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
	case a.Priority > m.Priority():
		return m.giveWay(out, now, source, a, fmt.Sprintf("%s has the higher priority %d, ours is %d", source, a.Priority, m.Priority()))
	case a.Priority == m.Priority() && source.Compare(m.source) > 0:
		return m.giveWay(out, now, source, a, fmt.Sprintf("%s has the same priority %d and the higher address", source, a.Priority))
	}
	// RFC 9568 6.4.3: "Discard the ADVERTISEMENT" and "Send an ADVERTISEMENT immediately to assert the state". A flood
	// is answered ten times an interval: who became MASTER after our last advert waits no longer than that.
	if next := m.sent + m.cfg.Interval/10; now >= next {
		out = m.advertise(out, now)
	} else {
		m.timer.at = min(m.timer.at, next)
	}
	return m.dispute(out, now)
}

// loses says whether the sender of an advert is a MASTER that has to give way to us.
func (m *Machine) loses(source netip.Addr, a Advert) bool {
	return a.Priority != 0 && (a.Priority < m.Priority() || a.Priority == m.Priority() && source.Less(m.source))
}

// hearAsLeaving looks for the successor, who may have any priority.
func (m *Machine) hearAsLeaving(out []Action, now Time, source netip.Addr, a Advert) []Action {
	if a.Priority == 0 || disjoint(a.Addresses, m.cfg.Addresses) { // somebody else's cluster takes over nothing of ours
		return out
	}
	return m.succeeded(out, now, source, a)
}
