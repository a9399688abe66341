package vrrp

import (
	"fmt"
	"net/netip"
	"slices"
	"time"
)

const (
	lingerTime = 200 * time.Millisecond // between handing over and giving up the addresses, so that no client meets a gap
	stopGrace  = 100 * time.Millisecond // beyond the largest skew, for the successor's advert to arrive

	// A MASTER that yields offers its place so often, and not more often than every so many adverts.
	offerPause   = 10 * time.Second
	offerAdverts = 10
)

// Machine is the election of one instance. It is not safe for concurrent use. Nothing happens in it but by Step.
type Machine struct {
	cfg     Config
	state   State
	source  netip.Addr // ours
	ready   bool       // Start was given, and no Fail since
	failure string     // the reason of the last Fail; empty when ready

	// timer is the one of the election. MASTER: the next advert. BACKUP: the end of the patience with a silent
	// MASTER. Who hands over: the end of the wait for a successor.
	timer  alarm
	held   bool  // the addresses are on the interface
	remove alarm // another MASTER was heard, or nobody is left to wait for: the addresses go, and whoever leaves has left
	bursts bursts

	// What MASTER knows.
	since  Time       // being MASTER
	sent   Time       // our last advert
	doubt  Time       // from then on the others may have given us up
	rival  netip.Addr // who was told to be a second MASTER; invalid: nobody
	gone   alarm      // the rival is silent: that is over
	follow string     // it hands over because its sync group is BACKUP: the reason

	// What BACKUP knows.
	interval       time.Duration // of the MASTER's adverts
	master         netip.Addr    // source of those; invalid: not known
	masterPriority uint8
	heard          Time       // when the timer was started
	preempt        alarm      // end of PreemptDelay, running since a lower MASTER was heard first
	preempting     bool       // the timer runs on although a lower MASTER is heard
	leaving        netip.Addr // sender of the priority 0 that shortened the timer
	looked         bool       // it came late for its timer and has listened once more
	expired        bool       // the patience is at its end, but the sync group is not of one mind

	handing  bool // priority 0 was sent, and nobody else is heard yet
	repeated bool // priority 0 was sent as often as it shall be
	offering bool // it hands over, or goes on as if nothing had been
	offered  Time // its place, or since when it has it
	stopping bool

	advertised Action   // the last Send; another one is made only when it differs
	actions    []Action // room for those of a Tick

	adjust     int // of the priority, by all members of the sync group
	groupHold  heldBy
	groupYield bool // a member of the sync group yields
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
	m := &Machine{adjust: cfg.Adjust}
	m.set(cfg)
	return m
}

func (m *Machine) set(cfg Config) {
	m.cfg = cfg
	m.cfg.Addresses = slices.Clone(cfg.Addresses)
	m.cfg.Peers = slices.Clone(cfg.Peers)
	m.advertised = nil
}

// State returns the state. While a handover is under way it is MASTER until a successor is heard, see Stop.
func (m *Machine) State() State { return m.state }

// Master returns the source and priority of the MASTER's adverts, our own while MASTER; an invalid address if no
// MASTER is known.
func (m *Machine) Master() (netip.Addr, uint8) {
	if m.state == Master {
		return m.source, m.Priority()
	}
	return m.master, m.masterPriority
}

// Patience returns how long after an advert of its MASTER a BACKUP takes over; a timer for repeats of that
// advert runs so long.
func (m *Machine) Patience() time.Duration {
	return m.downAdverts()*m.interval + m.skew()
}

// Deadline returns when a Tick is due; false: never, until something else happens.
func (m *Machine) Deadline() (Time, bool) {
	first := alarm{}
	for _, a := range [...]alarm{m.timer, m.remove, m.gone, m.bursts.soon.alarm, m.bursts.again.alarm, m.bursts.refresh} {
		if a.set && (!first.set || a.at < first.at) {
			first = a
		}
	}
	return first.at, first.set
}

