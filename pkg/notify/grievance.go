package notify

import "time"

// grievance is something that may happen again and again, and is told at most once in a while, with a count.
type grievance struct {
	count uint64 // not told yet
	since time.Time
	last  string
}

// complainAgain is between log lines about one target.
const complainAgain = 30 * time.Second

func (g *grievance) add(text string) {
	g.count++
	g.last = text
}

// due takes what is to be told now; 0: nothing.
func (g *grievance) due(now time.Time, last bool) uint64 {
	if g.count == 0 || !last && now.Sub(g.since) < complainAgain {
		return 0
	}
	count := g.count
	g.count, g.since = 0, now
	return count
}

// complain logs what went wrong since the last time, a line for each target and kind.
func (n *Notifier) complain(last bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for label, c := range n.counts {
		if count := c.faults.due(time.Now(), last); count > 0 {
			n.log.Warn("notifications failed, and are given up", "target", label, "count", count, "last", c.faults.last)
		}
		if count := c.losses.due(time.Now(), last); count > 0 {
			n.log.Warn("notifications were dropped: the target is too slow for what happens; states that are no longer true were dropped first", "target", label, "count", count, "last", c.losses.last)
		}
	}
}
