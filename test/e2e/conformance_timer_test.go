package e2e

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/xdirector/xdirector/pkg/status"
	"github.com/xdirector/xdirector/test/lab"
)

// story is what happens to a BACKUP that has heard a MASTER of priority 200 until now.
type story struct {
	name     string
	families string // all if empty
	priority uint8  // 100 if 0
	more     []string
	run      func(b *bed, k *keeper, i lab.Instance) error
}

// silent ends the adverts of the MASTER and checks when its place is taken.
func silent(learned time.Duration) func(*bed, *keeper, lab.Instance) error {
	return func(b *bed, k *keeper, i lab.Instance) error {
		if learned == 0 {
			learned = i.Interval
		}
		since := k.silence(i.VRID)
		first, err := b.firstAdvert(i, since)
		if err != nil {
			return err
		}
		return b.near(first, since, masterDown(i, learned))
	}
}

// hears waits until the BACKUP has accepted n more adverts.
func (b *bed) hears(i lab.Instance, n uint64) error {
	first := uint64(0)
	return b.waitErr(i, func(s status.Instance) error {
		if first == 0 {
			first = s.AdvertsReceived
		}
		if s.AdvertsReceived < first+n {
			return fmt.Errorf("%d adverts accepted, want %d more than %d", s.AdvertsReceived, n, first)
		}
		return nil
	})
}

// learns sends adverts with another interval until the BACKUP has heard some.
func learns(interval time.Duration, then func(*bed, *keeper, lab.Instance) error) func(*bed, *keeper, lab.Instance) error {
	return func(b *bed, k *keeper, i lab.Instance) error {
		f := b.forge(i, 200)
		f.Interval = interval
		k.send(f, 50*time.Millisecond)
		if err := b.hears(i, 5); err != nil {
			return err
		}
		return then(b, k, i)
	}
}

// leaves sends priority 0 once and checks when the place is taken.
func leaves(learned time.Duration) func(*bed, *keeper, lab.Instance) error {
	return func(b *bed, k *keeper, i lab.Instance) error {
		if learned == 0 {
			learned = i.Interval
		}
		k.silence(i.VRID)
		at := time.Now()
		if err := b.inject.Send(b.forge(i, 0).Frame()); err != nil {
			return err
		}
		first, err := b.firstAdvert(i, at)
		if err != nil {
			return err
		}
		return b.near(first, at, skew(i, learned))
	}
}

// keptDown sends adverts of a priority for a while, which must keep the BACKUP down, and then none.
func keptDown(priority uint8) func(*bed, *keeper, lab.Instance) error {
	return func(b *bed, k *keeper, i lab.Instance) error {
		from := time.Now()
		k.send(b.forge(i, priority), i.Interval/4)
		if err := b.hears(i, 4*6); err != nil { // longer than it waits for a MASTER
			return err
		}
		if a := b.adverts(i, from); len(a) > 0 {
			return fmt.Errorf("%d adverts, though a MASTER of priority %d was there", len(a), priority)
		}
		return silent(0)(b, k, i)
	}
}

func stories() []story {
	list := []story{
		{"V-52 V-65 priority 0: takes over after the skew, not at once", "", 0, nil, leaves(0)},
		{"V-53 V-54 another interval is learned", "v3 v6", 0, nil, learns(500*time.Millisecond, silent(500*time.Millisecond))},
		{"V-55 priority 0 after another interval", "v3 v6", 0, nil, learns(500*time.Millisecond, leaves(500*time.Millisecond))},
		{"V-56 own interval after another one was learned", "v3 v6", 0, nil, learns(500*time.Millisecond, func(b *bed, k *keeper, i lab.Instance) error {
			since := k.silence(i.VRID)
			if err := lab.Wait(b.t.Context(), patience, func() error {
				if got := len(b.adverts(i, since)); got < 6 {
					return fmt.Errorf("%d adverts", got)
				}
				return nil
			}); err != nil {
				return err
			}
			b.steady("V-56", i, since)
			return nil
		})},
		{"V-57 V-67 adverts of a lower one change nothing", "", 0, nil, func(b *bed, k *keeper, i lab.Instance) error {
			since := k.send(b.forge(i, 50), i.Interval/4)
			first, err := b.firstAdvert(i, since)
			if err != nil {
				return err
			}
			return b.near(first, since, masterDown(i, i.Interval))
		}},
		{"V-66 one of the same priority keeps it down", "", 0, nil, keptDown(100)},
		{"V-66 V-75 without preempt a lower one keeps it down", "", 0, []string{"preempt: false"}, keptDown(50)},
		{"V-64 V-80 V-81 V-87 advert first, then the announcements", "", 0, nil, func(b *bed, k *keeper, i lab.Instance) error {
			since := k.silence(i.VRID)
			return b.announced(i, since)
		}},
		{"down_timer_adverts", "", 0, []string{"down_timer_adverts: 5"}, func(b *bed, k *keeper, i lab.Instance) error {
			since := k.silence(i.VRID)
			first, err := b.firstAdvert(i, since)
			if err != nil {
				return err
			}
			return b.near(first, since, masterDown(i, i.Interval)+2*i.Interval)
		}},
	}
	for _, p := range []uint8{1, 100, 254} {
		list = append(list, story{fmt.Sprintf("V-50 V-51 V-53 silence, priority %d", p), "", p, nil, silent(0)})
	}
	return list
}

