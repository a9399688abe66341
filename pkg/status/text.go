package status

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"net"
	"slices"
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
	fmt.Fprintf(&out, "Director %s, xdirector %s, up %s, %s\n", plain(s.RouterID), plain(s.Version), s.Age(s.Started), s.health())
	if s.Plane.Name != "" {
		fmt.Fprintf(&out, "Plane %s: %s\n", s.Plane.Name, plain(s.Plane.Reason))
	}
	if len(s.Instances) > 0 {
		fmt.Fprintln(&out, plain(s.Election.Line()))
		if s.Maintenance {
			out.WriteString("MAINTENANCE: this box takes part in no election, until xdirector maintenance off\n")
		}
		s.instances(&out)
	}
	if len(s.Services) > 0 {
		s.services(&out)
	}
	if len(s.Overrides) > 0 {
		s.overrides(&out)
	}
	if warnings := s.Warnings(); len(warnings) > 0 {
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

// Line is the process that runs the elections, in one line.
func (e Election) Line() string {
	parts := []string{"Election in the agent's process"}
	if e.PID > 0 {
		parts[0] = fmt.Sprintf("Election process %d", e.PID)
	}
	if e.Restarts > 0 {
		parts = append(parts, fmt.Sprintf("restarted %s", times(e.Restarts)))
	}
	if e.FastPath != "" {
		parts = append(parts, "fast path "+e.FastPath)
		if e.FastPathReason != "" {
			parts[len(parts)-1] += " (" + e.FastPathReason + ")"
		}
	}
	if late := e.late(); late != "" {
		parts = append(parts, late)
	}
	return strings.Join(parts, ", ")
}

// late says how late the election was for its own timers, but for the worst thousandth.
func (e Election) late() string {
	var all, so uint64
	for _, n := range e.LatenessCounts {
		all += n
	}
	if all == 0 {
		return ""
	}
	for n, bound := range e.LatenessBounds {
		so += e.LatenessCounts[n]
		if so >= all-all/1000 {
			return fmt.Sprintf("99.9 %% of its timers late by less than %s", time.Duration(bound*float64(time.Second)))
		}
	}
	return fmt.Sprintf("more than one in a thousand of its timers late by more than %s",
		time.Duration(e.LatenessBounds[len(e.LatenessBounds)-1]*float64(time.Second)))
}

func times(n uint64) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}

func (s *Status) instances(out io.Writer) {
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	grouped := slices.ContainsFunc(s.Instances, func(i Instance) bool { return i.SyncGroup != "" })
	row := func(group string, cells ...string) {
		if grouped {
			cells = slices.Insert(cells, 1, group)
		}
		fmt.Fprintln(t, strings.Join(cells, "\t"))
	}
	fmt.Fprintln(t)
	row("Group", "Instance", "Interface", "VRID", "Version", "State", "Since", "Priority", "Master", "Addresses")
	for _, i := range s.Instances {
		row(plain(cmp.Or(i.SyncGroup, "-")), plain(i.Name), plain(i.Interface), strconv.Itoa(int(i.VirtualRouterID)), strconv.Itoa(int(i.Version)),
			i.State, s.Age(i.Since), i.PriorityText(), i.MasterText(), i.AddressesText())
	}
	t.Flush()
	for _, i := range s.Instances {
		if i.Reason != "" {
			fmt.Fprintf(out, "  %s is %s: %s\n", plain(i.Name), i.State, plain(i.Reason))
		}
		if i.Tracked != "" && !strings.Contains(i.Reason, i.Tracked) {
			fmt.Fprintf(out, "  %s, tracked: %s\n", plain(i.Name), plain(i.Tracked))
		}
		if i.Yielding {
			fmt.Fprintf(out, "  %s leaves MASTER to any other director, until xdirector failover %s --off or its time is over\n", plain(i.Name), plain(i.Name))
		}
	}
}

// PriorityText is the priority in use, with the configured one where that is another.
func (i Instance) PriorityText() string {
	if i.ConfiguredPriority == 0 || i.ConfiguredPriority == i.Priority {
		return strconv.Itoa(int(i.Priority))
	}
	return fmt.Sprintf("%d, not %d", i.Priority, i.ConfiguredPriority)
}

