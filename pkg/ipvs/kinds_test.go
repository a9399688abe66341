package ipvs

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/xdirector/xdirector/pkg/lb"
)

// kinds are services of every kind that IPVS has, with what the kernel shows of each.
func kinds() (services []lb.Service, shows map[lb.ServiceKey][]string) {
	shows = map[lb.ServiceKey][]string{}
	six := netip.MustParseAddr("2001:db8::100")
	add := func(s lb.Service, show ...string) {
		s.Name = fmt.Sprint("s", len(services))
		services = append(services, s)
		shows[s.Key] = show
	}
	server6 := lb.RealServer{Address: netip.MustParseAddr("2001:db8::3"), Port: 80, Weight: 1, Up: true, NextHop: hop}
	for n, scheduler := range []lb.Scheduler{lb.RoundRobin, lb.WeightedRoundRobin, lb.LeastConnection, lb.WeightedLeastConnection, lb.SourceHashing, lb.MaglevHashing} {
		key := lb.ServiceKey{Address: six, Port: uint16(8000 + n), Protocol: lb.TCP}
		add(lb.Service{Key: key, Scheduler: scheduler, RealServers: []lb.RealServer{server6}}, string(scheduler)+" 0s", "2001:db8::3 DirectRoute 1")
	}
	far := server(3, 2)
	far.Port, far.NextHop = 8080, lb.NextHop{} // behind a router, so there is no next hop
	nat := service(tcpKey, lb.WeightedLeastConnection, far)
	nat.Forwarding = lb.NAT
	add(nat, "wlc 0s", "10.77.0.3 Masquerade 2")
	tunnel := service(udpKey, lb.RoundRobin, far)
	tunnel.Forwarding = lb.Tunnel
	add(tunnel, "rr 0s", "10.77.0.3 Tunnel 2")
	add(service(lb.ServiceKey{Address: tcpKey.Address, Port: 80, Protocol: lb.SCTP}, lb.RoundRobin, server(3, 1)), "rr 0s", "10.77.0.3 DirectRoute 1")
	all := service(lb.ServiceKey{Address: otherKey.Address, Protocol: lb.TCP}, lb.RoundRobin, server(3, 1))
	all.Persistence, all.PersistenceBits = time.Minute, 24
	add(all, "rr 1m0s", "10.77.0.3 DirectRoute 1")
	full := server(3, 1)
	full.MaxConnections = 1000
	add(service(lb.ServiceKey{Address: otherKey.Address, Port: 8888, Protocol: lb.TCP}, lb.RoundRobin, full), "rr 0s", "10.77.0.3 DirectRoute 1, thresholds 1000 1000")
	mark := service(lb.MarkKey(7, false), lb.MaglevHashing, server(3, 1))
	mark.Persistence = time.Second
	add(mark, "mh 1s", "10.77.0.3 DirectRoute 1")
	mark6 := service(lb.MarkKey(7, true), lb.SourceHashing, server6)
	mark6.Persistence, mark6.PersistenceBits = time.Hour, 64
	add(mark6, "sh 1h0m0s", "2001:db8::3 DirectRoute 1")
	return services, shows
}

func TestEveryKindOfServiceIsMadeOnceAndTakenOverAndRemoved(t *testing.T) {
	onEach(t, func(t *testing.T, k *watched) {
		file := stateFile(t)
		p := opened(t, k, file)
		services, shows := kinds()
		apply(t, p, services...)
		for key, want := range shows {
			same(t, key.String(), shown(t, k, key), want)
		}
		k.taken()
		apply(t, p, services...)
		same(t, "writes of the second Apply", k.taken(), nil)
		p = opened(t, k, file)
		apply(t, p, services...)
		same(t, "writes of the next director", k.taken(), nil)

		wider := services[len(services)-1]
		wider.PersistenceBits = 48
		apply(t, p, append(services[:len(services)-1:len(services)-1], wider)...)
		if writes := k.taken(); len(writes) != 1 || !strings.HasPrefix(writes[0], "update ") {
			t.Errorf("writes for another prefix of persistence: %q", writes)
		}
		if err := p.Remove(); err != nil {
			t.Fatal(err)
		}
		if found, err := read(k); err != nil || len(found.services) > 0 {
			t.Errorf("after Remove: %v, %v", found, err)
		}
	})
}

