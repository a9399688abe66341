package vrrp

// Group is the machines of a sync group, which change state together. A machine that is in no sync group is a group
// of its own. It holds nothing but its members, so groups can be formed anew at any time.
type Group []*Machine

// MemberAction is an action that the owner of a member must do.
type MemberAction struct {
	Member int // index into the group
	Action Action
}

// Step tells one member what happened at now, and returns what must be done for all of them, in that order.
func (g Group) Step(now Time, member int, event Event) []MemberAction {
	var out []MemberAction
	for _, a := range g[member].Step(now, event) {
		out = append(out, MemberAction{Member: member, Action: a})
	}
	return out
}
