package ha

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/xdirector/xdirector/pkg/vrrp"
)

var (
	vip6Local = netip.MustParsePrefix("fe80::100/128")
)

// second joins the boxes by another pair, eth1, 10.8.0.1/24 and 10.8.0.2/24.
func second(t *testing.T, a, b *box) {
	t.Helper()
	must(t, a.nl.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth1"}, PeerName: "eth1", PeerNamespace: netlink.NsFd(b.ns)}))
	for n, x := range []*box{a, b} {
		k, err := x.nl.LinkByName("eth1")
		must(t, err)
		must(t, x.nl.LinkSetUp(k))
		address, err := netlink.ParseAddr(fmt.Sprintf("10.8.0.%d/24", n+1))
		must(t, err)
		must(t, x.nl.AddrAdd(k, address))
	}
}

// setLink sets an interface of the box up or down.
func (b *box) setLink(name string, up bool) {
	b.t.Helper()
	k, err := b.nl.LinkByName(name)
	must(b.t, err)
	if up {
		must(b.t, b.nl.LinkSetUp(k))
	} else {
		must(b.t, b.nl.LinkSetDown(k))
	}
}

// linkLocal waits for the link-local address of eth0 to be usable, and returns it.
func (b *box) linkLocal() (found netip.Addr) {
	b.t.Helper()
	eventually(b.t, "link-local address", func() bool {
		s, err := takeSnapshot(b.nl)
		must(b.t, err)
		for _, a := range s["eth0"].Addresses {
			if a.Prefix.Addr().IsLinkLocalUnicast() && a.Prefix != vip6Local && !a.Tentative {
				found = a.Prefix.Addr()
				return true
			}
		}
		return false
	})
	return found
}

func TestBothFamiliesOfOneVirtualRouterAreElectedApart(t *testing.T) {
	a, b := twoBoxes(t)
	mine, peer := a.linkLocal(), b.linkLocal()
	v4, v6 := fast(150, vip1), fast(150, vip6Local, vip6)
	v6.Name = "VI_6"
	high := a.start(config(t, v4, v6))
	rep := high.report("MASTER of both", func(rep Report) bool {
		return rep.Instances[0].State == vrrp.Master && rep.Instances[1].State == vrrp.Master
	})
	if got := rep.Instances[1].Source; got != mine {
		t.Errorf("source %s, want the link-local address %s", got, mine)
	}
	v4.VRRP.Priority, v6.VRRP.Priority = 100, 200 // the other one is better for IPv6
	low := b.start(config(t, v4, v6))
	low.report("MASTER of one family", func(rep Report) bool {
		return rep.Instances[0].State == vrrp.Backup && rep.Instances[0].MasterPriority == 150 && rep.Instances[1].State == vrrp.Master
	})
	rep = high.report("BACKUP of one family", func(rep Report) bool {
		return rep.Instances[0].State == vrrp.Master && rep.Instances[1].State == vrrp.Backup
	})
	if got := rep.Instances[1].Master; got != peer {
		t.Errorf("MASTER %s, want %s", got, peer)
	}
	eventually(t, "the addresses of each family where they belong", func() bool {
		return a.has(vip1.String()) && !b.has(vip1.String()) && !a.has(vip6.String()) && b.has(vip6.String()) && b.has(vip6Local.String())
	})
	low.Stop()
	low.stopped()
	high.report("MASTER of both again", func(rep Report) bool {
		return rep.Instances[0].State == vrrp.Master && rep.Instances[1].State == vrrp.Master
	})
}

func TestAdvertOfIPv6OnTheWire(t *testing.T) {
	a, b := twoBoxes(t)
	source := a.linkLocal()
	frames := b.sniff(unix.ETH_P_IPV6)
	c := fast(255, vip6Local)
	c.VRRP.VRID = 61
	a.start(config(t, c))
	f := nextFrame(t, frames, "advert", func(f []byte) bool { return f[20] == protocolVRRP })
	from := source.As16()
	to := netip.MustParseAddr("ff02::12").As16()
	if !bytes.Equal(f[:6], []byte{0x33, 0x33, 0, 0, 0, 0x12}) || !bytes.Equal(f[6:12], a.eth0().Attrs().HardwareAddr) ||
		!bytes.Equal(f[14:18], []byte{0x6c, 0, 0, 0}) || f[21] != 255 || !bytes.Equal(f[22:38], from[:]) || !bytes.Equal(f[38:54], to[:]) {
		t.Errorf("headers % x", f[:54])
	}
	length := int(binary.BigEndian.Uint16(f[18:]))
	if advert, err := vrrp.Parse(f[54:54+length], source, netip.MustParseAddr("ff02::12")); err != nil || advert.VRID != 61 {
		t.Errorf("advert %+v: %v", advert, err)
	}
}

func TestUnicastPeersElectAndAnybodyElseIsRefused(t *testing.T) {
	a, b := twoBoxes(t)
	multicast := b.sniff(unix.ETH_P_IP)
	c := fast(150, vip1)
	c.VRRP.Peers = []netip.Addr{netip.MustParseAddr("10.9.0.2")}
	high := a.start(config(t, c))
	f := nextFrame(t, multicast, "advert", func(f []byte) bool { return f[23] == protocolVRRP })
	if !bytes.Equal(f[26:34], []byte{10, 9, 0, 1, 10, 9, 0, 2}) || f[22] != 255 || f[15] != 0xc0 || bytes.Equal(f[:6], []byte{1, 0, 0x5e, 0, 0, 0x12}) {
		t.Errorf("advert % x", f[:34])
	}
	high.state(vrrp.Master)
	c.VRRP.Priority, c.VRRP.Peers = 100, []netip.Addr{netip.MustParseAddr("10.9.0.1")}
	low := b.start(config(t, c))
	low.report("the MASTER obeyed", func(rep Report) bool {
		return rep.Instances[0].State == vrrp.Backup && rep.Instances[0].MasterPriority == 150
	})

	// From an address that is no peer.
	forged := vrrp.Advert{Version: 3, VRID: 51, Priority: 254, Interval: 100 * time.Millisecond, Addresses: c.VRRP.Addresses}
	source, to := netip.MustParseAddr("10.9.0.9"), netip.MustParseAddr("10.9.0.1")
	index := b.eth0().Attrs().Index
	mac := a.eth0().Attrs().HardwareAddr
	b.do(func() {
		w, err := openWire()
		if err != nil {
			t.Error(err)
			return
		}
		defer w.close()
		ip := ipPacket(source, to, forged)
		if err := w.sendWithin(time.Second, index, append(append(append(bytes.Clone(mac), 2, 0, 0, 0, 0, 9), 8, 0), ip...)); err != nil {
			t.Error(err)
		}
	})
	high.report("the forged advert refused", func(rep Report) bool {
		return rep.Instances[0].AdvertsRefused[vrrp.RefusedPeer] == 1 && rep.Instances[0].State == vrrp.Master
	})
	high.Stop()
	low.state(vrrp.Master)
	high.stopped()
}

func TestAPeerBehindARouterIsHeardWithALowerTTL(t *testing.T) {
	t.Parallel()
	a, r, b := newBox(t, "a"), newBox(t, "r"), newBox(t, "b")
	for n, x := range []*box{a, b} { // 10.1.0.1 - router - 10.2.0.1
		must(t, r.nl.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: fmt.Sprint("to", n)}, PeerName: "eth0", PeerNamespace: netlink.NsFd(x.ns)}))
		r.setLink(fmt.Sprint("to", n), true)
		x.up()
		k, err := r.nl.LinkByName(fmt.Sprint("to", n))
		must(t, err)
		address, err := netlink.ParseAddr(fmt.Sprintf("10.%d.0.254/24", n+1))
		must(t, err)
		must(t, r.nl.AddrAdd(k, address))
		x.addAddress(fmt.Sprintf("10.%d.0.1/24", n+1))
		must(t, x.nl.RouteAdd(&netlink.Route{Gw: []byte{10, byte(n + 1), 0, 254}, Scope: netlink.SCOPE_UNIVERSE}))
	}
	r.do(func() { must(t, os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0)) })
	high, low := fast(150, vip1), fast(100, vip1)
	high.VRRP.Peers, low.VRRP.Peers = []netip.Addr{netip.MustParseAddr("10.2.0.1")}, []netip.Addr{netip.MustParseAddr("10.1.0.1")}
	low.VRRP.PeerTTL = 254
	a.start(config(t, high)).state(vrrp.Master)
	b.start(config(t, low)).report("the MASTER heard", func(rep Report) bool {
		return rep.Instances[0].State == vrrp.Backup && rep.Instances[0].MasterPriority == 150
	})
}

