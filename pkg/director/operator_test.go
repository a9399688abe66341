package director

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/xdirector/xdirector/pkg/config"
	"github.com/xdirector/xdirector/pkg/control"
	"github.com/xdirector/xdirector/pkg/ha"
)

// operated makes a director with the instances a, b and c, of which b and c are a sync group, and a loop that does what
// operators command.
func operated(t *testing.T, dir string) (*Director, *fakeElection) {
	t.Helper()
	d, e := forTest(t, dir), &fakeElection{}
	d.ha, d.log = e, slog.New(slog.DiscardHandler)
	d.cfg.Instances = []config.Instance{{Name: "a", Version: 2, AdvertInterval: 5 * time.Second}, {Name: "b", Version: 3, AdvertInterval: 100 * time.Millisecond}, {Name: "c", Version: 3, AdvertInterval: 20 * time.Second}}
	d.cfg.SyncGroups = []config.SyncGroup{{Name: "both", Instances: []string{"b", "c"}}}
	d.commands, d.meter = make(chan func()), newMeter()
	d.recallOperator()
	d.startTracking()
	d.setExpiry()
	d.track()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case command := <-d.commands:
				command()
			case <-d.expiry:
				d.ordered()
				d.apply(ctx)
			case <-ctx.Done():
				return
			}
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
	return d, e
}

// told is what the election was told last, once the loop is at rest.
func told(t *testing.T, d *Director, e *fakeElection) map[string]ha.Track {
	t.Helper()
	var last map[string]ha.Track
	if err := d.command(t.Context(), func() error { last = e.last(); return nil }); err != nil {
		t.Fatal(err)
	}
	return last
}

func TestFailoverLastsUntilItIsTakenBackOrOver(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		d, e := operated(t, dir)
		o, err := d.Failover(t.Context(), "a", 0)
		if err != nil || len(o.Instances) != 1 || !o.Until.IsZero() || !o.Changed || o.Warning != "" || o.HandoverLimit != 4200*time.Millisecond {
			t.Errorf("%+v, %v", o, err)
		}
		o, err = d.Failover(t.Context(), "b", 10*time.Minute)
		if err != nil || o.Group != "both" || len(o.Instances) != 2 || time.Until(o.Until) != 10*time.Minute || o.HandoverLimit != 42200*time.Millisecond {
			t.Errorf("%+v, %v", o, err)
		}
		yield := ha.Track{Yield: true}
		if diff := cmp.Diff(map[string]ha.Track{"a": yield, "b": yield, "c": yield}, told(t, d, e)); diff != "" {
			t.Errorf("want -, got +:\n%s", diff)
		}
		time.Sleep(10*time.Minute + time.Second)
		if diff := cmp.Diff(map[string]ha.Track{"a": yield}, told(t, d, e)); diff != "" {
			t.Errorf("after the time of the second: want -, got +:\n%s", diff)
		}
		if o, err := d.Return(t.Context(), "a"); err != nil || !o.Changed {
			t.Errorf("%+v, %v", o, err)
		}
		if o, err := d.Return(t.Context(), "a"); err != nil || o.Changed {
			t.Errorf("a second time: %+v, %v", o, err)
		}
		if len(told(t, d, e)) != 0 {
			t.Errorf("told %v", e.last())
		}
	})
}

func TestFailoverOfASyncGroupIsTakenBackByAnyMember(t *testing.T) {
	d, e := operated(t, t.TempDir())
	for _, step := range []struct{ failover, again, back string }{{"b", "c", "b"}, {"c", "c", "b"}, {"b", "b", "c"}} {
		for _, name := range []string{step.failover, step.again} {
			if _, err := d.Failover(t.Context(), name, 0); err != nil {
				t.Fatal(err)
			}
		}
		if last := told(t, d, e); !last["b"].Yield || !last["c"].Yield || last["a"].Yield {
			t.Errorf("failover of %s: told %v", step.failover, last)
		}
		if o, err := d.Return(t.Context(), step.back); err != nil || !o.Changed {
			t.Fatalf("%+v, %v", o, err)
		}
		if last := told(t, d, e); len(last) != 0 {
			t.Errorf("%s taken back by %s: told %v", step.failover, step.back, last)
		}
	}
}

