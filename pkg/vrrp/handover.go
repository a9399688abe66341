package vrrp

import (
	"fmt"
	"net/netip"
	"time"
)

// A MASTER hands over because it stops, is held, yields, or its sync group is BACKUP. It says priority 0 and keeps its
// addresses until it hears its successor, and a little longer: make before break.

// hold says why this router must not be MASTER, or nothing.
func (m *Machine) hold() string { return m.groupHold.after(m.cfg.Hold) }

// fault says why it is in FAULT.
func (m *Machine) fault() string { return m.groupHold.after(joined(m.failure, m.cfg.Hold)) }

func joined(a, b string) string {
	if a != "" && b != "" {
		return a + "; " + b
	}
	return a + b
}

func (m *Machine) yields() bool { return m.cfg.Yield || m.groupYield }

// leaves says whether the end of a handover is not BACKUP but INIT or FAULT.
func (m *Machine) leaves() bool { return m.stopping || m.hold() != "" }

// heed does what changed wishes ask for; hold, yields and fault are those of before.
func (m *Machine) heed(out []Action, now Time, hold string, yields bool, fault string) []Action {
	switch {
	case m.stopping || m.state == Init:
	case m.state == Fault && m.ready && m.hold() == "":
		return m.begin(out, now, "no longer held: "+hold, false)
	case m.state == Fault && m.fault() != fault:
		return append(out, Stayed{Reason: m.fault()})
	case m.state == Fault:
	case hold == "" && m.hold() != "":
		return m.prepareToLeave(out, now)
	case hold != "" && m.hold() == "":
		if m.state == Master && (m.follow != "" || m.yields() && !m.remove.set) {
			return out // the handover has another reason
		}
		return m.takeBack(out, now)
	case m.state == Master && m.yields() && !yields:
		return m.handOver(out, now)
	case m.handing && !m.yields() && yields && m.follow == "" && !m.leaves():
		return m.takeBack(out, now)
	}
	return out
}

func (m *Machine) stop(now Time) []Action {
	if m.stopping {
		return nil
	}
	m.stopping = true
	if m.state == Init || m.state == Fault {
		return m.leave(nil)
	}
	return m.prepareToLeave(nil, now)
}

// prepareToLeave is the way to INIT or FAULT.
func (m *Machine) prepareToLeave(out []Action, now Time) []Action {
	switch {
	case m.held && !m.remove.set:
		return m.handOver(out, now)
	case m.held:
		// A successor was heard a moment ago, or nobody is left to wait for.
		m.timer = alarm{}
		return out
	}
	return m.leave(out)
}

// handOver begins a handover, unless one is under way.
func (m *Machine) handOver(out []Action, now Time) []Action {
	if m.handing {
		if m.offering { // now it is meant
			m.offering, m.repeated = false, false
		}
		return out
	}
	m.handing, m.repeated, m.offering = true, false, false
	m.bursts = bursts{}
	return m.resign(out, now)
}

// resign sends priority 0 and waits until the slowest peer must have taken over: its skew is below one second in
// version 2 and below one interval in version 3.
func (m *Machine) resign(out []Action, now Time) []Action {
	m.timer = at(now + m.skewUnit(m.cfg.Interval) + stopGrace)
	return append(out, Send{m.advert(0)})
}

// giveUpWaiting is for who heard no successor: the priority 0 may have been lost, so it is sent once more; after
// that there is nobody.
func (m *Machine) giveUpWaiting(now Time) []Action {
	switch {
	case !m.repeated:
		m.repeated = true
		return m.resign(nil, now)
	case m.leaves() || m.follow != "":
		m.timer = alarm{}
		m.remove = at(now + lingerTime)
		return nil
	}
	m.offered = now
	if m.offering { // no neighbour has learned another MAC, and it is known why this is MASTER
		m.handing = false
		m.refreshFrom(now, 0)
		return m.advertise(nil, now)
	}
	out := m.takeBack(nil, now)
	return append(out, Stayed{Reason: "told to yield, but no other director took over"})
}

// mayOffer says whether a MASTER that is to yield tries again, because nobody took over or it had to take over itself. A
// peer that came meanwhile and may not preempt would wait for ever.
func (m *Machine) mayOffer(now Time) bool {
	return m.yields() && now >= m.offered+max(offerPause, offerAdverts*m.cfg.Interval)
}

// offer says priority 0 once, in the place of an advert.
func (m *Machine) offer(out []Action, now Time) []Action {
	out = m.handOver(out, now)
	m.repeated, m.offering = true, true
	return out
}

// succeeded ends a handover: the advert is the successor's, who may have any priority.
func (m *Machine) succeeded(out []Action, now Time, source netip.Addr, a Advert) []Action {
	m.handing = false
	out = m.giveWay(out, now, source, a, fmt.Sprintf("handed over to %s", source))
	if m.leaves() {
		m.timer = alarm{}
	}
	return out
}

// giveWay ends being MASTER at once. The addresses stay a little longer, until the neighbours have learned the MAC of
// the new MASTER.
func (m *Machine) giveWay(out []Action, now Time, source netip.Addr, a Advert, reason string) []Action {
	m.bursts = bursts{}
	m.remove = at(now + lingerTime)
	m.obey(now, source, a)
	return m.change(out, Backup, reason)
}

// takeBack ends a handover that is not wanted any more, or that nobody answered.
func (m *Machine) takeBack(out []Action, now Time) []Action {
	handing := m.handing
	m.handing, m.follow = false, ""
	switch {
	case m.state == Master:
		m.remove = alarm{}
		out = append(m.advertise(out, now), AddAddresses{}) // the list may be another one by now
		return m.announceTakeover(out, now, false)
	case handing:
		m.remove = alarm{}
		m.await(now, m.cfg.Interval)
	default:
		m.await(now, m.interval)
	}
	return out
}

// abdicate ends a handover for the sync group that nobody answered: the addresses are gone.
func (m *Machine) abdicate(out []Action, now Time) []Action {
	reason := m.follow + "; no other director took this one over"
	m.handing = false
	m.await(now, m.cfg.Interval)
	return m.change(out, Backup, reason)
}

// leave is the end of a handover to INIT or FAULT.
func (m *Machine) leave(out []Action) []Action {
	note := ""
	if m.state == Master {
		note = "; no other director took over"
	}
	if m.stopping {
		return m.finishStop(out, "stopped"+note)
	}
	m.forget()
	return m.change(out, Fault, m.fault()+note)
}

func (m *Machine) finishStop(out []Action, reason string) []Action {
	m.stopping, m.ready = false, false
	m.forget()
	return append(m.change(out, Init, reason), Stopped{})
}

// heardBefore is for adverts that the kernel absorbed.
func (m *Machine) heardBefore(at Time) {
	if m.state == Backup && !m.leaves() && m.master.IsValid() && !m.preempting && at > m.heard {
		m.await(at, m.interval)
	}
}

// patienceWith is how long another MASTER that sends every interval may be silent until it is taken as gone.
func (m *Machine) patienceWith(interval time.Duration) time.Duration {
	return m.downAdverts()*interval + m.skewUnit(interval)
}
