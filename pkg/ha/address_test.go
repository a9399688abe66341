package ha

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/xdirector/xdirector/pkg/statefile"
	"github.com/xdirector/xdirector/pkg/vrrp"
)

func TestRemovingOneAddressLeavesTheOthersOfItsPrefix(t *testing.T) {
	a, _ := twoBoxes(t)
	a.removeAddress("10.9.0.1/24")
	a.addAddress("10.8.0.1/24") // so that the virtual addresses are the first of their prefix
	first, second := netip.MustParsePrefix("10.9.0.100/24"), netip.MustParsePrefix("10.9.0.101/24")
	cfg := config(t, fast(100, first, second))
	r := a.start(cfg)
	r.state(vrrp.Master)
	eventually(t, "both addresses", func() bool { return a.has(first.String()) && a.has(second.String()) })
	a.addAddress("10.9.0.1/24")
	cfg.Instances = []Instance{fast(100, second)}
	r.Configure(cfg)
	eventually(t, "first address removed", func() bool { return !a.has(first.String()) })
	if !a.has(second.String()) || !a.has("10.9.0.1/24") {
		t.Error("removing one address removed others of its prefix")
	}
	r.Stop()
	r.stopped()
	if a.has(second.String()) || !a.has("10.9.0.1/24") {
		t.Error("after Stop only the box's own address should be there")
	}
	r.logged(1, "promote_secondaries set")
}

func TestRestartWithinThreeIntervalsResumesAsMaster(t *testing.T) {
	a, b := twoBoxes(t)
	// Slow adverts, so that a slow machine is within three intervals too; the peer shows that nobody else took over.
	one, other := fast(100, vip1), fast(90, vip1)
	one.VRRP.Interval, other.VRRP.Interval = 2*time.Second, 2*time.Second
	one.VRRP.Priority = 255
	cfg := config(t, one)
	r := a.start(cfg)
	r.state(vrrp.Master)
	peer := b.start(config(t, other))
	eventually(t, "address added", func() bool { return a.has(vip1.String()) })
	r.crash()
	cfg.Instances[0].VRRP.Priority = 100 // an owner would be MASTER anyway
	r = a.start(cfg)
	rep := r.state(vrrp.Master)
	if rep.Transitions[vrrp.Backup] != 0 || rep.Reason != "restarted while MASTER" {
		t.Errorf("restart: %+v", rep)
	}
	if !a.has(vip1.String()) || r.log.count("virtual address removed") != 0 {
		t.Error("the address was taken away")
	}
	if n := peer.report("a report", func(rep Report) bool { return true }).Instances[0].Transitions[vrrp.Master]; n != 0 {
		t.Error("the peer took over")
	}
	r.Stop()
	r.stopped()
	if a.has(vip1.String()) {
		t.Error("an adopted address stays after Stop")
	}
	if left, err := os.ReadDir(cfg.StateDir); err != nil || len(left) != 0 {
		t.Errorf("left in state_dir: %v %v", left, err)
	}
}

func TestLeftoverAddressesAreRemovedAndForeignOnesNever(t *testing.T) {
	a, _ := twoBoxes(t)
	foreign := netip.MustParsePrefix("10.9.0.103/32")
	a.addAddress("10.9.0.103/24") // by the administrator, and with another mask
	cfg := config(t, fast(100, vip1, foreign))
	r := a.start(cfg)
	r.state(vrrp.Master)
	eventually(t, "address added", func() bool { return a.has(vip1.String()) })
	r.logged(1, "Cure: ip address del 10.9.0.103/24 dev eth0, or priority 255")
	r.crash()

	// Nothing here tells how much time goes by, so let the last advert be old.
	must(t, os.WriteFile(filepath.Join(cfg.StateDir, advertFile), make([]byte, 8*advertSlots), 0o644))
	a.down() // not MASTER soon
	r = a.start(cfg)
	r.state(vrrp.Fault)
	if a.has(vip1.String()) {
		t.Error("a leftover address was not removed")
	}
	a.up()
	r.state(vrrp.Backup)
	r.state(vrrp.Master)
	r.logged(1, "Cure") // about the same address as before, not about what we removed ourselves
	r.Stop()
	r.stopped()
	if a.has(vip1.String()) || !a.has("10.9.0.103/24") || a.has(foreign.String()) {
		t.Error("after Stop the administrator's address, and only that, should be there")
	}
}