func TestMaintenanceHoldsEveryInstance(t *testing.T) {
	d, e := operated(t, t.TempDir())
	for range 2 {
		if _, err := d.Maintenance(t.Context(), true); err != nil {
			t.Fatal(err)
		}
	}
	held := ha.Track{Hold: maintenance}
	if diff := cmp.Diff(map[string]ha.Track{"a": held, "b": held, "c": held}, told(t, d, e)); diff != "" {
		t.Errorf("want -, got +:\n%s", diff)
	}
	if o, err := d.Maintenance(t.Context(), false); err != nil || !o.Changed || len(o.Instances) != 3 {
		t.Errorf("%+v, %v", o, err)
	}
	if len(told(t, d, e)) != 0 {
		t.Errorf("told %v", e.last())
	}
}

func TestUnknownInstanceIsToldTheNamesThereAre(t *testing.T) {
	d, _ := operated(t, t.TempDir())
	d.cfg.Instances[0].Name = "VI_web"
	_, err := d.Failover(t.Context(), "VI_wbe", 0)
	if !errors.Is(err, control.ErrUnknown) || err.Error() != `no instance "VI_wbe" is configured here (did you mean "VI_web"?): there are VI_web, b, c` {
		t.Errorf("error %v", err)
	}
	d.stopping = true
	if _, err := d.Failover(t.Context(), "b", 0); err == nil || !strings.Contains(err.Error(), "stopping") {
		t.Errorf("while stopping: %v", err)
	}
	if _, err := d.Maintenance(t.Context(), true); err == nil || !strings.Contains(err.Error(), "stopping") {
		t.Errorf("while stopping: %v", err)
	}
}

func TestWishesOfOperatorsSurviveARestartButNotABoot(t *testing.T) {
	dir := t.TempDir()
	d, _ := operated(t, dir)
	for _, do := range []func() (control.Order, error){
		func() (control.Order, error) { return d.Failover(t.Context(), "a", 0) },
		func() (control.Order, error) { return d.Failover(t.Context(), "b", time.Hour) },
		func() (control.Order, error) { return d.Maintenance(t.Context(), true) },
	} {
		if _, err := do(); err != nil {
			t.Fatal(err)
		}
	}
	d.forget() // what a clean stop does

	next, e := operated(t, dir)
	for name, got := range told(t, next, e) {
		if !got.Yield || got.Hold != maintenance {
			t.Errorf("%s after a restart: %+v", name, got)
		}
	}
	if len(e.last()) != 3 || !next.yielding("c") {
		t.Errorf("told %v", e.last())
	}
	if left := time.Until(next.operator.Yield["b"].Until); left > time.Hour || left < 59*time.Minute {
		t.Errorf("the failover of b ends in %v", left)
	}

	file := filepath.Join(dir, "operator.json")
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(strings.Replace(string(data), `"boot_id": "`, `"boot_id": "another`, 1)), 0o644); err != nil {
		t.Fatal(err)
	}
	booted, e := operated(t, dir)
	if last := told(t, booted, e); len(last) != 0 {
		t.Errorf("after a boot: %v", last)
	}
}

func TestFailoverWhoseTimeIsOverAtTheRestartIsOver(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		d, _ := operated(t, dir)
		if _, err := d.Failover(t.Context(), "a", time.Minute); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour) // nobody runs
		next, e := operated(t, dir)
		if last := told(t, next, e); len(last) != 0 {
			t.Errorf("told %v", last)
		}
	})
}

func TestWishThatCantBeRecordedIsInForceAndToldSo(t *testing.T) {
	d, e := operated(t, filepath.Join(t.TempDir(), "state"))
	if err := os.WriteFile(d.cfg.StateDir, nil, 0o644); err != nil { // a file where the folder should be
		t.Fatal(err)
	}
	o, err := d.Failover(t.Context(), "a", 0)
	if err != nil || !strings.Contains(o.Warning, "would not survive a restart") {
		t.Errorf("%+v, %v", o, err)
	}
	if !told(t, d, e)["a"].Yield {
		t.Error("it is not in force")
	}
}

func TestInstanceThatAReloadRemovesIsForgotten(t *testing.T) {
	d, _ := operated(t, t.TempDir())
	for _, name := range []string{"a", "b"} {
		if _, err := d.Failover(t.Context(), name, 0); err != nil {
			t.Fatal(err)
		}
	}
	d.pruneOperator(&config.Config{Instances: []config.Instance{{Name: "b"}}})
	if len(d.operator.Yield) != 1 || !d.yielding("b") {
		t.Errorf("left are %v", d.operator.Yield)
	}
}
