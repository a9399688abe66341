package neigh

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/xdirector/xdirector/pkg/lb"
)

var (
	server1 = netip.MustParseAddr("10.1.0.101")
	server2 = netip.MustParseAddr("10.1.0.102")
)

// known waits for a picture in which a is reached at mac.
func known(t *testing.T, w *Watcher, a netip.Addr, mac lb.MAC) Hop {
	t.Helper()
	return await(t, w, fmt.Sprintf("%s is at %s", a, mac), func(p map[netip.Addr]Hop) bool { return p[a].MAC == mac })[a]
}

func TestLearnsMACBeforeTheFirstPicture(t *testing.T) {
	l := newLab(t)
	l.address(t, l.onLAN, "eth0", "10.1.0.101/16")
	l.address(t, l.onDirector, "eth0", "fd00::1/64")
	l.address(t, l.onLAN, "eth0", "fd00::101/64")
	w, _ := l.start(t)
	six := netip.MustParseAddr("fd00::101")
	begin := time.Now()
	w.Watch([]netip.Addr{server1, six}, nil)
	first := <-w.Changes()
	if took := time.Since(begin); took > patience+500*time.Millisecond {
		t.Errorf("first picture after %v, want it within %v", took, patience)
	}
	want := Hop{NextHop: lb.NextHop{Interface: l.index(t), MAC: l.mac(t)}, InterfaceName: "eth0", Source: netip.MustParseAddr("10.1.0.1")}
	if first[server1] != want {
		t.Errorf("hop %+v, want %+v", first[server1], want)
	}
	want.Source = netip.MustParseAddr("fd00::1")
	if first[six] != want { // the LAN may be a second late: IPv6 has just been set up there
		await(t, w, fmt.Sprintf("%v has hop %+v", six, want), func(p map[netip.Addr]Hop) bool { return p[six] == want })
	}
	if got, err := w.Source(server1); err != nil || got != first[server1].Source {
		t.Errorf("Source: %v, %v, want the one of the hop", got, err)
	}
}

func TestFirstPictureWaitsASecondForTheSilent(t *testing.T) {
	l := newLab(t)
	w, _ := l.start(t)
	begin := time.Now()
	w.Watch([]netip.Addr{server1}, nil)
	first := <-w.Changes()
	if took := time.Since(begin); took < patience || took > 3*patience {
		t.Errorf("first picture after %v, want it after %v", took, patience)
	}
	if h := first[server1]; h.Known() || h.Err != nil || h.InterfaceName != "eth0" {
		t.Errorf("hop %+v, want one on eth0 that is being resolved", h)
	}
	after := await(t, w, "the silent real server has an error", func(p map[netip.Addr]Hop) bool { return p[server1].Err != nil })
	if got, want := after[server1].Err.Error(), "real server 10.1.0.101 does not answer ARP on eth0: is it running, and on this LAN?"; got != want {
		t.Errorf("error %q, want %q", got, want)
	}
	if _, err := w.Source(server1); err != nil {
		t.Errorf("Source: %v, want the check to be sent all the same", err)
	}
}

func TestNothingToWatchIsAPictureToo(t *testing.T) {
	l := newLab(t)
	w, _ := l.start(t)
	w.Watch(nil, nil)
	if first := <-w.Changes(); len(first) != 0 {
		t.Errorf("picture %v, want an empty one", first)
	}
}

func TestChangedMACIsToldWithin100Milliseconds(t *testing.T) {
	l := newLab(t)
	l.address(t, l.onLAN, "eth0", "10.1.0.101/16")
	w, _ := l.start(t)
	w.Watch([]netip.Addr{server1}, nil)
	known(t, w, server1, l.mac(t))
	var took []time.Duration
	for i := range 11 {
		mac := lb.MAC{2, 0, 0, 0, 1, byte(i)}
		begin := time.Now()
		// arp_notify makes the kernel announce the new address with gratuitous ARP.
		must(t, l.onLAN.LinkSetHardwareAddr(find(t, l.onLAN, "eth0"), mac[:]))
		known(t, w, server1, mac)
		took = append(took, time.Since(begin))
	}
	slices.Sort(took)
	median, worst := took[len(took)/2], took[len(took)-1]
	t.Logf("a change is told after %v (median), %v (worst), with the change itself", median, worst)
	// The median: on a busy machine one of them may wait for a processor.
	if median > 300*time.Millisecond {
		t.Errorf("a changed MAC is told after %v, want less than 100 ms (300 ms in a test)", median)
	}
}

