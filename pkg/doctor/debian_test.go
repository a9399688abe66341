package doctor_test

import (
	"os/exec"
	"strings"
	"testing"
	"time"
)

// These tests have what other Debian packages have, as they are: unpacked where only the box sees it, and running there.
// The packages are downloaded, so this is for `make test-long`.

// furnish gives a box the files of Debian packages, and folders of its own that programs write to.
func (p *patient) furnish(t *testing.T, packages ...string) {
	t.Helper()
	archive := strings.TrimSpace(must(t, exec.Command("../../tools/debs", packages...)))
	t.Cleanup(func() { // what was started here, by D-Bus or by itself, ends here
		_ = exec.Command("sh", "-c", "ip netns pids "+p.name+" | xargs -r kill -9").Run()
	})
	p.sh(t, `cd $PWD; mkdir over; mount -t tmpfs none over
for d in usr etc var; do
	mkdir over/$d over/$d.work
	mount -t overlay -o lowerdir=/$d,upperdir=$PWD/over/$d,workdir=$PWD/over/$d.work none /$d
done
mount -t tmpfs none /run; mkdir -p /run/dbus /run/lock
mount -o remount,ro /sys # so that nobody waits for udev
tar -x -C / --keep-directory-symlink -f `+archive)
}

// until runs a line on the box again and again until it succeeds.
func (p *patient) until(t *testing.T, line string) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; {
		out, err := p.in("sh", "-c", line).CombinedOutput()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s: %v: %s", line, err, out)
		}
	}
}

// foreign puts an address on eth0 as a director does.
const foreign = "ip address replace 10.77.0.100/32 dev eth0 valid_lft 600 preferred_lft 600"

const isThere = "ip address show dev eth0 | grep -qF 10.77.0.100/32"

// without is a director whose addresses nobody checks: that they are here is part of the test.
const without = "vrrp: {instances: [{name: VI_1, interface: eth0, virtual_router_id: 51, virtual_addresses: [10.77.0.200]}]}\n"

func TestDebianNetworkManagerIsToldToLeaveTheInterfaceAlone(t *testing.T) {
	t.Parallel()
	lb, _ := ward(t, without)
	lb.furnish(t, "network-manager")
	lb.sh(t, `file=/etc/NetworkManager/system-connections/eth0.nmconnection
printf '[connection]\nid=eth0\ntype=ethernet\ninterface-name=eth0\n[ipv4]\nmethod=manual\naddress1=10.77.0.11/24\n[ipv6]\nmethod=link-local\n' >$file; chmod 600 $file
dbus-daemon --system --fork >/dev/null; NetworkManager`)
	lb.until(t, "nmcli connection up eth0")
	lb.sh(t, foreign, "nmcli connection up eth0", "! "+isThere) // which is why
	lb.cured(t, []ailment{{"", "NetworkManager manages eth0", "printf"}}, nil)
	lb.sh(t, foreign, "kill $(cat /run/NetworkManager/NetworkManager.pid)")
	lb.until(t, "! nmcli -t general")
	lb.until(t, "NetworkManager; nmcli -t device | grep -q eth0:ethernet:unmanaged")
	lb.sh(t, isThere, "ip address show dev eth0 | grep -qF 10.77.0.11/24")
	lb.healthy(t)
}

func TestDebianConnManLeavesTheBox(t *testing.T) {
	t.Parallel()
	lb, _ := ward(t, without)
	lb.furnish(t, "connman")
	lb.sh(t, "ip route add default via 10.77.0.1", foreign, "dbus-daemon --system --fork >/dev/null; mkdir -p /var/lib/connman; connmand")
	lb.until(t, "! "+isThere) // which is why
	lb.sh(t, "ip link set eth0 up; ip address replace 10.77.0.11/24 dev eth0; ip route replace default via 10.77.0.1")
	lb.cured(t, []ailment{{"", "ConnMan manages the network of this box", "kill "}}, nil)
	lb.sh(t, "ip route show default | grep -q 'via 10.77.0.1 dev eth0'")
}

