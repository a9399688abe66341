package lab

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Machine is a node on which commands can be typed as they stand in a book: it has process ids, a /run and a /proc of its own, and
// what is written to /etc, /usr, /var/lib, /var/cache, /var/log and the folder of the sources is written for it alone: packages, too. What it starts ends with it.
type Machine struct {
	*Node
	first int    // the process that is the machine's number 1, as we see it
	home  string // where commands are typed
}

//go:embed machine.sh
var machineSetup string

// systemctl takes the place of systemd, which can't be number 1 here.
//
//go:embed systemctl.sh
var systemctl string

// NewMachine makes a machine of the node. Commands are typed in the folder sources.
func (n *Node) NewMachine(sources string) (*Machine, error) {
	if err := os.WriteFile(n.path("systemctl"), []byte(systemctl), 0o755); err != nil {
		return nil, fmt.Errorf("make machine %s: %w", n.Name, err)
	}
	p, err := n.Start("machine", "unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc",
		"bash", "-c", machineSetup, n.Name, n.Dir, sources)
	if err != nil {
		return nil, fmt.Errorf("make machine %s: %w", n.Name, err)
	}
	if err := p.WaitLog(context.Background(), startLimit, "ready\n", 1); err != nil {
		return nil, fmt.Errorf("make machine %s: %w\n%s", n.Name, err, p.Log())
	}
	below := p.PIDs()
	if len(below) < 2 {
		return nil, fmt.Errorf("make machine %s: it has ended: %s", n.Name, p.Log())
	}
	return &Machine{Node: n, first: below[1], home: sources}, nil
}

// Type runs a script by bash, as root, and returns what came out of both streams. The error tells how it ended.
func (m *Machine) Type(script string, limit time.Duration) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "nsenter", "--target", strconv.Itoa(m.first), "--mount", "--pid", "bash", "-ec", "cd "+m.home+"\n"+script)
	// What a service prints goes to its journal; whoever holds on to our pipe all the same is not waited for.
	cmd.WaitDelay = time.Second
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := m.t.do(cmd.Start); err != nil {
		return "", fmt.Errorf("type on %s: %w", m.Name, err)
	}
	err := cmd.Wait()
	if errors.Is(err, exec.ErrWaitDelay) {
		err = nil
	}
	if err != nil {
		err = fmt.Errorf("%s: %s: %w", m.Name, strings.TrimSpace(script), err)
	}
	return out.String(), err
}
