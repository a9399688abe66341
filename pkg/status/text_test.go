package status

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write testdata anew")

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// busy is a director about which there is much to say.
func busy() *Status {
	return &Status{
		Version: "0.1.0", RouterID: "lb1", Started: noon.Add(-76 * time.Hour), Time: noon, Unhealthy: "plane ipvs: apply: no such module",
		Plane: Plane{Name: "xdp-native", Reason: "every interface of dataplane.interfaces runs it", Differences: []string{"sloppy_tcp is 0, not 1"}},
		Instances: []Instance{{
			Name: "VI_1", Interface: "eth0", VirtualRouterID: 51, Version: 2, State: "MASTER", Since: noon.Add(-7500 * time.Second), Reason: "no advert for 3.609s",
			Priority: 100, Source: "192.168.5.1", Master: "192.168.5.1", MasterPriority: 100, Addresses: []string{"192.168.5.100/32", "192.168.5.101/32"},
			Mismatches:         []Notice{{Kind: "addresses", Peer: "192.168.5.2", Text: "192.168.5.2 lists other addresses (192.168.5.100): make the lists equal"}},
			ConfiguredPriority: 100, SyncGroup: "VG_1", AddressesRestored: 3,
		}, {
			Name: "gateway", Interface: "bond0.17", VirtualRouterID: 7, Version: 3, State: "BACKUP", Since: noon.Add(-90 * time.Second), Reason: "192.168.6.2 has priority 200",
			Priority: 90, Master: "192.168.6.2", MasterPriority: 200, Addresses: []string{"192.168.6.1/24"},
		}, {
			Name: "broken", Interface: "eth9", VirtualRouterID: 8, Version: 3, State: "FAULT", Since: noon.Add(-2 * time.Second), Reason: "interface eth9: no carrier; file /standby says 1", Tracked: "file /standby says 1",
			Priority: 90, Addresses: []string{"192.168.7.1/24"},
		}, {
			Name: "low", Interface: "eth0", VirtualRouterID: 9, Version: 3, State: "BACKUP", Since: noon.Add(-2 * time.Second), Reason: "192.168.8.2 has priority 100",
			Priority: 30, ConfiguredPriority: 150, Tracked: "interface eth7 is down: -100; script chk_nginx failed: -20", Yielding: true, SyncGroup: "VG_1",
			Master: "192.168.8.2", MasterPriority: 100, Addresses: strings.Fields("10.0.0.1/32 10.0.0.2/32 10.0.0.3/32 10.0.0.4/32 10.0.0.5/32 10.0.0.6/32 10.0.0.7/32 10.0.0.8/32 10.0.0.9/32 10.0.0.10/32"),
			Mismatches: []Notice{
				{Kind: "split_brain", Peer: "192.168.8.3", Text: "192.168.8.3 (priority 90) is MASTER too"},
				{Kind: "collision", Peer: "192.168.8.4", Text: "192.168.8.4 uses VRID 9 for other addresses"},
			},
		}},
		Maintenance:   true,
		Notifications: []Notifications{{Target: "chat", Sent: 3}, {Target: "oncall", Error: "mail.example.org:25 does not answer in time"}},
		Election: Election{
			PID: 4711, Restarts: 2, Denied: []string{"real-time scheduling: operation not permitted; give the unit CAP_SYS_NICE"}, FastPath: "filter", FastPathReason: "absorb needs native XDP",
			LatenessBounds: []float64{0.0001, 0.001, 0.01}, LatenessCounts: []uint64{9000, 991, 9, 0},
		},
		Services: []Service{{
			Name: "web", Address: "192.168.5.100", Port: 80, Protocol: "tcp", Scheduler: "rr", Persistence: 50 * time.Second, Plane: Plane{Name: "xdp-native"},
			RealServers: []RealServer{
				{Address: "192.168.5.103", Port: 80, Weight: 1, Up: true, Reason: "connected", Since: noon.Add(-75 * time.Hour), Flows: 1200, FlowsCreated: 5000000},
				{Address: "192.168.5.104", Port: 80, Weight: 1, Reason: "connect: connection refused", Since: noon.Add(-5 * time.Second)},
				{Address: "192.168.5.105", Port: 80, Up: true, Reason: "no check", NextHopError: "no on-link route to 192.168.5.105"},
			},
		}, {
			Name: "dns", Address: "192.168.5.101", Port: 53, Protocol: "udp", Scheduler: "wrr", Plane: Plane{Name: "ipvs", Reason: "eth1 runs no XDP"},
			RealServers: []RealServer{{Address: "192.168.5.106", Port: 53, Weight: 65535, Reason: "got \x1b[2J\nnothing"}},
		}, {
			Name: "shop", Address: "192.168.5.102", Port: 443, Protocol: "tcp", Scheduler: "wrr", Plane: Plane{Name: "xdp-native"},
			Quorum: Quorum{Since: noon.Add(-time.Minute), Weight: 2, Needed: 3, Hysteresis: 1}, SorryServer: &SorryServer{Address: "192.168.5.109", Port: 443, Active: true, Flows: 3, FlowsCreated: 4},
			RealServers: []RealServer{
				{Address: "192.168.5.103", Port: 443, Up: true, Reason: "connected", Flows: 1},
				{Address: "192.168.5.104", Port: 443, Weight: 5, Reason: "timeout", KeepsFlows: true},
				{Address: "192.168.5.105", Port: 443, Weight: 2, Up: true, Reason: "connected", SlowStart: 30},
				{Address: "192.168.5.106", Port: 443, Weight: 2, Up: true, Reason: "connected", Flows: 70, Active: 50, MaxConnections: 50},
			},
			Refused: map[string]uint64{"full": 3, "denied": 12, "rate_new": 0},
		}, {
			Name: "mail", Address: "192.168.5.102", Port: 25, Protocol: "tcp", Scheduler: "wrr", Plane: Plane{Name: "xdp-native"},
			Quorum: Quorum{Weight: 1, Needed: 2}, SorryServer: &SorryServer{Address: "192.168.5.109", Port: 25, NextHopError: "no on-link route to 192.168.5.109"},
			RealServers: []RealServer{{Address: "192.168.5.103", Port: 25, Weight: 1, Up: true, Reason: "connected"}},
		}, {
			Name: "marked", FirewallMark: 7, Scheduler: "wlc", Forwarding: "nat", Plane: Plane{Name: "ipvs", Reason: "only IPVS balances by firewall mark", Differences: []string{"net.ipv4.ip_forward is 0"}},
			RealServers: []RealServer{{Address: "10.0.0.3", Port: 8080, Weight: 1, Up: true}},
		}, {
			Name: "far", Address: "2001:db8:1::", Forwarding: "tunnel", Protocol: "tcp", Scheduler: "rr", Plane: Plane{Name: "ipvs", Reason: "only IPVS forwards through tunnels", Differences: []string{"net.ipv4.ip_forward is 0"}},
			RealServers: []RealServer{{Address: "2001:db8:2::3", Weight: 1, Up: true}},
		}, {
			Name: "net", Address: "192.0.2.0/28", Port: 8000, LastPort: 8099, Protocol: "tcp", Scheduler: "sh", Plane: Plane{Name: "xdp-native"},
			RealServers: []RealServer{{Address: "192.168.5.103", Weight: 1, Up: true}},
		}, {
			Name: "net6", Address: "2001:db8::/64", Port: 80, Protocol: "sctp", Scheduler: "sh", Plane: Plane{Reason: "only IPVS balances sctp, and it can't be had: kernel has no ip_vs"},
			RealServers: []RealServer{{Address: "2001:db8:2::3", Weight: 1, Up: true}},
		}},
		Overrides: []Override{
			{Service: "shop", RealServer: "192.168.5.103", Kind: KindDrain, Since: noon.Add(-90 * time.Second), Flows: 1, Active: 1},
			{Service: "shop", RealServer: "192.168.5.104", Kind: KindDrain, Since: noon.Add(-time.Hour), Until: noon.Add(time.Hour), Flows: 17},
			{Service: "shop", RealServer: "192.168.5.105", Kind: KindDrain, Since: noon.Add(-time.Hour), Until: noon, Over: true},
			{Service: "shop", RealServer: "192.168.5.105", Kind: KindWeight, Since: noon.Add(-time.Hour), Weight: 2, ConfiguredWeight: 1},
		},
		Reload: Reload{Time: noon.Add(-time.Hour), Error: "config.yaml:3:1: a: unknown key\nconfig.yaml:4:1: b: unknown key"},
	}
}

