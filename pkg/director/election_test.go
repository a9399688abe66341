package director

import (
	"cmp"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	diff "github.com/google/go-cmp/cmp"

	"github.com/xdirector/xdirector/pkg/config"
	"github.com/xdirector/xdirector/pkg/ha"
	"github.com/xdirector/xdirector/pkg/lb"
	"github.com/xdirector/xdirector/pkg/status"
	"github.com/xdirector/xdirector/pkg/vrrp"
)

// elections has an instance with every key of its own value, and one with the defaults.
const elections = `
state_dir: /run/test
vrrp:
  instances:
    - name: all
      interface: eth0
      version: 3
      virtual_router_id: 7
      priority: 101
      advert_interval: 20ms
      preempt_delay: 8s
      down_timer_adverts: 4
      startup_delay: 9s
      checksum: rfc9568
      source_address: 10.0.0.11
      unicast_peers: [10.0.0.12, 10.1.0.12]
      unicast_ttl: 254
      garp: {repeat: 2, delay: 3s, refresh: 60s, refresh_repeat: 4, interval: 5ms, lower_priority_repeat: 6, lower_priority_delay: 7s}
      virtual_addresses: [10.0.0.1/24, {address: 10.0.0.2, interface: eth1, label: "eth1:x", scope: link}]
      excluded_addresses: ["2001:db8::1/64"]
      routes: [{destination: 10.2.0.0/16, via: 10.0.0.254, interface: eth1, source: 10.0.0.1, metric: 5, table: 6}]
      virtual_mac: true
      accept: false
      track: {interfaces: [{name: eth2, weight: -20}, eth3]}
    - {name: plain, interface: eth0, virtual_router_id: 9, priority: 101, virtual_addresses: ["fe80::1"], garp: {delay: 0s, lower_priority_repeat: 0}}
    - {name: old, interface: eth1, virtual_router_id: 7, preempt: false, authentication: {type: pass, password: secret}, virtual_addresses: [10.0.1.1]}
  sync_groups: [{name: VG_1, instances: [all, plain]}]
services:
  - {name: web, address: 10.0.0.2, port: 80, scheduler: rr, real_servers: [{address: 10.0.0.99}]}
  - {name: elsewhere, address: 10.0.7.2, port: 80, scheduler: rr, real_servers: [{address: 10.0.0.99}]}
dataplane: {vrrp_fast_path: absorb, dead_man: 20s}
`

