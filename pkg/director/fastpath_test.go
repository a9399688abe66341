package director

import (
	"errors"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	diff "github.com/google/go-cmp/cmp"

	"github.com/xdirector/xdirector/pkg/config"
	"github.com/xdirector/xdirector/pkg/ha"
	"github.com/xdirector/xdirector/pkg/lb"
	"github.com/xdirector/xdirector/pkg/xdp"
)

func TestThePlaneIsToldOfEveryInstanceThatItCanHelp(t *testing.T) {
	addr := netip.MustParseAddr
	compare := diff.Comparer(func(a, b netip.Addr) bool { return a == b })
	reports := []ha.InstanceReport{{Name: "all", Source: addr("10.0.0.11")}}
	all := lb.Router{Name: "all", Interface: "eth0", Version: 3, VRID: 7, Filter: true, VirtualMAC: true, Source: addr("10.0.0.11"), Peers: []netip.Addr{addr("10.0.0.12"), addr("10.1.0.12")}, PeerTTL: 254,
		Addresses: []netip.Addr{addr("10.0.0.1"), addr("10.0.0.2"), addr("2001:db8::1")}}
	want := []lb.Router{
		all,
		{Name: "plain", Interface: "eth0", IPv6: true, Version: 3, VRID: 9, Filter: true, PeerTTL: 255, Addresses: []netip.Addr{addr("fe80::1")}},
		{Name: "old", Interface: "eth1", Version: 2, VRID: 7, Filter: true, PeerTTL: 255, Addresses: []netip.Addr{addr("10.0.1.1")}},
	}
	if d := diff.Diff(want, routers(parsed(t, elections), reports), compare); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	all.Filter = false
	off := parsed(t, strings.Replace(elections, "vrrp_fast_path: absorb", "vrrp_fast_path: off", 1))
	if d := diff.Diff([]lb.Router{all}, routers(off, reports), compare); d != "" {
		t.Errorf("off, which leaves the one with a virtual MAC (-want +got):\n%s", d)
	}
}

func TestProgramsAreAttachedForAdvertsAloneOnlyWhereItIsWritten(t *testing.T) {
	const instance = "vrrp: {instances: [{name: a, interface: eth0, virtual_router_id: 1, virtual_addresses: [10.0.0.1]}]}\n"
	const service = "services: [{name: a, address: 10.0.0.1, port: 80, scheduler: rr, real_servers: [{address: 10.0.0.2}]}]\n"
	for text, want := range map[string][2]bool{ // for adverts alone, at all
		instance: {false, false},
		instance + "dataplane: {vrrp_fast_path: filter}":             {true, true},
		instance + "dataplane: {vrrp_fast_path: absorb}":             {true, true},
		instance + "dataplane: {vrrp_fast_path: off}":                {false, false},
		instance + "dataplane: {vrrp_fast_path: filter, mode: ipvs}": {false, false},
		instance + service: {false, true},
		instance + service + "dataplane: {vrrp_fast_path: off}":                      {false, true},
		service + "dataplane: {vrrp_fast_path: filter, interfaces: [eth0]}":          {false, true},
		instance + service + "dataplane: {vrrp_fast_path: filter, mode: xdp-native}": {false, true},
	} {
		cfg := parsed(t, text)
		if got := [2]bool{filtersAlone(cfg), needsPlane(cfg)}; got != want {
			t.Errorf("%s: %v, want %v", text, got, want)
		}
	}
}

// slotted is a plane that gives slots and shares maps.
type slotted struct {
	Plane
	slots map[string]uint32
}

func (s slotted) Slots() map[string]uint32 { return s.slots }

func (slotted) Files() (xdp.Files, error) {
	r, w, err := os.Pipe()
	return xdp.Files{Words: r, Events: w}, err
}

// listener is an election that notes what it is told.
type listener struct {
	Election
	configs []ha.Config
	maps    [][]*os.File
	tracks  []map[string]ha.Track
}

func (l *listener) Configure(c ha.Config)        { l.configs = append(l.configs, c) }
func (l *listener) Track(by map[string]ha.Track) { l.tracks = append(l.tracks, by) }
func (l *listener) Maps(f []*os.File)            { l.maps = append(l.maps, f) }