func TestNATWithoutForwardingOnThisBoxIsADifference(t *testing.T) {
	onEach(t, func(t *testing.T, k *watched) {
		p := opened(t, k, stateFile(t))
		web := service(tcpKey, lb.RoundRobin, server(3, 1))
		web.Forwarding = lb.NAT
		apply(t, p, web)
		if got := strings.Join(p.Differences(), "\n"); !strings.Contains(got, "sysctl -w net.ipv4.ip_forward=1") {
			t.Errorf("differences %q", got)
		}
		for _, write := range k.taken() {
			if strings.Contains(write, "forward") {
				t.Errorf("the box was made a router: %s", write)
			}
		}
		if err := k.kernel.Set("net.ipv4.ip_forward", "1"); err != nil {
			t.Fatal(err)
		}
		apply(t, p, web)
		same(t, "differences", p.Differences(), nil)
	})
}

func TestForeignServicesOfEveryKindAreNamedAsIpvsadmHasThem(t *testing.T) {
	address := netip.MustParseAddr("2001:db8::1")
	for want, key := range map[string]lb.ServiceKey{
		"ipvsadm -D -t 10.77.0.100:80":                   tcpKey,
		"ipvsadm -D -u 10.77.0.100:53":                   udpKey,
		"ipvsadm -D --sctp-service [2001:db8::1]:9":      {Address: address, Port: 9, Protocol: lb.SCTP},
		"ipvsadm -D -f 7":                                lb.MarkKey(7, false),
		"ipvsadm -D -f 7 -6":                             lb.MarkKey(7, true),
		"(tcp [2001:db8::1]:0): exists already and":      {Address: address, Protocol: lb.TCP},
		"ipvsadm -D -t [2001:db8::1]:0":                  {Address: address, Protocol: lb.TCP},
		"(fwmark 7 ipv6): exists already and is not our": lb.MarkKey(7, true),
	} {
		wantError(t, foreignError(service(key, lb.RoundRobin)), want)
	}
}

