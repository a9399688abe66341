package status

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
)

// Text writes the whole picture for a terminal: the instances, the plane, the services as ipvsadm -Ln lists them,
// and a line "warning: ..." for everything that an operator should look at. It returns the error of the write.
func (s *Status) Text(w io.Writer) error {
	var out bytes.Buffer
	fmt.Fprintf(&out, "Director %s, xdirector %s, up %s, %s\n", plain(s.RouterID), plain(s.Version), s.age(s.Started), s.health())
	if s.Plane.Name != "" {
		fmt.Fprintf(&out, "Plane %s: %s\n", s.Plane.Name, plain(s.Plane.Reason))
	}
	if len(s.Instances) > 0 {
		s.instances(&out)
	}
	if len(s.Services) > 0 {
		s.services(&out)
	}
	if warnings := s.warnings(); len(warnings) > 0 {
		out.WriteString("\n")
		for _, line := range warnings {
			fmt.Fprintf(&out, "warning: %s\n", line)
		}
	}
	_, err := w.Write(out.Bytes())
	return err
}

func (s *Status) health() string {
	switch {
	case s.Stopping:
		return "stopping"
	case s.Healthy:
		return "healthy"
	}
	return "NOT HEALTHY"
}

func (s *Status) instances(out io.Writer) {
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprint(t, "\nInstance\tInterface\tVRID\tVersion\tState\tSince\tPriority\tMaster\tAddresses\n")
	for _, i := range s.Instances {
		fmt.Fprintf(t, "%s\t%s\t%d\t%d\t%s\t%s\t%d\t%s\t%s\n", plain(i.Name), plain(i.Interface), i.VirtualRouterID, i.Version,
			i.State, s.age(i.Since), i.Priority, i.master(), strings.Join(i.Addresses, " "))
	}
	t.Flush()
	for _, i := range s.Instances {
		if i.Reason != "" {
			fmt.Fprintf(out, "  %s is %s: %s\n", plain(i.Name), i.State, plain(i.Reason))
		}
	}
}

// master says who answers for the addresses.
func (i Instance) master() string {
	switch {
	case i.State == "MASTER":
		return "this box"
	case i.Master == "":
		return "not known"
	}
	return fmt.Sprintf("%s (priority %d)", i.Master, i.MasterPriority)
}

// services prints the table of ipvsadm -Ln, with flows in place of connections and with the state of the real server,
// which ipvsadm doesn't know. The rows of all services are aligned together, and the services' own lines, which have no
// columns, are put between them afterwards.
func (s *Status) services(out io.Writer) {
	var table bytes.Buffer
	t := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	fmt.Fprint(t, "  -> RemoteAddress:Port\tForward\tWeight\tFlows\tNewFlows\tState\n")
	for _, v := range s.Services {
		for _, r := range v.RealServers {
			fmt.Fprintf(t, "  -> %s\tRoute\t%d\t%d\t%d\t%s\n", r.endpoint(), r.Weight, r.Flows, r.FlowsCreated, s.server(r))
		}
	}
	t.Flush()
	row := func() { line, _ := table.ReadString('\n'); io.WriteString(out, line) }
	io.WriteString(out, "\nProt LocalAddress:Port Scheduler Flags\n")
	row()
	for _, v := range s.Services {
		fmt.Fprintln(out, v.line())
		for range v.RealServers {
			row()
		}
	}
}

func (v Service) line() string {
	line := fmt.Sprintf("%-4s %s %s", strings.ToUpper(v.Protocol), v.endpoint(), v.Scheduler)
	if v.Persistence > 0 {
		line += fmt.Sprintf(" persistent %d", v.Persistence/time.Second)
	}
	return line + fmt.Sprintf(" (%s, %s)", plain(v.Name), v.Plane.Name)
}

func (v Service) endpoint() string    { return net.JoinHostPort(v.Address, strconv.Itoa(int(v.Port))) }
func (r RealServer) endpoint() string { return net.JoinHostPort(r.Address, strconv.Itoa(int(r.Port))) }

func (s *Status) server(r RealServer) string {
	state := "up"
	if !r.Up {
		state = "DOWN"
	}
	if r.Up && r.Weight == 0 {
		state = "up, drained"
	}
	if !r.Since.IsZero() {
		state += " " + s.age(r.Since)
	}
	if r.Reason != "" {
		state += ": " + plain(r.Reason)
	}
	return state
}

func (s *Status) warnings() []string {
	var all []string
	add := func(format string, args ...any) { all = append(all, plain(fmt.Sprintf(format, args...))) }
	if !s.Healthy && !s.Stopping {
		add("not healthy: %s", s.Unhealthy)
	}
	if !s.Reload.Success {
		add("the configuration file was refused, the one of %s is in use:", clock(s.Reload.Time))
		for line := range strings.Lines(s.Reload.Error) {
			add("  %s", strings.TrimRight(line, "\r\n"))
		}
	}
	for _, difference := range s.Plane.Differences {
		add("%s: %s", s.Plane.Name, difference)
	}
	for _, i := range s.Instances {
		for _, m := range i.Mismatches {
			add("%s: %s", i.Name, m.Text)
		}
	}
	for _, v := range s.Services {
		if v.Plane.Name != s.Plane.Name {
			add("%s: forwarded by %s, not by %s: %s", v.Name, v.Plane.Name, s.Plane.Name, v.Plane.Reason)
		}
		up := 0
		for _, r := range v.RealServers {
			if r.Up {
				up++
			}
			if r.NextHopError != "" {
				add("%s: %s can't be reached: %s", v.Name, r.endpoint(), r.NextHopError)
			}
		}
		if up == 0 {
			add("%s: no real server is up, so that new connections to %s are refused", v.Name, v.endpoint())
		}
	}
	return all
}

// age says how long before the picture a moment was, in its two largest units: 3d4h, 2h5m, 1m30s, 12s.
func (s *Status) age(moment time.Time) string {
	if moment.IsZero() {
		return "-"
	}
	seconds := max(0, int(s.Time.Sub(moment)/time.Second))
	switch {
	case seconds < 60:
		return fmt.Sprintf("%ds", seconds)
	case seconds < 3600:
		return fmt.Sprintf("%dm%ds", seconds/60, seconds%60)
	case seconds < 86400:
		return fmt.Sprintf("%dh%dm", seconds/3600, seconds/60%60)
	}
	return fmt.Sprintf("%dd%dh", seconds/86400, seconds/3600%24)
}

func clock(t time.Time) string {
	if t.IsZero() {
		return "an unknown time"
	}
	return t.Format("2006-01-02 15:04:05")
}

// plain replaces what could move the cursor or break the table: names and reasons may hold bytes that another box
// has sent.
func plain(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, text)
}
