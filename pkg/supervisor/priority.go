package supervisor

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Real-time priorities, that of the election's loop being 40. One election follows another within two intervals, of 10 ms
// at the shortest: that takes some steps in this process and in the new one, and on a busy box each of them would wait for
// milliseconds. So all of both, who do little, runs before ordinary processes.
const (
	supervisorPriority = 10
	watchPriority      = 39 // of the thread that watches the lease: never before the one that it watches
)

// fuse ends a supervisor that has lost its way: in so many seconds without a wait a real-time thread would have kept a
// CPU from everybody. The service manager starts it again.
const fuse = 3

// hurry makes this process real-time, where that is permitted.
func hurry() {
	if unix.Setrlimit(unix.RLIMIT_RTTIME, &unix.Rlimit{Cur: fuse * 1e6, Max: fuse * 1e6}) == nil {
		setThreads(unix.SchedAttr{Policy: unix.SCHED_FIFO, Priority: supervisorPriority})
	}
}

// relaxed calls f on a thread of ordinary priority: a process that f starts must not keep a CPU from all others until it
// is ready.
func relaxed(f func()) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before, err := unix.SchedGetAttr(0, 0)
	if err != nil || before.Policy == unix.SCHED_NORMAL {
		f()
		return
	}
	_ = unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_NORMAL}, 0) // is always permitted
	f()
	_ = unix.SchedSetAttr(0, before, 0) // was permitted before
}

// watcherSlack is how much later than asked for the kernel may wake Go's watcher.
const watcherSlack = 5 * time.Millisecond

// goWatcher is the thread with which Go's scheduler looks after every wait in the kernel a few dozen times, 20 us apart,
// whether it has ended: the first one that a Go process starts. Real-time threads have no timer slack, so as one of those it
// would use more CPU than all the rest of an election.
func goWatcher() (tid int) {
	tasks, _ := os.ReadDir("/proc/self/task")
	for _, t := range tasks {
		if n, err := strconv.Atoi(t.Name()); err == nil && n != os.Getpid() && (tid == 0 || n < tid) {
			tid = n
		}
	}
	return tid
}

// setThreads changes all threads of this process but Go's watcher; later ones inherit that. One that comes meanwhile may
// have been started by one that was not changed yet: so it looks again until there is none.
func setThreads(attr unix.SchedAttr) {
	attr.Size = unix.SizeofSchedAttr
	watcher := strconv.Itoa(goWatcher())
	// Without the right to it a little more CPU is used.
	_ = os.WriteFile("/proc/"+watcher+"/timerslack_ns", fmt.Append(nil, watcherSlack.Nanoseconds()), 0)
	done := map[string]bool{watcher: true}
	for more := true; more; {
		more = false
		tasks, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return
		}
		for _, t := range tasks {
			if done[t.Name()] {
				continue
			}
			done[t.Name()], more = true, true
			tid, err := strconv.Atoi(t.Name())
			if err == nil {
				err = unix.SchedSetAttr(tid, &attr, 0)
			}
			if err != nil && err != unix.ESRCH {
				return // not permitted: the election tells that, with the cure
			}
		}
	}
}

// hurryThread gives the calling thread alone the priority of the watch.
func hurryThread() {
	_ = unix.SchedSetAttr(0, &unix.SchedAttr{
		Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: watchPriority, Flags: unix.SCHED_FLAG_RESET_ON_FORK,
	}, 0)
}
