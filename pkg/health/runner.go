package health

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"net/netip"
	"reflect"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Source returns the own address that a probe of target must be sent from: never a virtual one, which another
// director may hold. An error is the reason of a failed probe, for example that there is no on-link route; one that
// is ErrBlind means that a failure would say nothing about the target.
type Source func(target netip.Addr) (netip.Addr, error)

// ErrBlind is in the error of a Source while this box can't reach anything in the target's network, because its own
// link is down. Real servers keep what they counted as: else a director whose cable was pulled would come back, and
// perhaps become MASTER, believing that all of them are dead.
var ErrBlind = errors.New("this box is cut off")

// prober does one kind of check.
type prober interface {
	// probe returns nil for a healthy real server, else the reason in plain words. It ends soon after ctx does.
	probe(ctx context.Context, p probe) error
}

// probe is what one probe needs to know.
type probe struct {
	source  netip.Addr
	address netip.Addr
	port    uint16
	check   Check
}

// Runner runs the checks of all real servers. An idle real server costs no goroutine.
type Runner struct {
	source  Source
	log     *slog.Logger
	probers map[Kind]prober

	mu      sync.Mutex
	wish    []Target
	wake    chan struct{}
	results chan Result
}

// New returns a Runner that checks nothing until Configure and Run.
func New(source Source, log *slog.Logger) *Runner {
	return newRunner(source, log, map[Kind]prober{
		ICMP:  &icmpProber{},
		TCP:   tcpProber{},
		HTTP:  httpProber{},
		HTTPS: httpProber{tls: true},
	})
}

func newRunner(source Source, log *slog.Logger, probers map[Kind]prober) *Runner {
	return &Runner{
		source:  source,
		log:     log,
		probers: probers,
		wake:    make(chan struct{}, 1),
		results: make(chan Result),
	}
}

// Configure replaces the whole list of targets. A target whose Key, Port and Check are unchanged goes on undisturbed,
// its Up is not looked at; any other starts anew with its Up. It never blocks, before and during Run.
func (r *Runner) Configure(targets []Target) {
	r.mu.Lock()
	r.wish = append([]Target(nil), targets...)
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Results delivers the outcome of every probe that says something about its real server, in order. A reader may be slow: probes go on, and when very many
// results wait, those of one real server are merged into its last one, with Changed if any of them was a change. The
// channel is never closed.
func (r *Runner) Results() <-chan Result { return r.results }

// Run checks until ctx ends, and returns nil when the last probe has ended too.
func (r *Runner) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	l := &loop{
		Runner:   r,
		ctx:      ctx,
		targets:  map[Key]*target{},
		finished: make(chan outcome),
		timer:    time.NewTimer(0),
	}
	defer func() {
		cancel()
		l.timer.Stop()
		l.probes.Wait()
		for _, p := range r.probers {
			if c, ok := p.(interface{ close() }); ok {
				c.close()
			}
		}
	}()
	for {
		out, first := l.queue.first(r.results)
		select {
		case <-ctx.Done():
			return nil
		case <-r.wake:
			r.mu.Lock()
			wish := r.wish
			r.mu.Unlock()
			l.configure(time.Now(), wish)
		case o := <-l.finished:
			l.finish(time.Now(), o)
		case out <- first:
			l.queue.pop()
			continue
		case <-l.timer.C:
		}
		l.start(time.Now())
	}
}

// loop is the state that only the goroutine of Run touches.
type loop struct {
	*Runner
	ctx      context.Context
	targets  map[Key]*target
	waiting  dueHeap // every target that has no probe running
	finished chan outcome
	probes   sync.WaitGroup
	queue    queue
	timer    *time.Timer
	blamedAt time.Time // when a fault of this box was last logged
}

// target is one real server under check.
type target struct {
	Target
	tracker *Tracker
	index   int // in the heap; -1 while a probe runs
	ctx     context.Context
	cancel  context.CancelFunc // ends the running probe when the target goes
}

// outcome is what a probe's goroutine tells the loop.
type outcome struct {
	target   *target
	err      error
	duration time.Duration
}

func (l *loop) configure(now time.Time, wish []Target) {
	wanted := make(map[Key]Target, len(wish))
	for _, w := range wish {
		wanted[w.Key] = w
	}
	for key, t := range l.targets {
		w, ok := wanted[key]
		if ok && w.Port == t.Port && reflect.DeepEqual(w.Check, t.Check) {
			delete(wanted, key)
			continue
		}
		t.cancel()
		if t.index >= 0 {
			heap.Remove(&l.waiting, t.index)
		}
		delete(l.targets, key)
	}
	for key, w := range wanted {
		t := &target{Target: w, tracker: NewTracker(w.Check, w.Up, now.Add(spread(w, len(wanted))))}
		t.ctx, t.cancel = context.WithCancel(l.ctx)
		l.targets[key] = t
		heap.Push(&l.waiting, t)
	}
}