func TestChangedMACOfAnOwnInterfaceIsTold(t *testing.T) {
	l := newLab(t)
	l.address(t, l.onLAN, "eth0", "10.1.0.101/16")
	w, _ := l.start(t)
	w.Watch([]netip.Addr{server1}, nil)
	before := known(t, w, server1, l.mac(t))
	for i := range 3 {
		mac := lb.MAC{2, 0, 0, 0, 5, byte(i)}
		must(t, l.onDirector.LinkSetHardwareAddr(find(t, l.onDirector, "eth0"), mac[:]))
		after := await(t, w, "it is told", func(map[netip.Addr]Hop) bool { return true })
		if after[server1] != before {
			t.Errorf("hop %+v, want %+v as before", after[server1], before)
		}
	}
}

// impatient makes the kernel of the director notice within a second or two that a neighbour is gone.
func (l *lab) impatient(t *testing.T) {
	t.Helper()
	within(t, l.director, func() error {
		for name, value := range map[string]string{
			"base_reachable_time_ms": "100", "retrans_time_ms": "20", "delay_first_probe_time": "0",
			"ucast_solicit": "1", "mcast_solicit": "1", "interval_probe_time_ms": "50",
		} {
			if err := set("net/ipv4/neigh/eth0/"+name, value); err != nil {
				return err
			}
		}
		return nil
	})
}

func TestKnownMACIsKeptWhenTheServerIsGone(t *testing.T) {
	l := newLab(t)
	l.address(t, l.onLAN, "eth0", "10.1.0.101/16")
	l.impatient(t)
	w, _ := l.start(t)
	w.Watch([]netip.Addr{server1}, nil)
	before := known(t, w, server1, l.mac(t))

	l.noAddress(t, l.onLAN, "eth0", "10.1.0.101/16")
	eventually(t, "the kernel gives the neighbour up", func() bool {
		e, ok := l.entry(t, "10.1.0.101")
		return ok && e.state&netlink.NUD_FAILED != 0
	})
	// A picture of something else, asked for after that, shows what the watcher made of it.
	w.Watch([]netip.Addr{server1, server2}, nil)
	picture := await(t, w, "the second real server is there", func(p map[netip.Addr]Hop) bool { return len(p) == 2 })
	if picture[server1] != before {
		t.Errorf("hop %+v, want %+v as before", picture[server1], before)
	}

	// Back with another MAC: the kernel goes on asking by itself.
	mac := lb.MAC{2, 0, 0, 0, 2, 1}
	must(t, l.onLAN.LinkSetHardwareAddr(find(t, l.onLAN, "eth0"), mac[:]))
	l.address(t, l.onLAN, "eth0", "10.1.0.101/16")
	known(t, w, server1, mac) // it asks every 5 s
}

func TestKnownHopIsKeptWhileTheLinkIsDown(t *testing.T) {
	l := newLab(t)
	l.address(t, l.onLAN, "eth0", "10.1.0.101/16")
	w, _ := l.start(t)
	w.Watch([]netip.Addr{server1}, nil)
	before := known(t, w, server1, l.mac(t))
	must(t, l.onDirector.LinkSetDown(find(t, l.onDirector, "eth0")))
	down := await(t, w, "the route is gone", func(p map[netip.Addr]Hop) bool { return p[server1].Err != nil })[server1]
	if down.NextHop != before.NextHop {
		t.Errorf("next hop %+v, want %+v as before", down.NextHop, before.NextHop)
	}
	if want := "real server 10.1.0.101 is on the network of eth0, which is down or has no carrier"; down.Err.Error() != want {
		t.Errorf("error %q, want %q", down.Err, want)
	}
	if _, err := w.Source(server1); err == nil || err.Error() != down.Err.Error() {
		t.Errorf("Source: error %v, want the one of the hop", err)
	}
	l.up(t, l.onDirector, "eth0")
	await(t, w, "the error is gone", func(p map[netip.Addr]Hop) bool { return p[server1] == before })
	eventually(t, "the kernel resolves the real server again", func() bool {
		e, ok := l.entry(t, "10.1.0.101")
		return ok && e.ours() && e.mac == before.MAC
	})
}

