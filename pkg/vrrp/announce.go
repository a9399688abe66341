package vrrp

import "time"

const (
	// announcePause is the least time between bursts that other boxes cause.
	announcePause = time.Second
	// settleTime is when every other director that was MASTER has given up its addresses: lingerTime after it
	// heard us, and some more for the network. Until then a client that asks may get its answer.
	settleTime = 2 * lingerTime
)

// bursts are the gratuitous ARPs or neighbour advertisements that a MASTER plans.
type bursts struct {
	last     Time  // the last one
	disputed Time  // the last advert of a MASTER that has to give way to us
	soon     burst // after a moment in which another director may still have answered
	again    burst // keepalived's second one
	refresh  alarm
}

type burst struct {
	alarm
	repeat int
}

func orDefault[T int | time.Duration](value, otherwise T) T {
	if value == 0 {
		return otherwise
	}
	return value
}

// announceTakeover tells the neighbours who is MASTER now. keepalived does so twice, five seconds apart. In between, a
// client would keep the MAC of the old MASTER if that one, which keeps its addresses for a moment, was the last to
// answer. So where the old MASTER lives there is a third burst, when that moment is over.
func (m *Machine) announceTakeover(out []Action, now Time, fromOther bool) []Action {
	m.bursts = bursts{}
	out = m.announceTwice(out, now)
	if fromOther {
		m.bursts.soon = burst{at(now + settleTime), orDefault(m.cfg.Announce.Repeat, 5)}
	}
	m.refreshFrom(now, 0)
	return out
}

func (m *Machine) announceTwice(out []Action, now Time) []Action {
	c := m.cfg.Announce
	return m.announceAndAgain(out, now, orDefault(c.Repeat, 5), orDefault(c.Delay, 5*time.Second))
}

func (m *Machine) announceAndAgain(out []Action, now Time, repeat int, delay time.Duration) []Action {
	m.bursts.last = now
	m.bursts.again = burst{}
	if delay >= 0 {
		m.bursts.again = burst{at(now + delay), repeat}
	}
	return append(out, Announce{Repeat: repeat})
}

// dispute is for a MASTER that heard one which has to give way: that one has told the neighbours its own MAC, and nobody
// but us puts that right. Once at once, and once more when it has given up the addresses.
func (m *Machine) dispute(out []Action, now Time) []Action {
	c := m.cfg.Announce
	repeat := orDefault(c.LowerRepeat, orDefault(c.Repeat, 5))
	if repeat < 0 {
		return out
	}
	m.bursts.disputed = now
	if m.bursts.soon.set {
		return out // what is due then is decided then
	}
	m.bursts.soon = burst{at(now + settleTime), repeat}
	if now >= m.bursts.last+announcePause {
		out = m.announceLower(out, now, repeat)
	}
	return out
}

func (m *Machine) announceLower(out []Action, now Time, repeat int) []Action {
	c := m.cfg.Announce
	return m.announceAndAgain(out, now, repeat, orDefault(c.LowerDelay, orDefault(c.Delay, 5*time.Second)))
}

// refreshFrom plans the next refresh, unless the period is still the old one.
func (m *Machine) refreshFrom(now Time, old time.Duration) {
	switch period := m.cfg.Announce.Refresh; {
	case period <= 0:
		m.bursts.refresh = alarm{}
	case period != old:
		m.bursts.refresh = at(now + period)
	}
}

// burst does what is due.
func (m *Machine) burst(out []Action, now Time) []Action {
	b := &m.bursts
	if b.soon.due(now) {
		repeat := b.soon.repeat
		b.soon = burst{}
		switch {
		case b.disputed+lingerTime >= now: // it may not have given up the addresses yet
			out = m.announceLower(out, now, repeat)
			b.soon = burst{at(now + announcePause), repeat}
		case b.disputed > b.last:
			out = m.announceLower(out, now, repeat)
		default:
			b.last = now
			out = append(out, Announce{Repeat: repeat})
		}
	}
	if b.again.due(now) {
		b.last = now
		out = append(out, Announce{Repeat: b.again.repeat})
		b.again = burst{}
	}
	if b.refresh.due(now) {
		b.last = now
		b.refresh = at(now + m.cfg.Announce.Refresh)
		out = append(out, Announce{Repeat: orDefault(m.cfg.Announce.RefreshRepeat, 1)})
	}
	return out
}
