package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/xdirector/xdirector/pkg/config"
	"github.com/xdirector/xdirector/pkg/control"
	"github.com/xdirector/xdirector/pkg/status"
)

// order is a way to sort rates. All but that by name put the most first.
type order struct {
	name string
	key  byte // that chooses it
	of   func(status.Rate) float64
}

func orders() []order {
	return []order{
		{"name", 'n', nil},
		{"packets", 'p', func(r status.Rate) float64 { return r.Packets }},
		{"bytes", 'b', func(r status.Rate) float64 { return r.Bytes }},
		{"new", 'w', func(r status.Rate) float64 { return r.NewFlows }},
		{"flows", 'f', func(r status.Rate) float64 { return float64(r.Flows) }},
		{"active", 'a', func(r status.Rate) float64 { return float64(r.Active) }},
	}
}

func findOrder(name string) (order, error) {
	var names []string
	for _, o := range orders() {
		if o.name == name {
			return o, nil
		}
		names = append(names, o.name)
	}
	return order{}, usageError{fmt.Errorf("top: --sort %q%s: there are %s", name, config.DidYouMean(name, names), strings.Join(names, ", "))}
}

func (o order) compare(a, b status.Rate) int {
	if o.of != nil {
		if c := cmp.Compare(o.of(b), o.of(a)); c != 0 {
			return c
		}
	}
	return cmp.Compare(a.Name, b.Name)
}

func newTop() *cobra.Command {
	var by string
	var period time.Duration
	var once bool
	c := &cobra.Command{
		Use:   "top [NAME...] [--sort KEY] [--interval 1s] [--once]",
		Short: "Show what services and real servers get at the moment, the busiest first",
		Long: `Show what services and real servers get at the moment, the busiest first: packets and bytes a second, new flows a second,
known flows, and those of them that are not closing. With direct return these are the packets of clients; answers don't come
by here. On a terminal it is shown again and again until q or Ctrl-C, and keys sort it: n name, p packets, b bytes, w new
flows, f flows, a active.

With a NAME only services of that name (* and ? stand for letters), or with that virtual address or real server. --once
shows it once, after one interval. --json prints one JSON object a line.`,
		Example: "  xdirector top\n  xdirector top web --sort bytes\n  xdirector top --once --json",
	}
	c.Flags().StringVar(&by, "sort", "packets", "by name, packets, bytes, new, flows or active")
	c.Flags().DurationVar(&period, "interval", time.Second, "`TIME` over which rates are taken, from 1s on")
	c.Flags().BoolVar(&once, "once", false, "show it once")
	c.RunE = func(c *cobra.Command, names []string) error {
		sorted, err := findOrder(by)
		if err != nil {
			return err
		}
		if period < time.Second {
			return usageError{fmt.Errorf("top: --interval %v is below 1s, in which the director counts", period)}
		}
		client, err := clientOf(c)
		if err != nil {
			return err
		}
		m := rates{client: client, names: names, period: period}
		view := live[*load]{
			ask:   m.ask,
			lines: func(l *load) []string { return l.lines(sorted) },
			json:  func(l *load) any { return l.sort(sorted) },
			key: func(key byte) {
				if n := slices.IndexFunc(orders(), func(o order) bool { return o.key == key }); n >= 0 {
					sorted = orders()[n]
				}
			},
			hint: "enlarge the terminal, or name what you want to see: xdirector top NAME",
		}
		if !once {
			return view.run(c)
		}
		l, err := view.ask(context.Background())
		if err != nil {
			return err
		}
		return view.once(c, l, false)
	}
	return c
}

// load is what services get at the moment, as --json prints it.
type load struct {
	Director string               `json:"router_id"`
	Plane    string               `json:"plane"`
	Time     time.Time            `json:"time"`    // when the later counters were read
	Seconds  float64              `json:"seconds"` // over which the rates are taken
	All      status.Rate          `json:"all"`
	Services []status.ServiceRate `json:"services"`
}

