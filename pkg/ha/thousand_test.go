package ha

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// thousand is instances with an address each.
func thousand() []Instance {
	var all []Instance
	for n := range 1000 {
		i := fast(100, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 9, byte(4 + n/250), byte(1 + n%250)}), 32))
		i.Name, i.VRRP.VRID = fmt.Sprint("VI_", n), uint8(1+n%255)
		all = append(all, i)
	}
	return all
}

func TestAThousandInstancesTakeOverWithinASecond(t *testing.T) {
	a, b := oneBoxAlone(t)
	arps := b.sniff(unix.ETH_P_ARP)
	o := a.open(t.TempDir())
	began := time.Now()
	var all []*keeper
	for _, i := range thousand() {
		all = append(all, o.begin(i))
	}
	for _, k := range all {
		k.claim()
	}
	t.Logf("recorded after %s", time.Since(began))
	began = time.Now()
	for _, k := range all {
		k.master()
	}
	said, first := map[string]int{}, time.Duration(0)
	for n := range 5000 {
		f := nextFrame(t, arps, "gratuitous ARP", func(f []byte) bool { return f[21] == 1 })
		if said[string(f[28:32])]++; n == 0 {
			first = time.Since(began)
		}
	}
	if took := time.Since(began) - first; took > 3*time.Second || len(said) != 1000 {
		t.Errorf("%d instances announced within %s, want 1000 within a second (three here)", len(said), took)
	} else {
		t.Logf("from the first to the last of 5000 frames: %s", took)
	}

	quitAll(all)
	if names := o.records.names(); len(names) != 0 || a.has("10.9.4.1/32") || a.has("10.9.7.250/32") {
		t.Errorf("addresses are left, or recorded still: %d instances", len(names))
	}
}

// quitAll ends holders at the same time, as a stop of the whole does.
func quitAll(all []*keeper) {
	for _, k := range all {
		k.set(func(w *wish) { w.decided, w.hold, w.quit = true, false, true })
	}
	for _, k := range all {
		k.quit()
	}
}

func TestManyVirtualMACsComeAndGoTogether(t *testing.T) {
	a, b := oneBoxAlone(t)
	arps := b.sniff(unix.ETH_P_ARP)
	o := a.open(t.TempDir())
	var all []*keeper
	for _, i := range thousand()[:255] {
		k := o.begin(withVirtualMAC(i))
		k.claim()
		k.backup()
		all = append(all, k)
	}
	eventually(t, "all devices", func() bool { return len(all[254].devices()) == 255 })
	for range 2 { // the second time while the devices are still being set down
		began := time.Now()
		for _, k := range all {
			k.master()
		}
		said := map[string]bool{}
		for len(said) < 255 {
			said[string(nextFrame(t, arps, "gratuitous ARP", func(f []byte) bool { return f[21] == 1 })[28:32])] = true
		}
		if took := time.Since(began); took > 3*time.Second {
			t.Errorf("taken over within %s, want a second (three here)", took)
		}
		began = time.Now()
		for _, k := range all {
			k.backup()
		}
		eventually(t, "all addresses gone", func() bool { return !a.has("10.9.4.1/32") && !a.has("10.9.5.5/32") })
		if took := time.Since(began); took > 3*time.Second {
			t.Errorf("addresses removed within %s, want a second (three here)", took)
		}
	}
	quitAll(all)
	if left := all[0].devices(); len(left) != 0 {
		t.Errorf("%d devices left", len(left))
	}
}

// TestNoAnnouncementIsLostToAFullQueue has an interface with room for a few frames, of which it sends 3000 a second.
func TestNoAnnouncementIsLostToAFullQueue(t *testing.T) {
	a, b := oneBoxAlone(t)
	arps := b.sniff(unix.ETH_P_ARP)
	o := a.open(t.TempDir())
	var all []*keeper
	for _, i := range thousand()[:100] {
		k := o.begin(i)
		k.claim()
		all = append(all, k)
	}
	a.limitFrames(32000)
	for _, k := range all {
		k.master()
	}
	said := map[string]int{}
	for range 500 {
		said[string(nextFrame(t, arps, "gratuitous ARP", func(f []byte) bool { return f[21] == 1 })[28:32])]++
	}
	for address, n := range said {
		if n != 5 {
			t.Errorf("%d announcements of %v, want 5", n, []byte(address))
		}
	}
	quitAll(all)
}

func TestAnnouncementsEndWhereTheQueueStaysFull(t *testing.T) {
	a, _ := oneBoxAlone(t)
	a.limitFrames(2000) // 16 bytes: no frame is as short as that
	i := thousand()[0]
	for _, more := range thousand()[1:20] {
		i.VirtualAddresses = append(i.VirtualAddresses, more.VirtualAddresses...)
	}
	k := a.open(t.TempDir()).begin(i)
	k.claim()
	k.master()
	eventually(t, "a warning of 5 frames for each of 20 addresses", func() bool {
		return k.log.count("neighbours not told all", "frames=100 of=100", "no buffer space") == 1
	})
	k.quit()
}

// limitFrames leaves eth0 room for a few frames, of which it sends 3000 a second if each fits into a burst of so many ticks of 64 ns.
func (b *box) limitFrames(burst uint32) {
	b.t.Helper()
	must(b.t, b.nl.QdiscReplace(&netlink.Tbf{
		QdiscAttrs: netlink.QdiscAttrs{LinkIndex: b.link("eth0").Attrs().Index, Handle: netlink.MakeHandle(1, 0), Parent: netlink.HANDLE_ROOT},
		Rate:       3000 * 42, Buffer: burst, Limit: 512, // bytes
	}))
}

// devices lists the devices of virtual MACs in the box.
func (k *keeper) devices() []link {
	k.box.t.Helper()
	s, err := takeSnapshot(k.box.nl)
	must(k.box.t, err)
	var out []link
	for name, l := range s {
		if strings.HasPrefix(name, "vrrp-") {
			out = append(out, l)
		}
	}
	return out
}
