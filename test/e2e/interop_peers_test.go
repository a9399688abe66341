package e2e

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/xdirector/xdirector/test/lab"
)

// flavour is a way in which two routers can speak VRRP.
type flavour struct {
	name       string
	version    int
	ipv6       bool
	interval   time.Duration
	password   string
	unicast    bool
	virtualMAC bool
}

// addresses are the virtual ones, in the order of the adverts; the last one is watched.
func (f flavour) addresses() []netip.Addr {
	if f.ipv6 {
		return []netip.Addr{netip.MustParseAddr("fe80::77:100"), netip.MustParseAddr("fd77::100")}
	}
	return []netip.Addr{vipAddress}
}

func (f flavour) watched() netip.Addr { return f.addresses()[len(f.addresses())-1] }

// texts are the addresses with or without the length of their prefix.
func (f flavour) texts(prefix bool) []string {
	var list []string
	for _, a := range f.addresses() {
		text := a.String()
		if prefix {
			text = netip.PrefixFrom(a, a.BitLen()).String()
		}
		list = append(list, text)
	}
	return list
}

// own is the address that a node sends adverts from.
func (f flavour) own(n *lab.Node) netip.Addr {
	if f.ipv6 {
		return n.LinkLocal
	}
	return n.Address
}

// peer is one side of a virtual router: xdirector, keepalived or FRR.
type peer struct {
	name  string
	node  *lab.Node
	sent  *lab.Wire // what it sends
	start func() error
	stop  func() error // clean, with priority 0
	kill  func()
	// entered waits until the peer itself says that it went to a state, MASTER or BACKUP.
	entered func(state string) error
}

// maker makes a peer of the flavour and priority on a node; the other one is on node other.
type maker func(c *cluster, f flavour, n, other *lab.Node, priority uint8) peer

// announces waits for the gratuitous ARP or neighbour advertisement of a peer and returns how long it took.
func (c *cluster) announces(p peer, f flavour, from time.Time) time.Duration {
	c.t.Helper()
	a, err := p.sent.WaitAnnouncement(c.t.Context(), nil, f.watched(), from, patience)
	if err != nil {
		c.t.Fatalf("%s: %v", p.name, err)
	}
	return a.Time.Sub(from)
}

func (c *cluster) sent(n *lab.Node) *lab.Wire {
	c.t.Helper()
	w, err := n.CaptureSent(lab.IsVRRP)
	c.ok(err)
	return w
}

func xdirectorPeer(c *cluster, f flavour, n, other *lab.Node, priority uint8) peer {
	d := c.d[0]
	i := lab.Instance{Version: f.version, Priority: priority, Interval: f.interval, Password: f.password, Addresses: f.texts(true)}
	if f.unicast {
		i.More = append(i.More, fmt.Sprintf("unicast_peers: [%q]", f.own(other)))
	}
	if f.unicast && f.ipv6 {
		// keepalived before 2.3 sends these with the hop limit of any packet.
		i.More = append(i.More, "unicast_ttl: 64")
	}
	if f.virtualMAC {
		i.More = append(i.More, "virtual_mac: true")
	}
	c.ok(d.Configure(lab.Config{Instances: []lab.Instance{i}}))
	return peer{
		name: "xdirector", node: n, sent: c.sent(n), start: d.Start, stop: d.Stop, kill: d.Kill,
		entered: func(state string) error { return d.WaitState(c.t.Context(), "VI_1", state, patience) },
	}
}

func keepalivedPeer(c *cluster, f flavour, n, other *lab.Node, priority uint8) peer {
	k := lab.Keepalived{
		Version: f.version, VRID: 51, Priority: priority, Interval: f.interval, Password: f.password,
		Addresses: f.texts(true), VirtualMAC: f.virtualMAC,
	}
	if f.unicast {
		k.Peers = []netip.Addr{f.own(other)}
		k.More = []string{"unicast_src_ip " + f.own(n).String()}
	}
	var p *lab.Process
	c.showLog(func() *lab.Process { return p })
	return peer{
		name: "keepalived", node: n, sent: c.sent(n),
		start:   func() (err error) { p, err = n.StartKeepalived(k); return err },
		stop:    func() error { return p.Terminate(patience) },
		kill:    func() { p.Kill() },
		entered: c.logsLast(func() *lab.Process { return p }, "(VI_1) Entering %s STATE"),
	}
}

func frrPeer(c *cluster, f flavour, n, _ *lab.Node, priority uint8) peer {
	router := lab.FRR{Version: f.version, VRID: 51, Priority: priority, Interval: f.interval, Addresses: f.texts(false)}
	var p *lab.FRRouter
	process := func() *lab.Process { return p.Process() }
	c.showLog(func() *lab.Process {
		if p == nil {
			return nil
		}
		return process()
	})
	entered := c.logsLast(process, "-> %s")
	return peer{
		name: "FRR", node: n, sent: c.sent(n),
		start: func() (err error) { p, err = n.StartFRR(router); return err },
		stop:  func() error { return p.Stop(patience) },
		kill:  func() { p.Kill() },
		// It writes them as "Master" and "Backup".
		entered: func(state string) error { return entered(state[:1] + strings.ToLower(state[1:])) },
	}
}

