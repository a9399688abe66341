package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/xdirector/xdirector/pkg/status"
)

// daemon is a director with nothing behind it.
type daemon struct {
	status  func() *status.Status
	refusal error
	reloads atomic.Int32
	feed    status.Feed

	operator // answers for commands of operators
	trials
}

func (d *daemon) Events() *status.Feed         { return &d.feed }
func (d *daemon) Status() *status.Status       { return d.status() }
func (d *daemon) Reload(context.Context) error { d.reloads.Add(1); return d.refusal }

func picture() *status.Status {
	return &status.Status{RouterID: "lb1", Healthy: true, Instances: []status.Instance{{Name: "VI_1", State: "MASTER"}}}
}

// start serves d until the test ends and returns the path of the socket.
func start(t *testing.T, d Daemon, lim limits) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "control.sock")
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- serve(ctx, l, d, slog.New(slog.DiscardHandler), lim) }()
	t.Cleanup(func() {
		stop()
		if err := <-served; err != nil {
			t.Errorf("serve ended with %v", err)
		}
	})
	return path
}

// quick are limits with which nobody waits for long.
func quick(limit time.Duration) limits {
	lim := defaults()
	lim.read, lim.write, lim.stop = limit, limit, time.Second
	return lim
}

func TestClientGetsTheStatusOfTheDirector(t *testing.T) {
	c := NewClient(start(t, &daemon{status: picture}, defaults()))
	got, err := c.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want, _ := json.Marshal(picture())
	have, _ := json.Marshal(got)
	if string(have) != string(want) {
		t.Errorf("status is %s, want %s", have, want)
	}
}

func TestStatusBeforeTheFirstPictureSaysSo(t *testing.T) {
	c := NewClient(start(t, &daemon{status: func() *status.Status { return nil }}, defaults()))
	if _, err := c.Status(t.Context()); err == nil || !strings.Contains(err.Error(), "starting") {
		t.Errorf("error is %v, want one that says that the director is starting", err)
	}
}

func TestReloadCarriesTheWholeErrorOfARefusedFile(t *testing.T) {
	d := &daemon{status: picture}
	c := NewClient(start(t, d, defaults()))
	if err := c.Reload(t.Context()); err != nil {
		t.Errorf("reload of a good file: %v", err)
	}
	d.refusal = errors.New("config.yaml:3:1: a: unknown key\nconfig.yaml:9:5: b: \"<ü>\" is wrong")
	if err := c.Reload(t.Context()); err == nil || err.Error() != d.refusal.Error() {
		t.Errorf("error is %v, want %v", err, d.refusal)
	}
	if n := d.reloads.Load(); n != 2 {
		t.Errorf("the director was asked %d times, want 2", n)
	}
}

func TestClientErrorsNameTheSocketAndTheCure(t *testing.T) {
	folder := t.TempDir()
	leftover := leftoverSocket(t, filepath.Join(folder, "left.sock"))
	for name, path := range map[string]string{"absent": filepath.Join(folder, "absent.sock"), "leftover": leftover} {
		t.Run(name, func(t *testing.T) {
			_, err := NewClient(path).Status(t.Context())
			want := "no xdirector answers on " + path + ": is the service running? (systemctl status xdirector)"
			if err == nil || err.Error() != want {
				t.Errorf("error is %v, want %s", err, want)
			}
		})
	}
	t.Run("silent", func(t *testing.T) {
		path := filepath.Join(folder, "silent.sock")
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		if err := NewClient(path).Reload(ctx); err == nil || !strings.Contains(err.Error(), "stopped or overloaded") {
			t.Errorf("error is %v, want one that asks whether the director is stopped", err)
		}
	})
	t.Run("stranger", func(t *testing.T) {
		path := filepath.Join(folder, "stranger.sock")
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		server := http.Server{Handler: http.NotFoundHandler()}
		go server.Serve(l)
		defer server.Close()
		if _, err := NewClient(path).Status(t.Context()); err == nil || !strings.Contains(err.Error(), "no xdirector") {
			t.Errorf("error is %v, want one that says that it is no xdirector", err)
		}
	})
}

