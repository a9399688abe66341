package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"time"

	"github.com/xdirector/xdirector/test/lab"
)

const (
	rate         = 250                    // new connections per second
	requestLimit = 250 * time.Millisecond // for a whole request
	settle       = time.Second            // after a change, for what may go wrong late
	maxPause     = 50 * time.Millisecond  // of the load itself: a request that failed meanwhile is nobody's fault
	backup       = 100                    // priority of the second box
)

// loss is what one repetition of a change cost.
type loss struct {
	garp   time.Duration // from the last advert of the old MASTER, or its priority 0, to the first gratuitous ARP
	gap    time.Duration // without an answer to a ping
	failed int           // requests that were opened after that advert
	open   int           // requests that were open then, or were reset because they were at the gratuitous ARP
	paused int           // requests that failed while the load itself stood still
	total  int
}

// change is a way to lose or change the MASTER, and back.
type change struct {
	name   string
	do     func(*pair) error
	to     int // the MASTER after it; -1: it stays
	back   func(*pair) error
	wanted func(interval time.Duration) wish
}

// wish is what is wanted of a change; zero: nothing.
type wish struct {
	noneFailed bool
	garp       time.Duration
}

func noneFailed(time.Duration) wish { return wish{noneFailed: true} }

func replaced(interval time.Duration) wish {
	theory := 3*interval + (256-backup)*interval/256
	return wish{garp: theory + 5*time.Millisecond + theory/50}
}

func changes() []change {
	return []change{
		{"clean stop", func(p *pair) error { return p.stop(0) }, 1, nil, noneFailed},
		{"preemption", func(p *pair) error { return p.start(0) }, 0, nil, noneFailed},
		{"agent killed", func(p *pair) error {
			for _, pid := range p.process(0).PIDsWith("agent") {
				if err := kill(pid); err != nil {
					return err
				}
			}
			return nil
		}, -1, nil, noneFailed},
		{"everything killed", func(p *pair) error { p.process(0).Kill(); return nil }, 1, func(p *pair) error { return p.start(0) }, replaced},
		{"link down", func(p *pair) error { return p.nodes[0].SetLink(false) }, 1, func(p *pair) error { return p.nodes[0].SetLink(true) }, replaced},
	}
}

// outageResult is one row of the table.
type outageResult struct {
	Program     string  `json:"program"`
	Interval    string  `json:"advert_interval"`
	Change      string  `json:"change"`
	Repetitions int     `json:"repetitions"`
	GARPMedian  float64 `json:"first_gratuitous_arp_median_ms"`
	GARPWorst   float64 `json:"first_gratuitous_arp_worst_ms"`
	GARPWanted  float64 `json:"first_gratuitous_arp_wanted_ms,omitempty"`
	PingMedian  float64 `json:"ping_gap_median_ms"`
	PingWorst   float64 `json:"ping_gap_worst_ms"`
	FailedMed   int     `json:"failed_requests_median"`
	FailedWorst int     `json:"failed_requests_worst"`
	OpenWorst   int     `json:"failed_requests_open_at_the_switch_worst"`
	Paused      int     `json:"failed_requests_while_the_load_stood_still"`
	Requests    int     `json:"requests"`
	Verdict     string  `json:"verdict,omitempty"`
}

func measureOutage(ctx context.Context, o options, out io.Writer) (any, error) {
	var results []outageResult
	for _, interval := range o.intervals {
		r, err := outageAt(ctx, o, interval)
		if err != nil {
			return nil, fmt.Errorf("adverts every %v: %w", interval, err)
		}
		results = append(results, r...)
	}
	rows := [][]string{{"ms", "adverts", "n", "garp median", "worst", "wanted", "ping gap median", "worst", "failed median", "worst", "open then", "of", ""}}
	for _, r := range results {
		wanted := ""
		if r.GARPWanted > 0 {
			wanted = fmt.Sprintf("%.0f", r.GARPWanted)
		}
		rows = append(rows, []string{
			r.Program + ": " + r.Change, r.Interval, fmt.Sprint(r.Repetitions),
			fmt.Sprintf("%.1f", r.GARPMedian), fmt.Sprintf("%.1f", r.GARPWorst), wanted,
			fmt.Sprintf("%.0f", r.PingMedian), fmt.Sprintf("%.0f", r.PingWorst),
			fmt.Sprint(r.FailedMed), fmt.Sprint(r.FailedWorst), fmt.Sprint(r.OpenWorst), fmt.Sprint(r.Requests), r.Verdict,
		})
	}
	title := fmt.Sprintf("Outage of a virtual address: VRRPv3, BACKUP of priority %d; a ping every millisecond, %d new connections per second, each within %v.\n"+
		"garp: from the last advert of the old MASTER (its priority 0 where there is one) to the first gratuitous ARP of the new one. failed: requests opened\n"+
		"after that advert, but for resets of those that were open at the gratuitous ARP: they count as open then. xdirector forwards\n"+
		"to 3 real servers; keepalived's boxes serve themselves. Wanted: %s none failed at clean stop, preemption and agent killed; else garp within 3 x interval + skew + 5 ms + 2 %%.", backup, rate, requestLimit, xdirector)
	return results, table(out, title, rows)
}

