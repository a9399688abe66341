package e2e

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/xdirector/xdirector/pkg/status"
	"github.com/xdirector/xdirector/test/lab"
)

// TestAdvertsAreByTheBook: V-01 to V-15, V-45 to V-48, V-110. Every bit of an advert is as it must be.
func TestAdvertsAreByTheBook(t *testing.T) {
	t.Parallel()
	onPlanes(t, func(t *testing.T, _ string) {
		b := newBed(t)
		sums := map[string]lab.Sum{} // those that are not the usual ones, by name
		for _, f := range families {
			b.router(f, 100)
		}
		b.router("v2", 100)
		b.instances[len(b.instances)-1].Password = "1111"
		sums[b.router("v3", 100, "checksum: rfc9568").Name] = lab.MessageSum
		b.router("v3", 254)
		many := &b.instances[len(b.instances)-1]
		many.Addresses = append(many.Addresses, "10.77.5.9/32", "10.77.5.3/32", "10.77.5.5/24")
		for _, f := range families[1:] {
			b.router(f, 255)
			b.instances[len(b.instances)-1].Interval = 40950 * time.Millisecond // too long to wait for others: it is the owner
		}
		b.start()
		for _, i := range b.instances {
			b.byTheBook(i, sums[i.Name])
		}
		b.director.Kill() // a clean stop waits for a successor with such an interval
		// Alone, because whoever has adverts every 10 ms is taken for dead after 20 by its supervisor, and all with it.
		b.instances = nil
		for _, f := range families[1:] {
			b.router(f, 255)
			b.instances[len(b.instances)-1].Interval = 10 * time.Millisecond
			b.instances[len(b.instances)-1].VRID += 100
		}
		b.start()
		for _, i := range b.instances {
			b.byTheBook(i, lab.RightSum)
		}
	})
}

// byTheBook compares the first advert of a router with what the lab makes of its configuration.
func (b *bed) byTheBook(i lab.Instance, sum lab.Sum) {
	b.t.Helper()
	a, err := b.firstAdvert(i, time.Time{})
	b.ok(err)
	want := b.director.Forge(uint8(i.Version), i.VRID, i.Priority, i.Interval, virtual(i)...)
	want.Sum, want.ID = sum, a.ID
	if i.Password != "" {
		want.AuthType, want.Password = 1, i.Password
	}
	right, _ := lab.ParseAdvert(want.Frame())
	right.Time = a.Time
	if fmt.Sprint(a) != fmt.Sprint(right) {
		b.t.Errorf("%+v:\n got %+v\nwant %+v", i, a, right)
	}
}

// TestMasterAnswersAndYieldsAsItMust: V-68 to V-73.
func TestMasterAnswersAndYieldsAsItMust(t *testing.T) {
	t.Parallel()
	onPlanes(t, func(t *testing.T, _ string) {
		b := newBed(t)
		lowest4, lowest6 := netip.MustParseAddr("10.77.0.1"), netip.MustParseAddr("fe80::1")
		type row struct {
			name   string
			i      lab.Instance
			advert lab.Forged
			yields bool
		}
		var rows []row
		for _, f := range families {
			add := func(name string, priority uint8, low, yields bool) {
				i := b.router(f, 100)
				i.Interval = time.Second // so that an answer at once is told from the next advert
				b.instances[len(b.instances)-1] = i
				advert := b.forge(i, priority)
				if low {
					advert.Source = lowest4
					if f == "v6" {
						advert.Source = lowest6
					}
				}
				rows = append(rows, row{f + " " + name, i, advert, yields})
			}
			add("V-70 priority 0", 0, false, false)
			add("V-71 a higher priority", 101, false, true)
			add("V-71 the owner", 255, false, true)
			add("V-71 the same priority and a higher address", 100, false, true)
			add("V-72 the same priority and a lower address", 100, true, false)
			add("V-72 a lower priority", 99, false, false)
		}
		b.start()
		b.all("MASTER")
		var all sync.WaitGroup
		var sending sync.Mutex
		for _, r := range rows {
			all.Go(func() {
				// Just after an advert of its own, far away from the next one.
				from := time.Now()
				own, err := b.firstAdvert(r.i, from)
				if err == nil {
					err = lab.Wait(t.Context(), patience, func() error {
						if time.Since(own.Time) < 150*time.Millisecond {
							return errors.New("too early: it would be taken as asserted")
						}
						return nil
					})
				}
				if err != nil {
					t.Errorf("%s: %v", r.name, err)
					return
				}
				sending.Lock()
				at := time.Now()
				err = b.inject.Send(r.advert.Frame())
				sending.Unlock()
				if err != nil {
					t.Errorf("%s: %v", r.name, err)
					return
				}
				first, err := b.firstAdvert(r.i, at)
				if err != nil {
					t.Errorf("%s: %v", r.name, err)
					return
				}
				if took := first.Time.Sub(at); r.yields {
					err = b.near(first, at, masterDown(r.i, time.Second))
				} else if took > 300*time.Millisecond+b.pauses.since(at) {
					err = fmt.Errorf("%v, want at once", took)
				}
				if err != nil {
					t.Errorf("%s: next advert after %v", r.name, err)
				}
			})
		}
		all.Wait()
	})
}

