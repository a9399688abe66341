package ha

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"
)

// logQueue writes log lines from a goroutine of its own, so that a log that blocks (a full pipe) never stops an
// election. What does not fit is counted and told.
type logQueue struct {
	entries chan *logEntry
	lost    atomic.Uint64
	quit    chan struct{}
	done    chan struct{}
}

type logEntry struct {
	to     slog.Handler
	record slog.Record
}

func newLogQueue() *logQueue {
	q := &logQueue{entries: make(chan *logEntry, 1024), quit: make(chan struct{}), done: make(chan struct{})}
	go q.run()
	return q
}

// logger returns a logger that writes to the given one's handler through the queue.
func (q *logQueue) logger(l *slog.Logger) *slog.Logger {
	return slog.New(queueHandler{queue: q, next: l.Handler()})
}

func (q *logQueue) run() {
	defer close(q.done)
	for {
		select {
		case e := <-q.entries:
			q.write(e)
		case <-q.quit:
			for {
				select {
				case e := <-q.entries:
					q.write(e)
				default:
					return
				}
			}
		}
	}
}

func (q *logQueue) write(e *logEntry) {
	_ = e.to.Handle(context.Background(), e.record) // nowhere to tell that the log fails
	if n := q.lost.Swap(0); n > 0 {
		r := slog.NewRecord(time.Now(), slog.LevelWarn, "log lines lost: the log is slower than what there is to say", 0)
		r.Add("lines", n)
		_ = e.to.Handle(context.Background(), r)
	}
}

// close writes what is left, for at most a second.
func (q *logQueue) close() {
	close(q.quit)
	select {
	case <-q.done:
	case <-time.After(time.Second):
	}
}

type queueHandler struct {
	queue *logQueue
	next  slog.Handler
}

func (h queueHandler) Enabled(ctx context.Context, l slog.Level) bool { return h.next.Enabled(ctx, l) }

func (h queueHandler) Handle(_ context.Context, r slog.Record) error {
	select {
	case h.queue.entries <- &logEntry{to: h.next, record: r.Clone()}:
	default:
		h.queue.lost.Add(1)
	}
	return nil
}

func (h queueHandler) WithAttrs(a []slog.Attr) slog.Handler {
	return queueHandler{queue: h.queue, next: h.next.WithAttrs(a)}
}

func (h queueHandler) WithGroup(name string) slog.Handler {
	return queueHandler{queue: h.queue, next: h.next.WithGroup(name)}
}
