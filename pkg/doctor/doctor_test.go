package doctor_test

import (
	"os"
	"strings"
	"testing"
)

// file is the configuration of the boxes of these tests: PINS and BOX are replaced, MORE by keys of the instance.
const file = `vrrp:
  instances:
    - name: VI_1
      interface: eth0
      virtual_router_id: 51
      virtual_addresses: [10.77.0.100]
services:
  - name: web
    address: 10.77.0.100
    port: 80
    scheduler: rr
    check: {type: tcp, port: 8080}
    real_servers: [{address: 10.77.0.21}]
dataplane: {pin_path: BOX/pins, mode: auto, interfaces: [eth0]}
state_dir: BOX
control: {socket: BOX/socket}
`

// edited replaces pairs of texts in the file.
func edited(t *testing.T, pairs ...string) string {
	t.Helper()
	for n := 0; n < len(pairs); n += 2 {
		if !strings.Contains(file, pairs[n]) {
			t.Fatalf("%q is not in the file", pairs[n])
		}
	}
	return strings.NewReplacer(pairs...).Replace(file)
}

// ward is a director with a configuration and eth0 in 10.77.0.0/24, and a real server in that network.
func ward(t *testing.T, text string) (lb, server *patient) {
	t.Helper()
	lb, server = admit(t), admit(t)
	connect(t, lb, "eth0", server, "eth0")
	lb.sh(t, "ip address add 10.77.0.11/24 dev eth0", "mkdir pins; mount -t bpf none pins")
	server.sh(t, "ip address add 10.77.0.21/24 dev eth0")
	lb.args = []string{"-config", lb.write(t, "config.yaml", strings.ReplaceAll(text, "BOX", lb.dir))}
	return lb, server
}

// addresses gives eth0 and eth1 an address each, and waits for nothing.
func second(t *testing.T, lb, other *patient, address string) {
	t.Helper()
	connect(t, lb, "eth1", other, "eth1")
	lb.sh(t, "ip address add "+address+" dev eth1")
}

func TestSettingsOfTheKernelAreFoundAndCured(t *testing.T) {
	t.Parallel()
	lb, other := ward(t, edited(t, "services:", `    - {name: VI_6, interface: eth0, virtual_router_id: 51, virtual_addresses: ["fe80::100", "fd77::100"]}
services:`, "interfaces: [eth0]", "interfaces: [eth0, eth1]"))
	second(t, lb, other, "10.78.0.11/24")
	lb.cured(t, []ailment{
		{"sysctl -w net.ipv4.conf.eth0.rp_filter=1", "rp_filter of eth0 is 1 (strict)", "printf"},
		{"sysctl -w net.ipv4.ip_forward=1", "send_redirects of eth0 is 1 on a box that forwards", "printf"},
		{"", "send_redirects of eth1 is 1", "printf"},
		{"sysctl -w net.ipv6.conf.eth0.disable_ipv6=1", "IPv6 is switched off on eth0", "printf"},
		{"ip address add 10.77.0.12/24 dev eth1", "and eth0 answers ARP for the addresses of all interfaces", "printf"},
		{"", "and eth1 answers ARP", "printf"},
	}, nil)
}

func TestDirectorThatIsARealServerTooMustBeQuiet(t *testing.T) {
	t.Parallel()
	lb, _ := ward(t, file)
	lb.cured(t, []ailment{
		{"ip address add 10.77.0.100/32 dev lo", "arp_ignore of eth0 is 0, with 10.77.0.100 on lo", "printf"},
		{"", "arp_announce of eth0 is 0, with 10.77.0.100 on lo", "printf"},
	}, nil)
	// A cure outlives a reboot.
	kept := must(t, lb.in("cat", "/etc/sysctl.d/90-xdirector.conf"))
	if want := "net/ipv4/conf/all/arp_ignore=1\nnet/ipv4/conf/all/arp_announce=2\n"; kept != want {
		t.Errorf("kept for the next boot: %q, want %q", kept, want)
	}
}

