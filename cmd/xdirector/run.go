package main

import (
	"errors"
	"os"
	"os/signal"
	"syscall"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"

	"github.com/xdirector/xdirector/pkg/supervisor"
)

func newRun() *cobra.Command {
	return &cobra.Command{
		Use:   "run",
		Short: "Run the director (what the systemd unit does)",
		Long: `Run the director in the foreground until SIGTERM or SIGINT, which hand over to the other director first.
SIGHUP reloads the configuration. SIGUSR2 replaces the running program by the installed one, without a pause.

Three processes run: this one, which supervises the others; the election; and the agent, which is all the rest.
Either of these two can die and is started again while the other one, and the packets, go on.`,
		Args: noArguments,
		RunE: func(c *cobra.Command, _ []string) error { return run(configFile(c)) },
	}
}

func run(file string) error {
	// First of all: until then a SIGHUP ends the process.
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGUSR2)
	defer signal.Stop(signals)
	log := newLog(os.Stderr)
	defer log.flush()
	err := supervisor.Run(supervisor.Options{
		Version:      version,
		CheckArgs:    []string{"check", "--config", file},
		AgentArgs:    []string{"xdirector", agentCommand, "--config", file},
		ElectionArgs: []string{"xdirector", electionCommand},
		Realtime:     true,
		Signals:      signals,
		Notify:       tellSystemd,
		Handler:      log.handler,
		Flush:        log.flush,
	})
	if errors.Is(err, supervisor.ErrShown) {
		return shownError{err}
	}
	return err
}

// tellSystemd tells systemd; without systemd it does nothing.
func tellSystemd(state string) { _, _ = daemon.SdNotify(false, state) }
