package notify

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/xdirector/xdirector/pkg/status"
)

// box is a director as far as notifications see it.
type box struct {
	t       *testing.T
	feed    *status.Feed
	picture atomic.Pointer[status.Status]
	file    string
	n       *Notifier
	log     bytes.Buffer
	end     context.CancelFunc
	ended   chan error

	mu   sync.Mutex
	told []string // TARGET SUBJECT STATE
	send func(ctx context.Context, t Target, list []Message) error
}

func newBox(t *testing.T, file string) *box {
	b := &box{t: t, file: file}
	b.picture.Store(nil)
	return b
}

// start runs an agent with these targets, whose first picture is s.
func (b *box) start(s *status.Status, targets ...Target) {
	b.feed = &status.Feed{}
	b.picture.Store(nil)
	b.n = New(Options{Feed: b.feed, Picture: b.picture.Load, StateFile: b.file, Log: slog.New(slog.NewTextHandler(&b.log, nil))})
	b.n.send = func(ctx context.Context, t Target, list []Message) (string, error) {
		if b.send != nil {
			if err := b.send(ctx, t, list); err != nil {
				return "", err
			}
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		for _, m := range list {
			b.told = append(b.told, strings.TrimSpace(fmt.Sprintf("%s %s %s", t.Name, strings.Join(arguments(m)[1:2], " "), m.State)))
		}
		return "", nil
	}
	b.n.Configure(targets)
	ctx, cancel := context.WithCancel(context.Background())
	b.end, b.ended = cancel, make(chan error, 1)
	go func() { b.ended <- b.n.Run(ctx) }()
	synctest.Wait()
	b.show(s)
	synctest.Wait()
}

// kill ends the agent as a crash would.
func (b *box) kill() {
	b.t.Helper()
	b.end()
	if err := <-b.ended; err != nil {
		b.t.Error(err)
	}
}

// show publishes a picture, as the director does.
func (b *box) show(s *status.Status) {
	s.Time = time.Now()
	b.feed.Publish(status.Changes(b.picture.Swap(s), s))
}

// change publishes a picture that differs.
func (b *box) change(f func(*status.Status)) {
	s := *b.picture.Load()
	s.Instances = slices.Clone(s.Instances)
	s.Services = slices.Clone(s.Services)
	for i := range s.Services {
		s.Services[i].RealServers = slices.Clone(s.Services[i].RealServers)
	}
	f(&s)
	b.show(&s)
}

// enters makes an instance enter a state.
func (b *box) enters(instance int, state string) {
	b.change(func(s *status.Status) {
		i := &s.Instances[instance]
		i.State, i.Since = state, time.Now()
	})
	synctest.Wait()
}

// heard returns what was told since it was last asked.
func (b *box) heard() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	list := b.told
	b.told = nil
	return list
}

