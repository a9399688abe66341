package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/xdirector/xdirector/pkg/config"
)

// shells are those that completions can be printed for.
func shells() []string { return []string{"bash", "zsh", "fish"} }

func newCompletion() *cobra.Command {
	return &cobra.Command{
		Use:   "completion bash|zsh|fish",
		Short: "Print what makes a shell complete the commands, flags and names of xdirector",
		Long: `Print a script that makes a shell complete commands and flags, and names of instances, services and real servers, for which
it asks the running director.

For this shell alone:
  source <(xdirector completion bash)     bash, which needs the package bash-completion
  source <(xdirector completion zsh)      zsh, after autoload -U compinit and compinit
  xdirector completion fish | source      fish

For all shells to come, as root:
  xdirector completion bash >/usr/share/bash-completion/completions/xdirector
  xdirector completion zsh >/usr/local/share/zsh/site-functions/_xdirector
  xdirector completion fish >/usr/share/fish/vendor_completions.d/xdirector.fish`,
		ValidArgs: shells(),
		Args: func(_ *cobra.Command, args []string) error {
			list := strings.Join(shells(), ", ")
			switch {
			case len(args) == 0:
				return usageError{errors.New("completion needs the name of a shell: " + list)}
			case len(args) > 1:
				return usageError{fmt.Errorf("completion takes one shell, got %q too", args[1])}
			case !slices.Contains(shells(), args[0]):
				return usageError{fmt.Errorf("completion: unknown shell %q%s: there are %s", args[0], config.DidYouMean(args[0], shells()), list)}
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			write := map[string]func(io.Writer) error{
				"bash": func(w io.Writer) error { return c.Root().GenBashCompletionV2(w, true) },
				"zsh":  c.Root().GenZshCompletion,
				"fish": func(w io.Writer) error { return c.Root().GenFishCompletion(w, true) },
			}[args[0]]
			if err := write(c.OutOrStdout()); err != nil {
				return fmt.Errorf("print completions of %s: %w", args[0], err)
			}
			return nil
		},
	}
}
