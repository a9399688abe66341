package track

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// program copies /bin/sleep to a name of its own.
func program(t *testing.T, path string) string {
	t.Helper()
	from, err := os.Open("/bin/sleep")
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	to, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(to, from); err != nil {
		t.Fatal(err)
	}
	if err := to.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

// begin starts a process that lives until the test ends or kills it.
func begin(t *testing.T, command ...string) *exec.Cmd {
	t.Helper()
	c := exec.Command(command[0], command[1:]...)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Process.Kill(); _ = c.Wait() })
	return c
}

func TestProcessesAreCountedByNameAndPath(t *testing.T) {
	dir := t.TempDir()
	short, long := fmt.Sprintf("xdt-%d", os.Getpid()%100000), fmt.Sprintf("xdirector-test-program-%d", os.Getpid())
	path, other := program(t, filepath.Join(dir, short)), program(t, filepath.Join(dir, long))
	script := filepath.Join(dir, fmt.Sprintf("xdirector-script-%d.sh", os.Getpid()))
	if err := os.WriteFile(script, []byte("#!/bin/sh\nread line\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	prefix := long[:len(long)-1]
	r := watched(t, nil, Wish{Processes: []string{short, path, long, other, prefix, filepath.Base(script), "xdt-none", short}})
	counts := func(what string, want map[string]int) {
		t.Helper()
		until(t, r, what, func(s State) bool {
			for name, n := range want {
				if s.Processes[name] != n {
					return false
				}
			}
			return s.Ready
		})
	}
	counts("none", map[string]int{short: 0, path: 0, long: 0, other: 0})
	first := begin(t, path, "1000")
	second := begin(t, path, "1000")
	begin(t, other, "1000")
	c := exec.Command(script)
	in, err := c.StdinPipe() // it waits for us
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); _ = c.Wait() })
	counts("all", map[string]int{short: 2, path: 2, long: 1, other: 1, prefix: 0, filepath.Base(script): 1, "xdt-none": 0})

	began := time.Now()
	if err := first.Process.Kill(); err != nil { // nobody waits for it: a zombie
		t.Fatal(err)
	}
	counts("a zombie", map[string]int{short: 1, path: 1})
	if took := time.Since(began); took > 3*2*ownPause {
		t.Errorf("noticed after %v", took)
	}
	// An update replaces the program of a running process.
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := second.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	counts("none of the first", map[string]int{short: 0, path: 0, long: 1})
}

func TestProcessThatIsReplacedByAnotherProgramIsNoticed(t *testing.T) {
	dir := t.TempDir()
	name := fmt.Sprintf("xde-%d", os.Getpid()%100000)
	path := program(t, filepath.Join(dir, name))
	s := newScan("/proc", []string{name})
	release := filepath.Join(dir, "release")
	c := begin(t, "/bin/sh", "-c", "until [ -e "+release+" ]; do sleep 0.01; done; exec "+path+" 1000")
	for range 2 * turns {
		s.all()
	}
	if n := s.counts()[name]; n != 0 {
		t.Fatalf("%d before its time", n)
	}
	if err := os.WriteFile(release, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the other program", func() bool {
		to, err := os.Readlink(filepath.Join("/proc", strconv.Itoa(c.Process.Pid), "exe"))
		return err == nil && to == path
	})
	for range turns {
		s.all()
	}
	if n := s.counts()[name]; n != 1 {
		t.Errorf("%d after %d looks, want 1", n, turns)
	}
}

// BenchmarkLookAtAllProcesses measures what a second of counting costs where this runs.
func BenchmarkLookAtAllProcesses(b *testing.B) {
	s := newScan("/proc", []string{"nginx", "/usr/sbin/haproxy"})
	for range young {
		s.all()
	}
	for b.Loop() {
		s.all()
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/float64(len(s.known)), "us/process")
}
