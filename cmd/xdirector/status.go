package main

import (
	"bytes"
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/xdirector/xdirector/pkg/status"
)

// watchPeriod is how often what is watched is looked at; the director makes a new picture as often, or when something changes.
const watchPeriod = time.Second

func newStatus() *cobra.Command {
	var watched bool
	c := &cobra.Command{
		Use:   "status [NAME...] [--watch]",
		Short: "Show instances, services and real servers of the running director",
		Long: `Show the whole picture of the running director: instances and who is MASTER, services as ipvsadm -Ln lists them, with the
state of each real server, what operators have changed, and a warning for everything that asks for attention.

With a NAME only the instances and services of that name (* and ? stand for letters), or with that virtual address or real
server. --watch shows it again every second, until q or Ctrl-C. With --json it is the answer of GET /v1/status; with
--watch too, one a line.`,
		Example: "  xdirector status\n  xdirector status web\n  xdirector status 'shop-*' VI_1\n  xdirector status 192.168.5.103 --watch",
	}
	c.Flags().BoolVarP(&watched, "watch", "w", false, "show it again every second")
	c.RunE = func(c *cobra.Command, names []string) error {
		client, err := clientOf(c)
		if err != nil {
			return err
		}
		view := live[*status.Status]{
			period: watchPeriod,
			ask:    func(ctx context.Context) (*status.Status, error) { return client.Status(ctx, names...) },
			lines: func(s *status.Status) []string {
				var text bytes.Buffer
				s.Text(&text) // a buffer takes everything
				return splitLines(text.String())
			},
			json: func(s *status.Status) any { return s },
			hint: "enlarge the terminal, or name what you want to see: xdirector status --watch NAME",
		}
		if watched {
			return view.run(c)
		}
		s, err := view.ask(context.Background())
		if err != nil {
			return err
		}
		if wantsJSON(c) {
			return printJSON(c.OutOrStdout(), s)
		}
		return view.once(c, s, false)
	}
	return c
}
