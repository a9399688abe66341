package lb_test

import (
	"math"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/xdirector/xdirector/pkg/lb"
)

var hop = lb.NextHop{Interface: 2, MAC: lb.MAC{2, 0, 0, 0, 0, 1}}

func servers(weights ...uint16) []lb.RealServer {
	var list []lb.RealServer
	for i, w := range weights {
		list = append(list, lb.RealServer{Address: netip.AddrFrom4([4]byte{10, 0, byte((i + 1) >> 8), byte(i + 1)}), Weight: w, Up: true, NextHop: hop})
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

func hashed(scheduler lb.Scheduler, servers []lb.RealServer) lb.Service {
	return lb.Service{Scheduler: scheduler, RealServers: servers}
}

// owners is a schedule by address, which means the same whatever the order of the real servers.
func owners(s lb.Service) []netip.Addr {
	var list []netip.Addr
	for _, i := range lb.Schedule(s) {
		list = append(list, s.RealServers[i].Address)
	}
	return list
}

func TestHashTablesAreTheSameWhateverTheOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		scheduler := rapid.SampledFrom([]lb.Scheduler{lb.SourceHashing, lb.MaglevHashing}).Draw(t, "scheduler")
		list := servers(rapid.SliceOfN(rapid.Uint16Range(0, 9), 1, 20).Draw(t, "weights")...)
		for i := range list {
			list[i].Up = rapid.Bool().Draw(t, "up")
		}
		other := rapid.Permutation(list).Draw(t, "other order")
		if diff := cmp.Diff(owners(hashed(scheduler, list)), owners(hashed(scheduler, other)), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
			t.Fatalf("the order changes the table:\n%s", diff)
		}
	})
}

func TestMaglevGivesEachServerItsShare(t *testing.T) {
	for _, weights := range [][]uint16{{1}, {1, 1, 1}, {1, 2, 3, 0}, {65535, 1}, {100, 200, 300, 400, 500}, make([]uint16, 1000)} {
		total, live := 0, 0
		for i := range weights {
			if len(weights) == 1000 {
				weights[i] = uint16(1 + i%7)
			}
			total += int(weights[i])
			live += min(1, int(weights[i]))
		}
		table := lb.Schedule(hashed(lb.MaglevHashing, servers(weights...)))
		if len(table) < 100*live {
			t.Errorf("%d places for %d servers", len(table), live)
		}
		places := make([]int, len(weights))
		for _, i := range table {
			places[i]++
		}
		for i, w := range weights {
			if want := float64(len(table)) * float64(w) / float64(total); math.Abs(float64(places[i])-want) > 1 {
				t.Errorf("server %d of weight %d of %d has %d places of %d, want %.1f", i, w, total, places[i], len(table), want)
			}
		}
	}
}

func TestMaglevMovesFewClientsWhenAServerGoes(t *testing.T) {
	const n = 20
	all := servers(slices.Repeat([]uint16{1}, n)...)
	before := owners(hashed(lb.MaglevHashing, all))
	for gone := range n {
		fewer := slices.Clone(all)
		fewer[gone].Up = false
		after := owners(hashed(lb.MaglevHashing, fewer))
		if len(after) != len(before) {
			t.Fatalf("the table has %d places after server %d went down, %d before", len(after), gone, len(before))
		}
		moved := 0
		for place, owner := range before {
			if owner != all[gone].Address && owner != after[place] {
				moved++
			}
		}
		if limit := len(before) / 10; moved > limit {
			t.Errorf("%d of %d places changed between servers that stay when server %d went down, want at most %d", moved, len(before), gone, limit)
		}
	}
}

func TestSameScheduleSaysWhetherItMustBeMadeAnew(t *testing.T) {
	base := hashed(lb.MaglevHashing, servers(1, 2, 0))
	for name, row := range map[string]struct {
		change func(*lb.Service)
		same   bool
	}{
		"nothing":             {func(*lb.Service) {}, true},
		"another next hop":    {func(s *lb.Service) { s.RealServers[0].NextHop.MAC[5] = 9 }, true},
		"another persistence": {func(s *lb.Service) { s.Persistence = 1 }, true},
		"no next hop":         {func(s *lb.Service) { s.RealServers[0].NextHop = lb.NextHop{} }, false},
		"a weight":            {func(s *lb.Service) { s.RealServers[1].Weight = 3 }, false},
		"a weight of 0":       {func(s *lb.Service) { s.RealServers[2].Weight = 3 }, false},
		"down":                {func(s *lb.Service) { s.RealServers[1].Up = false }, false},
		"the scheduler":       {func(s *lb.Service) { s.Scheduler = lb.RoundRobin }, false},
		"the order":           {func(s *lb.Service) { slices.Reverse(s.RealServers) }, false},
		"one server less":     {func(s *lb.Service) { s.RealServers = s.RealServers[:2] }, false},
	} {
		other := base
		other.RealServers = slices.Clone(base.RealServers)
		row.change(&other)
		if got := lb.SameSchedule(base, other); got != row.same {
			t.Errorf("%s: %v, want %v", name, got, row.same)
		}
	}
}

func BenchmarkMaglevOfManyServers(b *testing.B) {
	s := hashed(lb.MaglevHashing, servers(slices.Repeat([]uint16{1}, 600)...))
	for b.Loop() {
		lb.Schedule(s)
	}
}

func TestParseProtocol(t *testing.T) {
	for _, p := range []lb.Protocol{lb.TCP, lb.UDP, lb.SCTP} {
		if got, err := lb.ParseProtocol(p.String()); err != nil || got != p {
			t.Errorf("ParseProtocol(%q) = %v, %v", p, got, err)
		}
	}
	if _, err := lb.ParseProtocol("icmp"); err == nil {
		t.Error("icmp was taken")
	}
}