func TestDebianDHClientIsReplacedByItsAddress(t *testing.T) {
	t.Parallel()
	lb, router := ward(t, without)
	router.furnish(t, "isc-dhcp-client", "dnsmasq-base")
	router.sh(t, "ip address add 10.77.0.1/24 dev eth0", "dnsmasq --port=0 --dhcp-range=10.77.0.50,10.77.0.50,255.255.255.0 --dhcp-option=3,10.77.0.1 --dhcp-leasefile=/run/leases --pid-file=/run/dnsmasq.pid --user=root")
	lb.furnish(t, "isc-dhcp-client", "dnsmasq-base")
	lb.sh(t, `mkdir -p /etc/network; printf 'auto eth0\niface eth0 inet dhcp\n' >/etc/network/interfaces`,
		"ip address del 10.77.0.11/24 dev eth0", "dhclient -4 -q -pf /run/dhclient.pid -lf /run/dhclient.leases eth0",
		foreign, "dhclient -4 -q -r -pf /run/dhclient.pid -lf /run/dhclient.leases eth0", "! "+isThere, // which is why
		"dhclient -4 -q -pf /run/dhclient.pid -lf /run/dhclient.leases eth0", foreign)
	lb.cured(t, []ailment{{"", "dhclient has the address of eth0 leased", "sed -i"}}, nil)
	lb.sh(t, isThere, "ip address show dev eth0 | grep -qF 10.77.0.50/24", "ip route show default | grep -q 'via 10.77.0.1 dev eth0'")
	want := "auto eth0\niface eth0 inet static\n    address 10.77.0.50/24\n    gateway 10.77.0.1\n"
	if got := must(t, lb.in("cat", "/etc/network/interfaces")); got != want {
		t.Errorf("configured for the next boot: %q, want %q", got, want)
	}
}

// What dhcpcd does not remove needs no cure.
func TestDebianDHCPCDLeavesForeignAddressesAlone(t *testing.T) {
	t.Parallel()
	lb, _ := ward(t, without)
	lb.furnish(t, "dhcpcd-base")
	lb.sh(t, foreign, `printf 'interface eth0\nstatic ip_address=10.77.0.11/24\n' >/etc/dhcpcd.conf`, "ip address del 10.77.0.11/24 dev eth0", "dhcpcd -q eth0")
	const own = "ip address show dev eth0 | grep -qF 10.77.0.11/24"
	lb.until(t, own)
	lb.sh(t, isThere, "dhcpcd -q -x eth0")
	lb.until(t, "! "+own)
	lb.sh(t, "dhcpcd -q eth0")
	lb.until(t, own)
	lb.sh(t, isThere)
	lb.healthy(t)
}

func TestDebianFirewalldIsOpenedByItsOwnCommands(t *testing.T) {
	t.Parallel()
	lb, server := ward(t, file)
	for _, p := range []*patient{lb, server} {
		p.furnish(t, "firewalld")
		// The link is what the package's installation makes.
		p.sh(t, "cd /usr/share/polkit-1/actions; ln -s org.fedoraproject.FirewallD1.server.policy.choice org.fedoraproject.FirewallD1.policy",
			"dbus-daemon --system --fork >/dev/null; firewalld")
		p.until(t, "firewall-cmd --state")
	}
	lb.sh(t, "firewall-cmd --zone=internal --add-interface=eth0", "firewall-cmd --permanent --zone=internal --add-interface=eth0")
	lb.cured(t, []ailment{{"", "nft inet firewalld filter_INPUT drops VRRP", "firewall-cmd --permanent --zone=internal --add-protocol=vrrp && firewall-cmd --reload"}}, nil)

	server.args = []string{"-real-server", "-vip", "10.77.0.100", "-port", "80"}
	server.sh(t, "ip address add 10.77.0.100/32 dev lo; sysctl -w net.ipv4.conf.all.arp_ignore=1; sysctl -w net.ipv4.conf.all.arp_announce=2")
	server.cured(t, []ailment{{"", "nft inet firewalld filter_INPUT drops what is for 10.77.0.100", "firewall-cmd --permanent --add-rich-rule="}}, nil)
}
