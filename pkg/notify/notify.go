// Package notify tells others what happens to a director: commands that are run, webhooks, mail. Whoever is told can be slow,
// hang or be gone: nothing here holds up anything else, each queue is bounded, each attempt has a limit, and what is lost is
// counted. What was told last is remembered, so that a restart neither repeats nor loses a change.
package notify

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/xdirector/xdirector/pkg/status"
)

// Target is who is to be told: exactly one of Exec, Webhook and Mail.
type Target struct {
	Name    string // unique
	Label   string // in metrics and in the log: the name, or what all hooks of one kind share
	Filter  Filter
	Timeout time.Duration // of one attempt
	Retries int           // attempts after the first, with pauses of 1s, 2s, 4s and so on up to 30s
	Exec    *Exec
	Webhook *Webhook
	Mail    *Mail
}

// kind is how the target is told.
func (t *Target) kind() string {
	switch {
	case t.Exec != nil:
		return "exec"
	case t.Webhook != nil:
		return "webhook"
	}
	return "mail"
}

// owner is whose memory of what was told the target has: its own, but for the hooks of single objects, which share one, since
// those of one instance are one row.
func (t *Target) owner() string {
	if t.Label != t.Name {
		return hooks
	}
	return t.kind() + " " + t.Name
}

// hooks is the owner of all targets that share a label.
const hooks = "exec"

// Filter says which events a target is told of.
type Filter struct {
	Kinds  []string // of status.Kinds
	Level  string   // at least this one of the status.Level constants; empty: all
	Only   []string // names of instances, sync groups, services (with their real servers), and SERVICE/REAL_SERVER; empty: all
	States []string // that are entered; empty: all
}

func (f Filter) takes(e status.Event) bool {
	if !slices.Contains(f.Kinds, e.Kind) || severity(e.Level) < severity(f.Level) || len(f.States) > 0 && !slices.Contains(f.States, e.State) {
		return false
	}
	return len(f.Only) == 0 || slices.ContainsFunc(names(e), func(name string) bool { return slices.Contains(f.Only, name) })
}

func severity(level string) int {
	return slices.Index([]string{status.LevelInfo, status.LevelWarning, status.LevelError}, level)
}

// names are those by which Filter.Only can mean an event.
func names(e status.Event) []string {
	var list []string
	for _, name := range []string{e.Instance, e.SyncGroup, e.Service} {
		if name != "" {
			list = append(list, name)
		}
	}
	if e.RealServer != "" {
		list = append(list, e.Service+"/"+e.RealServer)
	}
	return list
}

// Message is what is told: an event, and whose it is. Its JSON is what webhooks and commands get.
type Message struct {
	status.Event
	RouterID string `json:"router_id"`
	Test     bool   `json:"test,omitempty"` // nothing has happened: an operator wants to know whether this arrives
}

// Options are what a Notifier works with.
type Options struct {
	Feed      *status.Feed
	Picture   func() *status.Status // the newest one, no older than the newest event; nil before the first
	StateFile string                // what was told; empty: it is not remembered
	Log       *slog.Logger
}

// Notifier tells targets. All methods may be called from any goroutine.
type Notifier struct {
	opts     Options
	log      *slog.Logger
	send     func(ctx context.Context, t Target, list []Message) (string, error) // deliver, but in tests
	drains   chan chan struct{}
	dirty    chan struct{}          // capacity 1: the memory is to be written
	ending   chan struct{}          // closed: no pauses any more
	slots    map[bool]chan struct{} // taken by commands that run; true: those of elections
	listener *status.Listener
	workers  sync.WaitGroup

	mu      sync.Mutex
	ctx     context.Context // of the workers
	targets map[string]*Target
	always  []*Target            // without Only
	byName  map[string][]*Target // by each entry of Only
	owners  map[string]*owner
	queues  map[string]*queue
	counts  map[string]*Counts // by Label
	lastID  uint64             // of an event that no feed has numbered
	fresh   bool               // nothing is known of a run before this one
	idle    *sync.Cond         // a queue has ended
}

// Counts is what became of the notifications of one label.
type Counts struct {
	Sent    uint64 `json:"sent"`
	Failed  uint64 `json:"failed"`  // given up after all attempts
	Dropped uint64 `json:"dropped"` // never tried, since others waited already
	Error   string `json:"-"`       // of the last attempt, if it failed
	Waiting int    `json:"-"`
	faults  grievance
	losses  grievance
}

// maxRunning is how many commands about elections run at once, and how many others.
const maxRunning = 16

