package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/xdirector/xdirector/pkg/config"
	"github.com/xdirector/xdirector/pkg/control"
	"github.com/xdirector/xdirector/pkg/doctor"
)

func newDoctor() *cobra.Command {
	var o doctor.Options
	var vips []string
	var ports []uint
	var gateway string
	c := &cobra.Command{
		Use:   "doctor [--real-server --vip ADDRESS]",
		Short: "Look whether this box, its network card, kernel and firewall are fit for the job",
		Long: `Look at this box, and say of everything that would keep a director from doing its job what it is, why it matters, and the
command that cures it. Nothing is changed, but a few questions (who has this address?) are sent to the network. It
asks for what the configuration needs; without a configuration it looks at the box alone. Run it as root, before the
director is started or beside it.

With --real-server the box is examined as one behind a director, for the virtual addresses that --vip names.
Exit code 0: nothing was found; 1: something was.`,
		Example: "  xdirector doctor\n  xdirector doctor --real-server --vip 192.168.5.100 --port 80 --gateway 192.168.5.254",
		Args:    noArguments,
	}
	c.Flags().BoolVar(&o.RealServer, "real-server", false, "this box is a real server, not a director")
	c.Flags().StringSliceVar(&vips, "vip", nil, "virtual `ADDRESS` of a real server; several times, or with commas")
	c.Flags().UintSliceVar(&ports, "port", nil, "`PORT` of a service of a real server, which its packet rules must let in; several times, or with commas")
	c.Flags().StringVar(&gateway, "gateway", "", "`ADDRESS` of the router that a real server's answers take")
	c.Flags().DurationVar(&o.Listen, "listen", 3*time.Second, "listen to the network for `TIME`; 0s: don't")
	c.RunE = func(c *cobra.Command, _ []string) error {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
		defer stop()
		if err := asked(&o, vips, ports, gateway); err != nil {
			return usageError{err}
		}
		if !o.RealServer {
			if err := loadFor(ctx, c, &o); err != nil {
				return err
			}
		}
		report := doctor.Examine(ctx, o)
		if err := ctx.Err(); err != nil {
			return errors.New("examine this box: interrupted")
		}
		if wantsJSON(c) {
			if err := printJSON(c.OutOrStdout(), report); err != nil {
				return err
			}
		} else {
			printReport(report, c.OutOrStdout())
		}
		if !report.Fit {
			return shownError{errors.New("not fit")}
		}
		return nil
	}
	return c
}

// asked fills in what flags say, or says what is wrong with them.
func asked(o *doctor.Options, vips []string, ports []uint, gateway string) error {
	var err error
	switch {
	case o.Listen < 0:
		return fmt.Errorf("--listen %s is negative", o.Listen)
	case o.RealServer && len(vips) == 0:
		return errors.New("--real-server needs --vip ADDRESS, the virtual address that it serves")
	case !o.RealServer && (len(vips) > 0 || len(ports) > 0 || gateway != ""):
		return errors.New("--vip, --port and --gateway go with --real-server: a director's addresses are in its configuration")
	}
	for _, port := range ports {
		if port == 0 || port > math.MaxUint16 {
			return fmt.Errorf("--port %d is no port: 1 to %d", port, math.MaxUint16)
		}
		o.Ports = append(o.Ports, uint16(port))
	}
	if o.VIPs, err = parseVIPs(vips); err != nil {
		return err
	}
	if gateway != "" {
		if o.Gateway, err = netip.ParseAddr(gateway); err != nil {
			return fmt.Errorf("--gateway %q is no address", gateway)
		}
	}
	return nil
}

// parseVIPs reads virtual addresses; a prefix length of one address is taken for it.
func parseVIPs(texts []string) ([]netip.Addr, error) {
	var all []netip.Addr
	for _, text := range texts {
		a, err := netip.ParseAddr(strings.TrimSpace(text))
		if p, prefixErr := netip.ParsePrefix(text); err != nil && prefixErr == nil && p.IsSingleIP() {
			a, err = p.Addr(), nil
		}
		if err != nil || a.IsUnspecified() || a.IsLoopback() || a.IsMulticast() || a.Zone() != "" {
			return nil, fmt.Errorf("--vip %q is no virtual address: write one IPv4 or IPv6 address", text)
		}
		all = append(all, a.Unmap())
	}
	return all, nil
}

// loadFor reads the configuration, and asks the director that runs with it.
func loadFor(ctx context.Context, c *cobra.Command, o *doctor.Options) error {
	o.File = configFile(c)
	var err error
	o.Config, err = config.Load(o.File)
	var problems config.Problems
	switch {
	case errors.Is(err, fs.ErrNotExist) && !c.Flags().Changed("config"):
		fmt.Fprintf(c.ErrOrStderr(), "xdirector: there is no %s yet, so this box is looked at without it; --config FILE names another one\n", o.File)
		o.Config = nil
		return nil
	case errors.As(err, &problems):
		return showProblems(err, c.ErrOrStderr())
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: only root and the group of the service may read it: sudo xdirector doctor --config %s", err, o.File)
	case err != nil:
		return err
	}
	// Cures are run from anywhere.
	if o.File, err = filepath.Abs(o.File); err != nil {
		return fmt.Errorf("find %s: %w", configFile(c), err)
	}
	if _, err := os.Stat(o.Config.Control.Socket); err != nil {
		return nil
	}
	// No answer is none: then it does not run.
	o.Live, _ = control.NewClient(o.Config.Control.Socket).Status(ctx)
	return nil
}

func printReport(r doctor.Report, w io.Writer) {
	for n, f := range r.Findings {
		fmt.Fprintf(w, "%d. %s\n   Why:  %s.\n", n+1, f.What, f.Why)
		if f.Where != "" {
			fmt.Fprintf(w, "   On:   %s\n", f.Where)
		}
		fmt.Fprintf(w, "   Cure: %s\n\n", f.Command)
	}
	for _, note := range r.Facts {
		fmt.Fprintf(w, "%s: %s\n", note.Probe, note.Text)
	}
	for _, note := range r.Skipped {
		fmt.Fprintf(w, "%s: not looked at: %s\n", note.Probe, note.Text)
	}
	switch blind := slices.DeleteFunc(slices.Clone(r.Skipped), func(n doctor.Note) bool { return n.Wanted }); {
	case r.Fit && len(blind) > 0:
		fmt.Fprintf(w, "Nothing was found, but not all could be looked at: %s.\n", count(len(blind), "probe"))
		return
	case r.Fit:
		fmt.Fprintln(w, "This box is fit: nothing was found.")
		return
	}
	fmt.Fprintf(w, "%s: run each cure and look again.\n", count(len(r.Findings), "finding"))
}
