package vrrp

import (
	"fmt"
	"net/netip"
	"slices"
	"time"
)

const (
	lingerTime    = 200 * time.Millisecond // between handing over and giving up the addresses, so that no client meets a gap
	announceAgain = 5 * time.Second        // second burst of gratuitous ARP, as keepalived does
	announcePause = time.Second            // between bursts that other boxes cause
	stopGrace     = 100 * time.Millisecond // beyond the largest skew, for the successor's advert to arrive
)

// Machine is the election of one instance. It is not safe for concurrent use. Nothing happens in it but by Step.
type Machine struct {
	cfg    Config
	state  State
	source netip.Addr // ours

	// timer is the one of the election. MASTER: the next advert. BACKUP: the end of the patience with a silent
	// MASTER. MASTER that stops: the end of the wait for a successor.
	timer    alarm
	remove   alarm // BACKUP that still holds the addresses, or MASTER that stops: they go
	announce alarm // MASTER: the next burst of gratuitous ARP

	sent      Time // MASTER: our last advert
	announced Time // MASTER: our last burst
	disputed  bool // MASTER: another one may have announced after us, so a second burst follows the next one

	// What BACKUP knows.
	interval       time.Duration // of the MASTER's adverts
	master         netip.Addr    // source of those; invalid: not known
	masterPriority uint8
	heard          Time       // when the timer was started
	preempt        alarm      // end of PreemptDelay, running since a lower MASTER was heard first
	preempting     bool       // the timer runs on although a lower MASTER is heard
	leaving        netip.Addr // sender of the priority 0 that shortened the timer

	stopping bool
	repeated bool // priority 0 was sent a second time
}

// alarm is a moment at which something is due, or none.
type alarm struct {
	at  Time
	set bool
}

func at(t Time) alarm { return alarm{at: t, set: true} }

func (a alarm) due(now Time) bool { return a.set && now >= a.at }

// New returns a machine in INIT; Start begins the election.
func New(cfg Config) *Machine {
	cfg.Addresses = slices.Clone(cfg.Addresses)
	return &Machine{cfg: cfg}
}

// State returns the state. While a Stop is under way it is MASTER until a successor is heard, see Stop.
func (m *Machine) State() State { return m.state }

// Master returns the source and priority of the MASTER's adverts, our own while MASTER; an invalid address if no
// MASTER is known.
func (m *Machine) Master() (netip.Addr, uint8) {
	if m.state == Master {
		return m.source, m.cfg.Priority
	}
	return m.master, m.masterPriority
}

// Deadline returns when a Tick is due; false: never, until something else happens.
func (m *Machine) Deadline() (Time, bool) {
	first := alarm{}
	for _, a := range []alarm{m.timer, m.remove, m.announce} {
		if a.set && (!first.set || a.at < first.at) {
			first = a
		}
	}
	return first.at, first.set
}

// Step tells the machine what happened at now, which never goes back, and returns what must be done, in that order.
func (m *Machine) Step(now Time, event Event) []Action {
	switch e := event.(type) {
	case Start:
		return m.start(now, e)
	case Packet:
		return m.packet(now, e)
	case Tick:
		return m.tick(now)
	case Fail:
		return m.fail(e.Reason)
	case SourceChange:
		m.source = e.Source
	case Configure:
		return m.configure(now, e.Config)
	case Stop:
		return m.stop(now)
	}
	return nil
}

func (m *Machine) start(now Time, e Start) []Action {
	m.source = e.Source
	reason := "started"
	switch {
	case m.state == Backup || m.state == Master:
		return nil
	case e.Resume:
		return m.becomeMaster(now, "restarted while MASTER")
	case m.cfg.Priority == Owner:
		return m.becomeMaster(now, fmt.Sprintf("started with priority %d", Owner))
	case m.state == Fault:
		reason = "the failure is over"
	}
	// RFC 9568 6.4.1: wait as long as for a MASTER that fell silent, even if configured to be it.
	m.await(now, m.cfg.Interval)
	return m.change(nil, Backup, reason)
}

func (m *Machine) tick(now Time) []Action {
	var out []Action
	if m.timer.due(now) {
		switch {
		case m.stopping:
			out = m.giveUpWaiting(now)
		case m.state == Master:
			// One advert, however late we are: a burst would tell the peers nothing more.
			out = m.advertise(out, now)
		default:
			// Before m.remove: who becomes MASTER again keeps its addresses.
			out = m.becomeMaster(now, m.silence(now))
		}
	}
	if m.remove.due(now) {
		m.remove = alarm{}
		out = append(out, RemoveAddresses{})
		if m.stopping {
			reason := "stopped"
			if m.state == Master {
				reason = "stopped; no other director took over"
			}
			out = m.finishStop(out, reason)
		}
	}
	switch {
	case !m.announce.due(now):
	case m.disputed:
		out = m.announceTwice(out, now)
	default:
		m.announce = alarm{}
		m.announced = now
		out = append(out, Announce{Repeat: 5})
	}
	return out
}

// silence says why the BACKUP's timer ran out.
func (m *Machine) silence(now Time) string {
	waited := (now - m.heard).Round(time.Millisecond)
	switch {
	case m.leaving.IsValid():
		return fmt.Sprintf("%s gives up being MASTER (priority 0)", m.leaving)
	case m.preempting:
		return fmt.Sprintf("%s has the lower priority %d, ours is %d", m.master, m.masterPriority, m.cfg.Priority)
	case m.master.IsValid():
		return fmt.Sprintf("no advert from %s for %s", m.master, waited)
	}
	return fmt.Sprintf("no advert from anybody for %s", waited)
}

