package ha

import (
	"github.com/xdirector/xdirector/pkg/lb"
	"github.com/xdirector/xdirector/pkg/vrrp"
)

// step gives a machine an event that may change anything, and carries out what it and its sync group answer, in their order.
func (l *loop) step(i *instance, now vrrp.Time, event vrrp.Event) {
	for _, o := range i.sync.members { // a decision of one is a decision of all
		l.release(o, now)
	}
	l.give(i, now, event)
	for _, o := range i.sync.members {
		l.arm(o)
	}
}

// give does it for an event that does not end the absorbing, and sets no timer.
func (l *loop) give(i *instance, now vrrp.Time, event vrrp.Event) {
	actions := l.actions
	l.actions = nil // an action may lead to another step
	actions = i.sync.machines.Append(actions[:0], now, i.member, event)
	for _, a := range actions {
		o := i.sync.members[a.Member]
		l.touch(o)
		switch a := a.Action.(type) {
		case vrrp.Accepted:
			l.accepted(o, now, a)
		case vrrp.Mismatch:
			if o.notices.mismatch(now, a) {
				o.changed = true
			}
			if l.frame != nil {
				o.repeat.differ = o.notices.mismatches[saying{a.Source, a.Kind}]
			}
		default:
			l.act(o, now, a)
		}
	}
	l.actions = actions
}

// accepted counts an advert and keeps it if a repeat of it needs no second look.
func (l *loop) accepted(i *instance, now vrrp.Time, a vrrp.Accepted) {
	i.received++
	form := -1
	if i.given.Version == 3 && !i.ipv6 {
		form = int(a.Checksum)
		i.forms[form]++
	}
	d := lb.Director{MAC: l.sender, Address: a.Source}
	peer, news := i.notices.peer(now, d)
	i.changed = i.changed || news
	if i.repeat.forget(); i.machine.State() == vrrp.Backup {
		i.before, i.beforeAt = l.sender, now
	}
	if a.Obeyed && l.frame != nil {
		i.repeat.keep(l.frame, form, peer)
	}
}

// act carries out an action.
func (l *loop) act(i *instance, now vrrp.Time, action vrrp.Action) {
	switch a := action.(type) {
	case vrrp.Send:
		l.send(i, a.Advert)
		if a.Advert.Priority == 0 {
			l.secondChance(i, now, lb.MAC{}) // the successor may be there before we hear of it
		}
	case vrrp.AddAddresses:
		l.flush() // the advert keeps the others down; it leaves first
		i.holds = true
		i.holder.set(func(w *wish) { w.hold = true })
	case vrrp.RemoveAddresses:
		l.flush()
		i.holds = false
		i.holder.set(func(w *wish) { w.hold = false })
	case vrrp.Announce:
		l.flush()
		i.holder.set(func(w *wish) { w.rounds += a.Repeat })
	case vrrp.Changed:
		i.repeat.forget()
		i.enter(a)
		l.gate(i)
		l.succession(i, now, a)
		l.lease.stale = true
	case vrrp.Stayed:
		i.reason, i.changed = a.Reason, true
		i.log.Info("state stays", "state", i.machine.State().String(), "reason", a.Reason)
	case vrrp.Refused:
		i.refuse(now, a)
	case vrrp.Stopped:
		i.handed = true
		i.holder.set(func(w *wish) { w.decided, w.quit = true, true })
	}
}

// touch has the next report ask the instance whether it changed.
func (l *loop) touch(i *instance) {
	if !i.touched {
		i.touched = true
		l.touched = append(l.touched, i)
	}
}

func (l *loop) send(i *instance, a vrrp.Advert) {
	if i.index == 0 || !i.source.IsValid() {
		return
	}
	if i.queued {
		l.flush()
	}
	l.lease.sent = true
	if i.out.prepare(a, i.source, i.mac, i.given.Peers) {
		l.lease.stale = true
	}
	if i.out.frame != nil {
		i.queued = true
		l.outbox.add(i, i.index, i.out.frame, l.clock())
		return
	}
	var failed error
	for _, p := range i.out.peers {
		if err := l.outbox.sendTo(p.address, i.index, p.packet); err != nil {
			failed = err
		}
	}
	i.delivered(l.clock(), failed)
}
