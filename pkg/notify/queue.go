package notify

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/xdirector/xdirector/pkg/command"
	"github.com/xdirector/xdirector/pkg/status"
)

// How many events may wait. There is one queue for the hooks of each instance, real server and so on, as many for each command
// that is told of all of them, and one for each webhook and mailbox.
const (
	electionQueue = 16
	commandQueue  = 4
	targetQueue   = 1000
)

// item is an event on its way to targets, one after another.
type item struct {
	Message
	subject string // see there
	targets []string
}

// queue is a row of items for one owner, told in order by one goroutine while there are any.
type queue struct {
	key      string
	owner    string
	election bool
	limit    int
	waiting  []*item
	latest   map[string]*item // that came, by subject
	busy     int              // items that are being told
	running  bool
	mailed   time.Time // when the last mail was sent
	first    time.Time // when the oldest that waits came
	newest   time.Time
}

// dispatch hands an event over to the given owners. The lock is held.
func (n *Notifier) dispatch(e status.Event, owners map[string]*owner) {
	about := subject(e)
	for name, o := range owners {
		if !o.begun {
			continue // nothing was compared yet
		}
		if about != "" {
			if e.ID != 0 && e.ID <= o.until {
				continue // the comparison has found it
			}
			if o.heard.is(about, e.State) && e.Previous != e.State {
				continue // it is known: told before a restart, or found by a comparison
			}
			o.heard.set(about, e.State)
		}
		targets := n.matching(e, name)
		key, limit := name, targetQueue
		if strings.HasPrefix(name, hooks) {
			key, limit = key+": "+about, commandQueue
			if isElection(e) {
				key = fmt.Sprintf("%s: %s,%s", name, e.Instance, e.SyncGroup)
			}
			if isElection(e) || about == "" {
				limit = electionQueue
			}
		}
		q := n.queues[key]
		if len(targets) == 0 && (q == nil || len(q.waiting)+q.busy == 0) {
			if about != "" {
				o.told.set(about, e.State)
				n.rememberSoon()
			}
			continue
		}
		if q == nil {
			q = &queue{key: key, owner: name, election: isElection(e), limit: limit, latest: map[string]*item{}}
			n.queues[key] = q
		}
		m := Message{Event: e, RouterID: n.routerID()}
		if m.ID == 0 { // found by a comparison
			n.lastID = max(n.lastID+1, uint64(time.Now().UnixMicro()))
			m.ID = n.lastID
		}
		n.push(q, &item{m, about, targets})
	}
}

func (n *Notifier) routerID() string {
	if p := n.opts.Picture(); p != nil {
		return p.RouterID
	}
	return ""
}

// matching are the names of an owner's targets for the event, those of one object first.
func (n *Notifier) matching(e status.Event, owner string) []string {
	var list []string
	add := func(targets []*Target) {
		for _, t := range targets {
			if t.owner() == owner && t.Filter.takes(e) && !slices.Contains(list, t.Name) {
				list = append(list, t.Name)
			}
		}
	}
	for _, name := range names(e) {
		add(n.byName[name])
	}
	add(n.always)
	return list
}

// push appends an item. A full queue loses the oldest item whose state is no longer true, else the oldest.
func (n *Notifier) push(q *queue, it *item) {
	now := time.Now()
	if len(q.waiting) == 0 {
		q.first = now
	}
	q.newest = now
	q.waiting = append(q.waiting, it)
	if it.subject != "" {
		q.latest[it.subject] = it
	}
	if len(q.waiting) > q.limit {
		n.drop(q)
	}
	if !q.running {
		q.running = true
		n.workers.Go(func() { n.work(q) })
	}
}

func (n *Notifier) drop(q *queue) {
	oldest := max(0, slices.IndexFunc(q.waiting, func(it *item) bool { return it.subject != "" && q.latest[it.subject] != it }))
	it := q.waiting[oldest]
	q.waiting = slices.Delete(q.waiting, oldest, oldest+1)
	for _, name := range it.targets {
		if t := n.targets[name]; t != nil {
			c := n.counts[t.Label]
			c.Dropped++
			c.losses.add(it.Text)
		}
	}
	n.done(q, []*item{it})
}

// done remembers that items were told, or never will be.
func (n *Notifier) done(q *queue, items []*item) {
	o := n.owners[q.owner]
	if o == nil || !o.begun {
		return
	}
	for _, it := range items {
		if it.subject == "" {
			continue
		}
		o.told.set(it.subject, it.State)
		n.rememberSoon()
	}
}

// waiting counts the queues that are not empty.
func (n *Notifier) waiting() int {
	count := 0
	for _, q := range n.queues {
		if q.running {
			count++
		}
	}
	return count
}