// TestFloodOfLowerAdvertsIsAnsweredAtABoundedRate: V-73.
func TestFloodOfLowerAdvertsIsAnsweredAtABoundedRate(t *testing.T) {
	t.Parallel()
	onPlanes(t, func(t *testing.T, _ string) {
		b := newBed(t)
		var routers []lab.Instance
		for _, f := range families[1:] {
			routers = append(routers, b.router(f, 100))
		}
		b.start()
		b.all("MASTER")
		from := time.Now()
		sent := 0
		for time.Since(from) < time.Second {
			for _, i := range routers {
				b.send(b.forge(i, 50), 10)
			}
			sent += 10
		}
		intervals := int(time.Since(from)/interval) + 1
		for _, i := range routers {
			b.wait(i, func(s status.Instance) error {
				if s.AdvertsReceived == 0 {
					return errors.New("no advert accepted")
				}
				return nil
			})
			// Ten answers an interval, and the regular advert.
			got := len(b.adverts(i, from))
			if most := 12 * (int(time.Since(from)/interval) + 1); got < intervals-2 || got > most {
				t.Errorf("%d adverts in %d intervals of a flood of %d, want %d to %d", got, intervals, sent, intervals, most)
			}
			if s := b.picture(i); s.State != "MASTER" || s.Transitions["MASTER"] != 1 {
				t.Errorf("after the flood: %s, %v", s.State, s.Transitions)
			}
		}
	})
}

// TestStopGivesEveryRouterUp: V-63, V-68. The owner starts at once, V-61.
func TestStopGivesEveryRouterUp(t *testing.T) {
	t.Parallel()
	onPlanes(t, func(t *testing.T, _ string) {
		b := newBed(t)
		var masters, backups []lab.Instance
		k := b.keep()
		for _, f := range families {
			masters = append(masters, b.router(f, 100), b.router(f, 255))
			backup := b.router(f, 100)
			k.send(b.forge(backup, 200), backup.Interval/2)
			backups = append(backups, backup)
		}
		b.start()
		for _, i := range masters {
			if i.Priority == 255 {
				if a := b.adverts(i, time.Time{}); len(a) == 0 {
					t.Errorf("V-61: no advert of the owner when the director is ready")
				}
			}
			b.wait(i, func(s status.Instance) error {
				if s.State != "MASTER" {
					return fmt.Errorf("%s is %s", i.Name, s.State)
				}
				return nil
			})
		}
		stop := time.Now()
		b.ok(b.director.Stop())
		for _, i := range masters {
			a := b.adverts(i, stop)
			zero := slices.IndexFunc(a, func(a lab.Advert) bool { return a.Priority == 0 })
			if zero < 0 || slices.ContainsFunc(a[zero:], func(a lab.Advert) bool { return a.Priority != 0 }) || len(a[zero:]) > 2 {
				t.Errorf("V-68: adverts of version %d since the stop: %v, want priority 0 once or twice at the end", i.Version, a)
			}
			for _, address := range virtual(i) {
				if held, err := b.director.Holds("", address); held || err != nil {
					t.Errorf("%s is still there (%v)", address, err)
				}
			}
		}
		for _, i := range backups {
			if a := b.adverts(i, time.Time{}); len(a) > 0 {
				t.Errorf("V-63: %d adverts of a BACKUP that stops", len(a))
			}
		}
	})
}

// TestSecondMasterIsNamedAndCounted: V-135. One that never gives way is told with its address, and no more when it is gone.
func TestSecondMasterIsNamedAndCounted(t *testing.T) {
	t.Parallel()
	onPlanes(t, func(t *testing.T, _ string) {
		b := newBed(t)
		var routers []lab.Instance
		for _, f := range families {
			routers = append(routers, b.router(f, 100))
		}
		b.start()
		b.all("MASTER")
		k := b.keep()
		for _, i := range routers {
			k.send(b.forge(i, 50), i.Interval)
		}
		for _, i := range routers {
			b.wait(i, func(s status.Instance) error {
				source := b.forge(i, 50).Source.String()
				for _, m := range s.Mismatches {
					if m.Kind == splitBrain && m.Peer == source && strings.Contains(m.Text, source) {
						return nil
					}
				}
				return fmt.Errorf("version %d: told %+v, want a split brain with %s", i.Version, s.Mismatches, source)
			})
			k.silence(i.VRID)
		}
		for _, i := range routers {
			b.wait(i, func(s status.Instance) error {
				if len(s.Mismatches) > 0 {
					return fmt.Errorf("still told: %+v", s.Mismatches)
				}
				return nil
			})
		}
	})
}
