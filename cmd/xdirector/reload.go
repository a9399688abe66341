package main

import (
	"context"
	"errors"
	"fmt"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/xdirector/xdirector/pkg/config"
	"github.com/xdirector/xdirector/pkg/control"
)

func newReload() *cobra.Command {
	var trial time.Duration
	c := &cobra.Command{
		Use:   "reload [--confirm 30s]",
		Short: "Have the running director read its configuration file again",
		Long: `Have the running director read its configuration file again. A file that is invalid, or that changes what only a restart can
change, is refused with all reasons, and everything goes on as it was. What the file leaves as it is, is not touched. See
xdirector plan for what would change.

With --confirm the new configuration is watched for that time. The old one comes back at once, and the command ends with 1
and the reason, if for a second something is lost that was served before: a service that had real servers has none that is live;
an instance that was MASTER or BACKUP is in FAULT; the director is not healthy, for example since the plane could not be
updated. It comes back as well if the command ends before the time is over: by Ctrl-C, with the operator's session, or when
its terminal no longer answers for five seconds, as when the reload has cut off the operator. The file stays as it is: correct
it, or the next start will read it.`,
		Args: func(c *cobra.Command, args []string) error {
			if err := noArguments(c, args); err != nil {
				return err
			}
			if c.Flags().Changed("confirm") && (trial < time.Second || trial > control.TrialMax) {
				return usageError{fmt.Errorf("reload: --confirm %s is not within 1s and %s", trial, control.TrialMax)}
			}
			return nil
		},
		RunE: func(c *cobra.Command, _ []string) error {
			if trial > 0 {
				return reloadOnTrial(c, trial)
			}
			return ask(c, func(ctx context.Context, client *control.Client) error {
				if err := client.Reload(ctx); err != nil {
					return err
				}
				return printReloaded(c, "reloaded")
			})
		},
	}
	c.Flags().DurationVar(&trial, "confirm", 0, "bring the old configuration back if the new one costs something within this `TIME`, such as 30s")
	return c
}

func reloadOnTrial(c *cobra.Command, trial time.Duration) error {
	socket, err := config.ControlSocket(configFile(c))
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(c.Context(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	if !wantsJSON(c) {
		fmt.Fprintf(c.ErrOrStderr(), "on trial for %s: Ctrl-C brings the old configuration back\n", trial)
	}
	ctx, hangUp := context.WithCancelCause(ctx)
	defer hangUp(nil)
	restore := operatorPresent(ctx, min(answerLimit, max(trial/2, askEvery)), hangUp)
	err = control.NewClient(socket).ReloadOnTrial(ctx, trial)
	restore()
	if errors.Is(err, control.ErrCanceled) {
		why := errInterrupted
		if errors.Is(context.Cause(ctx), errSilent) {
			why = errSilent
		}
		return fmt.Errorf("%w: the old configuration is in force again (xdirector status)", why)
	}
	if err != nil {
		return err
	}
	return printReloaded(c, fmt.Sprintf("reloaded; nothing was lost within %s", trial))
}

func printReloaded(c *cobra.Command, text string) error {
	if wantsJSON(c) {
		return printJSON(c.OutOrStdout(), map[string]bool{"reloaded": true})
	}
	fmt.Fprintln(c.OutOrStdout(), text)
	return nil
}
