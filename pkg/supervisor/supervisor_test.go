package supervisor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestMain lets the test binary be the children, who are of the supervisor's own program.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "agent":
			os.Exit(fakeAgent(os.Args[2]))
		case "election":
			os.Exit(fakeElection())
		case "busy":
			os.Exit(busyChild())
		}
	}
	os.Exit(m.Run())
}

// fakeAgent says what it hears as STATUS=. It dies when it is to reload, unless it can't even start.
func fakeAgent(state string) int {
	c, err := connect("fake-agent")
	if err != nil {
		return 9
	}
	if _, err := os.Stat(state + "/broken"); err == nil {
		return 1
	}
	tell := func(text string) { _ = c.send(message{kind: kindNotify, body: []byte(text)}) }
	s := settings{}
	s.HA.StateDir = state
	b, err := json.Marshal(s)
	if err != nil || c.send(message{kind: kindConfig, body: b}) != nil {
		return 9
	}
	for {
		m, err := c.receive()
		if err != nil {
			return 9
		}
		switch m.kind {
		case kindReport:
			tell("READY=1")
			tell("STATUS=report " + string(m.body))
		case kindFailed:
			return 1
		case kindReload:
			return 7
		case kindStop:
			return 0
		}
	}
}

// fakeElection reports what it was started with.
func fakeElection() int {
	c, err := connect("fake-election")
	if err != nil {
		return 9
	}
	wishes := 0
	for {
		m, err := c.receive()
		if err != nil {
			return 9
		}
		switch m.kind {
		case kindConfig, kindTrack:
			wishes++
		case kindGo:
			body := fmt.Appendf(nil, "%d wishes, pid %d", wishes, os.Getpid())
			_ = c.send(message{kind: kindReport, body: body})
		case kindStop:
			return 0
		}
	}
}

// running is a supervisor with fake children.
type running struct {
	t       *testing.T
	state   string
	signals chan os.Signal
	ended   chan error

	mu   sync.Mutex
	told []string
	log  strings.Builder
}

func run(t *testing.T, state string) *running {
	t.Helper()
	needRoot(t)
	r := &running{t: t, state: state, signals: make(chan os.Signal, 1), ended: make(chan error, 1)}
	go func() {
		r.ended <- Run(Options{
			AgentArgs:    []string{"xdirector", "agent", state},
			ElectionArgs: []string{"xdirector", "election"},
			Signals:      r.signals,
			Notify: func(s string) {
				r.mu.Lock()
				defer r.mu.Unlock()
				r.told = append(r.told, s)
			},
			Handler: func(string, slog.Leveler) slog.Handler { return slog.NewTextHandler(r, nil) },
		})
	}()
	return r
}

// Write takes the log.
func (r *running) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.log.Write(b)
}

var _ io.Writer = (*running)(nil)

// wait waits for the nth message for the service manager that begins so.
func (r *running) wait(prefix string, n int) string {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), 10*time.Second)
	defer cancel()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for {
		r.mu.Lock()
		var all []string
		for _, s := range r.told {
			if strings.HasPrefix(s, prefix) {
				all = append(all, s)
			}
		}
		told, log := slices.Clone(r.told), r.log.String()
		r.mu.Unlock()
		if len(all) >= n {
			return all[n-1]
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			r.t.Fatalf("the service manager heard %q, want %q %d times\n%s", told, prefix, n, log)
		}
	}
}

// end waits for the end.
func (r *running) end() error {
	r.t.Helper()
	select {
	case err := <-r.ended:
		return err
	case <-time.After(10 * time.Second):
		r.t.Fatal("it doesn't end")
		return nil
	}
}

func TestAgentThatDiesIsStartedAgainWithTheNewestReport(t *testing.T) {
	r := run(t, t.TempDir())
	first := r.wait("STATUS=report", 1)
	r.signals <- syscall.SIGHUP
	if again := r.wait("STATUS=report", 2); again != first {
		t.Errorf("the second agent heard %q, the first %q: the election was not left alone", again, first)
	}
	r.mu.Lock()
	log, told := r.log.String(), r.told
	r.mu.Unlock()
	if !strings.Contains(log, "the agent has ended") || !strings.Contains(log, "exit code 7") {
		t.Errorf("the log doesn't say how the agent ended:\n%s", log)
	}
	if ready := len(slices.DeleteFunc(slices.Clone(told), func(s string) bool { return s != "READY=1" })); ready != 1 {
		t.Errorf("READY=1 told %d times, want once", ready)
	}
	r.signals <- syscall.SIGTERM
	if err := r.end(); err != nil {
		t.Errorf("the end in good order: %v", err)
	}
}

func TestElectionThatDiesIsStartedAgainWithTheNewestWishes(t *testing.T) {
	r := run(t, t.TempDir())
	var wishes, pid int
	if _, err := fmt.Sscanf(r.wait("STATUS=report", 1), "STATUS=report %d wishes, pid %d", &wishes, &pid); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	var now int
	if _, err := fmt.Sscanf(r.wait("STATUS=report", 2), "STATUS=report %d wishes, pid %d", &wishes, &now); err != nil || wishes != 1 || now == pid {
		t.Errorf("the second election had %d wishes and is process %d (%v), the first was %d", wishes, now, err, pid)
	}
	r.signals <- syscall.SIGINT
	if err := r.end(); err != nil {
		t.Errorf("the end in good order: %v", err)
	}
}

func TestFirstStartThatFailsEndsItAll(t *testing.T) {
	state := t.TempDir()
	if err := os.WriteFile(state+"/broken", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	r := run(t, state)
	if err := r.end(); !errors.Is(err, ErrShown) {
		t.Errorf("ended with %v, want that the agent has said why", err)
	}
	if r.log.Len() > 0 {
		t.Errorf("it is said twice: %s", r.log.String())
	}
}

func TestSecondDirectorOfAStateDirIsRefused(t *testing.T) {
	state := t.TempDir()
	r := run(t, state)
	r.wait("READY=1", 1)
	if _, err := Lock(state); !errors.Is(err, ErrRunning) || !strings.Contains(err.Error(), fmt.Sprint(os.Getpid())) || !strings.Contains(err.Error(), "stop it first") {
		t.Errorf("lock beside a running director: %v", err)
	}
	if err := run(t, state).end(); !errors.Is(err, ErrShown) {
		t.Errorf("second director: %v", err)
	}
	r.signals <- syscall.SIGTERM
	if err := r.end(); err != nil {
		t.Error(err)
	}
	f, err := Lock(state)
	if err != nil {
		t.Fatalf("lock after its end: %v", err)
	}
	f.Close()
}

func TestPauseGrowsWithTheFailuresInARow(t *testing.T) {
	for _, tt := range []struct {
		role     role
		failures int
		want     time.Duration
	}{
		{roleAgent, 0, 0}, {roleAgent, 1, 100 * time.Millisecond}, {roleAgent, 2, 200 * time.Millisecond}, {roleAgent, 100, 5 * time.Second},
		{roleElection, 0, 0}, {roleElection, 1, 5 * time.Millisecond}, {roleElection, 100, time.Second},
	} {
		if got := (&slot{role: tt.role, failures: tt.failures}).pause(); got != tt.want {
			t.Errorf("%s after %d failures: %v, want %v", tt.role, tt.failures, got, tt.want)
		}
	}
}
