package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"time"

	"github.com/spf13/cobra"

	"github.com/xdirector/xdirector/pkg/config"
	"github.com/xdirector/xdirector/pkg/control"
)

// answerTime is how long a command waits for the daemon.
const answerTime = 30 * time.Second

// ask runs question with a client of the daemon that the configuration names. The file may be invalid at the
// moment: the daemon may run with an older one.
func ask(c *cobra.Command, question func(context.Context, *control.Client) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), answerTime)
	defer cancel()
	client, err := clientOf(c)
	if err != nil {
		return err
	}
	return question(ctx, client)
}

// clientOf returns a client of the daemon that the configuration names. Who may open the socket need not be permitted to
// read that file, which may hold passwords: then it is the usual socket.
func clientOf(c *cobra.Command) (*control.Client, error) {
	socket, err := config.ControlSocket(configFile(c))
	if errors.Is(err, fs.ErrPermission) && !c.Flags().Changed("config") {
		socket, err = config.DefaultSocket, nil
	}
	if err != nil {
		return nil, err
	}
	return control.NewClient(socket), nil
}

func newVersion() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			if wantsJSON(c) {
				return printJSON(c.OutOrStdout(), map[string]string{"version": version, "go": runtime.Version()})
			}
			fmt.Fprintf(c.OutOrStdout(), "xdirector %s (%s, %s/%s)\n", version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return nil
		},
	}
}
