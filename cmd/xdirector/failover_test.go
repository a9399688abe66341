package main

import (
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/xdirector/xdirector/pkg/control"
	"github.com/xdirector/xdirector/pkg/status"
)

// obedient is a director whose instances are in the states of one picture after another; the last one stays.
type obedient struct {
	mu       sync.Mutex
	pictures [][]status.Instance
	order    control.Order
	heard    string

	server    control.ServerOrder // the answer to commands about real servers
	overrides []status.Status     // the pictures for those
	feed      status.Feed
}

func (o *obedient) Events() *status.Feed { return &o.feed }

func (o *obedient) Status() *status.Status {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.overrides) > 0 {
		s := o.overrides[0]
		o.overrides = o.overrides[min(1, len(o.overrides)-1):]
		return &s
	}
	s := &status.Status{Healthy: true, Instances: o.pictures[0]}
	if len(o.pictures) > 1 {
		o.pictures = o.pictures[1:]
	}
	return s
}

func (o *obedient) Reload(context.Context) error { return nil }

func (o *obedient) ReloadOnTrial(context.Context, time.Duration) error { return nil }

func (o *obedient) Plan(context.Context, string, []byte) (*status.Plan, error) { return nil, nil }

func (o *obedient) Failover(_ context.Context, instance string, span time.Duration) (control.Order, error) {
	o.heard = "failover " + instance + " " + span.String()
	return o.order, nil
}

func (o *obedient) Return(_ context.Context, instance string) (control.Order, error) {
	o.heard = "return " + instance
	return o.order, nil
}

func (o *obedient) Maintenance(_ context.Context, on bool) (control.Order, error) {
	o.heard = map[bool]string{true: "maintenance on", false: "maintenance off"}[on]
	return o.order, nil
}