// spread puts the first probes of n new targets one millisecond apart on average, within a second and within one
// interval: a big configuration must not probe everything in the same instant, now and at each interval. The place of
// a target depends on its name alone.
func spread(t Target, n int) time.Duration {
	window := min(time.Duration(n-1)*time.Millisecond, time.Second, withDefaults(t.Check).Interval)
	h := fnv.New32a()
	h.Write([]byte(t.Service))
	h.Write(t.Address.AsSlice())
	return time.Duration(uint64(window) * uint64(h.Sum32()) >> 32)
}

// start begins every probe that is due and sets the timer for the next one.
func (l *loop) start(now time.Time) {
	for len(l.waiting) > 0 && !l.waiting[0].tracker.Due().After(now) {
		t := heap.Pop(&l.waiting).(*target)
		t.tracker.Started(now)
		l.probes.Add(1)
		go l.probe(t)
	}
	if len(l.waiting) > 0 {
		l.timer.Reset(l.waiting[0].tracker.Due().Sub(now))
	} else {
		l.timer.Stop()
	}
}

// probe is the goroutine of one probe.
func (l *loop) probe(t *target) {
	defer l.probes.Done()
	begin := time.Now()
	err := l.run(t)
	select {
	case l.finished <- outcome{t, err, time.Since(begin)}:
	case <-t.ctx.Done():
	}
}

func (l *loop) run(t *target) error {
	prober, ok := l.probers[t.Check.Kind]
	if !ok {
		return fmt.Errorf("check type %q is not known", t.Check.Kind)
	}
	source, err := l.source(t.Address)
	if err != nil {
		return err
	}
	check := withDefaults(t.Check)
	ctx, cancel := context.WithTimeout(t.ctx, check.Timeout)
	defer cancel()
	err = prober.probe(ctx, probe{source: source, address: t.Address, port: t.port(), check: check})
	if err != nil {
		// The link may have gone while the probe was under way.
		if _, blind := l.source(t.Address); errors.Is(blind, ErrBlind) {
			return blind
		}
	}
	return err
}

func (l *loop) finish(now time.Time, o outcome) {
	t := o.target
	if l.targets[t.Key] != t {
		return // configured away while its outcome was on the way
	}
	own := isOwnFault(o.err)
	if own && (l.blamedAt.IsZero() || now.Sub(l.blamedAt) >= blameAgain) {
		l.blamedAt = now
		l.log.Warn("checks can't be made, by a fault of this box; the real servers stay as they are; told once a minute",
			"service", t.Service, "real_server", t.Address, "error", o.err)
	}
	if own || errors.Is(o.err, ErrBlind) {
		t.tracker.Skipped(now)
		heap.Push(&l.waiting, t)
		return
	}
	result := Result{Key: t.Key, OK: o.err == nil, Duration: o.duration}
	result.Changed = t.tracker.Finished(now, result.OK)
	result.Up = t.tracker.Up()
	result.Reason = t.success()
	if o.err != nil {
		result.Reason = o.err.Error()
	}
	heap.Push(&l.waiting, t)
	l.queue.push(result, len(l.targets))
	if result.Changed {
		l.logChange(t, result)
	}
}

// blameAgain is between log lines about faults of this box: all checks have them together.
const blameAgain = time.Minute

// ownFaults are errors that a probe meets before anything reaches the real server: this box has no more file
// descriptors, ports or memory, lost the source address, lacks a capability or has a firewall against itself. All real
// servers would count as dead at once, while clients could reach every one of them.
var ownFaults = [...]error{
	unix.EMFILE, unix.ENFILE, unix.ENOMEM, unix.ENOBUFS, unix.EADDRNOTAVAIL, unix.EADDRINUSE, unix.EPERM, unix.EACCES,
}

func isOwnFault(err error) bool {
	for _, fault := range ownFaults {
		if errors.Is(err, fault) {
			return true
		}
	}
	return false
}

func (l *loop) logChange(t *target, r Result) {
	server := netip.AddrPortFrom(t.Address, t.Port).String()
	if r.Up {
		l.log.Info(fmt.Sprintf("real server %s of %s is up: %s; it gets new connections again", server, t.Service, r.Reason),
			"service", t.Service, "real_server", server)
		return
	}
	l.log.Warn(fmt.Sprintf("real server %s of %s is down: %s; it gets no new connections", server, t.Service, r.Reason),
		"service", t.Service, "real_server", server)
}

// port is the one that is probed.
func (t *target) port() uint16 {
	if t.Check.Port != 0 {
		return t.Check.Port
	}
	return t.Port
}

// success is the reason of a good result.
func (t *target) success() string {
	if t.Check.Kind == ICMP {
		return "icmp check passed"
	}
	return fmt.Sprintf("%s check of port %d passed", t.Check.Kind, t.port())
}

// dueHeap orders targets by the time of their next probe.
type dueHeap []*target

func (h dueHeap) Len() int           { return len(h) }
func (h dueHeap) Less(i, j int) bool { return h[i].tracker.Due().Before(h[j].tracker.Due()) }
func (h dueHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

// Push is called by container/heap.
func (h *dueHeap) Push(x any) {
	t := x.(*target)
	t.index = len(*h)
	*h = append(*h, t)
}

// Pop is called by container/heap.
func (h *dueHeap) Pop() any {
	old := *h
	t := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	t.index = -1
	return t
}
