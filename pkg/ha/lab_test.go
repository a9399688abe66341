package ha

import (
	"context"
	"flag"
	"fmt"
	"hash/fnv"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mdlayher/packet"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/xdirector/xdirector/pkg/vrrp"
)

// limit is how long a test waits for a fact; nothing takes that long unless it never comes.
const limit = 15 * time.Second

var (
	vip1 = netip.MustParsePrefix("10.9.0.100/32")
	vip2 = netip.MustParsePrefix("10.9.0.101/32")
)

// box is a network namespace with one interface, eth0.
type box struct {
	t    *testing.T
	name string
	ns   netns.NsHandle
	nl   *netlink.Handle
}

// TestMain runs more tests at a time than there are CPUs: they wait for timers and do little else.
func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "6"); err != nil {
		panic(err)
	}
	m.Run()
}

// twoBoxes is twoBoxesAlone for a test that does no harm to the timers of others.
func twoBoxes(t *testing.T) (a, b *box) {
	t.Helper()
	t.Parallel()
	return twoBoxesAlone(t)
}

// twoBoxesAlone makes two namespaces joined by one veth pair, 10.9.0.1/24 and 10.9.0.2/24.
func twoBoxesAlone(t *testing.T) (a, b *box) {
	t.Helper()
	if os.Getuid() != 0 {
		if os.Getenv("LAB") == "1" {
			t.Fatal("this test needs root")
		}
		t.Skip("not root")
	}
	a, b = newBox(t, "a"), newBox(t, "b")
	a.joinTo(b)
	a.addAddress("10.9.0.1/24")
	b.addAddress("10.9.0.2/24")
	return a, b
}

func newBox(t *testing.T, suffix string) *box {
	t.Helper()
	id := fnv.New32()
	id.Write([]byte(t.Name()))
	b := &box{t: t, name: fmt.Sprintf("ha-%d-%08x-%s", os.Getpid(), id.Sum32(), suffix)}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		var err error
		b.ns, err = netns.NewNamed(b.name)
		done <- err
	}()
	must(t, <-done)
	var err error
	b.nl, err = netlink.NewHandleAt(b.ns, unix.NETLINK_ROUTE)
	must(t, err)
	t.Cleanup(func() {
		b.nl.Close()
		b.ns.Close()
		if err := netns.DeleteNamed(b.name); err != nil {
			t.Errorf("delete namespace: %v", err)
		}
	})
	return b
}

func (b *box) joinTo(o *box) {
	b.t.Helper()
	must(b.t, b.nl.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: "eth0", PeerNamespace: netlink.NsFd(o.ns)}))
	for _, x := range []*box{b, o} {
		x.up()
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (b *box) eth0() netlink.Link {
	b.t.Helper()
	k, err := b.nl.LinkByName("eth0")
	must(b.t, err)
	return k
}

func (b *box) up()   { b.t.Helper(); must(b.t, b.nl.LinkSetUp(b.eth0())) }
func (b *box) down() { b.t.Helper(); must(b.t, b.nl.LinkSetDown(b.eth0())) }

func (b *box) addAddress(s string) {
	b.t.Helper()
	a, err := netlink.ParseAddr(s)
	must(b.t, err)
	must(b.t, b.nl.AddrAdd(b.eth0(), a))
}

func (b *box) removeAddress(s string) {
	b.t.Helper()
	a, err := netlink.ParseAddr(s)
	must(b.t, err)
	must(b.t, b.nl.AddrDel(b.eth0(), a))
}

// address returns the kernel's view of an address on eth0.
func (b *box) address(p netip.Prefix) (netlink.Addr, bool) {
	b.t.Helper()
	list, err := whole(func() ([]netlink.Addr, error) { return b.nl.AddrList(nil, netlink.FAMILY_ALL) })
	must(b.t, err)
	for _, a := range list {
		if prefixOf(a) == p {
			return a, true
		}
	}
	return netlink.Addr{}, false
}

func (b *box) has(s string) bool {
	b.t.Helper()
	_, ok := b.address(netip.MustParsePrefix(s))
	return ok
}

// eventually waits for a fact that no report tells.
func eventually(t *testing.T, what string, fact func() bool) {
	t.Helper()
	end := time.After(limit)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !fact() {
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("not within %s: %s", limit, what)
		}
	}
}

// do runs f on a thread inside the namespace.
func (b *box) do(f func()) {
	b.t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := netns.Set(b.ns)
		if err == nil {
			f()
		}
		done <- err
	}()
	must(b.t, <-done)
}

// sniff returns the frames of an Ethernet type that arrive at eth0.
func (b *box) sniff(ethertype int) <-chan []byte {
	b.t.Helper()
	return b.sniffOn("eth0", ethertype)
}

func (b *box) sniffOn(device string, ethertype int) <-chan []byte {
	b.t.Helper()
	var conn *packet.Conn
	var err error
	index := b.link(device).Attrs().Index
	b.do(func() {
		conn, err = packet.Listen(&net.Interface{Index: index, Name: device}, packet.Raw, ethertype, nil)
	})
	must(b.t, err)
	raw, err := conn.SyscallConn()
	must(b.t, err)
	must(b.t, raw.Control(func(fd uintptr) { // room for the frames of a thousand instances
		err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20)
	}))
	must(b.t, err)
	frames := make(chan []byte, 8192)
	b.t.Cleanup(func() { conn.Close() })
	go func() {
		for {
			f := make([]byte, 2048)
			n, _, err := conn.ReadFrom(f)
			if err != nil {
				return
			}
			frames <- f[:n]
		}
	}()
	return frames
}

