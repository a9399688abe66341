package ha

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/xdirector/xdirector/pkg/vrrp"
)

func withVirtualMAC(i Instance) Instance {
	i.VirtualMAC = fmt.Sprintf("vrrp-%d", i.VRRP.VRID)
	return i
}

// answers asks who has an address, and returns the Ethernet source and the told MAC of each answer. Those that the
// interface itself gives have come when it has answered a later question, for its own address; a macvlan sees a
// broadcast a moment later, so at least so many answers as wanted are waited for.
func (b *box) answers(to netip.Addr, own netip.Addr, want int) (senders, told []string) {
	b.t.Helper()
	ethertype, size := unix.ETH_P_ARP, 42
	if to.Is6() {
		ethertype, size = unix.ETH_P_IPV6, 86
	}
	frames := b.sniff(ethertype)
	mac := b.eth0().Attrs().HardwareAddr
	end, through := time.After(limit), false
	for _, a := range []netip.Addr{to, own} {
		question := arpRequest(mac, netip.MustParseAddr("10.9.0.2"), a)
		if to.Is6() {
			question = solicitation(mac, netip.MustParseAddr("2001:db8::2"), askedOf(a), a)
		}
		b.send(question)
	}
	for {
		select {
		case f := <-frames:
			if len(f) < size || to.Is4() && f[21] != 2 || to.Is6() && f[54] != 136 {
				continue
			}
			about, _ := netip.AddrFromSlice(f[28:32])
			mac := net.HardwareAddr(f[22:28])
			if to.Is6() {
				about, _ = netip.AddrFromSlice(f[62:78])
				mac = f[80:86]
			}
			through = through || about == own
			if about == to {
				senders, told = append(senders, net.HardwareAddr(f[6:12]).String()), append(told, mac.String())
			}
			if through && len(told) >= want {
				return senders, told
			}
		case <-end:
			b.t.Fatalf("answers from %v telling %v, want %d; own address answered: %v", senders, told, want, through)
		}
	}
}

// send sends a frame out of eth0.
func (b *box) send(frame []byte) {
	b.t.Helper()
	var w *wire
	var err error
	b.do(func() { w, err = openWire() })
	must(b.t, err)
	defer w.close()
	must(b.t, w.sendWithin(limit, b.eth0().Attrs().Index, frame))
}

// listens waits until the box hears questions about an IPv6 address.
func (b *box) listens(to netip.Addr) {
	b.t.Helper()
	group := fmt.Sprintf("%x", askedOf(to).As16())
	eventually(b.t, "member of "+group, func() bool {
		var members []byte
		var err error
		b.do(func() { members, err = os.ReadFile("/proc/thread-self/net/igmp6") })
		must(b.t, err)
		return bytes.Contains(members, []byte(group))
	})
}

// arpRequest is the frame that asks who has an address.
func arpRequest(mac net.HardwareAddr, from, to netip.Addr) []byte {
	f := gratuitousARP(mac, from)
	copy(f[32:38], make([]byte, 6))
	copy(f[38:42], to.AsSlice())
	return f
}

// askedOf is the group that hears questions about an IPv6 address.
func askedOf(about netip.Addr) netip.Addr {
	a := about.As16()
	return netip.AddrFrom16([16]byte{0xff, 2, 11: 1, 12: 0xff, 13: a[13], 14: a[14], 15: a[15]})
}

// solicitation is the frame that asks who has an IPv6 address; to is a group.
func solicitation(mac net.HardwareAddr, from, to, about netip.Addr) []byte {
	f := neighbourAdvertisement(mac, about, false)
	s, d := from.As16(), to.As16()
	copy(f, []byte{0x33, 0x33, d[12], d[13], d[14], d[15]})
	copy(f[22:], s[:])
	copy(f[38:], d[:])
	f[54], f[56], f[57], f[58], f[78] = 135, 0, 0, 0, 1
	pseudo := append(append([]byte{}, f[22:54]...), 0, 0, 0, 32, 0, 0, 0, unix.IPPROTO_ICMPV6)
	sum := ^internetSum(append(pseudo, f[54:]...))
	f[56], f[57] = byte(sum>>8), byte(sum)
	return f
}