func TestInterfacesAreFoundAndCured(t *testing.T) {
	t.Parallel()
	lb, other := ward(t, edited(t, "interfaces: [eth0]", "interfaces: [eth0, eth1]"))
	second(t, lb, other, "10.78.0.11/24")
	lb.cured(t, []ailment{
		{"ip link set eth0 multicast off", "eth0 takes no multicast", "ip link set dev eth0 multicast on"},
		{"ip link set eth1 mtu 1400", "the MTU of eth1 is 1400, that of eth0 is 1500", "ip link set dev eth1 mtu 1500"},
		{"ethtool -L eth1 tx 2", "eth1 spreads packets over 1 of 2 possible receive queues", "ethtool -L eth1 rx 2"},
	}, nil)
	lb.cured(t, []ailment{{"ip link set eth1 down", "eth1 is down", "ip link set dev eth1 up"}}, nil)
}

func TestInterfaceOfTheConfigurationThatIsMissingIsNamedAnew(t *testing.T) {
	t.Parallel()
	lb, _ := ward(t, file)
	lb.cured(t, []ailment{{"sed -i s/eth0/ens3/ config.yaml", "there is no interface ens3", "sed -i"}}, nil)
}

func TestInterfaceThatIsMissingAmongSeveralIsLeftToWhoKnows(t *testing.T) {
	t.Parallel()
	lb, other := ward(t, strings.ReplaceAll(file, "eth0", "ens3"))
	second(t, lb, other, "10.78.0.11/24")
	r := lb.examine(t)
	if len(r.Findings) != 1 || r.Findings[0].What != "there is no interface ens3" || !strings.Contains(r.Findings[0].Why, "NAME is the one that is meant: eth") {
		t.Fatalf("findings: %+v", r.Findings)
	}
	lb.sh(t, strings.Replace(r.Findings[0].Command, "NAME", "eth0", 1))
	lb.healthy(t)
}

func TestInterfaceWithoutALinkLocalAddressGetsOne(t *testing.T) {
	t.Parallel()
	lb, _ := ward(t, edited(t, "services:", `    - {name: VI_6, interface: eth0, virtual_router_id: 51, virtual_addresses: ["fe80::100"]}
services:`))
	lb.cured(t, []ailment{{"ip link set dev eth0 addrgenmode none; ip -6 address flush dev eth0", "eth0 has no link-local address", "ip address add fe80::"}}, nil)
}

// toInstall wants one finding, whose cure apt would do; the command is returned.
func (p *patient) toInstall(t *testing.T, what string) string {
	t.Helper()
	r := p.examine(t)
	if len(r.Findings) != 1 || !strings.HasPrefix(r.Findings[0].What, what) {
		t.Fatalf("findings: %+v", r.Findings)
	}
	install, _ := strings.CutSuffix(r.Findings[0].Command, " && reboot")
	if !strings.HasPrefix(install, "apt-get install ") {
		t.Fatalf("cure: %s", r.Findings[0].Command)
	}
	p.sh(t, strings.Replace(install, "install", "install --simulate -o Debug::NoLocking=true", 1))
	return r.Findings[0].Command
}

func TestMissingToolIsFoundAndWhatItWouldHaveSaidIsTold(t *testing.T) {
	t.Parallel()
	lb, _ := ward(t, file)
	lb.healthy(t)
	lb.sh(t, "touch no; mount --bind $PWD/no $(readlink -f $(command -v ip))")
	lb.toInstall(t, "the command ip (iproute2) is missing")
	r := lb.examine(t)
	if len(r.Skipped) < 5 {
		t.Errorf("not looked at: %+v", r.Skipped)
	}
	for _, n := range r.Skipped {
		if asked := n.Probe == "network"; n.Wanted != asked {
			t.Errorf("asked for: %v: %+v", n.Wanted, n)
		}
	}
}

