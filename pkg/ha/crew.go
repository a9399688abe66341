package ha

import (
	"sync"
	"time"
)

// crewSize is few: what holders ask of the kernel it does one by one.
const crewSize = 4

// crew is the few goroutines that do the work of all holders. One for each holder would keep the stack that its work needed
// once, and a thousand of those are more memory than all the rest of an election.
type crew struct {
	work    func(*holder)
	running sync.WaitGroup

	mu     sync.Mutex
	queue  []*holder
	busy   int // of the crew; who waits is not among them
	closed bool
}

// turn says where a holder is. No two of the crew work at it at a time.
type turn int

const (
	resting turn = iota
	queued
	atWork
	again // at work, and woken meanwhile
)

// wake has somebody work at a holder, after those that were woken before. It never waits.
func (c *crew) wake(h *holder) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch h.turn {
	case resting:
		h.turn = queued
		c.queue = append(c.queue, h)
		c.hire()
	case atWork:
		h.turn = again
	}
}

func (c *crew) hire() {
	if c.busy < crewSize && len(c.queue) > 0 && !c.closed {
		c.busy++
		c.running.Go(c.run)
	}
}

func (c *crew) run() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.busy <= crewSize && len(c.queue) > 0 && !c.closed {
		h := c.queue[0]
		c.queue[0] = nil
		c.queue = c.queue[1:]
		h.turn = atWork
		c.mu.Unlock()
		c.work(h)
		c.mu.Lock()
		if h.turn == again {
			h.turn = queued
			c.queue = append(c.queue, h)
		} else {
			h.turn = resting
		}
	}
	c.busy--
}

// wait is for work that waits for a disk, or until others have come together for one step: somebody else goes on meanwhile.
func (c *crew) wait(f func() error) error {
	c.mu.Lock()
	c.busy--
	c.hire()
	c.mu.Unlock()
	err := f()
	c.mu.Lock()
	c.busy++
	c.mu.Unlock()
	return err
}

// close lets what has begun come to its end, for at most so long, and nothing else begin.
func (c *crew) close(limit time.Duration) {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	done := make(chan struct{})
	go func() { c.running.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(limit): // one that hangs in the kernel keeps nobody
	}
}