func outageAt(ctx context.Context, o options, interval time.Duration) ([]outageResult, error) {
	var pairs []*pair
	for _, name := range contestants {
		p, err := outagePair(ctx, o, name, interval)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		defer p.lab.Close()
		pairs = append(pairs, p)
	}
	all := changes()
	losses := map[string][][]loss{}
	for _, p := range pairs {
		losses[p.name] = make([][]loss, len(all))
	}
	for range o.repetitions {
		for n, c := range all {
			if !o.wants(c) {
				continue
			}
			for _, p := range pairs {
				if p.name == keepalived && c.to < 0 {
					continue // it has no agent
				}
				l, err := p.measure(ctx, c, interval)
				if err != nil {
					return nil, fmt.Errorf("%s: %s: %w", p.name, c.name, err)
				}
				losses[p.name][n] = append(losses[p.name][n], l)
			}
		}
	}
	var results []outageResult
	for n, c := range all {
		for _, p := range pairs {
			if list := losses[p.name][n]; len(list) > 0 {
				results = append(results, summarize(p.name, c, interval, list))
			}
		}
	}
	return results, nil
}

// outagePair builds a pair whose virtual address answers HTTP, and runs it.
func outagePair(ctx context.Context, o options, name string, interval time.Duration) (_ *pair, err error) {
	servers := 0
	if name == xdirector {
		servers = 3
	}
	p, err := newPair(name, o.binary, 1, servers, interval, "")
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			p.lab.Close()
		}
	}()
	web := p.lab.RealServers
	if servers == 0 {
		web = p.nodes
	}
	for _, n := range web {
		if _, err := n.StartNginx(80); err != nil {
			return nil, err
		}
	}
	return p, p.both(ctx)
}

// measure makes a change once, under load, and returns to the first box as MASTER.
func (p *pair) measure(ctx context.Context, c change, interval time.Duration) (loss, error) {
	_, _, address := virtualRouter(0)
	vip := netip.MustParsePrefix(address).Addr()
	ping, err := p.lab.Client.StartPing(vip, time.Millisecond)
	if err != nil {
		return loss{}, err
	}
	load, err := p.lab.Client.StartLoad(netip.AddrPortFrom(vip, 80), rate, requestLimit)
	if err != nil {
		return loss{}, err
	}
	if err := wait(ctx, settle/2); err != nil {
		return loss{}, err
	}
	at := time.Now()
	if err := c.do(p); err != nil {
		return loss{}, err
	}
	since, garp := at, at
	if c.to >= 0 {
		a, err := p.sent[c.to].WaitAnnouncement(ctx, nil, vip, at, patience)
		if err != nil {
			return loss{}, fmt.Errorf("%w\n%s", err, tail(p.process(c.to).Log()))
		}
		garp = a.Time
		since = p.lastAdvert(1-c.to, garp)
	}
	if err := wait(ctx, settle); err != nil {
		return loss{}, err
	}
	ping.Stop()
	requests := load.Stop()
	l := loss{garp: garp.Sub(since), gap: ping.Gap(at.Add(-interval), time.Now()), total: len(requests)}
	for _, r := range requests.Failed() {
		switch {
		case r.Pause > maxPause:
			l.paused++
		case r.Start.Before(since), r.Outcome == lab.Reset && r.Start.Before(garp) && r.End.After(garp):
			l.open++
		default:
			l.failed++
		}
	}
	if c.back != nil {
		if err := c.back(p); err != nil {
			return loss{}, err
		}
	}
	if c.to == 1 && c.back == nil {
		return l, nil // the next change leads back
	}
	return l, errors.Join(p.elected(ctx, 0), p.released(ctx, vip))
}

// lastAdvert is when the old MASTER sent its last advert before the new one announced itself.
func (p *pair) lastAdvert(box int, garp time.Time) time.Time {
	var last time.Time
	for _, a := range p.sent[box].AdvertsFor(false, 1, garp.Add(-patience)) {
		if a.Time.Before(garp) {
			last = a.Time
		}
	}
	return last
}

// released waits until the second box no longer has the address.
func (p *pair) released(ctx context.Context, vip netip.Addr) error {
	return lab.Wait(ctx, patience, func() error {
		if held, err := p.nodes[1].Holds("", vip); held || err != nil {
			return fmt.Errorf("%s: the second box still holds the address (%v)", p.name, err)
		}
		return nil
	})
}

func summarize(program string, c change, interval time.Duration, list []loss) outageResult {
	r := outageResult{Program: program, Interval: interval.String(), Change: c.name, Repetitions: len(list)}
	var garps, gaps []time.Duration
	var failed []int
	for _, l := range list {
		garps, gaps, failed = append(garps, l.garp), append(gaps, l.gap), append(failed, l.failed)
		r.OpenWorst = max(r.OpenWorst, l.open)
		r.Paused += l.paused
		r.Requests += l.total
	}
	slices.Sort(garps)
	slices.Sort(gaps)
	slices.Sort(failed)
	n := len(list)
	r.GARPMedian, r.GARPWorst = milliseconds(garps[n/2]), milliseconds(garps[n-1])
	r.PingMedian, r.PingWorst = milliseconds(gaps[n/2]), milliseconds(gaps[n-1])
	r.FailedMed, r.FailedWorst = failed[n/2], failed[n-1]
	w := c.wanted(interval)
	r.GARPWanted = milliseconds(w.garp)
	if program == xdirector {
		r.Verdict = verdict((!w.noneFailed || failed[n-1] == 0) && (w.garp == 0 || garps[n-1] <= w.garp))
	}
	return r
}