// sort sorts services, and the real servers of each.
func (l *load) sort(o order) *load {
	sorted := *l
	sorted.Services = slices.Clone(l.Services)
	for n := range sorted.Services {
		s := &sorted.Services[n]
		s.RealServers = slices.SortedStableFunc(slices.Values(s.RealServers), o.compare)
	}
	slices.SortStableFunc(sorted.Services, func(a, b status.ServiceRate) int { return o.compare(a.Rate, b.Rate) })
	return &sorted
}

// rates takes rates between pictures. Each ask waits until one and a period have gone by.
type rates struct {
	client *control.Client
	names  []string
	period time.Duration
	before *status.Status
}

const (
	countPause = 100 * time.Millisecond // between looks whether counters were read meanwhile
	stillLimit = 10 * time.Second       // in which they are read, if the director turns
)

func (m *rates) ask(ctx context.Context) (*load, error) {
	if m.before == nil {
		s, err := m.client.Status(ctx, m.names...)
		if err != nil {
			return nil, err
		}
		if m.before = s; len(s.Services) == 0 {
			return nil, errors.New("there is no service to show: the configuration has none, or only instances have that name")
		}
	}
	pause(ctx, m.period)
	for began := time.Now(); ; pause(ctx, countPause) {
		s, err := m.client.Status(ctx, m.names...)
		if err != nil {
			return nil, err
		}
		if list, all, ok := status.Rates(m.before, s); ok {
			l := &load{Director: s.RouterID, Plane: s.Plane.Name, Time: s.Measured, Seconds: s.Measured.Sub(m.before.Measured).Seconds(), All: all, Services: list}
			m.before = s
			return l, nil
		}
		if m.before.Measured.IsZero() || s.Measured.Before(m.before.Measured) {
			m.before = s // a director that was started again
		}
		if ctx.Err() != nil || time.Since(began) > stillLimit {
			return nil, fmt.Errorf("the director has read no counters for %v: xdirector status says what is wrong", stillLimit)
		}
	}
}

// lines is the table. Numbers are right-aligned below their heads.
func (l *load) lines(o order) []string {
	l = l.sort(o)
	type row struct {
		name string
		status.Rate
	}
	rows := []row{{"all", l.All}}
	for _, s := range l.Services {
		rows = append(rows, row{s.Label(), s.Rate})
		for _, r := range s.RealServers {
			rows = append(rows, row{"  -> " + r.Label(), r})
		}
	}
	width := 0
	for _, r := range rows {
		width = max(width, len([]rune(r.name)))
	}
	plane := l.Plane
	if plane == "" {
		plane = "no plane"
	}
	lines := []string{
		fmt.Sprintf("Director %s, %s, services by %s, over %.1f s", l.Director, plane, o.name, l.Seconds), "",
		fmt.Sprintf("%-*s  %9s  %9s  %10s  %9s  %9s", width, "Service", "Packets/s", "Bytes/s", "NewFlows/s", "Flows", "Active"),
	}
	for _, r := range rows {
		lines = append(lines, fmt.Sprintf("%-*s  %9s  %9s  %10s  %9s  %9s", width, r.name,
			short(r.Packets), short(r.Bytes), short(r.NewFlows), short(float64(r.Flows)), short(float64(r.Active))))
	}
	return lines
}

// short writes a number in at most six characters: 0, 0.4, 12, 1234, 56.7k, 8.9M.
func short(n float64) string {
	switch {
	case n == 0:
		return "0"
	case n < 10 && n != float64(int(n)):
		return fmt.Sprintf("%.1f", n)
	case n < 9999.5:
		return fmt.Sprintf("%.0f", n)
	}
	for _, unit := range []string{"k", "M", "G", "T"} {
		if n /= 1000; n < 999.95 {
			return fmt.Sprintf("%.1f%s", n, unit)
		}
	}
	return fmt.Sprintf("%.0fT", n)
}
