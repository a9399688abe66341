package vrrp

import (
	"fmt"
	"slices"
)

// Group is the machines of a sync group, which change state together. A machine that is in no sync group is a group
// of its own. It holds nothing but its members, so groups can be formed anew at any time; then give one member a Tick,
// which brings the new group in line.
//
// One member that can't take part keeps all in FAULT. One that obeys a MASTER makes all BACKUP: those that were MASTER
// hand over first. A BACKUP whose patience ends becomes MASTER when the patience of all has ended, and then all do. A
// wish to yield to one member is one to all. A MASTER that hears a lower one makes all announce themselves.
//
// A member that stops is on its own; what kept it down still counts until the group is formed without it, or else the
// others would come up for the moment until they are stopped too. The members should have one priority: where each of
// two directors is the better one for one member, neither can be MASTER for long.
type Group []*Machine

// MemberAction is an action that the owner of a member must do.
type MemberAction struct {
	Member int // index into the group
	Action Action
}

// Step tells one member what happened at now, and returns what must be done for all of them, in that order.
func (g Group) Step(now Time, member int, event Event) []MemberAction {
	return g.Append(nil, now, member, event)
}

// Append is Step for a caller who has room for the actions: they are appended to out. With that a Tick that sends an advert like
// the one before, and what has no effect but on a timer, allocate nothing.
func (g Group) Append(out []MemberAction, now Time, member int, event Event) []MemberAction {
	m := g[member]
	switch e := event.(type) {
	case Start:
		out = g.align(out, now) // it begins with the wishes of all
	case Configure:
		m.adjust = g.adjust(member, e.Config.Adjust)
	}
	steady := m.state == Master && !m.handing
	actions := m.step(now, event, g.vetoes(m, event))
	out = of(slices.Grow(out, len(actions)), member, actions)
	if _, packet := event.(Packet); packet && !accepts(actions) {
		return out // without any effect
	}
	if len(g) == 1 && m.groupHold == (heldBy{}) && !m.groupYield && m.follow == "" && m.adjust == m.cfg.Adjust {
		return out
	}
	offers := steady && m.handing && m.offering
	disputes := steady && m.state == Master && !m.handing && disputed(actions)
	for i, other := range g {
		switch {
		case i == member:
		case other.overslept(now):
			// They stood still together. Else this one would be taken for a MASTER whom the others follow.
			out = of(out, i, other.stepBack(nil, now))
		case offers && other.state == Master && !other.handing:
			out = of(out, i, other.offer(nil, now))
		case disputes && other.state == Master && !other.handing:
			out = of(out, i, other.dispute(nil, now))
		}
	}
	return g.align(out, now)
}

func of(out []MemberAction, member int, actions []Action) []MemberAction {
	for _, a := range actions {
		out = append(out, MemberAction{Member: member, Action: a})
	}
	return out
}

// accepts says whether the answer to a packet is that of an advert.
func accepts(actions []Action) bool {
	if len(actions) == 0 {
		return false
	}
	_, ok := actions[0].(Accepted)
	return ok
}

// disputed says whether a MASTER that stays MASTER has heard another one.
func disputed(actions []Action) bool { return accepts(actions) && actions[0].(Accepted).Priority != 0 }

// obeys says whether a BACKUP knows a living MASTER that it leaves in place.
func (m *Machine) obeys() bool {
	return m.state == Backup && m.master.IsValid() && !m.preempting && !m.expired
}

// vetoes says whether the other members would not agree if m became MASTER by itself. The group becomes MASTER as a
// whole or not at all: else a member that hears nobody, and one that is obeyed nowhere, would change the state of all to
// and fro.
func (g Group) vetoes(m *Machine, event Event) bool {
	_, start := event.(Start)
	for _, other := range g {
		if other != m && !other.stopping && other.state == Backup && (other.obeys() || !start && !other.expired) {
			return true
		}
	}
	return false
}

// align makes all members do what one of them has to do.
func (g Group) align(out []MemberAction, now Time) []MemberAction {
	first, second := -1, -1 // members that can't take part
	yield := false
	for i, m := range g {
		yield = yield || m.cfg.Yield
		switch {
		case joined(m.failure, m.cfg.Hold) == "":
		case first < 0:
			first = i
		case second < 0:
			second = i
		}
	}
	adjust := g.adjust(0, g[0].cfg.Adjust)
	for i, m := range g {
		m.adjust = adjust
		if m.stopping {
			continue
		}
		var hold heldBy
		cause := first
		if cause == i {
			cause = second
		}
		if cause >= 0 {
			hold = heldBy{g[cause].name(), joined(g[cause].failure, g[cause].cfg.Hold)}
		}
		if hold != m.groupHold || yield != m.groupYield {
			out = of(out, i, m.sync(now, hold, yield))
		}
		m.reconsider(now)
	}
	if len(g) == 1 {
		return g.release(out, now)
	}
	return g.level(out, now)
}

// adjust is the change of priority for all members, if that of one is own.
func (g Group) adjust(member, own int) int {
	worst, best := min(own, 0), max(own, 0)
	for i, m := range g {
		if i != member {
			worst, best = min(worst, m.cfg.Adjust), max(best, m.cfg.Adjust)
		}
	}
	return worst + best
}

// level makes all members BACKUP or MASTER.
func (g Group) level(out []MemberAction, now Time) []MemberAction {
	obeying := slices.IndexFunc(g, func(m *Machine) bool { return !m.stopping && m.obeys() })
	if obeying < 0 {
		out = g.release(out, now)
	}
	master := slices.IndexFunc(g, func(m *Machine) bool { return !m.stopping && m.state == Master && !m.handing })
	if obeying < 0 && master < 0 {
		return out
	}
	for i, m := range g {
		switch {
		case m.leaves():
		case obeying >= 0 && m.state == Master:
			m.follow = fmt.Sprintf("%s of the sync group is BACKUP", g[obeying].name())
			out = of(out, i, m.handOver(nil, now))
		case obeying < 0 && m.state == Backup && (!m.held || m.remove.set || m.expired):
			// Who still holds addresses is in doubt whether there is another MASTER: it waits for itself.
			out = of(out, i, m.becomeMaster(nil, now, fmt.Sprintf("%s of the sync group is MASTER", g[master].name())))
		}
	}
	return out
}

// release ends handovers for a group that does not ask for them any more.
func (g Group) release(out []MemberAction, now Time) []MemberAction {
	for i, m := range g {
		if m.follow == "" || m.leaves() {
			continue
		}
		m.follow = ""
		if m.state == Master && m.handing && (!m.yields() || m.remove.set) {
			out = of(out, i, m.takeBack(nil, now))
		}
	}
	return out
}

// heldBy is another member of the sync group that can't take part, and why; the zero value: all others can.
type heldBy struct{ member, cause string }

// after adds it to a router's own reason, unless that says the same: maintenance is one for all.
func (h heldBy) after(own string) string {
	if h.cause == "" || h.cause == own {
		return own
	}
	return joined(own, h.member+" of the sync group: "+h.cause)
}

// name is what the other members call this one.
func (m *Machine) name() string {
	if m.cfg.Name == "" {
		return fmt.Sprintf("virtual_router_id %d", m.cfg.VRID)
	}
	return m.cfg.Name
}

// sync tells the machine what the others of its group keep it from.
func (m *Machine) sync(now Time, hold heldBy, yield bool) []Action {
	oldHold, oldYield, fault := m.hold(), m.yields(), m.fault()
	m.groupHold, m.groupYield = hold, yield
	return m.heed(nil, now, oldHold, oldYield, fault)
}
