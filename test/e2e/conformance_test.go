package e2e

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/xdirector/xdirector/pkg/status"
	"github.com/xdirector/xdirector/test/lab"
)

// The tests of conformance hold one director against RFC 3768 (version 2) and RFC 9568 (version 3): an injector sends
// adverts of which every field can be wrong, and an observer looks at the wire. Each row has a virtual router of its own,
// all at once in one director. The V- numbers are those of pkg/vrrp/rules_test.go and, for what the machine has no part in,
// of rows_test.go.

// families are the three protocols.
var families = []string{"v2", "v3", "v6"}

// bed is a director with many virtual routers and a peer that is an injector.
type bed struct {
	*cluster
	director  *lab.Director
	node      *lab.Node // of the injector; its address is higher than the director's
	inject    *lab.Injector
	sent      *lab.Wire // what the director sends
	instances []lab.Instance
	pauses    *pauses
}

func newBed(t *testing.T) *bed {
	c := newCluster(t, "", 2, 0)
	b := &bed{cluster: c, director: c.d[0], node: c.lab.Directors[1], pauses: watchPauses(t)}
	var err error
	b.inject, err = b.node.Inject()
	c.ok(err)
	b.sent = c.sent(c.d[0].Node)
	return b
}

// router adds a virtual router of the family: version 2 at 1 s, else 100 ms.
func (b *bed) router(family string, priority uint8, more ...string) lab.Instance {
	n := len(b.instances) + 1
	i := lab.Instance{
		Name: fmt.Sprintf("R%d", n), VRID: uint8(n), Version: 3, Priority: priority, Interval: interval, More: more,
		Addresses: []string{fmt.Sprintf("10.77.4.%d/32", n)},
	}
	switch family {
	case "v2":
		i.Version, i.Interval = 2, time.Second
	case "v6":
		i.Addresses = []string{fmt.Sprintf("fe80::77:4:%d/128", n), fmt.Sprintf("fd77::4:%d/128", n)}
	}
	b.instances = append(b.instances, i)
	return i
}

// slow gives all routers an interval of a second.
func (b *bed) slow() {
	for n := range b.instances {
		b.instances[n].Interval = time.Second
	}
}

// virtual are the virtual addresses of a router.
func virtual(i lab.Instance) []netip.Addr {
	var list []netip.Addr
	for _, a := range i.Addresses {
		list = append(list, netip.MustParsePrefix(a).Addr())
	}
	return list
}

func isIPv6(i lab.Instance) bool { return virtual(i)[0].Is6() }

// forge is an advert for a router with which nothing is wrong.
func (b *bed) forge(i lab.Instance, priority uint8) lab.Forged {
	return b.node.Forge(uint8(i.Version), i.VRID, priority, i.Interval, virtual(i)...)
}

// start runs the director with all routers.
func (b *bed) start() {
	b.t.Helper()
	b.ok(b.director.Configure(lab.Config{Instances: b.instances}))
	b.ok(b.director.Start())
}

// all waits until all routers are in a state.
func (b *bed) all(state string) {
	b.t.Helper()
	b.ok(b.director.WaitStatus(b.t.Context(), patience, func(s *status.Status) error {
		for _, i := range s.Instances {
			if i.State != state {
				return fmt.Errorf("%s is %s (%s), want %s", i.Name, i.State, i.Reason, state)
			}
		}
		return nil
	}))
}

// wait waits for a fact about one router.
func (b *bed) wait(i lab.Instance, fact func(status.Instance) error) {
	b.t.Helper()
	b.ok(b.waitErr(i, fact))
}

func (b *bed) waitErr(i lab.Instance, fact func(status.Instance) error) error {
	return b.director.WaitStatus(b.t.Context(), patience, func(s *status.Status) error {
		for _, got := range s.Instances {
			if got.Name == i.Name {
				return fact(got)
			}
		}
		return fmt.Errorf("no instance %s", i.Name)
	})
}

// picture is what the director tells of a router now.
func (b *bed) picture(i lab.Instance) status.Instance {
	b.t.Helper()
	var now status.Instance
	b.wait(i, func(s status.Instance) error { now = s; return nil })
	return now
}