func TestIPVSThatTheKernelLacksComesWithAnotherOne(t *testing.T) {
	t.Parallel()
	lb, _ := ward(t, edited(t, "mode: auto", "mode: ipvs"))
	// Also where this kernel has it.
	lb.sh(t, "for d in /lib/modules /sys/module; do [ ! -d $d ] || mount -t tmpfs none $d; done")
	if command := lb.toInstall(t, "this kernel has no ip_vs, ip_vs_rr"); !strings.HasSuffix(command, " && reboot") {
		t.Errorf("cure: %s", command)
	}
}

// The kernel can be told to say that it is another one, and /sys to lack a file. What comes with a reboot is asked of apt alone.
func TestOldKernelOrOneWithoutTypesIsFound(t *testing.T) {
	t.Parallel()
	lb, _ := ward(t, file)
	lb.healthy(t)
	found := func(what string) {
		t.Helper()
		if command := lb.toInstall(t, what); !strings.HasSuffix(command, " && reboot") {
			t.Errorf("cure: %s", command)
		}
	}
	lb.with = []string{"setarch", "--uname-2.6"}
	found("the kernel is 2.6.")
	lb.with = nil
	lb.sh(t, "mount -t tmpfs none /sys/kernel/btf")
	found("the kernel tells no types of its own (BTF)")
	lb.sh(t, "umount /sys/kernel/btf")
	lb.healthy(t)
}

// No kernel of the lab has an interpreter, so the setting is a file here, as one that has shows it.
func TestInterpreterOfProgramsIsFoundAndCured(t *testing.T) {
	t.Parallel()
	lb, _ := ward(t, file)
	lb.cured(t, []ailment{{"cd $PWD; mkdir core; echo 0 >core/bpf_jit_enable; mount --bind core /proc/sys/net/core", "the kernel interprets BPF programs", "printf"}}, nil)
}

func TestInterfaceWithoutAnAddressHasNoSource(t *testing.T) {
	t.Parallel()
	lb, _ := ward(t, file)
	lb.healthy(t)
	lb.sh(t, "ip address del 10.77.0.11/24 dev eth0")
	r := lb.examine(t)
	if len(r.Findings) != 1 || r.Findings[0].What != "eth0 has no IPv4 address of its own" {
		t.Fatalf("findings: %+v", r.Findings)
	}
	lb.sh(t, strings.Replace(r.Findings[0].Command, "ADDRESS", "10.77.0.11/24", 1))
	lb.healthy(t)
}

func TestProgramsAndModesOfXDPAreFoundAndCured(t *testing.T) {
	t.Parallel()
	object, err := os.ReadFile("../../test/bench/bench_bpfel.o")
	if err != nil {
		t.Fatal(err)
	}
	lb, _ := ward(t, edited(t, "mode: auto", "mode: xdp-native"))
	lb.write(t, "other.o", string(object))
	lb.cured(t, []ailment{{"ip link set dev eth0 xdpgeneric obj other.o section xdp.frags", `somebody else's XDP program "driver"`, "ip link set dev eth0 xdpgeneric off"}}, nil)
	lb.cured(t, []ailment{{"ip link set dev eth0 xdpdrv obj other.o section xdp.frags", `somebody else's XDP program "driver"`, "ip link set dev eth0 xdp off"}}, nil)
	lb.cured(t, []ailment{{"ip link add br0 type bridge; ip link set br0 up; ip address add 10.78.0.11/24 dev br0; sed -i 's/interfaces: .eth0/&, br0/' config.yaml",
		"the driver of br0 (bridge) has no native XDP", "sed -i"}}, nil)
}

func TestMergedPacketsThatNobodyCutsUpAreFoundAndCured(t *testing.T) {
	t.Parallel()
	lb, _ := ward(t, edited(t, "mode: auto", "mode: xdp-generic"))
	lb.cured(t, []ailment{{"ethtool -K eth0 tso off gro on", "GRO is on on eth0", "ethtool -K eth0 gro off"}}, nil)
}

func TestPinPathWithoutABpffsIsFoundAndCured(t *testing.T) {
	t.Parallel()
	lb, _ := ward(t, file)
	lb.cured(t, []ailment{{"umount pins", "is not on a bpffs", "mkdir -p"}}, nil)
}