func (b *box) want(what string, want ...string) {
	b.t.Helper()
	synctest.Wait()
	if diff := cmp.Diff(want, b.heard()); diff != "" {
		b.t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

// scene is a picture with two instances and so many real servers of a service.
func scene(servers int) *status.Status {
	s := &status.Status{RouterID: "lb1", Healthy: true, Started: time.Now(), Reload: status.Reload{Success: true},
		Instances: []status.Instance{{Name: "VI_1", State: "BACKUP", Since: time.Now()}, {Name: "VI_2", State: "BACKUP", Since: time.Now()}},
		Services:  []status.Service{{Name: "web", Quorum: status.Quorum{Up: true}}}}
	for n := range servers {
		s.Services[0].RealServers = append(s.Services[0].RealServers, status.RealServer{Address: fmt.Sprint("s", n), Up: true, Reason: "no check"})
	}
	return s
}

// sleep lets time pass, and all that follows from that come to rest.
func sleep(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func everything(name string) Target {
	return Target{Name: name, Label: name, Timeout: 10 * time.Second, Filter: Filter{Kinds: []string{status.KindInstance, status.KindSyncGroup, status.KindRealServer, status.KindService}}}
}

func hook(name string) Target {
	t := everything(name)
	t.Exec = &Exec{}
	return t
}

func webhook(name string) Target {
	t := everything(name)
	t.Webhook = &Webhook{}
	return t
}

func mailbox(name string) Target {
	t := everything(name)
	t.Mail = &Mail{Interval: 30 * time.Second}
	return t
}

func TestHooksOfAnInstanceRunInOrderAndThoseOfOthersDoNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox(t, "")
		master, every, all := hook("master"), hook("every"), hook("all")
		master.Label, every.Label = "instance", "instance" // hooks of an instance; the third one is somebody else
		master.Filter.Only, master.Filter.States = []string{"VI_1"}, []string{"MASTER"}
		b.start(scene(1), master, every, all)
		defer b.kill()
		if got := slices.Sorted(slices.Values(b.heard())); !slices.Equal(got, []string{"all VI_1 BACKUP", "all VI_2 BACKUP", "every VI_1 BACKUP", "every VI_2 BACKUP"}) {
			t.Errorf("at the start: %v", got)
		}
		began := time.Now()
		b.send = func(_ context.Context, t Target, list []Message) error {
			if list[0].Instance == "VI_1" && t.Name != "all" {
				time.Sleep(5 * time.Second)
			}
			return nil
		}
		b.enters(0, "MASTER")
		b.enters(0, "FAULT")
		b.enters(0, "BACKUP")
		b.enters(1, "MASTER")
		got := b.heard()
		slices.Sort(got[len(got)-2:])
		if diff := cmp.Diff([]string{"all VI_1 MASTER", "all VI_1 FAULT", "all VI_1 BACKUP", "all VI_2 MASTER", "every VI_2 MASTER"}, got); diff != "" {
			t.Errorf("while VI_1's first hook runs (-want +got):\n%s", diff)
		}
		time.Sleep(25 * time.Second)
		b.want("then", "master VI_1 MASTER", "every VI_1 MASTER", "every VI_1 FAULT", "every VI_1 BACKUP")
		if took := time.Since(began); took > 26*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

func TestARestartNeitherRepeatsNorLosesAChange(t *testing.T) {
	file := filepath.Join(t.TempDir(), "notified.json")
	synctest.Test(t, func(t *testing.T) {
		b := newBox(t, file)
		first := scene(3)
		first.Instances[0].SyncGroup, first.Instances[1].SyncGroup = "VG", "VG"
		b.start(first, hook("all"), webhook("chat"))
		b.heard()
		b.enters(0, "MASTER")
		b.enters(1, "MASTER")
		b.change(func(s *status.Status) { s.Services[0].RealServers[0].Up = false })
		synctest.Wait()
		got := slices.Sorted(slices.Values(b.heard()))
		want := []string{"all VG MASTER", "all VI_1 MASTER", "all VI_2 MASTER", "all web/s0 down", "chat VG MASTER", "chat VI_1 MASTER", "chat VI_2 MASTER", "chat web/s0 down"}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("changes (-want +got):\n%s", diff)
		}
		b.kill()
		last := *b.picture.Load()
		b.start(&last, hook("all"), webhook("chat"))
		b.want("after a restart without a change")

		// The webhook hangs while one is told; VI_1 changes once more while no agent runs.
		b.send = func(ctx context.Context, t Target, _ []Message) error {
			if t.Webhook == nil {
				return nil
			}
			<-ctx.Done()
			return ctx.Err()
		}
		b.enters(1, "BACKUP")
		synctest.Wait()
		if diff := cmp.Diff([]string{"all VG BACKUP", "all VI_2 BACKUP"}, slices.Sorted(slices.Values(b.heard()))); diff != "" {
			t.Errorf("with a webhook that hangs (-want +got):\n%s", diff)
		}
		time.Sleep(time.Second)
		b.kill()
		last = *b.picture.Load()
		last.Instances = slices.Clone(last.Instances)
		last.Instances[0].State = "FAULT"
		b.send = nil
		b.start(&last, hook("all"), webhook("chat"), webhook("new"))
		synctest.Wait()
		got = slices.Sorted(slices.Values(b.heard()))
		want = []string{"all VG FAULT", "all VI_1 FAULT", "chat VG FAULT", "chat VI_1 FAULT", "chat VI_2 BACKUP"}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("after a crash (-want +got):\n%s", diff)
		}
		if sent := b.n.Counts()["all"].Sent; sent < 8 {
			t.Errorf("the count began anew: %d", sent)
		}
		b.kill()
	})
}

func TestWhatWasDownBeforeARestartIsUpOnlyAfterItsCheck(t *testing.T) {
	file := filepath.Join(t.TempDir(), "notified.json")
	synctest.Test(t, func(t *testing.T) {
		b := newBox(t, file)
		b.start(scene(2), webhook("chat"))
		b.change(func(s *status.Status) {
			s.Services[0].RealServers[0].Up, s.Services[0].RealServers[1].Up = false, false
			s.Services[0].Quorum.Up = false
		})
		synctest.Wait()
		b.heard()
		time.Sleep(time.Second)
		b.kill()
		fresh := scene(2) // after a clean stop all count as up until they are checked
		for i := range fresh.Services[0].RealServers {
			fresh.Services[0].RealServers[i].Reason = "not checked yet"
		}
		b.start(fresh, webhook("chat"))
		time.Sleep(10 * time.Second)
		b.want("before the first check")
		b.change(func(s *status.Status) { s.Services[0].RealServers[1].Checks = map[string]uint64{"up": 1} })
		time.Sleep(2 * time.Second)
		b.want("with one that passed", "chat web/s1 up")
		b.change(func(s *status.Status) {
			s.Services[0].RealServers[0].Checks = map[string]uint64{"down": 2}
			s.Services[0].RealServers[0].Up = false
		})
		time.Sleep(2 * time.Second)
		b.want("with one that failed again", "chat web up")
		b.kill()
	})
}

func TestAFloodIsBoundedAndTheLastStateIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox(t, "")
		b.start(scene(10), webhook("chat"), hook("all"))
		b.heard()
		release := make(chan struct{})
		b.send = func(context.Context, Target, []Message) error {
			<-release
			return nil
		}
		for n := range 1000 {
			b.change(func(s *status.Status) {
				for i := range s.Services[0].RealServers {
					s.Services[0].RealServers[i].Up = n%2 == 1
				}
			})
			synctest.Wait()
		}
		b.enters(0, "MASTER")
		b.n.mu.Lock()
		waiting := len(b.n.queues["webhook chat"].waiting)
		commands := 0
		for key, q := range b.n.queues {
			if strings.HasPrefix(key, "exec") {
				commands += len(q.waiting)
			}
		}
		b.n.mu.Unlock()
		if waiting != targetQueue || commands > 10*commandQueue+electionQueue {
			t.Errorf("%d wait for the webhook, want %d; %d for commands", waiting, targetQueue, commands)
		}
		sleep(2 * complainAgain)
		close(release)
		sleep(2 * complainAgain)
		last := map[string]string{}
		for _, line := range b.heard() {
			name, state, _ := strings.Cut(line[strings.Index(line, " ")+1:], " ")
			last[strings.Fields(line)[0]+" "+name] = state
		}
		for _, target := range []string{"chat", "all"} {
			for n := range 10 {
				if name := fmt.Sprintf("%s web/s%d", target, n); last[name] != "up" {
					t.Errorf("last told of %s: %q, want up", name, last[name])
				}
			}
			if last[target+" VI_1"] != "MASTER" {
				t.Errorf("%s was not told of VI_1: %v", target, last)
			}
		}
		counts := b.n.Counts()
		for target, c := range counts {
			if c.Sent+c.Dropped != 10000+3 || c.Dropped == 0 {
				t.Errorf("%s: %d sent and %d dropped of 10003", target, c.Sent, c.Dropped)
			}
		}
		b.kill()
		lines := strings.Count(b.log.String(), "notifications were dropped")
		if lines == 0 || lines > 4 {
			t.Errorf("%d log lines about what was dropped:\n%s", lines, b.log.String())
		}
	})
}

