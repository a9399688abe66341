package doctor_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// These tests change the modules of the kernel: one after another.

// cardOf finds the network card of a driver; VM_NICS says which are there.
func cardOf(t *testing.T, driver string) string {
	t.Helper()
	must(t, exec.Command("modprobe", driver))
	links, _ := filepath.Glob("/sys/class/net/*/device/driver") // the pattern is good
	for _, l := range links {
		if to, err := os.Readlink(l); err == nil && filepath.Base(to) == driver {
			return strings.Split(l, "/")[4]
		}
	}
	t.Fatalf("there is no card of %s: VM_NICS=\"e1000 vmxnet3\"", driver)
	return ""
}

func TestKernelCardsVLANsBondsAndModulesAreFoundAndCured(t *testing.T) {
	lb, other := ward(t, edited(t, "[eth0]", "[eth0, eth0.10, bond0, card]", "dataplane:", `  - name: mail
    address: 10.77.0.100
    port: 25
    scheduler: wlc
    forwarding: nat
    real_servers: [{address: 10.77.0.21}]
dataplane:`))
	must(t, exec.Command("modprobe", "-a", "ip_vs", "ip_vs_wlc"))
	connect(t, lb, "eth1", other, "eth1")
	must(t, exec.Command("ip", "link", "set", "dev", cardOf(t, "e1000"), "netns", lb.name, "name", "card"))
	lb.sh(t, "sysctl -w net.ipv4.ip_forward=1; sysctl -w net.ipv4.conf.all.send_redirects=0; for i in eth0 eth1 card; do sysctl -w net.ipv4.conf.$i.send_redirects=0; done; sysctl -w net.ipv4.conf.default.send_redirects=0",
		"ip link add link eth0 name eth0.10 type vlan id 10; ip link set eth0.10 up; ethtool -K eth0 rxvlan off",
		"ip link add bond0 type bond mode active-backup miimon 100; ip link set eth1 down; ip link set eth1 master bond0; ip link set bond0 up",
		"ip link set card up; ethtool -G card rx 4096")
	lb.cured(t, []ailment{
		{"ethtool -K eth0 rxvlan on", "the driver of eth0 takes VLAN tags off", "ethtool -K eth0 rxvlan off"},
		{"ip link set dev bond0 type bond miimon 0", "bond0 doesn't watch its links", "ip link set dev bond0 type bond miimon 100"},
		{"ethtool -G card rx 256", "the receive ring of card has 256 places of 4096", "ethtool -G card rx 4096"},
		{"modprobe -r ip_vs_wlc", "ip_vs_wlc not loaded", "printf"},
		{"ipvsadm -A -t 10.77.0.100:25 -s rr", "IPVS has a service tcp 10.77.0.100:25 that a director didn't make", "ipvsadm --delete-service --tcp-service 10.77.0.100:25"},
	}, nil)

	lb.sh(t, "sed -i 's/bond0/eth1/' config.yaml; ip link del eth0.10")
	for _, f := range lb.examine(t).Findings {
		switch f.What {
		case "eth1 is a member of bond0", "there is no interface eth0.10":
			lb.sh(t, f.Command)
		default:
			t.Errorf("found: %+v", f)
		}
	}
	lb.healthy(t)
}

func TestKernelLROAndRulesInFrontOfIPVSAreFoundAndCured(t *testing.T) {
	must(t, exec.Command("modprobe", "-a", "ip_vs", "ip_vs_rr"))
	lb, _ := ward(t, edited(t, "mode: auto", "mode: ipvs", "[eth0]", "[eth0, bond0]"))
	must(t, exec.Command("ip", "link", "set", "dev", cardOf(t, "vmxnet3"), "netns", lb.name, "name", "member"))
	lb.sh(t, "ethtool -K member lro off; ip link add bond0 type bond mode active-backup miimon 100; ip link set member master bond0; ip link set bond0 up")
	rules := lb.write(t, "rules", `table inet filter {
	chain input {
		type filter hook input priority filter; policy drop;
		iifname "lo" accept
		meta l4proto 112 accept
		ct state invalid drop
		ct state established,related accept
		ip daddr 10.77.0.100 tcp dport 80 ct state new accept
	}
}
`)
	lb.cured(t, []ailment{
		{"ethtool -K member lro on", "LRO is on on member", "ethtool -K member lro off"},
		{"nft -f " + rules, "nft inet filter input drops what conntrack calls invalid, in front of IPVS: rule inet filter input handle", "nft add table inet xdirector_notrack"},
	}, nil)
	lb.sh(t, "nft flush ruleset",
		"iptables -A INPUT -p tcp --dport 80 -j REJECT; iptables-legacy -A INPUT -m conntrack --ctstate INVALID -j DROP")
	lb.cured(t, []ailment{
		{"", "iptables -t filter INPUT drops what is for service web", "iptables -I INPUT -d 10.77.0.100 -p tcp --dport 80 -j ACCEPT"},
		{"", "iptables-legacy -t filter INPUT drops what conntrack calls invalid", "iptables-legacy -t raw -I PREROUTING -d 10.77.0.100 -p tcp --dport 80 -j CT --notrack"},
	}, nil)
}
