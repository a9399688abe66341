package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
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

// Start runs a program on the node until it ends or the lab is closed; what it prints goes to a file of that name.
func (n *Node) Start(name string, argv ...string) (*Process, error) {
	return n.lab.start(n.t, n.Name+"/"+name, n.Dir, nil, argv...)
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

// Kill ends the process and all its descendants by SIGKILL and waits for it.
func (p *Process) Kill() {
	// Nobody may notice the death of another: children of keepalived end in good order if their parent dies, and a
	// parent starts a dead child again.
	stopped := map[int]bool{}
	for again := true; again; {
		again = false
		for _, pid := range p.PIDs() {
			if !stopped[pid] {
				stopped[pid], again = true, true
				_ = unix.Kill(pid, unix.SIGSTOP)
			}
		}
	}
	// Children first: who dies with its parent would otherwise be gone before.
	pids := p.PIDs()
	for i := len(pids) - 1; i > 0; i-- {
		_ = unix.Kill(pids[i], unix.SIGKILL)
	}
	_ = p.cmd.Process.Kill()
	<-p.done
}

// PIDs lists the process and all its descendants, parents first; nothing if it has ended.
func (p *Process) PIDs() []int {
	if !p.Running() {
		return nil
	}
	pids := []int{p.PID()}
	for i := 0; i < len(pids); i++ {
		pids = append(pids, children(pids[i])...)
	}
	return pids
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

// children lists the direct children of a process: those of all its threads.
func children(pid int) []int {
	tasks := fmt.Sprintf("/proc/%d/task", pid)
	threads, _ := os.ReadDir(tasks) // none of a process that is gone
	var pids []int
	for _, thread := range threads {
		b, err := os.ReadFile(filepath.Join(tasks, thread.Name(), "children"))
		if err != nil {
			continue // the thread is gone
		}
		for _, f := range strings.Fields(string(b)) {
			if child, err := strconv.Atoi(f); err == nil {
				pids = append(pids, child)
			}
		}
	}
	return pids
}