func TestWhatElseHoldsTheAddressesHereIsFoundAndEnded(t *testing.T) {
	t.Parallel()
	lb, _ := ward(t, file)
	lb.write(t, "keepalived.conf", "vrrp_instance X { interface eth0\nvirtual_router_id 9\nvirtual_ipaddress { 10.77.0.100/24 dev eth0 } }\n")
	lb.cured(t, []ailment{{"ip address add 10.77.0.100/24 dev eth0", "10.77.0.100 is on eth0, put there by somebody else", "ip address del 10.77.0.100/24 dev eth0"}}, nil)
	lb.cured(t, []ailment{
		{"keepalived -P -f $PWD/keepalived.conf -p $PWD/ka.pid -r $PWD/kr.pid; until ip netns pids $(ip netns identify $$) | xargs -I@ cat /proc/@/comm | grep -q keepalived; do :; done",
			"keepalived runs here too", "kill "},
	}, nil)
	lb.write(t, "vrrpd.conf", "interface eth0\n vrrp 9 version 3\n vrrp 9 ip 10.77.0.100\n")
	lb.cured(t, []ailment{
		{"mount -t tmpfs none /run; mkdir /run/frr; cp vrrpd.conf /run/frr; chown -R frr: /run/frr; /usr/lib/frr/vrrpd -d -f /run/frr/vrrpd.conf -A 127.0.0.1 -P 0 -i /run/frr/pid",
			"vrrpd runs here too (process ", "kill "},
	}, nil)
}

func TestRulesOfNftablesThatBlockAreFoundAndOpened(t *testing.T) {
	t.Parallel()
	lb, _ := ward(t, edited(t, "      virtual_addresses", "      unicast_peers: [10.77.0.12]\n      virtual_addresses"))
	rules := lb.write(t, "rules", `table inet filter {
	set checked { type inet_service; flags interval; elements = { 22, 8000-8090 } }
	chain input {
		type filter hook input priority filter; policy drop;
		iifname "lo" accept
		ct state vmap { invalid : drop, related : accept }
		ip protocol icmp accept
		tcp dport { 22, 9112 } accept
		jump services
	}
	chain services {
		ip saddr 10.77.0.1 tcp dport 80 accept
		ip saddr 10.77.0.99 return
	}
	chain output {
		type filter hook output priority filter; policy accept;
		ip protocol vrrp reject
		tcp dport @checked ip daddr 10.77.0.0/24 drop
	}
}
table netdev early {
	chain in {
		type filter hook ingress device "eth0" priority 0; policy accept;
		meta l4proto 112 counter drop
	}
}
`)
	lb.cured(t, []ailment{
		{"nft -f " + rules, "nft inet filter input drops VRRP (protocol 112) on eth0: policy drop", "nft insert rule inet filter input meta l4proto 112 accept"},
		{"", "nft inet filter output drops VRRP", "nft insert rule inet filter output"},
		{"", "nft netdev early in drops VRRP", "nft insert rule netdev early in"},
		{"", "nft inet filter output drops checks of 10.77.0.21: rule inet filter output handle", "nft insert rule inet filter output tcp dport 8080 accept"},
		{"", "nft inet filter input drops the answers to checks of 10.77.0.21: policy drop", "nft insert rule inet filter input tcp sport 8080 ct state established accept"},
	}, nil)
}