func TestTwoHundredFiftyFiveInstancesShareASocketAndChangeHands(t *testing.T) {
	a, b := twoBoxes(t)
	var high, low []Instance
	for vrid := 1; vrid <= 255; vrid++ {
		i := fast(150, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 9, 1, byte(vrid)}), 32))
		i.Name, i.VRRP.VRID, i.VRRP.Interval = fmt.Sprint("VI_", vrid), uint8(vrid), 500*time.Millisecond
		high = append(high, i)
		i.VRRP.Priority = 100
		low = append(low, i)
	}
	all := func(state vrrp.State) func(Report) bool {
		return func(rep Report) bool {
			return len(rep.Instances) == 255 && !slices.ContainsFunc(rep.Instances, func(i InstanceReport) bool { return i.State != state })
		}
	}
	master := a.start(config(t, high...))
	master.report("all MASTER", all(vrrp.Master))
	backup := b.start(config(t, low...))
	backup.report("all BACKUP of the other", func(rep Report) bool {
		return all(vrrp.Backup)(rep) && !slices.ContainsFunc(rep.Instances, func(i InstanceReport) bool { return i.MasterPriority != 150 })
	})
	sockets := 0
	for _, family := range []string{"/proc/thread-self/net/packet"} {
		b.do(func() {
			text, err := os.ReadFile(family)
			must(t, err)
			for _, line := range strings.Split(string(text), "\n")[1:] {
				if f := strings.Fields(line); len(f) > 3 && f[3] == "0800" {
					sockets++
				}
			}
		})
	}
	if sockets != 1 {
		t.Errorf("%d sockets receive adverts, want one for all", sockets)
	}
	master.Stop()
	backup.report("all taken over", all(vrrp.Master))
	master.stopped()
}

