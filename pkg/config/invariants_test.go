package config

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/xdirector/xdirector/pkg/health"
	"github.com/xdirector/xdirector/pkg/lb"
)

// checkInvariants checks what everybody who is given a Config relies on, without looking at how it was read.
func checkInvariants(t *testing.T, c *Config) {
	t.Helper()
	must := func(ok bool, format string, arguments ...any) {
		t.Helper()
		if !ok {
			t.Errorf(format, arguments...)
		}
	}
	ip := func(a netip.Addr) bool {
		return a.IsValid() && !a.Is4In6() && a.Zone() == "" && !a.IsUnspecified() && !a.IsLoopback() && !a.IsMulticast()
	}
	must(len(c.Instances)+len(c.Services) > 0, "there is nothing to do")
	names, routers, macs := map[string]bool{}, map[[3]any]bool{}, map[string]bool{"": true}
	must(len(c.Instances) <= 1000, "%d instances", len(c.Instances))
	for _, i := range c.Instances {
		router := [3]any{i.Interface, i.IPv6(), i.VirtualRouterID}
		must(goodName(i.Name) && !names[i.Name], "instance name %q", i.Name)
		must(i.VirtualRouterID > 0 && !routers[router], "virtual router %d", i.VirtualRouterID)
		must(i.VirtualMAC == "" || goodInterface(i.VirtualMAC) && !macs[i.VirtualMAC], "virtual MAC %q", i.VirtualMAC)
		must(slices.Contains(c.Dataplane.Interfaces, i.Interface) || len(c.Dataplane.Interfaces) > 0, "no interface for the data plane")
		names[i.Name], routers[router], macs[i.VirtualMAC] = true, true, true
		checkInstance(t, i, ip)
	}
	checkTracking(t, c, names)
	names = map[string]bool{}
	keys := map[lb.ServiceKey]bool{}
	for _, s := range c.Services {
		key := s.Key()
		must(goodName(s.Name) && !names[s.Name], "service name %q", s.Name)
		must(!keys[key], "service %s", key)
		first, last := key.Ports()
		if s.FirewallMark == 0 {
			must(ip(s.Address) && key.Prefix().Addr() == s.Address && first <= last && s.LastPort != s.Port || s.LastPort == 0, "service %s", key)
			must(slices.Contains([]lb.Protocol{lb.TCP, lb.UDP, lb.SCTP}, s.Protocol), "protocol %s", s.Protocol)
		}
		must(slices.Contains([]lb.Scheduler{"rr", "wrr", "lc", "wlc", "sh", "mh"}, s.Scheduler), "scheduler %q", s.Scheduler)
		must(int(s.PersistenceBits) < key.Address.BitLen(), "persistence.prefix %d", s.PersistenceBits)
		if s.OnlyIPVS() != "" || c.Dataplane.Mode == ModeIPVS {
			must(len(s.LacksOnIPVS()) == 0, "service %s lacks %+v on IPVS", key, s.LacksOnIPVS())
		}
		must(s.Persistence >= 0 && s.Persistence%time.Second == 0, "persistence %s", s.Persistence)
		must(len(s.RealServers) > 0, "service %s has no real server", s.Name)
		clients := map[netip.Prefix]bool{}
		for _, p := range slices.Concat(s.Limits.Allow, s.Limits.Deny) {
			must(p.Masked() == p && p.Addr().Is4() == key.Address.Is4() && !clients[p], "clients %s of service %s", p, key)
			clients[p] = true
		}
		must(int(s.Limits.SourceBits) < key.Address.BitLen(), "limits.prefix %d", s.Limits.SourceBits)
		for _, r := range []lb.Rate{s.Limits.New, s.Limits.Packets} {
			must(r == lb.Rate{} || r.PerSecond > 0 && r.PerSecond <= maxRate && r.Burst <= maxRate, "rate %+v", r)
		}
		names[s.Name], keys[key] = true, true
		checkCheck(t, s.Check)
		seen := map[netip.Addr]bool{s.Address: true, s.SorryServer.Address: true}
		must(s.Quorum > s.Hysteresis && s.Hysteresis >= 0 && s.SlowStart >= 0, "quorum %d, hysteresis %d, slow start %s", s.Quorum, s.Hysteresis, s.SlowStart)
		must(s.OnDown == OnDownRemove || s.OnDown == OnDownKeep, "on_down %q", s.OnDown)
		must(s.SorryServer == SorryServer{} || ip(s.SorryServer.Address) && (s.SorryServer.Port == s.Port || s.LastPort != 0 || s.Forwarding == lb.NAT), "sorry server %+v", s.SorryServer)
		for _, r := range s.RealServers {
			must(r.MaxConnections <= maxRate, "max_connections %d", r.MaxConnections)
			must(ip(r.Address) && !seen[r.Address], "real server %s", r.Address)
			must(r.Port == s.Port && s.LastPort == 0 || r.Port == 0 || s.Forwarding == lb.NAT, "real server's port %d", r.Port)
			must(r.Check == nil || r.Check.Kind == health.ICMP || r.Check.Port != 0 || r.Port != 0, "check of %s has no port", r.Address)
			must(r.Address.Is4() == key.Address.Is4(), "real server %s of service %s", r.Address, key)
			must(s.Check == nil || r.Check != nil, "real server %s has no check", r.Address)
			seen[r.Address] = true
			checkCheck(t, r.Check)
		}
	}
	d := c.Dataplane
	must(slices.Contains([]string{ModeAuto, ModeXDPNative, ModeXDPGeneric, ModeIPVS}, d.Mode), "mode %q", d.Mode)
	must(d.FlowTableSize >= 1024 && d.FlowTableSize <= 1<<24, "flow_table_size %d", d.FlowTableSize)
	must(d.DeadMan >= 3*time.Second && d.DeadMan <= time.Hour && d.DeadMan%time.Second == 0, "dead_man %s", d.DeadMan)
	must(d.Linger >= 0 && d.Linger <= time.Minute, "linger %s", d.Linger)
	must(len(d.Interfaces) > 0 || len(c.Instances) == 0, "no interface")
	for _, name := range d.Interfaces {
		must(goodInterface(name), "interface %q", name)
	}
	must(len(slices.Compact(slices.Sorted(slices.Values(d.Interfaces)))) == len(d.Interfaces), "interfaces %v", d.Interfaces)
	for _, path := range []string{c.StateDir, d.PinPath, c.Control.Socket} {
		must(filepath.IsAbs(path) && path == filepath.Clean(path), "path %q", path)
	}
	must(len(c.Control.Socket) <= 107, "socket %q", c.Control.Socket)
	_, _, err := net.SplitHostPort(c.Metrics.Listen)
	must(err == nil, "listen %q", c.Metrics.Listen)
	must(slices.Contains([]string{"", "text", "json", "journal"}, c.Log.Format), "format %q", c.Log.Format)
}