// raw sends bytes and returns all that comes back before the server closes.
func raw(t *testing.T, path, request string) string {
	t.Helper()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	io.WriteString(conn, request) // the server may hang up before all is sent
	answer, err := io.ReadAll(conn)
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		t.Fatalf("the server keeps the connection open after %.60q", request)
	}
	return string(answer)
}

func TestWrongRequestsAreToldWhatExists(t *testing.T) {
	path := start(t, &daemon{status: picture}, defaults())
	for _, row := range []struct{ request, status string }{
		{"GET /", "404"}, {"GET /v1/statuses", "404"}, {"DELETE /v1/status", "405"}, {"GET /v1/reload", "405"}, {"POST /v2/reload", "404"},
	} {
		t.Run(row.request, func(t *testing.T) {
			got := raw(t, path, row.request+" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
			if !strings.HasPrefix(got, "HTTP/1.1 "+row.status) {
				t.Errorf("answer is %.80q, want status %s", got, row.status)
			}
			_, body, _ := strings.Cut(got, "\r\n\r\n")
			var f failure
			if err := json.Unmarshal([]byte(body), &f); err != nil || !strings.Contains(f.Error, "there are GET /v1/status, GET /v1/events, POST /v1/reload, ") {
				t.Errorf("body is %q (%v), want an error that names what exists", body, err)
			}
		})
	}
}

func TestGarbageHurtsOnlyItsSender(t *testing.T) {
	t.Parallel()
	d := &daemon{status: picture}
	path := start(t, d, quick(100*time.Millisecond))
	for name, request := range map[string]string{
		"nothing":        "",
		"binary":         "\x00\x01\xff\xfe\r\n\r\n",
		"half a line":    "GET /v1/sta",
		"no host":        "GET /v1/status HTTP/1.1\r\n\r\n",
		"huge header":    "GET /v1/status HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("a", 1<<20) + "\r\n\r\n",
		"huge path":      "GET /" + strings.Repeat("a", 1<<20) + " HTTP/1.1\r\nHost: x\r\n\r\n",
		"huge body":      "POST /v1/reload HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n" + strings.Repeat("a", 1<<20),
		"missing body":   "POST /v1/reload HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n",
		"bad chunks":     "POST /v1/reload HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzzz\r\n",
		"negative body":  "POST /v1/reload HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
		"dots":           "GET /../../etc/passwd HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
		"other protocol": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			raw(t, path, request)
			if d.reloads.Load() != 0 {
				t.Error("a malformed request reloaded the configuration")
			}
			if _, err := NewClient(path).Status(t.Context()); err != nil {
				t.Errorf("a good request afterwards: %v", err)
			}
		})
	}
}

