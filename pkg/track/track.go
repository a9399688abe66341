// Package track watches what instances may depend on besides their interfaces: scripts that are run on time, numbers in
// files, and running processes. It tells what is so, and nothing about what follows from that. Where nothing is watched,
// nothing runs.
package track

import (
	"context"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"sync"
	"time"
)

// Wish is all that is to be watched.
type Wish struct {
	Scripts   []Script
	Files     []string // absolute paths
	Processes []string // names of executables, or absolute paths of them
}

// Script is a command that is run again and again, with nothing but PATH in its environment; see command.Command.
type Script struct {
	Name     string        // unique
	Command  []string      // an absolute path and its arguments; never a shell's line
	Interval time.Duration // from start to start; a run that takes longer is followed by the next one at once
	Timeout  time.Duration // of a run; then its whole process group is killed
	Rise     int           // good after so many exits with 0 in a row
	Fall     int           // bad after so many other ends in a row
	User     string        // in /etc/passwd, by name or number
}

// State is what is known of all that is watched. A State that was given away is never changed.
type State struct {
	Scripts   map[string]ScriptState // by name
	Files     map[string]FileState   // by path
	Processes map[string]int         // how many of the name run
	Ready     bool                   // everything was looked at once, but for scripts whose first run has not ended
}

// ScriptState is what a script is worth. The first run decides alone, as with keepalived.
type ScriptState struct {
	Known  bool   `json:"known"` // a run has ended, now or before a restart
	Good   bool   `json:"good"`
	Reason string `json:"reason"` // of the last change, in plain words: "failed 3 times: exit status 1: no answer"
}

// FileState is what a file says.
type FileState struct {
	Value   int    // the number in it; 0 if it is missing, 1 if it is empty; kept within a billion either way
	Problem string // why it can't be read, or holds no number; Value is the last one then, at first 0. Empty: none
}

// Runner watches. Configure and Changes may be called from any goroutine at any time.
type Runner struct {
	log     *slog.Logger
	wake    chan struct{} // capacity 1: there is a new wish
	changes chan State    // capacity 1: the newest
	told    chan told
	slots   chan struct{} // one is taken by each script that runs
	proc    string        // where processes are listed

	mu    sync.Mutex
	wish  Wish
	known map[string]ScriptState
}

// maxRunning is how many scripts run at once; the others wait for their turn.
const maxRunning = 32

// New returns a Runner that watches nothing until Configure and Run. known is what scripts were worth before a restart,
// by name.
func New(known map[string]ScriptState, log *slog.Logger) *Runner {
	return &Runner{
		log:     log,
		wake:    make(chan struct{}, 1),
		changes: make(chan State, 1),
		told:    make(chan told),
		slots:   make(chan struct{}, maxRunning),
		proc:    "/proc",
		known:   maps.Clone(known),
	}
}

// Configure replaces all that is to be watched. What is unchanged goes on undisturbed; a script that is run otherwise from
// now on keeps what it was worth until its runs say something else. Never blocks.
func (r *Runner) Configure(w Wish) {
	r.mu.Lock()
	r.wish = w
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Changes gives the newest State after every change, and one after every Configure. It replaces one that was not read. The
// channel is never closed.
func (r *Runner) Changes() <-chan State { return r.changes }

// kind is a kind of thing that is watched.
type kind int

const (
	script kind = iota
	file
	processes // all of them together
)

// key names one thing that is watched.
type key struct {
	kind kind
	name string
}

// watch is one thing that is watched, by a goroutine of its own: one that hangs holds up no other.
type watch struct {
	key
	spec   any
	cancel context.CancelFunc
	ended  chan struct{}
	seen   bool // it was told of once
}

// told is what the goroutine of a watch has found.
type told struct {
	watch *watch
	learn func(*State)
}

// loop is what only the goroutine of Run touches.
type loop struct {
	*Runner
	ctx     context.Context
	watches map[key]*watch
	state   State
	running sync.WaitGroup
}

// Run watches until ctx ends, and returns nil when no script runs any more.
func (r *Runner) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	l := &loop{Runner: r, ctx: ctx, watches: map[key]*watch{}, state: State{
		Scripts: map[string]ScriptState{}, Files: map[string]FileState{}, Processes: map[string]int{},
	}}
	defer l.running.Wait()
	defer cancel()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.wake:
			r.mu.Lock()
			wish := r.wish
			r.mu.Unlock()
			l.configure(wish)
		case t := <-r.told:
			if l.watches[t.watch.key] != t.watch {
				continue // configured away meanwhile
			}
			t.watch.seen = true
			t.learn(&l.state)
		}
		l.publish()
	}
}

func (l *loop) configure(w Wish) {
	wanted := map[key]any{}
	for _, s := range w.Scripts {
		wanted[key{script, s.Name}] = s
	}
	for _, path := range w.Files {
		wanted[key{file, path}] = path
	}
	if len(w.Processes) > 0 {
		wanted[key{kind: processes}] = slices.Compact(slices.Sorted(slices.Values(w.Processes)))
	}
	ending := map[key]*watch{}
	for k, old := range l.watches {
		spec, still := wanted[k]
		if still && reflect.DeepEqual(spec, old.spec) {
			delete(wanted, k)
			continue
		}
		old.cancel()
		ending[k] = old
		delete(l.watches, k)
		if !still {
			l.forget(k)
		}
	}
	for k, spec := range wanted {
		l.begin(k, spec, ending[k])
	}
}

// forget drops what is known of a thing that is no longer watched.
func (l *loop) forget(k key) {
	switch k.kind {
	case script:
		delete(l.state.Scripts, k.name)
	case file:
		delete(l.state.Files, k.name)
	case processes:
		clear(l.state.Processes)
	}
}

// begin starts the goroutine of a watch, after the end of the one in whose place it comes: a script never overlaps with
// itself.
func (l *loop) begin(k key, spec any, before *watch) {
	ctx, cancel := context.WithCancel(l.ctx)
	w := &watch{key: k, spec: spec, cancel: cancel, ended: make(chan struct{})}
	l.watches[k] = w
	tell := func(learn func(*State)) {
		select {
		case l.told <- told{w, learn}:
		case <-ctx.Done():
		}
	}
	var run func()
	switch k.kind {
	case script:
		s := spec.(Script)
		if _, ok := l.state.Scripts[s.Name]; !ok {
			l.state.Scripts[s.Name] = l.known[s.Name]
			delete(l.known, s.Name) // it says something about the first script of the name only
		}
		worth := l.state.Scripts[s.Name]
		run = func() { l.watchScript(ctx, s, worth, tell) }
	case file:
		said := l.state.Files[k.name]
		run = func() { watchFile(ctx, k.name, said, tell) }
	case processes:
		names := spec.([]string)
		run = func() { watchProcesses(ctx, l.proc, names, tell) }
	}
	l.running.Go(func() {
		defer close(w.ended)
		if before != nil {
			<-before.ended
		}
		run()
	})
}

// publish leaves a copy of the state for the reader. Only the loop calls it, so there is room after the select.
func (l *loop) publish() {
	s := State{Scripts: maps.Clone(l.state.Scripts), Files: maps.Clone(l.state.Files), Processes: maps.Clone(l.state.Processes), Ready: true}
	for k, w := range l.watches {
		s.Ready = s.Ready && (w.seen || k.kind == script)
	}
	select {
	case <-l.changes:
	default:
	}
	l.changes <- s
}