// serveDirector answers on a control socket, and returns the configuration file that names it.
func serveDirector(t *testing.T, o *obedient) string {
	t.Helper()
	dir := t.TempDir()
	socket, file := filepath.Join(dir, "control.sock"), filepath.Join(dir, "config.yaml")
	if err := os.WriteFile(file, []byte("control: {socket: \""+socket+"\"}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(serveAt(t, o, socket))
	return file
}

// serveAt answers on a control socket until it is told to stop.
func serveAt(t *testing.T, o *obedient, socket string) (stop func()) {
	t.Helper()
	l, err := control.Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- control.Serve(ctx, l, o, slog.New(slog.DiscardHandler)) }()
	return func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

func TestCommandsToTheElectionsPrintWhatBecameOfThem(t *testing.T) {
	is := func(name, state, master string) status.Instance {
		return status.Instance{Name: name, State: state, Source: "10.9.0.1", Master: master}
	}
	link := func(name string) status.Instance {
		return status.Instance{Name: name, State: "FAULT", Reason: "eth0 is down"}
	}
	const own, other = "10.9.0.1", "10.9.0.2"
	master, backup := is("VI_1", "MASTER", own), is("VI_1", "BACKUP", other)
	type pictures = [][]status.Instance
	one := control.Order{Instances: []string{"VI_1"}, Changed: true, HandoverLimit: 300 * time.Millisecond}
	two := control.Order{Instances: []string{"VI_1", "VI_2"}, Group: "both", Changed: true, HandoverLimit: time.Second}
	timed, unchanged, ill := one, one, one
	timed.Until = time.Date(2030, 1, 2, 3, 4, 5, 0, time.Local)
	unchanged.Changed = false
	ill.Warning = "it is in force, but would not survive a restart of the service: write state: no space left on device"
	const again = "until told otherwise: xdirector failover VI_1 --off\n"
	for name, tt := range map[string]struct {
		args           string
		order          control.Order
		pictures       pictures
		code           int
		heard          string
		stdout, stderr string
	}{
		"handed over": {"failover VI_1", one, pictures{{master}, {master}, {is("VI_1", "BACKUP", "")}, {backup}}, 0,
			"failover VI_1 0s", "VI_1 is BACKUP now, 10.9.0.2 is MASTER\n" + again, ""},
		"for a time": {"failover VI_1 --for 10m", timed, pictures{{backup}}, 0,
			"failover VI_1 10m0s", "VI_1 is BACKUP now, 10.9.0.2 is MASTER\nuntil 2030-01-02 03:04:05, or: xdirector failover VI_1 --off\n", ""},
		"nobody took over": {"failover VI_1", one, pictures{{master}}, 1,
			"failover VI_1 0s", "", "xdirector: no other director took over: VI_1 stays MASTER, and hands over as soon as one takes part; to take that back: xdirector failover VI_1 --off\n"},
		"nobody is known": {"failover VI_1", one, pictures{{master}, {is("VI_1", "BACKUP", "")}}, 1,
			"failover VI_1 0s", "VI_1 is BACKUP now, and no other director is known to be MASTER\n", "xdirector: nobody is known to be MASTER yet: see xdirector status; to take the failover back: xdirector failover VI_1 --off\n"},
		"of a group": {"failover VI_1", two, pictures{{backup, is("VI_2", "MASTER", own)}, {backup, link("VI_2")}}, 0,
			"failover VI_1 0s", "sync group both goes together: VI_1, VI_2\nVI_1 is BACKUP now, 10.9.0.2 is MASTER\nVI_2 is FAULT: eth0 is down\n" + again, ""},
		"not recorded": {"failover VI_1", ill, pictures{{backup}}, 0,
			"failover VI_1 0s", "VI_1 is BACKUP now, 10.9.0.2 is MASTER\n" + again, "warning: " + ill.Warning + "\n"},
		"taken back": {"failover VI_1 --off", one, pictures{{backup}}, 0,
			"return VI_1", "VI_1 takes part as configured again. VI_1 is BACKUP now, 10.9.0.2 is MASTER\n", ""},
		"nothing to take back": {"failover VI_1 --off", unchanged, pictures{{master}}, 0,
			"return VI_1", "VI_1 was not told to fail over. VI_1 is MASTER\n", ""},
		"maintenance on": {"maintenance on", one, pictures{{master}, {backup}, {is("VI_1", "FAULT", "")}}, 0,
			"maintenance on", "maintenance is on: this box takes part in no election, until: xdirector maintenance off\nVI_1 is FAULT now, 10.9.0.2 is MASTER\n", ""},
		"maintenance on, alone": {"maintenance on", one, pictures{{master}, {is("VI_1", "FAULT", "")}}, 0,
			"maintenance on", "maintenance is on: this box takes part in no election, until: xdirector maintenance off\nVI_1 is FAULT now, and no other director was heard to take over\n", ""},
		"maintenance on again": {"maintenance on", unchanged, pictures{{is("VI_1", "FAULT", "")}}, 0,
			"maintenance on", "maintenance is on: this box takes part in no election, until: xdirector maintenance off\nVI_1 is FAULT\n", ""},
		"maintenance on, as BACKUP": {"maintenance on", one, pictures{{backup}, {is("VI_1", "FAULT", "")}}, 0,
			"maintenance on", "maintenance is on: this box takes part in no election, until: xdirector maintenance off\nVI_1 is FAULT now, 10.9.0.2 is MASTER\n", ""},
		"maintenance off": {"maintenance off", one, pictures{{link("VI_1")}, {link("VI_1")}, {backup}}, 0,
			"maintenance off", "maintenance is off: this box takes part in all elections\nVI_1 is BACKUP now, 10.9.0.2 is MASTER\n", ""},
		"maintenance off, held by something else": {"maintenance off", one, pictures{{link("VI_1")}}, 0,
			"maintenance off", "maintenance is off: this box takes part in all elections\nVI_1 is FAULT: eth0 is down\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			o := &obedient{pictures: tt.pictures, order: tt.order}
			file := serveDirector(t, o)
			code, stdout, stderr := command(t, append(strings.Fields(tt.args), "--config", file)...)
			if code != tt.code || !strings.HasPrefix(stdout, tt.stdout) || tt.stdout == "" && stdout != "" || stderr != tt.stderr || o.heard != tt.heard {
				t.Errorf("exit code %d, heard %q, stdout:\n%sstderr:\n%swant %d, %q,\n%s%s", code, o.heard, stdout, stderr, tt.code, tt.heard, tt.stdout, tt.stderr)
			}
		})
	}
}

func TestFailoverPrintsJSON(t *testing.T) {
	for state, want := range map[string]struct {
		code int
		done bool
	}{"BACKUP": {0, true}, "MASTER": {1, false}} {
		o := &obedient{
			pictures: [][]status.Instance{{{Name: "VI_1", State: state, Source: "10.9.0.1", Master: "10.9.0.2"}}},
			order:    control.Order{Instances: []string{"VI_1"}, Changed: true, HandoverLimit: 100 * time.Millisecond},
		}
		code, stdout, stderr := command(t, "failover", "VI_1", "--json", "--config", serveDirector(t, o))
		var got struct {
			Done      bool
			Instances []string
			Standings []struct{ Name, State, Master, Text string }
		}
		if err := json.Unmarshal([]byte(stdout), &got); err != nil {
			t.Fatalf("%v: %s%s", err, stdout, stderr)
		}
		if code != want.code || got.Done != want.done || len(got.Standings) != 1 || got.Standings[0].State != state || len(got.Instances) != 1 || stderr != "" {
			t.Errorf("exit code %d, %+v, stderr %q", code, got, stderr)
		}
	}
}
