package supervisor

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The descriptors of a child besides stdin, stdout and stderr.
const (
	socketFD = 3
	leaseFD  = 4 // of the election
	alarmFD  = 5 // of the election
)

// highFD is the lowest number of the descriptors that a child wants closed first when it dies: the kernel begins with
// the highest.
const highFD = 900

// closing is how long a child that has closed its socket may take to end.
const closing = time.Second

// child is one running process.
type child struct {
	role    role
	process *os.Process
	conn    *conn
	out     *outbox
	started time.Time
	silent  int // ticks of the supervisor since its last message
	ready   bool
	leaving bool   // it was told to make room for the next version
	lost    bool   // another one has taken its place before its end was seen
	ooms    uint64 // processes that the kernel had killed for want of memory when this one was started
}

// event is something that a child said, or its end.
type event struct {
	child *child
	message
	gone  bool             // no code of this child runs any more; comes before ended
	ended *os.ProcessState // not nil: the last event of this child
}

// start runs this binary as another process, connected by a socket pair.
func start(r role, args []string, extra []*os.File, events chan<- event) (*child, error) {
	fail := func(err error) (*child, error) { return nil, fmt.Errorf("start the %s: %w", r, err) }
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fail(err)
	}
	theirs := os.NewFile(uintptr(pair[1]), "socket pair")
	defer theirs.Close()
	ours, err := newConn(pair[0])
	if err != nil {
		return fail(err)
	}
	c := &child{role: r, conn: ours, out: newOutbox(), started: time.Now(), ooms: oomKills()}
	relaxed(func() {
		// An upgrade leaves its signals blocked; a child, and a script that it starts, would inherit that.
		if err = unix.PthreadSigmask(unix.SIG_SETMASK, &unix.Sigset_t{}, nil); err != nil {
			return
		}
		// Whatever file has replaced the binary meanwhile: a child is of the supervisor's own version.
		c.process, err = os.StartProcess("/proc/self/exe", args, &os.ProcAttr{
			Files: append([]*os.File{os.Stdin, os.Stdout, os.Stderr, theirs}, extra...),
			Env:   childEnvironment(os.Environ()),
		})
	})
	if err != nil {
		ours.Close()
		return fail(err)
	}
	go c.out.run(ours)
	go c.watch(events)
	return c, nil
}

// childEnvironment is without what only the main process of a unit may use.
func childEnvironment(all []string) []string {
	var env []string
	for _, v := range all {
		switch name, _, _ := strings.Cut(v, "="); name {
		case "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", inheritVariable:
		default:
			env = append(env, v)
		}
	}
	return env
}

// watch passes on what the child says, and its end after its last word. The kernel closes the sockets of a dead
// process one after another, and may need 30 ms for each packet socket: who wants to follow an election can't wait for
// its end. But when its side of our socket is closed, nothing of it runs any more; see highFD.
func (c *child) watch(events chan<- event) {
	for {
		m, err := c.conn.receive()
		if err != nil {
			break
		}
		events <- event{child: c, message: m}
	}
	events <- event{child: c, gone: true}
	c.await(events)
}

// await passes on the end of the process.
func (c *child) await(events chan<- event) {
	late := time.AfterFunc(closing, c.kill)
	state, err := c.process.Wait()
	late.Stop()
	c.out.close()
	c.conn.Close()
	if err != nil {
		state = &os.ProcessState{} // somebody else has waited for it; it is gone
	}
	events <- event{child: c, ended: state}
}

// kill ends the child without a word to anybody.
func (c *child) kill() { _ = c.process.Kill() }

// tell leaves a message for the child. A nil child hears nothing.
func (c *child) tell(k kind, body []byte, files ...*os.File) {
	if c != nil {
		c.out.put(message{kind: k, body: body, files: files})
	}
}

// cause says in plain words why a child has ended.
func (c *child) cause(state *os.ProcessState) string {
	status, ok := state.Sys().(syscall.WaitStatus)
	switch {
	case !ok:
		return "unknown"
	case status.Signaled() && status.Signal() == syscall.SIGKILL && oomKills() > c.ooms:
		return "killed: the kernel ran out of memory, for the box or for the service (MemoryMax=)"
	case status.Signaled():
		return "killed by " + unix.SignalName(status.Signal())
	}
	return "exit code " + strconv.Itoa(status.ExitStatus())
}

// oomKills counts the processes that the kernel has killed since boot for want of memory; 0: it doesn't say.
func oomKills() uint64 {
	b, err := os.ReadFile("/proc/vmstat")
	if err != nil {
		return 0
	}
	for line := range bytes.Lines(b) {
		if text, ok := bytes.CutPrefix(line, []byte("oom_kill ")); ok {
			n, _ := strconv.ParseUint(string(bytes.TrimSpace(text)), 10, 64)
			return n
		}
	}
	return 0
}