func TestTextShowsTheWholePicture(t *testing.T) {
	calm := &Status{Version: "0.1.0", RouterID: "lb2", Started: noon, Time: noon, Healthy: true, Reload: Reload{Success: true, Time: noon},
		Instances: []Instance{{Name: "VI_1", Interface: "eth0", VirtualRouterID: 51, Version: 2, State: "INIT", Priority: 100, Addresses: []string{"192.168.5.100/32"}}}}
	for name, s := range map[string]*Status{"busy": busy(), "calm": calm} {
		t.Run(name, func(t *testing.T) {
			var got bytes.Buffer
			if err := s.Text(&got); err != nil {
				t.Fatal(err)
			}
			file := filepath.Join("testdata", name+".txt")
			if *update {
				if err := os.WriteFile(file, got.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if got.String() != string(want) {
				t.Errorf("text is\n%s\nwant\n%s(go test ./pkg/status -update writes it anew)", got.String(), want)
			}
		})
	}
}

func TestTextHoldsNoControlCharacterOfOthers(t *testing.T) {
	s := busy()
	s.RouterID = "\x1b]0;mine\a"
	s.Instances[0].Mismatches[0].Text = "\x1b[2J\r\n\t"
	s.Reload.Error = "a\x1b[2J"
	var got bytes.Buffer
	s.Text(&got)
	if strings.ContainsAny(got.String(), "\x1b\a\r\t") {
		t.Errorf("text is %q", got.String())
	}
}

func TestLatenessIsThatOfAllButTheWorstThousandth(t *testing.T) {
	for want, counts := range map[string][]uint64{
		"": {0, 0, 0, 0},
		"99.9 % of its timers late by less than 1ms":                       {1, 0, 0, 0},
		"99.9 % of its timers late by less than 3ms":                       {998, 1, 1, 0},
		"99.9 % of its timers late by less than 10ms":                      {998, 0, 1, 1},
		"more than one in a thousand of its timers late by more than 10ms": {997, 0, 0, 3},
	} {
		e := Election{LatenessBounds: []float64{0.001, 0.003, 0.01}, LatenessCounts: counts}
		if got := e.late(); got != want {
			t.Errorf("%v: %q, want %q", counts, got, want)
		}
	}
}

func TestAgeHasTwoUnits(t *testing.T) {
	s := &Status{Time: noon}
	for want, ago := range map[string]time.Duration{
		"0s": -time.Hour, "59s": 59999 * time.Millisecond, "1m0s": time.Minute, "59m59s": 3599 * time.Second, "1h0m": time.Hour, "23h59m": 86399 * time.Second, "1d0h": 24 * time.Hour, "400d1h": 9601 * time.Hour,
	} {
		if got := s.Age(noon.Add(-ago)); got != want {
			t.Errorf("age of %s is %s, want %s", ago, got, want)
		}
	}
	if got := s.Age(time.Time{}); got != "-" {
		t.Errorf("age of no time is %s, want -", got)
	}
}

func TestTextReturnsTheErrorOfTheWriter(t *testing.T) {
	if err := busy().Text(full{}); !errors.Is(err, os.ErrClosed) {
		t.Errorf("error is %v, want that of the writer", err)
	}
}

// full takes nothing.
type full struct{}

func (full) Write([]byte) (int, error) { return 0, os.ErrClosed }
