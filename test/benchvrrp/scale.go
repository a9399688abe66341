package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"runtime"
	"syscall"
	"time"

	"github.com/xdirector/xdirector/test/lab"
)

// scaleResult is what happens to a thousand virtual routers at once.
type scaleResult struct {
	Program  string  `json:"program"`
	Routers  int     `json:"virtual_routers"`
	Interval string  `json:"advert_interval"`
	First    float64 `json:"first_gratuitous_arp_ms"` // from the loss of the MASTER
	Spread   float64 `json:"first_to_last_gratuitous_arp_ms"`
	Quiet    float64 `json:"longest_interval_before_reload"` // in intervals
	Reload   float64 `json:"longest_interval_in_reload"`
	Verdict  string  `json:"verdict,omitempty"`
}

func measureScale(ctx context.Context, o options, out io.Writer) (any, error) {
	var results []scaleResult
	for _, interval := range []time.Duration{time.Second, 100 * time.Millisecond} {
		for _, name := range contestants {
			r, err := scaleOf(ctx, o, name, interval)
			if err != nil {
				return nil, fmt.Errorf("%s at %v: %w", name, interval, err)
			}
			results = append(results, r)
		}
	}
	rows := [][]string{{"", "adverts", "first garp ms", "first to last ms", "longest interval", "in reload", ""}}
	for _, r := range results {
		rows = append(rows, []string{r.Program, r.Interval, fmt.Sprintf("%.0f", r.First), fmt.Sprintf("%.0f", r.Spread),
			fmt.Sprintf("%.3f", r.Quiet), fmt.Sprintf("%.3f", r.Reload), r.Verdict})
	}
	title := fmt.Sprintf("%d virtual routers on %d interfaces: failover of all when everything is killed between two adverts, and a reload that changes every tenth priority.\n"+
		"Wanted: under 1 s from the first to the last gratuitous ARP; no advert later than 1.05 intervals.", maxRouters, maxRouters/perNetwork)
	return results, table(out, title, rows)
}

func scaleOf(ctx context.Context, o options, name string, interval time.Duration) (scaleResult, error) {
	p, err := newPair(name, o.binary, maxRouters, 0, interval, "")
	if err != nil {
		return scaleResult{}, err
	}
	defer p.lab.Close()
	wires := make([][]*lab.Wire, len(p.nodes)) // by box and network
	for box, n := range p.nodes {
		for network := range maxRouters / perNetwork {
			w, err := n.CaptureOwn(fmt.Sprintf("eth%d", network), lab.IsVRRP)
			if err != nil {
				return scaleResult{}, err
			}
			wires[box] = append(wires[box], w)
		}
	}
	if err := p.both(ctx); err != nil {
		return scaleResult{}, err
	}
	if err := wait(ctx, 8*time.Second); err != nil { // the second announcements
		return scaleResult{}, err
	}
	r := scaleResult{Program: name, Routers: maxRouters, Interval: interval.String()}
	phase := max(3*time.Second, 4*interval)
	from := time.Now()
	if err := wait(ctx, phase); err != nil {
		return scaleResult{}, err
	}
	r.Quiet = longest(wires[0], from, interval)
	from = time.Now()
	if err := p.reload(ctx); err != nil {
		return scaleResult{}, err
	}
	if err := wait(ctx, phase); err != nil {
		return scaleResult{}, err
	}
	r.Reload = longest(wires[0], from.Add(-interval), interval)

	if err := pause(ctx, wires[0], interval); err != nil {
		return scaleResult{}, err
	}
	at := time.Now()
	p.process(0).Kill()
	var first, last time.Time
	err = lab.Wait(ctx, patience, func() error {
		first, last = time.Time{}, time.Time{}
		for network, w := range wires[1] {
			seen := map[netip.Addr]bool{}
			for _, f := range w.Frames(at) {
				a, ok := lab.ParseAnnouncement(f.Data)
				if !ok || seen[a.Address] {
					continue
				}
				seen[a.Address] = true
				if first.IsZero() || f.Time.Before(first) {
					first = f.Time
				}
				if f.Time.After(last) {
					last = f.Time
				}
			}
			if len(seen) < perNetwork {
				return fmt.Errorf("%d addresses of network %d announced", len(seen), network)
			}
		}
		return nil
	})
	r.First, r.Spread = milliseconds(first.Sub(at)), milliseconds(last.Sub(first))
	if name == xdirector {
		r.Verdict = verdict(last.Sub(first) < time.Second && r.Reload <= max(1.05, r.Quiet))
	}
	return r, err
}

