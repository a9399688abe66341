package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/xdirector/xdirector/pkg/control"
)

func newUndrain() *cobra.Command {
	return &cobra.Command{
		Use:   "undrain SERVICE/REAL_SERVER",
		Short: "Give a real server new flows again",
		Long: `Take a drain back: the real server gets new flows as its weight says, with slow_start first a few and then more. Flows that
the drain's deadline has sent elsewhere stay there.`,
		Args: func(_ *cobra.Command, args []string) error {
			_, err := serverArgument("undrain", args)
			return err
		},
		RunE: func(c *cobra.Command, args []string) error {
			server, err := serverArgument("undrain", args)
			if err != nil {
				return err
			}
			return ask(c, func(ctx context.Context, client *control.Client) error {
				order, err := client.Undrain(ctx, server.service, server.address)
				if err != nil {
					return err
				}
				text := fmt.Sprintf("%s gets new flows again, with the weight %d", order.Name(), order.Weight)
				if !order.Changed {
					text = fmt.Sprintf("%s was not drained; its weight is %d", order.Name(), order.Weight)
				}
				return printServerOrder(c, order, text)
			})
		},
	}
}

func newWeight() *cobra.Command {
	return &cobra.Command{
		Use:   "weight SERVICE/REAL_SERVER N|default",
		Short: "Give a real server another weight than the configured one",
		Long: `Give a real server another weight than the configured one, from 0 to 65535, until told otherwise; default takes that back. With
0 it gets no new flows, and those that it has go on. This survives reload, restart and upgrade of the service, but not a
reboot. It is about this director alone: tell the others as well.`,
		Args: func(_ *cobra.Command, args []string) error {
			_, _, err := weightArguments(args)
			return err
		},
		RunE: func(c *cobra.Command, args []string) error {
			server, weight, err := weightArguments(args)
			if err != nil {
				return err
			}
			return ask(c, func(ctx context.Context, client *control.Client) error {
				order, err := client.Weight(ctx, server.service, server.address, weight)
				if err != nil {
					return err
				}
				name := order.Name()
				switch {
				case weight == nil && order.Changed:
					return printServerOrder(c, order, fmt.Sprintf("%s has its configured weight again, %d", name, order.ConfiguredWeight))
				case weight == nil:
					return printServerOrder(c, order, fmt.Sprintf("%s had its configured weight, %d", name, order.ConfiguredWeight))
				}
				return printServerOrder(c, order, fmt.Sprintf("%s has the weight %d instead of %d\nuntil told otherwise: xdirector weight %s default", name, *weight, order.ConfiguredWeight, name))
			})
		},
	}
}

// printServerOrder prints what has become of a real server.
func printServerOrder(c *cobra.Command, order control.ServerOrder, text string) error {
	if wantsJSON(c) {
		return printJSON(c.OutOrStdout(), struct {
			control.ServerOrder
			Text string `json:"text"`
		}{order, text})
	}
	warnOf(c, order.Warning)
	fmt.Fprintln(c.OutOrStdout(), text)
	return nil
}

func warnOf(c *cobra.Command, warning string) {
	if warning != "" && !wantsJSON(c) {
		fmt.Fprintln(c.ErrOrStderr(), "warning: "+warning)
	}
}

// named is a real server as commands name it.
type named struct {
	service string
	address netip.Addr
}

// serverArgument reads SERVICE/REAL_SERVER, the only argument of a command.
func serverArgument(command string, args []string) (named, error) {
	example := "xdirector " + command + " web/192.168.5.103"
	switch len(args) {
	case 0:
		return named{}, usageError{fmt.Errorf("%s needs a service and a real server, as status shows them: %s", command, example)}
	case 1:
	default:
		return named{}, usageError{fmt.Errorf("%s takes one real server, got %q too", command, args[1])}
	}
	service, server, ok := strings.Cut(args[0], "/")
	if !ok || service == "" {
		return named{}, usageError{fmt.Errorf("%s: %q is not SERVICE/REAL_SERVER: write it like %s", command, args[0], example)}
	}
	address, err := netip.ParseAddr(server)
	if err != nil {
		hint := ""
		if _, err := netip.ParseAddrPort(server); err == nil {
			hint = " alone, without a port"
		}
		return named{}, usageError{fmt.Errorf("%s: real server %q: write its address%s, like %s", command, server, hint, example)}
	}
	return named{service, address}, nil
}

// weightArguments reads SERVICE/REAL_SERVER and a weight; nil: the configured one.
func weightArguments(args []string) (named, *uint16, error) {
	if len(args) == 0 {
		return named{}, nil, usageError{errors.New("weight needs a real server and its weight: xdirector weight web/192.168.5.103 5")}
	}
	if len(args) > 2 {
		return named{}, nil, usageError{fmt.Errorf("weight takes a real server and its weight, got %q too", args[2])}
	}
	server, err := serverArgument("weight", args[:1])
	if err != nil {
		return server, nil, err
	}
	if len(args) == 1 {
		return server, nil, usageError{errors.New("weight: a weight of 0 to 65535 is missing, or default")}
	}
	if args[1] == "default" {
		return server, nil, nil
	}
	n, err := strconv.ParseUint(args[1], 10, 16)
	if err != nil {
		return server, nil, usageError{fmt.Errorf("weight: %q is not a weight: write 0 to 65535, or default", args[1])}
	}
	weight := uint16(n)
	return server, &weight, nil
}
