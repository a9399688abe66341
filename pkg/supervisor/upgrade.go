package supervisor

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xdirector/xdirector/pkg/ha"
)

// An upgrade has the same process execute the installed binary. The agent leaves before, the election goes on under the
// new supervisor, unheard but watched, until the new agent has said what the new election is to do and that is ready
// for it. So no message ever passes between two versions.

// inheritVariable is in the environment of a supervisor that was started by an upgrade: the descriptor of its
// inheritance.
const inheritVariable = "XDIRECTOR_INHERIT"

const (
	checkLimit = 15 * time.Second // for the new binary to say that it works
	leaveLimit = 2 * time.Second  // for the agent to leave
)

// inheritance is what one supervisor leaves to the next. Its fields keep their meaning for ever: the two are of
// different versions.
type inheritance struct {
	Version  string           // of the binary that leaves it
	Began    time.Duration    // CLOCK_MONOTONIC
	Election int              // process id
	Socket   int              // of the election: held open, or it would think that its supervisor is gone
	Lease    int              // descriptor
	Lock     int              // descriptor, of state_dir; 0: there is none
	Maps     []int            // descriptors
	Config   json.RawMessage  `json:",omitempty"`
	Track    json.RawMessage  `json:",omitempty"`
	MapsBody json.RawMessage  `json:",omitempty"`
	Packets  []ha.ReadyPacket `json:",omitempty"`
	Restarts uint64           // of the election
}

// upgrade is one that is under way.
type upgrade struct {
	path    string
	version string
	err     error
}

// installed is the path of the running binary, where another one may lie by now.
func installed() (string, error) {
	path, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return "", fmt.Errorf("find the installed binary: %w", err)
	}
	return strings.TrimSuffix(path, " (deleted)"), nil
}

// beginUpgrade has the installed binary prove that it works; the answer comes on s.checked.
func (s *supervisor) beginUpgrade() {
	switch {
	case s.stopping:
		s.log.Warn("upgrade refused: this director is stopping")
		return
	case s.upgrade != nil || s.old != nil:
		s.log.Warn("upgrade refused: one is under way")
		return
	case !s.ready || s.election.child == nil:
		s.log.Warn("upgrade refused: this director is starting; try again when it is ready")
		return
	}
	s.upgrade = &upgrade{}
	go func() {
		u := &upgrade{}
		if u.path, u.err = installed(); u.err == nil {
			u.version, u.err = try(u.path, s.opts.CheckArgs)
		}
		s.checked <- u
	}()
}

// try runs the binary twice: for its version, and to have it read the configuration.
func try(path string, check []string) (version string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), checkLimit)
	defer cancel()
	ask := func(args ...string) ([]byte, error) {
		cmd := exec.CommandContext(ctx, path, args...)
		cmd.Env = childEnvironment(os.Environ())
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		var out []byte
		var err error
		relaxed(func() { out, err = cmd.Output() })
		if text := strings.TrimSpace(stderr.String()); err != nil && text != "" {
			err = fmt.Errorf("%w: %s", err, text)
		}
		if err != nil {
			return nil, fmt.Errorf("%s %s: %w", path, strings.Join(args, " "), err)
		}
		return out, nil
	}
	out, err := ask("version", "--json")
	if err != nil {
		return "", err
	}
	var v struct{ Version string }
	if err := json.Unmarshal(out, &v); err != nil || v.Version == "" {
		return "", fmt.Errorf("%s is no xdirector: it answers %q when asked for its version", path, out)
	}
	_, err = ask(check...)
	return v.Version, err
}

// proven goes on with an upgrade, or refuses it.
func (s *supervisor) proven(u *upgrade) {
	switch {
	case u.err != nil:
		s.log.Error("upgrade refused: everything goes on with this version", "version", s.opts.Version, "error", u.err)
	case s.stopping, s.election.child == nil:
		s.log.Warn("upgrade given up: this director is stopping, or its election is being started; try again")
	default:
		s.log.Info("upgrading", "from", s.opts.Version, "to", u.version, "binary", u.path)
		s.opts.Notify("STATUS=upgrading to " + u.version)
		s.upgrade = u
		s.upgradeBegan = monotonic()
		if s.agent.child == nil {
			s.execute()
			return
		}
		c := s.agent.child
		c.leaving = true
		c.tell(kindLeave, nil)
		time.AfterFunc(leaveLimit, c.kill)
		return
	}
	s.upgrade = nil
}

// execute replaces this process. It returns only if that fails; the agent is started again then.
func (s *supervisor) execute() {
	u := s.upgrade
	s.upgrade = nil
	if s.opts.Flush != nil {
		s.opts.Flush()
	}
	err := s.replace(u.path)
	s.log.Error("upgrade failed: everything goes on with this version", "version", s.opts.Version, "error", err)
	s.start(s.agent)
}