func TestFollowsAnInterfaceThatIsMadeAnew(t *testing.T) {
	l := newLab(t)
	l.address(t, l.onLAN, "eth0", "10.1.0.101/16")
	w, _ := l.start(t)
	w.Watch([]netip.Addr{server1}, nil)
	before := known(t, w, server1, l.mac(t))
	must(t, l.onDirector.LinkDel(find(t, l.onDirector, "eth0")))
	gone := await(t, w, "the interface is gone", func(p map[netip.Addr]Hop) bool { return p[server1].Err != nil && p[server1].Interface == 0 })
	if gone[server1].Known() {
		t.Errorf("hop %+v leads to an interface that is deleted", gone[server1])
	}
	l.connect(t)
	l.address(t, l.onDirector, "eth0", "10.1.0.1/16")
	l.address(t, l.onLAN, "eth0", "10.1.0.101/16")
	after := known(t, w, server1, l.mac(t))
	if after.Interface == before.Interface || after.Interface != l.index(t) {
		t.Errorf("interface %d, want the index of the new one, %d", after.Interface, l.index(t))
	}
}

func TestRealServerBehindARouterIsAnError(t *testing.T) {
	l := newLab(t)
	l.route(t, "10.9.0.0/16", "10.1.0.254")
	w, _ := l.start(t)
	far, nowhere := netip.MustParseAddr("10.9.9.9"), netip.MustParseAddr("10.8.8.8")
	w.Watch([]netip.Addr{far, nowhere}, nil)
	picture := <-w.Changes()
	want := "real server 10.9.9.9 is not on a directly connected network (route via 10.1.0.254 dev eth0): direct return rewrites only the MAC address"
	if h := picture[far]; h.Known() || h.Err == nil || !strings.HasPrefix(h.Err.Error(), want) {
		t.Errorf("hop %+v, want an error that begins with %q", h, want)
	}
	if _, err := w.Source(far); err == nil {
		t.Error("Source: no error, want that of the hop")
	}
	want = "no route to real server 10.8.8.8: network is unreachable"
	if h := picture[nowhere]; h.Known() || h.Err == nil || !strings.HasPrefix(h.Err.Error(), want) {
		t.Errorf("hop %+v, want an error that begins with %q", h, want)
	}
	// An address in its network is the cure.
	l.address(t, l.onDirector, "eth0", "10.9.0.1/24")
	l.address(t, l.onDirector, "eth0", "10.9.9.1/24")
	l.address(t, l.onLAN, "eth0", "10.9.9.9/24")
	known(t, w, far, l.mac(t))
	if got, err := w.Source(far); err != nil || got != netip.MustParseAddr("10.9.9.1") {
		t.Errorf("Source: %v, %v, want 10.9.9.1", got, err)
	}
}

func TestThisDirectorAsRealServerIsLocal(t *testing.T) {
	l := newLab(t)
	w, _ := l.start(t)
	own := netip.MustParseAddr("10.1.0.1")
	w.Watch([]netip.Addr{own}, nil)
	want := Hop{NextHop: lb.NextHop{Local: true}, Source: own}
	if got := (<-w.Changes())[own]; got != want {
		t.Errorf("hop %+v, want %+v", got, want)
	}
}

