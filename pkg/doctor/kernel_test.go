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
	must(t, exec.Command("modprobe", "-a", "ip_vs", "ip_vs_rr", "ip_vs_wlc"))
	t.Cleanup(func() { _ = exec.Command("sysctl", "-w", "kernel.modprobe=/sbin/modprobe").Run() })
	connect(t, lb, "eth1", other, "eth1")
	must(t, exec.Command("ip", "link", "set", "dev", cardOf(t, "e1000"), "netns", lb.name, "name", "card"))
	lb.sh(t, "sysctl -w net.ipv4.ip_forward=1; sysctl -w net.ipv4.conf.all.send_redirects=0; for i in eth0 eth1 card; do sysctl -w net.ipv4.conf.$i.send_redirects=0; done; sysctl -w net.ipv4.conf.default.send_redirects=0",
		"ip link add link eth0 name eth0.10 type vlan id 10; ip link set eth0.10 up; ethtool -K eth0 rxvlan off",
		"ip link add bond0 type bond mode active-backup miimon 100; ip link set eth1 down; ip link set eth1 master bond0; ip link set bond0 up",
		"ip link set card up; ethtool -G card rx 4096")
	lb.cured(t, []ailment{
		{"sysctl -w net.ipv4.ip_forward=0", "service mail has forwarding: nat, and this box doesn't forward", "printf"},
		{"ethtool -K eth0 rxvlan on", "the driver of eth0 takes VLAN tags off", "ethtool -K eth0 rxvlan off"},
		{"ip link set dev bond0 type bond miimon 0", "bond0 doesn't watch its links", "ip link set dev bond0 type bond miimon 100"},
		{"ethtool -G card rx 256", "the receive ring of card has 256 places of 4096", "ethtool -G card rx 4096"},
		{"sysctl -w kernel.modprobe=; modprobe -r ip_vs_wlc", "ip_vs_wlc not loaded, and the kernel may not load modules by itself", "printf"},
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

func TestKernelNATOfIPv6AndBondsWithoutXDPAreFoundAndCured(t *testing.T) {
	must(t, exec.Command("modprobe", "-a", "ip_vs", "ip_vs_rr"))
	lb, other := ward(t, edited(t, "mode: auto", "mode: xdp-native", "[eth0]", "[eth0, bond0]", "dataplane:", `  - name: six
    address: fd77::100
    port: 80
    scheduler: rr
    forwarding: nat
    real_servers: [{address: "fd77::21"}]
dataplane:`))
	connect(t, lb, "eth1", other, "eth1")
	lb.sh(t, "sysctl -w net.ipv6.conf.all.forwarding=1",
		"ip link add bond0 type bond mode active-backup miimon 100; ip link set eth1 down; ip link set eth1 master bond0; ip link set bond0 up")
	lb.cured(t, []ailment{{"sysctl -w net.ipv6.conf.all.forwarding=0", "service six has forwarding: nat, and this box doesn't forward", "printf"}}, nil)
	lb.cured(t, []ailment{{"ip link set bond0 down; ip link set eth1 nomaster; ip link set dev bond0 type bond mode balance-tlb; ip link set eth1 down; ip link set eth1 master bond0; ip link set bond0 up",
		"bond0 is in mode balance-tlb, in which native XDP doesn't work", "sed -i"}}, nil)
}

// What the doctor says of conntrack in front of IPVS is what happens to a client.
func TestKernelConnectionThroughIPVSDiesByTheRuleAndLivesByTheCure(t *testing.T) {
	must(t, exec.Command("modprobe", "-a", "ip_vs", "ip_vs_rr", "bridge"))
	lb, server := admit(t), admit(t)
	network, client := admit(t), admit(t)
	network.sh(t, "ip link add br0 type bridge stp_state 0 forward_delay 0; ip link set br0 up")
	for name, p := range map[string]*patient{"10.77.0.11": lb, "10.77.0.21": server, "10.77.0.31": client} {
		port := "port" + name[len(name)-2:]
		connect(t, p, "eth0", network, port)
		network.sh(t, "ip link set "+port+" master br0")
		p.sh(t, "ip address add "+name+"/24 dev eth0")
	}
	server.sh(t, "sysctl -w net.ipv4.conf.all.arp_ignore=1; sysctl -w net.ipv4.conf.all.arp_announce=2; ip address add 10.77.0.100/32 dev lo")
	server.write(t, "nginx.conf", "daemon off; pid nginx.pid; error_log stderr; events {}\nhttp { access_log off; server { listen 80; location / { return 200 served; } } }\n")
	begin(t, "serve", server.in("sh", "-c", "echo up; exec nginx -c $PWD/nginx.conf -p $PWD"))
	lb.sh(t, "ip address add 10.77.0.100/32 dev eth0; ipvsadm -A -t 10.77.0.100:80 -s rr; ipvsadm -a -t 10.77.0.100:80 -r 10.77.0.21 -g")
	lb.args = []string{"-config", lb.write(t, "config.yaml", strings.ReplaceAll(edited(t, "mode: auto", "mode: ipvs"), "BOX", lb.dir))}
	const request = "[ $(curl -s --max-time 5 http://10.77.0.100/) = served ]"
	const open = "ss -Htn state established sport = :80 | grep -q ."
	client.until(t, request)

	for _, c := range []struct{ rules, where, more, why string }{
		{"nft 'add table inet filter; add chain inet filter input { type filter hook input priority 0; }; add rule inet filter input ct state invalid drop'", "nft inet filter input",
			"", "those that end one"},
		{"iptables -A INPUT -m conntrack --ctstate INVALID -j DROP", "iptables -t filter INPUT",
			"", "those that end one"},
		{"iptables -A INPUT -m conntrack --ctstate INVALID -j DROP", "iptables -t filter INPUT",
			"sysctl -w net.netfilter.nf_conntrack_tcp_loose=0", "none is made"},
		{"iptables -A INPUT -m conntrack --ctstate INVALID -j DROP", "iptables -t filter INPUT",
			"sysctl -w net.ipv4.vs.conntrack=1", "none is made"},
	} {
		server.until(t, "! "+open)
		lb.sh(t, c.rules, c.more)
		if c.more == "" {
			client.sh(t, request)
			client.until(t, "ss -Htn state fin-wait-1 dport = :80 | grep -q .") // it has ended the connection
			server.sh(t, open)                                                  // and the server never hears of it
		} else {
			client.sh(t, "! "+request)
		}
		cures := 0
		for _, f := range lb.examine(t).Findings {
			if strings.HasPrefix(f.What, c.where+" drops what conntrack calls invalid, in front of IPVS") && strings.Contains(f.Why, c.why) {
				lb.sh(t, f.Command)
				cures++
			}
		}
		if cures != 1 {
			t.Fatalf("%d cures for %s, %s", cures, c.rules, c.more)
		}
		server.sh(t, "ss -K sport = :80")
		client.sh(t, request)
		server.until(t, "! "+open)
		for _, f := range lb.examine(t).Findings {
			if strings.Contains(f.What, "conntrack") {
				t.Errorf("cured, and still found: %+v", f)
			}
		}
		lb.sh(t, "nft flush ruleset; sysctl -w net.netfilter.nf_conntrack_tcp_loose=1 net.ipv4.vs.conntrack=0; conntrack -F 2>/dev/null || true")
	}
}
