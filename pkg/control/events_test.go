package control

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/xdirector/xdirector/pkg/status"
)

// told is a director with two instances, a service, and something that happened to each.
func told() *daemon {
	d := &daemon{status: func() *status.Status {
		return &status.Status{Instances: []status.Instance{{Name: "VI_1"}, {Name: "VI_2"}}, Services: []status.Service{{Name: "web"}}}
	}}
	d.feed.Publish([]status.Event{
		{Kind: status.KindDirector, Text: "started"},
		{Kind: status.KindInstance, Instance: "VI_1", Text: "one"},
		{Kind: status.KindInstance, Instance: "VI_2", Text: "two"},
		{Kind: status.KindCheck, Service: "web", Text: "passing"},
		{Kind: status.KindRealServer, Service: "web", Text: "down"},
	})
	return d
}

func TestReadersGetTheEventsThatTheyChoose(t *testing.T) {
	d := told()
	c := NewClient(start(t, d, defaults()))
	first := d.feed.Recent(0)[0].ID
	for name, tt := range map[string]struct {
		query EventQuery
		want  []string
	}{
		"nothing":                {EventQuery{}, nil},
		"all":                    {EventQuery{History: 1000}, []string{"started", "one", "two", "down"}},
		"the newest":             {EventQuery{History: 2}, []string{"two", "down"}},
		"after one":              {EventQuery{After: first}, []string{"one", "two", "down"}},
		"after one, the newest":  {EventQuery{After: first, History: 1}, []string{"down"}},
		"kinds":                  {EventQuery{History: 9, Kinds: []string{"director", "instance"}}, []string{"started", "one", "two"}},
		"the newest of a kind":   {EventQuery{History: 1, Kinds: []string{"instance"}}, []string{"two"}},
		"an instance":            {EventQuery{History: 9, Instances: []string{"VI_1"}}, []string{"one"}},
		"a service":              {EventQuery{History: 9, Services: []string{"web"}}, []string{"down"}},
		"two of them":            {EventQuery{History: 9, Services: []string{"web"}, Instances: []string{"VI_2"}}, []string{"two", "down"}},
		"a kind of one of them":  {EventQuery{History: 9, Kinds: []string{"instance"}, Services: []string{"web"}}, nil},
		"after the last of them": {EventQuery{After: 1 << 63}, nil},
	} {
		var got []string
		err := c.Events(t.Context(), tt.query, func(e status.Event) error { got = append(got, e.Text); return nil })
		if err != nil || !slices.Equal(got, tt.want) {
			t.Errorf("%s: %q (%v), want %q", name, got, err, tt.want)
		}
	}
}

