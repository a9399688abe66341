package supervisor

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// watchPriority is that of the thread that watches the lease: real-time, and just below the election's loop, which is at
// 40, so that it never comes before the one that it watches.
const watchPriority = 39

// niceness is that of all other threads of the supervisor and of the election. One election follows another within two
// intervals, of 10 ms at the shortest: that takes some steps in both, and on a busy box each of them would wait for
// milliseconds behind others. Real-time they must not be: Go's threads wait for one another by giving way in a loop,
// which as SCHED_FIFO on one CPU keeps that one from ever going on.
const niceness = -20

// fuse ends a supervisor whose watching thread has lost its way: in so many seconds without a wait it would have kept a CPU
// from everybody. The service manager starts it again.
const fuse = 3

// slack is how much later than asked for the kernel may wake a thread: its own default. watcherSlack is that of Go's watcher:
// the thread with which Go's scheduler looks after every wait in the kernel a few dozen times, 20 us apart, whether it has
// ended. It would use more CPU than all the rest. It takes a processor from who waits in the kernel or calculates for long,
// which is needed where those are few: see processors; and it looks for messages and timers where the last thread that did has
// gone to wait in the kernel. So it may be late, but not for long: with a minute, starts took as much.
const (
	slack        = 50 * time.Microsecond
	watcherSlack = time.Second
)

// processors are more of Go's than goroutines ever wait in the kernel at one time: with 4 of them and a slow watcher, 500
// instances that came to a busy box were announced for eight seconds. That they are said at all keeps Go from looking every
// second how many CPUs there are.
const processors = 16

// crowd is how many threads are started at the beginning: more than there are processors and waits in the kernel. A new
// thread has the slack of the one that starts it, and Go's watcher starts one where it finds none at rest. That one sleeps for
// microseconds in the middle of Go's scheduler, which would be a second then; and everybody waits for it, the real-time
// thread too, when a garbage collection begins or ends.
const crowd = processors + 8

// hurry puts this process before ordinary ones, where that is permitted.
func hurry() {
	runtime.GOMAXPROCS(max(processors, runtime.GOMAXPROCS(0)))
	watcher, err := watcher()
	if err == nil {
		gather(crowd)
	}
	_ = unix.Setrlimit(unix.RLIMIT_RTTIME, &unix.Rlimit{Cur: fuse * 1e6, Max: fuse * 1e6})
	// Later threads inherit it from earlier ones. One that comes meanwhile may have been started by one that was not changed
	// yet: so it is looked again until there is none.
	done := map[string]bool{}
	for more := true; more; {
		more = false
		tasks, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return
		}
		for _, t := range tasks {
			tid, err := strconv.Atoi(t.Name())
			if err != nil || done[t.Name()] {
				continue
			}
			done[t.Name()], more = true, true
			if err := setNice(tid, niceness); err != nil && err != unix.ESRCH {
				return // not permitted: the election tells that, with the cure
			}
			if t.Name() != watcher {
				setSlack(t.Name(), slack) // who started this process may have had another one
			}
		}
	}
	if watcher != "" {
		setSlack(watcher, watcherSlack)
	}
}

// gather has n threads at once, which rest afterwards until Go needs them.
func gather(n int) {
	var there sync.WaitGroup
	there.Add(n)
	for range n {
		go func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			there.Done()
			there.Wait()
		}()
	}
	there.Wait()
}

// setSlack is without effect where it is not permitted: a little more CPU is used.
func setSlack(tid string, d time.Duration) {
	_ = os.WriteFile("/proc/"+tid+"/timerslack_ns", fmt.Append(nil, d.Nanoseconds()), 0)
}

// watcher is the id of Go's watcher: the first thread that a Go process starts. The kernel lists them in the order of their start.
func watcher() (tid string, err error) {
	d, err := os.Open("/proc/self/task")
	if err != nil {
		return "", err
	}
	defer d.Close()
	tasks, err := d.Readdirnames(2)
	if err != nil || len(tasks) < 2 {
		return "", errors.Join(err, errors.New("there is no second thread"))
	}
	return tasks[1], nil
}

// relaxed calls f on a thread of ordinary priority: a process that f starts is an ordinary one until it asks for more.
func relaxed(f func()) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before, err := unix.SchedGetAttr(0, 0)
	if err != nil || before.Nice >= 0 {
		f()
		return
	}
	_ = setNice(0, 0) // is always permitted
	f()
	_ = setNice(0, int(before.Nice)) // was permitted before
}

func setNice(tid, nice int) error {
	return unix.SchedSetAttr(tid, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_NORMAL, Nice: int32(nice)}, 0)
}

// hurryThread gives the calling thread alone the priority of the watch.
func hurryThread() {
	_ = unix.SchedSetAttr(0, &unix.SchedAttr{
		Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: watchPriority, Flags: unix.SCHED_FLAG_RESET_ON_FORK,
	}, 0)
}
