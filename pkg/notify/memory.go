package notify

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/xdirector/xdirector/pkg/statefile"
	"github.com/xdirector/xdirector/pkg/status"
)

// states are those of subjects, by subject; the usual one is left out: up, or INIT.
type states map[string]string

// owner is who remembers what was told: all commands together, or one webhook or mailbox.
type owner struct {
	begun bool   // it was compared with the picture; before that nothing is known of it
	heard states // what was handed over
	until uint64 // the ID of the last event that is in the picture which it was compared with
	told  states // what is done: this one outlives a restart
	open  bool   // something was told as down, and nobody knows yet whether that is still so
}

// subject is what the state of an event is about; empty: the event is no change of a state.
func subject(e status.Event) string {
	switch e.Kind {
	case status.KindInstance:
		return e.Kind + " " + e.Instance
	case status.KindSyncGroup:
		return e.Kind + " " + e.SyncGroup
	case status.KindService:
		return e.Kind + " " + e.Service
	case status.KindRealServer:
		return e.Kind + " " + e.Service + "/" + e.RealServer
	}
	return ""
}

// isElection says whether the event is about an instance or a sync group.
func isElection(e status.Event) bool {
	return e.Kind == status.KindInstance || e.Kind == status.KindSyncGroup || e.Kind == status.KindMismatch
}

const (
	initial = "INIT"
	up      = "up"
	down    = "down"
)

func (s states) set(subject, state string) {
	if state == initial || state == up {
		delete(s, subject)
		return
	}
	s[subject] = state
}

// is says whether the subject has that state.
func (s states) is(subject, state string) bool {
	known, ok := s[subject]
	return known == state || !ok && (state == initial || state == up)
}

// remembered is what the file holds.
type remembered struct {
	Told   map[string]states `json:"told"` // by owner
	Counts map[string]Counts `json:"counts"`
}

// recall reads what was told before a restart.
func (n *Notifier) recall() {
	n.fresh = true
	if n.opts.StateFile == "" {
		return
	}
	var r remembered
	boot, err := statefile.BootID()
	found := false
	if err == nil {
		found, err = statefile.Read(n.opts.StateFile, boot, &r)
	}
	if err != nil {
		n.log.Warn("what was notified before the restart is not known; what is not as at a first start is notified again", "file", n.opts.StateFile, "error", err)
	}
	if !found || err != nil {
		return
	}
	n.fresh = false
	for name, told := range r.Told {
		n.owners[name] = &owner{begun: true, heard: maps.Clone(told), told: told}
		if told == nil {
			n.owners[name].heard, n.owners[name].told = states{}, states{}
		}
	}
	for label, c := range r.Counts {
		n.counts[label] = &c
	}
}

// rememberSoon asks for the file to be written.
func (n *Notifier) rememberSoon() {
	select {
	case n.dirty <- struct{}{}:
	default:
	}
}

// together is how long changes are collected for one write of the file.
const together = 50 * time.Millisecond

// remember writes the file after changes, so that nothing else waits for a disk. It ends with ctx.
func (n *Notifier) remember(ctx context.Context) {
	var complained time.Time
	for {
		select {
		case <-n.dirty:
		case <-ctx.Done():
			return
		}
		if err := n.write(); err != nil && time.Since(complained) > complainAgain {
			complained = time.Now()
			n.log.Warn("what was notified could not be recorded; after a crash it would be notified again", "file", n.opts.StateFile, "error", err)
		}
		select {
		case <-time.After(together):
		case <-ctx.Done():
			return
		}
	}
}

func (n *Notifier) write() error {
	if n.opts.StateFile == "" {
		return nil
	}
	n.mu.Lock()
	r := remembered{Told: map[string]states{}, Counts: map[string]Counts{}}
	for name, o := range n.owners {
		if o.begun {
			r.Told[name] = maps.Clone(o.told)
		}
	}
	for label, c := range n.counts {
		r.Counts[label] = *c
	}
	n.mu.Unlock()
	boot, err := statefile.BootID()
	if err != nil {
		return err
	}
	return statefile.Write(n.opts.StateFile, boot, r)
}

