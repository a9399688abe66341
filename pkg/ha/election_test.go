package ha

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/xdirector/xdirector/pkg/vrrp"
)

func TestTwoDirectorsElectFailOverAndHandOver(t *testing.T) {
	a, b := twoBoxes(t)
	cfgA := config(t, fast(150, vip1))
	high := a.start(cfgA)
	first := high.state(vrrp.Master)
	low := b.start(config(t, fast(100, vip1)))
	if first.Source != netip.MustParseAddr("10.9.0.1") || first.Master != first.Source || first.MasterPriority != 150 {
		t.Errorf("report of the MASTER: %+v", first)
	}
	eventually(t, "address at the MASTER", func() bool { return a.has(vip1.String()) })
	if addr, _ := a.address(vip1); addr.ValidLft < 1 || addr.ValidLft > 30 || addr.PreferedLft != addr.ValidLft {
		t.Errorf("lifetimes %d and %d, want those of dead_man", addr.ValidLft, addr.PreferedLft)
	}
	rep := low.report("the MASTER known", func(r Report) bool { return r.Instances[0].Master == first.Source && len(r.Instances[0].Peers) == 1 })
	mac := a.eth0().Attrs().HardwareAddr
	if p := rep.Instances[0].Peers[0]; p.Address != first.Source || !bytes.Equal(p.MAC[:], mac) {
		t.Errorf("peer %+v, want %s %s", p, first.Source, mac)
	}

	high.crash() // leaves everything as it is
	low.state(vrrp.Master)
	eventually(t, "address at the new MASTER", func() bool { return b.has(vip1.String()) })
	if !a.has(vip1.String()) {
		t.Error("a crash took the address away")
	}

	// Back after more than three intervals: what is left is removed, and the election won by preemption.
	high = a.start(cfgA)
	low.state(vrrp.Backup)
	high.state(vrrp.Master)
	eventually(t, "address moved back", func() bool { return a.has(vip1.String()) && !b.has(vip1.String()) })

	high.Stop()
	low.state(vrrp.Master)
	high.stopped()
	if a.has(vip1.String()) {
		t.Error("address still there after Stop")
	}
	if high.last.Instances[0].State != vrrp.Init || high.last.Instances[0].AdvertsSent == 0 {
		t.Errorf("last report %+v", high.last.Instances[0])
	}
	if n := low.last.Instances[0].Transitions[vrrp.Master]; n != 2 {
		t.Errorf("%d transitions to MASTER counted, want 2", n)
	}
	low.logged(2, "state changed", "instance=VI_1", "to=MASTER")
}

func TestAdvertAndGratuitousARPOnTheWire(t *testing.T) {
	a, b := twoBoxes(t)
	adverts, arps := b.sniff(0x0800), b.sniff(0x0806)
	old, owner := fast(100, vip1), fast(255, vip2, netip.MustParsePrefix("10.9.0.102/32"))
	old.VRRP.Version, old.VRRP.Interval, old.VRRP.Password = 2, time.Second, "1111"
	owner.Name, owner.VRRP.VRID, owner.VRRP.Interval = "VI_2", 52, 40*time.Second // MASTER at once, then silent
	a.start(config(t, owner))
	isAdvert := func(f []byte) bool { return f[23] == 112 }
	first := nextFrame(t, adverts, "advert of the owner", isAdvert)
	mac := a.eth0().Attrs().HardwareAddr
	if hex.EncodeToString(first[:6]) != "01005e000012" || !bytes.Equal(first[6:12], mac) {
		t.Errorf("Ethernet addresses % x", first[:12])
	}

	// Five of each at once, the addresses in turn.
	for n := range 10 {
		want := gratuitousARP(mac, owner.VRRP.Addresses[n%2])
		f := nextFrame(t, arps, "gratuitous ARP", func(f []byte) bool { return bytes.Equal(f[28:32], f[38:42]) })
		if !bytes.Equal(f[:42], want) {
			t.Fatalf("ARP frame %d is % x, want % x", n, f, want)
		}
	}

	// The whole IP packet as captured from keepalived 2.4.3: TOS c0, id 1, no flags, TTL 255.
	c, d := newBox(t, "c"), newBox(t, "d")
	c.joinTo(d)
	c.addAddress("10.9.0.1/24")
	adverts = d.sniff(0x0800)
	c.start(config(t, old))
	first = nextFrame(t, adverts, "advert", isAdvert)
	if got := hex.EncodeToString(first[14:54]); got != "45c0002800010000ff70d0880a090001e0000012"+"2133640101010cfb"+"0a090064"+"3131313100000000" {
		t.Errorf("IP packet %s", got)
	}
	second := nextFrame(t, adverts, "second advert", isAdvert)
	if second[18] != 0 || second[19] != 2 {
		t.Errorf("IP id % x, want 2", second[18:20])
	}
}

