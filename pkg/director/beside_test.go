package director

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/xdirector/xdirector/pkg/config"
	"github.com/xdirector/xdirector/pkg/lb"
	"github.com/xdirector/xdirector/pkg/neigh"
	"github.com/xdirector/xdirector/pkg/status"
)

// noted is a plane that notes what it is told in a list, which it may share with another one.
type noted struct {
	name  string
	story *[]string
	fails error
}

func (n *noted) note(format string, args ...any) {
	*n.story = append(*n.story, n.name+" "+fmt.Sprintf(format, args...))
}

func (n *noted) Apply(_ context.Context, s lb.State) error {
	var names []string
	for _, service := range s.Services {
		names = append(names, service.Name)
	}
	n.note("has %s", strings.Join(names, ","))
	return n.fails
}

func (n *noted) Counters() (lb.Counters, error) {
	key := lb.ServerKey{Address: netip.MustParseAddr("192.168.5.103"), Service: lb.ServiceKey{Mark: uint32(len(n.name))}}
	return lb.Counters{RealServers: map[lb.ServerKey]lb.Traffic{key: {Packets: 1}}}, nil
}

func (n *noted) Differences() []string { return []string{n.name + " differs"} }
func (n *noted) Close() error          { n.note("closed"); return nil }
func (n *noted) Remove() error         { n.note("removed"); return nil }

// twoPlanes are an XDP plane and IPVS beside it; ipvs says why that can't be had.
func twoPlanes(ipvs *error) (b *both, story func() []string) {
	var all []string
	b = &both{xdp: &noted{name: "xdp", story: &all}, log: slog.New(slog.DiscardHandler), open: func() (Plane, error) {
		if *ipvs != nil {
			return nil, *ipvs
		}
		return &noted{name: "ipvs", story: &all}, nil
	}}
	return b, func() []string {
		told := all
		all = nil
		return told
	}
}

func onXDP(name string) lb.Service {
	return lb.Service{Name: name, Key: lb.ServiceKey{Port: uint16(name[0])}}
}

func onIPVS(name string) lb.Service {
	s := onXDP(name)
	s.Forwarding = lb.NAT
	return s
}

func state(services ...lb.Service) lb.State { return lb.State{Services: services} }

func TestEachPlaneGetsItsOwnServices(t *testing.T) {
	var missing error
	b, story := twoPlanes(&missing)
	for _, step := range []struct {
		wish lb.State
		want []string
	}{
		{state(onXDP("a")), []string{"xdp has a"}}, // nobody needs IPVS
		{state(onXDP("a"), onIPVS("b"), onXDP("c"), onIPVS("d")), []string{"ipvs has b,d", "xdp has a,c"}},
		{state(onXDP("a"), onXDP("b"), onXDP("c"), onIPVS("d")), []string{"ipvs has d,b", "xdp has a,b,c", "ipvs has d"}}, // b is never nowhere
		{state(onIPVS("a"), onIPVS("d")), []string{"ipvs has a,d", "xdp has "}},
		{state(onXDP("a")), []string{"ipvs has a,d", "xdp has a", "ipvs has ", "ipvs closed"}},
		{state(), []string{"xdp has "}},
	} {
		if err := b.Apply(t.Context(), step.wish); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(step.want, story()); diff != "" {
			t.Errorf("after %+v (-want +got):\n%s", step.wish, diff)
		}
	}
}

func TestIPVSThatCantBeHadHoldsUpOnlyWhatNeedsIt(t *testing.T) {
	missing := errors.New("kernel has no ip_vs")
	b, story := twoPlanes(&missing)
	err := b.Apply(t.Context(), state(onXDP("a"), onIPVS("b")))
	if err == nil || !strings.Contains(err.Error(), "(b)") || !strings.Contains(err.Error(), "kernel has no ip_vs") {
		t.Errorf("error %v", err)
	}
	if diff := cmp.Diff([]string{"xdp has a"}, story()); diff != "" {
		t.Errorf("planes (-want +got):\n%s", diff)
	}
	if _, failed := b.besides(); failed == nil {
		t.Error("the failure is not in the picture")
	}
	missing = nil
	if err := b.Apply(t.Context(), state(onIPVS("b"))); err == nil {
		t.Error("IPVS was asked for again at once")
	}
	b.tried = b.tried.Add(-openAgain)
	if err := b.Apply(t.Context(), state(onIPVS("b"))); err != nil {
		t.Error(err)
	}
	if err := b.Apply(t.Context(), state()); err != nil {
		t.Error(err)
	}
}

