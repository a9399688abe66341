package logging

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// paper is where the log is written.
type paper struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (p *paper) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.Write(b)
}

// lines are those written since the last call, without their time.
func (p *paper) lines() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var list []string
	for line := range strings.Lines(p.text.String()) {
		_, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		list = append(list, rest)
	}
	p.text.Reset()
	return list
}

// logged runs a test in a bubble, with a logger and what it has written.
func logged(t *testing.T, test func(log *slog.Logger, p *paper, q *Queue)) {
	synctest.Test(t, func(t *testing.T) {
		p, q := &paper{}, newQueue()
		ended := make(chan struct{})
		go func() { defer close(ended); q.run() }()
		test(slog.New(q.Handler(slog.NewTextHandler(p, nil))), p, q)
		close(q.entries)
		<-ended
	})
}

func TestRepeatsAreWrittenAtOnceAndThenWithACount(t *testing.T) {
	logged(t, func(log *slog.Logger, p *paper, _ *Queue) {
		flap := func(n int) {
			for range n {
				log.With("instance", "VI_1").Warn("comes and goes", "error", "no route", "pid", n, "after", time.Duration(n))
				log.With("instance", "VI_2").Warn("comes and goes", "error", "no route", "pid", n, "after", time.Duration(n))
			}
			synctest.Wait()
		}
		count := func(want int, text string) {
			t.Helper()
			got := p.lines()
			n := 0
			for _, line := range got {
				if strings.Contains(line, text) {
					n++
				}
			}
			if n != want {
				t.Errorf("%d lines with %s, want %d of\n%s", n, text, want, strings.Join(got, "\n"))
			}
		}
		flap(3)
		count(3, "VI_1")
		flap(2)
		count(2, "VI_2")
		flap(40)
		log.With("instance", "VI_1").Warn("comes and goes", "error", "no address")
		log.With("instance", "VI_1").Info("comes and goes", "error", "no route", "pid", 1, "after", time.Second)
		synctest.Wait()
		count(2, "VI_1") // other facts
		time.Sleep(window - time.Second)
		count(0, "")
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if got := p.lines(); len(got) != 2 || !slices.ContainsFunc(got, func(line string) bool {
			return line == `level=WARN msg="comes and goes" instance=VI_1 error="no route" pid=40 after=40ns repeats=40 within=1m0s`
		}) {
			t.Errorf("at the end of the minute: %q", got)
		}
		flap(7) // it goes on
		count(0, "")
		time.Sleep(2 * window)
		synctest.Wait()
		count(2, "repeats=7")
		time.Sleep(2 * window)
		flap(1)
		count(1, "VI_1") // said anew
	})
}

func TestOnlySoManyDifferentLinesAreRemembered(t *testing.T) {
	logged(t, func(log *slog.Logger, p *paper, q *Queue) {
		for n := range 3 * maxLines {
			log.Info(fmt.Sprint("line ", n))
			synctest.Wait()
		}
		if n := len(p.lines()); n != 3*maxLines || len(q.repeats.lines) != maxLines {
			t.Errorf("%d lines written, %d remembered", n, len(q.repeats.lines))
		}
		time.Sleep(2 * window)
		synctest.Wait()
		if n := len(q.repeats.lines); n != 0 {
			t.Errorf("%d remembered for ever", n)
		}
	})
}

func TestFlushWritesWhatWasCounted(t *testing.T) {
	logged(t, func(log *slog.Logger, p *paper, q *Queue) {
		for range 8 {
			log.Info("x")
		}
		q.Flush(time.Second)
		if got := p.lines(); len(got) != 6 || got[5] != "level=INFO msg=x repeats=3 within=1m0s" {
			t.Errorf("written: %q", got)
		}
	})
}

func TestFullPipeStopsNobodyAndWhatWasLostIsCounted(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	q := NewQueue()
	log := slog.New(q.Handler(slog.NewTextHandler(blocking{w}, nil)))
	const many = 20000 // more than the pipe and the queue hold
	for n := range many {
		log.Info(fmt.Sprintf("line %d is one of many that nobody reads", n)) // a log that blocks would never end here
	}
	q.Flush(time.Millisecond) // nor would this

	read := make(chan string)
	go func() {
		var all bytes.Buffer
		all.ReadFrom(r)
		read <- all.String()
	}()
	q.Flush(time.Minute)
	log.Info("the last one")
	q.Flush(time.Minute)
	w.Close()
	text := <-read
	lines := strings.Count(text, "nobody reads")
	if lines < waiting || lines > many/2 || !strings.Contains(text, "the last one") {
		t.Errorf("%d lines of %d written", lines, many)
	}
	told := 0
	for _, some := range regexp.MustCompile(`log lines lost.* lines=(\d+)\n`).FindAllStringSubmatch(text, -1) {
		n, _ := strconv.Atoi(some[1])
		told += n
	}
	if told != many-lines {
		t.Errorf("%d lines are lost, and told are %d", many-lines, told)
	}
}

// blocking is a file that is written as standard error is: a full pipe blocks the thread.
type blocking struct{ *os.File }

func (b blocking) Write(p []byte) (int, error) { return syscall.Write(int(b.Fd()), p) }

func TestFullDiskIsToldWhenThereIsSpaceAgain(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can mount")
	}
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=16k"); err != nil {
		t.Fatal(err)
	}
	defer syscall.Unmount(dir, syscall.MNT_DETACH)
	file, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	q := NewQueue()
	log := slog.New(q.Handler(slog.NewTextHandler(file, nil)))
	for n := range 1000 {
		log.Info(fmt.Sprint("line ", n))
	}
	q.Flush(time.Minute)
	_, err = file.Seek(0, 0)
	if err := errors.Join(err, file.Truncate(0)); err != nil {
		t.Fatal(err)
	}
	log.Info("there is space")
	q.Flush(time.Minute)
	text, err := os.ReadFile(file.Name())
	if err != nil || !strings.Contains(string(text), "there is space") || strings.Count(string(text), "log lines lost") != 1 {
		t.Errorf("%v; written: %s", err, text)
	}
}

func BenchmarkLine(b *testing.B) {
	log := slog.New(NewQueue().Handler(slog.NewTextHandler(&paper{}, nil)))
	for b.Loop() {
		log.Info("state changed", "instance", "VI_1", "from", "MASTER", "to", "BACKUP")
	}
}