func checkInstance(t *testing.T, i Instance, ip func(netip.Addr) bool) {
	t.Helper()
	must := func(ok bool, format string, arguments ...any) {
		t.Helper()
		if !ok {
			t.Errorf(i.Name+": "+format, arguments...)
		}
	}
	between := func(low, d, high time.Duration) bool { return low <= d && d <= high }
	must(goodInterface(i.Interface), "interface %q", i.Interface)
	must(i.Priority > 0, "priority 0")
	switch i.Version {
	case 2:
		must(between(time.Second, i.AdvertInterval, 255*time.Second) && i.AdvertInterval%time.Second == 0, "interval %s", i.AdvertInterval)
		must(len(i.Password) <= 8 && !i.IPv6() && i.Checksum == ChecksumRFC5798, "password of %d bytes, checksum %s", len(i.Password), i.Checksum)
	case 3:
		must(between(10*time.Millisecond, i.AdvertInterval, 40950*time.Millisecond) && i.AdvertInterval%(10*time.Millisecond) == 0, "interval %s", i.AdvertInterval)
		must(i.Password == "", "password in version 3")
	default:
		t.Errorf("version %d", i.Version)
	}
	must(between(0, i.PreemptDelay, 1000*time.Second) && between(0, i.StartupDelay, 1000*time.Second), "preempt_delay %s, startup_delay %s", i.PreemptDelay, i.StartupDelay)
	must(i.Checksum == ChecksumRFC5798 || i.Checksum == ChecksumRFC9568, "checksum %q", i.Checksum)
	must(len(i.VirtualAddresses) > 0 && len(i.VirtualAddresses) <= 255, "%d addresses", len(i.VirtualAddresses))
	seen := map[netip.Addr]bool{}
	for n, a := range i.Held() {
		p := a.Prefix
		must(p.IsValid() && p.Bits() > 0 && ip(p.Addr()) && !seen[p.Addr()], "address %s", p)
		must(n >= len(i.VirtualAddresses) || p.Addr().Is6() == i.IPv6(), "two families")
		must(len(a.Label) <= 15 && (p.Addr().Is4() || a.Label+a.Scope == ""), "label %q, scope %q", a.Label, a.Scope)
		must(a.Interface == "" || goodInterface(a.Interface), "interface %q", a.Interface)
		seen[p.Addr()] = true
	}
	peers := map[netip.Addr]bool{i.SourceAddress: true}
	must(!i.SourceAddress.IsValid() || ip(i.SourceAddress) && i.SourceAddress.Is6() == i.IPv6(), "source %s", i.SourceAddress)
	for _, p := range i.UnicastPeers {
		must(ip(p) && p.Is6() == i.IPv6() && !peers[p] && !seen[p], "peer %s", p)
		peers[p] = true
	}
	g := i.GARP
	must(i.DownTimerAdverts >= 1 && i.DownTimerAdverts <= 100 && i.UnicastTTL > 0, "down_timer_adverts %d, unicast_ttl %d", i.DownTimerAdverts, i.UnicastTTL)
	must(g.Repeat >= 1 && g.Repeat <= 100 && g.RefreshRepeat >= 1 && g.RefreshRepeat <= 100 && g.LowerRepeat >= 0 && g.LowerRepeat <= 100, "garp %+v", g)
	must(min(g.Delay, g.Refresh, g.Interval, g.LowerDelay) >= 0, "garp %+v", g)
	for _, r := range i.Routes {
		must(r.Destination.IsValid() && r.Destination == r.Destination.Masked(), "route to %s", r.Destination)
		for _, a := range []netip.Addr{r.Via, r.Source} {
			must(!a.IsValid() || ip(a) && a.Is4() == r.Destination.Addr().Is4(), "route by %s", a)
		}
	}
}