func TestVirtualMACAnswersAloneAndOnlyWhileMaster(t *testing.T) {
	for _, c := range []struct {
		name     string
		address  netip.Prefix
		own      string
		mac      string
		announce int
	}{
		{"IPv4", vip1, "10.9.0.1", "00:00:5e:00:01:33", unix.ETH_P_ARP},
		{"IPv6", vip6, "2001:db8::1", "00:00:5e:00:02:33", unix.ETH_P_IPV6},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, b := oneBox(t)
			if c.address.Addr().Is4() { // strict filtering, as some distributions set it
				must(t, writeSetting(a, "net/ipv4/conf/all/rp_filter", "1"))
			}
			own := netip.MustParseAddr(c.own)
			k := a.keep(t.TempDir(), withVirtualMAC(fast(100, c.address)))
			k.backup()
			eventually(t, "the device", func() bool { return a.link("vrrp-51") != nil })
			if senders, _ := b.answers(c.address.Addr(), own, 0); senders != nil {
				t.Errorf("a BACKUP answers: %v", senders)
			}
			frames := b.sniff(c.announce)
			k.master()
			mac, _ := net.ParseMAC(c.mac)
			want := announcement(mac, c.address.Addr(), false)
			for range 5 {
				f := nextFrame(t, frames, "announcement", func(f []byte) bool { return bytes.Equal(f[6:12], mac) && (f[12] == 8 || f[54] == 136) })
				if !bytes.Equal(f[:len(want)], want) {
					t.Fatalf("announced\n% x, want\n% x", f, want)
				}
			}
			if a := c.address.Addr(); a.Is6() {
				k.box.listens(a) // the kernel does that a moment after it was added
			}
			for range 3 {
				senders, told := b.answers(c.address.Addr(), own, 1)
				if fmt.Sprint(senders, told) != fmt.Sprintf("[%s] [%s]", c.mac, c.mac) {
					t.Errorf("answers from %v telling %v, want one with %s", senders, told, c.mac)
				}
			}
			if senders, told := b.answers(own, c.address.Addr(), 1); fmt.Sprint(senders, told) != fmt.Sprintf("[%s] [%s]", a.eth0().Attrs().HardwareAddr, a.eth0().Attrs().HardwareAddr) {
				t.Errorf("the own address: answers from %v telling %v", senders, told)
			}
			if !b.reaches(netip.AddrPortFrom(c.address.Addr(), 9), limit) {
				t.Error("no TCP answer")
			}
			for n := range 2 { // what else the neighbour learns about the address, from all that was sent to it
				list, err := b.nl.NeighList(b.eth0().Attrs().Index, netlink.FAMILY_ALL)
				must(t, err)
				for _, e := range list {
					if e.IP.Equal(c.address.Addr().AsSlice()) && e.HardwareAddr.String() != c.mac {
						t.Errorf("%d: the neighbour has %s for the address", n, e.HardwareAddr)
					}
				}
				// The box must ask for its neighbour again, with an answer from the virtual address in its hand.
				must(t, a.nl.NeighDel(&netlink.Neigh{LinkIndex: a.eth0().Attrs().Index, IP: net.IP(netip.MustParseAddr(map[bool]string{true: "10.9.0.2", false: "2001:db8::2"}[c.address.Addr().Is4()]).AsSlice())}))
				if !b.reaches(netip.AddrPortFrom(c.address.Addr(), 9), limit) {
					t.Error("no TCP answer")
				}
			}
			k.backup()
			eventually(t, "the device down", func() bool { return a.link("vrrp-51").Attrs().Flags&net.FlagUp == 0 && !a.has(c.address.String()) })
			if senders, _ := b.answers(c.address.Addr(), own, 0); senders != nil {
				t.Errorf("a BACKUP answers: %v", senders)
			}
			k.quit()
			if a.link("vrrp-51") != nil {
				t.Error("the device is left")
			}
		})
	}
}

func TestTwoDirectorsWithOneVirtualMACHaveNoAddressInCommon(t *testing.T) {
	a, b := oneBox(t)
	i := withVirtualMAC(fast(100, linkLocal))
	local := map[string]*box{}
	for _, x := range []*box{a, b} {
		k := x.keep(t.TempDir(), i)
		k.master()
		eventually(t, "address", func() bool { return x.has(linkLocal.String()) })
		list, err := x.nl.AddrList(x.link("vrrp-51"), netlink.FAMILY_ALL)
		must(t, err)
		if len(list) != 2 {
			t.Errorf("addresses of the device: %v, want the virtual and one of its own", list)
		}
		for _, l := range list {
			if l.Flags&unix.IFA_F_TENTATIVE != 0 {
				t.Errorf("%s waits for the search for duplicates", l.IPNet)
			}
			if prefixOf(l) != linkLocal {
				if local[l.IP.String()] != nil {
					t.Errorf("both have %s", l.IP)
				}
				local[l.IP.String()] = x
			}
		}
		k.backup()
		eventually(t, "address gone", func() bool { return !x.has(linkLocal.String()) })
	}
}

