package e2e

import (
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

// bad is an advert that a receiver must discard.
type bad struct {
	name     string
	families string // all if empty
	change   func(*lab.Forged)
	reason   string // under which it is counted; empty: it isn't, it never gets that far
}

// badAdverts are winning adverts, each with one thing wrong.
func badAdverts() []bad {
	other := netip.MustParseAddr("10.77.9.9")
	return []bad{
		{"V-20 TTL 254", "", func(f *lab.Forged) { f.TTL = 254 }, "ttl"},
		{"V-20 TTL 64", "", func(f *lab.Forged) { f.TTL = 64 }, "ttl"},
		{"V-20 TTL 1", "", func(f *lab.Forged) { f.TTL = 1 }, "ttl"},
		{"V-20 TTL 0", "", func(f *lab.Forged) { f.TTL = 0 }, "ttl"},
		{"V-21 version 2 to version 3", "v3", func(f *lab.Forged) { f.Version, f.Interval = 2, time.Second }, "version"},
		{"V-21 version 3 to version 2", "v2", func(f *lab.Forged) { f.Version = 3 }, "version"},
		{"V-21 version 4", "", func(f *lab.Forged) { f.Version = 4 }, "version"},
		{"V-22 type 0", "", func(f *lab.Forged) { f.Type = 0 }, "type"},
		{"V-22 type 2", "", func(f *lab.Forged) { f.Type = 2 }, "type"},
		{"V-22 type 15", "", func(f *lab.Forged) { f.Type = 15 }, "type"},
		{"V-23 count of one more than there are", "v3 v6", func(f *lab.Forged) { f.Count++ }, "length"},
		{"V-23 count of three more than there are", "", func(f *lab.Forged) { f.Count += 3 }, "length"},
		{"V-25 checksum", "", func(f *lab.Forged) { f.Sum = lab.WrongSum }, "checksum"},
		{"V-26 a virtual router that is not ours", "", func(f *lab.Forged) { f.VRID = 250 }, ""},
		{"V-27 count 0", "", func(f *lab.Forged) { f.Count, f.Addresses = 0, nil }, "address_count"},
		{"V-28 interval 0", "", func(f *lab.Forged) { f.Interval = 0 }, "interval"},
		{"V-33 another interval", "v2", func(f *lab.Forged) { f.Interval = 2 * time.Second }, "interval"},
		{"V-35 other addresses", "v2", func(f *lab.Forged) { f.Addresses = []netip.Addr{other} }, "collision"},
		{"V-36 to the router's own address", "v2 v3", func(f *lab.Forged) {
			f.Destination, f.To = netip.MustParseAddr("10.77.0.11"), []byte{2, 0, 0, 0x77, 0, 11}
		}, "destination"},
		{"V-37 from the router's own address", "v2 v3", func(f *lab.Forged) { f.Source = netip.MustParseAddr("10.77.0.11") }, "source"},
		{"V-37 from the router's own link-local address", "v6", func(f *lab.Forged) { f.Source = netip.MustParseAddr("fe80::ff:fe77:b") }, "source"},
		{"V-38 from 0.0.0.0", "v2 v3", func(f *lab.Forged) { f.Source = netip.IPv4Unspecified() }, "source"},
		{"V-38 from a multicast address", "v2 v3", func(f *lab.Forged) { f.Source = netip.MustParseAddr("224.0.0.5") }, "source"},
		{"V-38 from the broadcast address", "v2 v3", func(f *lab.Forged) { f.Source = netip.MustParseAddr("255.255.255.255") }, "source"},
		{"V-38 from a virtual address", "v2 v3", func(f *lab.Forged) { f.Source = f.Addresses[0] }, "source"},
		{"V-38 from ::", "v6", func(f *lab.Forged) { f.Source = netip.IPv6Unspecified() }, "source"},
		{"V-39 first fragment", "v2 v3", func(f *lab.Forged) { f.Flags = 0x2000 }, "fragment"},
		{"V-39 later fragment", "v2 v3", func(f *lab.Forged) { f.Flags = 1 }, "fragment"},
		{"V-45 no checksum of the password", "v2", func(f *lab.Forged) { f.AuthType, f.Password, f.Sum = 0, "", lab.WrongSum }, "checksum"},
		{"V-46 checksum without a pseudo-header", "v6", func(f *lab.Forged) { f.Sum = lab.MessageSum }, "checksum"},
		{"V-76 same priority and same address", "v2 v3", func(f *lab.Forged) { f.Priority, f.Source = 100, netip.MustParseAddr("10.77.0.11") }, "source"},
		{"V-120 unknown authentication", "v2", func(f *lab.Forged) { f.AuthType = 3 }, "auth_type"},
		{"V-121 authentication that is not ours", "v2", func(f *lab.Forged) { f.AuthType, f.Password = 1, "1111" }, "auth_type"},
		{"IP length longer than the packet", "", func(f *lab.Forged) { f.IPLength = 8 }, ""},
		{"IP length shorter than the advert", "v2 v3", func(f *lab.Forged) { f.IPLength, f.Padding = -4, 30 }, "length"},
		{"IP header checksum", "v2 v3", func(f *lab.Forged) { f.BadIPSum = true }, "checksum"},
		{"another IP protocol", "", func(f *lab.Forged) { f.Protocol = 113 }, ""},
	}
}

// TestBadAdvertsDoNothingToAMASTER: V-20 to V-41. No state, no timer and no advert of the MASTER changes, whatever is sent
// every few milliseconds, and each reason has its counter.
func TestBadAdvertsDoNothingToAMASTER(t *testing.T) {
	t.Parallel()
	onPlanes(t, func(t *testing.T, _ string) {
		b := newBed(t)
		type row struct {
			bad
			i      lab.Instance
			family string
		}
		var rows []row
		for _, f := range families {
			for _, x := range badAdverts() {
				if x.families == "" || strings.Contains(x.families, f) {
					rows = append(rows, row{x, b.router(f, 100), f})
				}
			}
		}
		b.slow() // a machine that stands still for a moment must not look like a change
		for n := range rows {
			rows[n].i = b.instances[n]
		}
		b.start()
		b.all("MASTER")
		from := time.Now()
		const times = 20
		for _, r := range rows {
			f := b.forge(r.i, 200)
			r.change(&f)
			b.send(f, times)
			sentinel := b.forge(r.i, 50) // counted, so that all before it was seen
			sentinel.Sum = lab.WrongSum
			b.send(sentinel, 1)
		}
		b.ok(b.director.WaitStatus(t.Context(), patience, func(s *status.Status) error {
			for n, r := range rows {
				i := s.Instances[n]
				want := map[string]uint64{"checksum": 1}
				if r.reason != "" {
					want[r.reason] += times
				}
				for reason, count := range want {
					if got := i.AdvertsRefused[reason]; got != count {
						return fmt.Errorf("%s %s: refused %v, want %v", r.family, r.name, i.AdvertsRefused, want)
					}
				}
			}
			return nil
		}))
		// Long enough for three adverts of every router.
		b.ok(b.director.WaitStatus(t.Context(), patience, func(s *status.Status) error {
			for n, r := range rows {
				if got := b.adverts(r.i, from); len(got) < 3 {
					return fmt.Errorf("%s: %d adverts", s.Instances[n].Name, len(got))
				}
			}
			return nil
		}))
		s, err := b.director.Status(t.Context())
		b.ok(err)
		for n, r := range rows {
			i := s.Instances[n]
			if i.State != "MASTER" || i.Transitions["BACKUP"] != 1 || i.AdvertsReceived != 0 {
				t.Errorf("%s %s: %s after %v (%s), %d accepted", r.family, r.name, i.State, i.Transitions, i.Reason, i.AdvertsReceived)
			}
			b.steady(r.family+" "+r.name, r.i, from)
		}
	})
}

// steady checks that adverts of a MASTER come as if nothing had been received.
func (b *bed) steady(what string, i lab.Instance, from time.Time) {
	b.t.Helper()
	latest := 2*i.Interval + b.pauses.since(from)
	list := b.adverts(i, from.Add(-i.Interval))
	for n := 1; n < len(list); n++ {
		if gap := list[n].Time.Sub(list[n-1].Time); gap < i.Interval*8/10 || gap > latest {
			b.t.Errorf("%s: %v between two adverts, want %v", what, gap, i.Interval)
		}
	}
}

// TestBadAdvertsDoNothingToABACKUP: V-40, V-57. Whatever is sent in the name of the MASTER, it is missed in time.
func TestBadAdvertsDoNothingToABACKUP(t *testing.T) {
	t.Parallel()
	onPlanes(t, func(t *testing.T, _ string) {
		b := newBed(t)
		type row struct {
			bad
			i      lab.Instance
			family string
		}
		var rows []row
		for _, f := range families {
			for _, x := range badAdverts() {
				if x.families == "" || strings.Contains(x.families, f) {
					rows = append(rows, row{x, b.router(f, 100), f})
				}
			}
		}
		k := b.keep()
		for _, r := range rows {
			k.send(b.forge(r.i, 200), r.i.Interval/4)
		}
		b.start()
		b.all("BACKUP")
		var all sync.WaitGroup
		for _, r := range rows {
			f := b.forge(r.i, 200)
			r.change(&f)
			all.Go(func() {
				silent := k.silence(r.i.VRID)
				k.send(f, r.i.Interval/4)
				first, err := b.firstAdvert(r.i, silent)
				if err == nil {
					err = b.near(first, silent, masterDown(r.i, r.i.Interval))
				}
				if err != nil {
					t.Errorf("%s %s: took over after %v", r.family, r.name, err)
				}
			})
		}
		all.Wait()
	})
}

// masterDown is how long a BACKUP waits for a MASTER with the interval: RFC 9568 6.1, RFC 3768 6.1.
func masterDown(i lab.Instance, learned time.Duration) time.Duration {
	return 3*learned + skew(i, learned)
}

// skew is that of a BACKUP; in version 2 it is of seconds, whatever the interval.
func skew(i lab.Instance, learned time.Duration) time.Duration {
	if i.Version == 2 {
		learned = time.Second
	}
	return time.Duration(256-int(i.Priority)) * learned / 256
}

// TestOddAdvertsAreObeyed: adverts that look strange but must be taken.
func TestOddAdvertsAreObeyed(t *testing.T) {
	t.Parallel()
	onPlanes(t, func(t *testing.T, _ string) {
		other4, other6 := netip.MustParseAddr("10.77.9.9"), netip.MustParseAddr("fd77::9:9")
		odd := []struct {
			name, families string
			change         func(*lab.Forged)
			learned        time.Duration
			kind           string // of the difference told
		}{
			{"V-24 4 bytes behind the addresses", "", func(f *lab.Forged) { f.Trailer = make([]byte, 4) }, 0, ""},
			{"V-24 28 bytes behind the addresses, as keepalived 2.4 with HMAC", "", func(f *lab.Forged) { f.Trailer = make([]byte, 28) }, 0, ""},
			{"V-24 Ethernet padding", "", func(f *lab.Forged) { f.Padding = 6 }, 0, ""},
			{"V-29 first address is not link-local", "v6", func(f *lab.Forged) { slices.Reverse(f.Addresses) }, 0, "link_local"},
			{"V-30 reserved bits", "v3 v6", func(f *lab.Forged) { f.Reserved = 15 }, 0, ""},
			{"V-32 another interval", "v3 v6", func(f *lab.Forged) { f.Interval = 500 * time.Millisecond }, 500 * time.Millisecond, "interval"},
			{"V-34 one more address", "v3", func(f *lab.Forged) { f.Addresses, f.Count = append(f.Addresses, other4), 2 }, 0, "addresses"},
			{"V-34 one more address", "v6", func(f *lab.Forged) { f.Addresses, f.Count = append(f.Addresses, other6), 3 }, 0, "addresses"},
			{"V-34 other addresses", "v3", func(f *lab.Forged) { f.Addresses = []netip.Addr{other4} }, 0, "collision"},
			{"V-35 one more address", "v2", func(f *lab.Forged) { f.Addresses, f.Count = append(f.Addresses, other4), 2 }, 0, "addresses"},
			{"V-38 from another subnet", "v2 v3", func(f *lab.Forged) { f.Source = netip.MustParseAddr("192.0.2.1") }, 0, ""},
			{"V-39 IP option router alert", "v2 v3", func(f *lab.Forged) { f.Options = []byte{0x94, 4, 0, 0} }, 0, ""},
			{"V-47 checksum of the message alone", "v3", func(f *lab.Forged) { f.Sum = lab.MessageSum }, 0, ""},
			{"V-48 the other form of the checksum", "v3", func(f *lab.Forged) {}, 0, ""},
			{"V-121 a password without authentication", "v2", func(f *lab.Forged) { f.Password = "secret" }, 0, ""},
			{"another IP ID", "v2 v3", func(f *lab.Forged) { f.ID = 0xabcd }, 0, ""},
			{"do not fragment, as FRR sends", "v2 v3", func(f *lab.Forged) { f.Flags = 0x4000 }, 0, ""},
			{"no priority of the IP packet", "", func(f *lab.Forged) { f.TOS = 0 }, 0, ""},
		}
		b := newBed(t)
		var names []string
		var routers []lab.Instance
		var rows []int
		for _, f := range families {
			for n, o := range odd {
				if o.families == "" || strings.Contains(o.families, f) {
					var more []string
					if strings.HasPrefix(o.name, "V-48") {
						more = []string{"checksum: rfc9568"}
					}
					names, routers, rows = append(names, f+" "+o.name), append(routers, b.router(f, 100, more...)), append(rows, n)
				}
			}
		}
		b.start()
		b.all("MASTER")
		k := b.keep()
		var all sync.WaitGroup
		for n, i := range routers {
			o := odd[rows[n]]
			f := b.forge(i, 200)
			o.change(&f)
			k.send(f, i.Interval)
			all.Go(func() {
				err := b.waitErr(i, func(s status.Instance) error {
					kind := ""
					for _, m := range s.Mismatches {
						kind += m.Kind
					}
					if s.State != "BACKUP" || kind != o.kind {
						return fmt.Errorf("%s (%s), told %q, refused %v; want BACKUP, %q", s.State, s.Reason, kind, s.AdvertsRefused, o.kind)
					}
					return nil
				})
				if err == nil {
					err = b.hears(i, 1) // the first one met a MASTER, whose own advert may have been on its way
				}
				if err != nil {
					t.Errorf("%s: %v", names[n], err)
					return
				}
				silent := k.silence(i.VRID)
				learned := o.learned
				if learned == 0 {
					learned = i.Interval
				}
				first, err := b.firstAdvert(i, silent)
				if err == nil {
					err = b.near(first, silent, masterDown(i, learned))
				}
				if err != nil {
					t.Errorf("%s: V-53: took over after %v", names[n], err)
				}
			})
		}
		all.Wait()
	})
}