// checkTracking checks scripts, sync groups and what instances track.
func checkTracking(t *testing.T, c *Config, instances map[string]bool) {
	t.Helper()
	scripts, services, member := map[string]bool{}, map[string]int{}, map[string]bool{}
	for _, s := range c.Scripts {
		if !goodName(s.Name) || scripts[s.Name] || len(s.Command) == 0 || !filepath.IsAbs(s.Command[0]) || s.Interval <= 0 || s.Timeout <= 0 ||
			s.Rise < 1 || s.Fall < 1 || s.User == "" {
			t.Errorf("script %+v", s)
		}
		scripts[s.Name] = true
	}
	for _, s := range c.Services {
		services[s.Name] = len(s.RealServers)
	}
	for _, i := range c.Instances {
		for _, one := range i.Track.list("track") {
			if one.name == "" || one.weight < -253 || one.weight > 253 {
				t.Errorf("%s tracks %+v", i.Name, one)
			}
		}
		for _, s := range i.Track.Scripts {
			if !scripts[s.Name] {
				t.Errorf("%s tracks script %q", i.Name, s.Name)
			}
		}
		for _, s := range i.Track.Services {
			if s.MinUp < 1 || s.MinUp > services[s.Name] {
				t.Errorf("%s tracks service %+v", i.Name, s)
			}
		}
		for _, p := range i.Track.Processes {
			if p.Min < 1 || p.Min > 1000 {
				t.Errorf("%s tracks process %+v", i.Name, p)
			}
		}
	}
	for _, g := range c.SyncGroups {
		if !goodName(g.Name) || len(g.Instances) < 2 {
			t.Errorf("sync group %+v", g)
		}
		for _, name := range g.Instances {
			if !instances[name] || member[name] {
				t.Errorf("sync group %s has %q", g.Name, name)
			}
			member[name] = true
		}
	}
}

func checkCheck(t *testing.T, c *health.Check) {
	t.Helper()
	if c == nil {
		return
	}
	http := c.Kind == health.HTTP || c.Kind == health.HTTPS
	switch {
	case !http && c.Kind != health.TCP && c.Kind != health.ICMP,
		c.Interval <= 0, c.Timeout <= 0, c.RetryDelay < 0, c.Retries < 0, c.Rise < 1,
		http != (c.Method != ""), http != (len(c.Status) > 0), http != strings.HasPrefix(c.Path, "/"),
		!http && (c.Host != "" || c.Body != ""), c.Insecure && c.Kind != health.HTTPS,
		c.Kind == health.ICMP && c.Port != 0:
		t.Errorf("check %+v", *c)
	}
	for _, s := range c.Status {
		if s.From < 100 || s.To > 599 || s.From > s.To {
			t.Errorf("status %v", s)
		}
	}
}

func goodName(s string) bool {
	return s != "" && len(s) <= 63 && s[0] != '-' && s[0] != '.' &&
		strings.Trim(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-") == ""
}

func goodInterface(s string) bool {
	return s != "" && len(s) <= 15 && s != "." && s != ".." && !strings.ContainsAny(s, "/: \t\n\v\f\r\x00")
}

// FuzzParse feeds anything: it never panics, a refusal has problems with their places, and what is accepted is valid.
func FuzzParse(f *testing.F) {
	for _, pattern := range []string{reference, examples + "*.yaml", "testdata/minimal.yaml"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			f.Fatalf("no files %s: %v", pattern, err)
		}
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data)
		}
	}
	for _, file := range []string{"testdata/wrong.txt", "testdata/warnings.txt"} {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		for _, part := range strings.Split(string(data), "\n"+caseMark) {
			_, rest, _ := strings.Cut(part, "\n")
			yaml, _, _ := strings.Cut(rest, wantsMark)
			f.Add([]byte(yaml))
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Parse("f", data)
		if err == nil {
			checkInvariants(t, c)
			checkProblems(t, string(data), c.Warnings)
			return
		}
		var problems Problems
		if !errors.As(err, &problems) || len(problems) == 0 || c != nil {
			t.Fatalf("refused with %T %v", err, err)
		}
		checkProblems(t, string(data), problems)
	})
}