// reconcile hands over what in the newest picture differs from what each owner has heard. One that is new knows everything
// already, but at the first start. The lock is held.
func (n *Notifier) reconcile(owners map[string]*owner) {
	until := uint64(0)
	if recent := n.opts.Feed.Recent(0); len(recent) > 0 { // first this, so that the picture has all of them
		until = recent[len(recent)-1].ID
	}
	now := n.opts.Picture()
	for name, o := range owners {
		o.until = until
		if !o.begun {
			o.begun, o.heard, o.told = true, states{}, states{}
			if !n.fresh {
				o.heard = statesOf(now)
				o.told = maps.Clone(o.heard)
			}
		}
		one := map[string]*owner{name: o}
		forget(o, now)
		var before *status.Status
		before, o.open = rewind(now, o.heard)
		for _, e := range status.Changes(before, now) {
			if subject(e) != "" && e.Kind != status.KindSyncGroup {
				n.dispatch(e, one)
			}
		}
		groups := status.SyncGroups(now.Instances)
		for _, group := range slices.Sorted(maps.Keys(groups)) {
			was := o.heard[status.KindSyncGroup+" "+group]
			if was == "" {
				was = initial
			}
			if was != groups[group] {
				e := status.SyncGroupEvent(group, was, groups[group])
				e.Time = now.Time
				n.dispatch(e, one)
			}
		}
	}
	n.fresh = false
	n.rememberSoon()
}

// settle looks again whether what was told as down before a restart is up, until every check has said something.
func (n *Notifier) settle() {
	n.mu.Lock()
	defer n.mu.Unlock()
	open := maps.Clone(n.owners)
	maps.DeleteFunc(open, func(_ string, o *owner) bool { return !o.open })
	if len(open) > 0 {
		n.reconcile(open)
	}
}

// statesOf are all states of a picture.
func statesOf(s *status.Status) states {
	list := states{}
	for _, i := range s.Instances {
		list.set(status.KindInstance+" "+i.Name, i.State)
	}
	for name, state := range status.SyncGroups(s.Instances) {
		list.set(status.KindSyncGroup+" "+name, state)
	}
	for _, v := range s.Services {
		if !v.Quorum.Up {
			list[status.KindService+" "+v.Name] = down
		}
		for _, r := range v.RealServers {
			if !r.Up {
				list[status.KindRealServer+" "+v.Name+"/"+r.Address] = down
			}
		}
	}
	return list
}

// forget drops what the picture no longer has.
func forget(o *owner, now *status.Status) {
	have := map[string]bool{}
	for _, i := range now.Instances {
		have[status.KindInstance+" "+i.Name], have[status.KindSyncGroup+" "+i.SyncGroup] = true, true
	}
	for _, v := range now.Services {
		have[status.KindService+" "+v.Name] = true
		for _, r := range v.RealServers {
			have[status.KindRealServer+" "+v.Name+"/"+r.Address] = true
		}
	}
	gone := func(subject, _ string) bool { return !have[subject] }
	maps.DeleteFunc(o.heard, gone)
	maps.DeleteFunc(o.told, gone)
}

// rewind makes the picture before all changes that were not heard of. What was heard to be down stays so while a real server
// counts as up only because nothing has checked it yet; open says that there is such a one.
func rewind(now *status.Status, heard states) (before *status.Status, open bool) {
	b := *now
	b.Instances = slices.Clone(now.Instances)
	for n := range b.Instances {
		i := &b.Instances[n]
		if i.State = heard[status.KindInstance+" "+i.Name]; i.State == "" {
			i.State = initial
		}
	}
	b.Services = slices.Clone(now.Services)
	for n := range b.Services {
		v := &b.Services[n]
		v.RealServers = slices.Clone(v.RealServers)
		unknown := false
		for k := range v.RealServers {
			r := &v.RealServers[k]
			was := heard[status.KindRealServer+" "+v.Name+"/"+r.Address] != down
			unchecked := r.Up && r.Checks[up]+r.Checks[down] == 0 && r.Reason != "no check"
			unknown = unknown || unchecked
			if !was && unchecked {
				open = true
				continue
			}
			r.Up = was
		}
		if was := heard[status.KindService+" "+v.Name] != down; !was && v.Quorum.Up && unknown {
			open = true
		} else {
			v.Quorum.Up = was
		}
	}
	return &b, open
}
