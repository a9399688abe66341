package supervisor

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// busyChild hurries, has goroutines wait in the kernel and calculate beside garbage collections, and prints the slack of
// its threads.
func busyChild() int {
	// As if a thread that is woken late had started this process.
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(watcherSlack.Nanoseconds()), 0, 0, 0); err != nil {
		return 9
	}
	hurry()
	end := time.Now().Add(1500 * time.Millisecond)
	var all sync.WaitGroup
	for range processors / 4 {
		all.Go(func() {
			for time.Now().Before(end) {
				_ = unix.Nanosleep(&unix.Timespec{Nsec: int64(20 * time.Millisecond)}, nil)
			}
		})
		all.Go(func() {
			for time.Now().Before(end) {
				_ = make([]byte, 1<<16)
			}
		})
	}
	all.Wait()
	runtime.GC()
	threads, err := filepath.Glob("/proc/self/task/*")
	if err != nil {
		return 9
	}
	for _, t := range threads {
		if b, err := os.ReadFile("/proc/" + filepath.Base(t) + "/timerslack_ns"); err == nil {
			fmt.Print(string(b))
		}
	}
	return 0
}

func TestOnlyGosWatcherIsWokenLate(t *testing.T) {
	needRoot(t)
	out, err := exec.Command("/proc/self/exe", "busy").Output()
	if err != nil {
		t.Fatal(err)
	}
	list := strings.Fields(string(out))
	late := 0
	for _, ns := range list {
		if ns != fmt.Sprint(slack.Nanoseconds()) {
			late++
		}
	}
	if late != 1 || len(list) <= crowd {
		t.Errorf("of %d threads %d are woken late, want Go's watcher alone: %v", len(list), late, list)
	}
}
