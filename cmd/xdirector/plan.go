package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/xdirector/xdirector/pkg/config"
	"github.com/xdirector/xdirector/pkg/control"
	"github.com/xdirector/xdirector/pkg/status"
)

func newPlan() *cobra.Command {
	return &cobra.Command{
		Use:   "plan [FILE]",
		Short: "Show what a reload would change, and what it would interrupt",
		Long: `Compare the configuration file with the configuration that the running director has in force: + is added, - removed, ~ changed,
and ! marks what clients would notice. Nothing is changed. With FILE that one is compared, which need not be where the director
reads its own. The exit code is 1 if a reload would be refused, or there is no director.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usageError{fmt.Errorf("plan takes one file, got %d", len(args))}
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			return ask(c, func(ctx context.Context, client *control.Client) error { return plan(ctx, c, client, args) })
		},
	}
}

func plan(ctx context.Context, c *cobra.Command, client *control.Client, args []string) error {
	var name string
	var text []byte
	if len(args) == 1 {
		name = args[0]
		_, content, err := config.LoadText(name)
		if content == nil {
			return err
		}
		if err != nil {
			return showPlan(c, invalid(name, err))
		}
		text = content
	}
	p, err := client.Plan(ctx, name, text)
	if err != nil {
		return err
	}
	if own, err := filepath.Abs(configFile(c)); name == "" && err == nil && !sameFile(own, p.File) {
		fmt.Fprintf(c.ErrOrStderr(), "note: the running director reads %s; for this one: xdirector plan %s\n", p.File, own)
	}
	return showPlan(c, p)
}

// invalid is the plan for a file with mistakes.
func invalid(name string, err error) *status.Plan {
	p := &status.Plan{File: name, Problems: []string{}, Warnings: []string{}, Refused: []string{}, Changes: []status.Change{}}
	var problems config.Problems
	if errors.As(err, &problems) {
		for _, problem := range problems {
			p.Problems = append(p.Problems, problem.String())
		}
	}
	return p
}

func sameFile(a, b string) bool {
	first, err := os.Stat(a)
	if err != nil {
		return false
	}
	second, err := os.Stat(b)
	return err == nil && os.SameFile(first, second)
}

func showPlan(c *cobra.Command, p *status.Plan) error {
	if wantsJSON(c) {
		if err := printJSON(c.OutOrStdout(), p); err != nil {
			return err
		}
	} else {
		for _, line := range p.Problems {
			fmt.Fprintln(c.ErrOrStderr(), line)
		}
		for _, line := range p.Warnings {
			fmt.Fprintln(c.ErrOrStderr(), "warning: "+line)
		}
		if err := p.Text(c.OutOrStdout()); err != nil {
			return err
		}
	}
	if !p.Applies() {
		return shownError{errors.New("a reload would be refused")}
	}
	return nil
}