// pause waits until nobody has sent an advert for a quarter of an interval. A MASTER that is killed among its adverts is missed an
// interval later by some than by others: that says nothing about the failover.
func pause(ctx context.Context, wires []*lab.Wire, interval time.Duration) error {
	return lab.Wait(ctx, patience, func() error {
		for _, w := range wires {
			if len(w.Frames(time.Now().Add(-interval/4))) > 0 {
				return errors.New("adverts come without a pause")
			}
		}
		return nil
	})
}

// reload changes the priority of every tenth virtual router of the MASTER, and keeps it the highest.
func (p *pair) reload(ctx context.Context) error {
	for n := range p.config[0].Instances {
		if n%10 == 0 {
			p.config[0].Instances[n].Priority, p.routers[0][n].Priority = 220, 220
		}
	}
	if p.name == keepalived {
		if err := p.nodes[0].ConfigureKeepalived(p.routers[0]...); err != nil {
			return err
		}
		return p.k[0].Signal(syscall.SIGHUP)
	}
	return errors.Join(p.d[0].Configure(p.config[0]), p.d[0].Reload(ctx))
}

// longest is the longest time between two adverts of one virtual router, in intervals.
func longest(wires []*lab.Wire, from time.Time, interval time.Duration) float64 {
	var worst time.Duration
	for _, w := range wires {
		for vrid := 1; vrid <= perNetwork; vrid++ {
			list := w.AdvertsFor(false, uint8(vrid), from)
			for n := 1; n < len(list); n++ {
				worst = max(worst, list[n].Time.Sub(list[n-1].Time))
			}
		}
	}
	return float64(worst) / float64(interval)
}

// busyResult is how the election stands a machine whose every core is busy.
type busyResult struct {
	Program  string  `json:"program"`
	Minutes  float64 `json:"minutes"`
	Takeover int     `json:"false_takeovers"`
	Longest  float64 `json:"longest_interval_ms"`
	Verdict  string  `json:"verdict,omitempty"`
}

func measureBusy(ctx context.Context, o options, out io.Writer) (any, error) {
	const interval = 10 * time.Millisecond
	var pairs []*pair
	for _, name := range contestants {
		p, err := newPair(name, o.binary, 1, 0, interval, "")
		if err != nil {
			return nil, err
		}
		defer p.lab.Close()
		if err := p.both(ctx); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		pairs = append(pairs, p)
	}
	for range runtime.NumCPU() {
		hog, err := pairs[0].lab.Client.Start("hog", "sh", "-c", "while :; do :; done")
		if err != nil {
			return nil, err
		}
		defer hog.Kill()
	}
	from := time.Now()
	if err := wait(ctx, o.busy); err != nil {
		return nil, err
	}
	var results []busyResult
	rows := [][]string{{"", "minutes", "false takeovers", "longest interval ms", ""}}
	for _, p := range pairs {
		r := busyResult{Program: p.name, Minutes: o.busy.Minutes()}
		// A BACKUP sends nothing; one that takes over sends adverts until it hears the other one.
		var before time.Time
		for _, a := range p.sent[1].AdvertsFor(false, 1, from) {
			if a.Time.Sub(before) > 3*interval {
				r.Takeover++
			}
			before = a.Time
		}
		r.Longest = longest(p.sent[:1], from, interval) * milliseconds(interval)
		if p.name == xdirector {
			r.Verdict = verdict(r.Takeover == 0)
		}
		results = append(results, r)
		rows = append(rows, []string{r.Program, fmt.Sprintf("%.1f", r.Minutes), fmt.Sprint(r.Takeover), fmt.Sprintf("%.1f", r.Longest), r.Verdict})
	}
	title := fmt.Sprintf("Adverts every %v on a machine with a busy loop of normal priority on each of %d cores, both programs at the same time. Wanted: no false takeover.", interval, runtime.NumCPU())
	return results, table(out, title, rows)
}