func TestSourceIsNeverVirtual(t *testing.T) {
	l := newLab(t)
	vip := netip.MustParseAddr("10.2.0.100")
	target := netip.MustParseAddr("10.2.0.101")
	l.address(t, l.onDirector, "eth0", "10.2.0.100/24") // first in its network: the kernel prefers it
	l.address(t, l.onLAN, "eth0", "10.2.0.101/24")
	w, _ := l.start(t)
	w.Watch([]netip.Addr{target}, []netip.Addr{vip, netip.MustParseAddr("10.1.0.1")})
	await(t, w, "there is no source", func(p map[netip.Addr]Hop) bool { return p[target].Err != nil })
	want := "no own address for checks of real server 10.2.0.101: eth0 has none but virtual ones"
	if got, err := w.Source(target); err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("Source: %v, %v, want an error that begins with %q", got, err, want)
	}

	w.Watch([]netip.Addr{target}, []netip.Addr{vip})
	other := netip.MustParseAddr("10.1.0.1")
	await(t, w, "an address outside the network is used", func(p map[netip.Addr]Hop) bool { return p[target].Source == other })

	l.address(t, l.onDirector, "eth0", "10.2.0.1/24")
	own := netip.MustParseAddr("10.2.0.1")
	picture := await(t, w, "an address in the network is used", func(p map[netip.Addr]Hop) bool { return p[target].Source == own })
	if picture[target].Err != nil || !picture[target].Known() {
		t.Errorf("hop %+v, want one without error", picture[target])
	}
	if got, err := w.Source(target); err != nil || got != own {
		t.Errorf("Source: %v, %v, want %v", got, err, own)
	}
}

func TestSourceWaitsForAnAddressThatIsJustAdded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := New(nil)
		begin := time.Now()
		_, err := w.Source(server1)
		if want := "next hop of real server 10.1.0.101 is not looked up yet"; err == nil || err.Error() != want {
			t.Errorf("error %v, want %q", err, want)
		}
		if took := time.Since(begin); took != patience {
			t.Errorf("gave up after %v, want %v", took, patience)
		}
		go func() {
			time.Sleep(patience / 2)
			table := &table{targets: map[netip.Addr]*target{server1: {address: server1, way: way{index: 2, source: server2}}}}
			w.publish(table)
		}()
		begin = time.Now()
		got, err := w.Source(server1)
		if took := time.Since(begin); err != nil || got != server2 || took != patience/2 {
			t.Errorf("%v, %v after %v, want the source as soon as it is known", got, err, took)
		}
	})
}

func TestManagedEntriesComeAndGoWithTheTargets(t *testing.T) {
	l := newLab(t)
	for _, a := range []string{"10.1.0.101/16", "10.1.0.102/16", "10.1.0.103/16"} {
		l.address(t, l.onLAN, "eth0", a)
	}
	// What a killed run left behind is taken over, or deleted if it is not wanted any more.
	within(t, l.director, func() error {
		k, err := openKernel()
		if err != nil {
			return err
		}
		defer k.close()
		for _, a := range addresses4("10.1.0.101", "10.1.0.103") {
			if err := k.manage(key{l.index(t), a}, false); err != nil {
				return err
			}
		}
		return nil
	})
	w, stop := l.start(t)
	w.Watch([]netip.Addr{server1, server2}, nil)
	<-w.Changes()
	for _, a := range []string{"10.1.0.101", "10.1.0.102"} {
		if e, ok := l.entry(t, a); !ok || !e.ours() || e.flags&netlink.NTF_EXT_LEARNED == 0 || e.mac != l.mac(t) {
			t.Errorf("entry of %s: %+v, want a managed one with a MAC", a, e)
		}
	}
	if e, ok := l.entry(t, "10.1.0.103"); ok {
		t.Errorf("entry that an earlier run left behind: %+v, want none", e)
	}

	// An entry that somebody deletes comes back.
	at := &netlink.Neigh{LinkIndex: l.index(t), IP: server2.AsSlice()}
	must(t, l.onDirector.NeighDel(at))
	eventually(t, "the deleted entry is back", func() bool {
		e, _ := l.entry(t, "10.1.0.102")
		return e.ours()
	})

	w.Watch([]netip.Addr{server2}, nil)
	eventually(t, "the entry of a target that is gone is deleted", func() bool {
		_, ok := l.entry(t, "10.1.0.101")
		return !ok
	})
	if e, _ := l.entry(t, "10.1.0.102"); !e.ours() {
		t.Errorf("entry of the other target: %+v, want it left alone", e)
	}
	stop()
	for at, e := range l.table(t) {
		if e.protocol == protocol {
			t.Errorf("entry of %s after the end: %+v, want none of ours", at.address, e)
		}
	}
}