func TestTrackedInterfacesWeigh(t *testing.T) {
	a, b := twoBoxes(t)
	second(t, a, b)
	c := fast(150, vip1)
	c.TrackInterfaces = []TrackInterface{{Name: "eth1", Weight: -60}}
	high := a.start(config(t, c))
	high.state(vrrp.Master)
	low := b.start(config(t, fast(100, vip1)))
	low.state(vrrp.Backup)
	a.setLink("eth1", false)
	rep := high.state(vrrp.Backup)
	if rep.Priority != 90 || rep.Tracked != "interface eth1 down: -60" {
		t.Errorf("priority %d, tracked %q", rep.Priority, rep.Tracked)
	}
	low.state(vrrp.Master)
	a.setLink("eth1", true)
	if rep := high.state(vrrp.Master); rep.Priority != 150 || rep.Tracked != "" {
		t.Errorf("priority %d, tracked %q", rep.Priority, rep.Tracked)
	}
}

func TestATrackedInterfaceWithoutWeightIsAFault(t *testing.T) {
	a, b := twoBoxes(t)
	second(t, a, b)
	c := fast(150, vip1)
	c.TrackInterfaces = []TrackInterface{{Name: "eth1"}}
	high := a.start(config(t, c))
	high.state(vrrp.Master)
	low := b.start(config(t, fast(100, vip1)))
	low.state(vrrp.Backup)
	a.setLink("eth1", false)
	low.state(vrrp.Master) // before the other one has given up the address
	if rep := high.state(vrrp.Fault); !strings.Contains(rep.Reason, "tracked interface eth1 is down") {
		t.Errorf("reason %q", rep.Reason)
	}
	eventually(t, "address given up", func() bool { return !a.has(vip1.String()) })
	a.setLink("eth1", true)
	high.state(vrrp.Master)
}

func TestChecksAndOperatorsWeigh(t *testing.T) {
	a, b := twoBoxes(t)
	high := a.start(config(t, fast(150, vip1)))
	high.state(vrrp.Master)
	low := b.start(config(t, fast(100, vip1)))
	low.state(vrrp.Backup)
	high.Track(map[string]Track{"VI_1": {Adjust: -60, Text: "script chk failed: -60"}})
	if rep := high.state(vrrp.Backup); rep.Priority != 90 || rep.Tracked != "script chk failed: -60" {
		t.Errorf("priority %d, tracked %q", rep.Priority, rep.Tracked)
	}
	low.state(vrrp.Master)
	high.Track(nil)
	high.state(vrrp.Master)
	low.state(vrrp.Backup)

	high.Track(map[string]Track{"VI_1": {Yield: true}})
	high.state(vrrp.Backup)
	low.state(vrrp.Master)
	high.Track(nil)
	high.state(vrrp.Master)

	high.Track(map[string]Track{"VI_1": {Hold: "maintenance"}})
	if rep := high.state(vrrp.Fault); !strings.Contains(rep.Reason, "maintenance") || rep.Tracked != "maintenance" {
		t.Errorf("reason %q, tracked %q", rep.Reason, rep.Tracked)
	}
	high.Track(map[string]Track{})
	high.state(vrrp.Master)
}

