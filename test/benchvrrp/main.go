// Command benchvrrp measures the election beside keepalived's, in the same run and in turn: what the loss or the change of
// the MASTER costs a client, what many virtual routers cost in CPU and memory, how long a failover of a thousand takes, and
// whether fast adverts stand a busy machine. It needs root.
//
// What is wanted is printed beside what was measured. A shared machine makes single values worse, never better: judge
// medians, and the distance to keepalived.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "benchvrrp:", err)
		os.Exit(1)
	}
}

// options are the flags.
type options struct {
	binary      string
	repetitions int
	intervals   []time.Duration
	sizes       []int
	window      time.Duration // of a measurement of CPU
	changes     []string      // of the MASTER
	busy        time.Duration // of adverts every 10 ms on a busy machine
}

// wants says whether a change was chosen.
func (o options) wants(c change) bool {
	return len(o.changes) == 0 || slices.Contains(o.changes, c.name)
}

// part is one kind of measurement: it returns what goes to the JSON.
type part struct {
	name string
	run  func(context.Context, options, io.Writer) (any, error)
}

func parts() []part {
	return []part{{"outage", measureOutage}, {"cost", measureCost}, {"absorb", measureAbsorb}, {"scale", measureScale}, {"busy", measureBusy}}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("benchvrrp", flag.ContinueOnError)
	var o options
	flags.StringVar(&o.binary, "xdirector", "bin/xdirector", "`PATH` of the binary")
	flags.IntVar(&o.repetitions, "n", 10, "how often each change of the MASTER is made")
	flags.DurationVar(&o.window, "window", 10*time.Second, "how long CPU is measured")
	flags.DurationVar(&o.busy, "busy", time.Minute, "how long adverts every 10 ms must stand a busy machine; the promise is for 10m")
	chosen := flags.String("parts", "outage,cost,absorb,scale,busy", "which measurements")
	intervals := flags.String("intervals", "1s,100ms,10ms", "between adverts, for outage")
	changes := flags.String("changes", "", "which changes of the MASTER, for outage; \"preemption\" needs \"clean stop\" before it; empty: all")
	sizes := flags.String("sizes", "1,255,1000", "numbers of virtual routers, for cost")
	asJSON := flags.Bool("json", false, "print the results as JSON too")
	if err := flags.Parse(args); err != nil {
		return err
	}
	for _, s := range strings.Split(*intervals, ",") {
		d, err := time.ParseDuration(s)
		if err != nil || d < 10*time.Millisecond {
			return fmt.Errorf("-intervals: %q is no duration of 10ms or more", s)
		}
		o.intervals = append(o.intervals, d)
	}
	if *changes != "" {
		o.changes = strings.Split(*changes, ",")
	}
	for _, s := range strings.Split(*sizes, ",") {
		var n int
		if _, err := fmt.Sscan(s, &n); err != nil || n < 1 || n > maxRouters {
			return fmt.Errorf("-sizes: %q is no number from 1 to %d", s, maxRouters)
		}
		o.sizes = append(o.sizes, n)
	}
	if o.repetitions < 1 || o.window <= 0 || o.busy <= 0 {
		return errors.New("-n, -window and -busy must be more than 0")
	}
	if os.Geteuid() != 0 {
		return errors.New("needs root, for network namespaces")
	}
	var err error
	if o.binary, err = filepath.Abs(o.binary); err != nil { // the directors run in folders of their own
		return err
	}
	results := map[string]any{}
	for _, p := range parts() {
		if !slices.Contains(strings.Split(*chosen, ","), p.name) {
			continue
		}
		result, err := p.run(ctx, o, out)
		if err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		results[p.name] = result
	}
	if !*asJSON {
		return nil
	}
	encoder := json.NewEncoder(out)
	encoder.SetIndent("", "  ")
	return encoder.Encode(results)
}

// table prints rows of cells in columns, the first row as a heading.
func table(out io.Writer, title string, rows [][]string) error {
	fmt.Fprintf(out, "\n%s\n", title)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	for _, r := range rows {
		fmt.Fprintln(w, strings.Join(r, "\t")+"\t")
	}
	return w.Flush()
}

// verdict judges a figure by what is wanted.
func verdict(ok bool) string {
	if ok {
		return "ok"
	}
	return "MISSED"
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