func TestAVirtualMACOfSomebodyElseIsLeftAloneAndAFault(t *testing.T) {
	a, _ := oneBox(t)
	i := withVirtualMAC(fast(100, vip1))
	must(t, a.nl.LinkAdd(&netlink.Macvlan{LinkAttrs: netlink.LinkAttrs{Name: i.VirtualMAC, ParentIndex: a.eth0().Attrs().Index}, Mode: netlink.MACVLAN_MODE_PRIVATE}))
	k := a.keep(t.TempDir(), i)
	if want := "interface vrrp-51 is there already and is no macvlan with the virtual MAC 00:00:5e:00:01:33 on eth0; remove it, or give virtual_mac another name"; k.found.fault != want {
		t.Errorf("claim says %q", k.found.fault)
	}
	k.quit()
	if a.link(i.VirtualMAC) == nil {
		t.Error("removed somebody else's device")
	}
}

func TestVirtualMACFollowsItsInterfaceAndItsConfiguration(t *testing.T) {
	a, b := oneBox(t)
	i := withVirtualMAC(fast(100, vip1))
	dir := t.TempDir()
	k := a.keep(dir, i)
	k.master()
	eventually(t, "address", func() bool { return a.has(vip1.String()) })
	must(t, a.nl.LinkDel(a.eth0())) // and the macvlan with it
	a.joinTo(b)
	on := func() int {
		if m, ok := a.link(i.VirtualMAC).(*netlink.Macvlan); ok {
			return m.ParentIndex
		}
		return 0
	}
	eventually(t, "address on the new interface", func() bool { return on() == a.eth0().Attrs().Index && a.has(vip1.String()) })

	other := i
	other.VirtualMAC = "vmac0"
	k.set(func(w *wish) { w.instance = &other })
	eventually(t, "address under the other name", func() bool {
		got, there := a.address(vip1)
		return a.link(i.VirtualMAC) == nil && there && a.link("vmac0") != nil && got.LinkIndex == a.link("vmac0").Attrs().Index
	})
	eventually(t, "the lifetime of 1 of 1 address renewed", func() bool { return k.renewed() == 1 })
	k.crash()

	other.VRRP.VRID = 77 // changed in the file before the next start: the device that is left has the wrong MAC
	k = a.keep(dir, other)
	if k.found.fault != "" || a.link("vmac0") != nil || a.has(vip1.String()) {
		t.Errorf("claim %+v, device %v", k.found, a.link("vmac0"))
	}
	k.master()
	eventually(t, "the new MAC", func() bool {
		m := a.link("vmac0")
		return m != nil && m.Attrs().HardwareAddr.String() == "00:00:5e:00:01:4d" && a.has(vip1.String())
	})
	k.crash()

	none := other
	none.VirtualMAC = ""
	k = a.keep(dir, none)
	if a.link("vmac0") != nil || a.has(vip1.String()) {
		t.Error("the device that nobody wants any more is left")
	}
	k.master()
	eventually(t, "address on the interface itself", func() bool {
		got, there := a.address(vip1)
		return there && got.LinkIndex == a.eth0().Attrs().Index
	})
	k.quit()
}

func TestTheWayToTheNetworkIsNotTheVirtualMACs(t *testing.T) {
	a, _ := oneBox(t)
	for _, p := range []netip.Prefix{netip.MustParsePrefix("10.9.0.100/24"), netip.MustParsePrefix("2001:db8::100/64")} {
		k := a.keep(t.TempDir(), withVirtualMAC(fast(100, p)))
		k.master()
		eventually(t, "address", func() bool { return a.has(p.String()) })
		if n := a.routes(p.Masked().String()); n != 1 {
			t.Errorf("%d routes to %s, want the interface's alone", n, p.Masked())
		}
		k.quit()
	}
}

func TestDirectorsWithOneVirtualMACHearEachOther(t *testing.T) {
	a, b := oneBox(t)
	low, high := withVirtualMAC(fast(100, vip1)), withVirtualMAC(fast(200, vip1))
	adverts := b.sniff(unix.ETH_P_IP)
	first := a.start(config(t, low))
	first.state(vrrp.Master)
	f := nextFrame(t, adverts, "advert", func(f []byte) bool { return f[23] == 112 })
	if got := net.HardwareAddr(f[6:12]).String(); got != "00:00:5e:00:01:33" {
		t.Errorf("Ethernet source of an advert: %s", got)
	}
	eventually(t, "address at the first", func() bool { return a.has(vip1.String()) })
	second := b.start(config(t, high))
	second.state(vrrp.Master)
	first.state(vrrp.Backup) // it heard adverts that came from the MAC of its own device, which was up
	eventually(t, "address at the second alone", func() bool { return b.has(vip1.String()) && !a.has(vip1.String()) })
	second.Stop()
	first.state(vrrp.Master)
	second.stopped()
	eventually(t, "address back at the first", func() bool { return a.has(vip1.String()) && !b.has(vip1.String()) })
	if b.link(high.VirtualMAC) != nil {
		t.Error("the device is left after Stop")
	}
}
