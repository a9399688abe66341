// Command xdirector is a load-balancing director: it elects by VRRP and forwards by XDP or IPVS.
package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
)

// version is set by the linker.
var version = "dev"

const defaultConfig = "/etc/xdirector/config.yaml"

// The exit codes of every command.
const (
	exitFailed   = 1 // the thing asked for is not so, or failed
	exitWrongUse = 2
)

// usageError is a mistake on the command line.
type usageError struct{ error }

// shownError is a failure whose text is already on stderr.
type shownError struct{ error }

func main() {
	var err error
	used := newRoot()
	if len(os.Args) == 2 && os.Args[1] == electionCommand {
		err = elect()
	} else {
		used, err = used.ExecuteC()
	}
	if err == nil {
		return
	}
	var shown shownError
	var usage usageError
	switch {
	case errors.As(err, &shown):
		os.Exit(exitFailed)
	case errors.As(err, &usage), strings.HasPrefix(err.Error(), "unknown command"):
		fmt.Fprintf(os.Stderr, "xdirector: %s; see %s --help\n", firstLine(err), used.CommandPath())
		os.Exit(exitWrongUse)
	}
	for _, line := range strings.Split(err.Error(), "\n") {
		fmt.Fprintln(os.Stderr, "xdirector: "+line)
	}
	os.Exit(exitFailed)
}

// newRoot makes the command tree.
func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:           "xdirector",
		Short:         "An eBPF-accelerated load-balancing director for Linux",
		SilenceErrors: true,
		SilenceUsage:  true,

		SuggestionsMinimumDistance: 2, // letters
		Args: func(root *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			if near := root.SuggestionsFor(args[0]); len(near) > 0 {
				return usageError{fmt.Errorf("unknown command %q (did you mean %s?)", args[0], strings.Join(near, " or "))}
			}
			return usageError{fmt.Errorf("unknown command %q", args[0])}
		},
		RunE: func(c *cobra.Command, _ []string) error { return usageError{errors.New("a command is missing")} },
	}
	root.CompletionOptions.DisableDefaultCmd = true
	root.PersistentFlags().String("config", defaultConfig, "configuration `FILE`")
	root.PersistentFlags().Bool("json", false, "print JSON")
	root.SetFlagErrorFunc(flagError)
	root.AddCommand(newRun(), newAgent(), newCleanup(), newCheck(), newStatus(), newTop(), newEvents(), newReload(), newPlan(), newFailover(), newMaintenance(), newDrain(), newUndrain(), newWeight(), newExplain(), newCapture(), newConvert(), newTestNotify(), newDoctor(), newRealServer(), newCompletion(), newVersion())
	addCompletions(root)
	return root
}

// noArguments refuses arguments as wrong use.
func noArguments(c *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError{fmt.Errorf("%s takes no argument, got %q", c.Name(), args[0])}
	}
	return nil
}

func configFile(c *cobra.Command) string {
	file, _ := c.Flags().GetString("config") // a persistent flag of the root: it exists
	return file
}

func wantsJSON(c *cobra.Command) bool {
	json, _ := c.Flags().GetBool("json") // likewise
	return json
}

func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}