func TestSlowClientsDoNotKeepOthersOut(t *testing.T) {
	t.Parallel()
	const connections = 4
	lim := quick(200 * time.Millisecond)
	lim.connections, lim.streams = connections, 0
	path := start(t, &daemon{status: picture}, lim)
	for range connections * 3 {
		conn, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, "GET /v1/status HTTP/1.1\r\nHost:"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := NewClient(path).Status(t.Context()); err != nil {
		t.Errorf("a client behind the slow ones: %v", err)
	}
}

func TestSlowReadersDoNotKeepOthersOut(t *testing.T) {
	t.Parallel()
	lim := quick(100 * time.Millisecond)
	lim.connections, lim.streams = 4, 0
	large := picture()
	large.RouterID = strings.Repeat("x", 8<<20)
	path := start(t, &daemon{status: func() *status.Status { return large }}, lim)
	for range lim.connections * 3 {
		conn, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		io.WriteString(conn, "GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n")
	}
	if s, err := NewClient(path).Status(t.Context()); err != nil || len(s.RouterID) != 8<<20 {
		t.Errorf("a client behind the slow ones: %v", err)
	}
}

func TestAThousandSlowClientsKeepNobodyOut(t *testing.T) {
	t.Parallel()
	large := picture()
	large.RouterID = strings.Repeat("x", 1<<20) // no socket takes that at once
	entered := make(chan struct{})
	d := &hanging{daemon{status: func() *status.Status { return large }}, entered}
	path := start(t, d, defaults())
	ctx, cancel := context.WithCancel(t.Context())
	reloaded := make(chan error, 1)
	go func() { reloaded <- NewClient(path).Reload(ctx) }()
	<-entered
	requests := []string{
		"", "GET /v1/sta", "GET /v1/status HTTP/1.1\r\nHost: x\r\n", "GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n", "GET /v1/events?follow=false HTTP/1.1\r\nHost: x\r\n\r\n",
		"GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n", "POST /v1/drain HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{", "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
	}
	for n := range 1000 {
		conn, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		io.WriteString(conn, requests[n%len(requests)])
	}
	began := time.Now()
	s, err := NewClient(path).Status(t.Context())
	if err != nil || len(s.RouterID) != 1<<20 {
		t.Errorf("a client behind them: %v after %v", err, time.Since(began))
	}
	t.Logf("a client behind them is answered after %v", time.Since(began))
	select {
	case err := <-reloaded:
		t.Errorf("a reload was given up for them: %v", err)
	default:
	}
	cancel()
	<-reloaded
}

func TestAReloadMayTakeLongerThanItsRequest(t *testing.T) {
	lim := quick(20 * time.Millisecond)
	d := &patient{daemon{status: picture}, 5 * lim.read}
	if err := NewClient(start(t, d, lim)).Reload(t.Context()); err != nil {
		t.Error(err)
	}
}

// patient is a director whose reload takes its time.
type patient struct {
	daemon
	takes time.Duration
}

func (p *patient) Reload(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(p.takes):
		return nil
	}
}

func TestManyClientsAreAllAnsweredAFewAtATime(t *testing.T) {
	t.Parallel()
	const clients, connections = 1000, 8
	var now, most atomic.Int32
	d := &daemon{status: func() *status.Status {
		n := now.Add(1)
		defer now.Add(-1)
		for {
			m := most.Load()
			if n <= m || most.CompareAndSwap(m, n) {
				break
			}
		}
		return picture()
	}}
	lim := defaults()
	lim.connections, lim.streams, lim.patience = connections, 0, time.Minute
	path := start(t, d, lim)
	var group sync.WaitGroup
	failures := make(chan error, clients)
	for range clients {
		group.Go(func() {
			if _, err := NewClient(path).Status(t.Context()); err != nil {
				failures <- err
			}
		})
	}
	group.Wait()
	close(failures)
	for err := range failures {
		t.Error(err)
	}
	if n := most.Load(); n > connections {
		t.Errorf("%d requests were under way at once, want at most %d", n, connections)
	}
}

func TestServeStopsThoughAClientHangs(t *testing.T) {
	path := filepath.Join(t.TempDir(), "control.sock")
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	entered := make(chan struct{})
	d := &hanging{entered: entered}
	lim := defaults()
	lim.stop = 10 * time.Millisecond
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- serve(ctx, l, d, slog.New(slog.DiscardHandler), lim) }()
	asked := make(chan error, 1)
	go func() { asked <- NewClient(path).Reload(t.Context()) }()
	<-entered
	stop()
	select {
	case err := <-served:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("serve waits for a reload that never ends")
	}
	if err := <-asked; err == nil {
		t.Error("the client was told that its reload is done")
	}
}

// hanging is a director whose reload ends only when nobody waits for it any more.
type hanging struct {
	daemon
	entered chan struct{}
}

func (h *hanging) Reload(ctx context.Context) error {
	close(h.entered)
	<-ctx.Done()
	return fmt.Errorf("reload: %w", ctx.Err())
}
