// Command failover measures what a change of the MASTER costs a client: two directors, three real servers, a fixed
// rate of new connections, and each way to lose or change the MASTER several times over. It needs root.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/xdirector/xdirector/test/lab"
)

const (
	vip      = "10.77.0.100"
	interval = 100 * time.Millisecond // between adverts
	rate     = 250                    // new connections per second
	limit    = 250 * time.Millisecond // for a whole request
	patience = 15 * time.Second
	settle   = time.Second // after a change, for what may go wrong late
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "failover:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("failover", flag.ContinueOnError)
	binary := flags.String("xdirector", "bin/xdirector", "`PATH` of the binary")
	repetitions := flags.Int("n", 10, "how often each change is made")
	asJSON := flags.Bool("json", false, "print the results as JSON too")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *repetitions < 1 {
		return errors.New("-n must be 1 or more")
	}
	path, err := filepath.Abs(*binary) // the directors run in folders of their own
	if err != nil {
		return err
	}
	b, err := newBench(ctx, path)
	if err != nil {
		return err
	}
	defer b.lab.Close()
	for range *repetitions {
		if err := b.round(ctx); err != nil {
			return err
		}
	}
	results := b.results()
	if err := printTable(out, results); err != nil || !*asJSON {
		return err
	}
	encoder := json.NewEncoder(out)
	encoder.SetIndent("", "  ")
	return encoder.Encode(map[string]any{"failover": results})
}

// bench is the running lab. d1 has the higher priority.
type bench struct {
	lab    *lab.Lab
	wire   *lab.Wire
	d1, d2 *lab.Director
	cases  []*sample
}

// sample is what all repetitions of one change cost.
type sample struct {
	name             string
	promise          time.Duration // of the outage; 0: none at all
	takeover, outage []time.Duration
	requests         int
	failed, reset    int
}

func newBench(ctx context.Context, binary string) (_ *bench, err error) {
	l, err := lab.New(lab.Options{Directors: 2, RealServers: 3, VIPs: []string{vip}})
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			l.Close()
		}
	}()
	var servers []lab.RealServer
	for _, r := range l.RealServers {
		if _, err := r.StartNginx(80); err != nil {
			return nil, err
		}
		servers = append(servers, lab.RealServer{Address: r.Address})
	}
	b := &bench{lab: l}
	if b.wire, err = l.CaptureVRRP(); err != nil {
		return nil, err
	}
	for i, d := range []**lab.Director{&b.d1, &b.d2} {
		if *d, err = l.NewDirector(l.Directors[i], binary); err != nil {
			return nil, err
		}
		err = (*d).Configure(lab.Config{
			Instances: []lab.Instance{{Version: 3, Priority: uint8(200 - 100*i), Interval: interval, Addresses: []string{vip + "/32"}}},
			Services:  []lab.Service{{Address: vip, Port: 80, Check: "{type: http}", RealServers: servers}},
		})
		if err == nil {
			err = (*d).Start()
		}
		if err != nil {
			return nil, err
		}
	}
	return b, b.d1.WaitState(ctx, "VI_1", "MASTER", patience)
}

// round makes each change once, and returns to d1 as MASTER after each.
func (b *bench) round(ctx context.Context) error {
	vanished := lab.MaxOutage(interval, 100)
	for _, c := range []struct {
		name    string
		promise time.Duration
		change  func() error
		to      *lab.Director
	}{
		{"clean stop", 0, b.d1.Stop, b.d2},
		{"return of the higher priority", 0, b.d1.Start, b.d1},
		{"agent killed", 0, func() error { b.d1.Kill(); return nil }, b.d2},
		{"", 0, b.d1.Start, b.d1},
		{"agent and program gone", vanished, func() error { b.d1.Kill(); return b.d1.DetachAll() }, b.d2},
		{"", 0, b.d1.Start, b.d1},
		{"link down", vanished, func() error { return b.d1.SetLink(false) }, b.d2},
		{"", 0, func() error { return b.d1.SetLink(true) }, b.d1},
	} {
		if c.name == "" {
			if err := errors.Join(c.change(), c.to.WaitState(ctx, "VI_1", "MASTER", patience)); err != nil {
				return err
			}
			continue
		}
		if err := b.measure(ctx, c.name, c.promise, c.change, c.to); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}
	return nil
}

