package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/xdirector/xdirector/pkg/config"
	"github.com/xdirector/xdirector/pkg/ha"
	"github.com/xdirector/xdirector/pkg/ipvs"
	"github.com/xdirector/xdirector/pkg/supervisor"
	"github.com/xdirector/xdirector/pkg/xdp"
)

func newCleanup() *cobra.Command {
	return &cobra.Command{
		Use:   "cleanup",
		Short: "Remove what a director that is gone has left: addresses, routes, programs, IPVS services",
		Long: `Remove the virtual addresses, routes, XDP programs and IPVS services that a director of this configuration has
left behind, as state_dir and dataplane.pin_path record them. What others have made is not touched. It is refused while
the director runs. The systemd unit calls it when the director can't be started.`,
		Args: noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			return cleanup(configFile(c), wantsJSON(c), c.OutOrStdout(), c.ErrOrStderr())
		},
	}
}

// cleaned is what cleanup --json prints.
type cleaned struct {
	Clean    bool     `json:"clean"` // nothing is left
	StateDir string   `json:"state_dir"`
	PinPath  string   `json:"pin_path"`
	Errors   []string `json:"errors"`
}

// cleanup goes on after a failure: what can be removed is.
func cleanup(file string, asJSON bool, stdout, stderr io.Writer) error {
	places, err := config.PlacesOf(file)
	if err != nil {
		return err
	}
	lock, err := supervisor.Lock(places.StateDir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // without a state_dir nothing is recorded; programs may be there
		return err
	}
	defer lock.Close()
	log := slog.New(newHandler("", slog.LevelInfo, stderr))
	var errs []error
	// Addresses first: while they are here and nothing forwards, every packet would be answered by a reset.
	for _, step := range []func() error{
		func() error { return ha.Cleanup(places.StateDir, log) },
		func() error { return xdp.Cleanup(places.PinPath) },
		func() error { return ipvs.Cleanup(filepath.Join(places.StateDir, "ipvs.json"), log) },
	} {
		if err := step(); err != nil {
			errs = append(errs, err)
		}
	}
	if asJSON {
		c := cleaned{Clean: len(errs) == 0, StateDir: places.StateDir, PinPath: places.PinPath, Errors: []string{}}
		for _, err := range errs {
			c.Errors = append(c.Errors, err.Error())
		}
		if err := printJSON(stdout, c); err != nil {
			return err
		}
		if !c.Clean {
			return shownError{errors.Join(errs...)}
		}
		return nil
	}
	if len(errs) == 0 {
		fmt.Fprintf(stdout, "nothing of a director is left: state_dir %s, pin_path %s\n", places.StateDir, places.PinPath)
	}
	return errors.Join(errs...)
}
