package neigh

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/xdirector/xdirector/pkg/lb"
)

// lab is a director and a LAN in network namespaces of their own: eth0 of the one is connected to eth0 of the other,
// which holds the addresses of all real servers.
type lab struct {
	director, lan     netns.NsHandle
	onDirector, onLAN *netlink.Handle
}

func newLab(t *testing.T) *lab {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("not root: network namespaces are needed")
	}
	t.Parallel()
	l := &lab{director: newNamespace(t), lan: newNamespace(t)}
	l.onDirector, l.onLAN = newHandle(t, l.director), newHandle(t, l.lan)
	l.connect(t)
	l.address(t, l.onDirector, "eth0", "10.1.0.1/16")
	return l
}

func newNamespace(t *testing.T) netns.NsHandle {
	t.Helper()
	made := make(chan netns.NsHandle)
	failed := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		ns, err := netns.New()
		if err != nil {
			failed <- err
			return
		}
		made <- ns
	}()
	select {
	case err := <-failed:
		t.Fatalf("make network namespace: %v", err)
		return netns.None()
	case ns := <-made:
		t.Cleanup(func() { ns.Close() })
		return ns
	}
}

func newHandle(t *testing.T, ns netns.NsHandle) *netlink.Handle {
	t.Helper()
	h, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	lo, err := h.LinkByName("lo")
	must(t, err)
	must(t, h.LinkSetUp(lo))
	return h
}

// within runs f in a namespace and waits for it.
func within(t *testing.T, ns netns.NsHandle, f func() error) {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		defer close(done) // also if f ends the test
		runtime.LockOSThread()
		if err := netns.Set(ns); err != nil {
			done <- err
			return
		}
		done <- f()
	}()
	must(t, <-done)
}

// connect makes eth0 on both sides.
func (l *lab) connect(t *testing.T) {
	t.Helper()
	within(t, l.lan, func() error { return set("net/ipv4/conf/default/arp_notify", "1") })
	for _, ns := range []netns.NsHandle{l.director, l.lan} {
		within(t, ns, func() error { return set("net/ipv6/conf/default/accept_dad", "0") })
	}
	must(t, l.onDirector.LinkAdd(&netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: "eth0", PeerNamespace: netlink.NsFd(int(l.lan)),
	}))
	l.up(t, l.onDirector, "eth0")
	l.up(t, l.onLAN, "eth0")
}

func set(name, value string) error { return os.WriteFile("/proc/sys/"+name, []byte(value), 0) }

func find(t *testing.T, h *netlink.Handle, name string) netlink.Link {
	t.Helper()
	found, err := h.LinkByName(name)
	if err != nil {
		t.Fatalf("find interface %s: %v", name, err)
	}
	return found
}

func (l *lab) up(t *testing.T, h *netlink.Handle, name string) {
	t.Helper()
	must(t, h.LinkSetUp(find(t, h, name)))
}

func (l *lab) address(t *testing.T, h *netlink.Handle, name, prefix string) {
	t.Helper()
	a, err := netlink.ParseAddr(prefix)
	must(t, err)
	if err := h.AddrAdd(find(t, h, name), a); err != nil {
		t.Fatalf("add %s to %s: %v", prefix, name, err)
	}
}

func (l *lab) noAddress(t *testing.T, h *netlink.Handle, name, prefix string) {
	t.Helper()
	a, err := netlink.ParseAddr(prefix)
	must(t, err)
	must(t, h.AddrDel(find(t, h, name), a))
}

func (l *lab) route(t *testing.T, to, via string) {
	t.Helper()
	_, destination, err := net.ParseCIDR(to)
	must(t, err)
	must(t, l.onDirector.RouteAdd(&netlink.Route{Dst: destination, Gw: net.ParseIP(via)}))
}

// mac is that of all real servers.
func (l *lab) mac(t *testing.T) lb.MAC {
	t.Helper()
	return lb.MAC(find(t, l.onLAN, "eth0").Attrs().HardwareAddr)
}

// announce sends gratuitous ARP from the LAN: all addresses are at mac from now on.
func (l *lab) announce(t *testing.T, mac lb.MAC, all []netip.Addr) {
	t.Helper()
	device := find(t, l.onLAN, "eth0").Attrs().Index
	within(t, l.lan, func() error {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		for _, a := range all {
			frame := []byte{255, 255, 255, 255, 255, 255}
			frame = append(frame, mac[:]...)
			frame = append(frame, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1) // a request
			frame = append(append(frame, mac[:]...), a.AsSlice()...)
			frame = append(append(frame, make([]byte, 6)...), a.AsSlice()...)
			if err := unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: device, Halen: 6}); err != nil {
				return err
			}
		}
		return nil
	})
}

// index is that of the director's eth0.
func (l *lab) index(t *testing.T) int {
	t.Helper()
	return find(t, l.onDirector, "eth0").Attrs().Index
}

// entry looks into the neighbour table of the director.
func (l *lab) entry(t *testing.T, address string) (entry, bool) {
	t.Helper()
	table := l.table(t)
	e, ok := table[key{l.index(t), netip.MustParseAddr(address)}]
	return e, ok
}

func (l *lab) table(t *testing.T) (table map[key]entry) {
	t.Helper()
	within(t, l.director, func() error {
		k, err := openKernel()
		if err != nil {
			return err
		}
		defer k.close()
		table, err = k.neighbours()
		return err
	})
	return table
}

// start runs a Watcher in the director's namespace. stop ends it, at the latest with the test.
func (l *lab) start(t *testing.T) (w *Watcher, stop func()) {
	t.Helper()
	w = New(slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if err := netns.Set(l.director); err != nil {
			ended <- err
			return
		}
		ended <- w.Run(ctx)
	}()
	stop = func() {
		cancel()
		if err, ok := <-ended; ok {
			close(ended)
			if err != nil {
				t.Errorf("Run: %v, want nil at the end of its context", err)
			}
		}
	}
	t.Cleanup(stop)
	return w, stop
}

// await reads pictures until one is as wanted, and returns it.
func await(t *testing.T, w *Watcher, what string, wanted func(map[netip.Addr]Hop) bool) map[netip.Addr]Hop {
	t.Helper()
	limit := time.After(15 * time.Second)
	var last map[netip.Addr]Hop
	for {
		select {
		case last = <-w.Changes():
			if wanted(last) {
				return last
			}
		case <-limit:
			t.Fatalf("no picture in which %s; the last one: %+v", what, last)
		}
	}
}

// eventually waits for a fact that no event tells of.
func eventually(t *testing.T, what string, fact func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(15 * time.Second)
	for !fact() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("not so within 15 s: %s", what)
		}
	}
}

func addresses4(list ...string) []netip.Addr {
	var all []netip.Addr
	for _, a := range list {
		all = append(all, netip.MustParseAddr(a))
	}
	return all
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