func parsed(t *testing.T, text string) *config.Config {
	t.Helper()
	cfg, err := config.Parse("f", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

func TestTheElectionIsToldEveryKey(t *testing.T) {
	addr, prefix := netip.MustParseAddr, netip.MustParsePrefix
	want := ha.Config{StateDir: "/run/test", DeadMan: 20 * time.Second, Instances: []ha.Instance{{
		Name:      "all",
		Interface: "eth0",
		VRRP: vrrp.Config{
			Name: "all", Version: 3, VRID: 7, Priority: 101, Interval: 20 * time.Millisecond, Preempt: true, PreemptDelay: 8 * time.Second,
			Addresses: []netip.Addr{addr("10.0.0.1"), addr("10.0.0.2")}, DownAdverts: 4, Checksum: vrrp.MessageOnly,
			Peers: []netip.Addr{addr("10.0.0.12"), addr("10.1.0.12")}, PeerTTL: 254,
			Announce: vrrp.Announcing{Repeat: 2, Delay: 3 * time.Second, Refresh: time.Minute, RefreshRepeat: 4, LowerRepeat: 6, LowerDelay: 7 * time.Second},
		},
		VirtualAddresses: []ha.VirtualAddress{{Prefix: prefix("10.0.0.1/24")}, {Prefix: prefix("10.0.0.2/32"), Interface: "eth1", Label: "eth1:x", Scope: "link"}, {Prefix: prefix("2001:db8::1/64")}},
		Routes:           []ha.Route{{Destination: prefix("10.2.0.0/16"), Via: addr("10.0.0.254"), Interface: "eth1", Source: addr("10.0.0.1"), Metric: 5, Table: 6}},
		Source:           addr("10.0.0.11"),
		StartupDelay:     9 * time.Second,
		ARPInterval:      5 * time.Millisecond,
		VirtualMAC:       "vrrp4-7",
		Services:         []lb.ServiceKey{{Address: addr("10.0.0.2"), Port: 80, Protocol: lb.TCP}},
		Group:            "VG_1",
		TrackInterfaces:  []ha.TrackInterface{{Name: "eth2", Weight: -20}, {Name: "eth3"}},
		Slot:             3,
		Absorb:           true,
	}, {
		Name:      "plain",
		Interface: "eth0",
		VRRP: vrrp.Config{
			Name: "plain", Version: 3, VRID: 9, Priority: 101, Interval: time.Second, Preempt: true, Addresses: []netip.Addr{addr("fe80::1")}, DownAdverts: 3, PeerTTL: 255,
			Announce: vrrp.Announcing{Repeat: 5, Delay: -1, RefreshRepeat: 1, LowerRepeat: -1, LowerDelay: -1},
		},
		VirtualAddresses: []ha.VirtualAddress{{Prefix: prefix("fe80::1/128")}},
		Accept:           true,
		Group:            "VG_1",
		Slot:             4, // but its adverts are too slow to be absorbed
	}, {
		Name:      "old",
		Interface: "eth1",
		VRRP: vrrp.Config{
			Name: "old", Version: 2, VRID: 7, Priority: 100, Interval: time.Second, Password: "secret", Addresses: []netip.Addr{addr("10.0.1.1")}, DownAdverts: 3, PeerTTL: 255,
			Announce: vrrp.Announcing{Repeat: 5, Delay: 5 * time.Second, RefreshRepeat: 1, LowerRepeat: 5, LowerDelay: 5 * time.Second},
		},
		VirtualAddresses: []ha.VirtualAddress{{Prefix: prefix("10.0.1.1/32")}},
		Accept:           true,
	}}}
	got := haConfig(parsed(t, elections), map[string]uint32{"all": 3, "plain": 4})
	if d := diff.Diff(want, got, diff.Comparer(func(a, b netip.Addr) bool { return a == b }), diff.Comparer(func(a, b netip.Prefix) bool { return a == b })); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if haConfig(parsed(t, elections), nil).Instances[0].Absorb {
		t.Error("a plane without a slot for the instance is to absorb its adverts")
	}
	// A field that nobody fills in is a key that does nothing.
	for _, field := range reflect.VisibleFields(reflect.TypeFor[ha.Instance]()) {
		if !slices.ContainsFunc(got.Instances, func(i ha.Instance) bool { return !reflect.ValueOf(i).FieldByIndex(field.Index).IsZero() }) {
			t.Errorf("%s is never set", field.Name)
		}
	}
}

func TestWhatOnlyARestartChangesIsRefusedAtReload(t *testing.T) {
	old := parsed(t, elections)
	for change, want := range map[string]string{
		"plain, interface: eth0=plain, interface: eth1":                               "vrrp.instances plain: interface changes from eth0 to eth1: this needs a restart",
		"virtual_router_id: 9=virtual_router_id: 8":                                   "vrrp.instances plain: virtual_router_id changes from 9 to 8: this needs a restart",
		"pass, password: secret}=pass, password: other}":                              "",
		"virtual_mac: true=virtual_mac: {name: mine}":                                 "vrrp.instances all: virtual_mac changes from vrrp4-7 to mine: this needs a restart",
		"      virtual_mac: true\n=":                                                  "vrrp.instances all: virtual_mac changes from vrrp4-7 to none: this needs a restart",
		"virtual_addresses: [\"fe80::1\"]=version: 3, virtual_addresses: [10.0.9.9]":  "vrrp.instances plain: virtual_addresses: family changes from IPv6 to IPv4: this needs a restart",
		"virtual_addresses: [\"fe80::1\"]=virtual_addresses: [\"fe80::2\"]":           "",
		"priority: 101\n=priority: 102\n":                                             "",
		"20ms=200ms":                                                                  "",
		"[10.0.0.12, 10.1.0.12]=[10.0.0.13]":                                          "",
		"unicast_peers: [10.0.0.12, 10.1.0.12]\n      unicast_ttl: 254=preempt: true": "",
		"  sync_groups: [{name: VG_1, instances: [all, plain]}]\n=":                   "",
		"track: {interfaces: [{name: eth2, weight: -20}, eth3]}=track: {}":            "",
		"accept: false=accept: true":                                                  "",
		"checksum: rfc9568=checksum: rfc5798":                                         "",
		"10.0.0.1/24=10.0.0.9/24":                                                     "",
		"source_address: 10.0.0.11=source_address: 10.0.0.14":                         "",
	} {
		before, after, _ := strings.Cut(change, "=")
		text := strings.Replace(elections, before, after, 1)
		if text == elections {
			t.Fatalf("%q changes nothing", change)
		}
		err := needsRestart(compare(old, parsed(t, text), here{}))
		if got := fmt.Sprint(err); got != cmp.Or(want, "<nil>") {
			t.Errorf("%q: %q, want %q", change, got, want)
		}
	}
}

func TestThePictureOfAnInstanceHoldsAllOfItsReport(t *testing.T) {
	i := parsed(t, elections).Instances[0]
	since := time.Unix(1, 0)
	r := ha.InstanceReport{
		Name: "all", Interface: "eth0", State: vrrp.Master, Since: since, Reason: "no advert", Source: netip.MustParseAddr("10.0.0.11"), Master: netip.MustParseAddr("10.0.0.11"),
		MasterPriority: 81, Transitions: map[vrrp.State]uint64{vrrp.Master: 2}, AdvertsSent: 3, AdvertsReceived: 4, AdvertsRefused: map[vrrp.Reason]uint64{vrrp.RefusedTTL: 5},
		AdvertsByForm: map[string]uint64{"rfc5798": 6}, AdvertsAbsorbed: 7, Mismatches: []ha.Mismatch{{Kind: "collision", Peer: netip.MustParseAddr("10.0.0.99"), Text: "text"}},
		Priority: 81, Tracked: "interface eth2 is down: -20", Restored: 8,
	}
	want := status.Instance{
		Name: "all", Interface: "eth0", VirtualRouterID: 7, Version: 3, State: "MASTER", Since: since, Reason: "no advert", Priority: 81, Source: "10.0.0.11", Master: "10.0.0.11", MasterPriority: 81,
		Mismatches:  []status.Notice{{Kind: "collision", Peer: "10.0.0.99", Text: "text"}},
		Transitions: map[string]uint64{"MASTER": 2}, AdvertsSent: 3, AdvertsReceived: 4, AdvertsRefused: map[string]uint64{"ttl": 5},
		ConfiguredPriority: 101, AdvertInterval: 20 * time.Millisecond, Tracked: "interface eth2 is down: -20", AdvertsAbsorbed: 9, AdvertsByForm: map[string]uint64{"rfc5798": 6},
		AdvertsFiltered: map[string]uint64{"checksum": 10}, AddressesRestored: 8,
	}
	got := instancePicture(i, r, map[string]uint64{"passed": 1, "sampled": 2, "absorbed": 9, "checksum": 10})
	if d := diff.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if early := instancePicture(i, ha.InstanceReport{}, nil); early.Priority != 101 || early.State != "INIT" {
		t.Errorf("before the first report: %+v", early)
	}
}

func TestThePictureOfInstancesIsMadeAnewWhenSomethingChanged(t *testing.T) {
	d := &Director{cfg: parsed(t, elections), operator: operator{Yield: map[string]yield{}}}
	first := d.instancePictures(nil)
	if i := first[0]; !slices.Equal(i.Addresses, []string{"10.0.0.1/24", "10.0.0.2/32", "2001:db8::1/64"}) || i.SyncGroup != "VG_1" || first[2].SyncGroup != "" {
		t.Errorf("picture %+v", i)
	}
	if again := d.instancePictures(nil); &again[0] != &first[0] {
		t.Error("nothing changed, and the picture was made anew")
	}
	d.report, d.reportAt = ha.Report{Instances: []ha.InstanceReport{{Name: "old", State: vrrp.Master}}}, time.Unix(9, 0)
	if i := d.instancePictures(nil)[2]; i.State != "MASTER" {
		t.Errorf("after a report: %+v", i)
	}
	d.operator.Yield["plain"] = yield{}
	d.orders++
	if list := d.instancePictures(nil); !list[0].Yielding || !list[1].Yielding || list[2].Yielding {
		t.Errorf("after a failover of a sync group: %+v", list)
	}
	if i := d.instancePictures(map[string]map[string]uint64{"old": {"ttl": 3}})[2]; i.AdvertsFiltered["ttl"] != 3 {
		t.Errorf("after a reading of the plane: %+v", i)
	}
	d.cfg = parsed(t, strings.Replace(elections, "10.0.1.1", "10.0.1.9", 1))
	if i := d.instancePictures(nil)[2]; !slices.Equal(i.Addresses, []string{"10.0.1.9/32"}) {
		t.Errorf("after a reload: %+v", i)
	}
	if first[2].State != "INIT" || first[0].Yielding {
		t.Error("an earlier picture was changed")
	}
}
