package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/spf13/cobra"

	"github.com/xdirector/xdirector/pkg/config"
	"github.com/xdirector/xdirector/pkg/director"
	"github.com/xdirector/xdirector/pkg/ha"
	"github.com/xdirector/xdirector/pkg/supervisor"
)

// agentCommand is the hidden command of the process that `run` starts for all but the election.
const agentCommand = "agent"

func newAgent() *cobra.Command {
	return &cobra.Command{
		Use:    agentCommand,
		Hidden: true,
		Args:   noArguments,
		RunE:   func(c *cobra.Command, _ []string) error { return runAgent(configFile(c), os.Stderr) },
	}
}

func runAgent(file string, stderr io.Writer) error {
	var level slog.LevelVar
	agent, err := supervisor.Connect(&level)
	if err != nil {
		return err
	}
	log := newLog(stderr)
	defer log.flush()
	handler := &switchHandler{}
	d, err := director.New(director.Options{
		ConfigFile: file,
		Version:    version,
		Log:        slog.New(handler),
		Level:      &level,
		Notify:     agent.Notify,
		Election: func(cfg ha.Config) director.Election {
			agent.Configure(cfg)
			return agent
		},
	})
	if err != nil {
		return showProblems(err, stderr)
	}
	handler.Handler = log.handler(d.Config().Log.Format, &level)
	agent.SetFormat(d.Config().Log.Format)
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	go agent.Serve(ctx, cancel, d)
	switch err := d.Run(ctx); {
	case errors.Is(err, supervisor.ErrLeave):
		return nil
	case err != nil:
		slog.New(handler).Error("the director ends", "error", err)
		return shownError{err}
	}
	return nil
}

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
