// Package logging keeps the log from getting in the way: who logs never waits for whoever reads the log, and what is said
// again and again is said with a count.
package logging

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"
)

// waiting is how many lines may wait for a log that is slower than what there is to say.
const waiting = 1024

// Queue writes log lines from a goroutine of its own, so that a log that blocks (a full pipe, a journal that hangs) stops
// nobody. What does not fit, or can't be written (a full disk), is counted and told as soon as that is possible.
type Queue struct {
	entries chan entry
	lost    atomic.Uint64
	flushes chan chan struct{}
	repeats repeats
}

type entry struct {
	to     slog.Handler
	about  string // the attributes of the logger, as text
	record slog.Record
}

// NewQueue returns a Queue whose goroutine runs until the process ends: there is no later time without a log.
func NewQueue() *Queue {
	q := newQueue()
	go q.run()
	return q
}

func newQueue() *Queue {
	return &Queue{entries: make(chan entry, waiting), flushes: make(chan chan struct{}), repeats: repeats{lines: map[string]*line{}}}
}

// Handler returns a handler that passes what it gets to next by way of the queue.
func (q *Queue) Handler(next slog.Handler) slog.Handler { return handler{queue: q, next: next} }

// Flush waits until all that was said so far is written, for so long at most.
func (q *Queue) Flush(limit time.Duration) {
	done := make(chan struct{})
	over := time.NewTimer(limit)
	defer over.Stop()
	select {
	case q.flushes <- done:
	case <-over.C:
		return
	}
	select {
	case <-done:
	case <-over.C:
	}
}

func (q *Queue) run() {
	timer := time.NewTimer(0)
	for {
		select {
		case e, ok := <-q.entries:
			if !ok { // a test is over
				return
			}
			q.take(e)
		case done := <-q.flushes:
			for len(q.entries) > 0 {
				q.take(<-q.entries)
			}
			q.summarize(time.Now().Add(window)) // this may be the end
			close(done)
		case <-timer.C:
			q.summarize(time.Now())
		}
		if due := q.repeats.due(); due.IsZero() {
			timer.Stop()
		} else {
			timer.Reset(time.Until(due))
		}
	}
}

// take writes a line, unless it is one of many repeats.
func (q *Queue) take(e entry) {
	q.summarize(e.record.Time)
	if q.repeats.pass(e) {
		q.write(e.to, e.record)
	}
}

// summarize tells how often lines came again whose time is over.
func (q *Queue) summarize(now time.Time) {
	for _, e := range q.repeats.over(now) {
		q.write(e.to, e.record)
	}
}

func (q *Queue) write(to slog.Handler, r slog.Record) {
	if to.Handle(context.Background(), r) != nil {
		q.lost.Add(1)
		return
	}
	lost := q.lost.Swap(0)
	if lost == 0 {
		return
	}
	told := slog.NewRecord(time.Now(), slog.LevelWarn, "log lines lost: the log was slower than what there was to say, or could not be written", 0)
	told.Add("lines", lost)
	if to.Handle(context.Background(), told) != nil {
		q.lost.Add(lost)
	}
}

// handler is the end of the queue that loggers see.
type handler struct {
	queue *Queue
	next  slog.Handler
	about string
}

// Enabled implements slog.Handler.
func (h handler) Enabled(ctx context.Context, l slog.Level) bool { return h.next.Enabled(ctx, l) }

// Handle implements slog.Handler. It never waits.
func (h handler) Handle(_ context.Context, r slog.Record) error {
	select {
	case h.queue.entries <- entry{to: h.next, about: h.about, record: r.Clone()}:
	default:
		h.queue.lost.Add(1)
	}
	return nil
}

// WithAttrs implements slog.Handler.
func (h handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	about := h.about
	for _, a := range attrs {
		about += " " + a.String()
	}
	return handler{queue: h.queue, next: h.next.WithAttrs(attrs), about: about}
}

// WithGroup implements slog.Handler.
func (h handler) WithGroup(name string) slog.Handler {
	return handler{queue: h.queue, next: h.next.WithGroup(name), about: h.about + " " + name}
}
