package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/xdirector/xdirector/pkg/lb"
	"github.com/xdirector/xdirector/pkg/xdp"
)

// wire is two veth interfaces that are each other's peer, in a network namespace that this thread is in until the end, and a plane
// on the far one, whose real servers are all behind the near one.
type wire struct {
	*testbed
	host      *os.File
	near, far *net.Interface // the generator's and the director's
	shape     shape
	wish      lb.State
	plane     *xdp.Plane
}

func newWire() (_ *wire, err error) {
	w := &wire{shape: shape{services: 1, servers: 64, scheduler: lb.RoundRobin, newFlows: unguarded}}
	if w.host, err = os.Open("/proc/thread-self/ns/net"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.close())
		}
	}()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return nil, fmt.Errorf("make network namespace: %w", err)
	}
	// What the kernel sends by itself would be counted.
	if err := os.WriteFile("/proc/sys/net/ipv6/conf/default/disable_ipv6", []byte("1"), 0); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	for _, command := range []string{
		"ip link set lo up", "ip link add near type veth peer name far", "ip link set near up", "ip link set far up",
	} {
		if err := runCommand(command); err != nil {
			return nil, err
		}
	}
	if w.near, err = net.InterfaceByName("near"); err != nil {
		return nil, err
	}
	if w.far, err = net.InterfaceByName("far"); err != nil {
		return nil, err
	}
	if w.testbed, err = newTestbed(); err != nil {
		return nil, err
	}
	w.wish = w.shape.wish()
	for i := range w.wish.Services[0].RealServers {
		w.wish.Services[0].RealServers[i].NextHop = lb.NextHop{Interface: w.far.Index, MAC: lb.MAC(w.near.HardwareAddr)}
	}
	w.plane, err = w.planeOn(w.far.Name, w.wish)
	return w, err
}

func runCommand(line string) error {
	words := strings.Fields(line)
	if out, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", line, err, out)
	}
	return nil
}

// close removes the plane and leaves the namespace, which then vanishes.
func (w *wire) close() (err error) {
	if w.testbed != nil {
		err = w.testbed.close()
	}
	if back := unix.Setns(int(w.host.Fd()), unix.CLONE_NEWNET); back != nil {
		err = errors.Join(err, fmt.Errorf("return to network namespace: %w", back))
	}
	return errors.Join(err, w.host.Close())
}
