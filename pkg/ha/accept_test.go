package ha

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"

	"github.com/xdirector/xdirector/pkg/lb"
)

// listen opens a TCP port on all addresses of the box.
func (b *box) listen(port int) {
	b.t.Helper()
	b.do(func() {
		l, err := net.Listen("tcp", fmt.Sprint(":", port))
		if err != nil {
			b.t.Error(err)
			return
		}
		b.t.Cleanup(func() { l.Close() })
	})
}

// pings says whether an address answers an echo request before another one does, which is asked later.
func (b *box) pings(to, later netip.Addr) bool {
	b.t.Helper()
	network, kind, protocol := "ip4:icmp", icmp.Type(ipv4.ICMPTypeEcho), 1
	reply := icmp.Type(ipv4.ICMPTypeEchoReply)
	if to.Is6() {
		network, kind, reply, protocol = "ip6:ipv6-icmp", ipv6.ICMPTypeEchoRequest, ipv6.ICMPTypeEchoReply, 58
	}
	var c *icmp.PacketConn
	var err error
	b.do(func() { c, err = icmp.ListenPacket(network, "") })
	must(b.t, err)
	defer c.Close()
	must(b.t, c.SetDeadline(time.Now().Add(limit)))
	ask := func(a netip.Addr) {
		m := icmp.Message{Type: kind, Body: &icmp.Echo{ID: 1, Data: []byte("?")}}
		raw, err := m.Marshal(nil)
		must(b.t, err)
		_, err = c.WriteTo(raw, &net.IPAddr{IP: a.AsSlice()})
		must(b.t, err)
	}
	ask(to)
	ask(later)
	raw := make([]byte, 1500)
	for {
		n, from, err := c.ReadFrom(raw)
		must(b.t, err)
		if m, err := icmp.ParseMessage(protocol, raw[:n]); err != nil || m.Type != reply {
			continue
		}
		switch a, _ := netip.AddrFromSlice(from.(*net.IPAddr).IP); a.Unmap() {
		case to:
			return true
		case later:
			return false
		}
	}
}

func (b *box) nft(args ...string) string {
	b.t.Helper()
	out, err := exec.Command("ip", append([]string{"netns", "exec", b.name, "nft"}, args...)...).CombinedOutput()
	if err != nil {
		b.t.Fatalf("nft %s: %v: %s", args, err, out)
	}
	return string(out)
}

func TestWithAcceptFalseOnlyServicesAndNeighbourDiscoveryReachTheBox(t *testing.T) {
	a, b := oneBox(t)
	must(t, a.nl.LinkSetUp(a.link("lo")))
	a.nft("add table inet operators")
	dir := t.TempDir()
	o := a.open(dir)
	wanted := [2]Instance{fast(100, vip1), fast(100, vip6)}
	var keepers [2]*keeper
	for n := range wanted {
		i := &wanted[n]
		i.Name, i.Accept = fmt.Sprint("VI_", n), false
		i.Services = []lb.ServiceKey{{Address: i.VRRP.Addresses[0], Port: 80, Protocol: lb.TCP}}
		// Ports 90 to 95 of the whole network around it.
		around, err := i.VRRP.Addresses[0].Prefix(24)
		must(t, err)
		i.Services = append(i.Services, lb.ServiceKey{Address: around.Addr(), Bits: 24, Port: 90, LastPort: 95, Protocol: lb.TCP},
			lb.ServiceKey{Address: i.VRRP.Addresses[0], Protocol: lb.UDP})
		keepers[n] = o.keep(*i)
		keepers[n].master()
	}
	own := fast(100, netip.MustParsePrefix("10.9.0.1/32"))
	own.Name, own.Accept = "VI_2", false
	administrators := o.keep(own) // its address was there before
	administrators.master()
	for _, port := range []int{80, 81, 92, 96} {
		a.listen(port)
	}
	eventually(t, "addresses", func() bool { return a.has(vip1.String()) && a.has(vip6.String()) })
	for _, c := range []struct{ virtual, own netip.Addr }{
		{vip1.Addr(), netip.MustParseAddr("10.9.0.1")}, {vip6.Addr(), netip.MustParseAddr("2001:db8::1")}} {
		if !b.reaches(netip.AddrPortFrom(c.virtual, 80), limit) {
			t.Errorf("the service at %s is not reached, or its neighbour discovery", c.virtual)
		}
		if !b.reaches(netip.AddrPortFrom(c.virtual, 92), limit) {
			t.Errorf("a port in the range of a service at %s is not reached", c.virtual)
		}
		if b.reaches(netip.AddrPortFrom(c.virtual, 81), 100*time.Millisecond) || b.reaches(netip.AddrPortFrom(c.virtual, 96), 100*time.Millisecond) ||
			b.pings(c.virtual, c.own) {
			t.Errorf("%s answers for more than its service", c.virtual)
		}
		if !b.reaches(netip.AddrPortFrom(c.own, 81), limit) {
			t.Errorf("%s does not answer any more", c.own)
		}
		if !a.reaches(netip.AddrPortFrom(c.virtual, 81), limit) {
			t.Errorf("the box does not reach %s itself", c.virtual)
		}
	}

	// A neighbour that makes sure that the address is still there asks it alone.
	question := solicitation(b.eth0().Attrs().HardwareAddr, netip.MustParseAddr("2001:db8::2"), vip6.Addr(), vip6.Addr())
	copy(question, a.eth0().Attrs().HardwareAddr)
	frames := b.sniff(unix.ETH_P_IPV6)
	b.send(question)
	nextFrame(t, frames, "answer to a neighbour", func(f []byte) bool { return f[54] == 136 && f[58]&0x40 != 0 })

	i := wanted[0]
	i.Accept = true
	keepers[0].set(func(w *wish) { w.instance = &i })
	eventually(t, "all reaches the box now", func() bool { return b.reaches(netip.AddrPortFrom(vip1.Addr(), 81), 20*time.Millisecond) })
	if b.reaches(netip.AddrPortFrom(vip6.Addr(), 81), 100*time.Millisecond) {
		t.Error("that of the other instance too")
	}
	keepers[0].quit()
	keepers[1].quit()
	administrators.quit()
	if tables := a.nft("list", "tables"); strings.TrimSpace(tables) != "table inet operators" {
		t.Errorf("tables left: %s", tables)
	}
	o.crash()

	k := a.keep(dir, wanted[0])
	k.master()
	eventually(t, "the table", func() bool { return strings.Contains(a.nft("list", "tables"), guardTable(dir)) })
	k.crash()
	a.do(func() {
		if err := Cleanup(dir, slog.New(slog.DiscardHandler)); err != nil {
			t.Error(err)
		}
	})
	if tables := a.nft("list", "tables"); strings.TrimSpace(tables) != "table inet operators" {
		t.Errorf("tables left by cleanup: %s", tables)
	}
}