func TestWhatTheListenerMissedIsFoundByAComparison(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const servers = 5000
		b := newBox(t, "")
		b.start(scene(servers), hook("all"))
		b.heard()
		b.n.mu.Lock() // it does not listen
		b.change(func(s *status.Status) {
			for i := range s.Services[0].RealServers {
				s.Services[0].RealServers[i].Up = false
			}
		})
		b.n.mu.Unlock()
		synctest.Wait()
		got := b.heard()
		slices.Sort(got)
		if len(got) != servers || len(slices.Compact(got)) != servers {
			t.Errorf("told %d times, of %d, want each of %d once", len(got), len(slices.Compact(got)), servers)
		}
		b.kill()
	})
}

func TestABurstIsOneMail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox(t, "")
		s := scene(1000)
		b.start(s, mailbox("oncall"))
		sleep(time.Minute) // the one of the start
		b.heard()
		var mails []int
		var at []time.Duration
		began := time.Now()
		b.send = func(_ context.Context, _ Target, list []Message) error {
			mails = append(mails, len(list))
			at = append(at, time.Since(began))
			return nil
		}
		for n := range 1000 { // within five seconds
			b.change(func(s *status.Status) { s.Services[0].RealServers[n].Up = false })
			time.Sleep(5 * time.Millisecond)
		}
		time.Sleep(5 * time.Second)
		b.enters(0, "MASTER")
		sleep(time.Minute)
		if diff := cmp.Diff([]int{1000, 1}, mails); diff != "" {
			t.Errorf("events in mails (-want +got):\n%s", diff)
		}
		if len(at) == 2 && (at[0] > 8*time.Second || at[1]-at[0] < 30*time.Second) {
			t.Errorf("sent after %v", at)
		}
		b.kill()
	})
}

func TestFailuresAreTriedAgainAndGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox(t, "")
		chat := webhook("chat")
		chat.Retries = 3
		b.start(scene(0), chat)
		b.heard()
		began := time.Now()
		var at []time.Duration
		answer := errors.New("HTTP 503")
		b.send = func(context.Context, Target, []Message) error {
			at = append(at, time.Since(began))
			return answer
		}
		b.enters(0, "MASTER")
		sleep(time.Minute)
		if diff := cmp.Diff([]time.Duration{0, time.Second, 3 * time.Second, 7 * time.Second}, at); diff != "" {
			t.Errorf("attempts (-want +got):\n%s", diff)
		}
		if c := b.n.Counts()["chat"]; c.Failed != 1 || c.Error != "HTTP 503" {
			t.Errorf("counts %+v", c)
		}
		answer, at = finalError{errors.New("HTTP 404")}, nil
		b.enters(0, "FAULT")
		sleep(time.Minute)
		if len(at) != 1 {
			t.Errorf("%d attempts after a final answer", len(at))
		}
		answer = nil
		b.enters(0, "BACKUP")
		if c := b.n.Counts()["chat"]; c.Failed != 2 || c.Error != "" {
			t.Errorf("counts %+v", c)
		}
		b.kill()
		if log := b.log.String(); strings.Count(log, "notifications failed") != 2 || !strings.Contains(log, `target=chat count=1 last="chat: HTTP 404"`) {
			t.Errorf("log:\n%s", log)
		}
	})
}

func TestTheEndIsToldWithinItsLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox(t, "")
		chat := webhook("chat")
		chat.Retries = 20
		b.start(scene(0), hook("all"), chat, mailbox("oncall"))
		b.heard()
		b.send = func(ctx context.Context, t Target, _ []Message) error {
			if t.Webhook != nil {
				<-ctx.Done()
				return ctx.Err()
			}
			return nil
		}
		b.change(func(s *status.Status) { s.Instances[0].State = "INIT" })
		began := time.Now()
		b.n.Finish(5 * time.Second)
		if took := time.Since(began); took != 5*time.Second {
			t.Errorf("it took %v, want the whole limit for the webhook that hangs", took)
		}
		got := b.heard()
		if !slices.Contains(got, "all VI_1 INIT") || !slices.Contains(got, "oncall VI_1 INIT") {
			t.Errorf("told %v, want the stop to the others", got)
		}
		b.kill()
		if took := time.Since(began); took != 5*time.Second {
			t.Errorf("the end took %v", took)
		}
	})
}

func TestAReloadForgetsWhoIsGoneAndTellsNewOnesOnlyWhatIsNew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox(t, "")
		b.start(scene(1), webhook("old"), hook("all"))
		b.heard()
		b.send = func(_ context.Context, t Target, _ []Message) error {
			if t.Name == "old" {
				return errors.New("gone")
			}
			return nil
		}
		b.enters(0, "MASTER")
		b.n.Configure([]Target{webhook("new"), hook("all")})
		b.want("after the reload", "all VI_1 MASTER")
		b.enters(0, "FAULT")
		synctest.Wait()
		got := b.heard()
		slices.Sort(got)
		if diff := cmp.Diff([]string{"all VI_1 FAULT", "new VI_1 FAULT"}, got); diff != "" {
			t.Errorf("after the change (-want +got):\n%s", diff)
		}
		b.kill()
	})
}
