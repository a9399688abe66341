package vrrp

import "time"

// broken says which rule a machine violates at now, if nobody has an advert interval longer than interval.
func broken(m *Machine, now Time, interval time.Duration) string {
	_, waits := m.Deadline()
	announces := m.bursts.soon.set || m.bursts.again.set || m.bursts.refresh.set
	lingers := m.leaves() && m.state == Backup && m.remove.set
	switch {
	case m.stopping && m.state != Master && m.state != Backup:
		return "it stops without anything to hand over"
	case m.handing && !m.held:
		return "it hands over what it does not have"
	case m.handing && m.timer.set == m.remove.set:
		return "a handover waits for a successor or for the end, one of them"
	case m.hold() != "" && m.state == Master && !m.handing:
		return "MASTER although it is held"
	case m.leaves() && m.state == Backup && !m.handing && !m.remove.set:
		return "BACKUP that should have left"
	case m.state != Master && announces || m.handing && announces:
		return "who is not MASTER announces"
	case m.state != Master && (m.gone.set || m.follow != ""):
		return "who is not MASTER remembers what a MASTER knows"
	case m.state == Master && !m.held:
		return "MASTER without addresses"
	case m.handing || lingers:
	case m.state == Master && !m.timer.set:
		return "MASTER without an advert timer"
	case m.state == Master && (m.timer.at > now+m.cfg.Interval || m.timer.at >= m.doubt || m.sent > now):
		return "MASTER that lets the others wait longer than its interval"
	case m.state == Master && m.remove.set:
		return "MASTER that will lose its addresses"
	case m.state == Backup && !m.timer.set:
		return "BACKUP without a master-down timer"
	case m.state == Backup && m.timer.at > now+max(5, m.downAdverts())*interval+max(interval, time.Second): // 5 before a reload
		return "BACKUP that waits too long"
	case m.state == Backup && (m.interval < 10*time.Millisecond || m.interval > interval):
		return "BACKUP that learned an interval nobody has"
	case m.remove.set && m.remove.at > now+lingerTime:
		return "addresses stay too long"
	case (m.state == Init || m.state == Fault) && (waits || m.held):
		return "a timer runs or addresses are there without an election"
	}
	return ""
}