func TestRulesOfFirewalldAreOpenedInItsOwnWords(t *testing.T) {
	t.Parallel()
	lb, _ := ward(t, file)
	rules := lb.write(t, "rules", `table inet firewalld {
	chain filter_INPUT {
		type filter hook input priority filter + 10; policy accept;
		ct state { established, related } accept
		ct status dnat accept
		iifname "lo" accept
		ct state invalid drop
		jump filter_INPUT_ZONES
		reject with icmpx admin-prohibited
	}
	chain filter_INPUT_ZONES {
		goto filter_IN_public
	}
	chain filter_IN_public {
		jump filter_IN_public_allow
		meta l4proto { icmp, ipv6-icmp } accept
	}
	chain filter_IN_public_allow {
		tcp dport 22 accept
	}
}
`)
	lb.healthy(t)
	lb.sh(t, "nft -f "+rules)
	r := lb.examine(t)
	if len(r.Findings) != 1 || !strings.HasPrefix(r.Findings[0].What, "nft inet firewalld filter_INPUT drops VRRP") || r.Findings[0].Command != "firewall-cmd --permanent --add-protocol=vrrp && firewall-cmd --reload" {
		t.Fatalf("findings: %+v", r.Findings)
	}
	lb.sh(t, "nft insert rule inet firewalld filter_IN_public_allow ip protocol vrrp accept") // as firewalld does then
	lb.healthy(t)
}

func TestRulesOfBothKindsOfIPTablesThatBlockAreFoundAndOpened(t *testing.T) {
	t.Parallel()
	lb, _ := ward(t, file)
	lb.cured(t, []ailment{
		{"iptables -A INPUT -m comment --comment 'no vrrp here' -p vrrp -j REJECT", "iptables -t filter INPUT drops VRRP", "iptables -I INPUT -p 112 -j ACCEPT"},
		{"iptables-legacy -N out; iptables-legacy -A OUTPUT -o eth+ -j out; iptables-legacy -A out -p tcp -m multiport --dports 80,8000:8090 -d 10.77.0.0/16 -m conntrack --ctstate NEW -j DROP",
			"iptables-legacy -t filter OUTPUT drops checks of 10.77.0.21", "iptables-legacy -I OUTPUT -p tcp --dport 8080 -j ACCEPT"},
	}, nil)
}

