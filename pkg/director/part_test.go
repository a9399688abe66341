package director

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/xdirector/xdirector/pkg/config"
	"github.com/xdirector/xdirector/pkg/lb"
	"github.com/xdirector/xdirector/pkg/neigh"
)

func TestPartOfARealServerInThePlane(t *testing.T) {
	up := func(weight uint16) claim { return claim{configured: weight, up: true, tenths: allTenths} }
	with := func(c claim, change func(*claim)) claim { change(&c); return c }
	down := func(c *claim) { c.up = false }
	keep := func(c *claim) { c.keep = true }
	weighs := func(w uint16) func(*claim) { return func(c *claim) { c.override.Weight = &otherWeight{Value: w} } }
	drained := func(c *claim) { c.override.Drain = &drain{} }
	overdue := func(c *claim) { c.override.Drain = &drain{Over: true} }
	starts := func(tenths int) func(*claim) { return func(c *claim) { c.tenths = tenths } }
	for name, tt := range map[string]struct {
		claims []claim
		aside  bool
		want   []part
	}{
		"as configured":                       {[]claim{up(3), up(0)}, false, []part{{3, true}, {0, true}}},
		"an operator's weight":                {[]claim{with(up(3), weighs(7)), with(up(3), weighs(0))}, false, []part{{7, true}, {0, true}}},
		"drained: keeps its flows":            {[]claim{with(up(3), drained)}, false, []part{{0, true}}},
		"drained with another weight":         {[]claim{with(with(up(3), weighs(7)), drained)}, false, []part{{0, true}}},
		"drained and the deadline over":       {[]claim{with(up(3), overdue)}, false, []part{{0, false}}},
		"down: its flows go elsewhere":        {[]claim{with(up(3), down)}, false, []part{{3, false}}},
		"down, keep-weight-0":                 {[]claim{with(with(up(3), down), keep)}, false, []part{{0, true}}},
		"down, keep-weight-0, the drain over": {[]claim{with(with(with(up(3), down), keep), overdue)}, false, []part{{0, false}}},
		"down while drained":                  {[]claim{with(with(up(3), down), drained)}, false, []part{{0, false}}},
		"a tenth of small weights":            {[]claim{with(up(1), starts(1)), up(1), up(0)}, false, []part{{1, true}, {10, true}, {0, true}}},
		"half of an operator's weight":        {[]claim{with(with(up(1), weighs(4)), starts(5)), up(2)}, false, []part{{20, true}, {20, true}}},
		"a tenth of a large weight":           {[]claim{with(up(6554), starts(1)), up(1)}, false, []part{{655, true}, {1, true}}},
		"a tenth of 1 beside a large weight":  {[]claim{with(up(1), starts(1)), up(65535)}, false, []part{{1, true}, {65535, true}}},
		"down while it starts":                {[]claim{with(with(up(2), starts(5)), down), up(1)}, false, []part{{2, false}, {1, true}}},
		"drained while it starts":             {[]claim{with(with(up(2), starts(5)), drained), up(1)}, false, []part{{0, true}, {1, true}}},
		"the sorry server has the new flows":  {[]claim{up(3), with(up(3), down), with(with(up(1), down), keep), with(up(1), overdue)}, true, []part{{0, true}, {3, false}, {0, true}, {0, false}}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, parts(tt.claims, tt.aside), cmp.AllowUnexported(part{})); diff != "" {
				t.Errorf("want -, got +:\n%s", diff)
			}
		})
	}
}

func TestWeightGrowsFromATenthInEvenSteps(t *testing.T) {
	last := 0
	for at := time.Duration(0); at <= 40*time.Second; at += time.Second {
		got := tenths(at, 30*time.Second)
		if got != last && got != last+1 || at == 0 && got != 1 || (got == allTenths) != (at >= 30*time.Second) {
			t.Errorf("%d tenths after %s, %d a second before", got, at, last)
		}
		last = got
	}
	if tenths(0, 0) != allTenths {
		t.Error("without slow_start it has not its whole weight")
	}
}