// send injects an advert n times.
func (b *bed) send(f lab.Forged, n int) {
	b.t.Helper()
	frame := f.Frame()
	for range n {
		b.ok(b.inject.Send(frame))
	}
}

// adverts are those of the director for a router since from.
func (b *bed) adverts(i lab.Instance, from time.Time) []lab.Advert {
	return b.sent.AdvertsFor(isIPv6(i), i.VRID, from)
}

// firstAdvert waits for the director's first advert for a router since from.
func (b *bed) firstAdvert(i lab.Instance, from time.Time) (lab.Advert, error) {
	var first lab.Advert
	err := lab.Wait(b.t.Context(), patience, func() error {
		a := b.adverts(i, from)
		if len(a) == 0 {
			return fmt.Errorf("no advert for %s", i.Name)
		}
		first = a[0]
		return nil
	})
	return first, err
}

// keeper sends one frame per router again and again, as MASTERs do.
type keeper struct {
	b    *bed
	quit chan struct{}
	done chan struct{}

	mu     sync.Mutex
	frames map[uint8][]byte // by VRID
	every  map[uint8]time.Duration
	next   map[uint8]time.Time
	last   map[uint8]time.Time // when a frame was sent
	failed error
}

// keep starts a keeper with nothing to send yet; it ends with the test.
func (b *bed) keep() *keeper {
	b.t.Helper()
	inject, err := b.node.Inject()
	b.ok(err)
	k := &keeper{
		b: b, quit: make(chan struct{}), done: make(chan struct{}),
		frames: map[uint8][]byte{}, every: map[uint8]time.Duration{}, next: map[uint8]time.Time{}, last: map[uint8]time.Time{},
	}
	go func() {
		defer close(k.done)
		tick := time.NewTicker(2 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-k.quit:
				return
			case <-tick.C:
				k.turn(inject)
			}
		}
	}()
	b.t.Cleanup(func() {
		close(k.quit)
		<-k.done
		if k.failed != nil {
			b.t.Error(k.failed)
		}
	})
	return k
}

func (k *keeper) turn(inject *lab.Injector) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := time.Now()
	for vrid, frame := range k.frames {
		if now.Before(k.next[vrid]) {
			continue
		}
		k.next[vrid] = now.Add(k.every[vrid])
		k.last[vrid] = now
		k.failed = errors.Join(k.failed, inject.Send(frame))
	}
}

// send sends the advert now and again, and says when the one before it was sent.
func (k *keeper) send(f lab.Forged, every time.Duration) (before time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.frames[f.VRID], k.every[f.VRID], k.next[f.VRID] = f.Frame(), every, time.Time{}
	return k.last[f.VRID]
}

// silence ends the adverts for a router and says when the last one was sent.
func (k *keeper) silence(vrid uint8) time.Time {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.frames, vrid)
	return k.last[vrid]
}

// pauses are the times in which this machine kept the test from running, and the director too.
type pauses struct {
	mu   sync.Mutex
	list []pause
}

type pause struct {
	at     time.Time // when it was over
	length time.Duration
}

// watchPauses notes until the end of the test whenever a timer of 5 ms is late by more than 30.
func watchPauses(t *testing.T) *pauses {
	var p pauses
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		last := time.Now()
		for {
			select {
			case <-quit:
				return
			case <-tick.C:
			}
			now := time.Now()
			if late := now.Sub(last); late > 35*time.Millisecond {
				p.mu.Lock()
				p.list = append(p.list, pause{now, late})
				p.mu.Unlock()
			}
			last = now
		}
	}()
	t.Cleanup(func() { close(quit); <-done })
	return &p
}

// since is how long the machine stood still since then, in all.
func (p *pauses) since(from time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	sum := time.Duration(0)
	for _, x := range p.list {
		if x.at.After(from) {
			sum += x.length
		}
	}
	return sum
}

// near says whether an advert came as long after since as it should: not earlier by more than 5 ms, and in at most three
// times that, or 60 ms later if that is more. For as long as the machine stood still it may be later.
func (b *bed) near(a lab.Advert, since time.Time, want time.Duration) error {
	got := a.Time.Sub(since)
	if got < want-5*time.Millisecond || got > max(lab.Slack*want, want+60*time.Millisecond)+b.pauses.since(since) {
		return fmt.Errorf("%v, want %v", got, want)
	}
	return nil
}
