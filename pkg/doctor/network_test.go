package doctor_test

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/xdirector/xdirector/pkg/vrrp"
)

// advertise sends adverts to the multicast group, ten a second, until it is killed: SOURCE VERSION VRID INTERVAL ADDRESS...
func advertise(args []string) error {
	conn, err := net.ListenPacket("ip4:112", args[0])
	if err != nil {
		return err
	}
	version, err := strconv.ParseUint(args[1], 10, 8)
	if err != nil {
		return err
	}
	id, err := strconv.ParseUint(args[2], 10, 8)
	if err != nil {
		return err
	}
	a := vrrp.Advert{Version: uint8(version), VRID: uint8(id), Priority: 150, Checksum: vrrp.PseudoHeader}
	if a.Interval, err = time.ParseDuration(args[3]); err != nil {
		return err
	}
	for _, text := range args[4:] {
		a.Addresses = append(a.Addresses, netip.MustParseAddr(text))
	}
	group := netip.MustParseAddr("224.0.0.18")
	message := a.Append(nil, netip.MustParseAddr(args[0]), group)
	for tick, n := time.NewTicker(100*time.Millisecond), 0; ; n++ {
		<-tick.C
		if n == 1 {
			fmt.Println("speaking")
		}
		if _, err := conn.WriteTo(message, &net.IPAddr{IP: group.AsSlice()}); err != nil {
			return err
		}
	}
}

// speaks has a box send adverts until the test ends.
func (p *patient) speaks(t *testing.T, args ...string) {
	t.Helper()
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	begin(t, "send adverts", p.in(append([]string{binary, "advertise"}, args...)...))
}

// instance is one of version 3, fast enough not to be waited for long.
func instance(name, id, keys string) string {
	return fmt.Sprintf("    - {name: %s, interface: eth1, virtual_router_id: %s, version: 3, advert_interval: 100ms, %s}\n", name, id, keys)
}

func TestWhoElseIsInTheNetworkIsHeardAndDealtWith(t *testing.T) {
	t.Parallel()
	lb, server := ward(t, edited(t, "services:", instance("VI_HELD", "61", "virtual_addresses: [10.78.0.101]")+
		instance("VI_NUMBER", "62", "virtual_addresses: [10.78.0.102]")+instance("VI_OTHER", "63", "virtual_addresses: [10.78.0.103]")+
		instance("VI_VERSION", "64", "virtual_addresses: [10.78.0.104]")+instance("VI_PEERS", "65", "unicast_peers: [10.78.0.99], virtual_addresses: [10.78.0.105]")+
		instance("VI_GOOD", "66", "virtual_addresses: [10.78.0.106]")+instance("VI_6", "67", "virtual_addresses: [\"fe80::100\"]")+"services:"))
	stranger := admit(t)
	second(t, lb, stranger, "10.78.0.11/24")
	stranger.sh(t, "ip address add 10.78.0.12/24 dev eth1; ip route add 224.0.0.0/4 dev eth1")
	lb.args = append(lb.args, "-listen", "200ms")
	stranger.speaks(t, "10.78.0.12", "3", "66", "100ms", "10.78.0.106")
	stranger.sh(t, "ip address add 10.78.0.106/32 dev eth1") // the MASTER of an instance has its address
	lb.healthy(t)
	stranger.speaks(t, "10.78.0.12", "3", "62", "100ms", "10.99.0.1")
	stranger.speaks(t, "10.78.0.12", "3", "9", "100ms", "10.78.0.103")
	stranger.speaks(t, "10.78.0.12", "2", "64", "1s", "10.78.0.104")
	stranger.speaks(t, "10.78.0.12", "3", "65", "100ms", "10.78.0.105")
	stranger.sh(t, "ip address add 10.78.0.101/24 dev eth1; ip address add fe80::100/64 dev eth1 nodad")
	server.sh(t, "ip address add 10.77.0.100/32 dev lo")
	mac := strings.TrimSpace(must(t, stranger.in("cat", "/sys/class/net/eth1/address")))
	lb.cured(t, []ailment{
		{"", "real server 10.77.0.21 (", "printf"},
		{"", "10.78.0.101 is in use already, by a box with the MAC address " + mac, "ip address flush to 10.78.0.101/32"},
		{"", "fe80::100 is in use already", "ip address flush to fe80::100/128"},
		{"", "10.78.0.12 speaks as virtual router 62 on eth1, with other addresses (10.99.0.1)", "sed -i"},
		{"", "10.78.0.12 holds addresses of instance VI_OTHER as virtual router 9, not 63", "sed -i"},
		{"", "10.78.0.12 speaks VRRP version 2, instance VI_VERSION is of version 3", "sed -i"},
		{"", "10.78.0.12 is MASTER of instance VI_PEERS, and none of its unicast_peers", "sed -i"},
	}, map[string]*patient{"10.77.0.21": server, mac: stranger})
}

func TestMasterWithAnotherIntervalIsHeardAndFollowed(t *testing.T) {
	t.Parallel()
	lb, stranger := ward(t, file)
	stranger.sh(t, "ip address add 10.77.0.12/24 dev eth0; ip route add 224.0.0.0/4 dev eth0; ip address add 10.77.0.100/32 dev eth0")
	lb.args = append(lb.args, "-listen", "200ms")
	stranger.speaks(t, "10.77.0.12", "2", "51", "2s", "10.77.0.100")
	lb.cured(t, []ailment{{"", "the adverts of 10.77.0.12 say 2s, instance VI_1 has advert_interval: 1s", "sed -i"}}, nil)
}

func TestRealServerWhoseGatewayIsTheDirectorGetsTheRouter(t *testing.T) {
	t.Parallel()
	server, director := admit(t, "-real-server", "-vip", "10.77.0.100", "-gateway", "10.77.0.254", "-listen", "1s"), admit(t)
	connect(t, server, "eth0", director, "eth0")
	director.sh(t, "ip address add 10.77.0.11/24 dev eth0; ip route add 224.0.0.0/4 dev eth0; ip address add 10.77.0.12/32 dev eth0")
	server.sh(t, "ip address add 10.77.0.21/24 dev eth0; ip address add 10.77.0.100/32 dev lo; sysctl -w net.ipv4.conf.all.arp_ignore=1; sysctl -w net.ipv4.conf.all.arp_announce=2",
		"ip route add default via 10.77.0.254")
	director.speaks(t, "10.77.0.11", "3", "51", "100ms", "10.77.0.100")
	// By an address of its own that no advert tells: its MAC address does.
	server.cured(t, []ailment{{"ip route replace default via 10.77.0.12", "the default gateway 10.77.0.12 is the director", "ip route replace default via 10.77.0.254 dev eth0"}}, nil)
}
