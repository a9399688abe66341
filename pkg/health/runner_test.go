package health

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

// fakeProber answers as the test says, and writes down when each real server was probed.
type fakeProber struct {
	mu      sync.Mutex
	answer  map[netip.Addr]error
	takes   map[netip.Addr]time.Duration
	started map[netip.Addr][]time.Time
	running map[netip.Addr]int
	twice   bool // a real server was probed by two probes at once
	ended   int  // by the end of their context
	last    map[netip.Addr]probe
}

func newFakeProber() *fakeProber {
	return &fakeProber{
		answer: map[netip.Addr]error{}, takes: map[netip.Addr]time.Duration{}, last: map[netip.Addr]probe{},
		started: map[netip.Addr][]time.Time{}, running: map[netip.Addr]int{},
	}
}

func (f *fakeProber) probe(ctx context.Context, p probe) error {
	f.mu.Lock()
	f.started[p.address] = append(f.started[p.address], time.Now())
	f.last[p.address] = p
	f.running[p.address]++
	f.twice = f.twice || f.running[p.address] > 1
	takes, answer := f.takes[p.address], f.answer[p.address]
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		f.running[p.address]--
		f.mu.Unlock()
	}()
	select {
	case <-time.After(takes):
		return answer
	case <-ctx.Done():
		f.mu.Lock()
		f.ended++
		f.mu.Unlock()
		return errors.New("probe was cut short")
	}
}

func (f *fakeProber) set(a netip.Addr, takes time.Duration, answer error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.takes[a], f.answer[a] = takes, answer
}

// times returns when a was probed, from begin on.
func (f *fakeProber) times(a netip.Addr, begin time.Time) []time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []time.Duration
	for _, s := range f.started[a] {
		all = append(all, s.Sub(begin))
	}
	return all
}

func server(n int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, byte(n >> 8), byte(n)}) }

func newTarget(n int, c Check) Target {
	c.Kind = TCP
	return Target{Key: Key{"web", server(n)}, Port: 80, Check: c, Up: true}
}

var plain = Check{Interval: 5 * time.Second, Timeout: 2 * time.Second, Retries: 1, RetryDelay: time.Second, Rise: 1}

// inBubble runs a Runner with a fake prober under a false clock.
func inBubble(t *testing.T, body func(t *testing.T, r *Runner, f *fakeProber, log *bytes.Buffer)) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeProber()
		var log bytes.Buffer
		source := func(target netip.Addr) (netip.Addr, error) { return netip.MustParseAddr("10.9.9.9"), nil }
		r := newRunner(source, slog.New(slog.NewTextHandler(&log, nil)), map[Kind]prober{TCP: f})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- r.Run(ctx) }()
		body(t, r, f, &log)
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v, want nil at the end of its context", err)
		}
		if f.twice {
			t.Error("two probes of one real server ran at the same time")
		}
	})
}

// read takes the results that are there once every goroutine rests.
func read(r *Runner) []Result {
	var all []Result
	for {
		synctest.Wait()
		select {
		case result := <-r.Results():
			all = append(all, result)
		default:
			return all
		}
	}
}

func TestRunnerProbesAtOnceAndThenOncePerInterval(t *testing.T) {
	inBubble(t, func(t *testing.T, r *Runner, f *fakeProber, _ *bytes.Buffer) {
		begin := time.Now()
		f.set(server(1), 300*time.Millisecond, nil)
		r.Configure([]Target{newTarget(1, plain)})
		time.Sleep(11 * time.Second)
		want := []time.Duration{0, 5 * time.Second, 10 * time.Second}
		if got := f.times(server(1), begin); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("probes at %v, want %v", got, want)
		}
		results := read(r)
		if len(results) != 3 {
			t.Fatalf("%d results, want 3", len(results))
		}
		for _, got := range results {
			want := Result{Key: Key{"web", server(1)}, OK: true, Up: true, Reason: "tcp check of port 80 passed", Duration: 300 * time.Millisecond}
			if got != want {
				t.Errorf("result %+v, want %+v", got, want)
			}
		}
		if p := f.last[server(1)]; p.source != netip.MustParseAddr("10.9.9.9") || p.port != 80 {
			t.Errorf("probe came from %v to port %d, want the given source and the real server's port", p.source, p.port)
		}
	})
}

func TestRunnerReportsAndLogsEachTransitionOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, r *Runner, f *fakeProber, log *bytes.Buffer) {
		begin := time.Now()
		f.set(server(1), 0, errors.New("connect: connection refused"))
		r.Configure([]Target{newTarget(1, plain)})
		time.Sleep(7 * time.Second) // fails at 0, 1 and 6 s
		f.set(server(1), 0, nil)
		time.Sleep(10 * time.Second) // succeeds at 11 and 16 s
		want := []time.Duration{0, time.Second, 6 * time.Second, 11 * time.Second, 16 * time.Second}
		if got := f.times(server(1), begin); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("probes at %v, want %v", got, want)
		}
		var got []string
		for _, result := range read(r) {
			got = append(got, fmt.Sprintf("ok=%v up=%v changed=%v", result.OK, result.Up, result.Changed))
		}
		wanted := []string{
			"ok=false up=true changed=false", "ok=false up=false changed=true", "ok=false up=false changed=false",
			"ok=true up=true changed=true", "ok=true up=true changed=false",
		}
		if fmt.Sprint(got) != fmt.Sprint(wanted) {
			t.Errorf("results %q, want %q", got, wanted)
		}
		for _, line := range []string{
			"real server 10.0.0.1:80 of web is down: connect: connection refused; it gets no new connections",
			"real server 10.0.0.1:80 of web is up: tcp check of port 80 passed; it gets new connections again",
		} {
			if n := strings.Count(log.String(), line); n != 1 {
				t.Errorf("%d log lines %q, want 1; the log:\n%s", n, line, log)
			}
		}
		if n := strings.Count(log.String(), "\n"); n != 2 {
			t.Errorf("%d log lines, want 2:\n%s", n, log)
		}
	})
}

func TestRunnerLeavesUnchangedTargetsAlone(t *testing.T) {
	inBubble(t, func(t *testing.T, r *Runner, f *fakeProber, _ *bytes.Buffer) {
		begin := time.Now()
		f.set(server(1), 0, errors.New("refused"))
		slow := plain
		slow.Timeout = 4 * time.Second
		f.set(server(2), 3*time.Second, nil)
		f.set(server(3), 3*time.Second, nil)
		same, running, goes := newTarget(1, plain), newTarget(2, slow), newTarget(3, slow)
		r.Configure([]Target{same, running, goes})
		time.Sleep(2 * time.Second) // server 1 is down now, the other two are being probed

		changed := newTarget(4, plain)
		r.Configure([]Target{same, running, changed}) // Up: true of the first must not matter
		time.Sleep(500 * time.Millisecond)
		f.mu.Lock()
		ended := f.ended
		f.mu.Unlock()
		if ended != 1 {
			t.Errorf("%d probes were cut short, want that of the removed real server alone", ended)
		}
		changed.Check.Interval = 3 * time.Second
		r.Configure([]Target{same, running, changed})
		time.Sleep(3100 * time.Millisecond)

		if got, want := f.times(server(1), begin), 2; len(got) != want {
			t.Errorf("the unchanged real server was probed at %v, want 0 s and 1 s only", got)
		}
		if got := f.times(server(2), begin); len(got) != 2 || got[1]-got[0] != 5*time.Second {
			t.Errorf("the unchanged slow real server was probed at %v, want twice, 5 s apart", got)
		}
		if got := len(f.times(server(3), begin)); got != 1 {
			t.Errorf("the removed real server was probed %d times, want 1", got)
		}
		if got := f.times(server(4), begin); len(got) != 3 || got[2]-got[1] != 3*time.Second {
			t.Errorf("the changed real server was probed at %v, want at once, at its change, and 3 s later", got)
		}
		for _, result := range read(r) {
			if result.Address == server(3) {
				t.Errorf("result of a removed real server: %+v", result)
			}
			if result.Address == server(1) && result.Up && result.Changed {
				t.Errorf("the unchanged real server came up by a reload: %+v", result)
			}
		}
	})
}

func TestRunnerStartsAChangedTargetWithItsGivenState(t *testing.T) {
	inBubble(t, func(t *testing.T, r *Runner, f *fakeProber, _ *bytes.Buffer) {
		target := newTarget(1, plain)
		target.Up = false
		f.set(server(1), 0, errors.New("refused"))
		r.Configure([]Target{target})
		results := read(r)
		if len(results) != 1 || results[0].Up || results[0].Changed {
			t.Errorf("results %+v, want one that is down and no change", results)
		}
	})
}

func TestRunnerHungReaderDelaysNoProbeAndLosesNoChange(t *testing.T) {
	inBubble(t, func(t *testing.T, r *Runner, f *fakeProber, _ *bytes.Buffer) {
		quick := Check{Interval: 100 * time.Millisecond, Timeout: time.Second, Rise: 1}
		r.Configure([]Target{newTarget(1, quick), newTarget(2, quick)})
		time.Sleep(10 * time.Minute)
		f.set(server(1), 0, errors.New("refused"))
		time.Sleep(10 * time.Minute)
		if got := len(f.times(server(1), time.Time{})); got < 11_990 {
			t.Errorf("%d probes in 20 minutes, want 12000", got)
		}
		results := read(r)
		if len(results) > 1100 {
			t.Errorf("%d results were kept, want about 1024 at most", len(results))
		}
		var changed []Result
		last := map[netip.Addr]Result{}
		for _, result := range results {
			last[result.Address] = result
			if result.Changed {
				changed = append(changed, result)
			}
		}
		if len(changed) != 1 || changed[0].Address != server(1) || changed[0].Up {
			t.Errorf("changes %+v, want that of server 1 to down, once", changed)
		}
		if last[server(1)].Up || !last[server(2)].Up {
			t.Errorf("last results %+v, want server 1 down and server 2 up", last)
		}
	})
}