// Step tells the machine what happened at now, which never goes back, and returns what must be done, in that order.
// A machine of a sync group is told by Group.Step instead.
func (m *Machine) Step(now Time, event Event) []Action {
	if c, ok := event.(Configure); ok {
		m.adjust = c.Config.Adjust
	}
	return slices.Clone(m.step(now, event, false))
}

// step is Step for a member of a sync group; vetoed: the group would not agree if this member became MASTER by itself. The actions
// are valid until the next call.
func (m *Machine) step(now Time, event Event, vetoed bool) []Action {
	switch e := event.(type) {
	case Start:
		return m.start(now, e, vetoed)
	case Packet:
		return m.packet(now, e)
	case Tick:
		return m.tick(now, vetoed)
	case Fail:
		return m.fail(e.Reason)
	case Heard:
		m.heardBefore(e.At)
	case Resigned:
		if m.state == Master && !m.handing {
			return m.stepBack(nil, now)
		}
	case SourceChange:
		m.source = e.Source
	case Configure:
		return m.configure(now, e.Config)
	case Stop:
		return m.stop(now)
	}
	return nil
}

func (m *Machine) start(now Time, e Start, vetoed bool) []Action {
	m.source = e.Source
	if m.state == Backup || m.state == Master {
		return nil
	}
	over, fault := m.state == Fault && !m.ready, m.fault()
	m.ready, m.failure = true, ""
	switch {
	case e.Resume && !vetoed:
		out := m.becomeMaster(nil, now, "restarted while MASTER")
		if m.hold() != "" || m.yields() {
			out = m.handOver(out, now)
		}
		return out
	case e.Resume || e.HandedOver:
		// Whoever takes over is not heard yet; until then the addresses are needed here.
		m.held = true
		m.await(now, m.cfg.Interval)
		out := m.change(nil, Backup, "restarted while handing over")
		if m.hold() != "" {
			out = m.handOver(out, now)
		}
		return out
	case m.hold() != "" && m.state == Fault:
		if m.fault() == fault {
			return nil
		}
		return []Action{Stayed{Reason: m.fault()}}
	case m.hold() != "":
		return m.change(nil, Fault, m.fault())
	case over:
		return m.begin(nil, now, "the failure is over", vetoed)
	}
	return m.begin(nil, now, "started", vetoed)
}

// begin takes part in the election from the beginning.
func (m *Machine) begin(out []Action, now Time, reason string, vetoed bool) []Action {
	if m.Priority() == Owner && !vetoed {
		return m.becomeMaster(out, now, fmt.Sprintf("started with priority %d", Owner))
	}
	// RFC 9568 6.4.1: wait as long as for a MASTER that fell silent, even if configured to be it.
	m.await(now, m.cfg.Interval)
	return m.change(out, Backup, reason)
}

func (m *Machine) tick(now Time, vetoed bool) []Action {
	out := m.actions[:0]
	if m.timer.due(now) {
		switch {
		case m.handing:
			out = m.giveUpWaiting(now)
		case m.overslept(now):
			out = m.stepBack(out, now)
		case m.state == Master && m.mayOffer(now):
			out = m.offer(out, now)
		case m.state == Master:
			// One advert, however late we are: a burst would tell the peers nothing more.
			out = m.advertise(out, now)
		default:
			// Before m.remove: who becomes MASTER again keeps its addresses.
			out = m.expire(now, vetoed)
		}
	}
	if m.remove.due(now) {
		m.remove, m.held = alarm{}, false
		out = append(out, RemoveAddresses{})
		switch {
		case m.leaves():
			out = m.leave(out)
		case m.handing:
			out = m.abdicate(out, now)
		}
	}
	if m.gone.due(now) {
		out = m.forgetRival(out)
	}
	m.actions = m.burst(out, now)
	return m.actions
}

// expire is the end of a BACKUP's patience.
func (m *Machine) expire(now Time, vetoed bool) []Action {
	switch {
	case m.cfg.Deaf && m.listens():
		m.await(now, m.interval)
		return nil
	case now-m.timer.at >= m.interval && !m.looked:
		// We were held up, maybe the whole box was and its network card lost what came meanwhile. A MASTER
		// that lives is heard within an interval. Only once, else a busy box would never take over.
		m.looked = true
		m.timer = at(now + m.interval + m.skew())
		return nil
	case vetoed:
		m.expired = true
		m.timer = at(now + m.interval) // to ask again
		return nil
	}
	return m.becomeMaster(nil, now, m.silence(now))
}