// TestBackupTakesOverAsTheFormulasSay: V-50 to V-67.
func TestBackupTakesOverAsTheFormulasSay(t *testing.T) {
	t.Parallel()
	onPlanes(t, func(t *testing.T, _ string) {
		b := newBed(t)
		type row struct {
			story
			family string
			i      lab.Instance
		}
		var rows []row
		for _, f := range families {
			for _, s := range stories() {
				if s.families == "" || strings.Contains(s.families, f) {
					if s.priority == 0 {
						s.priority = 100
					}
					rows = append(rows, row{s, f, b.router(f, s.priority, s.more...)})
				}
			}
		}
		k := b.keep()
		for _, r := range rows {
			k.send(b.forge(r.i, max(200, r.i.Priority)), r.i.Interval/4)
		}
		b.start()
		b.all("BACKUP")
		// V-63, V-74: a BACKUP says nothing, and does not answer for the addresses.
		if a := b.sent.Adverts(time.Time{}); len(a) > 0 {
			t.Errorf("%d adverts of BACKUPs", len(a))
		}
		var all sync.WaitGroup
		for _, r := range rows {
			all.Go(func() {
				if err := b.hears(r.i, 3); err != nil {
					t.Errorf("%s %s: %v", r.family, r.name, err)
					return
				}
				if err := r.run(b, k, r.i); err != nil {
					t.Errorf("%s %s: %v", r.family, r.name, err)
				}
			})
		}
		all.Wait()
	})
}

// announced checks what a new MASTER sends: an advert first, then five announcements of each address, round by round.
func (b *bed) announced(i lab.Instance, since time.Time) error {
	first, err := b.firstAdvert(i, since)
	if err != nil {
		return err
	}
	var list []lab.Announcement
	err = lab.Wait(b.t.Context(), patience, func() error {
		list = nil
		for _, a := range virtual(i) {
			list = append(list, b.sent.Announcements(a, since)...)
		}
		if want := 5 * len(virtual(i)); len(list) < want {
			return fmt.Errorf("%d announcements, want %d", len(list), want)
		}
		return nil
	})
	if err != nil {
		return err
	}
	slices.SortStableFunc(list, func(a, b lab.Announcement) int { return a.Time.Compare(b.Time) })
	for n, a := range list[:5*len(virtual(i))] {
		if a.Time.Before(first.Time) {
			return fmt.Errorf("announcement %v before the advert", first.Time.Sub(a.Time))
		}
		if want := virtual(i)[n%len(virtual(i))]; a.Address != want {
			return fmt.Errorf("announcement %d is of %s, want %s: all addresses, then all again", n+1, a.Address, want)
		}
		if err := b.rightAnnouncement(a); err != nil {
			return err
		}
	}
	return nil
}

func (b *bed) rightAnnouncement(a lab.Announcement) error {
	mac := b.director.MAC.String()
	if a.Address.Is4() {
		if !a.Request || a.To.String() != "ff:ff:ff:ff:ff:ff" || a.From.String() != mac || a.MAC.String() != mac {
			return fmt.Errorf("gratuitous ARP %+v, want a broadcast request that tells %s", a, mac)
		}
		return nil
	}
	allNodes := net.HardwareAddr{0x33, 0x33, 0, 0, 0, 1}
	if a.Source != a.Address || a.HopLimit != 255 || !a.Override || a.Solicited || a.MAC.String() != mac || a.From.String() != mac ||
		a.To.String() != allNodes.String() || a.Destination != netip.MustParseAddr("ff02::1") {
		return fmt.Errorf("neighbour advertisement %+v, want one to all nodes with override that tells %s", a, mac)
	}
	return nil
}