func TestSlowStartIsForSchedulersThatWeigh(t *testing.T) {
	now := time.Now()
	f := facts{now: now.Add(15 * time.Second), servers: map[lb.ServerKey]*server{{Service: web, Address: first}: {up: true, rose: now}, {Service: web, Address: other}: {up: true}}}
	cfg := oneService()
	s := &cfg.Services[0]
	s.SlowStart = 30 * time.Second
	for scheduler, want := range map[lb.Scheduler][]part{
		lb.RoundRobin: {{1, true}, {3, true}}, lb.SourceHashing: {{1, true}, {3, true}},
		lb.WeightedRoundRobin: {{5, true}, {30, true}}, lb.MaglevHashing: {{5, true}, {30, true}},
	} {
		s.Scheduler = scheduler
		if diff := cmp.Diff(want, parts(f.claims(*s), false), cmp.AllowUnexported(part{})); diff != "" {
			t.Errorf("%s: want -, got +:\n%s", scheduler, diff)
		}
	}
}

func TestADownRealServerThatKeepsItsFlowsHasFailed(t *testing.T) {
	cfg := oneService()
	cfg.Services[0].OnDown = config.OnDownKeep
	down := map[lb.ServerKey]*server{{Service: web, Address: first}: {}}
	drained := map[string]override{"web/192.168.5.104": {Drain: &drain{}}}
	servers := wish(cfg, lb.XDPNative, facts{servers: down, overrides: drained}).Services[0].RealServers
	if r := servers[0]; !r.Up || !r.Failed || r.Weight != 0 {
		t.Errorf("the one that is down: %+v", r)
	}
	if r := servers[1]; !r.Up || r.Failed || r.Weight != 0 {
		t.Errorf("the one that is drained, and only that: %+v", r)
	}
}

func TestQuorumIsLostAndFoundWithHysteresis(t *testing.T) {
	s := config.Service{Quorum: 3, Hysteresis: 1}
	lost := false
	for _, step := range []struct {
		up   []uint16
		lost bool
	}{{[]uint16{2, 2}, false}, {[]uint16{2}, false}, {[]uint16{1}, true}, {[]uint16{2, 1}, true}, {[]uint16{2, 2}, false}, {nil, true}, {[]uint16{5}, false}} {
		claims := []claim{{configured: 9}} // down
		sum := 0
		for _, w := range step.up {
			claims = append(claims, claim{configured: w, up: true, tenths: 1}) // a slow start counts in full
			sum += int(w)
		}
		weight, there := quorate(s, claims, lost)
		if lost = !there; lost != step.lost || weight != sum {
			t.Errorf("%v up: weight %d, lost %v", step.up, weight, lost)
		}
	}
}

func TestSorryServerGetsNewFlowsWithoutAQuorum(t *testing.T) {
	sorry := netip.MustParseAddr("192.168.5.109")
	hops := map[netip.Addr]neigh.Hop{first: hop1, other: hop1, sorry: hop1}
	cfg := oneService()
	s := &cfg.Services[0]
	s.SorryServer = config.SorryServer{Address: sorry, Port: 80}
	s.Quorum = 4
	down := map[lb.ServerKey]*server{{Service: web, Address: first}: {}}
	drained := map[string]override{"web/192.168.5.103": {Drain: &drain{}}}
	for name, tt := range map[string]struct {
		facts facts
		want  []part // of the last one: the sorry server
	}{
		"a quorum":                        {facts{hops: hops}, []part{{1, true}, {3, true}, {1, false}}},
		"one is down":                     {facts{hops: hops, servers: down}, []part{{1, false}, {0, true}, {1, true}}},
		"one is drained":                  {facts{hops: hops, overrides: drained}, []part{{0, true}, {0, true}, {1, true}}},
		"a sorry server without a way":    {facts{hops: map[netip.Addr]neigh.Hop{first: hop1}, servers: down}, []part{{1, false}, {3, true}, {1, false}}},
		"a quorum again, no hysteresis":   {facts{hops: hops, lost: map[string]bool{"web": true}}, []part{{1, true}, {3, true}, {1, false}}},
		"another service without one":     {facts{hops: hops, lost: map[string]bool{"dns": true}}, []part{{1, true}, {3, true}, {1, false}}},
		"this box, while another has VIP": {facts{hops: map[netip.Addr]neigh.Hop{first: hop1, other: hop1, sorry: {NextHop: lb.NextHop{Local: true}}}, servers: down, held: map[netip.Addr]bool{vip: false}}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			var got []part
			for _, service := range wish(cfg, lb.IPVS, tt.facts).Services {
				for _, r := range service.RealServers {
					got = append(got, part{r.Weight, r.Up})
				}
			}
			if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(part{})); diff != "" {
				t.Errorf("want -, got +:\n%s", diff)
			}
		})
	}
	if list := targets(cfg); len(list) != 3 || list[2] != sorry {
		t.Errorf("the next hops of %v are looked for, want the sorry server's too", list)
	}
}
