// Package lab builds a small network in namespaces of this machine: a switch, directors, real servers and a client,
// joined by veth pairs and a bridge, with real nginx and keepalived processes, load, and a capture of the wire. It
// needs root. Names carry the pid of the process that made them; what a process that is gone left behind is removed
// by the next one, so labs can run side by side.
package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Prefix is the network that all nodes of a lab share. Host 1 is the client, 11 and up are directors, 21 and up real
// servers; 100 and up are free for virtual addresses.
const Prefix = "10.77.0.0/24"

// Options says what a lab consists of.
type Options struct {
	Directors   int      // 0-9
	RealServers int      // 0-9
	VIPs        []string // addresses that every real server carries on its loopback
}

// Lab is one running network. Its methods may be called from several goroutines.
type Lab struct {
	Dir         string // work folder: configuration files, logs, sockets
	Client      *Node
	Directors   []*Node
	RealServers []*Node

	name   string
	sw     *thread
	swLink *netlink.Handle

	mu     sync.Mutex
	undo   []func() // run in reverse by Close
	closed bool
}

// New builds a lab. The caller must Close it; after a crash the next New of any process does.
func New(o Options) (_ *Lab, err error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("build lab: network namespaces need root: run as root")
	}
	if err := removeStale(); err != nil {
		return nil, err
	}
	l := &Lab{}
	defer func() {
		if err != nil {
			l.Close()
		}
	}()
	if err := l.makeDir(); err != nil {
		return nil, err
	}
	if err := l.makeSwitch(); err != nil {
		return nil, fmt.Errorf("build lab switch: %w", err)
	}
	if l.Client, err = l.addNode("c", 1); err != nil {
		return nil, err
	}
	// Room for more connections than the 28,232 of the default: a port in use twice would be the same flow.
	if err := l.Client.Sysctl("net/ipv4/ip_local_port_range", "1024 65535"); err != nil {
		return nil, err
	}
	for i := range o.Directors {
		n, err := l.addNode(fmt.Sprintf("d%d", i+1), byte(11+i))
		if err != nil {
			return nil, err
		}
		l.Directors = append(l.Directors, n)
		if err := n.allowNativeTX(); err != nil {
			return nil, err
		}
	}
	for i := range o.RealServers {
		n, err := l.addNode(fmt.Sprintf("r%d", i+1), byte(21+i))
		if err != nil {
			return nil, err
		}
		l.RealServers = append(l.RealServers, n)
		if err := n.CarryVIPs(o.VIPs...); err != nil {
			return nil, err
		}
	}
	return l, nil
}

// Close ends every process, connection and capture of the lab and removes its namespaces, mounts and files. It may
// be called more than once.
func (l *Lab) Close() {
	l.mu.Lock()
	undo := l.undo
	l.undo, l.closed = nil, true
	l.mu.Unlock()
	for i := len(undo) - 1; i >= 0; i-- {
		undo[i]()
	}
}

// onClose registers work for Close, last in first out. On a lab that is closed already it is done at once.
func (l *Lab) onClose(f func()) {
	l.mu.Lock()
	if !l.closed {
		l.undo = append(l.undo, f)
		l.mu.Unlock()
		return
	}
	l.mu.Unlock()
	f()
}

// makeDir takes the first free name xd<pid>-<n>: the folder is the claim.
func (l *Lab) makeDir() error {
	for n := 1; ; n++ {
		l.name = namePrefix + strconv.Itoa(os.Getpid()) + "-" + strconv.Itoa(n)
		l.Dir = filepath.Join(os.TempDir(), l.name)
		err := os.Mkdir(l.Dir, 0o755)
		if errors.Is(err, os.ErrExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("make lab folder: %w", err)
		}
		l.onClose(func() { _ = os.RemoveAll(l.Dir) })
		return nil
	}
}

// newNamespace makes a namespace with a name for `ip netns exec`. The name is a link to the thread that holds the
// namespace, not a mount: after a crash the kernel removes the namespace by itself.
func (l *Lab) newNamespace(name string) (*thread, error) {
	t, err := newThread(nil)
	if err != nil {
		return nil, err
	}
	l.onClose(t.close)
	if err := os.MkdirAll(netnsDir, 0o755); err != nil {
		return nil, fmt.Errorf("name namespace %s: %w", name, err)
	}
	link := filepath.Join(netnsDir, l.name+"-"+name)
	if err := os.Symlink(t.path(), link); err != nil {
		return nil, fmt.Errorf("name namespace %s: %w", name, err)
	}
	l.onClose(func() { _ = os.Remove(link) })
	return t, nil
}

func (l *Lab) makeSwitch() error {
	var err error
	if l.sw, err = l.newNamespace("sw"); err != nil {
		return err
	}
	if l.swLink, err = netlink.NewHandleAt(l.sw.ns); err != nil {
		return fmt.Errorf("open netlink: %w", err)
	}
	l.onClose(l.swLink.Close)
	// Where br_netfilter is loaded, bridged frames would pass the rules of the IP layer.
	if path := "net/bridge/bridge-nf-call-iptables"; l.sw.hasSysctl(path) {
		if err := l.sw.sysctl(path, "0"); err != nil {
			return err
		}
	}
	snooping := false
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}, MulticastSnooping: &snooping}
	if err := l.swLink.LinkAdd(bridge); err != nil {
		return fmt.Errorf("add bridge: %w", err)
	}
	return l.swLink.LinkSetUp(bridge)
}

func (l *Lab) addNode(name string, host byte) (*Node, error) {
	n := &Node{
		Name:    name,
		Address: netip.AddrFrom4([4]byte{10, 77, 0, host}),
		// The digits are the same as in IPv4: 10.77.0.11 is fd77::11.
		Address6:  netip.MustParseAddr(fmt.Sprintf("fd77::%d", host)),
		LinkLocal: netip.MustParseAddr(fmt.Sprintf("fe80::ff:fe77:%x", host)),
		MAC:       net.HardwareAddr{2, 0, 0, 0x77, 0, host},
		Dir:       filepath.Join(l.Dir, name),
		lab:       l,
	}
	if err := n.build(); err != nil {
		return nil, fmt.Errorf("build lab node %s: %w", name, err)
	}
	return n, nil
}

// Wait calls fact every 5 ms until it returns nil. When the limit is over or ctx ends, it returns the last error.
func Wait(ctx context.Context, limit time.Duration, fact func() error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(period())
	defer tick.Stop()
	for {
		err := fact()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waited %v: %w", limit, err)
		case <-tick.C:
		}
	}
}

// period is how often a fact is looked for. To an emulated machine the looking costs more than the waiting.
func period() time.Duration {
	if os.Getenv("XDIRECTOR_VM") != "" {
		return 50 * time.Millisecond
	}
	return 5 * time.Millisecond
}

// mountBPF mounts a bpf file system of its own on the folder, and unmounts it at the end.
func (l *Lab) mountBPF(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("mount bpffs: %w", err)
	}
	if err := unix.Mount("bpf", dir, "bpf", 0, "mode=0700"); err != nil {
		return fmt.Errorf("mount bpffs on %s: %w", dir, err)
	}
	l.onClose(func() { unmount(dir) })
	return nil
}
