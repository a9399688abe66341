package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/xdirector/xdirector/pkg/status"
)

// completeTime is how long a shell waits for names: a director that is slow to answer gives none.
const completeTime = 500 * time.Millisecond

// completer lists what may stand next on a command line, each with a word about it behind a tab.
type completer func(c *cobra.Command, args []string, begun string) []string

// addCompletions says what the arguments and flags of each command can be. A command that isn't named takes none, or
// knows by itself.
func addCompletions(root *cobra.Command) {
	arguments := map[string]completer{
		"status": fromStatus(names), "top": fromStatus(services),
		"drain": first(fromStatus(realServers)), "undrain": first(fromStatus(drainedServers)), "weight": weighed,
		"failover": first(fromStatus(instances)), "explain": second(fromStatus(endpoints)),
	}
	files := map[string]bool{"check": true, "plan": true, "convert": true}
	flags := map[string]completer{
		"kinds": kindList, "instance": fromStatus(instances), "service": fromStatus(services),
		"sort": func(*cobra.Command, []string, string) []string { return orderNames() },
	}
	for _, f := range []string{"deadline", "for", "interval", "duration", "confirm", "history", "count", "rate", "filter", "interface", "config-id"} {
		flags[f] = nothing
	}
	for _, c := range allCommands(root) {
		if complete := arguments[c.Name()]; complete != nil {
			c.ValidArgsFunction = complete.function
		} else if !files[c.Name()] && !c.HasSubCommands() && c.ValidArgs == nil && c.ValidArgsFunction == nil {
			c.ValidArgsFunction = cobra.NoFileCompletions
		}
		for name, complete := range flags {
			if c.Flags().Lookup(name) != nil {
				_ = c.RegisterFlagCompletionFunc(name, complete.function) // the flag is there
			}
		}
	}
}

// allCommands are those below c, at any depth.
func allCommands(c *cobra.Command) (list []*cobra.Command) {
	for _, below := range c.Commands() {
		list = append(append(list, below), allCommands(below)...)
	}
	return list
}

func (complete completer) function(c *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
	return complete(c, args, begun), cobra.ShellCompDirectiveNoFileComp
}

func nothing(*cobra.Command, []string, string) []string { return nil }

// fromStatus completes with what a picture of the running director has; nobody answers: nothing.
func fromStatus(list func(*status.Status) []string) completer {
	return func(c *cobra.Command, _ []string, _ string) []string {
		client, err := clientOf(c)
		if err != nil {
			return nil
		}
		ctx, cancel := context.WithTimeout(context.Background(), completeTime)
		defer cancel()
		s, err := client.Status(ctx)
		if err != nil {
			return nil
		}
		return list(s)
	}
}

// first completes the first argument alone.
func first(complete completer) completer { return nth(0, complete) }

// second completes the second argument alone.
func second(complete completer) completer { return nth(1, complete) }

func nth(n int, complete completer) completer {
	return func(c *cobra.Command, args []string, begun string) []string {
		if len(args) != n {
			return nil
		}
		return complete(c, args, begun)
	}
}

func weighed(c *cobra.Command, args []string, begun string) []string {
	if len(args) == 1 {
		return []string{"default\tthe configured weight"}
	}
	return first(fromStatus(realServers))(c, args, begun)
}

func names(s *status.Status) []string { return append(instances(s), services(s)...) }

func instances(s *status.Status) (list []string) {
	for _, i := range s.Instances {
		list = append(list, fmt.Sprintf("%s\tinstance, %s", i.Name, i.State))
	}
	return list
}

func services(s *status.Status) (list []string) {
	for _, v := range s.Services {
		list = append(list, fmt.Sprintf("%s\tservice, %s %s", v.Name, v.Protocol, v.Endpoint()))
	}
	return list
}

func realServers(s *status.Status) (list []string) {
	for _, v := range s.Services {
		for _, r := range v.RealServers {
			state := "down"
			if r.Up {
				state = "up"
			}
			list = append(list, fmt.Sprintf("%s/%s\t%s, weight %d", v.Name, r.Address, state, r.Weight))
		}
	}
	return list
}

// drainedServers are the real servers that are drained, or all if none is.
func drainedServers(s *status.Status) (list []string) {
	for _, o := range s.Overrides {
		if o.Kind == status.KindDrain {
			list = append(list, o.Name()+"\tdrained")
		}
	}
	if len(list) == 0 {
		return realServers(s)
	}
	return list
}

func endpoints(s *status.Status) (list []string) {
	for _, v := range s.Services {
		if v.FirewallMark == 0 && v.Port != 0 {
			list = append(list, fmt.Sprintf("%s\t%s, %s", v.Endpoint(), v.Name, v.Protocol))
		}
	}
	return list
}

// kindList completes the last of several kinds with commas between.
func kindList(_ *cobra.Command, _ []string, begun string) (list []string) {
	before := begun[:strings.LastIndexByte(begun, ',')+1]
	for _, kind := range append([]string{"all"}, status.Kinds...) {
		if kind == "all" && before != "" {
			continue
		}
		list = append(list, before+kind)
	}
	return list
}

func orderNames() (list []string) {
	for _, o := range orders() {
		list = append(list, o.name)
	}
	return list
}
