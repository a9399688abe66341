package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/xdirector/xdirector/pkg/control"
	"github.com/xdirector/xdirector/pkg/status"
)

func newDrain() *cobra.Command {
	var deadline time.Duration
	var wait bool
	c := &cobra.Command{
		Use:   "drain SERVICE/REAL_SERVER [--deadline 10m] [--wait]",
		Short: "Give a real server no new flows, while those that it has go on",
		Long: `Give a real server no new flows until undrain; those that it has go on. With --deadline, flows that are left then are
scheduled afresh on their next packet. A client that persistence binds to the real server goes on to it, too. This
survives reload, restart and upgrade of the service, but not a reboot. It is about this director alone: tell the others
as well.

With --wait the command ends when no flow is left; one is until it has timed out, also after its end. Exit code 1: flows
were left at the deadline, or somebody took the drain back.`,
		Args: func(_ *cobra.Command, args []string) error {
			_, err := serverArgument("drain", args)
			return err
		},
	}
	c.Flags().DurationVar(&deadline, "deadline", 0, "flows may go on for this `TIME` (10m, 90s)")
	c.Flags().BoolVar(&wait, "wait", false, "wait until no flow is left, or for the deadline")
	c.RunE = func(c *cobra.Command, args []string) error {
		if c.Flags().Changed("deadline") && deadline <= 0 {
			return usageError{fmt.Errorf("drain: --deadline %v is not above 0: write a time such as 10m", deadline)}
		}
		server, err := serverArgument("drain", args)
		if err != nil {
			return err
		}
		return ask(c, func(ctx context.Context, client *control.Client) error {
			order, err := client.Drain(ctx, server.service, server.address, deadline)
			if err != nil {
				return err
			}
			d := drainage{order: order, client: client}
			if wait {
				return d.wait(c)
			}
			return d.print(c)
		})
	}
	return c
}

const (
	drainPause = 250 * time.Millisecond // between two looks at the director
	countTime  = 3 * time.Second        // in which the director counts flows anew, unless there are very many
)

// drained is what --json prints of a drain.
type drained struct {
	control.ServerOrder
	Done   bool    `json:"done"`             // with --wait: no flow is left
	Flows  *uint64 `json:"flows,omitempty"`  // left; absent: not counted yet
	Active *uint64 `json:"active,omitempty"` // those of them that are not closing
	Text   string  `json:"text"`
}

// drainage looks at a drain that the director obeys.
type drainage struct {
	order  control.ServerOrder
	client *control.Client
	left   *status.Override // when flows were counted last; nil: not since the drain
}

// look returns the drain as the director sees it; nil: it does no longer.
func (d *drainage) look(ctx context.Context) (*status.Override, error) {
	s, err := d.client.Status(ctx)
	if err != nil {
		return nil, err
	}
	for _, o := range s.Overrides {
		if o.Kind == status.KindDrain && o.Name() == d.order.Name() {
			if s.Counted.After(d.order.InForce) && !o.Over {
				d.left = &o
			}
			return &o, nil
		}
	}
	return nil, nil
}

// text is how many flows are left, in words.
func (d *drainage) text() string {
	if d.left == nil {
		return "an unknown number of flows"
	}
	return d.left.Left()
}

// print says what is so as soon as the flows are counted.
func (d *drainage) print(c *cobra.Command) error {
	ctx, cancel := context.WithTimeout(context.Background(), countTime)
	defer cancel()
	for d.left == nil && ctx.Err() == nil {
		if _, err := d.look(ctx); err == nil && d.left == nil {
			pause(ctx, drainPause)
		}
	}
	warnOf(c, d.order.Warning)
	name := d.order.Name()
	text := fmt.Sprintf("%s gets no new flows: %s left\nuntil told otherwise: xdirector undrain %s", name, d.text(), name)
	if !d.order.Deadline.IsZero() {
		text = fmt.Sprintf("%s gets no new flows: %s left; at %s they are scheduled afresh\nuntil told otherwise: xdirector undrain %s",
			name, d.text(), d.order.Deadline.Local().Format(time.DateTime), name)
	}
	return d.tell(c, true, text)
}

// wait ends when no flow is left, or when it is certain that some will be. A director that is being restarted is waited for.
func (d *drainage) wait(c *cobra.Command) error {
	name, began := d.order.Name(), time.Now()
	progress := onTerminal(c)
	warnOf(c, d.order.Warning)
	answered, shown := began, time.Time{}
	for {
		o, err := d.look(context.Background())
		took := time.Since(began).Round(time.Second)
		switch {
		case err != nil && time.Since(answered) > answerTime:
			return err
		case err != nil:
		case o == nil:
			return d.fail(c, fmt.Sprintf("%s is no longer drained: somebody took that back, or the configuration has it no longer; %s left after %s", name, d.text(), took))
		case o.Over:
			return d.fail(c, fmt.Sprintf("the deadline of draining %s is over: %s left; they are scheduled afresh", name, d.text()))
		case d.left != nil && d.left.Flows == 0:
			return d.tell(c, true, fmt.Sprintf("%s is drained: no flow is left after %s\nuntil told otherwise: xdirector undrain %s", name, took, name))
		}
		if err == nil {
			answered = time.Now()
		}
		if progress != nil && time.Since(shown) >= time.Second {
			shown = time.Now()
			fmt.Fprintf(progress, "%s: %s left after %s\n", name, d.text(), took)
		}
		pause(context.Background(), drainPause)
	}
}

func (d *drainage) fail(c *cobra.Command, text string) error {
	if !wantsJSON(c) {
		return fmt.Errorf("%s", text)
	}
	if err := d.tell(c, false, text); err != nil {
		return err
	}
	return shownError{fmt.Errorf("%s", text)}
}

func (d *drainage) tell(c *cobra.Command, done bool, text string) error {
	if wantsJSON(c) {
		result := drained{ServerOrder: d.order, Done: done, Text: text}
		if d.left != nil {
			result.Flows, result.Active = &d.left.Flows, &d.left.Active
		}
		return printJSON(c.OutOrStdout(), result)
	}
	fmt.Fprintln(c.OutOrStdout(), text)
	return nil
}

// onTerminal is where progress is shown; nil: nobody looks.
func onTerminal(c *cobra.Command) io.Writer {
	out, ok := c.OutOrStdout().(*os.File)
	if !ok || wantsJSON(c) || !term.IsTerminal(int(out.Fd())) {
		return nil
	}
	return out
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
