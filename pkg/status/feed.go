package status

import (
	"slices"
	"sync"
	"time"
)

const (
	feedHistory = 1000 // events that a new listener can still see
	feedQueue   = 1000 // events that a listener may be behind
)

// Feed gives events to whoever listens, and remembers the last 1,000 that are not passing. A listener that doesn't keep up
// loses events, never holds up anybody: each event that it gets then is not its last one's successor, see Listener.Lost.
// All methods are for several goroutines at once.
type Feed struct {
	mu        sync.Mutex
	last      uint64
	history   []Event
	listeners map[*Listener]bool
}

// Listener receives the events of a Feed from C until it is closed.
type Listener struct {
	C    <-chan Event
	feed *Feed
	c    chan Event
	lost uint64
}

// Publish numbers events and gives them to all listeners. Numbers are microseconds since 1970 or more, so that they rise over
// restarts too. It never waits.
func (f *Feed) Publish(events []Event) {
	if len(events) == 0 {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, e := range events {
		f.last = max(f.last+1, uint64(time.Now().UnixMicro()))
		e.ID = f.last
		if !e.IsPassing() {
			if len(f.history) >= 2*feedHistory {
				f.history = slices.Clone(f.history[feedHistory:])
			}
			f.history = append(f.history, e)
		}
		for l := range f.listeners {
			select {
			case l.c <- e:
			default:
				l.lost++
			}
		}
	}
}

// Recent returns the remembered events after the one with the given ID, oldest first: at most 1,000.
func (f *Feed) Recent(after uint64) []Event {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.recent(after)
}

func (f *Feed) recent(after uint64) []Event {
	list := f.history[max(0, len(f.history)-feedHistory):]
	first, _ := slices.BinarySearchFunc(list, after+1, func(e Event, id uint64) int {
		if e.ID < id {
			return -1
		}
		return 1
	})
	return slices.Clone(list[first:])
}

// Listen begins to listen, and returns the remembered events after the one with the given ID as well, without a gap in
// between. Close must be called.
func (f *Feed) Listen(after uint64) (*Listener, []Event) {
	l := &Listener{feed: f, c: make(chan Event, feedQueue)}
	l.C = l.c
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.listeners == nil {
		f.listeners = map[*Listener]bool{}
	}
	f.listeners[l] = true
	return l, f.recent(after)
}

// Lost is how many events the listener has not got since it was last asked, because it didn't take those before.
func (l *Listener) Lost() uint64 {
	l.feed.mu.Lock()
	defer l.feed.mu.Unlock()
	lost := l.lost
	l.lost = 0
	return lost
}

// Close ends the listening.
func (l *Listener) Close() {
	l.feed.mu.Lock()
	defer l.feed.mu.Unlock()
	delete(l.feed.listeners, l)
}
