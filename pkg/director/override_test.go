package director

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/xdirector/xdirector/pkg/config"
	"github.com/xdirector/xdirector/pkg/control"
	"github.com/xdirector/xdirector/pkg/health"
	"github.com/xdirector/xdirector/pkg/lb"
	"github.com/xdirector/xdirector/pkg/neigh"
	"github.com/xdirector/xdirector/pkg/status"
)

// kept is a plane that keeps what it was told.
type kept struct{ states []lb.State }

func (k *kept) Apply(_ context.Context, s lb.State) error { k.states = append(k.states, s); return nil }
func (*kept) Counters() (lb.Counters, error)              { return lb.Counters{}, nil }
func (*kept) Close() error                                { return nil }
func (*kept) Remove() error                               { return nil }

// parts are those of the only service.
func (k *kept) parts() (list []part) {
	for _, r := range k.states[len(k.states)-1].Services[0].RealServers {
		list = append(list, part{r.Weight, r.Up})
	}
	return list
}

// overruled makes a director of one service web, with the weights 1 and 3, and a plane.
func overruled(t *testing.T, dir string) (*Director, *kept) {
	t.Helper()
	d, _ := operated(t, dir)
	p := &kept{}
	err := d.command(t.Context(), func() error {
		d.plane, d.hops = plane{Plane: p, name: lb.XDPNative}, map[netip.Addr]neigh.Hop{first: hop1, other: hop1}
		d.cfg.Services[0].Scheduler = lb.WeightedRoundRobin
		d.targets(d.cfg)
		d.apply(t.Context())
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return d, p
}

func wantParts(t *testing.T, d *Director, p *kept, want ...part) {
	t.Helper()
	var got []part
	if err := d.command(t.Context(), func() error { got = p.parts(); return nil }); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(part{})); diff != "" {
		t.Errorf("the plane was told: want -, got +:\n%s", diff)
	}
}

func TestDrainLastsUntilItIsTakenBackAndItsFlowsUntilTheDeadline(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		d, p := overruled(t, dir)
		drain := func(deadline time.Duration, changed bool) {
			t.Helper()
			o, err := d.Drain(t.Context(), "web", other, deadline)
			if err != nil || o.Changed != changed || !o.Drained || o.Weight != 0 || o.ConfiguredWeight != 3 || o.Warning != "" || o.InForce.IsZero() {
				t.Errorf("%+v, %v", o, err)
			}
			if left := time.Until(o.Deadline); deadline > 0 && left != deadline || deadline == 0 && !o.Deadline.IsZero() {
				t.Errorf("the deadline is %s", o.Deadline)
			}
			if seen := d.Status().Overrides; len(seen) != 1 || !seen[0].Until.Equal(o.Deadline) {
				t.Errorf("the command has ended, and the status shows the overrides %+v", seen)
			}
			wantParts(t, d, p, part{1, true}, part{0, true})
		}
		drain(0, true)
		drain(0, false)
		time.Sleep(time.Minute)
		drain(10*time.Minute, true)
		var list []status.Override
		d.command(t.Context(), func() error { list = d.overrides(lb.Counters{}); return nil })
		if len(list) != 1 || list[0].Kind != status.KindDrain || time.Since(list[0].Since) != time.Minute || time.Until(list[0].Until) != 10*time.Minute || list[0].Over {
			t.Errorf("overrides %+v", list)
		}
		time.Sleep(10*time.Minute + time.Second)
		wantParts(t, d, p, part{1, true}, part{0, false})
		if o, err := d.Undrain(t.Context(), "web", other); err != nil || !o.Changed || o.Weight != 3 {
			t.Errorf("%+v, %v", o, err)
		}
		wantParts(t, d, p, part{1, true}, part{3, true})
		if o, err := d.Undrain(t.Context(), "web", other); err != nil || o.Changed {
			t.Errorf("a second time: %+v, %v", o, err)
		}
	})
}