// New returns a Notifier that begins to listen at once and tells when Run is called. What was told before a restart is read from
// Options.StateFile.
func New(opts Options) *Notifier {
	n := &Notifier{
		opts:    opts,
		log:     opts.Log,
		send:    deliver,
		drains:  make(chan chan struct{}),
		dirty:   make(chan struct{}, 1),
		ending:  make(chan struct{}),
		slots:   map[bool]chan struct{}{true: make(chan struct{}, maxRunning), false: make(chan struct{}, maxRunning)},
		targets: map[string]*Target{},
		owners:  map[string]*owner{},
		queues:  map[string]*queue{},
		counts:  map[string]*Counts{},
	}
	n.idle = sync.NewCond(&n.mu)
	n.listener, _ = opts.Feed.Listen(0)
	n.recall()
	return n
}

// Configure replaces all targets. What waits for one that is gone is forgotten; one that is new is told of changes from now on.
func (n *Notifier) Configure(targets []Target) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.targets, n.always, n.byName = map[string]*Target{}, nil, map[string][]*Target{}
	wanted, added := map[string]bool{}, map[string]*owner{}
	for _, c := range n.counts {
		c.Error = "" // it was about a target as it was
	}
	for i := range targets {
		t := &targets[i]
		n.targets[t.Name] = t
		wanted[t.owner()] = true
		if n.counts[t.Label] == nil {
			n.counts[t.Label] = &Counts{}
		}
		if len(t.Filter.Only) == 0 {
			n.always = append(n.always, t)
		}
		for _, name := range t.Filter.Only {
			n.byName[name] = append(n.byName[name], t)
		}
	}
	for name := range n.owners {
		if !wanted[name] {
			delete(n.owners, name)
		}
	}
	for name := range wanted {
		if n.owners[name] == nil {
			n.owners[name] = &owner{}
			added[name] = n.owners[name]
		}
	}
	if len(added) > 0 && n.opts.Picture() != nil {
		n.reconcile(added)
	}
}

// Counts returns what became of notifications so far, by label, also before a restart.
func (n *Notifier) Counts() map[string]Counts {
	n.mu.Lock()
	defer n.mu.Unlock()
	all := make(map[string]Counts, len(n.counts))
	for label, c := range n.counts {
		all[label] = *c
	}
	return all
}

// resettle is between looks at what nobody knows yet after a start.
const resettle = time.Second

// Run tells until ctx ends, and leaves what is under way then; see Finish.
func (n *Notifier) Run(ctx context.Context) error {
	defer n.await()
	defer n.listener.Close()
	n.mu.Lock()
	n.ctx = ctx
	n.mu.Unlock()
	n.workers.Go(func() { n.remember(ctx) })
	ticker := time.NewTicker(resettle)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case e := <-n.listener.C:
			n.take(e)
		case <-ticker.C:
			n.settle()
			n.complain(false)
		case drained := <-n.drains:
			for len(n.listener.C) > 0 {
				n.take(<-n.listener.C)
			}
			close(drained)
		}
	}
}

// lastWait is for what is told when all ends, and killed for that.
const lastWait = 2 * time.Second

// await waits for the workers, but not for one that hangs in a file system that doesn't answer.
func (n *Notifier) await() {
	ended := make(chan struct{})
	go func() {
		n.workers.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(lastWait):
		n.log.Warn("a notification does not end, and is left alone")
		return
	}
	select {
	case <-n.dirty: // since the last write
		if err := n.write(); err != nil {
			n.log.Warn("what was notified could not be recorded; the next start notifies it again", "file", n.opts.StateFile, "error", err)
		}
	default:
	}
}

// take hands an event over. After events that were lost the newest picture tells what they were.
func (n *Notifier) take(e status.Event) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.listener.Lost() > 0 || e.Kind == status.KindDirector && e.State == "started" {
		n.reconcile(n.owners)
	}
	n.dispatch(e, n.owners)
}

// Finish waits until everything that has happened so far was told, at most so long, and leaves out all pauses.
func (n *Notifier) Finish(limit time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	drained := make(chan struct{})
	select {
	case n.drains <- drained:
		<-drained
	case <-ctx.Done():
	}
	close(n.ending)
	stop := context.AfterFunc(ctx, func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.idle.Broadcast()
	})
	defer stop()
	n.mu.Lock()
	for n.waiting() > 0 && ctx.Err() == nil {
		n.idle.Wait()
	}
	left := n.waiting()
	n.mu.Unlock()
	n.complain(true)
	if left > 0 {
		n.log.Warn("the time for notifications at a stop is over; what was not told is left out", "queues", left, "limit", limit)
	}
}