func TestTheElectionHearsOfEveryPlaneAndItsSlots(t *testing.T) {
	d := forTest(t, t.TempDir())
	d.cfg = parsed(t, elections)
	ear := &listener{}
	d.ha = ear
	d.plane = plane{Plane: slotted{slots: map[string]uint32{"all": 3}}, name: lb.XDPNative}
	d.giveMaps()
	if len(ear.maps) != 1 || len(ear.maps[0]) != 3 || len(ear.configs) != 1 || ear.configs[0].Instances[0].Slot != 3 || !ear.configs[0].Instances[0].Absorb {
		t.Fatalf("a plane was opened: maps %v, configurations %+v", ear.maps, ear.configs)
	}
	for _, f := range ear.maps[0][:2] {
		f.Close()
	}
	d.tellSlots()
	if len(ear.configs) != 1 {
		t.Error("the same slots are told twice")
	}
	if mode, reason := d.fastPath(); mode != config.FastPathAbsorb || reason != "dataplane.vrrp_fast_path; off for old, plain, on an interface without a program" {
		t.Errorf("fast path %q: %q", mode, reason)
	}
	d.plane.Plane = slotted{slots: map[string]uint32{"all": 3, "plain": 4, "old": 5}}
	d.tellSlots()
	if len(ear.configs) != 2 || ear.configs[1].Instances[1].Slot != 4 {
		t.Errorf("new slots: %+v", ear.configs)
	}
	if mode, reason := d.fastPath(); mode != config.FastPathAbsorb || reason != "dataplane.vrrp_fast_path; filter for old, plain, with an advert_interval above 30ms" {
		t.Errorf("fast path %q: %q", mode, reason)
	}
	d.plane.differences = []string{"eth0 is left alone"}
	if _, reason := d.fastPath(); !strings.HasSuffix(reason, "above 30ms; eth0 is left alone") {
		t.Errorf("fast path: %q", reason)
	}
	d.plane = plane{reason: "no services"}
	d.giveMaps()
	if len(ear.maps) != 2 || ear.maps[1] != nil || len(ear.configs) != 3 || ear.configs[2].Instances[0].Slot != 0 {
		t.Errorf("no plane any more: maps %v, configurations %+v", ear.maps, ear.configs)
	}
	if mode, reason := d.fastPath(); mode != config.FastPathOff || reason != "no XDP program is attached: no services" {
		t.Errorf("fast path %q: %q", mode, reason)
	}
}

func TestAReloadThatAttachesFirstProgramsIsTakenForNobodysSilence(t *testing.T) {
	d := forTest(t, t.TempDir())
	d.cfg = parsed(t, elections)
	d.cfg.StateDir, d.cfg.Dataplane.Mode, d.cfg.Dataplane.PinPath = t.TempDir(), config.ModeXDPNative, "/proc/none" // nothing is attached here
	d.tracking.fresh = map[string]bool{}
	ear := &listener{}
	d.ha = ear
	if err := d.attachFirst(t.Context(), d.cfg); err == nil {
		t.Error("programs are attached")
	}
	if len(ear.tracks) != 2 || len(ear.tracks[0]) != len(d.cfg.Instances) || !ear.tracks[0]["plain"].Deaf || len(ear.tracks[1]) != 0 {
		t.Errorf("the election was told %+v, want that all are deaf, and then none", ear.tracks)
	}
}

// full is a plane with room for two routers.
type full struct{ Plane }

func (full) Fits(s lb.State) error {
	if len(s.Routers) > 2 {
		return errors.New("too many")
	}
	return nil
}

// Frames to the virtual MAC of an instance that a reload removed are for its services until another director is MASTER.
func TestThePlaneKeepsAnInstanceThatIsRemovedUntilItHasHandedOver(t *testing.T) {
	both := parsed(t, elections)
	without := func(name string, change func(*config.Instance)) *config.Config {
		cfg := *both
		cfg.Instances = slices.Clone(both.Instances)
		for n := range cfg.Instances {
			if cfg.Instances[n].Name == name {
				change(&cfg.Instances[n])
			}
		}
		cfg.Instances = slices.DeleteFunc(cfg.Instances, func(i config.Instance) bool { return i.Name == "" })
		return &cfg
	}
	removed := without("all", func(i *config.Instance) { *i = config.Instance{} })
	off := *removed
	off.Dataplane.VRRPFastPath = config.FastPathOff
	reports := []ha.InstanceReport{{Name: "all"}, {Name: "plain"}, {Name: "old"}}
	for name, row := range map[string]struct {
		cfg     *config.Config
		reports []ha.InstanceReport
		want    []string
	}{
		"it is still configured":       {both, reports, nil},
		"it hands over":                {removed, reports, []string{"all filter"}},
		"it has handed over":           {removed, reports[1:], nil},
		"another one has its place":    {without("all", func(i *config.Instance) { i.Name = "new" }), reports, nil},
		"its name has another place":   {without("all", func(i *config.Instance) { i.VirtualRouterID = 8 }), reports, nil},
		"one beside it has its number": {without("all", func(i *config.Instance) { i.Name, i.Interface = "new", "eth5" }), reports, []string{"all filter"}},
		"nothing is filtered any more": {&off, reports, []string{"all"}},
		"off, and it has no virtual MAC": {func() *config.Config {
			cfg := off
			cfg.Instances = nil
			return &cfg
		}(), reports[1:], nil},
	} {
		var got []string
		for _, r := range leaving(row.cfg, routers(both, nil), row.reports) {
			text := r.Name
			if r.Filter {
				text += " filter"
			}
			got = append(got, text)
		}
		if !slices.Equal(got, row.want) {
			t.Errorf("%s: %v, want %v", name, got, row.want)
		}
	}

	d := forTest(t, t.TempDir())
	d.plane.name = lb.XDPNative
	d.report.Instances = reports
	state := d.wish(both)
	d.applied = &state
	for range 2 { // the wish is the same until the election says otherwise
		state = d.wish(removed)
		d.applied = &state
		if n := len(state.Routers); n != 3 || state.Routers[2].Name != "all" || !state.Routers[2].VirtualMAC {
			t.Fatalf("removed: %+v", state.Routers)
		}
	}
	d.plane.Plane = full{}
	if state = d.wish(removed); len(state.Routers) != 2 {
		t.Errorf("no room for it: %+v", state.Routers)
	}
	d.plane.Plane = nil
	d.report.Instances = reports[1:]
	if state = d.wish(removed); len(state.Routers) != 2 {
		t.Errorf("handed over: %+v", state.Routers)
	}
}