func TestEntryThatTheKernelHasAlreadyIsTakenOver(t *testing.T) {
	l := newLab(t)
	l.address(t, l.onLAN, "eth0", "10.1.0.101/16")
	mac := l.mac(t)
	must(t, l.onDirector.NeighSet(&netlink.Neigh{
		LinkIndex: l.index(t), IP: server1.AsSlice(), HardwareAddr: mac[:], State: netlink.NUD_STALE,
	}))
	w, _ := l.start(t)
	w.Watch([]netip.Addr{server1}, nil)
	known(t, w, server1, mac)
	eventually(t, "the entry is managed", func() bool {
		e, _ := l.entry(t, "10.1.0.101")
		return e.ours() && e.mac == mac
	})
}

func TestAdministratorsEntryIsUsedAndLeftAlone(t *testing.T) {
	l := newLab(t)
	l.address(t, l.onLAN, "eth0", "10.1.0.101/16")
	fixed := lb.MAC{2, 0, 0, 0, 3, 1}
	permanent := &netlink.Neigh{LinkIndex: l.index(t), IP: server1.AsSlice(), HardwareAddr: net.HardwareAddr(fixed[:]), State: netlink.NUD_PERMANENT}
	must(t, l.onDirector.NeighSet(permanent))
	want, _ := l.entry(t, "10.1.0.101")
	w, stop := l.start(t)
	w.Watch([]netip.Addr{server1, server2}, nil)
	known(t, w, server1, fixed)

	// One that replaces an entry of ours is the administrator's from then on.
	permanent.IP = server2.AsSlice()
	must(t, l.onDirector.NeighSet(permanent))
	known(t, w, server2, fixed)
	w.Watch(nil, nil)
	await(t, w, "nothing is watched", func(p map[netip.Addr]Hop) bool { return len(p) == 0 })
	stop()
	if got, ok := l.entry(t, "10.1.0.101"); !ok || got != want {
		t.Errorf("entry %+v, want %+v as it was set", got, want)
	}
	if got, ok := l.entry(t, "10.1.0.102"); !ok || got.state != netlink.NUD_PERMANENT || got.mac != fixed {
		t.Errorf("entry %+v, want the permanent one that was set later", got)
	}
}

func TestManyTargetsFitIntoTheNeighbourTable(t *testing.T) {
	const many = 2000 // the limit for entries that are not managed, gc_thresh3, is 1024
	l := newLab(t)
	var targets []netip.Addr
	for n := range many {
		targets = append(targets, netip.AddrFrom4([4]byte{10, 1, byte(100 + n/250), byte(1 + n%250)}))
	}
	// One local network instead of 2,000 addresses: the LAN answers ARP for all of it.
	lo := find(t, l.onLAN, "lo")
	l.address(t, l.onLAN, "eth0", "10.1.0.2/16")
	_, all, err := net.ParseCIDR("10.1.64.0/18")
	must(t, err)
	must(t, l.onLAN.RouteAdd(&netlink.Route{LinkIndex: lo.Attrs().Index, Dst: all, Table: 255, Type: 2, Scope: netlink.SCOPE_HOST}))
	w, _ := l.start(t)
	begin := time.Now()
	w.Watch(targets, nil)
	for _, a := range targets { // also while they are being looked up
		if source, err := w.Source(a); err != nil || source != netip.MustParseAddr("10.1.0.1") {
			t.Fatalf("Source of %v: %v, %v; want 10.1.0.1", a, source, err)
		}
	}
	mac := l.mac(t)
	await(t, w, "all are known", func(p map[netip.Addr]Hop) bool {
		for _, a := range targets {
			if p[a].MAC != mac {
				return false
			}
		}
		return true
	})
	t.Logf("%d next hops known after %v", many, time.Since(begin))

	// All of them move at once, as when a switch of racks announces itself.
	next := lb.MAC{2, 0, 0, 0, 4, 1}
	begin = time.Now()
	l.announce(t, next, targets)
	await(t, w, "all have the new MAC", func(p map[netip.Addr]Hop) bool {
		for _, a := range targets {
			if p[a].MAC != next {
				return false
			}
		}
		return true
	})
	t.Logf("%d changes told after %v", many, time.Since(begin))
}