func TestAddressesOfAFormerInstanceAreRemovedAtTheStart(t *testing.T) {
	a, _ := twoBoxes(t)
	cfg := config(t, fast(255, vip1))
	cfg.Instances[0].Name = "net/old"
	r := a.start(cfg)
	r.state(vrrp.Master)
	eventually(t, "address added", func() bool { return a.has(vip1.String()) })
	r.crash()
	cfg.Instances = []Instance{fast(100, vip2)}
	r = a.start(cfg)
	r.state(vrrp.Backup)
	if a.has(vip1.String()) {
		t.Error("address of an instance that is no more is still there")
	}
}

func TestRecordOfAnotherBootIsIgnored(t *testing.T) {
	a, _ := twoBoxes(t)
	a.addAddress(vip1.String())
	cfg := config(t, fast(100, vip1))
	index := a.eth0().Attrs().Index
	must(t, statefile.Write(filepath.Join(cfg.StateDir, recordFile), "another", map[string]record{"VI_1": {Interface: "eth0", Index: index,
		Version: 3, VRID: 51, Addresses: []recordedAddress{{Prefix: vip1, Interface: "eth0", Index: index}}}}))
	r := a.start(cfg)
	r.state(vrrp.Backup)
	if !a.has(vip1.String()) {
		t.Error("removed an address that an older boot had")
	}
}

func TestAddressRemovedBySomebodyElseIsPutBack(t *testing.T) {
	a, _ := twoBoxes(t)
	cfg := config(t, fast(255, vip1))
	cfg.DeadMan = time.Hour // the next renewal is far
	r := a.start(cfg)
	r.state(vrrp.Master)
	eventually(t, "address added", func() bool { return a.has(vip1.String()) })
	a.removeAddress(vip1.String())
	eventually(t, "address put back", func() bool { return a.has(vip1.String()) })
	r.logged(1, "removed by somebody else")
	r.report("the count of it", func(rep Report) bool { return rep.Instances[0].Restored == 1 && rep.Instances[0].State == vrrp.Master })
}

func TestAddressesLiveOnlyAsLongAsTheyAreRenewed(t *testing.T) {
	a, _ := twoBoxes(t)
	vip := netip.MustParsePrefix("10.9.0.100/24")
	cfg := config(t, fast(255, vip))
	cfg.DeadMan = 2 * time.Second
	r := a.start(cfg)
	r.state(vrrp.Master)
	var added netlink.Addr
	eventually(t, "address added", func() (ok bool) { added, ok = a.address(vip); return ok })
	if added.ValidLft > 2 {
		t.Errorf("valid lifetime %d s", added.ValidLft)
	}
	// Ten adverts a second: after 28 of them an address that nobody renewed would be gone.
	r.report("28 adverts", func(rep Report) bool { return rep.Instances[0].AdvertsSent > 28 })
	r.logged(1, "virtual address added")
	if !a.has(vip.String()) {
		t.Error("the address was not kept")
	}
	if r.log.count("put back") != 0 {
		t.Error("the address went meanwhile")
	}
	r.crash()
	eventually(t, "address gone by itself", func() bool { return !a.has(vip.String()) })
}

func TestOwnerRunsOnItsRealAddress(t *testing.T) {
	a, _ := twoBoxes(t)
	own := netip.MustParsePrefix("10.9.0.1/32")
	r := a.start(config(t, fast(255, own)))
	if rep := r.state(vrrp.Master); rep.Source != own.Addr() {
		t.Errorf("source %s", rep.Source)
	}
	r.Stop()
	r.stopped()
	if !a.has("10.9.0.1/24") {
		t.Error("the owner's real address was removed")
	}
	if r.log.count("Cure") != 0 {
		t.Error("warned about the owner's own address")
	}
}