func TestRulesThatXDPBypassesAreTakenOverIntoTheConfiguration(t *testing.T) {
	t.Parallel()
	lb, _ := ward(t, edited(t, "dataplane:", `  - name: shop
    address: 10.77.0.100
    port: 443
    deny: [10.9.0.0/16]
    real_servers: [{address: 10.77.0.21}]
    scheduler: rr
dataplane:`))
	rules := lb.write(t, "rules", `table inet filter {
	set bad { type ipv4_addr; flags interval; elements = { 10.66.0.0/16, 192.0.2.66 } }
	chain input {
		type filter hook input priority filter; policy accept;
		ip saddr @bad tcp dport 80 drop
		ip daddr 10.77.0.100 tcp dport 443 ip saddr 10.8.0.0/16 drop
		ip daddr 10.77.0.100 tcp dport 22 drop
		ip saddr 10.5.0.0/16 udp dport 53 drop
	}
}
`)
	lb.cured(t, []ailment{
		{"nft -f " + rules, "XDP takes packets of service web before rule inet filter input handle", "sed -i"},
		{"", "XDP takes packets of service shop before", "sed -i"},
	}, nil)
	text := must(t, lb.in("cat", "config.yaml"))
	for _, want := range []string{"  - name: web\n    deny: [10.66.0.0/16, 192.0.2.66/32]\n", "    deny: [10.8.0.0/16, 10.9.0.0/16]\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
}

func TestListsOfTheOnlyClientsAreTakenOverIntoTheConfiguration(t *testing.T) {
	t.Parallel()
	lb, _ := ward(t, file)
	lb.cured(t, []ailment{{"iptables -A INPUT -d 10.77.0.100/32 -s 10.8.0.0/16 -p tcp --dport 80 -j ACCEPT; iptables -A INPUT -d 10.77.0.100 -p tcp -m tcp --dport 80 ! -s 10.9.0.0/16 -j DROP",
		"XDP takes packets of service web before -A INPUT", "sed -i"}}, nil)
	if text := must(t, lb.in("cat", "config.yaml")); !strings.Contains(text, "allow: [10.9.0.0/16]") {
		t.Error(text)
	}
}

func TestRealServerIsExaminedAndCured(t *testing.T) {
	t.Parallel()
	server, other := admit(t, "-real-server", "-vip", "10.77.0.100"), admit(t)
	connect(t, server, "eth0", other, "eth0")
	server.sh(t, "ip address add 10.77.0.21/24 dev eth0; ip address add 10.77.0.100/32 dev lo; sysctl -w net.ipv4.conf.all.arp_ignore=1; sysctl -w net.ipv4.conf.all.arp_announce=2")
	server.cured(t, []ailment{
		{"sysctl -w net.ipv4.conf.all.arp_ignore=0", "arp_ignore of eth0 is 0", "printf"},
		{"sysctl -w net.ipv4.conf.all.arp_announce=1", "arp_announce of eth0 is 1", "printf"},
		{"ip link set eth0 mtu 1400", "the MTU of eth0 is 1400", "ip link set dev eth0 mtu 1500"},
		{"ip address add 10.77.0.100/24 dev eth0", "10.77.0.100 is on eth0", "ip address del 10.77.0.100/24 dev eth0"},
		{"iptables -A INPUT -d 10.77.0.0/25 -j DROP; iptables -I INPUT -s 10.77.0.99 -p icmp -j ACCEPT", "iptables -t filter INPUT drops what is for 10.77.0.100", "iptables -I INPUT -d 10.77.0.100 -j ACCEPT"},
	}, nil)
	server.cured(t, []ailment{{"ip address del 10.77.0.100/32 dev lo; ip address add 10.77.0.100/24 dev lo", "10.77.0.100 is on lo with a prefix of 24 bits", "ip address add 10.77.0.100/32 dev lo"}}, nil)
	server.cured(t, []ailment{{"ip address del 10.77.0.100/32 dev lo; sysctl -w net.ipv4.conf.all.arp_ignore=0", "10.77.0.100 is not on lo", "printf"}}, nil)
}

func TestRealServerInSeveralNetworksIsCuredOfStrictPaths(t *testing.T) {
	t.Parallel()
	server, other := admit(t, "-real-server", "-vip", "10.77.0.100"), admit(t)
	connect(t, server, "eth0", other, "eth0")
	second(t, server, other, "10.78.0.21/24")
	server.sh(t, "ip address add 10.77.0.21/24 dev eth0; ip address add 10.77.0.100/32 dev lo; sysctl -w net.ipv4.conf.all.arp_ignore=1; sysctl -w net.ipv4.conf.all.arp_announce=2")
	server.cured(t, []ailment{{"sysctl -w net.ipv4.conf.eth1.rp_filter=1", "rp_filter of eth1 is 1 (strict), and there are several interfaces", "printf"}}, nil)
}

func TestRightsThatAreMissingAreFound(t *testing.T) {
	t.Parallel()
	lb, _ := ward(t, file)
	lb.healthy(t)
	page, err := os.ReadFile("../../docs/install.md")
	if err != nil {
		t.Fatal(err)
	}
	install := strings.Join(strings.Fields(strings.ReplaceAll(string(page), "\\\n", " ")), " ")
	for _, c := range []struct{ without, what, why string }{
		{"-net_raw,-perfmon,-sys_admin", "lacks CAP_NET_RAW, CAP_PERFMON", "no adverts"},
		{"-ipc_lock", "lacks CAP_IPC_LOCK", "KiB of the election's memory"},
	} {
		lb.with = []string{"setpriv", "--bounding-set", c.without, "--inh-caps", c.without, "--"}
		r := lb.examine(t)
		if len(r.Findings) != 1 || !strings.Contains(r.Findings[0].What, c.what) || !strings.Contains(r.Findings[0].Why, c.why) {
			t.Fatalf("%s: findings: %+v", c.without, r.Findings)
		}
		// Here is no systemd, as in a container: it must be started as the page of installing says.
		if f := r.Findings[0]; f.Where != "the host of this container" || !strings.HasPrefix(f.Command, "podman run ") || !strings.Contains(install, f.Command) {
			t.Errorf("on %s: %s", f.Where, f.Command)
		}
	}
}
