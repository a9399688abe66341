package status

import "fmt"

// syncGroups are the states of sync groups by name: each has that of its worst member.
type syncGroups map[string]struct{ was, is string }

func (s syncGroups) add(name, was, is string) {
	if name == "" {
		return
	}
	g := s[name]
	g.was, g.is = worse(g.was, was), worse(g.is, is)
	s[name] = g
}

// worse is the one of two states that a sync group has if it has members in both.
func worse(a, b string) string {
	rank := map[string]int{"MASTER": 1, "BACKUP": 2, "FAULT": 3, "INIT": 4}
	if rank[a] > rank[b] {
		return a
	}
	return b
}

// SyncGroups returns the state of each sync group: MASTER if all of its members are, INIT or FAULT as soon as one is, else
// BACKUP.
func SyncGroups(instances []Instance) map[string]string {
	states := map[string]string{}
	for _, i := range instances {
		if i.SyncGroup != "" {
			states[i.SyncGroup] = worse(states[i.SyncGroup], i.State)
		}
	}
	return states
}

// SyncGroupEvent says that a sync group has another state, or was in another one meanwhile.
func SyncGroupEvent(name, was, is string) Event {
	e := Event{Kind: KindSyncGroup, Level: LevelInfo, SyncGroup: name, State: is, Previous: was, Text: fmt.Sprintf("sync group %s is %s, was %s", name, is, was)}
	if is == "FAULT" {
		e.Level = LevelError
	} else if was == "MASTER" {
		e.Level = LevelWarning
	}
	return e
}
