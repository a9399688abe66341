package web

import (
	"fmt"
	"sync"
	"time"

	"github.com/xdirector/xdirector/pkg/status"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

const attack = `<script>alert("x")</script>`

// box is a director whose pictures a test makes.
type box struct {
	mu     sync.Mutex
	latest *status.Status
	feed   status.Feed
}

func (b *box) status() *status.Status {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.latest
}

// publish shows a picture and tells what has changed.
func (b *box) publish(s *status.Status) {
	b.mu.Lock()
	before := b.latest
	b.latest = s
	b.mu.Unlock()
	b.feed.Publish(status.Changes(before, s))
}

// picture is one with something of everything, some seconds after noon; load is how many packets the first real server gets
// each second.
func picture(seconds int, load func(second int) int) *status.Status {
	now := noon.Add(time.Duration(seconds) * time.Second)
	ago := func(d time.Duration) time.Time { return noon.Add(-d) }
	server := func(address string, port uint16, share float64) status.RealServer {
		r := status.RealServer{Address: address, Port: port, Weight: 1, Up: true, Since: ago(70 * time.Hour), Reason: "connected", NextHop: "02:00:00:00:00:01", Flows: uint64(1200 * share), Active: uint64(900 * share)}
		for second := range seconds {
			r.Packets += uint64(share * float64(load(second)))
		}
		r.Bytes, r.FlowsCreated = r.Packets*420, r.Packets/9
		return r
	}
	down := server("192.168.5.105", 80, 0)
	down.Up, down.Since, down.Reason = false, ago(95*time.Second), "dial tcp 192.168.5.105:80: connect: connection refused"
	drained := server("192.168.5.104", 80, 0.2)
	drained.Weight = 0
	unreachable := server("2001:db8::24", 443, 0)
	unreachable.NextHopError = "no answer to neighbour solicitations on eth1"
	plane := status.Plane{Name: "xdp-native", Reason: "every interface runs it", Differences: []string{"net.ipv4.ip_forward is 1; set it to 0"}}
	last := server("10.20.0.9", 5432, 0)
	last.Up, last.Reason, last.Since = false, "no answer within 3s "+attack, ago(20*time.Second)
	return &status.Status{
		Version: "0.4.0", RouterID: "lb1", Started: ago(71 * time.Hour), Time: now, Counted: now, Healthy: true, Plane: plane,
		Reload:        status.Reload{Success: true, Time: ago(3 * time.Hour)},
		Interfaces:    []status.Interface{{Name: "eth0", Mode: "native"}, {Name: "eth1", Mode: "native"}},
		FlowTable:     status.FlowTable{Size: 1 << 20, Flows: 123456},
		Election:      status.Election{PID: 4711, FastPath: "filter", LatenessBounds: []float64{0.0001, 0.001}, LatenessCounts: []uint64{5000, 3, 0}},
		Notifications: []status.Notifications{{Target: "instance", Sent: 12}, {Target: "webhook pager", Sent: 40, Failed: 2, Error: "Post \"https://pager.example/hook\": context deadline exceeded"}},
		Instances: []status.Instance{
			{Name: "VI_1", Interface: "eth0", VirtualRouterID: 51, Version: 2, State: "MASTER", Since: ago(70 * time.Hour), Reason: "no other director was heard", Priority: 150, ConfiguredPriority: 150,
				Master: "192.168.5.1", MasterPriority: 150, Addresses: []string{"192.168.5.100/32", "192.168.5.101/32"}},
			{Name: "VI_6", Interface: "eth0", VirtualRouterID: 52, Version: 3, State: "BACKUP", Since: ago(50 * time.Minute), Reason: "fe80::2 has a higher priority", Priority: 80, ConfiguredPriority: 100,
				Tracked: "script chk_uplink failed: -20", Master: "fe80::2", MasterPriority: 120, Addresses: []string{"2001:db8::100/128"}},
			{Name: "VI_DMZ", Interface: "eth2", VirtualRouterID: 60, Version: 3, State: "MASTER", Since: ago(12 * time.Second), Reason: "took over", Priority: 100, ConfiguredPriority: 100, SyncGroup: "dmz",
				Master: "10.20.0.2", MasterPriority: 100, Addresses: []string{"10.20.0.100/24"},
				Mismatches: []status.Notice{{Kind: "split_brain", Peer: "10.20.0.3", Text: "10.20.0.3 is MASTER too, with priority 90: it does not hear our adverts"},
					{Kind: "password", Peer: "10.20.0.4", Text: "10.20.0.4 uses another password " + attack}}},
			{Name: "VI_OLD", Interface: "eth3", VirtualRouterID: 7, Version: 2, State: "FAULT", Since: ago(4 * time.Minute), Reason: "interface eth3 is down", Priority: 100, ConfiguredPriority: 100, SyncGroup: "dmz", Addresses: []string{"10.30.0.1/24"}},
		},
		Services: []status.Service{
			{Name: "web", Address: "192.168.5.100", Port: 80, Protocol: "tcp", Scheduler: "wlc", Forwarding: "direct", Persistence: 50 * time.Second, Plane: plane, Quorum: status.Quorum{Up: true, Weight: 2, Needed: 2},
				RealServers: []status.RealServer{server("192.168.5.102", 80, 1), server("192.168.5.103", 80, 0.6), drained, down}, Refused: map[string]uint64{"denied": 12},
				SorryServer: &status.SorryServer{Address: "192.168.5.109", Port: 80}},
			{Name: "web6", Address: "2001:db8::100", Port: 443, Protocol: "tcp", Scheduler: "mh", Forwarding: "direct", Plane: plane, Quorum: status.Quorum{Up: true, Weight: 2, Needed: 1},
				RealServers: []status.RealServer{server("2001:db8::23", 443, 0.3), unreachable}},
			{Name: "dns", Address: "192.168.5.101", Port: 53, Protocol: "udp", Scheduler: "rr", Forwarding: "direct", Plane: plane, Quorum: status.Quorum{Up: true, Weight: 2, Needed: 1},
				RealServers: []status.RealServer{server("192.168.5.110", 53, 0.01), server("192.168.5.111", 53, 0.01)}},
			{Name: "db", Address: "10.20.0.100", Port: 5432, Protocol: "tcp", Scheduler: "sh", Forwarding: "nat", Plane: status.Plane{Name: "ipvs", Reason: "forwarding nat"}, Quorum: status.Quorum{Needed: 1},
				RealServers: []status.RealServer{last}},
		},
		Overrides: []status.Override{
			{Service: "web", RealServer: "192.168.5.104", Kind: status.KindDrain, ConfiguredWeight: 1, Since: ago(9 * time.Minute), Flows: 240, Active: 180},
			{Service: "web", RealServer: "192.168.5.103", Kind: status.KindWeight, Weight: 1, ConfiguredWeight: 3, Since: ago(26 * time.Hour)},
		},
	}
}

// waves is a load that has something to see.
func waves(second int) int { return 20000 + 400*(second%25) + 9000*(second/30%2) }

// crowd is a picture with many services, of which every thousandth has a real server that is down.
func crowd(services, seconds int) *status.Status {
	s := picture(seconds, waves)
	s.Instances, s.Overrides, s.Services = s.Instances[:1], nil, nil
	for n := range services {
		v := status.Service{Name: fmt.Sprintf("service-%05d", n), Address: fmt.Sprintf("10.%d.%d.1", n>>8, n&255), Port: 80, Protocol: "tcp", Scheduler: "wlc", Plane: s.Plane, Quorum: status.Quorum{Up: true, Weight: 3, Needed: 1}}
		for k := range 3 {
			packets := uint64(seconds * n)
			v.RealServers = append(v.RealServers, status.RealServer{Address: fmt.Sprintf("172.16.%d.%d", n&255, k), Port: 80, Weight: 1, Up: n%1000 != 7 || k > 0, Since: noon, Reason: "connected", Packets: packets, Bytes: 400 * packets, FlowsCreated: packets / 10, Flows: uint64(n), Active: uint64(n / 2)})
		}
		s.Services = append(s.Services, v)
	}
	return s
}
