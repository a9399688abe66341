package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"

	"github.com/xdirector/xdirector/pkg/config"
	"github.com/xdirector/xdirector/pkg/director"
)

func newRun() *cobra.Command {
	return &cobra.Command{
		Use:   "run",
		Short: "Run the director (what the systemd unit does)",
		Long: `Run the director in the foreground until SIGTERM or SIGINT, which hand over to the other director first.
SIGHUP reloads the configuration.`,
		Args: noArguments,
		RunE: func(c *cobra.Command, _ []string) error { return run(c.Context(), configFile(c), c.ErrOrStderr()) },
	}
}

func run(ctx context.Context, file string, stderr io.Writer) error {
	// First of all: until then a SIGHUP ends the process.
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	defer signal.Stop(signals)
	var level slog.LevelVar
	handler := &switchHandler{}
	d, err := director.New(director.Options{
		ConfigFile: file,
		Version:    version,
		Log:        slog.New(handler),
		Level:      &level,
		Notify:     notify,
	})
	if err != nil {
		return showProblems(err, stderr)
	}
	handler.Handler = newHandler(d.Config().Log.Format, &level, stderr)
	log := slog.New(handler)

	finished := make(chan struct{})
	defer close(finished)
	if ctx == nil {
		ctx = context.Background()
	}
	go listen(ctx, d, signals, finished)
	if err := d.Run(ctx); err != nil {
		log.Error("the director ends", "error", err)
		return shownError{err}
	}
	return nil
}

// controlled is what signals do to a director.
type controlled interface {
	Reload(ctx context.Context) error
	Stop()
}

// listen carries signals out until finished is closed. However many SIGHUP come during a reload, one more follows it:
// that reads the file as the last of them left it.
func listen(ctx context.Context, d controlled, signals <-chan os.Signal, finished <-chan struct{}) {
	wanted := make(chan struct{}, 1)
	go func() {
		for {
			select {
			case <-finished:
				return
			case <-wanted:
				_ = d.Reload(ctx) // the director logs the outcome
			}
		}
	}()
	for {
		select {
		case <-finished:
			return
		case s := <-signals:
			if s != syscall.SIGHUP {
				d.Stop()
				continue
			}
			select {
			case wanted <- struct{}{}:
			default:
			}
		}
	}
}

// notify tells systemd; without systemd it does nothing.
func notify(state string) { _, _ = daemon.SdNotify(false, state) }

// showProblems prints the problems of a configuration file as they are, one a line, so that an editor can jump to
// each; any other error is left to main.
func showProblems(err error, stderr io.Writer) error {
	var problems config.Problems
	if !errors.As(err, &problems) {
		return err
	}
	fmt.Fprintln(stderr, problems.Error())
	return shownError{err}
}
