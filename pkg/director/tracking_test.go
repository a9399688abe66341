package director

import (
	"bytes"
	"context"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/xdirector/xdirector/pkg/config"
	"github.com/xdirector/xdirector/pkg/ha"
	"github.com/xdirector/xdirector/pkg/lb"
	"github.com/xdirector/xdirector/pkg/track"
)

// fakeElection notes what it is told.
type fakeElection struct{ told []map[string]ha.Track }

func (e *fakeElection) Run(context.Context) error    { return nil }
func (e *fakeElection) Configure(ha.Config)          {}
func (e *fakeElection) Stop()                        {}
func (e *fakeElection) Reports() <-chan ha.Report    { return nil }
func (e *fakeElection) Track(by map[string]ha.Track) { e.told = append(e.told, maps.Clone(by)) }
func (*fakeElection) Maps([]*os.File)                {}

// last is what the election was told last.
func (e *fakeElection) last() map[string]ha.Track {
	if len(e.told) == 0 {
		return nil
	}
	return e.told[len(e.told)-1]
}

func tracksScript(name string, weight int) config.Track {
	return config.Track{Scripts: []config.TrackScript{{Name: name, Weight: weight}}}
}

func TestWeightsSayWhatATrackedThingDoes(t *testing.T) {
	bad := track.ScriptState{Known: true, Reason: "failed 3 times: exit status 1: no answer"}
	good := track.ScriptState{Known: true, Good: true, Reason: "succeeded"}
	seen := track.State{
		Scripts:   map[string]track.ScriptState{"bad": bad, "good": good, "new": {}},
		Files:     map[string]track.FileState{"/none": {}, "/five": {Value: 5}, "/minus": {Value: -3}, "/huge": {Value: 1_000_000_000}, "/ill": {Value: 2, Problem: "it holds no number"}},
		Processes: map[string]int{"nginx": 2, "gone": 0},
	}
	services := map[string]serviceHealth{"web": {live: 2, all: 3}}
	script := tracksScript
	file := func(path string, weight int) config.Track {
		return config.Track{Files: []config.TrackFile{{Path: path, Weight: weight}}}
	}
	process := func(name string, atLeast, weight int) config.Track {
		return config.Track{Processes: []config.TrackProcess{{Name: name, Min: atLeast, Weight: weight}}}
	}
	service := func(atLeast, weight int) config.Track {
		return config.Track{Services: []config.TrackService{{Name: "web", MinUp: atLeast, Weight: weight}}}
	}
	const down = "script bad failed 3 times: exit status 1: no answer"
	for name, tt := range map[string]struct {
		track config.Track
		fresh bool
		want  ha.Track
	}{
		"nothing":                         {config.Track{}, true, ha.Track{}},
		"script bad, weight 0":            {script("bad", 0), false, ha.Track{Hold: down}},
		"script bad, negative":            {script("bad", -20), false, ha.Track{Adjust: -20, Text: down + ": -20"}},
		"script bad, positive":            {script("bad", 20), false, ha.Track{}},
		"script good, weight 0":           {script("good", 0), true, ha.Track{}},
		"script good, negative":           {script("good", -20), false, ha.Track{}},
		"script good, positive":           {script("good", 20), false, ha.Track{Adjust: 20, Text: "script good succeeded: +20"}},
		"script not run yet, at a start":  {script("new", 0), true, ha.Track{Hold: "script new has not ended its first run"}},
		"script not run yet, after one":   {script("new", 0), false, ha.Track{}},
		"script not run yet, negative":    {script("new", -20), true, ha.Track{}},
		"script not run yet, positive":    {script("new", 20), true, ha.Track{}},
		"missing file, weight 0":          {file("/none", 0), false, ha.Track{}},
		"missing file, weight":            {file("/none", -10), false, ha.Track{}},
		"file, weight 0":                  {file("/five", 0), false, ha.Track{Hold: "file /five says 5"}},
		"file, negative":                  {file("/five", -10), false, ha.Track{Adjust: -50, Text: "file /five says 5: -50"}},
		"file, positive":                  {file("/five", 1), false, ha.Track{Adjust: 5, Text: "file /five says 5: +5"}},
		"negative file, negative":         {file("/minus", -10), false, ha.Track{Adjust: 30, Text: "file /minus says -3: +30"}},
		"huge file":                       {file("/huge", -253), false, ha.Track{Adjust: -253, Text: "file /huge says 1000000000: -253"}},
		"file of no number":               {file("/ill", -1), false, ha.Track{Adjust: -2, Text: "file /ill says 2: -2"}},
		"file not looked at yet":          {file("/unknown", 0), true, ha.Track{}},
		"process runs":                    {process("nginx", 1, 0), false, ha.Track{}},
		"process runs often enough":       {process("nginx", 2, 7), false, ha.Track{Adjust: 7, Text: "process nginx runs 2 times, 2 wanted: +7"}},
		"process runs too seldom":         {process("nginx", 3, 0), false, ha.Track{Hold: "process nginx runs 2 times, 3 wanted"}},
		"process doesn't run":             {process("gone", 1, -7), false, ha.Track{Adjust: -7, Text: "process gone does not run: -7"}},
		"process not looked at yet":       {process("other", 1, 0), true, ha.Track{}},
		"service with enough":             {service(2, 0), false, ha.Track{}},
		"service with too few":            {service(3, 0), false, ha.Track{Hold: "service web has 2 of 3 real servers that can take new flows, 3 wanted"}},
		"service with too few, weighted":  {service(3, -50), false, ha.Track{Adjust: -50, Text: "service web has 2 of 3 real servers that can take new flows, 3 wanted: -50"}},
		"service with enough, and weight": {service(1, 50), false, ha.Track{Adjust: 50, Text: "service web has 2 of 3 real servers that can take new flows, 1 wanted: +50"}},
		"several": {config.Track{
			Scripts: []config.TrackScript{{Name: "bad"}, {Name: "good", Weight: 5}},
			Files:   []config.TrackFile{{Path: "/five"}, {Path: "/minus", Weight: 1}},
		}, false, ha.Track{Adjust: 2, Text: "script good succeeded: +5; file /minus says -3: -3", Hold: down + "; file /five says 5"}},
	} {
		t.Run(name, func(t *testing.T) {
			got := merge(effects(config.Instance{Name: "VI_1", Track: tt.track}, seen, services, tt.fresh))
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("want -, got +:\n%s", diff)
			}
		})
	}
}