// listens says whether this is a BACKUP whose patience would end with silence.
func (m *Machine) listens() bool {
	return m.state == Backup && !m.leaves() && !m.leaving.IsValid() && !m.preempting
}

// silence says why the BACKUP's timer ran out.
func (m *Machine) silence(now Time) string {
	waited := (now - m.heard).Round(time.Millisecond)
	switch {
	case m.leaving.IsValid():
		return fmt.Sprintf("%s gives up being MASTER (priority 0)", m.leaving)
	case m.preempting:
		return fmt.Sprintf("%s has the lower priority %d, ours is %d", m.master, m.masterPriority, m.Priority())
	case m.master.IsValid():
		return fmt.Sprintf("no advert from %s for %s", m.master, waited)
	}
	return fmt.Sprintf("no advert from anybody for %s", waited)
}

// becomeMaster does it in keepalived's order: the advert first, because it is what keeps the others down.
func (m *Machine) becomeMaster(out []Action, now Time, reason string) []Action {
	fromOther := m.leaving.IsValid() || m.preempting
	m.remove = alarm{}
	m.preempt = alarm{}
	m.since, m.offered, m.held = now, now, true
	out = m.advertise(out, now)
	out = m.change(append(out, AddAddresses{}), Master, reason)
	return m.announceTakeover(out, now, fromOther)
}

// advertise sends one advert and sets the timer for the next. Nothing else moves the timer of a MASTER later, so
// that no packet from outside can silence it.
func (m *Machine) advertise(out []Action, now Time) []Action {
	m.sent = now
	m.timer = at(now + m.cfg.Interval)
	// The most impatient other router has priority 255, if it is a second owner.
	m.doubt = now + m.downAdverts()*m.cfg.Interval + m.skewUnit(m.cfg.Interval)/256
	priority := m.Priority()
	if last, ok := m.advertised.(Send); !ok || last.Advert.Priority != priority {
		m.advertised = Send{m.advert(priority)}
	}
	return append(out, m.advertised)
}

func (m *Machine) advert(priority uint8) Advert {
	a := Advert{
		Version:   m.cfg.Version,
		VRID:      m.cfg.VRID,
		Priority:  priority,
		Interval:  m.cfg.Interval,
		Checksum:  m.cfg.Checksum,
		Addresses: m.cfg.Addresses,
	}
	if m.cfg.Version == 2 && m.cfg.Password != "" {
		a.AuthType = authPassword
		copy(a.Password[:], m.cfg.Password)
	}
	return a
}

// overslept says whether this MASTER was held up until the others had to give it up.
func (m *Machine) overslept(now Time) bool { return m.state == Master && !m.handing && now >= m.doubt }

// stepBack leaves the place to whoever took it meanwhile, before anything is sent. The addresses stay until that one is
// heard: if there is nobody, no client notices.
func (m *Machine) stepBack(out []Action, now Time) []Action {
	stood := (now - m.sent).Round(time.Millisecond)
	m.bursts = bursts{}
	m.master, m.masterPriority = netip.Addr{}, 0
	m.await(now, m.cfg.Interval)
	return m.change(out, Backup, fmt.Sprintf("this director stood still for %s, another one may be MASTER now", stood))
}

// await starts the timer of a BACKUP: a MASTER that sends every interval may be silent for so long.
func (m *Machine) await(now Time, interval time.Duration) {
	m.interval = interval
	m.heard = now
	m.timer = at(now + m.Patience())
	m.preempting, m.looked, m.expired = false, false, false
	m.leaving = netip.Addr{}
}

// skew is the part of the wait by which the highest priority is the first. In version 2 it is a share of one
// second, whatever the interval; in version 3 of the MASTER's interval.
func (m *Machine) skew() time.Duration {
	return time.Duration(256-int(m.Priority())) * m.skewUnit(m.interval) / 256
}

