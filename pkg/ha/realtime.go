package ha

import (
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xdirector/xdirector/pkg/vrrp"
)

const (
	// fifoPriority is above ordinary real-time work and below the kernel's own interrupt threads, which are at 50 and whose
	// packets we wait for.
	fifoPriority = 40
	// oomScore lets the OOM killer take the agent, and most others, before the election.
	oomScore   = -900
	processors = 16
	// fuse ends a process whose real-time thread has not waited for anything for so long: it would keep a CPU from
	// everybody, and the supervisor starts another one. A loop that works rests in time, see rest.
	fuse      = 3 * time.Second
	restAfter = fuse / 6
	// With tidyAbove bytes a thousand instances have their memory tidied once a minute: it takes another CPU a few milliseconds.
	tidyInterval = 10 * time.Second
	tidyAbove    = 3 << 19
)

// rest has the kernel see that the loop, however much it has to do, has not lost its way. now is after a wait that began at
// before.
func (l *loop) rest(before, now vrrp.Time) {
	switch {
	case now-before >= time.Millisecond: // it has slept
	case now-l.rested < restAfter:
		return
	default:
		_ = unix.Nanosleep(&unix.Timespec{Nsec: 1000}, nil) // a signal ends it early: it was a rest
	}
	l.rested = now
}

// realtime makes the calling thread, and the process around it, one that a busy box does not hold up. It returns what the
// kernel did not permit, in plain words with the cure.
func realtime(log *slog.Logger) (denied []string) {
	// A thread that comes back from a wait needs one of Go's processors. With few of them all could be held by goroutines whose
	// threads the kernel keeps waiting behind the programs of others.
	runtime.GOMAXPROCS(max(processors, runtime.GOMAXPROCS(0)))
	try := func(what, cure string, err error) {
		if err != nil {
			denied = append(denied, fmt.Sprintf("%s: %v; %s", what, err, cure))
		}
	}
	try("memory is not locked, so a box short of it may page the election out", "let the unit have CAP_IPC_LOCK, or LimitMEMLOCK=infinity", mayLock())
	try("the OOM killer may take the election first", "let the unit have CAP_SYS_RESOURCE, or OOMScoreAdjust=-900",
		os.WriteFile("/proc/self/oom_score_adj", fmt.Append(nil, oomScore), 0))
	err := unix.Setrlimit(unix.RLIMIT_RTTIME, &unix.Rlimit{Cur: uint64(fuse.Microseconds()), Max: uint64(fuse.Microseconds())})
	if err == nil {
		// Threads that this one makes, the garbage collector's among them, are ordinary ones.
		err = unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Flags: unix.SCHED_FLAG_RESET_ON_FORK, Priority: fifoPriority}, 0)
	}
	try("no real-time scheduling (SCHED_FIFO), so on a busy box adverts are late: don't use intervals below 100ms", fifoCure(err), err)
	// Where the kernel makes huge pages of everything, what is given back of one would soon be there again, and locked.
	_ = unix.Prctl(unix.PR_SET_THP_DISABLE, 1, 0, 0, 0) // else a few megabytes more
	if len(denied) > 0 {
		log.Warn("the kernel did not permit all that makes the election punctual", "denied", strings.Join(denied, " | "))
	}
	return denied
}

// fifoCure says what to do about a refusal of SCHED_FIFO.
func fifoCure(err error) string {
	if b, err := os.ReadFile("/proc/sys/kernel/sched_rt_runtime_us"); err == nil && strings.TrimSpace(string(b)) == "0" {
		return "sysctl kernel.sched_rt_runtime_us=950000 (it is 0)"
	}
	if may(unix.CAP_SYS_NICE) { // permitted, and refused all the same
		return "the control group has no real-time share: write to its cpu.rt_runtime_us, or boot with rt_group_sched=0"
	}
	return "let the unit have CAP_SYS_NICE, or LimitRTPRIO=40"
}

// mayLock says whether memory may be locked, all of it.
func mayLock() error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit); err != nil {
		return err
	}
	if limit.Max != unix.RLIM_INFINITY && !may(unix.CAP_IPC_LOCK) {
		return unix.EPERM // what is within the limit today would end the process when it grows
	}
	return nil
}

// keepMemory keeps all memory of the process in place from the end of the beginning on, as long as the process lives. What a wave
// of changes needed is given back: a thousand instances begin with many times the memory that they need later.
func keepMemory(log *slog.Logger) {
	if !lockMemory(log) {
		return
	}
	idle := []metrics.Sample{{Name: "/memory/classes/heap/free:bytes"}} // in use once, and no longer
	for range time.Tick(tidyInterval) {
		if metrics.Read(idle); idle[0].Value.Uint64() >= tidyAbove && !lockMemory(log) {
			return
		}
	}
}

// lockMemory locks what is in use, and what ever will be. The kernel takes nothing back that is locked.
func lockMemory(log *slog.Logger) bool {
	if mayLock() != nil {
		return false // told at the start
	}
	_ = unix.Munlockall()
	debug.FreeOSMemory()
	// Without MCL_ONFAULT everything that Go has reserved becomes resident.
	if err := unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | unix.MCL_ONFAULT); err != nil {
		log.Warn("memory is not locked, so a box short of it may page the election out", "error", err)
		return false
	}
	return true
}

// may says whether the thread has a capability.
func may(capability int) bool {
	b, err := os.ReadFile("/proc/thread-self/status")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(b)) {
		var mask uint64
		if n, _ := fmt.Sscanf(line, "CapEff: %x", &mask); n == 1 {
			return mask&(1<<capability) != 0
		}
	}
	return false
}
