package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/xdirector/xdirector/pkg/control"
)

func newMaintenance() *cobra.Command {
	return &cobra.Command{
		Use:   "maintenance on|off",
		Short: "Take this box out of all elections, or back into them",
		Long: `Take this box out of all elections: every instance hands over to another director and stays in FAULT until maintenance is
off, even if nobody else holds its addresses. This survives reload, restart and upgrade of the service, but not a
reboot. Real servers are checked, and packets that still arrive are forwarded, as always.`,
		ValidArgs: []string{"on", "off"},
		Args: func(_ *cobra.Command, args []string) error {
			switch {
			case len(args) == 0:
				return usageError{errors.New("maintenance takes on or off")}
			case len(args) > 1 || args[0] != "on" && args[0] != "off":
				return usageError{fmt.Errorf("maintenance takes on or off, got %q", args[len(args)-1])}
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			return ask(c, func(ctx context.Context, client *control.Client) error {
				return maintain(ctx, c, client, args[0] == "on")
			})
		},
	}
}

func maintain(ctx context.Context, c *cobra.Command, client *control.Client, on bool) error {
	heard := map[string]string{}
	if before, err := client.Status(ctx); err == nil && on {
		hear(before, heard)
	}
	order, err := client.Maintenance(ctx, on)
	if err != nil {
		return err
	}
	headline := "maintenance is on: this box takes part in no election, until: xdirector maintenance off"
	if !on {
		headline = "maintenance is off: this box takes part in all elections"
		order.HandoverLimit = 0 // one that something else keeps in FAULT is not waited for
	}
	standings, done := watch(client, order, heard, func(s standing) bool { return (s.State == "FAULT") == on })
	for i := range standings {
		s := &standings[i]
		s.Text = tell(*s)
		if on && s.Master == "" {
			s.Text = fmt.Sprintf("%s is %s now, and no other director was heard to take over", s.Name, s.State)
			if !order.Changed {
				s.Text = fmt.Sprintf("%s is %s", s.Name, s.State)
			}
		}
	}
	if !wantsJSON(c) {
		fmt.Fprintln(c.OutOrStdout(), headline)
	}
	if err := printOrder(c, ordered{order, done || !on, standings}); err != nil || wantsJSON(c) {
		return err
	}
	if on && !done {
		return errors.New("not every instance has handed over yet: see xdirector status")
	}
	return nil
}