func TestADeafBackupWaitsUntilItHasListenedAgain(t *testing.T) {
	f := newFastLoop(t, func(c *Instance) { c.Slot = 0 })
	f.hear(f.advert(150))
	f.tracks = map[string]Track{"VI_1": {Deaf: true}}
	f.configure(f.i, f.clock(), false)
	down := f.i.machine.Patience()
	silent := f.clock() + down
	eventually(t, "it is called again", func() bool { return f.clock() > silent && f.i.due <= f.clock() })
	f.fire()
	if f.i.machine.State() != vrrp.Backup {
		t.Errorf("it is %s though it is deaf", f.i.machine.State())
	}
	before := f.clock()
	f.tracks = nil
	f.configure(f.i, f.clock(), false)
	if f.i.due < before+down {
		t.Errorf("it listens for %v, want %v", f.i.due-before, down)
	}
	eventually(t, "the end of its patience", func() bool { return f.i.due <= f.clock() })
	f.fire()
	if f.i.machine.State() != vrrp.Master {
		t.Errorf("it is %s though it has heard nobody", f.i.machine.State())
	}
}

func TestWeighAddsUpAndSaysWhat(t *testing.T) {
	i := fast(255, vip1)
	i.TrackInterfaces = []TrackInterface{{Name: "eth7"}, {Name: "eth8", Weight: 10}}
	given, text := weigh(&i, Track{Adjust: -30, Text: "script chk failed: -30"}, snapshot{"eth8": {Up: true, Carrier: true}})
	if given.Hold != "tracked interface eth7 does not exist" || given.Adjust != -20 ||
		text != "script chk failed: -30; tracked interface eth7 does not exist; interface eth8 up: +10" {
		t.Errorf("hold %q, adjust %d, text %q", given.Hold, given.Adjust, text)
	}
}

func TestASyncGroupChangesHandsTogether(t *testing.T) {
	a, b := twoBoxes(t)
	second(t, a, b)
	members := func(priority uint8) []Instance {
		inside, outside := fast(priority, vip1), fast(priority, netip.MustParsePrefix("10.8.0.100/32"))
		outside.Name, outside.Interface, outside.VRRP.VRID = "VI_2", "eth1", 52
		inside.Group, outside.Group = "G", "G"
		return []Instance{inside, outside}
	}
	both := func(state vrrp.State) func(Report) bool {
		return func(rep Report) bool { return rep.Instances[0].State == state && rep.Instances[1].State == state }
	}
	high := a.start(config(t, members(150)...))
	high.report("both MASTER", both(vrrp.Master))
	low := b.start(config(t, members(100)...))
	low.report("both BACKUP", both(vrrp.Backup))
	a.setLink("eth1", false)
	rep := high.report("both in FAULT", both(vrrp.Fault))
	if !strings.Contains(rep.Instances[0].Reason, "VI_2 of the sync group") {
		t.Errorf("reason of the one whose interface is up: %q", rep.Instances[0].Reason)
	}
	// The other box lost its carrier there too, and hands over what nobody takes: it is set right by a carrier of its own.
	a.setLink("eth1", true)
	high.report("both MASTER again", both(vrrp.Master))
	low.report("both BACKUP again", both(vrrp.Backup))

	alone := members(150)
	alone[0].Group, alone[1].Group = "", ""
	high.Configure(Config{Instances: alone, StateDir: t.TempDir(), DeadMan: 30 * time.Second})
	a.setLink("eth1", false)
	high.report("only one in FAULT", func(rep Report) bool {
		return rep.Instances[0].State == vrrp.Master && rep.Instances[1].State == vrrp.Fault
	})
}

