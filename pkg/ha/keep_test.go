package ha

import (
	"bytes"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/xdirector/xdirector/pkg/statefile"
)

// keeper is a holder at work in a box, without an election: the test says when the instance is MASTER.
type keeper struct {
	*holder
	box    *box
	dir    string // state_dir
	log    *testLog
	found  claim
	claims chan claim
	crash  func() // ends it as a kill would
	ended  chan struct{}
}

// keep starts a holder in the box. change may alter its first wish.
func (b *box) keep(dir string, i Instance, change ...func(*wish)) *keeper {
	b.t.Helper()
	h := b.open(dir)
	return h.keep(i, change...)
}

// opened is the part of a director that its holders share.
type opened struct {
	*host
	box     *box
	dir     string
	log     *testLog
	watcher *watcher
	first   snapshot
	abandon chan struct{}

	mu      sync.Mutex
	holders []*holder
	running sync.WaitGroup
	crash   func()
}

func (b *box) open(dir string) *opened {
	b.t.Helper()
	o := &opened{box: b, dir: dir, log: &testLog{}, abandon: make(chan struct{})}
	log := slog.New(slog.NewTextHandler(o.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	var errs [2]error
	b.do(func() {
		o.host, errs[0] = openHost(dir, log)
		o.watcher, o.first, errs[1] = watch(o.host.lifetimes.port, func() {}, func(err error) { log.Warn("state of interfaces not read", "error", err) })
	})
	must(b.t, errs[0])
	must(b.t, errs[1])
	o.running.Go(func() {
		for {
			select {
			case <-o.abandon:
				return
			case s := <-o.watcher.sightings:
				o.mu.Lock()
				o.first = s.snapshot
				for _, h := range o.holders {
					h.see(s)
				}
				o.mu.Unlock()
			}
		}
	})
	o.crash = sync.OnceFunc(func() {
		close(o.abandon)
		o.running.Wait()
		o.crew.close(limit)
		o.watcher.close()
		o.host.close()
	})
	b.t.Cleanup(o.crash)
	b.t.Cleanup(func() {
		if b.t.Failed() {
			b.t.Logf("log of %s:\n%s", b.name, strings.Join(o.log.lines, ""))
		}
	})
	return o
}

func (o *opened) keep(i Instance, change ...func(*wish)) *keeper {
	o.box.t.Helper()
	k := o.begin(i, change...)
	k.claim()
	return k
}

// begin starts a holder, and claim waits for what it found.
func (o *opened) begin(i Instance, change ...func(*wish)) *keeper {
	log := slog.New(slog.NewTextHandler(o.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	k := &keeper{claims: make(chan claim, 1), box: o.box, dir: o.dir, log: o.log, crash: o.crash, ended: make(chan struct{})}
	k.holder = &holder{log: log.With("instance", i.Name), host: o.host, claimed: func(c claim) { k.claims <- c },
		gone: func(*holder) { close(k.ended) }}
	o.mu.Lock()
	k.wish = wish{instance: &i, deadMan: 30 * time.Second, links: o.first}
	for _, c := range change {
		c(&k.wish)
	}
	o.holders = append(o.holders, k.holder)
	o.mu.Unlock()
	k.wake()
	return k
}

func (k *keeper) claim() {
	k.box.t.Helper()
	select {
	case k.found = <-k.claims:
	case <-time.After(limit):
		k.box.t.Fatal("no claim")
	}
}

func (k *keeper) master() {
	k.set(func(w *wish) { w.decided, w.hold, w.rounds = true, true, w.rounds+5 })
}
func (k *keeper) backup() { k.set(func(w *wish) { w.decided, w.hold = true, false }) }

// quit has it let go of everything and waits for the end.
func (k *keeper) quit() {
	k.box.t.Helper()
	k.set(func(w *wish) { w.decided, w.hold, w.quit = true, false, true })
	select {
	case <-k.ended:
	case <-time.After(limit):
		k.box.t.Fatal("the holder did not end")
	}
}

// renewed counts the addresses whose lifetimes are renewed.
func (k *keeper) renewed() int {
	k.host.lifetimes.mu.Lock()
	defer k.host.lifetimes.mu.Unlock()
	return len(k.host.lifetimes.all)
}

func (k *keeper) logged(n int, parts ...string) {
	k.box.t.Helper()
	eventually(k.box.t, fmt.Sprintf("%d log lines with %q", n, parts), func() bool { return k.log.count(parts...) >= n })
	if got := k.log.count(parts...); got != n {
		k.box.t.Errorf("%d log lines with %q, want %d", got, parts, n)
	}
}

// link returns a device of the box, or nil.
func (b *box) link(name string) netlink.Link {
	b.t.Helper()
	list, err := b.nl.LinkList()
	must(b.t, err)
	for _, k := range list {
		if k.Attrs().Name == name {
			return k
		}
	}
	return nil
}

// oneBox is a box with a neighbour that has 10.9.0.2/24 and 2001:db8::2/64.
func oneBox(t *testing.T) (a, b *box) {
	t.Helper()
	t.Parallel()
	return oneBoxAlone(t)
}

func oneBoxAlone(t *testing.T) (a, b *box) {
	t.Helper()
	a, b = twoBoxesAlone(t)
	for _, x := range []*box{a, b} {
		x.down()
		must(t, writeSetting(x, "net/ipv6/conf/eth0/accept_dad", "0")) // else the first answer takes two seconds
		x.up()
	}
	addNoDAD(t, a, "2001:db8::1/64")
	addNoDAD(t, b, "2001:db8::2/64")
	return a, b
}

func addNoDAD(t *testing.T, b *box, s string) {
	t.Helper()
	p := netip.MustParsePrefix(s)
	must(t, b.nl.AddrAdd(b.eth0(), &netlink.Addr{IPNet: ipNet(p), Flags: unix.IFA_F_NODAD}))
}

// joinAgain gives two boxes one more link.
func joinAgain(t *testing.T, a, b *box, name string) {
	t.Helper()
	must(t, a.nl.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: name, PeerNamespace: netlink.NsFd(b.ns)}))
	for _, x := range []*box{a, b} {
		must(t, x.nl.LinkSetUp(x.link(name)))
	}
	for _, x := range []*box{a, b} { // until then the kernel drops what is sent, without an error
		eventually(t, "carrier of "+name, func() bool { return x.link(name).Attrs().RawFlags&unix.IFF_RUNNING != 0 })
	}
}

var (
	vip6      = netip.MustParsePrefix("2001:db8::100/128")
	linkLocal = netip.MustParsePrefix("fe80::100/128")
)

// reaches says whether a box gets a TCP answer, a reset included, from an address and port.
func (b *box) reaches(to netip.AddrPort, patience time.Duration) bool {
	b.t.Helper()
	var err error
	b.do(func() {
		var c net.Conn
		if c, err = net.DialTimeout("tcp", to.String(), patience); err == nil {
			c.Close()
		}
	})
	return err == nil || strings.Contains(err.Error(), "refused")
}

func TestIPv6AddressesAnswerAtOnceAndAreNoSource(t *testing.T) {
	a, b := oneBox(t)
	frames := b.sniff(unix.ETH_P_IPV6)
	wide := netip.MustParsePrefix("2001:db8::200/64")
	k := a.keep(t.TempDir(), fast(100, linkLocal, vip6, wide))
	k.master()
	mac := a.eth0().Attrs().HardwareAddr
	for n := range 15 { // five rounds
		address := []netip.Addr{linkLocal.Addr(), vip6.Addr(), wide.Addr()}[n%3]
		f := nextFrame(t, frames, "neighbour advertisement", func(f []byte) bool { return f[54] == 136 && f[58]&0x40 == 0 })
		if want := neighbourAdvertisement(mac, address, false); !bytes.Equal(f, want) {
			t.Fatalf("frame %d is\n% x, want\n% x", n, f, want)
		}
	}
	for p, preferred := range map[netip.Prefix]int{linkLocal: 0, vip6: 0, wide: 30} {
		got, there := a.address(p)
		if !there || got.ValidLft < 1 || got.ValidLft > 30 || got.PreferedLft > preferred || preferred > 0 && got.PreferedLft == 0 {
			t.Errorf("%s: %+v, %v", p, got, there)
		}
		if got.Flags&(unix.IFA_F_TENTATIVE|unix.IFA_F_DADFAILED) != 0 || got.Flags&unix.IFA_F_NODAD == 0 {
			t.Errorf("%s is looked for elsewhere first: flags %#x", p, got.Flags)
		}
	}
	if !b.reaches(netip.AddrPortFrom(vip6.Addr(), 9), limit) {
		t.Error("no answer")
	}
	k.backup()
	eventually(t, "addresses gone", func() bool { return !a.has(vip6.String()) && !a.has(linkLocal.String()) && !a.has(wide.String()) })
	must(t, writeSetting(a, "net/ipv6/conf/eth0/forwarding", "1"))
	k.master()
	f := nextFrame(t, frames, "neighbour advertisement of a router", func(f []byte) bool { return f[54] == 136 && f[58]&0x40 == 0 })
	if want := neighbourAdvertisement(mac, linkLocal.Addr(), true); !bytes.Equal(f, want) {
		t.Errorf("frame is\n% x, want\n% x", f, want)
	}
	k.quit()
	if a.has(vip6.String()) || !a.has("2001:db8::1/64") {
		t.Error("after the end the box's own address, and only that, should be there")
	}
}

func TestEachAddressHasItsOwnInterfaceLabelAndScope(t *testing.T) {
	a, b := oneBox(t)
	joinAgain(t, a, b, "eth1")
	arps := b.sniffOn("eth1", unix.ETH_P_ARP)
	i := fast(100, vip1)
	i.VirtualAddresses = append(i.VirtualAddresses,
		VirtualAddress{Prefix: vip2, Interface: "eth1"},
		VirtualAddress{Prefix: netip.MustParsePrefix("10.8.0.103/24"), Label: "eth0:web", Scope: "link"},
		VirtualAddress{Prefix: vip6}) // not advertised, of the other family
	k := a.keep(t.TempDir(), i)
	k.master()
	eventually(t, "all addresses", func() bool { return a.has(vip6.String()) })
	if got, _ := a.address(vip2); got.LinkIndex != a.link("eth1").Attrs().Index {
		t.Errorf("%+v, want it on eth1", got)
	}
	if got, _ := a.address(i.VirtualAddresses[2].Prefix); got.Label != "eth0:web" || got.Scope != unix.RT_SCOPE_LINK {
		t.Errorf("label %q, scope %d", got.Label, got.Scope)
	}
	want := gratuitousARP(a.link("eth1").Attrs().HardwareAddr, vip2.Addr())
	for range 5 {
		if f := nextFrame(t, arps, "gratuitous ARP on eth1", func(f []byte) bool { return true }); !bytes.Equal(f[:42], want) {
			t.Errorf("on eth1: % x, want % x", f, want)
		}
	}

	// Another label is another address to the kernel; the rest stays.
	changed := i
	changed.VirtualAddresses = append([]VirtualAddress{}, i.VirtualAddresses...)
	changed.VirtualAddresses[2].Label = "eth0:api"
	k.set(func(w *wish) { w.instance = &changed })
	eventually(t, "the new label", func() bool { got, _ := a.address(i.VirtualAddresses[2].Prefix); return got.Label == "eth0:api" })
	k.logged(1, "virtual address removed")

	// The interface of an address goes and comes; the instance is MASTER meanwhile.
	must(t, a.nl.LinkDel(a.link("eth1")))
	k.logged(1, "no interface eth1")
	joinAgain(t, a, b, "eth1")
	eventually(t, "address on the new eth1", func() bool { return a.has(vip2.String()) })
	k.quit()
	if a.has(vip1.String()) || a.has(vip2.String()) || a.has(vip6.String()) {
		t.Error("an address is left")
	}
}

func TestAfterACrashEverythingRecordedIsRemovedAndNothingElse(t *testing.T) {
	a, b := oneBox(t)
	joinAgain(t, a, b, "eth1")
	i := fast(100, vip1, netip.MustParsePrefix("10.9.0.150/24"))
	i.VirtualAddresses = append(i.VirtualAddresses, VirtualAddress{Prefix: vip2, Interface: "eth1"}, VirtualAddress{Prefix: vip6})
	i.Routes = []Route{{Destination: netip.MustParsePrefix("10.50.0.0/16"), Via: netip.MustParseAddr("10.9.0.2")}}
	mac := fast(100, netip.MustParsePrefix("10.9.0.200/32"))
	mac.Name, mac.VirtualMAC, mac.VRRP.VRID = "VI_2", "vrrp4-52", 52
	dir := t.TempDir()
	run := func() {
		t.Helper()
		o := a.open(dir)
		for _, k := range []*keeper{o.keep(i), o.keep(mac)} {
			k.master()
		}
		eventually(t, "all of it", func() bool { return a.has(vip6.String()) && a.routes("10.50.0.0/16") == 1 && a.has("10.9.0.200/32") })
		o.crash()
		if !a.has(vip1.String()) || a.routes("10.50.0.0/16") != 1 || a.link("vrrp4-52") == nil {
			t.Fatal("a crash took something away")
		}
	}
	clean := func(how string) {
		t.Helper()
		for _, p := range []string{vip1.String(), "10.9.0.150/24", vip2.String(), vip6.String(), "10.9.0.200/32"} {
			if a.has(p) {
				t.Errorf("%s: %s is left", how, p)
			}
		}
		if a.routes("10.50.0.0/16") != 0 {
			t.Errorf("%s: a route is left", how)
		}
		eventually(t, how+": the virtual MAC is down", func() bool {
			k := a.link("vrrp4-52")
			return k == nil || k.Attrs().Flags&net.FlagUp == 0
		})
		if !a.has("10.9.0.1/24") || !a.has("2001:db8::1/64") || !a.has("10.9.0.99/24") || a.routes("10.51.0.0/16") != 1 {
			t.Errorf("%s: something that is not ours was removed", how)
		}
	}
	a.addAddress("10.9.0.99/24")
	must(t, a.nl.RouteAdd(&netlink.Route{Dst: ipNet(netip.MustParsePrefix("10.51.0.0/16")), LinkIndex: a.eth0().Attrs().Index, Protocol: routeProtocol}))

	run()
	o := a.open(dir) // no advert was noted: too old to go on
	for _, k := range []*keeper{o.keep(i), o.keep(mac)} {
		if k.found.resume || k.found.left || k.found.fault != "" {
			t.Errorf("claim %+v", k.found)
		}
	}
	clean("the next start")
	o.crash()

	run()
	log := &testLog{}
	var err error
	a.do(func() { err = Cleanup(dir, slog.New(slog.NewTextHandler(log, nil))) })
	must(t, err)
	clean("cleanup")
	if a.link("vrrp4-52") != nil {
		t.Error("cleanup left the virtual MAC")
	}
	a.do(func() { err = Cleanup(dir, slog.New(slog.NewTextHandler(log, nil))) })
	if err != nil || log.count("instance=VI_1", "route removed") != 1 || log.count("virtual MACs removed", "devices=1") != 1 || log.count("removed") != 6 {
		t.Errorf("second cleanup: %v; log %s", err, log.lines)
	}
}

func TestWhatAHandedOverRunLeftStaysUntilItIsTakenBack(t *testing.T) {
	a, _ := oneBox(t)
	dir := t.TempDir()
	i := fast(100, vip1)
	i.VirtualMAC = "vrrp4-51"
	k := a.keep(dir, i)
	k.master()
	eventually(t, "address", func() bool { return a.has(vip1.String()) })
	index := a.link("vrrp4-51").Attrs().Index
	k.crash()
	k = a.keep(dir, i, func(w *wish) { w.handedOver = true })
	if !k.found.left || k.found.resume || !a.has(vip1.String()) {
		t.Errorf("claim %+v, address there: %v", k.found, a.has(vip1.String()))
	}
	k.set(func(w *wish) { w.decided, w.rounds = true, 1 }) // BACKUP now, and the addresses are not taken back
	eventually(t, "its lifetime renewed", func() bool { return k.renewed() == 1 })
	k.logged(0, "removed")
	if got := a.link("vrrp4-51"); got == nil || got.Attrs().Index != index || !a.has(vip1.String()) {
		t.Error("the virtual MAC or its address went")
	}
	k.backup()
	eventually(t, "address gone", func() bool { return !a.has(vip1.String()) })
	k.quit()
	if a.link("vrrp4-51") != nil {
		t.Error("the virtual MAC is left")
	}
	var all map[string]record
	if valid, err := statefile.Read(dir+"/"+recordFile, k.host.records.bootID, &all); valid || err != nil {
		t.Errorf("recorded still: %v, %v", all, err)
	}
}

func TestAnnouncementsArePacedAndNothingWaitsForThem(t *testing.T) {
	a, b := oneBox(t)
	arps := b.sniff(unix.ETH_P_ARP)
	next := func() []byte {
		return nextFrame(t, arps, "gratuitous ARP", func(f []byte) bool { return f[21] == 1 && bytes.Equal(f[28:32], f[38:42]) })
	}
	i := fast(100, vip1, vip2)
	i.ARPInterval = 20 * time.Millisecond
	k := a.keep(t.TempDir(), i)
	k.master()
	next()
	began := time.Now()
	for range 9 {
		next()
	}
	if took := time.Since(began); took < 9*i.ARPInterval/2 {
		t.Errorf("ten frames within %s, want %s between two", took, i.ARPInterval)
	}

	k.backup()
	eventually(t, "addresses gone", func() bool { return !a.has(vip1.String()) && !a.has(vip2.String()) })
	i.ARPInterval = time.Hour
	k.set(func(w *wish) { w.instance = &i })
	k.master()
	next()
	a.removeAddress(vip2.String())
	eventually(t, "the address put back in the middle of the burst", func() bool { return k.restored.Load() == 1 && a.has(vip2.String()) })
	k.quit() // and the rest of the burst with it
}

func TestAnAddressMovesFromOneInstanceToAnotherWithoutAWordOfSomebodyElse(t *testing.T) {
	a, _ := oneBox(t)
	o := a.open(t.TempDir())
	first, second := fast(100, vip1), fast(100, vip2)
	second.Name = "VI_2"
	from, to := o.keep(first), o.keep(second)
	from.master()
	to.master()
	eventually(t, "both addresses", func() bool { return a.has(vip1.String()) && a.has(vip2.String()) })
	second.VirtualAddresses = virtualAddresses([]netip.Prefix{vip1, vip2}) // a reload tells the newcomer first
	to.set(func(w *wish) { w.instance = &second })
	eventually(t, "the new wish is taken", func() bool { rec, _ := o.records.of("VI_2"); return len(rec.Addresses) == 2 })
	from.quit()
	eventually(t, "the address at the other instance", func() bool { return a.has(vip1.String()) && to.renewed() == 2 })
	to.logged(0, "not put there by us")
	to.logged(2, "virtual address added", "instance=VI_2")
	to.quit()
	if a.has(vip1.String()) {
		t.Error("the address is left")
	}
}

func TestWhoLetsAnAddressGoLeavesItToTheInstanceThatHasTakenIt(t *testing.T) {
	l, at := &lifetimes{all: map[spot]*lifetime{}}, spot{1, vip1}
	l.keep(at, []byte{1}, time.Hour, false)
	l.end(at)
	l.keep(at, []byte{2}, time.Hour, false) // between the removal and the word of it
	l.forget(at)
	if !l.has(at) {
		t.Error("the lifetime of an address is not renewed, and it is held")
	}
	l.end(at)
	if l.forget(at); l.has(at) {
		t.Error("an address that is let go of is still ours")
	}
}