func TestAnInterfaceThatIsMissingAtTheStartIsWaitedFor(t *testing.T) {
	a, _ := twoBoxes(t)
	here, there := fast(100, vip1), fast(100, vip2)
	there.Name, there.Interface = "VI_2", "eth7"
	r := a.start(config(t, here, there))
	rep := r.report("one MASTER, one waiting", func(rep Report) bool {
		return rep.Instances[0].State == vrrp.Master && rep.Instances[1].State == vrrp.Fault
	})
	if got := rep.Instances[1].Reason; got != "interface eth7 does not exist; waiting for it" {
		t.Errorf("reason %q", got)
	}
	must(t, a.nl.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth7"}, PeerName: "eth8"}))
	for _, name := range []string{"eth7", "eth8"} {
		k, err := a.nl.LinkByName(name)
		must(t, err)
		must(t, a.nl.LinkSetUp(k))
		if name == "eth7" {
			address, err := netlink.ParseAddr("10.7.0.1/24")
			must(t, err)
			must(t, a.nl.AddrAdd(k, address))
		}
	}
	r.report("MASTER on the interface that came", func(rep Report) bool { return rep.Instances[1].State == vrrp.Master })
	eventually(t, "address added", func() bool { return a.has(vip2.String()) })
}

func TestMissingPermissionIsAnErrorOfTheStart(t *testing.T) {
	a, _ := twoBoxes(t)
	a.do(func() {
		none := [2]unix.CapUserData{} // of this thread, which ends with the test
		if err := unix.Capset(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &none[0]); err != nil {
			t.Error(err)
			return
		}
		err := New(config(t, fast(100, vip1)), slog.New(slog.DiscardHandler)).Run(t.Context())
		if !errors.Is(err, unix.EPERM) || !strings.Contains(err.Error(), "run as root, or with CAP_NET_RAW and CAP_NET_ADMIN") {
			t.Errorf("error %v", err)
		}
	})
}

func TestStopBeforeTheElectionBegan(t *testing.T) {
	a, _ := twoBoxes(t)
	r := launch(a, config(t, fast(255, vip1)))
	r.Stop()
	r.stopped()
	if a.has(vip1.String()) {
		t.Error("address is there after Stop")
	}
}

func TestInterfaceThatIsDownAtTheStartIsUsedWhenItComesUp(t *testing.T) {
	a, b := twoBoxes(t)
	b.down()
	high, low := a.start(config(t, fast(200, vip1))), b.start(config(t, fast(100, vip1)))
	low.state(vrrp.Fault)
	high.state(vrrp.Fault)
	b.up()
	high.state(vrrp.Master)
	low.report("the MASTER heard", func(rep Report) bool {
		return rep.Instances[0].State == vrrp.Backup && rep.Instances[0].MasterPriority == 200
	})
}

func TestLostCarrierIsAFaultUntilItIsBack(t *testing.T) {
	a, b := twoBoxes(t)
	r := a.start(config(t, fast(100, vip1)))
	r.state(vrrp.Master)
	eventually(t, "address added", func() bool { return a.has(vip1.String()) })
	b.down()
	rep := r.state(vrrp.Fault)
	if rep.Reason != "interface eth0 has no carrier; look at its cable, switch port or peer" {
		t.Errorf("reason %q", rep.Reason)
	}
	eventually(t, "address removed", func() bool { return !a.has(vip1.String()) })
	untold := r.log.count("neighbours not told") // of the burst that was under way when the cable was pulled
	b.up()
	arps := b.sniff(0x0806)
	announced := func(when string) {
		for n := range 5 {
			nextFrame(t, arps, fmt.Sprintf("gratuitous ARP %d after %s", n+1, when), func(f []byte) bool { return bytes.Equal(f[28:32], f[38:42]) })
		}
	}
	r.state(vrrp.Backup)
	r.state(vrrp.Master)
	eventually(t, "address added again", func() bool { return a.has(vip1.String()) })
	announced("the carrier was lost")

	a.down()
	if rep := r.state(vrrp.Fault); rep.Reason != "interface eth0 is down; set it up with: ip link set eth0 up" {
		t.Errorf("reason %q", rep.Reason)
	}
	a.up()
	r.state(vrrp.Master)
	announced("the interface was down")
	if r.log.count("neighbours not told") != untold {
		t.Error("a failure that is over kept a gratuitous ARP back")
	}

	must(t, a.nl.LinkDel(a.eth0()))
	if rep := r.state(vrrp.Fault); rep.Reason != "interface eth0 does not exist; waiting for it" {
		t.Errorf("reason %q", rep.Reason)
	}
	a.joinTo(b)
	r.report("no address of its own", func(rep Report) bool {
		return rep.Instances[0].Reason == "eth0 has no IPv4 address of its own; add one"
	})
	a.addAddress("10.9.0.1/24")
	r.state(vrrp.Master)
	eventually(t, "address on the new interface", func() bool { return a.has(vip1.String()) })
}

func TestAnAdvertThatTheQueueOfTheInterfaceDropsIsToldAndNotCounted(t *testing.T) {
	a, b := twoBoxes(t)
	adverts := b.sniff(0x0800)
	isAdvert := func(f []byte) bool { return f[23] == 112 }
	r := a.start(config(t, fast(255, vip1)))
	nextFrame(t, adverts, "advert", isAdvert)
	// A queue that has room for no packet at all.
	full := &netlink.Tbf{QdiscAttrs: netlink.QdiscAttrs{LinkIndex: a.eth0().Attrs().Index, Handle: netlink.MakeHandle(1, 0), Parent: netlink.HANDLE_ROOT},
		Rate: 1000, Limit: 1, Buffer: 100_000}
	must(t, a.nl.QdiscAdd(full))
	r.logged(1, "advert not sent", "no buffer space")
	var sent [3]uint64 // the first report may be older than the full queue
	for n := range sent {
		sent[n] = r.report("a report", func(Report) bool { return true }).Instances[0].AdvertsSent
	}
	if sent[1] != sent[2] {
		t.Errorf("%d adverts counted as sent, then %d; all were dropped", sent[1], sent[2])
	}
	must(t, a.nl.QdiscDel(full))
	r.logged(1, "adverts are sent again")
	nextFrame(t, adverts, "advert after the queue has room again", isAdvert)
}

func TestSourceFollowsTheInterfaceAndIsNeverVirtual(t *testing.T) {
	a, _ := twoBoxes(t)
	r := a.start(config(t, fast(100, netip.MustParsePrefix("10.9.0.100/24"))))
	r.state(vrrp.Master)
	a.addAddress("10.9.0.3/24")
	eventually(t, "address added", func() bool { return a.has("10.9.0.100/24") })
	a.removeAddress("10.9.0.1/24") // the kernel makes the virtual one the primary
	r.report("the other address as source", func(rep Report) bool { return rep.Instances[0].Source == netip.MustParseAddr("10.9.0.3") })
	a.removeAddress("10.9.0.3/24")
	rep := r.state(vrrp.Fault)
	if rep.Reason != "eth0 has no IPv4 address of its own; add one" {
		t.Errorf("reason %q", rep.Reason)
	}
}

func TestConfigureAddsChangesAndRemovesWithoutTouchingTheRest(t *testing.T) {
	a, b := twoBoxes(t)
	one, two := fast(100, vip1), fast(100, vip2)
	two.Name, two.VRRP.VRID = "VI_2", 52
	cfg := config(t, one)
	r := a.start(cfg)
	r.state(vrrp.Master)
	cfg.Instances = []Instance{one, two}
	r.Configure(cfg)
	r.report("both MASTER", func(rep Report) bool { return len(rep.Instances) == 2 && rep.Instances[1].State == vrrp.Master })
	eventually(t, "second address", func() bool { return a.has(vip2.String()) })

	arps := b.sniff(0x0806)
	more := fast(100, vip1, netip.MustParsePrefix("10.9.0.102/32"))
	cfg.Instances = []Instance{more, two}
	r.Configure(cfg)
	eventually(t, "new address", func() bool { return a.has("10.9.0.102/32") })
	nextFrame(t, arps, "gratuitous ARP for the new address", func(f []byte) bool { return f[41] == 102 })

	cfg.Instances = []Instance{one}
	r.Configure(cfg)
	r.report("second instance gone", func(rep Report) bool { return len(rep.Instances) == 1 })
	eventually(t, "their addresses gone", func() bool { return !a.has(vip2.String()) && !a.has("10.9.0.102/32") })
	if !a.has(vip1.String()) {
		t.Error("address of the unchanged instance is gone")
	}
	cfg.Instances = []Instance{one, two}
	r.Configure(cfg)
	rep := r.report("second instance back", func(rep Report) bool { return len(rep.Instances) == 2 && rep.Instances[1].State == vrrp.Master })
	if n := rep.Instances[0].Transitions; n[vrrp.Master] != 1 || n[vrrp.Backup] != 1 {
		t.Errorf("transitions of the unchanged instance: %v", n)
	}
}

func TestANewNameStartsWhenTheOldOneHasHandedOver(t *testing.T) {
	a, b := twoBoxes(t)
	// The handover takes 220 ms, of which the address stays 200; a newcomer that hears nothing waits for 64 ms.
	peer := fast(2, vip1)
	peer.VRRP.Interval = 20 * time.Millisecond
	old := fast(200, vip1)
	old.VRRP.Interval = 20 * time.Millisecond
	cfg := config(t, old)
	r := a.start(cfg)
	r.state(vrrp.Master)
	b.start(config(t, peer)).state(vrrp.Backup)
	eventually(t, "address added", func() bool { return a.has(vip1.String()) })

	renamed := old
	renamed.Name = "GATEWAY"
	cfg.Instances = []Instance{renamed}
	r.Configure(cfg)
	r.report("MASTER under the new name", func(rep Report) bool {
		if len(rep.Instances) != 1 {
			t.Errorf("%d instances with the same VRID at once", len(rep.Instances))
		}
		return rep.Instances[0].Name == "GATEWAY" && rep.Instances[0].State == vrrp.Master
	})
	eventually(t, "address added again", func() bool { return a.has(vip1.String()) })
	if r.log.count("put there by us") != 0 {
		t.Error("the address of the old name was taken for somebody else's")
	}
	r.logged(1, "state changed", "instance=GATEWAY", "from=BACKUP", "has the lower priority 2, ours is 200")
}

func TestWithoutAStateDirTheElectionRunsAndSaysWhatIsLost(t *testing.T) {
	a, _ := twoBoxes(t)
	cfg := config(t, fast(100, vip1))
	must(t, os.WriteFile(cfg.StateDir, nil, 0o644)) // a file where the folder should be
	cfg.DeadMan = time.Second                       // renewed, and so recorded, every 170 ms
	r := a.start(cfg)
	r.state(vrrp.Master)
	eventually(t, "address added", func() bool { return a.has(vip1.String()) })
	must(t, os.Remove(cfg.StateDir))
	must(t, os.Mkdir(cfg.StateDir, 0o755))
	r.logged(1, "records are written again")
	r.logged(1, "state_dir can't be made", cfg.StateDir)
	r.logged(1, "a restart will not know that it was MASTER")
	r.Stop()
	r.stopped()
	if a.has(vip1.String()) {
		t.Error("address is there after Stop")
	}
}
