// Package command runs the commands of operators, tracked scripts and hooks: as a user of their own, never one that others
// could have changed, for a limited time, and with their whole process group.
package command

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"os/user"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode"

	"golang.org/x/sys/unix"
)

const (
	environment = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	afterDeath  = 100 * time.Millisecond // for the rest of the output, if a process outside the group holds it open
	maxLine     = 160                    // bytes of the last line of output that are told
)

// Command is run in the folder /, in a session of its own, with nothing but PATH and Env in its environment, without open
// files and without a way to gain privileges.
type Command struct {
	Line    []string      // an absolute path and its arguments; never a shell's line
	User    string        // in /etc/passwd, by name or number; it has that user's groups too
	Timeout time.Duration // then its whole process group is killed
	Env     []string      // as NAME=VALUE
	Input   []byte        // on its standard input; nil: /dev/null
}

// patience is how much longer than its timeout a command may take to die.
const patience = time.Second

// Run runs the command once; nil: it exited with 0. Whatever of its process group is left then is killed, as is all of it
// when ctx ends. An error is one line, with the last line of its output. It returns when the command has ended, so see Await.
func (c Command) Run(ctx context.Context) error {
	result := make(chan error, 1)
	// The thread of a run has given up its way to gain privileges, and what it started is killed when it ends.
	go func() {
		runtime.LockOSThread()
		result <- c.run(ctx)
	}()
	return <-result
}

// Await waits for the end of a run that comes from result. One that doesn't end though it was killed is told by late once,
// and nobody waits for it when ctx has ended.
func Await(ctx context.Context, result <-chan error, timeout time.Duration, late func(error)) error {
	limit := time.NewTimer(timeout + patience)
	defer limit.Stop()
	gone := ctx.Done()
	for {
		select {
		case err := <-result:
			return err
		case <-gone:
			gone = nil
			limit.Reset(patience)
		case <-limit.C:
			if ctx.Err() != nil {
				return ctx.Err()
			}
			late(fmt.Errorf("it does not end within %v, though it was killed: a file system that doesn't answer does that (see ps -eo pid,state,wchan:20,args), or a service without CAP_KILL", timeout))
		}
	}
}

// IsOwnFault says whether a run could not begin because this box has no more processes, files or memory: that says
// nothing about the command, or what it looks at.
func IsOwnFault(err error) bool {
	for _, fault := range []error{unix.EAGAIN, unix.ENOMEM, unix.EMFILE, unix.ENFILE} {
		if errors.Is(err, fault) {
			return true
		}
	}
	return false
}

// run is called on a thread that ends afterwards.
func (c Command) run(ctx context.Context) error {
	who, err := lookup(c.User)
	if err != nil {
		return err
	}
	if err := secure(c.Line, int(who.Uid)); err != nil {
		return err
	}
	// "With no_new_privs set, execve promises not to grant the privilege to do anything that could not have been done
	// without the execve call" (prctl(2)): a setuid program among others is run as the user.
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("give up new privileges: %w", err)
	}
	// A service that isn't root has its capabilities in the ambient set, and what is there outlives execve and setuid both.
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fmt.Errorf("give up capabilities: %w", err)
	}
	// Files that this process was started with would be open in the command. Kernels before 5.11 know no such call; the
	// files that Go opens are not inherited anyway.
	_ = unix.CloseRange(3, math.MaxInt32, unix.CLOSE_RANGE_CLOEXEC)
	var last lastLine
	cmd := exec.Command(c.Line[0], c.Line[1:]...)
	cmd.Dir, cmd.Env = "/", append([]string{environment}, c.Env...)
	if c.Input != nil {
		cmd.Stdin = bytes.NewReader(c.Input)
	}
	cmd.Stdout, cmd.Stderr = &last, &last
	cmd.WaitDelay = afterDeath
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	if int(who.Uid) != os.Geteuid() {
		cmd.SysProcAttr.Credential = who
	}
	if err := cmd.Start(); err != nil {
		return c.explain(err)
	}
	late := c.watchOver(ctx, cmd.Process.Pid)
	err = cmd.Wait()
	if late {
		return fmt.Errorf("it did not end within %v and was killed%s", c.Timeout, last.text())
	}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
			return fmt.Errorf("it was ended by a signal: %v%s", status.Signal(), last.text())
		}
		return fmt.Errorf("exit status %d%s", exit.ExitCode(), last.text())
	}
	if err != nil && !errors.Is(err, exec.ErrWaitDelay) {
		return fmt.Errorf("wait for %s: %w", c.Line[0], err)
	}
	return nil
}

