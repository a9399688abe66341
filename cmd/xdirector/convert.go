package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/xdirector/xdirector/pkg/config"
	"github.com/xdirector/xdirector/pkg/doctor"
	"github.com/xdirector/xdirector/pkg/keepalived"
)

func newConvert() *cobra.Command {
	strict, id := false, ""
	c := &cobra.Command{
		Use:   "convert FILE",
		Short: "Turn a keepalived.conf into a configuration, and say what became of each line",
		Long: `Turn a keepalived.conf, with what it includes, into a configuration on standard output.

Standard error has a line for each line of the input that is not plainly converted:

  FILE:LINE: KEYWORD [VALUE]: converted|not needed|unsupported: REASON

Nothing is changed on this box. See docs/migration.md for the way from keepalived, one director after the other.`,
		Example: `  xdirector convert /etc/keepalived/keepalived.conf >config.yaml
  xdirector check config.yaml`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usageError{fmt.Errorf("convert takes one file, got %d", len(args))}
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			if id == "" {
				id = shortHostName()
			}
			folder, err := os.Getwd()
			if err != nil {
				return fmt.Errorf("find the current folder: %w", err)
			}
			options := keepalived.Options{Folder: folder, ConfigID: id}
			return convert(os.DirFS("/"), args[0], options, strict, wantsJSON(c), c.OutOrStdout(), c.ErrOrStderr())
		},
	}
	c.Flags().BoolVar(&strict, "strict", false, "fail (exit 1, nothing on standard output) if anything is unsupported")
	c.Flags().StringVar(&id, "config-id", "", "convert for the director `ID`: keepalived's -i, for lines that begin with @ID (default the host name)")
	return c
}

// shortHostName is keepalived's config-id: the host name up to its first dot.
func shortHostName() string {
	name, err := os.Hostname()
	if err != nil {
		return ""
	}
	name, _, _ = strings.Cut(name, ".")
	return name
}

// conversion is what convert --json prints.
type conversion struct {
	File  string            `json:"file"`
	YAML  string            `json:"yaml"`
	Lines []keepalived.Line `json:"lines"` // every line of the input, the blank ones too
	// Warnings are packet rules of this box that services on XDP are not held to, each with what says the same.
	Warnings []string `json:"warnings"`
}

// bypassed says which packet rules of this box the configuration's services would be past. It is told to who may read
// the rules, and to nobody else: the file may be of another box.
func bypassed(yaml []byte) []string {
	warnings := []string{}
	cfg, err := config.Parse("converted", yaml)
	if err != nil {
		return warnings
	}
	ctx, cancel := context.WithTimeout(context.Background(), answerTime)
	defer cancel()
	findings, _ := doctor.Bypassed(ctx, cfg)
	for _, f := range findings {
		warnings = append(warnings, f.What+": "+f.Why)
	}
	return warnings
}

func convert(root fs.FS, file string, options keepalived.Options, strict, asJSON bool, stdout, stderr io.Writer) error {
	result, err := keepalived.Convert(root, file, options)
	nothing := errors.Is(err, keepalived.ErrNothing)
	if err != nil && !nothing {
		return err
	}
	for _, l := range result.Report() {
		if asJSON {
			break
		}
		fmt.Fprintln(stderr, l)
	}
	refused := strict && result.Unsupported() > 0
	if asJSON {
		if err := printJSON(stdout, conversion{File: file, YAML: string(result.YAML), Lines: result.Lines, Warnings: bypassed(result.YAML)}); err != nil {
			return err
		}
	} else if !nothing && !refused {
		if _, err := stdout.Write(result.YAML); err != nil {
			return fmt.Errorf("write the configuration: %w", err)
		}
		for _, w := range bypassed(result.YAML) {
			fmt.Fprintln(stderr, "warning: "+w)
		}
	}
	switch {
	case nothing:
		return fmt.Errorf("convert %s: %w", file, err)
	case refused:
		return fmt.Errorf("convert %s: unsupported: %s (--strict)", file, count(result.Unsupported(), "line"))
	}
	return nil
}
