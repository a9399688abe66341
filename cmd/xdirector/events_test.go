package main

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/xdirector/xdirector/pkg/status"
)

func happening() *obedient {
	at := time.Date(2030, 1, 2, 3, 4, 5, 6e6, time.Local)
	o := &obedient{pictures: [][]status.Instance{{{Name: "VI_1"}}}}
	o.feed.Publish([]status.Event{
		{Time: at, Kind: status.KindInstance, Level: status.LevelInfo, Instance: "VI_1", Text: "VI_1 is MASTER, was BACKUP: no advert for 3.6s"},
		{Time: at, Kind: status.KindRealServer, Level: status.LevelWarning, Service: "web", Text: "web/10.0.0.4 is down: \x1b[2J"},
	})
	return o
}

func TestEventsAreOneLineEach(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]string{
		"events --follow=false": "2030-01-02 03:04:05.006  info     instance     VI_1 is MASTER, was BACKUP: no advert for 3.6s\n" +
			"2030-01-02 03:04:05.006  warning  real_server  web/10.0.0.4 is down: ?[2J\n",
		"events --follow=false --history 0":                             "",
		"events --follow=false --kinds instance,check --instance VI_1":  "2030-01-02 03:04:05.006  info     instance     VI_1 is MASTER, was BACKUP: no advert for 3.6s\n",
		"events --follow=false --kinds all --history 1":                 "2030-01-02 03:04:05.006  warning  real_server  web/10.0.0.4 is down: ?[2J\n",
		"events --follow=false --kinds director --instance VI_1 --json": "",
	} {
		code, stdout, stderr := command(t, append(strings.Fields(args), "--config", serveDirector(t, happening()))...)
		if code != 0 || stdout != want || stderr != "" {
			t.Errorf("%s: exit code %d, %q, stderr %q, want %q", args, code, stdout, stderr, want)
		}
	}
}

// TestEventsGoOnOverARestart follows a director that stops, and the one that comes after it.
func TestEventsGoOnOverARestart(t *testing.T) {
	t.Parallel()
	o, dir := happening(), t.TempDir()
	socket, file := filepath.Join(dir, "control.sock"), filepath.Join(dir, "config.yaml")
	if err := os.WriteFile(file, []byte("control: {socket: \""+socket+"\"}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	stop := serveAt(t, o, socket)
	cmd := exec.Command(os.Args[0], "events", "--history", "1", "--json", "--config", file)
	cmd.Env = append(os.Environ(), "XDIRECTOR_TEST_MAIN=1")
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	watchdog := time.AfterFunc(20*time.Second, func() { cmd.Process.Kill() })
	defer watchdog.Stop()
	lines, errors := bufio.NewScanner(stdout), bufio.NewScanner(stderr)
	expect := func(s *bufio.Scanner, want string) {
		t.Helper()
		if !s.Scan() || !strings.Contains(s.Text(), want) {
			t.Errorf("got %q (%v), want %q", s.Text(), s.Err(), want)
		}
	}
	expect(lines, `"level":"warning"`)
	stop()
	expect(errors, "the stream of events has ended: the director is stopping, or is being restarted; waiting for it")
	next := happening()
	defer serveAt(t, next, socket)()
	expect(lines, `"kind":"instance","level":"info"`)
	expect(lines, `"level":"warning"`)
	next.feed.Publish([]status.Event{{Kind: status.KindReload, Text: "reloaded"}})
	expect(lines, `"text":"reloaded"`)
	cmd.Process.Signal(syscall.SIGINT)
	if err := cmd.Wait(); err != nil {
		t.Errorf("it ends with %v", err)
	}
}