// watchOver returns when the process has ended, by itself or killed for being late, and its whole group with it. The
// process is not reaped yet, so that its number can't be another's.
func (c Command) watchOver(ctx context.Context, pid int) (late bool) {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
			if !errors.Is(err, unix.EINTR) {
				return
			}
		}
	}()
	limit := time.NewTimer(c.Timeout)
	defer limit.Stop()
	select {
	case <-ended:
	case <-limit.C:
		late = true
	case <-ctx.Done():
	}
	_ = unix.Kill(-pid, unix.SIGKILL) // it may be a group of zombies; without CAP_KILL see Await
	<-ended
	return late
}

// lookup finds the user that a command runs as.
func lookup(name string) (*syscall.Credential, error) {
	u, err := user.Lookup(name)
	if err != nil {
		if u, err = user.LookupId(name); err != nil {
			return nil, fmt.Errorf("there is no user %q in /etc/passwd: make one, or write user: with another", name)
		}
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("read number of user %s: %w", name, err)
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("read group of user %s: %w", name, err)
	}
	who := &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid), Groups: []uint32{uint32(gid)}}
	groups, err := u.GroupIds()
	if err != nil {
		return nil, fmt.Errorf("read groups of user %s: %w", name, err)
	}
	for _, g := range groups {
		if id, err := strconv.ParseUint(g, 10, 32); err == nil && !slices.Contains(who.Groups, uint32(id)) {
			who.Groups = append(who.Groups, uint32(id))
		}
	}
	return who, nil
}

// explain turns the errors of a start into what they mean to an operator.
func (c Command) explain(err error) error {
	switch {
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("it can't be run as user %s: %w: the service needs CAP_SETUID, CAP_SETGID and CAP_KILL (CapabilityBoundingSet= of its unit)", c.User, err)
	case errors.Is(err, unix.EACCES):
		return fmt.Errorf("user %s may not run %s: chmod o+rx the file and the folders above it, make sure that the file system is not mounted noexec, or name another user", c.User, c.Line[0])
	case errors.Is(err, unix.ENOEXEC):
		return fmt.Errorf("%s is no program: a script begins with a line like #!/bin/sh", c.Line[0])
	case errors.Is(err, unix.ENOENT):
		return fmt.Errorf("%s can't be run: the interpreter that its first line names does not exist", c.Line[0])
	}
	return fmt.Errorf("start: %w", err)
}

// lastLine keeps the last line that is written to it, or the beginning of that.
type lastLine struct {
	line, before []byte
}

// Write never fails.
func (l *lastLine) Write(b []byte) (int, error) {
	for _, c := range b {
		switch {
		case c == '\n' && len(strings.TrimSpace(string(l.line))) > 0:
			l.line, l.before = l.before[:0], l.line
		case c == '\n':
			l.line = l.line[:0]
		case len(l.line) < maxLine:
			l.line = append(l.line, c)
		}
	}
	return len(b), nil
}

// text is ": LINE", without what could break a terminal or a log; empty if nothing was written.
func (l *lastLine) text() string {
	line := l.line
	if len(strings.TrimSpace(string(line))) == 0 {
		line = l.before
	}
	plain := strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(string(line), "?"))
	if plain = strings.TrimSpace(plain); plain == "" {
		return ""
	}
	return ": " + plain
}