// tracked makes a director of instances with a fake election, as it is after the first look.
func tracked(t *testing.T, instances ...config.Instance) (*Director, *fakeElection, *bytes.Buffer) {
	t.Helper()
	d := forTest(t, t.TempDir())
	e, log := &fakeElection{}, &bytes.Buffer{}
	d.ha, d.cfg.Instances = e, instances
	d.log = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
	d.recallOperator()
	d.startTracking()
	return d, e, log
}

func TestEachChangeIsToldOnceWithItsCauseAndWhatFollows(t *testing.T) {
	d, e, log := tracked(t,
		config.Instance{Name: "a", Track: tracksScript("chk", 0)},
		config.Instance{Name: "b", Track: tracksScript("chk", -20)},
		config.Instance{Name: "c", Track: tracksScript("chk", 0)},
		config.Instance{Name: "d"},
	)
	say := func(s track.ScriptState) {
		d.onTracked(track.State{Scripts: map[string]track.ScriptState{"chk": s}, Ready: true})
	}
	d.track()
	const first = "script chk has not ended its first run"
	if diff := cmp.Diff(map[string]ha.Track{"a": {Hold: first}, "c": {Hold: first}}, e.last()); diff != "" {
		t.Errorf("before the first run: want -, got +:\n%s", diff)
	}
	say(track.ScriptState{Known: true, Good: true, Reason: "succeeded"})
	if len(e.last()) != 0 {
		t.Errorf("told %v", e.last())
	}
	log.Reset()
	bad := track.ScriptState{Known: true, Reason: "failed 3 times: exit status 1"}
	say(bad)
	say(bad)
	const told = "script chk failed 3 times: exit status 1"
	if diff := cmp.Diff(map[string]ha.Track{"a": {Hold: told}, "b": {Adjust: -20, Text: told + ": -20"}, "c": {Hold: told}}, e.last()); diff != "" {
		t.Errorf("want -, got +:\n%s", diff)
	}
	say(track.ScriptState{Known: true, Good: true, Reason: "succeeded 2 times"})
	if len(e.last()) != 0 {
		t.Errorf("told %v", e.last())
	}
	if len(e.told) != 4 {
		t.Errorf("the election was told %d times, want 4: %v", len(e.told), e.told)
	}
	want := `level=WARN msg="script chk failed 3 times: exit status 1; b changes its priority by -20; a, c must not be MASTER"
level=INFO msg="script chk succeeded 2 times; b has its own priority again; a, c may be MASTER again"
`
	if log.String() != want {
		t.Errorf("log:\n%swant:\n%s", log, want)
	}
}

func TestFileWithAMistakeIsToldOnce(t *testing.T) {
	d, e, log := tracked(t, config.Instance{Name: "a", Track: config.Track{Files: []config.TrackFile{{Path: "/f", Weight: -5}}}})
	for range 3 {
		d.onTracked(track.State{Files: map[string]track.FileState{"/f": {Value: 2, Problem: `it holds no number, but "on": write one, such as 0`}}, Ready: true})
	}
	want := `level=WARN msg="file /f: it holds no number, but \"on\": write one, such as 0; until then it counts as 2; a changes its priority by -10"` + "\n"
	if log.String() != want || len(e.told) != 1 {
		t.Errorf("told %d times, log:\n%swant:\n%s", len(e.told), log, want)
	}
}

