package track

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// safeFolder makes a folder that only root can write, all the way up. What tests usually get lies in /tmp.
func safeFolder(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("LAB") != "" {
			t.Fatal("not root")
		}
		t.Skip("not root")
	}
	dir, err := os.MkdirTemp("/var/lib", "xdirector-track-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func shell(user, line string) Script {
	return Script{Name: "test", Command: []string{"/bin/sh", "-c", line}, Timeout: 5 * time.Second, User: user}
}

// waitFor waits until a fact is so.
func waitFor(t *testing.T, what string, fact func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	ticker := time.NewTicker(2 * time.Millisecond)
	defer ticker.Stop()
	for !fact() {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			t.Fatalf("waited for %s", what)
		}
	}
}

func TestTallyCountsEndsInARow(t *testing.T) {
	for name, tt := range map[string]struct {
		tally tally
		ends  string // + exit 0, - any other
		worth string // after each: ? not known, + good, - bad
	}{
		"first run decides alone, good": {tally{rise: 3, fall: 3}, "+", "+"},
		"first run decides alone, bad":  {tally{rise: 3, fall: 3}, "-", "-"},
		"fall":                          {tally{rise: 1, fall: 3, known: true, good: true}, "--+---", "+++++-"},
		"rise":                          {tally{rise: 2, fall: 1, known: true}, "+-++-", "---+-"},
		"defaults of the configuration": {tally{rise: 1, fall: 1, known: true, good: true}, "-+-+", "-+-+"},
	} {
		t.Run(name, func(t *testing.T) {
			got := ""
			for _, end := range tt.ends {
				was := tt.tally
				changed := tt.tally.add(end == '+')
				if now := tt.tally; changed != (was.known != now.known || was.good != now.good) {
					t.Errorf("changed %v: from %+v to %+v", changed, was, now)
				}
				if changed { // as settle does
					tt.tally.row = 0
				}
				got += map[bool]string{true: "+", false: "-"}[tt.tally.good]
			}
			if got != tt.worth {
				t.Errorf("%s gives %s, want %s", tt.ends, got, tt.worth)
			}
		})
	}
}

// watched runs a Runner until the test ends.
func watched(t *testing.T, known map[string]ScriptState, w Wish) *Runner {
	t.Helper()
	r := New(known, slog.New(slog.DiscardHandler))
	r.Configure(w)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("it ended with %v", err)
			}
		case <-time.After(10 * time.Second):
			t.Error("it doesn't end")
		}
	})
	return r
}

// until waits for a State that is as wanted, and returns it.
func until(t *testing.T, r *Runner, what string, wanted func(State) bool) State {
	t.Helper()
	limit := time.After(10 * time.Second)
	var last State
	for {
		select {
		case last = <-r.Changes():
			if wanted(last) {
				return last
			}
		case <-limit:
			t.Fatalf("waited for %s; the last state is %+v", what, last)
		}
	}
}

func every(interval time.Duration, s Script) Script {
	s.Interval, s.Rise, s.Fall = interval, 2, 3
	return s
}

