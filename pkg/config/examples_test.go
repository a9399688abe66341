package config

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/xdirector/xdirector/pkg/health"
	"github.com/xdirector/xdirector/pkg/lb"
)

const examples = "../../configs/examples/"

// pair loads the files of the two directors of an example; neither may have a warning.
func pair(t *testing.T, name string) (one, two *Config) {
	t.Helper()
	var both [2]*Config
	for i := range both {
		path := fmt.Sprintf("%s%s-lb%d.yaml", examples, name, i+1)
		c, err := Load(path)
		if err != nil {
			t.Fatal(err)
		}
		checkInvariants(t, c)
		for _, w := range c.Warnings {
			t.Error(w)
		}
		if want := fmt.Sprintf("lb%d", i+1); c.RouterID != want {
			t.Errorf("%s: router_id is %q, want %q", path, c.RouterID, want)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, word := range []string{"# For: ", "\n# On ", filepath.Base(fmt.Sprintf("%s-lb%d.yaml", name, 2-i))} {
			if !strings.Contains(string(data), word) {
				t.Errorf("%s: the header has no %q", path, word)
			}
		}
		both[i] = c
	}
	return both[0], both[1]
}

// alike checks that the two files differ in router_id and priorities alone, and that no election is left to chance.
func alike(t *testing.T, one, two *Config) {
	t.Helper()
	a, b := *one, *two
	a.RouterID, b.RouterID = "", ""
	a.Instances, b.Instances = nil, nil
	if !reflect.DeepEqual(a, b) {
		t.Errorf("the directors differ:\n%+v\n%+v", a, b)
	}
	if len(one.Instances) != len(two.Instances) {
		t.Fatalf("%d and %d instances", len(one.Instances), len(two.Instances))
	}
	for n := range one.Instances {
		i, j := one.Instances[n], two.Instances[n]
		if i.Priority == j.Priority {
			t.Errorf("%s: both have priority %d", i.Name, i.Priority)
		}
		i.Priority, j.Priority = 0, 0
		if i.SourceAddress.IsValid() {
			if !slices.Equal(i.UnicastPeers, []netip.Addr{j.SourceAddress}) || !slices.Equal(j.UnicastPeers, []netip.Addr{i.SourceAddress}) {
				t.Errorf("%s: %v has the peers %v, %v has %v", i.Name, i.SourceAddress, i.UnicastPeers, j.SourceAddress, j.UnicastPeers)
			}
			i.SourceAddress, j.SourceAddress, i.UnicastPeers, j.UnicastPeers = netip.Addr{}, netip.Addr{}, nil, nil
		}
		if !reflect.DeepEqual(i, j) {
			t.Errorf("the directors differ:\n%+v\n%+v", i, j)
		}
	}
}

// addresses makes virtual addresses without options.
func addresses(words ...string) []VirtualAddress {
	var list []VirtualAddress
	for _, w := range words {
		list = append(list, VirtualAddress{Prefix: netip.MustParsePrefix(w)})
	}
	return list
}

func TestExampleGatewayIsAnElectionWithoutServices(t *testing.T) {
	one, two := pair(t, "gateway")
	alike(t, one, two)
	if len(one.Services) != 0 || len(one.Instances) != 1 {
		t.Fatalf("%d services and %d instances, want 0 and 1", len(one.Services), len(one.Instances))
	}
	if got := one.Instances[0].VirtualAddresses; !reflect.DeepEqual(got, addresses("192.168.10.1/32")) {
		t.Errorf("addresses %v", got)
	}
	if one.Instances[0].Priority <= two.Instances[0].Priority {
		t.Error("lb1 isn't preferred")
	}
}

func TestExampleHotStandbyMovesAnAddressWithItsMask(t *testing.T) {
	one, two := pair(t, "hot-standby")
	alike(t, one, two)
	i := one.Instances[0]
	if len(one.Services) != 0 || !reflect.DeepEqual(i.VirtualAddresses, addresses("192.168.20.100/24")) {
		t.Errorf("%d services, addresses %v", len(one.Services), i.VirtualAddresses)
	}
	if i.Preempt {
		t.Error("a failed box that comes back takes the address")
	}
}

// wantDirectReturn checks what the two LVS-DR examples share, and returns the service.
func wantDirectReturn(t *testing.T, name string) Service {
	one, two := pair(t, name)
	alike(t, one, two)
	if len(one.Instances) != 1 || len(one.Services) != 1 {
		t.Fatalf("%d instances and %d services, want 1 and 1", len(one.Instances), len(one.Services))
	}
	s := one.Services[0]
	if !reflect.DeepEqual(one.Instances[0].VirtualAddresses, addresses(s.Address.String()+"/32")) {
		t.Errorf("the instance holds %v, the service is at %s", one.Instances[0].VirtualAddresses, s.Address)
	}
	if len(s.RealServers) != 2 || s.Protocol != lb.TCP || s.Port != 80 {
		t.Errorf("service %+v", s)
	}
	for _, r := range s.RealServers {
		if r.Check == nil || r.Check.Kind != health.TCP {
			t.Errorf("%s has no TCP check", r.Address)
		}
	}
	return s
}

func TestExampleLVSDRTakesTwoRealServersInTurn(t *testing.T) {
	s := wantDirectReturn(t, "lvs-dr-rr")
	if s.Scheduler != lb.RoundRobin || s.Persistence != 0 {
		t.Errorf("scheduler %s, persistence %s", s.Scheduler, s.Persistence)
	}
}

func TestExampleLVSDRWithWeightsAndPersistence(t *testing.T) {
	s := wantDirectReturn(t, "lvs-dr-wrr-persistence")
	if s.Scheduler != lb.WeightedRoundRobin || s.Persistence != 50*time.Second {
		t.Errorf("scheduler %s, persistence %s", s.Scheduler, s.Persistence)
	}
	if s.RealServers[0].Weight != 3 || s.RealServers[1].Weight != 1 {
		t.Errorf("weights %d and %d", s.RealServers[0].Weight, s.RealServers[1].Weight)
	}
}

func TestExampleMutualBackupHasEachDirectorPreferredOnce(t *testing.T) {
	one, two := pair(t, "mutual-backup")
	alike(t, one, two)
	if len(one.Instances) != 2 || len(one.Services) != 2 {
		t.Fatalf("%d instances and %d services, want 2 and 2", len(one.Instances), len(one.Services))
	}
	if one.Instances[0].Priority <= two.Instances[0].Priority || one.Instances[1].Priority >= two.Instances[1].Priority {
		t.Error("one director is preferred in both instances")
	}
	for n, i := range one.Instances {
		if got := addresses(one.Services[n].Address.String() + "/32"); !reflect.DeepEqual(i.VirtualAddresses, got) {
			t.Errorf("%s holds %v, its service is at %v", i.Name, i.VirtualAddresses, got)
		}
	}
}

func TestExampleDualStackKeepsBothFamiliesOnOneBox(t *testing.T) {
	one, two := pair(t, "dual-stack")
	alike(t, one, two)
	if len(one.Instances) != 2 || one.Instances[0].IPv6() || !one.Instances[1].IPv6() {
		t.Fatalf("instances %+v", one.Instances)
	}
	if want := []SyncGroup{{Name: "GATEWAY", Instances: []string{"GATEWAY_4", "GATEWAY_6"}}}; !reflect.DeepEqual(one.SyncGroups, want) {
		t.Errorf("sync groups %+v", one.SyncGroups)
	}
	for _, i := range one.Instances {
		if i.AdvertInterval != 100*time.Millisecond || !reflect.DeepEqual(i.Track.Interfaces, []TrackInterface{{Name: "eth0"}}) {
			t.Errorf("%s: interval %s, tracks %+v", i.Name, i.AdvertInterval, i.Track)
		}
	}
	if one.Instances[0].Priority <= two.Instances[0].Priority {
		t.Error("lb1 isn't preferred")
	}
}

func TestExampleUnicastTrackedGivesTheLeadToWhoIsBetterOff(t *testing.T) {
	one, two := pair(t, "unicast-tracked")
	alike(t, one, two)
	a, b := one.Instances[0], two.Instances[0]
	if len(a.UnicastPeers) != 1 || a.AdvertInterval != 100*time.Millisecond || a.Version != 3 {
		t.Errorf("instance %+v", a)
	}
	// One failure on the first box must change the winner, and the same one on both must not.
	for _, tracked := range a.Track.list("") {
		if tracked.weight == 0 {
			continue // FAULT
		}
		if first := int(a.Priority) + tracked.weight; first >= int(b.Priority) || first <= int(b.Priority)+tracked.weight {
			t.Errorf("%s %s: %d%+d beside %d", tracked.kind, tracked.name, a.Priority, tracked.weight, b.Priority)
		}
	}
	if len(a.Track.list("")) != 4 {
		t.Errorf("it tracks %+v", a.Track)
	}
}

func TestNoExampleIsLeftWithoutATest(t *testing.T) {
	files, err := filepath.Glob(examples + "*") // and in the folder keepalived what some of them are converted from
	if err != nil {
		t.Fatal(err)
	}
	files = slices.DeleteFunc(files, func(file string) bool { return filepath.Base(file) == "keepalived" })
	if len(files) != 14 {
		t.Errorf("%d files in %s, 14 are tested", len(files), examples)
	}
}

func TestRealServerSettingsAreTheKernels(t *testing.T) {
	data, err := os.ReadFile("../../configs/realserver/90-xdirector-realserver.conf")
	if err != nil {
		t.Fatal(err)
	}
	settings := map[string]string{}
	for line := range strings.Lines(string(data)) {
		if key, setting, ok := strings.Cut(line, "="); ok && !strings.HasPrefix(line, "#") {
			settings[strings.TrimSpace(key)] = strings.TrimSpace(setting)
		}
	}
	want := map[string]string{"net.ipv4.conf.all.arp_ignore": "1", "net.ipv4.conf.all.arp_announce": "2"}
	if !reflect.DeepEqual(settings, want) {
		t.Errorf("settings %v, want %v", settings, want)
	}
	for key := range settings {
		if _, err := os.Stat("/proc/sys/" + strings.ReplaceAll(key, ".", "/")); err != nil {
			t.Errorf("%s is unknown to the kernel: %v", key, err)
		}
	}
}