func TestMissingRightIsNamed(t *testing.T) {
	l := newLab(t)
	within(t, l.director, func() error {
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var data [2]unix.CapUserData
		if err := unix.Capget(&header, &data[0]); err != nil {
			return err
		}
		data[0].Effective &^= 1 << unix.CAP_NET_ADMIN
		if err := unix.Capset(&header, &data[0]); err != nil { // of this thread, which ends with the function
			return err
		}
		k, err := openKernel()
		if err != nil {
			return err
		}
		defer k.close()
		if err := k.manage(key{l.index(t), server1}, false); err == nil || !strings.Contains(err.Error(), "CAP_NET_ADMIN") {
			t.Errorf("error %v, want one that names CAP_NET_ADMIN", err)
		}
		return nil
	})
}

func TestLostEventsAreMadeUpFor(t *testing.T) {
	l := newLab(t)
	l.address(t, l.onLAN, "eth0", "10.1.0.101/16")
	within(t, l.director, func() error {
		k, err := openKernel()
		if err != nil {
			return err
		}
		defer k.close()
		var log bytes.Buffer
		table := newTable(k, slog.New(slog.NewTextHandler(&log, nil)))
		now := time.Now()
		table.watch(now, &wish{targets: []netip.Addr{server1}})
		table.settle(now)
		// From here on nobody reads the events, as if the kernel had dropped them.
		mac := lb.MAC{2, 0, 0, 0, 5, 1}
		l.announce(t, mac, []netip.Addr{server1})
		eventually(t, "the kernel has the new MAC", func() bool {
			e, _ := l.entry(t, "10.1.0.101")
			return e.mac == mac
		})
		l.address(t, l.onDirector, "eth0", "10.1.0.2/16")
		now = now.Add(time.Second)
		if table.settle(now); table.hops[server1].MAC == mac {
			t.Error("the new MAC is known without an event: this test proves nothing")
		}
		table.take(now, []event{{kind: lost}})
		if !table.due(now.Add(coalesce)) || !table.settle(now.Add(coalesce)) || table.hops[server1].MAC != mac {
			t.Errorf("hop %+v, want the new MAC %v", table.hops[server1], mac)
		}
		if len(table.box.own[l.index(t)]) < 2 {
			t.Errorf("own addresses %v, want the new one too", table.box.own)
		}
		if n := strings.Count(log.String(), "netlink events were lost"); n != 1 {
			t.Errorf("%d log lines about lost events, want 1:\n%s", n, &log)
		}
		return nil
	})
}

func TestManyTargetsFitIntoTheNeighbourTableOfIPv6(t *testing.T) {
	const many = 2000 // the limit for entries that are not managed, gc_thresh3, is 1024 here too
	l := newLab(t)
	l.address(t, l.onDirector, "eth0", "fd00::1/64")
	eth0 := find(t, l.onLAN, "eth0")
	var targets []netip.Addr
	for n := range many {
		a := netip.AddrFrom16([16]byte{0: 0xfd, 12: 1, 14: byte(n >> 8), 15: byte(n)})
		targets = append(targets, a)
		must(t, l.onLAN.AddrAdd(eth0, &netlink.Addr{IPNet: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(64, 128)}, Flags: unix.IFA_F_NODAD}))
	}
	w, _ := l.start(t)
	begin := time.Now()
	w.Watch(targets, nil)
	mac := l.mac(t)
	await(t, w, "all are known", func(p map[netip.Addr]Hop) bool {
		for _, a := range targets {
			if p[a].MAC != mac {
				return false
			}
		}
		return true
	})
	t.Logf("%d next hops known after %v", many, time.Since(begin))

	// Others fill the table until the kernel throws out what it can.
	refused := 0
	for n := range many {
		a := netip.AddrFrom16([16]byte{0: 0xfd, 12: 2, 14: byte(n >> 8), 15: byte(n)})
		err := l.onDirector.NeighSet(&netlink.Neigh{LinkIndex: l.index(t), IP: a.AsSlice(), HardwareAddr: mac[:], State: netlink.NUD_REACHABLE})
		if errors.Is(err, unix.ENOBUFS) {
			refused++
		} else {
			must(t, err)
		}
	}
	ours, others := 0, 0
	for at, e := range l.table(t) {
		switch {
		case e.ours() && e.mac == mac:
			ours++
		case at.address.Is6():
			others++
		}
	}
	if ours != many || others >= many {
		t.Errorf("%d entries of ours and %d others (%d were refused): want %d of ours, and a table that was full", ours, others, refused, many)
	}
}