func TestScriptIsRunOnTimeAndJudgedByRiseAndFall(t *testing.T) {
	dir := safeFolder(t)
	flag, runs := filepath.Join(dir, "flag"), filepath.Join(dir, "runs")
	const interval = 100 * time.Millisecond
	r := watched(t, nil, Wish{Scripts: []Script{every(interval, shell("root", "echo >>"+runs+"; echo looked; test ! -e "+flag))}})
	worth := func(want ScriptState) func(State) bool {
		return func(s State) bool { return s.Scripts["test"] == want }
	}
	until(t, r, "the first run", worth(ScriptState{Known: true, Good: true, Reason: "succeeded"}))
	began := time.Now()
	if err := os.WriteFile(flag, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	until(t, r, "three failures", worth(ScriptState{Known: true, Reason: "failed 3 times: exit status 1: looked"}))
	if took := time.Since(began); took < 2*interval || took > 3*3*interval {
		t.Errorf("noticed after %v, want at most %v", took, 3*interval)
	}
	if err := os.Remove(flag); err != nil {
		t.Fatal(err)
	}
	until(t, r, "two successes", worth(ScriptState{Known: true, Good: true, Reason: "succeeded 2 times"}))
	text, err := os.ReadFile(runs)
	if err != nil {
		t.Fatal(err)
	}
	if n, most := strings.Count(string(text), "\n"), int(time.Since(began)/interval)+3; n > most {
		t.Errorf("it ran %d times, want at most %d", n, most)
	}
}

func TestScriptNeverOverlapsWithItself(t *testing.T) {
	dir := safeFolder(t)
	lock, count := filepath.Join(dir, "lock"), filepath.Join(dir, "count")
	line := fmt.Sprintf("mkdir %s || { echo overlap; exit 1; }; echo >>%s; sleep 0.05; rmdir %s", lock, count, lock)
	s := every(10*time.Millisecond, shell("root", line))
	s.Fall = 1
	r := watched(t, nil, Wish{Scripts: []Script{s}})
	ran := func() int {
		text, _ := os.ReadFile(count)
		return strings.Count(string(text), "\n")
	}
	waitFor(t, "five runs", func() bool { return ran() >= 5 })
	// A script that is run otherwise from now on begins when the old one has ended. Its lock is another.
	s.Command = []string{"/bin/sh", "-c", "exit 0", "changed"}
	r.Configure(Wish{Scripts: []Script{s}})
	state := until(t, r, "the changed script", func(s State) bool { return s.Scripts["test"].Known })
	if !state.Scripts["test"].Good {
		t.Errorf("%+v", state.Scripts["test"])
	}
}

func TestChangedScriptKeepsItsWorthAndARemovedOneIsForgotten(t *testing.T) {
	safeFolder(t)
	s := every(20*time.Millisecond, shell("nobody", "exit 1"))
	r := watched(t, nil, Wish{Scripts: []Script{s}})
	until(t, r, "the failure", func(s State) bool { return s.Scripts["test"].Known })
	s.Command[2] = "sleep 1000"
	changed := s
	changed.Command = []string{"/bin/sh", "-c", "sleep 1000"}
	r.Configure(Wish{Scripts: []Script{changed}, Processes: []string{"init"}})
	state := until(t, r, "the new wish", func(s State) bool { return len(s.Processes) > 0 })
	if got := state.Scripts["test"]; !got.Known || got.Good {
		t.Errorf("a changed script is %+v, want bad as before", got)
	}
	r.Configure(Wish{})
	state = until(t, r, "nothing", func(s State) bool { return len(s.Processes) == 0 })
	if len(state.Scripts) != 0 || !state.Ready {
		t.Errorf("%+v", state)
	}
	r.Configure(Wish{Scripts: []Script{changed}})
	state = until(t, r, "it again", func(s State) bool { return len(s.Scripts) == 1 })
	if state.Scripts["test"].Known {
		t.Errorf("a script that was removed meanwhile is %+v, want not known", state.Scripts["test"])
	}
}

func TestScriptsThatWereKnownBeforeARestartAreKnown(t *testing.T) {
	safeFolder(t)
	slow := every(time.Minute, shell("nobody", "sleep 1000"))
	slow.Timeout = time.Minute
	was := ScriptState{Known: true, Good: true, Reason: "succeeded"}
	r := watched(t, map[string]ScriptState{"test": was}, Wish{Scripts: []Script{slow}})
	state := until(t, r, "the first look", func(s State) bool { return s.Ready })
	if state.Scripts["test"] != was {
		t.Errorf("%+v, want %+v", state.Scripts["test"], was)
	}
}

func TestNoMoreScriptsRunAtOnceThanMayRun(t *testing.T) {
	dir := safeFolder(t)
	var w Wish
	for n := range maxRunning + 8 {
		s := every(time.Minute, shell("root", fmt.Sprintf("echo >%s/%d; sleep 1000", dir, n)))
		s.Name, s.Timeout = fmt.Sprint(n), time.Minute
		w.Scripts = append(w.Scripts, s)
	}
	r := watched(t, nil, w)
	begun := func() int { list, _ := os.ReadDir(dir); return len(list) }
	waitFor(t, "the first scripts", func() bool { return begun() == maxRunning && len(r.slots) == maxRunning })
	// One that is configured away makes room for one of the others.
	r.Configure(Wish{Scripts: w.Scripts[8:]})
	waitFor(t, "others in the place of those that left", func() bool { return begun() > maxRunning })
	if running := len(r.slots); running > maxRunning {
		t.Errorf("%d run", running)
	}
}
