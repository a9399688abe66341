package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xdirector/xdirector/pkg/control"
	"github.com/xdirector/xdirector/pkg/status"
)

const (
	startLimit = time.Minute // a program load takes seconds in the emulated machine, and many on a busy one
	stopLimit  = 15 * time.Second
)

// Director runs xdirector on a node: a binary, a configuration file, and at most one process at a time.
type Director struct {
	*Node
	Socket  string // of control
	PinPath string // a folder on a bpffs that outlives the process

	binary   string
	original string  // what the lab was given as binary
	home     *thread // where the process is started
	client   *control.Client
	notify   *net.UnixConn

	mu      sync.Mutex
	process *Process
	ready   chan struct{} // closed when the process that runs now has said READY=1
	status  string        // the last STATUS= it sent
}

// NewDirector prepares a node to run the binary. It mounts a bpffs for the pins.
func (l *Lab) NewDirector(n *Node, binary string) (*Director, error) {
	d := &Director{
		Node: n, Socket: n.path("control.sock"), PinPath: n.path("bpf/pins"), binary: binary, original: binary, home: n.t,
	}
	d.client = control.NewClient(d.Socket)
	if err := l.mountBPF(n.path("bpf")); err != nil {
		return nil, err
	}
	var err error
	d.notify, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: n.path("notify.sock"), Net: "unixgram"})
	if err != nil {
		return nil, fmt.Errorf("listen for readiness of %s: %w", n.Name, err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		d.listen()
	}()
	l.onClose(func() { _ = d.notify.Close(); <-done })
	return d, nil
}

// DenyBPF takes the capabilities to load a BPF program away from the processes that are started after it.
func (d *Director) DenyBPF() error {
	t, err := newThread(d.t)
	if err != nil {
		return err
	}
	d.lab.onClose(t.close)
	d.home = t
	return t.do(func() error {
		// The bounding set belongs to the thread, and is what a root program starts with.
		for _, c := range []uintptr{unix.CAP_BPF, unix.CAP_SYS_ADMIN, unix.CAP_PERFMON} {
			if err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); err != nil {
				return fmt.Errorf("drop capability %d: %w", c, err)
			}
		}
		return nil
	})
}

// listen plays systemd's part of sd_notify.
func (d *Director) listen() {
	b := make([]byte, 4096)
	for {
		size, err := d.notify.Read(b)
		if err != nil {
			return
		}
		for line := range strings.Lines(string(b[:size])) {
			line = strings.TrimSpace(line)
			d.mu.Lock()
			if text, ok := strings.CutPrefix(line, "STATUS="); ok {
				d.status = text
			}
			if line == "READY=1" && d.ready != nil {
				select {
				case <-d.ready:
				default:
					close(d.ready)
				}
			}
			d.mu.Unlock()
		}
	}
}

// Configure writes the configuration file.
func (d *Director) Configure(c Config) error { return d.WriteFile(c.yaml(d)) }

// WriteFile writes the configuration file as it is.
func (d *Director) WriteFile(yaml string) error {
	if err := os.WriteFile(d.ConfigFile(), []byte(yaml), 0o644); err != nil {
		return fmt.Errorf("write configuration of %s: %w", d.Name, err)
	}
	return nil
}

// ConfigFile is the path of the configuration file.
func (d *Director) ConfigFile() string { return d.path("config.yaml") }

// Launch starts the process and returns at once.
func (d *Director) Launch() (*Process, error) {
	d.mu.Lock()
	d.ready = make(chan struct{})
	d.mu.Unlock()
	p, err := d.lab.start(d.home, d.Name+"/xdirector", d.Dir, []string{"NOTIFY_SOCKET=" + d.path("notify.sock")},
		d.binary, "run", "--config", d.ConfigFile())
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	d.process = p
	d.mu.Unlock()
	return p, nil
}

// Start starts the process and waits until it says that it is ready.
func (d *Director) Start() error {
	p, err := d.Launch()
	if err != nil {
		return err
	}
	d.mu.Lock()
	ready := d.ready
	d.mu.Unlock()
	select {
	case <-ready:
		return nil
	case <-p.done:
		return fmt.Errorf("start %s: it ended: %v\n%s", p.Name, p.err, p.Log())
	case <-time.After(startLimit):
		return fmt.Errorf("start %s: not ready after %v\n%s", p.Name, startLimit, p.Log())
	}
}

// Process is the running process, or the last one.
func (d *Director) Process() *Process {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.process
}

// Stop ends the process by SIGTERM, as systemd does, and waits for it.
func (d *Director) Stop() error {
	if err := d.Process().Terminate(stopLimit); err != nil {
		return fmt.Errorf("%w\n%s", err, d.Log())
	}
	return nil
}

// Kill ends all processes of the director by SIGKILL, so that none can do anything about the others; what they pinned
// and the addresses they added stay.
func (d *Director) Kill() { d.Process().Kill() }

// Pause stops all processes of the director in their tracks (SIGSTOP).
func (d *Director) Pause() error { return d.signalAll(syscall.SIGSTOP) }

// Resume lets paused processes go on.
func (d *Director) Resume() error { return d.signalAll(syscall.SIGCONT) }

func (d *Director) signalAll(s syscall.Signal) error {
	var errs []error
	for _, pid := range append([]int{d.Process().PID()}, children(d.Process().PID())...) {
		errs = append(errs, unix.Kill(pid, s))
	}
	return errors.Join(errs...)
}

// Part is one of the processes of a director.
type Part string

// The processes of a director. The supervisor is the one that Start starts.
const (
	Supervisor Part = "run"
	Agent      Part = "agent"
	Election   Part = "election"
)