// work tells what a queue holds, in order, until it is empty.
func (n *Notifier) work(q *queue) {
	for {
		items := n.next(q)
		if items == nil {
			return
		}
		for _, name := range concerned(items) {
			if !n.tell(q, name, items) {
				return // all ends: the next run tells it
			}
		}
		n.mu.Lock()
		q.busy = 0
		n.done(q, items)
		n.mu.Unlock()
	}
}

// next takes what is to be told now: one item, or for mail all that wait. nil: the queue is empty, or all ends.
func (n *Notifier) next(q *queue) []*item {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.owners[q.owner] == nil {
		q.waiting = nil // nobody is there any more
	}
	for len(q.waiting) > 0 && n.ctx.Err() == nil {
		count := 1
		if t := n.mailbox(q.waiting[0]); t != nil {
			if pause := time.Until(t.Mail.due(q)); pause > 0 && !n.finishing() {
				n.mu.Unlock()
				n.pause(pause)
				n.mu.Lock()
				continue
			}
			count = len(q.waiting)
			q.mailed = time.Now()
		}
		items := slices.Clone(q.waiting[:count])
		q.waiting = slices.Delete(q.waiting, 0, count)
		q.first = time.Now()
		q.busy = count
		return items
	}
	q.running = false
	clear(q.latest)
	if q.mailed.IsZero() { // else the next mail has to wait
		delete(n.queues, q.key)
	}
	n.idle.Broadcast()
	return nil
}

// mailbox is the target of an item, if that is a mailbox.
func (n *Notifier) mailbox(it *item) *Target {
	if len(it.targets) == 0 {
		return nil
	}
	if t := n.targets[it.targets[0]]; t != nil && t.Mail != nil {
		return t
	}
	return nil
}

// concerned are the targets of some items, in order.
func concerned(items []*item) []string {
	var list []string
	for _, it := range items {
		for _, name := range it.targets {
			if !slices.Contains(list, name) {
				list = append(list, name)
			}
		}
	}
	return list
}

func (n *Notifier) finishing() bool {
	select {
	case <-n.ending:
		return true
	default:
		return false
	}
}

// pause waits, but not at the end.
func (n *Notifier) pause(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-n.ending:
	case <-n.ctx.Done():
	}
}

// longestPause is between two attempts.
const longestPause = 30 * time.Second

// tell makes all attempts to tell one target. false: all ends, and nobody knows whether it was told.
func (n *Notifier) tell(q *queue, name string, items []*item) bool {
	pause := time.Second
	for attempt := 0; ; attempt++ {
		n.mu.Lock()
		t := n.targets[name]
		n.mu.Unlock()
		if t == nil {
			return true // a reload has removed it
		}
		var list []Message
		for _, it := range items {
			if slices.Contains(it.targets, name) {
				list = append(list, it.Message)
			}
		}
		err := n.attempt(q, *t, list)
		if n.ctx.Err() != nil {
			return false
		}
		last := attempt >= t.Retries || isFinal(err) || n.finishing()
		n.mu.Lock()
		c := n.counts[t.Label]
		failed := c.Error
		if c.Error = ""; err == nil {
			c.Sent += uint64(len(list))
		} else {
			c.Error = err.Error()
			if last = last || t.Exec != nil && len(q.waiting) > 0; last { // what waits is news
				c.Failed += uint64(len(list))
				c.faults.add(name + ": " + err.Error())
			}
		}
		n.mu.Unlock()
		if t.Label == name {
			n.tellTurn(name, failed, err, last)
		}
		if err == nil || last {
			return true
		}
		n.pause(pause)
		pause = min(2*pause, longestPause)
	}
}

// tellTurn logs that a target is tried again from now on, or works again.
func (n *Notifier) tellTurn(name, failed string, err error, last bool) {
	switch {
	case err != nil && failed == "" && !last:
		n.log.Warn("a notification failed, and is tried again", "target", name, "error", err)
	case err == nil && failed != "":
		n.log.Info("notifications arrive again", "target", name)
	}
}

// attempt tells a target once. A command waits until fewer others run.
func (n *Notifier) attempt(q *queue, t Target, list []Message) error {
	if t.Exec == nil {
		ctx, cancel := context.WithTimeout(n.ctx, t.Timeout)
		defer cancel()
		_, err := n.send(ctx, t, list)
		return err
	}
	slots := n.slots[q.election]
	select {
	case slots <- struct{}{}:
	case <-n.ctx.Done():
		return n.ctx.Err()
	}
	result := make(chan error, 1)
	go func() {
		_, err := n.send(n.ctx, t, list)
		result <- err
		<-slots
	}()
	return command.Await(n.ctx, result, t.Timeout, func(err error) {
		n.log.Warn("a hook holds up those after it", "target", t.Name, "error", err)
	})
}