func TestWeightOfAnOperatorTakesThePlaceOfTheConfiguredOne(t *testing.T) {
	d, p := overruled(t, t.TempDir())
	weight := func(w *uint16, changed bool, inForce uint16, warning string) {
		t.Helper()
		o, err := d.Weight(t.Context(), "web", other, w)
		if err != nil || o.Changed != changed || o.Weight != inForce || !strings.Contains(o.Warning, warning) || warning == "" && o.Warning != "" {
			t.Errorf("%+v, %v", o, err)
		}
	}
	five, none := uint16(5), uint16(0)
	weight(&five, true, 5, "")
	weight(&five, false, 5, "")
	wantParts(t, d, p, part{1, true}, part{5, true})
	if _, err := d.Drain(t.Context(), "web", other, 0); err != nil {
		t.Fatal(err)
	}
	weight(&five, false, 0, "after xdirector undrain")
	if o, err := d.Undrain(t.Context(), "web", other); err != nil || o.Weight != 5 {
		t.Errorf("%+v, %v", o, err)
	}
	weight(&none, true, 0, "")
	wantParts(t, d, p, part{1, true}, part{0, true})
	weight(nil, true, 3, "")
	weight(nil, false, 3, "")
	wantParts(t, d, p, part{1, true}, part{3, true})
	d.cfg.Services[0].Scheduler = lb.RoundRobin
	weight(&five, true, 5, "rr ignores weights other than 0")
}

func TestOverridesSurviveARestartAndAreForgottenWithTheirRealServer(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		d, _ := overruled(t, dir)
		seven := uint16(7)
		if _, err := d.Weight(t.Context(), "web", first, &seven); err != nil {
			t.Fatal(err)
		}
		if _, err := d.Drain(t.Context(), "web", other, time.Minute); err != nil {
			t.Fatal(err)
		}
		d.forget() // what a clean stop does
		next, p := overruled(t, dir)
		wantParts(t, next, p, part{7, true}, part{0, true})
		time.Sleep(time.Hour) // nobody runs
		late, p := overruled(t, dir)
		wantParts(t, late, p, part{7, true}, part{0, false})

		err := late.command(t.Context(), func() error {
			cfg := *late.cfg
			cfg.Services = []config.Service{cfg.Services[0]}
			cfg.Services[0].RealServers = cfg.Services[0].RealServers[1:] // first leaves
			if !late.pruneOperator(&cfg) || late.pruneOperator(&cfg) {
				t.Error("it is forgotten never, or twice")
			}
			late.ordered() // as a reload does
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		again, p := overruled(t, dir)
		wantParts(t, again, p, part{1, true}, part{0, false})
	})
}

func TestUnknownRealServerIsToldTheNamesThereAre(t *testing.T) {
	d, _ := overruled(t, t.TempDir())
	d.cfg.Services[0].SorryServer.Address = netip.MustParseAddr("192.168.5.109")
	for _, tt := range []struct{ service, server, want string }{
		{"wbe", "192.168.5.103", `no service "wbe" is configured here (did you mean "web"?): there are web`},
		{"web", "192.168.5.113", `no real server 192.168.5.113 of web is configured here (did you mean "192.168.5.103"?): there are 192.168.5.103, 192.168.5.104`},
	} {
		_, err := d.Drain(t.Context(), tt.service, netip.MustParseAddr(tt.server), 0)
		if !errors.Is(err, control.ErrUnknown) || err.Error() != tt.want {
			t.Errorf("error %v, want %s", err, tt.want)
		}
	}
	if _, err := d.Undrain(t.Context(), "web", netip.MustParseAddr("192.168.5.109")); err == nil || !strings.Contains(err.Error(), "is the sorry server of web") {
		t.Errorf("sorry server: %v", err)
	}
	d.stopping = true
	if _, err := d.Drain(t.Context(), "web", first, 0); err == nil || !strings.Contains(err.Error(), "stopping") {
		t.Errorf("while stopping: %v", err)
	}
}

