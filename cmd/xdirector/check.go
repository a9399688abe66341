package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/xdirector/xdirector/pkg/config"
)

func newCheck() *cobra.Command {
	return &cobra.Command{
		Use:   "check [FILE]",
		Short: "Validate a configuration file, without looking at this box",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usageError{fmt.Errorf("check takes one file, got %d", len(args))}
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			file := configFile(c)
			if len(args) == 1 {
				file = args[0]
			}
			return check(file, wantsJSON(c), c.OutOrStdout(), c.ErrOrStderr())
		},
	}
}

// verdict is what check --json prints.
type verdict struct {
	File     string           `json:"file"`
	Valid    bool             `json:"valid"`
	Problems []config.Problem `json:"problems"`
	Warnings []config.Problem `json:"warnings"`
}

func check(file string, asJSON bool, stdout, stderr io.Writer) error {
	cfg, err := config.Load(file)
	var problems config.Problems
	if err != nil && !errors.As(err, &problems) {
		return err
	}
	if asJSON {
		v := verdict{File: file, Valid: err == nil, Problems: problems, Warnings: []config.Problem{}}
		if problems == nil {
			v.Problems = []config.Problem{}
		}
		if cfg != nil && cfg.Warnings != nil {
			v.Warnings = cfg.Warnings
		}
		if err := printJSON(stdout, v); err != nil {
			return err
		}
		if !v.Valid {
			return shownError{errors.New("invalid")}
		}
		return nil
	}
	if err != nil {
		return showProblems(err, stderr)
	}
	for _, w := range cfg.Warnings {
		fmt.Fprintln(stderr, "warning: "+w.String())
	}
	fmt.Fprintf(stdout, "%s: valid: %s, %s\n", file, count(len(cfg.Instances), "instance"), count(len(cfg.Services), "service"))
	return nil
}

func count(n int, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return fmt.Sprintf("%d %s", n, noun)
}

func printJSON(w io.Writer, v any) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	return encoder.Encode(v)
}
