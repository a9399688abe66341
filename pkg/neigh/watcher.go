package neigh

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

const (
	coalesce  = 2 * time.Millisecond // changes that come together are told together
	patience  = time.Second          // for the first answers, and of Source for an address that was just added
	addAgain  = time.Second          // a neighbour entry that somebody deletes is made again so often at most
	readAgain = 30 * time.Second     // the kernel tells nothing when it drops the routes of an interface
)

// Watcher resolves the next hops of real servers and keeps them fresh. Its neighbour entries in the kernel carry the
// mark "proto 112".
type Watcher struct {
	log     *slog.Logger
	changes chan map[netip.Addr]Hop
	current atomic.Pointer[picture]

	mu     sync.Mutex
	wish   *wish
	routed map[netip.Addr]bool // for the next wish
	wake   chan struct{}
}

// wish is what to resolve.
type wish struct {
	targets []netip.Addr
	virtual map[netip.Addr]bool
	routed  map[netip.Addr]bool
}

// picture is what Source reads. It is never changed.
type picture struct {
	ways     map[netip.Addr]way
	replaced chan struct{} // closed when there is a newer picture
}

// New returns a Watcher that does nothing until Run.
func New(log *slog.Logger) *Watcher {
	w := &Watcher{
		log:     log,
		changes: make(chan map[netip.Addr]Hop, 1),
		wake:    make(chan struct{}, 1),
	}
	w.current.Store(&picture{replaced: make(chan struct{})})
	return w
}

// Watch replaces the list of addresses to resolve, and says which of this box's addresses are virtual: those may
// belong to another director at any time and are never a Source. It never blocks, before and during Run.
func (w *Watcher) Watch(targets []netip.Addr, virtual []netip.Addr) {
	wanted := &wish{virtual: map[netip.Addr]bool{}}
	for _, t := range targets {
		wanted.targets = append(wanted.targets, t.Unmap())
	}
	for _, v := range virtual {
		wanted.virtual[v.Unmap()] = true
	}
	w.mu.Lock()
	wanted.routed = w.routed
	w.wish = wanted
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// Routed says, before Watch, which of its targets may be behind a router: those that the kernel's IPVS sends to by its
// routes.
func (w *Watcher) Routed(targets []netip.Addr) {
	routed := map[netip.Addr]bool{}
	for _, t := range targets {
		routed[t.Unmap()] = true
	}
	w.mu.Lock()
	w.routed = routed
	w.mu.Unlock()
}

// Changes delivers the whole picture after each change, also when an own interface got another MAC address, which is in
// no hop: frames are for another address then. A newer one replaces one that was not read. The first comes
// when every address has answered or can't, at the latest a second after the first Watch. The channel is never closed.
func (w *Watcher) Changes() <-chan map[netip.Addr]Hop { return w.changes }

// ErrLinkDown is in the error of Source when the target's network is cut off from this box: a check would say
// something about this box's cable, nothing about the target.
var ErrLinkDown = errors.New("is down or has no carrier")

// Source returns the own address that a check of target must use. An error is the reason why there is none. For an
// address that was given to Watch only just now it waits, a second at most. Any goroutine may call it.
func (w *Watcher) Source(target netip.Addr) (netip.Addr, error) {
	target = target.Unmap()
	var limit <-chan time.Time
	for {
		p := w.current.Load()
		if found, ok := p.ways[target]; ok {
			return found.source, found.sourceErr
		}
		if limit == nil {
			limit = time.After(patience)
		}
		select {
		case <-p.replaced:
		case <-limit:
			return netip.Addr{}, fmt.Errorf("next hop of real server %s is not looked up yet", target)
		}
	}
}

// Run resolves and watches until ctx ends, then deletes the neighbour entries that it made, and returns nil. An error
// means that netlink can't be used. It works in the network namespace of the calling thread.
func (w *Watcher) Run(ctx context.Context) error {
	// The sockets are made on this thread, so that a caller who has moved it to another namespace gets that one.
	runtime.LockOSThread()
	k, err := openKernel()
	runtime.UnlockOSThread()
	if err != nil {
		return fmt.Errorf("watch next hops: %w", err)
	}
	defer k.close()
	reading, stop := context.WithCancel(ctx)
	events := make(chan []event, 16)
	ended := make(chan error, 1)
	go func() {
		ended <- k.read(reading, events)
		close(ended)
	}()
	defer func() {
		stop()
		k.events.Close()
		<-ended
	}()
	t := newTable(k, w.log)
	timer := time.NewTimer(readAgain)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			if err := k.removeOurs(nil); err != nil {
				w.log.Warn("neighbour entries are left behind: delete those that `ip neigh` shows with proto 112", "error", err)
			}
			return nil
		case err := <-ended:
			if ctx.Err() != nil {
				continue // read has ended for the same reason
			}
			return fmt.Errorf("watch next hops: %w", err)
		case <-w.wake:
			w.mu.Lock()
			wanted := w.wish
			w.mu.Unlock()
			t.watch(time.Now(), wanted)
		case batch := <-events:
			t.take(time.Now(), batch)
		case <-timer.C:
		}
		now := time.Now()
		if t.due(now) && t.settle(now) {
			w.publish(t)
		}
		timer.Reset(t.deadline().Sub(now))
	}
}

// publish makes the new picture known.
func (w *Watcher) publish(t *table) {
	old := w.current.Swap(&picture{ways: t.ways(), replaced: make(chan struct{})})
	close(old.replaced)
	if !t.ready {
		return
	}
	hops := maps.Clone(t.hops)
	select {
	case <-w.changes: // nobody has read it: the new one says more
	default:
	}
	w.changes <- hops
}
