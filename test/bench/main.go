// Command bench measures what a packet costs, in nanoseconds per run of the XDP program, beside a program that only
// swaps the MAC addresses. It needs root.
//
// All cases run in turn, round by round, on one CPU, so that a busy machine slows all of them alike. What is measured
// is the whole run, and net of the driver and of the bare program: trust ratios more than nanoseconds.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"

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
	rounds := flags.Int("rounds", 7, "how often each case is measured")
	packets := flags.Int("packets", 1_000_000, "packets per measurement")
	only := flags.String("only", "packets,scale,live,flood,flows,apply,memory", "these `PARTS`; instructions is for a machine that counts them")
	binary := flags.String("xdirector", "bin/xdirector", "`PATH` of the binary")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *rounds < 1 || *packets < 1 {
		return errors.New("-rounds and -packets must be 1 or more")
	}
	if os.Geteuid() != 0 {
		return errors.New("needs root, to load BPF programs")
	}
	if !strings.Contains(os.Getenv("GODEBUG"), noPreemption) {
		return again()
	}
	runtime.LockOSThread()
	if err := pin(runtime.NumCPU() - 1); err != nil {
		return err
	}
	var r report
	known := false
	for _, part := range []struct {
		name string
		run  func() error
	}{
		{"packets", func() error { return r.measurePackets(*rounds, *packets) }},
		{"scale", func() error { return r.measureScale(*rounds, *packets) }},
		{"flood", func() error { return r.measureFlood(*rounds, *packets) }},
		{"flows", r.measureFlows},
		{"apply", func() error { return r.measureApply(*rounds) }},
		{"memory", func() error { return r.measureMemory(*binary) }},
		{"instructions", r.measureInstructions},
		{"live", func() error { return r.measureLive(*rounds) }},
	} {
		if !slices.Contains(strings.Split(*only, ","), part.name) {
			continue
		}
		known = true
		if err := part.run(); err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
	}
	if !known {
		return fmt.Errorf("-only %s: none of the parts", *only)
	}
	return r.print(out, *asJSON)
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