func TestRunnerSpreadsManyFirstProbes(t *testing.T) {
	inBubble(t, func(t *testing.T, r *Runner, f *fakeProber, _ *bytes.Buffer) {
		var targets []Target
		for n := range 2000 {
			targets = append(targets, newTarget(n, plain))
		}
		begin := time.Now()
		r.Configure(targets)
		time.Sleep(time.Second)
		synctest.Wait()
		perTenth := [10]int{}
		for n := range 2000 {
			times := f.times(server(n), begin)
			if len(times) != 1 || times[0] >= time.Second {
				t.Fatalf("real server %d was probed at %v, want once within the first second", n, times)
			}
			perTenth[times[0]/(100*time.Millisecond)]++
		}
		for i, n := range perTenth {
			if n < 100 || n > 400 {
				t.Errorf("%d first probes in tenth %d of the second, want about 200", n, i+1)
			}
		}
	})
}

func TestRunnerTakesTheReasonOfAMissingSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := func(netip.Addr) (netip.Addr, error) { return netip.Addr{}, errors.New("no route to 10.0.0.1") }
		f := newFakeProber()
		r := newRunner(source, slog.New(slog.DiscardHandler), map[Kind]prober{TCP: f})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- r.Run(ctx) }()
		strange := newTarget(2, plain)
		strange.Check.Kind = "snmp"
		r.Configure([]Target{newTarget(1, plain), strange})
		for range 2 {
			result := <-r.Results()
			want := map[netip.Addr]string{server(1): "no route to 10.0.0.1", server(2): `check type "snmp" is not known`}[result.Address]
			if result.OK || result.Reason != want {
				t.Errorf("result %+v, want a failure because of %q", result, want)
			}
		}
		if len(f.started) != 0 {
			t.Error("a probe was sent without a source")
		}
		cancel()
		<-ended
	})
}

func TestRunnerEndsWhileProbesHang(t *testing.T) {
	inBubble(t, func(t *testing.T, r *Runner, f *fakeProber, _ *bytes.Buffer) {
		f.set(server(1), time.Hour, nil)
		r.Configure([]Target{newTarget(1, Check{Interval: time.Hour, Timeout: time.Hour})})
		synctest.Wait()
	})
}

func TestRunnerLeavesRealServersAsTheyAreWhileThisBoxIsCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var cut atomic.Bool
		source := func(netip.Addr) (netip.Addr, error) {
			if cut.Load() {
				return netip.Addr{}, fmt.Errorf("eth0: %w", ErrBlind)
			}
			return netip.MustParseAddr("10.0.0.1"), nil
		}
		f := newFakeProber()
		r := newRunner(source, slog.New(slog.DiscardHandler), map[Kind]prober{TCP: f})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- r.Run(ctx) }()
		c := Check{Kind: TCP, Interval: 10 * time.Second, Timeout: 5 * time.Second, Retries: 0, Rise: 1}
		r.Configure([]Target{newTarget(1, c)})
		if first := <-r.Results(); !first.OK {
			t.Fatalf("first result %+v", first)
		}
		// The second probe is under way when the cable is pulled.
		f.set(server(1), 3*time.Second, errors.New("connect: timeout"))
		time.Sleep(9 * time.Second)
		synctest.Wait()
		time.Sleep(2 * time.Second)
		cut.Store(true)
		time.Sleep(time.Minute)
		cut.Store(false)
		f.set(server(1), 0, nil)
		if next := <-r.Results(); !next.OK || !next.Up || next.Changed {
			t.Errorf("the first result after the cut is %+v, want a success and no change", next)
		}
		cancel()
		<-ended
	})
}

func TestRunnerBlamesNoRealServerForAFaultOfThisBox(t *testing.T) {
	for _, fault := range []error{
		fmt.Errorf("socket: %w", unix.EMFILE),
		connectError(&net.OpError{Op: "dial", Err: os.NewSyscallError("bind", unix.EADDRNOTAVAIL)}, Check{}),
		fmt.Errorf("open icmp socket: %w: icmp checks need CAP_NET_RAW", os.NewSyscallError("socket", unix.EPERM)),
	} {
		synctest.Test(t, func(t *testing.T) {
			var said bytes.Buffer
			f := newFakeProber()
			r := newRunner(func(netip.Addr) (netip.Addr, error) { return netip.MustParseAddr("10.0.0.1"), nil },
				slog.New(slog.NewTextHandler(&said, nil)), map[Kind]prober{TCP: f})
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error)
			go func() { ended <- r.Run(ctx) }()
			c := Check{Kind: TCP, Interval: 10 * time.Second, Timeout: 5 * time.Second, Retries: 0, Rise: 1}
			f.set(server(1), 0, fault)
			f.set(server(2), 0, fault)
			r.Configure([]Target{newTarget(1, c), newTarget(2, c)})
			time.Sleep(90 * time.Second)
			synctest.Wait()
			if n := strings.Count(said.String(), "fault of this box"); n != 2 {
				t.Errorf("%v: %d lines in 90 s, want 2:\n%s", fault, n, said.String())
			}
			f.set(server(1), 0, nil)
			if next := <-r.Results(); !next.OK || !next.Up || next.Changed {
				t.Errorf("%v: the first result is %+v, want a success and no change", fault, next)
			}
			cancel()
			<-ended
		})
	}
}
