package ha

import (
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

func TestWhatSomebodyElseRemovesIsPutBackAndCounted(t *testing.T) {
	a, _ := oneBox(t)
	i := withVirtualMAC(fast(100, vip1))
	i.VirtualAddresses = append(i.VirtualAddresses, VirtualAddress{Prefix: vip6})
	i.Routes = []Route{{Destination: netip.MustParsePrefix("10.50.0.0/16"), Via: netip.MustParseAddr("10.9.0.2")},
		{Destination: netip.MustParsePrefix("2001:db8:1::/48"), Via: netip.MustParseAddr("2001:db8::2"), Metric: 7, Table: 100}}
	k := a.keep(t.TempDir(), i)
	k.master()
	whole := func() bool {
		k := a.link("vrrp-51")
		return a.has(vip1.String()) && a.has(vip6.String()) && a.routes("10.50.0.0/16") == 1 && a.routesIn(100, "2001:db8:1::/48") == 1 &&
			k != nil && k.Attrs().Flags&net.FlagUp != 0
	}
	eventually(t, "all of it", whole)
	for n, c := range []struct {
		what string
		do   func()
	}{
		{"an address", func() { must(t, a.nl.AddrDel(a.link("vrrp-51"), &netlink.Addr{IPNet: ipNet(vip1)})) }},
		{"an address of the other family", func() { a.removeAddress(vip6.String()) }},
		{"a route", func() {
			must(t, a.nl.RouteDel(&netlink.Route{Dst: ipNet(netip.MustParsePrefix("10.50.0.0/16")), LinkIndex: a.eth0().Attrs().Index}))
		}},
		{"a route of another table", func() {
			must(t, a.nl.RouteDel(&netlink.Route{Dst: ipNet(netip.MustParsePrefix("2001:db8:1::/48")), LinkIndex: a.eth0().Attrs().Index, Table: 100}))
		}},
		{"the virtual MAC", func() { must(t, a.nl.LinkDel(a.link("vrrp-51"))) }},
		{"the state of the virtual MAC", func() { must(t, a.nl.LinkSetDown(a.link("vrrp-51"))) }},
	} {
		c.do()
		eventually(t, c.what+" put back", func() bool { return whole() && k.restored.Load() == uint64(n+1) })
	}
	k.logged(1, "removed by somebody else") // then one a minute
	k.quit()
	if a.routes("10.50.0.0/16")+a.routesIn(100, "2001:db8:1::/48") != 0 {
		t.Error("a route is left")
	}
}

func TestAFightForAnAddressFillsNeitherLogNorCPU(t *testing.T) {
	a, _ := oneBox(t)
	k := a.keep(t.TempDir(), fast(100, vip1))
	k.master()
	remove := func() (back time.Duration) {
		eventually(t, "address there", func() bool { return a.has(vip1.String()) })
		began := time.Now()
		a.removeAddress(vip1.String())
		eventually(t, "address back", func() bool { return a.has(vip1.String()) })
		return time.Since(began)
	}
	for range fightLimit {
		remove()
	}
	remove() // waits since the one before, or not at all
	if back := remove(); back < fightPause/2 {
		t.Errorf("put back after %s although it was removed %d times", back, fightLimit+2)
	}
	if n := k.restored.Load(); n != fightLimit+2 {
		t.Errorf("%d put back, want %d", n, fightLimit+2)
	}
	k.logged(1, "removed by somebody else")
}

func TestARouteOfSomebodyElseIsNeverTouched(t *testing.T) {
	a, _ := oneBox(t)
	to := netip.MustParsePrefix("10.50.0.0/16")
	theirs := &netlink.Route{Dst: ipNet(to), LinkIndex: a.eth0().Attrs().Index, Gw: net.IPv4(10, 9, 0, 77)}
	must(t, a.nl.RouteAdd(theirs))
	i := fast(100, vip1)
	i.Routes = []Route{{Destination: to, Via: netip.MustParseAddr("10.9.0.2"), Source: vip1.Addr()},
		{Destination: netip.MustParsePrefix("0.0.0.0/0"), Via: netip.MustParseAddr("10.9.0.2"), Metric: 9}}
	k := a.keep(t.TempDir(), i)
	k.master()
	k.logged(1, "there already, not put there by us")
	eventually(t, "the other route", func() bool { return a.routes("0.0.0.0/0") == 1 })
	k.backup()
	eventually(t, "the other route gone", func() bool { return a.routes("0.0.0.0/0") == 0 })
	if a.routes(to.String()) != 1 {
		t.Error("removed somebody else's route")
	}
	must(t, a.nl.RouteDel(theirs))
	k.master()
	eventually(t, "our route, as soon as there is room", func() bool { return a.routes(to.String()) == 1 })
	k.quit()
	if a.routes(to.String()) != 0 {
		t.Error("a route is left")
	}
}

func TestTheProgramsThatMayHaveRemovedItAreNamed(t *testing.T) {
	sleep, err := exec.LookPath("sleep")
	must(t, err)
	binary, err := os.ReadFile(sleep)
	must(t, err)
	name := filepath.Join(t.TempDir(), "dhclient")
	must(t, os.WriteFile(name, binary, 0o755))
	run := exec.Command(name, "60")
	must(t, run.Start())
	t.Cleanup(func() {
		_ = run.Process.Kill() // it can't have ended
		_ = run.Wait()         // killed
	})
	eventually(t, "dhclient is named, with the cure", func() bool {
		return strings.Contains(suspects("eth7"), "Running here: ") &&
			strings.Contains(suspects("eth7"), "dhclient (its script flushes the interface; give the interface a static address)")
	})
}

func TestAVirtualMACThatIsSetDownAsSoonAsItIsUpIsSetUpAgain(t *testing.T) {
	a, _ := oneBox(t)
	k := a.keep(t.TempDir(), withVirtualMAC(fast(100, vip1)))
	k.master()
	up := func() bool { return a.link("vrrp-51").Attrs().Flags&net.FlagUp != 0 }
	eventually(t, "the address", func() bool { return a.has(vip1.String()) })
	for range fightLimit {
		must(t, a.nl.LinkSetDown(a.link("vrrp-51")))
		eventually(t, "set up again", up) // the next one follows before anybody has seen that
	}
}
