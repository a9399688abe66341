package ha

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// rights is what became of a process that asked for real time.
type rights struct {
	Denied []string
	Policy uint32
	Flags  uint64
	Fuse   uint64
	Locked bool
	Huge   bool // pages
}

// TestMain's process is not made real-time: this one is a child that does what the election's process does.
func TestRealtimeChild(t *testing.T) {
	mode := os.Getenv("HA_REALTIME")
	if mode == "" {
		return // the test is the one that starts it
	}
	runtime.LockOSThread()
	if mode == "denied" {
		none := [2]unix.CapUserData{}
		must(t, unix.Capset(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &none[0]))
		must(t, unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unix.Rlimit{Cur: 65536, Max: 65536}))
		must(t, unix.Setrlimit(unix.RLIMIT_RTPRIO, &unix.Rlimit{}))
	}
	log := slog.New(slog.DiscardHandler)
	r := rights{Denied: realtime(log)}
	lockMemory(log)
	a, err := unix.SchedGetAttr(0, 0)
	must(t, err)
	r.Policy, r.Flags = a.Policy, a.Flags
	var limit unix.Rlimit
	must(t, unix.Getrlimit(unix.RLIMIT_RTTIME, &limit))
	r.Fuse = limit.Max
	status, err := os.ReadFile("/proc/self/status")
	must(t, err)
	for line := range strings.Lines(string(status)) {
		var kilobytes int
		if n, _ := fmt.Sscanf(line, "VmLck: %d", &kilobytes); n == 1 {
			r.Locked = kilobytes > 1024
		}
		r.Huge = r.Huge || strings.HasPrefix(line, "THP_enabled:	1")
	}
	b, err := json.Marshal(r)
	must(t, err)
	must(t, os.WriteFile(os.Getenv("HA_RESULT"), b, 0o600))
}

func askForRealtime(t *testing.T, mode string) (r rights) {
	t.Helper()
	if os.Getuid() != 0 {
		if os.Getenv("LAB") == "1" {
			t.Fatal("this test needs root")
		}
		t.Skip("not root")
	}
	file := t.TempDir() + "/result"
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestRealtimeChild$")
	cmd.Env = append(os.Environ(), "HA_REALTIME="+mode, "HA_RESULT="+file)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	b, err := os.ReadFile(file)
	must(t, err)
	must(t, json.Unmarshal(b, &r))
	return r
}

func TestRealtimeIsTakenWherePermitted(t *testing.T) {
	r := askForRealtime(t, "permitted")
	for _, d := range r.Denied {
		// A container may keep single rights from root; what it keeps is told.
		t.Log("not permitted here:", d)
	}
	told := func(part string) bool { return strings.Contains(strings.Join(r.Denied, "\n"), part) }
	fifo := r.Policy == unix.SCHED_FIFO && r.Flags&unix.SCHED_FLAG_RESET_ON_FORK != 0 && r.Fuse == uint64(fuse.Microseconds())
	if fifo == told("SCHED_FIFO") || r.Locked == told("memory is not locked") || r.Huge {
		t.Errorf("%+v", r)
	}
}

func TestRealtimeThatIsRefusedIsToldWithTheCure(t *testing.T) {
	r := askForRealtime(t, "denied")
	all := strings.Join(r.Denied, "\n")
	for _, cure := range []string{"CAP_SYS_NICE, or LimitRTPRIO", "CAP_IPC_LOCK, or LimitMEMLOCK", "OOMScoreAdjust"} {
		if !strings.Contains(all, cure) {
			t.Errorf("no word of %s in %q", cure, all)
		}
	}
	if r.Policy != unix.SCHED_NORMAL || r.Locked {
		t.Errorf("%+v", r)
	}
}

func TestALoopThatNeverSleepsRestsBeforeTheFuse(t *testing.T) {
	l := &loop{}
	if restAfter >= fuse {
		t.Error("it rests too late")
	}
	began := time.Now()
	l.rest(10*time.Second, 10*time.Second) // busy since the start
	if l.rested != 10*time.Second || time.Since(began) < time.Microsecond {
		t.Error("no rest")
	}
	if l.rest(10*time.Second+restAfter/2, 10*time.Second+restAfter/2); l.rested != 10*time.Second {
		t.Error("rests too often")
	}
	if l.rest(11*time.Second, 12*time.Second); l.rested != 12*time.Second {
		t.Error("a sleep is a rest")
	}
}
