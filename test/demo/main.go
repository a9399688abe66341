// Command demo shows xdirector to a newcomer: two directors, three nginx real servers and a client in network
// namespaces of this machine, a live table, and four switches from one director to the other. It needs root and
// leaves nothing behind. Its last line is the result; it exits with 1 if a switch cost more than promised.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

func main() {
	binary := flag.String("xdirector", "bin/xdirector", "path of the xdirector binary")
	flag.Parse()
	if err := demo(*binary); err != nil {
		if !errors.Is(err, errCost) { // the last line is the result, which says it
			fmt.Fprintln(os.Stderr, "demo:", err)
		}
		os.Exit(1)
	}
}

// demo owns everything that has to be undone, so that main can exit.
func demo(binary string) error {
	if os.Geteuid() != 0 {
		return errors.New("network namespaces and BPF need root: run it as root")
	}
	binary, err := filepath.Abs(binary)
	if err != nil {
		return err
	}
	if _, err := os.Stat(binary); err != nil {
		return fmt.Errorf("find xdirector: %w: build it with make", err)
	}
	// SIGPIPE too: `make demo | head` must not leave the lab standing.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE)
	defer stop()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go watchParent(ctx, cancel)

	err = play(ctx, binary)
	if ctx.Err() != nil {
		return errors.New("interrupted; everything is removed again")
	}
	return err
}

// watchParent ends the demo when the `go run` that started it is gone: a SIGTERM to that reaches nobody else.
func watchParent(ctx context.Context, cancel func()) {
	parent := os.Getppid()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if os.Getppid() != parent {
				cancel()
				return
			}
		}
	}
}