func (m *Machine) skewUnit(interval time.Duration) time.Duration {
	if m.cfg.Version == 2 {
		return time.Second
	}
	return interval
}

func (m *Machine) downAdverts() time.Duration {
	if m.cfg.DownAdverts == 0 {
		return 3
	}
	return time.Duration(m.cfg.DownAdverts)
}

// Priority returns the priority that the machine takes part with: the configured one and Adjust, kept within 1-254; an
// owner's is always 255. Who yields has the lowest: it obeys everybody, and takes over when there is nobody. In a sync
// group the members' worst and best Adjust count for all of them, else a group could win one election and lose another.
func (m *Machine) Priority() uint8 {
	switch {
	case m.yields():
		return 1
	case m.cfg.Priority == Owner:
		return Owner
	}
	return uint8(min(max(int(m.cfg.Priority)+m.adjust, 1), Owner-1))
}

// forget drops every timer and what was learned from others.
func (m *Machine) forget() {
	m.timer, m.remove, m.preempt, m.bursts = alarm{}, alarm{}, alarm{}, bursts{}
	m.master, m.masterPriority, m.leaving = netip.Addr{}, 0, netip.Addr{}
	m.preempting, m.looked, m.expired = false, false, false
	m.handing, m.repeated, m.follow = false, false, ""
}

func (m *Machine) fail(reason string) []Action {
	m.ready = false
	before := m.fault()
	m.failure = reason
	var out []Action
	if m.held {
		if !m.handing && !m.remove.set {
			out = append(out, Send{m.advert(0)})
		}
		m.held = false
		out = append(out, RemoveAddresses{})
	}
	switch {
	case m.stopping:
		// Nobody can be heard any more, so there is nothing to wait for.
		return m.finishStop(out, "stopped: "+reason)
	case m.state != Fault:
		m.forget()
		return m.change(out, Fault, m.fault())
	case m.fault() != before:
		return []Action{Stayed{Reason: m.fault()}}
	}
	return nil
}

// configure takes effect with the next advert. Only Yield and Hold change the state.
func (m *Machine) configure(now Time, cfg Config) []Action {
	old, hold, yields, fault := m.cfg, m.hold(), m.yields(), m.fault()
	m.set(cfg)
	if cfg.PreemptDelay != old.PreemptDelay || !cfg.Preempt {
		m.preempt = alarm{} // counted afresh from the next lower advert
	}
	if m.stopping {
		return nil
	}
	var out []Action
	switch {
	case m.handing:
	case m.state == Master:
		// With a shorter interval the peers lose patience earlier too, maybe before the advert that was planned.
		m.timer.at = min(m.timer.at, now+cfg.Interval)
		m.refreshFrom(now, old.Announce.Refresh)
		added := func(a netip.Addr) bool { return !slices.Contains(old.Addresses, a) }
		if slices.ContainsFunc(cfg.Addresses, added) {
			out = m.announceTwice([]Action{AddAddresses{}}, now)
		}
	case m.state == Backup && !m.leaves():
		if cfg.Interval != old.Interval && (cfg.Version == 2 || !m.master.IsValid()) {
			// The old wait was meant for the old interval; a change of the file is no silence of the MASTER.
			m.await(now, cfg.Interval)
		} else if old.Deaf && !cfg.Deaf && m.listens() {
			m.await(now, m.interval)
		}
		m.reconsider(now)
	}
	return m.heed(out, now, hold, yields, fault)
}

// reconsider keeps a BACKUP from taking over from a MASTER that is not to be preempted any more.
func (m *Machine) reconsider(now Time) {
	if m.state == Backup && m.preempting && !m.leaves() && (m.masterPriority >= m.Priority() || !m.preempts()) {
		m.await(now, m.interval)
	}
}

func (m *Machine) change(out []Action, to State, reason string) []Action {
	from := m.state
	if from == to {
		return out
	}
	m.state = to
	if from == Master {
		m.follow = ""
		out = m.forgetRival(out)
	}
	return append(out, Changed{From: from, To: to, Reason: reason})
}