func TestStartupDelayKeepsAnInstanceOut(t *testing.T) {
	a, _ := twoBoxes(t)
	c := fast(255, vip1)
	c.StartupDelay = 700 * time.Millisecond
	began := time.Now()
	r := a.start(config(t, c))
	rep := r.report("waiting", func(Report) bool { return true }).Instances[0]
	if rep.State != vrrp.Init || rep.Reason != "startup_delay of 700ms is not over" {
		t.Errorf("%s: %q", rep.State, rep.Reason)
	}
	r.state(vrrp.Master)
	if took := time.Since(began); took < c.StartupDelay {
		t.Errorf("MASTER after %s", took)
	}
}

func TestTheConfiguredSourceIsUsedOrWaitedFor(t *testing.T) {
	a, _ := twoBoxes(t)
	c := fast(100, vip1)
	c.Source = netip.MustParseAddr("10.9.0.7")
	r := a.start(config(t, c))
	if rep := r.state(vrrp.Fault); rep.Reason != "the source address 10.9.0.7 is not on interface eth0; add it, or leave the source out" {
		t.Errorf("reason %q", rep.Reason)
	}
	a.addAddress("10.9.0.7/24")
	if rep := r.state(vrrp.Master); rep.Source != c.Source {
		t.Errorf("source %s", rep.Source)
	}
}

func TestReportsTellOfChangesAtOnceAndOfCountersSeldom(t *testing.T) {
	a, _ := twoBoxes(t)
	r := a.start(config(t, fast(255, vip1)))
	first := r.state(vrrp.Master)
	began := time.Now()
	rep := r.report("the next report", func(rep Report) bool { return rep.Instances[0].AdvertsSent > first.AdvertsSent })
	if took := time.Since(began); took < reportInterval/2 {
		t.Errorf("a report of counters alone after %s", took)
	}
	if total := sum(rep.Lateness.Counts); total < 30 {
		t.Errorf("lateness of %d timers", total)
	}
}

func sum(counts []uint64) (total uint64) {
	for _, n := range counts {
		total += n
	}
	return total
}

func TestTimersComeInTheirOrder(t *testing.T) {
	var timers timers
	var all []*instance
	for n := range 1000 {
		i := &instance{heapAt: -1}
		all = append(all, i)
		timers.set(i, vrrp.Time(n*7919%1000))
	}
	for n, i := range all {
		switch n % 3 {
		case 0:
			timers.set(i, vrrp.Time(n*104729%1000))
			timers.set(i, i.due+vrrp.Time(n%7*100)) // put off
		case 1:
			timers.cut(i)
			timers.cut(i) // twice is once
		}
	}
	last, n := vrrp.Time(-1), 0
	for i := timers.first(); i != nil; i = timers.first() {
		if i.due < last {
			t.Fatalf("%d after %d", i.due, last)
		}
		last = i.due
		timers.cut(i)
		n++
	}
	if n != 667 {
		t.Errorf("%d timers left of 1000, want 667", n)
	}
}

// startWith is start with a supervisor or a plane.
func (b *box) startWith(cfg Config, opts Options) *running {
	b.t.Helper()
	r := launchWith(b, cfg, opts)
	b.t.Cleanup(func() {
		if b.t.Failed() {
			b.t.Logf("log of %s:\n%s", b.name, strings.Join(r.log.lines, ""))
		}
	})
	b.t.Cleanup(r.crash)
	return r
}

func TestDenseAdvertsAreWaitedForTogether(t *testing.T) {
	for _, c := range []struct {
		name            string
		emptied         bool
		slept, deadline time.Duration
		least, most     time.Duration // of the wait
	}{
		{"one after another", true, dense / 2, time.Hour, gathering, time.Hour},
		{"a decision is due before", true, dense / 2, gathering / 4, gathering / 4, time.Hour},
		{"seldom", true, 2 * dense, time.Hour, 0, 0},
		{"a flood", false, dense / 2, time.Hour, 0, 0},
		{"a decision is due", true, dense / 2, 0, 0, 0},
	} {
		l := newLoop(New(Config{}, slog.New(slog.DiscardHandler)), slog.New(slog.DiscardHandler))
		woke := l.woke
		l.timers.set(&instance{heapAt: -1}, woke+c.deadline)
		l.emptied = c.emptied
		l.gather(woke - c.slept)
		if waited := l.woke - woke; waited < c.least || waited > c.most {
			t.Errorf("%s: waited for %v", c.name, waited)
		}
	}
}