func (b *bench) measure(ctx context.Context, name string, promise time.Duration, change func() error, to *lab.Director) error {
	load, err := b.lab.Client.StartLoad(netip.AddrPortFrom(netip.MustParseAddr(vip), 80), rate, limit)
	if err != nil {
		return err
	}
	begin := time.Now()
	if err := wait(ctx, settle/2); err != nil {
		return err
	}
	at := time.Now()
	if err := change(); err != nil {
		return err
	}
	garp, err := b.wire.WaitAnnouncement(ctx, to.Node, netip.MustParseAddr(vip), at, patience)
	if err != nil {
		return err
	}
	if err := wait(ctx, settle); err != nil {
		return err
	}
	requests := load.Stop()
	last := at
	for _, a := range b.wire.Adverts(begin) {
		if a.Source != to.Address && a.Time.Before(garp.Time) && a.Priority > 0 {
			last = a.Time
		}
	}
	s := b.sample(name, promise)
	s.requests += len(requests)
	s.takeover = append(s.takeover, garp.Time.Sub(last))
	s.outage = append(s.outage, lab.Outage(requests.Between(last, time.Now()), last))
	outcomes := requests.Outcomes()
	s.reset += outcomes[lab.Reset]
	s.failed += len(requests.Failed()) - outcomes[lab.Reset]
	return nil
}

func (b *bench) sample(name string, promise time.Duration) *sample {
	for _, s := range b.cases {
		if s.name == name {
			return s
		}
	}
	s := &sample{name: name, promise: promise}
	b.cases = append(b.cases, s)
	return s
}

func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// result is what one kind of change cost, in milliseconds from the last advert of the old MASTER.
type result struct {
	Change         string  `json:"change"`
	Repetitions    int     `json:"repetitions"`
	TakeoverMedian float64 `json:"takeover_median_ms"` // to the first gratuitous ARP
	TakeoverWorst  float64 `json:"takeover_worst_ms"`
	OutageMedian   float64 `json:"outage_median_ms"` // to the first request that succeeds
	OutageWorst    float64 `json:"outage_worst_ms"`
	Promised       float64 `json:"outage_promised_ms"`
	Requests       int     `json:"requests"`
	Failed         int     `json:"failed"` // not complete in time, or refused
	Reset          int     `json:"reset"`  // connections open at the change
}

func (b *bench) results() []result {
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	var list []result
	for _, s := range b.cases {
		slices.Sort(s.takeover)
		slices.Sort(s.outage)
		n := len(s.outage)
		list = append(list, result{
			Change:         s.name,
			Repetitions:    n,
			TakeoverMedian: ms(s.takeover[n/2]),
			TakeoverWorst:  ms(s.takeover[n-1]),
			OutageMedian:   ms(s.outage[n/2]),
			OutageWorst:    ms(s.outage[n-1]),
			Promised:       ms(s.promise),
			Requests:       s.requests,
			Failed:         s.failed,
			Reset:          s.reset,
		})
	}
	return list
}

func printTable(out io.Writer, results []result) error {
	fmt.Fprintf(out, "VRRPv3, adverts every %v, BACKUP of priority 100, %d new connections per second, each within %v\n", interval, rate, limit)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "ms from the last advert\tn\ttakeover median\tworst\toutage median\tworst\tpromised\trequests\tfailed\treset\t")
	for _, r := range results {
		fmt.Fprintf(w, "%s\t%d\t%.0f\t%.0f\t%.0f\t%.0f\t%.0f\t%d\t%d\t%d\t\n", r.Change, r.Repetitions,
			r.TakeoverMedian, r.TakeoverWorst, r.OutageMedian, r.OutageWorst, r.Promised, r.Requests, r.Failed, r.Reset)
	}
	return w.Flush()
}