func TestBothPlanesAreCountedAndLeftAndRemoved(t *testing.T) {
	var missing error
	b, story := twoPlanes(&missing)
	if err := b.Apply(t.Context(), state(onXDP("a"), onIPVS("b"))); err != nil {
		t.Fatal(err)
	}
	c, err := b.Counters()
	if err != nil || len(c.RealServers) != 2 {
		t.Errorf("counters %+v, %v, want those of both planes", c, err)
	}
	if differences, _ := b.besides(); len(differences) != 1 || differences[0] != "ipvs differs" {
		t.Errorf("differences %q", differences)
	}
	story()
	if err := b.Remove(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"xdp removed", "ipvs removed", "ipvs closed"}, story()); diff != "" {
		t.Errorf("remove (-want +got):\n%s", diff)
	}
	if err := b.Apply(t.Context(), state(onIPVS("b"))); err != nil {
		t.Fatal(err)
	}
	story()
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"xdp closed", "ipvs closed"}, story()); diff != "" {
		t.Errorf("close (-want +got):\n%s", diff)
	}
}

// oneOfAKind are services that differ in what a plane needs for them.
func oneOfAKind() *config.Config {
	cfg := oneService()
	add := func(name string, change func(*config.Service)) {
		s := oneService().Services[0]
		s.Name = name
		change(&s)
		cfg.Services = append(cfg.Services, s)
	}
	add("nat", func(s *config.Service) { s.Port, s.Forwarding = 81, lb.NAT })
	add("mark", func(s *config.Service) { s.FirewallMark = 7 })
	add("range", func(s *config.Service) { s.Port, s.LastPort = 90, 99 })
	add("timed", func(s *config.Service) { s.Port, s.Timeouts.UDP = 82, 1 })
	return cfg
}

func TestEveryServiceSaysWhichPlaneItIsOnAndWhy(t *testing.T) {
	d := forTest(t, t.TempDir())
	d.cfg = oneOfAKind()
	var missing error
	beside, _ := twoPlanes(&missing)
	failed, _ := twoPlanes(&missing)
	failed.failed = errors.New("kernel has no ip_vs")
	for _, c := range []struct {
		plane plane
		want  map[string]string
	}{
		{plane{Plane: beside, name: lb.XDPNative, reason: "works"}, map[string]string{
			"web": "xdp-native: works", "range": "xdp-native: works", "timed": "xdp-native: works",
			"nat": "ipvs: only IPVS forwards by NAT", "mark": "ipvs: only IPVS balances by firewall mark"}},
		{plane{Plane: failed, name: lb.XDPGeneric, reason: "works"}, map[string]string{
			"web": "xdp-generic: works", "range": "xdp-generic: works", "timed": "xdp-generic: works",
			"nat":  ": only IPVS forwards by NAT, and it can't be had: kernel has no ip_vs",
			"mark": ": only IPVS balances by firewall mark, and it can't be had: kernel has no ip_vs"}},
		{plane{Plane: &lost{}, name: lb.IPVS, reason: "no BPF"}, map[string]string{
			"web": "ipvs: no BPF", "nat": "ipvs: no BPF", "mark": "ipvs: no BPF", "timed": "ipvs: no BPF",
			"range": ": port: IPVS has services of one port or of all; write a service for each, or mark the packets and write firewall_mark instead"}},
		{plane{reason: "not yet"}, map[string]string{"web": ": not yet", "nat": ": not yet", "mark": ": not yet", "timed": ": not yet", "range": ": not yet"}},
	} {
		d.plane = c.plane
		got := map[string]string{}
		for _, s := range d.cfg.Services {
			p := d.planePicture(s, status.Plane{Name: string(c.plane.name), Reason: c.plane.reason})
			got[s.Name] = p.Name + ": " + p.Reason
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("plane %s (-want +got):\n%s", c.plane.name, diff)
		}
		if unserved := d.unserved(); strings.Contains(unserved, "range") != (c.plane.name == lb.IPVS) {
			t.Errorf("plane %s: unserved %q", c.plane.name, unserved)
		}
		if short := d.shortcomings(); len(short) > 0 != (c.plane.name == lb.IPVS) {
			t.Errorf("plane %s: shortcomings %q", c.plane.name, short)
		}
	}
}

func TestWhatIPVSCantHaveIsNotWishedThere(t *testing.T) {
	for plane, want := range map[lb.Plane]string{
		lb.XDPNative: "web,nat,mark,range,timed",
		lb.IPVS:      "web,nat,mark,timed",
	} {
		var names []string
		for _, s := range wish(oneOfAKind(), plane, facts{}).Services {
			names = append(names, s.Name)
		}
		if got := strings.Join(names, ","); got != want {
			t.Errorf("plane %s: services %s, want %s", plane, got, want)
		}
	}
}

func TestOnlyRealServersOfIPVSMayBeBehindARouter(t *testing.T) {
	cfg := oneOfAKind()
	cfg.Services[1].RealServers = append(cfg.Services[1].RealServers, config.RealServer{Address: netip.MustParseAddr("10.9.9.9")})
	if got := fmt.Sprint(routed(cfg)); got != "[10.9.9.9]" {
		t.Errorf("routed %s, want only the real server that no service with direct return has", got)
	}
	behind := neigh.Hop{Routed: true}
	if text, problem := hopPicture(behind, lb.NAT); text == "" || problem != "" {
		t.Errorf("next hop %q, %q", text, problem)
	}
}
