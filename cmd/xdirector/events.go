package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/xdirector/xdirector/pkg/config"
	"github.com/xdirector/xdirector/pkg/control"
	"github.com/xdirector/xdirector/pkg/status"
)

func newEvents() *cobra.Command {
	var q control.EventQuery
	c := &cobra.Command{
		Use:   "events [--history N] [--kinds KIND,...] [--instance NAME] [--service NAME] [--follow=false]",
		Short: "Show what changes, as it happens",
		Long: `Show what changes, one line each, as it happens: states of instances, real servers, planes, what operators command,
reloads. First come those of the newest that are remembered: --history says how many. It ends with Ctrl-C, and outlives a
restart or an upgrade of the service.

Kinds: ` + strings.Join(status.Kinds, ", ") + `.
Results of checks (check) are shown only if asked for; --kinds all is every kind. --json prints one JSON object a line.`,
		Args: noArguments,
	}
	c.Flags().StringSliceVar(&q.Kinds, "kinds", nil, "only these `KINDS`, separated by commas; all is every kind (all but check)")
	c.Flags().StringArrayVar(&q.Instances, "instance", nil, "only what is about the instance `NAME`; may be repeated")
	c.Flags().StringArrayVar(&q.Services, "service", nil, "only what is about the service `NAME` or its real servers; may be repeated")
	c.Flags().IntVar(&q.History, "history", 10, "begin with so many remembered events, of at most 1000")
	c.Flags().BoolVar(&q.Follow, "follow", true, "go on with those that come; false: end after the remembered ones")
	c.RunE = func(c *cobra.Command, _ []string) error {
		var err error
		if q.Kinds, err = kinds(q.Kinds); err != nil {
			return err
		}
		if q.History < 0 {
			return usageError{fmt.Errorf("events: --history %d is below 0", q.History)}
		}
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
		defer stop()
		return showEvents(ctx, c, q)
	}
	return c
}

// kinds are those to show; none: all.
func kinds(wanted []string) ([]string, error) {
	for _, kind := range wanted {
		switch {
		case kind == "all" && len(wanted) == 1:
			return nil, nil
		case !slices.Contains(status.Kinds, kind):
			return nil, usageError{fmt.Errorf("events: unknown kind %q%s: there are %s, and all", kind, config.DidYouMean(kind, status.Kinds), strings.Join(status.Kinds, ", "))}
		}
	}
	if len(wanted) > 0 {
		return wanted, nil
	}
	return slices.DeleteFunc(slices.Clone(status.Kinds), func(kind string) bool { return kind == status.KindCheck }), nil
}

// returnPause is between two attempts to go on with a stream.
const returnPause = 500 * time.Millisecond

// showEvents prints events until ctx ends. A director that goes away is waited for: it is being restarted, as a rule.
func showEvents(ctx context.Context, c *cobra.Command, q control.EventQuery) error {
	client, err := clientOf(c)
	if err != nil {
		return err
	}
	out, paint := c.OutOrStdout(), painter(c.OutOrStdout())
	encoder := json.NewEncoder(out)
	reached, waiting := false, false
	for {
		var write error
		err := client.Events(ctx, q, func(e status.Event) error {
			reached, waiting = true, false
			if q.After = max(q.After, e.ID); q.After > 0 {
				q.History = 0
			}
			if wantsJSON(c) {
				write = encoder.Encode(e)
			} else {
				_, write = fmt.Fprintln(out, paint.event(e))
			}
			return write
		})
		reached = reached || errors.Is(err, control.ErrEnded)
		switch {
		case ctx.Err() != nil, errors.Is(write, syscall.EPIPE):
			return nil
		case err == nil || !reached || write != nil:
			return err
		case !waiting:
			waiting = true
			fmt.Fprintf(c.ErrOrStderr(), "%v; waiting for it\n", err)
		}
		pause(ctx, returnPause)
	}
}