// run executes a command on a box.
func (b *box) run(command string) {
	b.t.Helper()
	b.must(command, func() error {
		words := strings.Fields(command)
		if out, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
}

func (b *box) set(setting, value string) {
	b.t.Helper()
	b.must("set "+setting, func() error { return os.WriteFile(filepath.Join("/proc/sys/net", setting), []byte(value), 0) })
}

// names asks n times at another place than usual, and returns who answered.
func (l *lan) names(t *testing.T, n int, network, local, to string) (names string) {
	t.Helper()
	for range n {
		c, err := l.dialTo(network, local, to)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		names += answer(t, c)
	}
	return names
}

func TestKernelLeastConnectionFollowsOpenConnectionsAndWeights(t *testing.T) {
	for scheduler, want := range map[lb.Scheduler][2]int{lb.LeastConnection: {4, 4}, lb.WeightedLeastConnection: {6, 2}} {
		t.Run(string(scheduler), func(t *testing.T) {
			l := newLAN(t, 2)
			p := l.openOn(t)
			l.apply(t, p, service(tcpKey, scheduler, real(1, 3), real(2, 1)))
			got := l.names(t, 8, "tcp4", anyPort, vip+":80")
			if n := strings.Count(got, "1"); n != want[0] {
				t.Errorf("open connections %s: %d at real server 1, want %d", got, n, want[0])
			}
		})
	}
}

func TestKernelNATChangesThePortAndAnswersComeBack(t *testing.T) {
	l := newLAN(t, 2)
	l.director.set("ipv4/ip_forward", "1")
	l.director.set("ipv4/conf/all/send_redirects", "0")
	l.director.set("ipv4/conf/eth0/send_redirects", "0")
	web := service(tcpKey, lb.RoundRobin, real(1, 1), real(2, 1))
	web.Forwarding = lb.NAT
	for i, b := range l.servers {
		b.run("ip route add 10.77.0.1/32 via " + director)
		b.serveAt(byte('a'+i), "tcp4", fmt.Sprintf("10.77.0.%d:8080", 21+i))
		web.RealServers[i].Port, web.RealServers[i].NextHop = 8080, lb.NextHop{}
	}
	p := l.openOn(t)
	l.apply(t, p, web)
	if got := l.names(t, 4, "tcp4", anyPort, vip+":80"); got != "abab" && got != "baba" {
		t.Errorf("real servers %s, want a and b in turn", got)
	}
	if got := p.Differences(); len(got) > 0 {
		t.Errorf("differences %q", got)
	}
	c, err := p.Counters()
	if err != nil {
		t.Fatal(err)
	}
	if got := c.RealServers[lb.ServerKey{Service: tcpKey, Address: real(1, 1).Address}]; got.Flows != 2 {
		t.Errorf("counters %+v, want 2 flows", got)
	}
}

func TestKernelTunnelReachesTheRealServer(t *testing.T) {
	for _, module := range []string{"ipip"} {
		if out, err := exec.Command("modprobe", module).CombinedOutput(); err != nil {
			t.Fatalf("modprobe %s: %v: %s", module, err, out)
		}
	}
	l := newLAN(t, 1)
	l.servers[0].must("set tunl0 up", func() error { return netlink.LinkSetUp(link("tunl0")) })
	var packets received
	packets.watch(l.servers[0], "tunl0")
	web := service(tcpKey, lb.RoundRobin, real(1, 1))
	web.Forwarding, web.RealServers[0].NextHop = lb.Tunnel, lb.NextHop{}
	l.apply(t, l.openOn(t), web)
	if got := l.names(t, 2, "tcp4", anyPort, vip+":80"); got != "11" {
		t.Errorf("real servers %s", got)
	}
	if packets.since(t) == 0 {
		t.Error("nothing came through the tunnel")
	}
}

// received counts how many packets a link of a box has received.
type received struct {
	b      *box
	name   string
	before uint64
}

func (c *received) read() (n uint64) {
	c.b.must("count packets", func() error { n = link(c.name).Attrs().Statistics.RxPackets; return nil })
	return n
}

func (c *received) watch(b *box, name string) { c.b, c.name = b, name; c.before = c.read() }

func (c *received) since(t *testing.T) uint64 { t.Helper(); return c.read() - c.before }

func TestKernelFirewallMarkJoinsPortsForAClient(t *testing.T) {
	l := newLAN(t, 3)
	for i, b := range l.servers {
		b.serveAt(byte('1'+i), "tcp4", vip+":443")
	}
	l.director.run("nft add table ip marks")
	l.director.run("nft add chain ip marks in { type filter hook prerouting priority mangle ; }")
	l.director.run("nft add rule ip marks in ip daddr " + vip + " tcp dport { 80, 443 } meta mark set 7")
	shop := service(lb.MarkKey(7, false), lb.RoundRobin, real(1, 1), real(2, 1), real(3, 1))
	shop.Persistence = time.Minute
	l.apply(t, l.openOn(t), shop)
	first := l.names(t, 2, "tcp4", "10.77.0.1:0", vip+":80") + l.names(t, 2, "tcp4", "10.77.0.1:0", vip+":443")
	other := l.names(t, 2, "tcp4", "10.77.0.2:0", vip+":443")
	if strings.Trim(first, first[:1]) != "" || strings.Trim(other, other[:1]) != "" || first[0] == other[0] {
		t.Errorf("one client got %s, another one %s; want one real server for all ports of each", first, other)
	}
}

func TestKernelAllPortsWithAPrefixOfClients(t *testing.T) {
	l := newLAN(t, 3)
	for i, b := range l.servers {
		b.serveAt(byte('1'+i), "tcp4", vip+":443")
	}
	all := service(lb.ServiceKey{Address: tcpKey.Address, Protocol: lb.TCP}, lb.RoundRobin, real(1, 1), real(2, 1), real(3, 1))
	all.Persistence, all.PersistenceBits = time.Minute, 24
	l.apply(t, l.openOn(t), all)
	got := l.names(t, 2, "tcp4", "10.77.0.1:0", vip+":80") + l.names(t, 2, "tcp4", "10.77.0.2:0", vip+":443")
	if strings.Trim(got, got[:1]) != "" {
		t.Errorf("clients of one network got %s, want one real server", got)
	}
}

func TestKernelIPv6ServiceServesInTurn(t *testing.T) {
	const vip6 = "fd77::100"
	l := newLAN(t, 2)
	six := func(b *box, device, address string) {
		b.must("add "+address, func() error {
			a, err := netlink.ParseAddr(address)
			if err != nil {
				return err
			}
			a.Flags = unix.IFA_F_NODAD
			return netlink.AddrAdd(link(device), a)
		})
	}
	six(l.client, "eth0", "fd77::1/64")
	six(l.director, "eth0", "fd77::11/64")
	six(l.director, "eth0", vip6+"/128")
	web := lb.Service{Name: "web6", Key: lb.ServiceKey{Address: netip.MustParseAddr(vip6), Port: 80, Protocol: lb.TCP}, Scheduler: lb.RoundRobin}
	for i, b := range l.servers {
		own := fmt.Sprintf("fd77::%d", 21+i)
		six(b, "eth0", own+"/64")
		six(b, "lo", vip6+"/128")
		b.serveAt(byte('1'+i), "tcp6", net.JoinHostPort(vip6, "80"))
		web.RealServers = append(web.RealServers, lb.RealServer{Address: netip.MustParseAddr(own), Port: 80, Weight: 1, Up: true, NextHop: hop})
	}
	l.apply(t, l.openOn(t), web)
	if got := l.names(t, 4, "tcp6", "[fd77::1]:0", net.JoinHostPort(vip6, "80")); got != "1212" && got != "2121" {
		t.Errorf("real servers %s, want them in turn", got)
	}
}

// Go has no sockets for SCTP, so these are the kernel's own.
func TestKernelSCTPAssociationReachesTheRealServer(t *testing.T) {
	if out, err := exec.Command("modprobe", "sctp").CombinedOutput(); err != nil {
		t.Fatalf("modprobe sctp: %v: %s", err, out)
	}
	l := newLAN(t, 1)
	address := &unix.SockaddrInet4{Port: 80, Addr: netip.MustParseAddr(vip).As4()}
	var listener int
	l.servers[0].must("listen", func() (err error) {
		if listener, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_SCTP); err != nil {
			return err
		}
		if err := unix.Bind(listener, address); err != nil {
			return err
		}
		return unix.Listen(listener, 1)
	})
	defer unix.Close(listener)
	key := lb.ServiceKey{Address: tcpKey.Address, Port: 80, Protocol: lb.SCTP}
	p := l.openOn(t)
	l.apply(t, p, service(key, lb.RoundRobin, real(1, 1)))
	l.client.must("connect", func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_SCTP)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		patience := unix.NsecToTimeval(limit.Nanoseconds())
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &patience); err != nil {
			return err
		}
		return unix.Connect(fd, address)
	})
	c, err := p.Counters()
	if err != nil {
		t.Fatal(err)
	}
	if got := c.RealServers[lb.ServerKey{Service: key, Address: real(1, 1).Address}]; got.Flows != 1 {
		t.Errorf("counters %+v, want 1 flow", got)
	}
}
