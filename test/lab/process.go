package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Process is a program that runs on a node. What it prints goes to a file.
type Process struct {
	Name string

	cmd  *exec.Cmd
	log  string
	done chan struct{}
	err  error // of Wait; read after done
}

// start runs a program in the thread's namespace. It is killed when the lab closes, or the process that made the lab
// dies.
func (l *Lab) start(t *thread, name, dir string, env []string, argv ...string) (*Process, error) {
	p := &Process{Name: name, log: filepath.Join(dir, filepath.Base(name)+".log"), done: make(chan struct{})}
	out, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	defer out.Close()
	p.cmd = exec.Command(argv[0], argv[1:]...)
	p.cmd.Dir, p.cmd.Env = dir, append(os.Environ(), env...)
	p.cmd.Stdout, p.cmd.Stderr = out, out
	// A process group of its own: Ctrl-C goes to us alone, who end everything in order.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := t.do(p.cmd.Start); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	l.onClose(p.Kill)
	return p, nil
}

// PID is the process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Running says whether the process has not ended.
func (p *Process) Running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// Signal sends a signal to the process.
func (p *Process) Signal(s os.Signal) error {
	if err := p.cmd.Process.Signal(s); err != nil {
		return fmt.Errorf("signal %s: %w", p.Name, err)
	}
	return nil
}

// Kill ends the process and its children by SIGKILL and waits for it.
func (p *Process) Kill() {
	// Children first: those of keepalived end in good order if their parent dies. It must not start them again.
	_ = p.cmd.Process.Signal(syscall.SIGSTOP)
	for _, pid := range children(p.PID()) {
		_ = unix.Kill(pid, unix.SIGKILL)
	}
	_ = p.cmd.Process.Kill()
	<-p.done
}

// Wait waits for the end of the process and returns its exit code; -1 if a signal ended it.
func (p *Process) Wait(limit time.Duration) (int, error) {
	select {
	case <-p.done:
		var exit *exec.ExitError
		if p.err != nil && !errors.As(p.err, &exit) {
			return -1, fmt.Errorf("wait for %s: %w", p.Name, p.err)
		}
		return p.cmd.ProcessState.ExitCode(), nil
	case <-time.After(limit):
		return -1, fmt.Errorf("wait for %s: it still runs after %v", p.Name, limit)
	}
}

// Terminate ends the process by SIGTERM and waits for it.
func (p *Process) Terminate(limit time.Duration) error {
	if err := p.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	code, err := p.Wait(limit)
	if err == nil && code != 0 {
		return fmt.Errorf("stop %s: exit code %d", p.Name, code)
	}
	return err
}

// Log is everything that the program printed so far, also in earlier runs on the same node.
func (p *Process) Log() string {
	b, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// WaitLog waits until the program has printed the text at least n times.
func (p *Process) WaitLog(ctx context.Context, limit time.Duration, text string, n int) error {
	return Wait(ctx, limit, func() error {
		if got := strings.Count(p.Log(), text); got < n {
			return fmt.Errorf("log of %s: %q printed %d of %d times", p.Name, text, got, n)
		}
		return nil
	})
}

// children lists the direct children of a process.
func children(pid int) []int {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return nil
	}
	var pids []int
	for _, f := range strings.Fields(string(b)) {
		var child int
		if _, err := fmt.Sscan(f, &child); err == nil {
			pids = append(pids, child)
		}
	}
	return pids
}