func TestRealServersThatGoDownTogetherChangeThePlaneOnce(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		d, p := overruled(t, dir)
		told := len(p.states)
		more := make(chan health.Result, 2)
		more <- resultOf(lb.ServerKey{Service: web, Address: other}, false)
		more <- resultOf(lb.ServerKey{Service: web, Address: netip.MustParseAddr("192.168.5.99")}, false) // a reload has removed it
		if err := d.command(t.Context(), func() error {
			d.onResults(t.Context(), resultOf(lb.ServerKey{Service: web, Address: first}, false), more)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		wantParts(t, d, p, part{1, false}, part{3, false})
		if n := len(p.states) - told; n != 1 {
			t.Errorf("the plane was told %d times, want once", n)
		}
	})
}

func TestRealServerThatComesUpAgainStartsSlowly(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		d, p := overruled(t, dir)
		s := &d.cfg.Services[0]
		s.SlowStart = 30 * time.Second
		key := lb.ServerKey{Service: web, Address: first}
		wantParts(t, d, p, part{1, true}, part{3, true}) // the first start is at full weight
		result := func(up bool) {
			t.Helper()
			if err := d.command(t.Context(), func() error { d.onResults(t.Context(), resultOf(key, up), nil); return nil }); err != nil {
				t.Fatal(err)
			}
		}
		turn := func() { // what a tick does
			t.Helper()
			if err := d.command(t.Context(), func() error { d.apply(t.Context()); return nil }); err != nil {
				t.Fatal(err)
			}
		}
		result(false)
		wantParts(t, d, p, part{1, false}, part{3, true})
		result(true)
		told := len(p.states)
		wantParts(t, d, p, part{1, true}, part{30, true})
		for range 29 {
			time.Sleep(time.Second)
			turn()
		}
		wantParts(t, d, p, part{9, true}, part{30, true})
		time.Sleep(time.Second)
		turn()
		wantParts(t, d, p, part{1, true}, part{3, true})
		if steps := len(p.states) - told; steps != allTenths-1 {
			t.Errorf("%d steps, want %d", steps, allTenths-1)
		}
		for _, step := range p.states[told:] { // nothing but weights of that service changes
			for i := range step.Services[0].RealServers {
				step.Services[0].RealServers[i].Weight = 0
			}
			if diff := cmp.Diff(p.states[told-1].Services[0].RealServers[0].NextHop, step.Services[0].RealServers[0].NextHop); diff != "" || !step.Services[0].RealServers[0].Up {
				t.Errorf("a step changes more than weights: %s", diff)
			}
		}

		if _, err := d.Drain(t.Context(), "web", first, 0); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		if _, err := d.Undrain(t.Context(), "web", first); err != nil {
			t.Fatal(err)
		}
		wantParts(t, d, p, part{1, true}, part{30, true}) // it comes back from a drain
	})
}

func TestLostQuorumIsToldAndOutlivesACrash(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		d, p := overruled(t, dir)
		sorry := netip.MustParseAddr("192.168.5.109")
		configure := func(d *Director) {
			d.hops[sorry] = hop1
			s := &d.cfg.Services[0]
			s.Quorum, s.Hysteresis, s.SorryServer = 3, 1, config.SorryServer{Address: sorry, Port: 80}
		}
		weigh := func(d *Director, weight uint16) {
			t.Helper()
			if _, err := d.Weight(t.Context(), "web", other, &weight); err != nil {
				t.Fatal(err)
			}
		}
		configure(d)
		weigh(d, 1) // 2 of 3, with the hysteresis
		wantParts(t, d, p, part{1, true}, part{1, true}, part{1, false})
		weigh(d, 0)
		wantParts(t, d, p, part{0, true}, part{0, true}, part{1, true})
		weigh(d, 2) // 3: the quorum, but not with the hysteresis
		wantParts(t, d, p, part{0, true}, part{0, true}, part{1, true})

		next := forTest(t, dir)
		next.recall()
		if !next.lost()["web"] {
			t.Error("after a crash the quorum is there")
		}
		weigh(d, 3)
		wantParts(t, d, p, part{1, true}, part{3, true}, part{1, false})
	})
}

func resultOf(key lb.ServerKey, up bool) health.Result {
	return health.Result{Key: health.Key{Service: "web", Address: key.Address}, OK: up, Up: up, Reason: "told so"}
}
