package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/xdirector/xdirector/pkg/realserver"
)

func newRealServer() *cobra.Command {
	c := &cobra.Command{
		Use:   "real-server install|remove",
		Short: "Make this box a real server for direct return, or undo that",
		Long: `Make this box a real server: a systemd unit puts the virtual addresses on its loopback interface, and keeps it quiet about
them on the network (arp_ignore, arp_announce), now and after each boot. No director need run here, nor a configuration be.`,
		Example: "  xdirector real-server install --vip 192.168.5.100\n  xdirector doctor --real-server --vip 192.168.5.100\n  xdirector real-server remove",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError{fmt.Errorf("real-server can install or remove, not %q", args[0])}
			}
			return nil
		},
		RunE: func(*cobra.Command, []string) error {
			return usageError{errors.New("real-server needs a word more: install or remove")}
		},
	}
	c.AddCommand(newRealServerInstall(), newRealServerRemove())
	return c
}

// installed is what real-server install --json and remove --json print.
type installed struct {
	Unit    string   `json:"unit"`
	VIPs    []string `json:"vips,omitempty"`
	Changed bool     `json:"changed"`
}

func newRealServerInstall() *cobra.Command {
	var texts []string
	c := &cobra.Command{
		Use:   "install --vip ADDRESS",
		Short: "Write and start the systemd unit that holds the virtual addresses on lo",
		Long: `Write and start the systemd unit that holds the virtual addresses on lo, and sets arp_ignore and arp_announce. The list is the
whole list: addresses of an earlier install that are not in it are taken away. The same list again changes nothing.`,
		Args: noArguments,
	}
	c.Flags().StringSliceVar(&texts, "vip", nil, "virtual `ADDRESS`; several times, or with commas")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if len(texts) == 0 {
			return usageError{errors.New("install needs --vip ADDRESS, a virtual address of the director")}
		}
		vips, err := parseVIPs(texts)
		if err != nil {
			return usageError{err}
		}
		changed, err := realserver.Install(realserver.Folder, vips)
		if err != nil {
			return err
		}
		if wantsJSON(c) {
			return printJSON(c.OutOrStdout(), installed{Unit: realserver.Unit, VIPs: texts, Changed: changed})
		}
		what := "runs now and at each boot"
		if !changed {
			what = "ran already, as it should"
		}
		fmt.Fprintf(c.OutOrStdout(), "%s %s, for %s. Is it right? xdirector doctor --real-server --vip %s\n", realserver.Unit, what, strings.Join(texts, ", "), strings.Join(texts, ","))
		return nil
	}
	return c
}

func newRealServerRemove() *cobra.Command {
	return &cobra.Command{
		Use:   "remove",
		Short: "Take the virtual addresses from lo, give the settings back, and remove the unit",
		Args:  noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			removed, err := realserver.Remove(realserver.Folder)
			if err != nil {
				return err
			}
			if wantsJSON(c) {
				return printJSON(c.OutOrStdout(), installed{Unit: realserver.Unit, Changed: removed})
			}
			if removed {
				fmt.Fprintf(c.OutOrStdout(), "%s is removed: addresses and settings are as they were\n", realserver.Unit)
				return nil
			}
			fmt.Fprintf(c.OutOrStdout(), "there is no %s: nothing to remove\n", realserver.Unit)
			return nil
		},
	}
}