// nextFrame waits for a frame that is looked for.
func nextFrame(t *testing.T, frames <-chan []byte, what string, want func([]byte) bool) []byte {
	t.Helper()
	end := time.After(limit)
	for {
		select {
		case f := <-frames:
			if want(f) {
				return f
			}
		case <-end:
			t.Fatalf("no frame within %s: %s", limit, what)
		}
	}
}

// testLog collects log lines.
type testLog struct {
	mu    sync.Mutex
	lines []string
}

func (l *testLog) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, string(b))
	return len(b), nil
}

// count says how many lines contain all parts.
func (l *testLog) count(parts ...string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for _, line := range l.lines {
		if !slices.ContainsFunc(parts, func(p string) bool { return !strings.Contains(line, p) }) {
			n++
		}
	}
	return n
}

// logged waits until so many lines contain all parts; more are an error.
func (r *running) logged(n int, parts ...string) {
	r.t.Helper()
	eventually(r.t, fmt.Sprintf("%d log lines with %q", n, parts), func() bool { return r.log.count(parts...) >= n })
	if got := r.log.count(parts...); got != n {
		r.t.Errorf("%d log lines with %q, want %d", got, parts, n)
	}
}

// running is a Runtime at work in a box.
type running struct {
	*Runtime
	t      *testing.T
	log    *testLog
	last   Report
	cancel context.CancelFunc
	done   chan error
}

func (b *box) start(cfg Config) *running {
	b.t.Helper()
	return b.startWith(cfg, Options{})
}

func launch(b *box, cfg Config) *running { return launchWith(b, cfg, Options{}) }

func launchWith(b *box, cfg Config, opts Options) *running {
	r := &running{t: b.t, log: &testLog{}, done: make(chan error, 1)}
	var out io.Writer = r.log
	r.Runtime = NewWith(cfg, opts, slog.New(slog.NewTextHandler(out, &slog.HandlerOptions{Level: slog.LevelDebug})))
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel = cancel
	go func() {
		runtime.LockOSThread()
		if err := netns.Set(b.ns); err != nil {
			r.done <- err
			return
		}
		r.done <- r.Run(ctx)
	}()
	return r
}

// crash ends a runtime as a kill would.
func (r *running) crash() {
	r.cancel()
	err := <-r.done
	r.done <- err
}

// report waits for a report that is looked for.
func (r *running) report(what string, want func(Report) bool) Report {
	r.t.Helper()
	end := time.After(limit)
	for {
		select {
		case rep := <-r.Reports():
			r.last = rep
			if want(rep) {
				return rep
			}
		case err := <-r.done:
			r.done <- err
			select {
			case rep := <-r.Reports():
				if r.last = rep; want(rep) {
					return rep
				}
			default:
			}
			r.t.Fatalf("ended (%v) before: %s", err, what)
		case <-end:
			r.t.Fatalf("not within %s: %s; last report: %+v", limit, what, r.last)
		}
	}
}

// state waits until the first instance is in a state.
func (r *running) state(want vrrp.State) InstanceReport {
	r.t.Helper()
	return r.report("state "+want.String(), func(rep Report) bool { return rep.Instances[0].State == want }).Instances[0]
}

// stopped waits for the end of a Stop.
func (r *running) stopped() {
	r.t.Helper()
	r.report("the last report", func(rep Report) bool { return rep.Stopped })
	if err := <-r.done; err != nil {
		r.t.Errorf("Run returned %v after Stop", err)
	}
	r.done <- nil
}

// fast is an instance with adverts of 100 ms.
func fast(priority uint8, addresses ...netip.Prefix) Instance {
	i := Instance{Name: "VI_1", Interface: "eth0", Accept: true, VirtualAddresses: virtualAddresses(addresses),
		VRRP: vrrp.Config{Version: 3, VRID: 51, Priority: priority, Interval: 100 * time.Millisecond, Preempt: true}}
	for _, p := range addresses {
		i.VRRP.Addresses = append(i.VRRP.Addresses, p.Addr())
	}
	return i
}

func config(t *testing.T, instances ...Instance) Config {
	return Config{Instances: instances, StateDir: t.TempDir() + "/state", DeadMan: 30 * time.Second}
}

func virtualAddresses(list []netip.Prefix) []VirtualAddress {
	var out []VirtualAddress
	for _, p := range list {
		out = append(out, VirtualAddress{Prefix: p})
	}
	return out
}

// routes counts the routes to a prefix in the main table.
func (b *box) routes(to string) int { return b.routesIn(unix.RT_TABLE_MAIN, to) }

// writeSetting writes a file below /proc/sys in the box.
func writeSetting(b *box, name, value string) (err error) {
	b.t.Helper()
	b.do(func() { err = os.WriteFile("/proc/sys/"+name, []byte(value), 0) })
	return err
}

// routesIn is routes for any table.
func (b *box) routesIn(table int, to string) int {
	b.t.Helper()
	p := netip.MustParsePrefix(to)
	family := netlink.FAMILY_V4
	if p.Addr().Is6() {
		family = netlink.FAMILY_V6
	}
	list, err := b.nl.RouteListFiltered(family, &netlink.Route{Table: table, Dst: ipNet(p)}, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_DST)
	must(b.t, err)
	return len(list)
}