func (s *supervisor) replace(path string) error {
	c := s.election.child
	if c == nil {
		return errors.New("the election ended at this moment")
	}
	var err error
	will := inheritance{
		Version: s.opts.Version, Began: s.upgradeBegan, Election: c.process.Pid, Packets: s.packets, Restarts: s.election.restarts,
		Config: s.wishes[kindConfig].body, Track: s.wishes[kindTrack].body, MapsBody: s.wishes[kindMaps].body,
	}
	pass := func(f *os.File) int {
		fd := int(f.Fd())
		if _, e := unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0); e != nil {
			err = fmt.Errorf("pass on a descriptor: %w", e)
		}
		return fd
	}
	will.Socket, will.Lease = pass(c.conn.File), pass(s.lease.file)
	if s.lock != nil {
		will.Lock = pass(s.lock)
	}
	for _, f := range s.wishes[kindMaps].files {
		will.Maps = append(will.Maps, pass(f))
	}
	file, e := writeInheritance(will)
	if e != nil {
		return e
	}
	defer file.Close()
	fd := pass(file)
	if err != nil {
		return err
	}
	env := append(childEnvironment(os.Environ()), inheritVariable+"="+strconv.Itoa(fd))
	for _, name := range []string{"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} {
		if v, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+v)
		}
	}
	// Signals that come before the next supervisor has its handlers wait for those. See unblocked.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var signals, before unix.Sigset_t
	for _, n := range []int{int(unix.SIGTERM), int(unix.SIGINT), int(unix.SIGHUP), int(unix.SIGUSR2)} {
		signals.Val[(n-1)/64] |= 1 << ((n - 1) % 64)
	}
	if err := unix.PthreadSigmask(unix.SIG_BLOCK, &signals, &before); err != nil {
		return fmt.Errorf("block signals: %w", err)
	}
	err = unix.Exec(path, os.Args, env)
	_ = unix.PthreadSigmask(unix.SIG_SETMASK, &before, nil)
	for _, fd := range append(will.Maps, will.Socket, will.Lease, will.Lock) {
		unix.CloseOnExec(fd)
	}
	return fmt.Errorf("execute %s: %w", path, err)
}

func writeInheritance(will inheritance) (*os.File, error) {
	b, err := json.Marshal(will)
	if err != nil {
		return nil, fmt.Errorf("write inheritance: %w", err)
	}
	fd, err := unix.MemfdCreate("inheritance", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("write inheritance: %w", err)
	}
	f := os.NewFile(uintptr(fd), "inheritance")
	if _, err := f.Write(b); err != nil {
		f.Close()
		return nil, fmt.Errorf("write inheritance: %w", err)
	}
	return f, nil
}

// inherited reads what the supervisor before an upgrade left; nil: this is no upgrade.
func inherited() (*inheritance, error) {
	text, ok := os.LookupEnv(inheritVariable)
	if !ok {
		return nil, nil
	}
	fd, err := strconv.Atoi(text)
	if err != nil {
		return nil, fmt.Errorf("read inheritance: %s=%s", inheritVariable, text)
	}
	if err := os.Unsetenv(inheritVariable); err != nil {
		return nil, fmt.Errorf("read inheritance: %w", err)
	}
	f := os.NewFile(uintptr(fd), "inheritance")
	defer f.Close()
	b, err := io.ReadAll(io.NewSectionReader(f, 0, maxBody))
	if err != nil {
		return nil, fmt.Errorf("read inheritance: %w", err)
	}
	var will inheritance
	if err := json.Unmarshal(b, &will); err != nil {
		return nil, fmt.Errorf("read inheritance: %w", err)
	}
	for _, fd := range append([]int{will.Socket, will.Lease, will.Lock}, will.Maps...) {
		unix.CloseOnExec(fd)
	}
	return &will, nil
}

// inherit takes over from the supervisor before the upgrade.
func (s *supervisor) inherit(will *inheritance) error {
	var err error
	if s.lease, err = openLease(os.NewFile(uintptr(will.Lease), "lease")); err != nil {
		return err
	}
	if will.Lock > 0 {
		s.lock = os.NewFile(uintptr(will.Lock), "lock")
	}
	process, err := os.FindProcess(will.Election)
	if err != nil {
		return fmt.Errorf("find the election: %w", err)
	}
	socket, err := newConn(will.Socket)
	if err != nil {
		return err
	}
	s.old = &child{role: roleElection, process: process, conn: socket, out: newOutbox(), started: time.Now(), ooms: oomKills()}
	go s.old.follow(s.events)
	s.ready, s.before, s.upgradeBegan, s.packets = true, will.Version, will.Began, will.Packets
	s.election.restarts = will.Restarts
	keep := func(k kind, body json.RawMessage) {
		if body != nil {
			s.wishes[k] = message{kind: k, body: body}
		}
	}
	keep(kindConfig, will.Config)
	keep(kindTrack, will.Track)
	keep(kindMaps, will.MapsBody)
	if m, ok := s.wishes[kindMaps]; ok {
		for _, fd := range will.Maps {
			m.files = append(m.files, os.NewFile(uintptr(fd), "map"))
		}
		s.wishes[kindMaps] = m
	}
	return nil
}

// follow passes on the end of the election of the version before. What it says is for nobody: only the end of its
// socket counts, see watch.
func (c *child) follow(events chan<- event) {
	_, _ = io.Copy(io.Discard, c.conn)
	events <- event{child: c, gone: true}
	c.await(events)
}

// succeed has the new election begin where the old one, which is gone, has left off.
func (s *supervisor) succeed() {
	s.old = nil
	if s.election.child == nil {
		s.start(s.election)
		return
	}
	s.guard.over(s.election.child.process)
	s.begin(s.election.child)
}