// logsLast waits until the last state that a process has logged is the wanted one.
func (c *cluster) logsLast(process func() *lab.Process, format string) func(state string) error {
	prefix, suffix, _ := strings.Cut(format, "%s")
	return func(state string) error {
		return lab.Wait(c.t.Context(), patience, func() error {
			log := process().Log()
			at := strings.LastIndex(log, prefix)
			if at < 0 {
				return fmt.Errorf("%s has not logged a state", process().Name)
			}
			if !strings.HasPrefix(log[at+len(prefix):], state+suffix) {
				line, _, _ := strings.Cut(log[at:], "\n")
				return fmt.Errorf("%s last logged %q, want %s", process().Name, line, state)
			}
			return nil
		})
	}
}

// showLog prints what a process said, if the test fails.
func (c *cluster) showLog(process func() *lab.Process) {
	c.t.Cleanup(func() {
		if p := process(); c.t.Failed() && p != nil {
			lines := strings.SplitAfter(p.Log(), "\n")
			c.t.Logf("log of %s:\n%s", p.Name, strings.Join(lines[max(0, len(lines)-80):], ""))
		}
	})
}

// waitHolds waits until a node carries an address, or no longer does.
func (c *cluster) waitHolds(n *lab.Node, address netip.Addr, want bool) {
	c.t.Helper()
	c.ok(lab.Wait(c.t.Context(), patience, func() error {
		if got, err := n.Holds("", address); err != nil || got != want {
			return fmt.Errorf("%s holds %s: %v, want %v (%v)", n.Name, address, got, want, err)
		}
		return nil
	}))
}

func TestPeersFailOverBothWays(t *testing.T) {
	t.Parallel()
	v2 := flavour{name: "v2 with password", version: 2, interval: time.Second, password: "1111"}
	v2Plain := flavour{name: "v2", version: 2, interval: time.Second}
	v2Unicast := flavour{name: "v2 unicast", version: 2, interval: time.Second, unicast: true}
	v3 := flavour{name: "v3", version: 3, interval: interval}
	v3Unicast := flavour{name: "v3 unicast", version: 3, interval: interval, unicast: true}
	v3MAC := flavour{name: "v3 with virtual MAC", version: 3, interval: interval, virtualMAC: true}
	v6 := flavour{name: "IPv6", version: 3, interval: interval, ipv6: true}
	v6Unicast := flavour{name: "IPv6 unicast", version: 3, interval: interval, ipv6: true, unicast: true}
	v6MAC := flavour{name: "IPv6 with virtual MAC", version: 3, interval: interval, ipv6: true, virtualMAC: true}
	onPlanes(t, func(t *testing.T, _ string) {
		for _, run := range []struct {
			other   string
			make    maker
			flavour flavour
		}{
			{"keepalived", keepalivedPeer, v2},
			{"FRR", frrPeer, v2Plain},
			{"keepalived", keepalivedPeer, v2Unicast},
			{"keepalived", keepalivedPeer, v3},
			{"FRR", frrPeer, v3},
			{"FRR", frrPeer, v3MAC},
			{"keepalived", keepalivedPeer, v3Unicast},
			{"keepalived", keepalivedPeer, v3MAC},
			{"keepalived", keepalivedPeer, v6},
			{"FRR", frrPeer, v6},
			{"FRR", frrPeer, v6MAC},
			{"keepalived", keepalivedPeer, v6Unicast},
			{"keepalived", keepalivedPeer, v6MAC},
		} {
			for _, preferred := range []string{"xdirector", run.other} {
				t.Run(fmt.Sprintf("%s, %s, %s is preferred", run.other, run.flavour.name, preferred), func(t *testing.T) {
					t.Parallel()
					handToAndFro(t, run.flavour, run.make, preferred == "xdirector")
				})
			}
		}
	})
}

// handToAndFro lets a preferred peer and another one hand the addresses to and fro.
func handToAndFro(t *testing.T, f flavour, other maker, preferUs bool) {
	c := newCluster(t, "", 2, 0)
	ours, theirs := uint8(200), uint8(100)
	if !preferUs {
		ours, theirs = theirs, ours
	}
	first, second := c.lab.Directors[0], c.lab.Directors[1]
	preferred, reserve := xdirectorPeer(c, f, first, second, ours), other(c, f, second, first, theirs)
	if !preferUs {
		preferred, reserve = reserve, preferred
	}
	begin := time.Now()
	c.ok(reserve.start())
	c.announces(reserve, f, begin)
	c.ok(reserve.entered("MASTER"))

	step := func(what string, do func() error, winner peer) {
		t.Helper()
		from := time.Now()
		c.ok(do())
		took := c.announces(winner, f, from)
		t.Logf("%s: %s is MASTER after %v", what, winner.name, took)
	}
	step("the preferred one comes", preferred.start, preferred)
	c.ok(reserve.entered("BACKUP"))
	stopped := time.Now()
	step("clean stop", preferred.stop, reserve)
	// A director that was kept from running has given the addresses up before, and has nothing to say.
	stood := preferUs && strings.Contains(c.d[0].Log(), "this director stood still")
	if a := preferred.sent.Adverts(stopped); !stood && (len(a) == 0 || a[len(a)-1].Priority != 0) {
		t.Errorf("adverts of %s after its stop: %v, want priority 0 last", preferred.name, a)
	}
	step("it comes back", preferred.start, preferred)
	c.ok(reserve.entered("BACKUP"))
	step("killed", func() error { preferred.kill(); return nil }, reserve)
	step("it comes back after a crash", preferred.start, preferred)
	c.ok(reserve.entered("BACKUP"))
	c.waitHolds(preferred.node, f.watched(), true)
	if reserve.name != "FRR" { // which keeps the address on an interface without carrier
		c.waitHolds(reserve.node, f.watched(), false)
	}
	// The one that is not preferred stops without a word of the other.
	c.ok(reserve.stop())
}