// becomeMaster does it in keepalived's order: the advert first, because it is what keeps the others down.
func (m *Machine) becomeMaster(now Time, reason string) []Action {
	m.remove = alarm{}
	m.preempt = alarm{}
	out := m.advertise(nil, now)
	out = m.change(append(out, AddAddresses{}), Master, reason)
	return m.announceTwice(out, now)
}

// advertise sends one advert and sets the timer for the next. Nothing else moves the timer of a MASTER later, so
// that no packet from outside can silence it.
func (m *Machine) advertise(out []Action, now Time) []Action {
	m.sent = now
	m.timer = at(now + m.cfg.Interval)
	return append(out, Send{m.advert(m.cfg.Priority)})
}

func (m *Machine) advert(priority uint8) Advert {
	a := Advert{
		Version:   m.cfg.Version,
		VRID:      m.cfg.VRID,
		Priority:  priority,
		Interval:  m.cfg.Interval,
		Addresses: m.cfg.Addresses,
	}
	if m.cfg.Version == 2 && m.cfg.Password != "" {
		a.AuthType = authPassword
		copy(a.Password[:], m.cfg.Password)
	}
	return a
}

func (m *Machine) announceTwice(out []Action, now Time) []Action {
	m.announced, m.disputed = now, false
	m.announce = at(now + announceAgain)
	return append(out, Announce{Repeat: 5})
}

// await starts the timer of a BACKUP: a MASTER that sends every interval may be silent for so long.
func (m *Machine) await(now Time, interval time.Duration) {
	m.interval = interval
	m.heard = now
	m.timer = at(now + 3*interval + m.skew())
	m.preempting = false
	m.leaving = netip.Addr{}
}

// skew is the part of the wait by which the highest priority is the first. In version 2 it is a share of one
// second, whatever the interval; in version 3 of the MASTER's interval.
func (m *Machine) skew() time.Duration {
	whole := time.Second
	if m.cfg.Version == 3 {
		whole = m.interval
	}
	return time.Duration(256-int(m.cfg.Priority)) * whole / 256
}

// forget drops every timer and what was learned from others.
func (m *Machine) forget() {
	m.timer, m.remove, m.announce, m.preempt = alarm{}, alarm{}, alarm{}, alarm{}
	m.master, m.masterPriority, m.leaving = netip.Addr{}, 0, netip.Addr{}
	m.preempting = false
}

func (m *Machine) fail(reason string) []Action {
	var out []Action
	if m.holds() {
		out = append(out, RemoveAddresses{})
	}
	switch {
	case m.stopping:
		// Nobody can be heard any more, so there is nothing to wait for.
		return m.finishStop(out, "stopped: "+reason)
	case m.state == Fault:
		return nil
	}
	m.forget()
	return m.change(out, Fault, reason)
}

// holds says whether the virtual addresses are on the interface.
func (m *Machine) holds() bool { return m.state == Master || m.remove.set }

// configure takes effect with the next advert, and never changes the state.
func (m *Machine) configure(now Time, cfg Config) []Action {
	old := m.cfg
	m.cfg = cfg
	m.cfg.Addresses = slices.Clone(cfg.Addresses)
	if cfg.PreemptDelay != old.PreemptDelay {
		m.preempt = alarm{} // counted afresh from the next lower advert
	}
	if m.stopping {
		return nil
	}
	switch m.state {
	case Master:
		// With a shorter interval the peers lose patience earlier too, maybe before the advert that was planned.
		m.timer.at = min(m.timer.at, now+cfg.Interval)
		added := func(a netip.Addr) bool { return !slices.Contains(old.Addresses, a) }
		if slices.ContainsFunc(cfg.Addresses, added) {
			return m.announceTwice([]Action{AddAddresses{}}, now)
		}
	case Backup:
		// The old wait was meant for the old interval; a change of the file is no silence of the MASTER.
		if cfg.Interval != old.Interval && (cfg.Version == 2 || !m.master.IsValid()) {
			m.await(now, cfg.Interval)
		}
	}
	return nil
}

func (m *Machine) stop(now Time) []Action {
	switch {
	case m.stopping:
		return nil
	case m.state != Master:
		var out []Action
		if m.holds() {
			out = append(out, RemoveAddresses{})
		}
		return m.finishStop(out, "stopped")
	}
	m.stopping, m.repeated = true, false
	m.announce = alarm{}
	return m.resign(now)
}

// resign sends priority 0 and waits until the slowest peer must have taken over: its skew is below one second in
// version 2 and below one interval in version 3.
func (m *Machine) resign(now Time) []Action {
	wait := time.Second
	if m.cfg.Version == 3 {
		wait = m.cfg.Interval
	}
	m.timer = at(now + wait + stopGrace)
	return []Action{Send{m.advert(0)}}
}

// giveUpWaiting is for a MASTER that stops and heard no successor: the priority 0 may have been lost, so it is sent
// once more; after that there is nobody.
func (m *Machine) giveUpWaiting(now Time) []Action {
	if !m.repeated {
		m.repeated = true
		return m.resign(now)
	}
	m.timer = alarm{}
	m.remove = at(now + lingerTime)
	return nil
}

func (m *Machine) finishStop(out []Action, reason string) []Action {
	m.stopping = false
	m.forget()
	return append(m.change(out, Init, reason), Stopped{})
}

func (m *Machine) change(out []Action, to State, reason string) []Action {
	from := m.state
	m.state = to
	if from == to {
		return out
	}
	return append(out, Changed{From: from, To: to, Reason: reason})
}