// AddressesText lists as many addresses as a line can bear.
func (i Instance) AddressesText() string {
	const most = 8
	if n := len(i.Addresses); n > most+1 {
		return fmt.Sprintf("%s and %d more", strings.Join(i.Addresses[:most], " "), n-most)
	}
	return strings.Join(i.Addresses, " ")
}

// MasterText says who answers for the addresses.
func (i Instance) MasterText() string {
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
			fmt.Fprintf(t, "  -> %s\t%s\t%d\t%d\t%d\t%s\n", r.Endpoint(), v.forward(), r.Weight, r.Flows, r.FlowsCreated, s.ServerText(r))
		}
		if r := v.SorryServer; r != nil {
			fmt.Fprintf(t, "  -> %s\t%s\t-\t%d\t%d\t%s\n", r.Endpoint(), v.forward(), r.Flows, r.FlowsCreated, r.StateText())
		}
	}
	t.Flush()
	row := func() { line, _ := table.ReadString('\n'); io.WriteString(out, line) }
	io.WriteString(out, "\nProt LocalAddress:Port Scheduler Flags\n")
	row()
	for _, v := range s.Services {
		fmt.Fprintln(out, v.line(s.Plane))
		for range v.RealServers {
			row()
		}
		if v.SorryServer != nil {
			row()
		}
	}
}

// heading names the kinds of differences that cost traffic at once.
func (n Notice) heading() string {
	switch n.Kind {
	case "split_brain":
		return "SPLIT BRAIN: "
	case "collision":
		return "VRID COLLISION: "
	}
	return ""
}

// overrides lists what operators have changed until they take it back.
func (s *Status) overrides(out io.Writer) {
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprint(t, "\nOverrides of operators\tSince\tUntil\n")
	for _, o := range s.Overrides {
		fmt.Fprintf(t, "  %s\t%s\t%s\n", plain(o.What()), s.Age(o.Since), plain(o.UntilText()))
	}
	t.Flush()
}

// Name returns what commands call the real server: web/192.168.5.103.
func (o Override) Name() string { return o.Service + "/" + o.RealServer }

// What says what is wished of which real server.
func (o Override) What() string {
	if o.Kind == KindWeight {
		return fmt.Sprintf("%s has the weight %d, not %d", o.Name(), o.Weight, o.ConfiguredWeight)
	}
	return fmt.Sprintf("%s is drained, %s left", o.Name(), o.Left())
}

// UntilText says what ends the wish: the command, and what a deadline does.
func (o Override) UntilText() string {
	switch {
	case o.Kind == KindWeight:
		return fmt.Sprintf("xdirector weight %s default", o.Name())
	case o.Over:
		return fmt.Sprintf("xdirector undrain %s; flows left at %s are scheduled afresh", o.Name(), clock(o.Until))
	case !o.Until.IsZero():
		return fmt.Sprintf("xdirector undrain %s; flows left at %s will be scheduled afresh", o.Name(), clock(o.Until))
	}
	return "xdirector undrain " + o.Name()
}

// Left is how many flows a drained real server has, in words: 3 flows (1 active).
func (o Override) Left() string {
	flows := fmt.Sprintf("%d flows", o.Flows)
	if o.Flows == 1 {
		flows = "1 flow"
	}
	if o.Active == o.Flows {
		return flows
	}
	return fmt.Sprintf("%s (%d active)", flows, o.Active)
}

// Endpoint is where it listens: 192.168.5.109:80.
func (r SorryServer) Endpoint() string { return net.JoinHostPort(r.Address, strconv.Itoa(int(r.Port))) }

// StateText says whether it is in use.
func (r SorryServer) StateText() string {
	if r.Active {
		return "SORRY SERVER, gets all new flows"
	}
	return "sorry server, waits"
}

// Endpoint is where it listens: 192.168.5.103:80.
func (r RealServer) Endpoint() string { return net.JoinHostPort(r.Address, strconv.Itoa(int(r.Port))) }