func TestWrongQuestionsForEventsAreToldWhatIsRight(t *testing.T) {
	path := start(t, told(), defaults())
	for query, want := range map[string]string{
		"kinds=instance,rael_server": `400 unknown kind of events \"rael_server\": there are director, instance, sync_group, mismatch, real_server, check`,
		"kinds=":                     `400 unknown kind of events \"\"`,
		"kind=instance":              `400 read request: unknown parameter \"kind\": there are kinds, instance, service, after, history, follow`,
		"instance=VI_9":              `404 no instance \"VI_9\" is configured here`,
		"service=wbe":                `404 no service \"wbe\" is configured here`,
		"after=x":                    `400 read request: after \"x\" is no id of an event`,
		"after=-1":                   `400 read request: after \"-1\"`,
		"history=-1":                 `400 read request: history \"-1\" is no number of events`,
		"history=99999999999999":     `400 read request: history`,
		"follow=maybe":               `400 read request: follow \"maybe\" is neither true nor false`,
		"kinds=%zz":                  `400 read request: invalid URL escape`,
	} {
		got := raw(t, path, "GET /v1/events?"+query+" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
		code, text, _ := strings.Cut(want, " ")
		if !strings.HasPrefix(got, "HTTP/1.1 "+code) || !strings.Contains(got, text) {
			t.Errorf("%s: %q, want %s", query, got, want)
		}
	}
}

func TestAStreamGoesOnWhereTheLastOneEnded(t *testing.T) {
	d := told()
	path := start(t, d, defaults())
	id := d.feed.Recent(0)[2].ID
	got := raw(t, path, fmt.Sprintf("GET /v1/events?follow=false&after=1 HTTP/1.0\r\nLast-Event-ID: %d\r\n\r\n", id))
	want := fmt.Sprintf("\r\n\r\n: events of xdirector\n\nid: %d\nevent: real_server\ndata: {\"id\":%d,", d.feed.Recent(id)[0].ID, d.feed.Recent(id)[0].ID)
	if !strings.Contains(got, want) || !strings.Contains(got, "Content-Type: text/event-stream") {
		t.Errorf("%q, want %q", got, want)
	}
	if got := raw(t, path, "HEAD /v1/events HTTP/1.0\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.0 200") {
		t.Errorf("HEAD: %q", got)
	}
}

func TestAStreamFollowsUntilTheDirectorStops(t *testing.T) {
	t.Parallel()
	d := told()
	l, err := Listen(t.TempDir() + "/control.sock")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	lim := quick(50 * time.Millisecond) // a stream outlives the limits of a request
	go func() { served <- serve(ctx, l, d, slog.New(slog.DiscardHandler), lim) }()
	var got []string
	err = NewClient(l.Addr().String()).Events(t.Context(), EventQuery{History: 1, Follow: true}, func(e status.Event) error {
		if got = append(got, e.Text); e.Text == "last" {
			stop()
			return nil
		}
		time.AfterFunc(3*lim.read, func() { d.feed.Publish([]status.Event{{Kind: status.KindCheck, Text: "last"}}) })
		return nil
	})
	if !errors.Is(err, ErrEnded) || !slices.Equal(got, []string{"down", "last"}) {
		t.Errorf("%q and then %v", got, err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
}

func TestAStreamWithoutEventsShowsThatItIsAlive(t *testing.T) {
	lim := defaults()
	lim.heartbeat = time.Millisecond
	conn := follow(t, start(t, told(), lim))
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	lines, beats := bufio.NewScanner(conn), 0
	for beats < 3 && lines.Scan() {
		if lines.Text() == ":" {
			beats++
		}
	}
	if beats < 3 {
		t.Errorf("%d signs of life, then %v", beats, lines.Err())
	}
}

// follow opens a stream that nobody reads.
func follow(t *testing.T, path string) net.Conn {
	t.Helper()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	io.WriteString(conn, "GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n")
	return conn
}

func TestAReaderThatTakesNothingIsCutOffAndHoldsUpNobody(t *testing.T) {
	t.Parallel()
	d := told()
	lim := quick(100 * time.Millisecond)
	lim.streams = 1
	path := start(t, d, lim)
	conn := follow(t, path)
	if _, err := conn.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	c := NewClient(path)
	if err := c.Events(t.Context(), EventQuery{Follow: true}, nil); err == nil || !strings.Contains(err.Error(), "1 streams of events are open, which is the most") {
		t.Errorf("a stream too many: %v", err)
	}
	large := strings.Repeat("x", 1000)
	for stop := errors.New("enough"); ; {
		for range 1000 { // never waits
			d.feed.Publish([]status.Event{{Kind: status.KindReload, Text: large}})
		}
		err := c.Events(t.Context(), EventQuery{History: 1, Follow: true}, func(status.Event) error { return stop })
		if errors.Is(err, stop) {
			break
		}
		if t.Context().Err() != nil {
			t.Fatalf("its stream is never ended: %v", err)
		}
	}
}

func TestASlowReaderIsToldHowManyEventsItLost(t *testing.T) {
	d := &daemon{}
	l, _ := d.feed.Listen(0)
	defer l.Close()
	for n := range 1500 {
		d.feed.Publish([]status.Event{{Kind: status.KindReload, Text: fmt.Sprint(n)}})
	}
	w, stop := httptest.NewRecorder(), make(chan struct{})
	close(stop)
	s := stream{w: w, lim: defaults()}
	s.follow(l, nil, stop)
	got := w.Body.String()
	if n := strings.Count(got, "event: reload\n"); n != 1000 || !strings.Contains(got, "\"text\":\"999\"}\n\nevent: lost\ndata: {\"time\"") || !strings.HasSuffix(got, "500 events are missing here: this reader was too slow\"}\n\n") {
		t.Errorf("%d events, and at the end %q", n, got[max(0, len(got)-300):])
	}
}

func TestAThousandStreamsKeepNobodyFromAsking(t *testing.T) {
	t.Parallel()
	d := told()
	path := start(t, d, defaults())
	answers := make(chan string, 1000)
	var group sync.WaitGroup
	for range cap(answers) {
		group.Go(func() {
			conn := follow(t, path)
			conn.SetDeadline(time.Now().Add(20 * time.Second))
			line, err := bufio.NewReader(conn).ReadString('\n')
			if err != nil {
				t.Error(err)
			}
			answers <- line
			if !strings.Contains(line, "200") {
				conn.Close()
			}
		})
	}
	for range 20 {
		if _, err := NewClient(path).Status(t.Context()); err != nil {
			t.Error(err)
		}
	}
	group.Wait()
	close(answers)
	open := 0
	for line := range answers {
		if strings.HasPrefix(line, "HTTP/1.1 200") {
			open++
		} else if !strings.HasPrefix(line, "HTTP/1.1 503") {
			t.Errorf("a stream is answered %q", line)
		}
	}
	if open != defaults().streams {
		t.Errorf("%d streams are open, want %d", open, defaults().streams)
	}
	if _, err := NewClient(path).Status(t.Context()); err != nil {
		t.Errorf("the status beside them: %v", err)
	}
}
