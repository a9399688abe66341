package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/xdirector/xdirector/pkg/config"
	"github.com/xdirector/xdirector/pkg/director"
	"github.com/xdirector/xdirector/pkg/notify"
)

func newTestNotify() *cobra.Command {
	return &cobra.Command{
		Use:   "test-notify [TARGET]...",
		Short: "Tell everybody in notify that this is a test, and see what happens",
		Long: `Tell every target of notify in the configuration file, or those that are named, that this is a test, once and at once, and
print what each answered. The running director has no part in it. Commands get the state TEST, and XDIRECTOR_TEST=1 in their
environment. The commands of instances, sync groups, services and real servers are run only if they are named, like
"instance VI_1 master": a script that is made for one state would do what it does. Ends with 1 if a target could not be told.`,
		ValidArgsFunction: func(c *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
			cfg, err := config.Load(configFile(c))
			if err != nil {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return targetNames(director.Notifications(cfg)), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(c *cobra.Command, names []string) error {
			ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			return testNotify(ctx, configFile(c), names, wantsJSON(c), c.OutOrStdout(), c.ErrOrStderr())
		},
	}
}

func targetNames(targets []notify.Target) []string {
	var list []string
	for _, t := range targets {
		list = append(list, t.Name)
	}
	return list
}

func testNotify(ctx context.Context, file string, names []string, asJSON bool, stdout, stderr io.Writer) error {
	cfg, err := config.Load(file)
	if err != nil {
		return showProblems(err, stderr)
	}
	targets, err := chosen(director.Notifications(cfg), names)
	if err != nil {
		return err
	}
	outcomes := notify.Test(ctx, director.RouterID(cfg), targets)
	if asJSON {
		if err := printJSON(stdout, outcomes); err != nil {
			return err
		}
	} else {
		printOutcomes(stdout, outcomes)
	}
	failed := 0
	for _, o := range outcomes {
		if !o.OK {
			failed++
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d of %s could not be told", failed, count(len(outcomes), "target"))
	}
	return nil
}

// chosen are the targets that are named, or without names all that may be tested so.
func chosen(targets []notify.Target, names []string) ([]notify.Target, error) {
	if len(names) == 0 {
		list := slices.DeleteFunc(slices.Clone(targets), func(t notify.Target) bool { return t.Name != t.Label })
		switch {
		case len(list) == 0 && len(targets) > 0:
			return nil, fmt.Errorf("there is nothing in notify of the configuration, only commands of their own; name one to run it: %s", some(targetNames(targets)))
		case len(list) == 0:
			return nil, errors.New("nobody is told anything: there is no notify in the configuration")
		}
		return list, nil
	}
	var list []notify.Target
	for _, name := range names {
		i := slices.IndexFunc(targets, func(t notify.Target) bool { return t.Name == name })
		switch {
		case i < 0 && len(targets) == 0:
			return nil, fmt.Errorf("there is no target %q: there is no notify in the configuration", name)
		case i < 0:
			return nil, fmt.Errorf("there is no target %q%s; there are %s", name, config.DidYouMean(name, targetNames(targets)), some(targetNames(targets)))
		}
		list = append(list, targets[i])
	}
	return list, nil
}

// some lists names, so many as anybody wants to read.
func some(names []string) string {
	const most = 10
	if len(names) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
	}
	return strings.Join(names, ", ")
}

func printOutcomes(w io.Writer, outcomes []notify.Outcome) {
	width := 0
	for _, o := range outcomes {
		width = max(width, len(o.Target))
	}
	for _, o := range outcomes {
		word := "ok"
		if !o.OK {
			word = "FAILED"
		}
		fmt.Fprintf(w, "%-6s  %-*s  %-7s  %s (%s)\n", word, width, o.Target, o.Kind, o.Text, o.Took.Round(time.Millisecond))
	}
}