// PID is the process id of a part. Of two elections, while one takes the other's place, it is any.
func (d *Director) PID(part Part) (int, error) {
	pid := d.Process().PID()
	if part == Supervisor {
		return pid, nil
	}
	for _, child := range children(pid) {
		line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", child))
		if args := strings.Split(string(line), "\x00"); err == nil && len(args) > 1 && args[1] == string(part) {
			return child, nil
		}
	}
	return 0, fmt.Errorf("%s has no %s", d.Name, part)
}

// Signal sends a signal to one process of the director alone, and returns its id.
func (d *Director) Signal(part Part, s syscall.Signal) (pid int, err error) {
	if pid, err = d.PID(part); err != nil {
		return 0, err
	}
	if err := unix.Kill(pid, s); err != nil {
		return pid, fmt.Errorf("signal %s of %s: %w", part, d.Name, err)
	}
	return pid, nil
}

// Binary is the path of the program.
func (d *Director) Binary() string { return d.binary }

// Forwarding names what forwards packets on the node: "an XDP program on eth0", "IPVS services"; empty: nothing does.
func (d *Director) Forwarding() (string, error) {
	eth0, err := d.links.LinkByName("eth0")
	if err != nil {
		return "", fmt.Errorf("look at eth0 of %s: %w", d.Name, err)
	}
	var left []string
	if x := eth0.Attrs().Xdp; x != nil && x.Attached {
		left = append(left, "an XDP program on eth0")
	}
	var services []byte
	err = d.t.do(func() (err error) {
		services, err = os.ReadFile("/proc/thread-self/net/ip_vs") // three lines of title
		return err
	})
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("look at IPVS of %s: %w", d.Name, err)
	}
	if strings.Count(string(services), "\n") > 3 {
		left = append(left, "IPVS services")
	}
	return strings.Join(left, ", "), nil
}

// Install copies the binary to the node, from where the director runs then; text replaces it, if not nil. A new file
// takes the place of the old one, as a package manager does it.
func (d *Director) Install(text []byte) error {
	path := d.path("xdirector")
	if text == nil {
		var err error
		if text, err = os.ReadFile(d.original); err != nil {
			return fmt.Errorf("install the binary: %w", err)
		}
	}
	// A child that is forked meanwhile would have the file open for writing for a moment, and the kernel starts no such file.
	syscall.ForkLock.RLock()
	err := os.WriteFile(path+".new", text, 0o755)
	syscall.ForkLock.RUnlock()
	if err != nil {
		return fmt.Errorf("install the binary: %w", err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("install the binary: %w", err)
	}
	d.binary = path
	return nil
}

// Reload asks for the configuration file to be read again, over the control socket.
func (d *Director) Reload(ctx context.Context) error { return d.client.Reload(ctx) }

// Log is what all processes of the director have printed.
func (d *Director) Log() string {
	if p := d.Process(); p != nil {
		return p.Log()
	}
	return ""
}

// NotifiedStatus is the last STATUS= that the process told its service manager.
func (d *Director) NotifiedStatus() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.status
}

// Status asks the process over its control socket.
func (d *Director) Status(ctx context.Context) (*status.Status, error) { return d.client.Status(ctx) }

// StatusCommand is the status that `xdirector status --json` prints.
func (d *Director) StatusCommand() (*status.Status, error) {
	out, err := d.Command("status", "--json")
	if err != nil {
		return nil, err
	}
	var s status.Status
	if err := json.Unmarshal(out, &s); err != nil {
		return nil, fmt.Errorf("read output of status --json: %w", err)
	}
	return &s, nil
}

// Command runs the binary with --config and returns what it printed to stdout; the error has its stderr.
func (d *Director) Command(args ...string) ([]byte, error) {
	cmd := exec.Command(d.binary, append(args, "--config", d.ConfigFile())...)
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = fmt.Errorf("%w: %s", err, exit.Stderr)
	}
	if err != nil {
		return out, fmt.Errorf("run xdirector %s: %w", strings.Join(args, " "), err)
	}
	return out, nil
}

// State is the state of an instance as the process tells it; empty if it doesn't answer.
func (d *Director) State(ctx context.Context, instance string) string {
	s, err := d.Status(ctx)
	if err != nil {
		return ""
	}
	for _, i := range s.Instances {
		if i.Name == instance {
			return i.State
		}
	}
	return ""
}

// WaitState waits until an instance is in a state: INIT, BACKUP, MASTER or FAULT.
func (d *Director) WaitState(ctx context.Context, instance, state string, limit time.Duration) error {
	return d.WaitStatus(ctx, limit, func(s *status.Status) error {
		for _, i := range s.Instances {
			if i.Name == instance && i.State == state {
				return nil
			}
		}
		return fmt.Errorf("instance %s is not %s: %+v", instance, state, s.Instances)
	})
}

// WaitStatus waits until the status is as fact wants it.
func (d *Director) WaitStatus(ctx context.Context, limit time.Duration, fact func(*status.Status) error) error {
	err := Wait(ctx, limit, func() error {
		if !d.Process().Running() {
			return fmt.Errorf("%s does not run", d.Name)
		}
		s, err := d.Status(ctx)
		if err != nil {
			return err
		}
		return fact(s)
	})
	if err != nil {
		return fmt.Errorf("%s: %w", d.Name, err)
	}
	return nil
}

// DetachAll removes what a killed process left attached: with its pins the kernel drops the programs.
func (d *Director) DetachAll() error {
	if err := os.RemoveAll(d.PinPath); err != nil {
		return fmt.Errorf("remove pins of %s: %w", d.Name, err)
	}
	return nil
}
