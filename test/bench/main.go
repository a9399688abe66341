// Command bench measures what a packet costs, in nanoseconds per run of the XDP program, beside a program that only
// swaps the MAC addresses. It needs root.
//
// All cases run in turn, round by round, on one CPU, so that a busy machine slows all of them alike. What is measured
// is the whole run, and net of the driver and of the bare program: trust ratios more than nanoseconds.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"

	"golang.org/x/sys/unix"
)

const noPreemption = "asyncpreemptoff=1" // signals would cut the kernel's loop short

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(args []string, out io.Writer) error {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	asJSON := flags.Bool("json", false, "print the results as JSON too")
	rounds := flags.Int("rounds", 11, "how often each case is measured")
	repeat := flags.Int("repeat", 500_000, "packets per measurement")
	tableSize := flags.Uint("flow-table-size", 1<<21, "flows in the table")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *rounds < 1 || *repeat < 1 {
		return errors.New("-rounds and -repeat must be 1 or more")
	}
	if os.Geteuid() != 0 {
		return errors.New("needs root, to load BPF programs")
	}
	if !strings.Contains(os.Getenv("GODEBUG"), noPreemption) {
		return again()
	}
	runtime.LockOSThread()
	var one unix.CPUSet
	one.Set(runtime.NumCPU() - 1)
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		return fmt.Errorf("stay on one CPU: %w", err)
	}
	results, err := measure(*rounds, *repeat, uint32(*tableSize))
	if err != nil {
		return err
	}
	if err := printTable(out, results); err != nil || !*asJSON {
		return err
	}
	encoder := json.NewEncoder(out)
	encoder.SetIndent("", "  ")
	return encoder.Encode(map[string]any{"packets": results})
}

// again starts this program once more, with the one runtime setting that can't be changed later.
func again() error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find own program: %w", err)
	}
	setting := noPreemption
	if set := os.Getenv("GODEBUG"); set != "" {
		setting += "," + set
	}
	if err := os.Setenv("GODEBUG", setting); err != nil {
		return err
	}
	return fmt.Errorf("start again with GODEBUG=%s: %w", setting, unix.Exec(self, os.Args, os.Environ()))
}

// result is what one case took, in nanoseconds per packet.
type result struct {
	Case      string  `json:"case"`
	Rounds    int     `json:"rounds"`
	Min       int64   `json:"min_ns"`
	Median    int64   `json:"median_ns"`
	NetMin    int64   `json:"net_min_ns"` // less the bare program
	NetMedian int64   `json:"net_median_ns"`
	Ratio     float64 `json:"ratio"` // median to the bare program's
}

// summarize expects the bare program's times first.
func summarize(names []string, times [][]int64) []result {
	var results []result
	for i, name := range names {
		sorted := slices.Sorted(slices.Values(times[i]))
		results = append(results, result{Case: name, Rounds: len(sorted), Min: sorted[0], Median: sorted[len(sorted)/2]})
	}
	bare := results[0]
	for i := range results {
		r := &results[i]
		r.NetMin, r.NetMedian = r.Min-bare.Min, r.Median-bare.Median
		r.Ratio = float64(r.Median) / float64(max(bare.Median, 1))
	}
	return results
}

func printTable(out io.Writer, results []result) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "ns per packet\tmin\tmedian\tnet min\tnet median\tto bare\t")
	for _, r := range results {
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t%.1fx\t\n", r.Case, r.Min, r.Median, r.NetMin, r.NetMedian, r.Ratio)
	}
	return w.Flush()
}