// ServerText is the state of a real server with its age and its reason: DOWN 12s: connection refused.
func (s *Status) ServerText(r RealServer) string {
	state := "up"
	if !r.Up {
		state = "DOWN"
	}
	switch {
	case r.KeepsFlows:
		state = "DOWN, keeps its flows"
	case r.Up && r.Weight == 0:
		state = "up, drained"
	case r.Up && r.MaxConnections > 0 && r.Active >= uint64(r.MaxConnections):
		state = fmt.Sprintf("up, full (%d)", r.MaxConnections)
	case r.SlowStart > 0:
		state = fmt.Sprintf("up, starts with %d %%", r.SlowStart)
	}
	if !r.Since.IsZero() {
		state += " " + s.Age(r.Since)
	}
	if r.Reason != "" {
		state += ": " + plain(r.Reason)
	}
	return state
}

// Warnings are all things that an operator should look at, a line each.
func (s *Status) Warnings() []string {
	var all []string
	add := func(format string, args ...any) { all = append(all, plain(fmt.Sprintf(format, args...))) }
	if !s.Healthy && !s.Stopping {
		add("not healthy: %s", s.Unhealthy)
	}
	if until := s.Reload.TrialUntil; !until.IsZero() {
		add("the configuration is on trial until %s: the one before comes back if something is lost", clock(until))
	}
	if !s.Reload.Success {
		if s.Reload.RolledBack {
			add("the configuration file is not in force, the one of %s is:", clock(s.Reload.Time))
		} else {
			add("the configuration file was refused, the one of %s is in use:", clock(s.Reload.Time))
		}
		for line := range strings.Lines(s.Reload.Error) {
			add("  %s", strings.TrimRight(line, "\r\n"))
		}
	}
	for _, difference := range s.Plane.Differences {
		add("%s: %s", s.Plane.Name, difference)
	}
	for _, i := range s.Interfaces {
		for _, lost := range i.Lost {
			add("%s: %d frames for real servers were lost on the way out by %s: %s", i.Name, lost.Frames, lost.To, lost.Reason)
		}
	}
	for _, difference := range s.besides() {
		add("%s", difference)
	}
	for _, denied := range s.Election.Denied {
		add("election: %s", denied)
	}
	for _, n := range s.Notifications {
		if n.Error != "" {
			add("notify: %s: %s", n.Target, n.Error)
		}
	}
	for _, i := range s.Instances {
		for _, m := range i.Mismatches {
			add("%s: %s%s", i.Name, m.heading(), m.Text)
		}
		if i.AddressesRestored > 0 {
			add("%s: somebody else removed virtual addresses, which were put back %s so far; network managers do that: have them leave %s alone", i.Name, times(i.AddressesRestored), i.Interface)
		}
	}
	for _, v := range s.Services {
		if v.Plane.Name == "" && v.Plane.Reason != s.Plane.Reason {
			add("%s: no plane forwards it: %s", v.Name, v.Plane.Reason)
		}
		up := 0
		for _, r := range v.RealServers {
			if r.Up {
				up++
			}
			if r.NextHopError != "" {
				add("%s: %s can't be reached: %s", v.Name, r.Endpoint(), r.NextHopError)
			}
		}
		sorry := v.SorryServer
		if sorry != nil && sorry.NextHopError != "" {
			add("%s: the sorry server %s can't be reached: %s", v.Name, sorry.Endpoint(), sorry.NextHopError)
		}
		switch {
		case sorry != nil && sorry.Active:
			add("%s: the quorum is lost, so that new connections to %s go to the sorry server %s", v.Name, v.Endpoint(), sorry.Endpoint())
		case up == 0:
			add("%s: no real server is up, so that new connections to %s are refused", v.Name, v.Endpoint())
		case !v.Quorum.Up && v.Quorum.Needed > 1:
			add("%s: the quorum is lost: real servers of weight %d are up, %d wanted", v.Name, v.Quorum.Weight, v.Quorum.Needed)
		}
	}
	return all
}

// Age says how long before the picture a moment was, in its two largest units: 3d4h, 2h5m, 1m30s, 12s.
func (s *Status) Age(moment time.Time) string {
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
