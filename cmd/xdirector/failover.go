package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/xdirector/xdirector/pkg/control"
	"github.com/xdirector/xdirector/pkg/status"
)

func newFailover() *cobra.Command {
	var span time.Duration
	var off bool
	c := &cobra.Command{
		Use:   "failover INSTANCE [--for 10m | --off]",
		Short: "Have an instance leave MASTER to another director, for a time or until --off",
		Long: `Have an instance hand over to any other director and stay BACKUP, for a time (--for) or until told otherwise (--off).
It becomes MASTER again only if nobody else is. All instances of a sync group go together. This survives reload, restart
and upgrade of the service, but not a reboot.

Exit code 1: no other director took over. The instance stays MASTER then, and hands over as soon as one takes part.`,
		Args: func(_ *cobra.Command, args []string) error {
			switch len(args) {
			case 0:
				return usageError{errors.New("failover needs the name of an instance, as status shows it: xdirector failover VI_1")}
			case 1:
				return nil
			}
			return usageError{fmt.Errorf("failover takes one instance, got %q too", args[1])}
		},
	}
	c.Flags().DurationVar(&span, "for", 0, "take part as configured again after this `TIME` (10m, 90s)")
	c.Flags().BoolVar(&off, "off", false, "take part as configured again now")
	c.RunE = func(c *cobra.Command, args []string) error {
		switch timed := c.Flags().Changed("for"); {
		case timed && off:
			return usageError{errors.New("failover takes --for or --off, not both")}
		case timed && span <= 0:
			return usageError{fmt.Errorf("failover: --for %v is not above 0: write a time such as 10m", span)}
		}
		return ask(c, func(ctx context.Context, client *control.Client) error {
			if off {
				return takeBack(ctx, c, client, args[0])
			}
			return failOver(ctx, c, client, args[0], span)
		})
	}
	return c
}

// standing is what became of an instance, as --json prints it.
type standing struct {
	Name   string `json:"name"`
	State  string `json:"state"`
	Master string `json:"master"` // empty: not known
	Reason string `json:"reason"` // of the state
	Text   string `json:"text"`
}

// ordered is what --json prints of a command to the elections.
type ordered struct {
	control.Order
	Done      bool       `json:"done"` // what was asked for is so
	Standings []standing `json:"standings"`
}

func failOver(ctx context.Context, c *cobra.Command, client *control.Client, instance string, span time.Duration) error {
	order, err := client.Failover(ctx, instance, span)
	if err != nil {
		return err
	}
	standings, done := watch(client, order, nil, func(s standing) bool {
		return s.State == "BACKUP" && s.Master != "" || s.State == "FAULT" || s.State == "INIT"
	})
	var stays []string
	for i := range standings {
		s := &standings[i]
		if s.State == "MASTER" {
			stays = append(stays, s.Name)
		}
		s.Text = tell(*s)
	}
	again := fmt.Sprintf("xdirector failover %s --off", instance)
	if err := printOrder(c, ordered{order, done, standings}); err != nil || wantsJSON(c) {
		return err
	}
	switch {
	case len(stays) > 0:
		return fmt.Errorf("no other director took over: %s stays MASTER, and hands over as soon as one takes part; to take that back: %s",
			strings.Join(stays, ", "), again)
	case !done:
		return fmt.Errorf("nobody is known to be MASTER yet: see xdirector status; to take the failover back: %s", again)
	case order.Until.IsZero():
		fmt.Fprintf(c.OutOrStdout(), "until told otherwise: %s\n", again)
	default:
		fmt.Fprintf(c.OutOrStdout(), "until %s, or: %s\n", order.Until.Local().Format("2006-01-02 15:04:05"), again)
	}
	return nil
}

func takeBack(ctx context.Context, c *cobra.Command, client *control.Client, instance string) error {
	order, err := client.Return(ctx, instance)
	if err != nil {
		return err
	}
	standings, _ := watch(client, order, nil, func(standing) bool { return true })
	for i := range standings {
		s := &standings[i]
		s.Text = s.Name + " takes part as configured again. " + tell(*s)
		if !order.Changed {
			s.Text = s.Name + " was not told to fail over. " + tell(*s)
		}
	}
	return printOrder(c, ordered{order, true, standings})
}

// printOrder prints what became of the instances, and fails if that is not what was asked for.
func printOrder(c *cobra.Command, o ordered) error {
	if wantsJSON(c) {
		if err := printJSON(c.OutOrStdout(), o); err != nil {
			return err
		}
		if !o.Done {
			return shownError{errors.New("not done")}
		}
		return nil
	}
	if o.Warning != "" {
		fmt.Fprintln(c.ErrOrStderr(), "warning: "+o.Warning)
	}
	if o.Group != "" {
		fmt.Fprintf(c.OutOrStdout(), "sync group %s goes together: %s\n", o.Group, strings.Join(o.Instances, ", "))
	}
	for _, s := range o.Standings {
		if s.State != "MASTER" || o.Done {
			fmt.Fprintln(c.OutOrStdout(), s.Text)
		}
	}
	return nil
}

// tell says who is MASTER of an instance, in plain words. In FAULT it hears nobody.
func tell(s standing) string {
	switch {
	case s.State == "MASTER":
		return s.Name + " is MASTER"
	case s.Master != "":
		return fmt.Sprintf("%s is %s now, %s is MASTER", s.Name, s.State, s.Master)
	case s.State == "BACKUP":
		return s.Name + " is BACKUP now, and no other director is known to be MASTER"
	}
	return fmt.Sprintf("%s is %s: %s", s.Name, s.State, s.Reason)
}

// watchPause is between two looks at the director.
const watchPause = 50 * time.Millisecond

// watch looks at the instances of an order until all are as wanted, or it is certain that they won't be. A director that
// is being restarted meanwhile is waited for. heard is who was MASTER by the last BACKUP that heard him.
func watch(client *control.Client, order control.Order, heard map[string]string, wanted func(standing) bool) (list []standing, done bool) {
	ctx, cancel := context.WithTimeout(context.Background(), max(order.HandoverLimit, time.Second))
	defer cancel()
	if heard == nil {
		heard = map[string]string{}
	}
	ticker := time.NewTicker(watchPause)
	defer ticker.Stop()
	for {
		if s, err := client.Status(ctx); err == nil {
			list, done = standings(s, order.Instances, heard), true
			for _, one := range list {
				done = done && wanted(one)
			}
			if done {
				return list, true
			}
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return list, false
		}
	}
}

func standings(s *status.Status, instances []string, heard map[string]string) []standing {
	hear(s, heard)
	var list []standing
	for _, i := range s.Instances {
		if !slices.Contains(instances, i.Name) {
			continue
		}
		one := standing{Name: i.Name, State: i.State, Master: heard[i.Name], Reason: i.Reason}
		if i.State == "MASTER" {
			one.Master = i.Master
		}
		list = append(list, one)
	}
	return list
}

// hear notes which other director is MASTER of what.
func hear(s *status.Status, heard map[string]string) {
	for _, i := range s.Instances {
		if i.State == "BACKUP" && i.Master != "" && i.Master != i.Source {
			heard[i.Name] = i.Master
		}
	}
}
