package lb_test

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/xdirector/xdirector/pkg/lb"
)

var hop = lb.NextHop{Interface: 2, MAC: lb.MAC{2, 0, 0, 0, 0, 1}}

func servers(weights ...uint16) []lb.RealServer {
	var list []lb.RealServer
	for i, w := range weights {
		list = append(list, lb.RealServer{Address: netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)}), Weight: w, Up: true, NextHop: hop})
	}
	return list
}

func TestScheduleOrder(t *testing.T) {
	down, unreachable, local := servers(1, 1, 1), servers(1, 1, 1), servers(1, 1)
	down[1].Up = false
	unreachable[0].NextHop = lb.NextHop{}
	local[0].NextHop = lb.NextHop{Local: true}
	for _, tt := range []struct {
		name      string
		scheduler lb.Scheduler
		servers   []lb.RealServer
		want      []int
	}{
		{"rr takes each in turn", lb.RoundRobin, servers(1, 1, 1), []int{0, 1, 2}},
		{"rr ignores weights other than 0", lb.RoundRobin, servers(5, 0, 1), []int{0, 2}},
		{"wrr is the kernel's order", lb.WeightedRoundRobin, servers(4, 3, 2), []int{0, 0, 1, 0, 1, 2, 0, 1, 2}},
		{"wrr divides weights by their common divisor", lb.WeightedRoundRobin, servers(40, 20), []int{0, 0, 1}},
		{"wrr skips weight 0", lb.WeightedRoundRobin, servers(0, 2, 0), []int{1}},
		{"a server that is down gets nothing", lb.RoundRobin, down, []int{0, 2}},
		{"a server without next hop gets nothing", lb.WeightedRoundRobin, unreachable, []int{1, 2}},
		{"the director itself is a next hop", lb.RoundRobin, local, []int{0, 1}},
		{"nobody", lb.WeightedRoundRobin, servers(0, 0), nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := lb.Schedule(lb.Service{Scheduler: tt.scheduler, RealServers: tt.servers})
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("order (-want +got):\n%s", diff)
			}
		})
	}
}

func TestWeightedScheduleGivesEachServerItsShare(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		weights := rapid.SliceOfN(rapid.Uint16Range(0, 300), 1, 8).Draw(t, "weights")
		order := lb.Schedule(lb.Service{Scheduler: lb.WeightedRoundRobin, RealServers: servers(weights...)})
		visits := make([]int, len(weights))
		for _, i := range order {
			visits[i]++
		}
		total := 0
		for _, w := range weights {
			total += int(w)
		}
		for i, w := range weights {
			if visits[i]*total != int(w)*len(order) {
				t.Fatalf("weights %v: server %d is visited %d times in %d", weights, i, visits[i], len(order))
			}
		}
	})
}

func TestScheduleOfTheLargestWeightsStaysSmall(t *testing.T) {
	order := lb.Schedule(lb.Service{Scheduler: lb.WeightedRoundRobin, RealServers: servers(65535, 65534)})
	if len(order) != 65535+65534 {
		t.Errorf("length %d, want %d", len(order), 65535+65534)
	}
}

func TestParseProtocol(t *testing.T) {
	for _, p := range []lb.Protocol{lb.TCP, lb.UDP} {
		if got, err := lb.ParseProtocol(p.String()); err != nil || got != p {
			t.Errorf("ParseProtocol(%q) = %v, %v", p, got, err)
		}
	}
	if _, err := lb.ParseProtocol("sctp"); err == nil {
		t.Error("sctp was taken")
	}
}