func TestInstanceThatRunsDoesNotWaitForAScriptThatAReloadAdds(t *testing.T) {
	d, e, _ := tracked(t, config.Instance{Name: "old"})
	d.track()
	now := *d.cfg
	now.Instances = []config.Instance{{Name: "old", Track: tracksScript("chk", 0)}, {Name: "new", Track: tracksScript("chk", 0)}}
	d.cfg = &now
	d.configureTracking(d.cfg)
	d.tracking.seen = track.State{Scripts: map[string]track.ScriptState{"chk": {}}, Ready: true}
	d.track()
	if last := e.last(); last["old"].Hold != "" || last["new"].Hold == "" {
		t.Errorf("told %v: the new instance waits, the old one doesn't", last)
	}
	d.onTracked(track.State{Scripts: map[string]track.ScriptState{"chk": {Known: true}}, Ready: true})
	if last := e.last(); last["old"].Hold == "" || last["new"].Hold == "" {
		t.Errorf("told %v: a script that failed holds both", last)
	}
}

func TestRestartKnowsWhatScriptsWereWorth(t *testing.T) {
	// A run that takes a minute: until then nothing is known but by memory.
	instance := config.Instance{Name: "a", Track: config.Track{Scripts: []config.TrackScript{{Name: "good"}, {Name: "bad", Weight: -20}}}}
	d, _, _ := tracked(t, instance)
	d.onTracked(track.State{Scripts: map[string]track.ScriptState{
		"good": {Known: true, Good: true, Reason: "succeeded"}, "bad": {Known: true, Reason: "failed: exit status 1"}, "unknown": {},
	}, Ready: true})

	next := forTest(t, d.cfg.StateDir)
	next.log = slog.New(slog.DiscardHandler)
	e := &fakeElection{}
	next.ha, next.cfg.Instances = e, []config.Instance{instance}
	for _, name := range []string{"good", "bad"} {
		next.cfg.Scripts = append(next.cfg.Scripts, config.Script{Name: name, Command: []string{"/bin/sleep", "60"}, Interval: time.Minute, Timeout: time.Minute, User: "nobody"})
	}
	next.recallOperator()
	next.startTracking()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- next.tracking.runner.Run(ctx) }()
	next.awaitFirstLook(t.Context())
	next.track()
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff(map[string]ha.Track{"a": {Adjust: -20, Text: "script bad failed: exit status 1: -20"}}, e.last()); diff != "" {
		t.Errorf("want -, got +:\n%s", diff)
	}
	next.forget()
	if known := next.recallScripts(); len(known) != 0 {
		t.Errorf("after a clean stop %v is known", known)
	}
}

func TestOnlyWhatAnInstanceTracksIsWatched(t *testing.T) {
	cfg := &config.Config{
		Scripts: []config.Script{{Name: "used", Command: []string{"/bin/true"}}, {Name: "unused", Command: []string{"/bin/false"}}},
		Instances: []config.Instance{
			{Name: "a", Track: config.Track{Scripts: []config.TrackScript{{Name: "used"}}, Files: []config.TrackFile{{Path: "/f"}}}},
			{Name: "b", Track: config.Track{Scripts: []config.TrackScript{{Name: "used"}}, Processes: []config.TrackProcess{{Name: "nginx", Min: 1}}}},
		},
	}
	want := track.Wish{Scripts: []track.Script{{Name: "used", Command: []string{"/bin/true"}}}, Files: []string{"/f"}, Processes: []string{"nginx"}}
	if diff := cmp.Diff(want, watching(cfg)); diff != "" {
		t.Errorf("want -, got +:\n%s", diff)
	}
}

func TestServiceHealthCountsRealServersThatCanTakeNewFlows(t *testing.T) {
	d := forTest(t, t.TempDir())
	d.cfg.Services[0].RealServers = nil
	for n, weight := range []uint16{1, 1, 1, 0} {
		a := netip.AddrFrom4([4]byte{192, 168, 5, byte(n)})
		d.cfg.Services[0].RealServers = append(d.cfg.Services[0].RealServers, config.RealServer{Address: a, Port: 80, Weight: weight})
		d.servers[lb.ServerKey{Service: serviceKey(d.cfg.Services[0]), Address: a}] = newServer(n != 1, "")
	}
	if got := d.serviceHealth()["web"]; got != (serviceHealth{live: 2, all: 4}) {
		t.Errorf("%+v, want 2 of 4: one is down, one has weight 0", got)
	}
}

func TestLogNamesFewOfManyInstances(t *testing.T) {
	var names []string
	for n := range 200 {
		names = append(names, "VI_"+string(rune('a'+n%26))+strings.Repeat("x", n/26))
	}
	if got := some(slices.Clone(names)); strings.Count(got, ",") != 4 || !strings.HasSuffix(got, " and 195 more") {
		t.Errorf("%q", got)
	}
	if got := some([]string{"b", "a"}); got != "a, b" {
		t.Errorf("%q", got)
	}
}
