package doctor

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/xdirector/xdirector/pkg/config"
	"github.com/xdirector/xdirector/pkg/health"
	"github.com/xdirector/xdirector/pkg/lb"
)

// rulesets reads all packet rules of the network namespace, of nftables and of iptables.
func (b *box) rulesets() (ruleset, error) {
	var all ruleset
	text, err := b.run("nft", "-j", "list", "ruleset")
	if err == nil {
		all, err = parseNFT(text)
	}
	if err != nil && !errors.Is(err, errMissing) {
		return nil, err
	}
	noNFT := err != nil
	for _, name := range []string{"iptables", "ip6tables"} {
		// The old kind of tables is another part of the kernel; to ask for it would load that.
		for tool, file := range map[string]string{name: "", name + "-legacy": map[string]string{"iptables": "/proc/net/ip_tables_names", "ip6tables": "/proc/net/ip6_tables_names"}[name]} {
			if names, err := os.ReadFile(file); file != "" && (err != nil || len(names) == 0) {
				continue
			}
			text, err := b.run(tool + "-save")
			if errors.Is(err, errMissing) {
				continue
			}
			if err != nil {
				return nil, err
			}
			// Tables that iptables keeps in nftables are listed by both; its own words are needed to change them.
			mine := parseIPTables(string(text), tool)
			all = slices.DeleteFunc(all, func(c chain) bool {
				return c.tool == "nft" && slices.ContainsFunc(mine, func(m chain) bool { return m.family == c.family && m.table == c.table && m.name == c.name })
			})
			all = append(all, mine...)
			noNFT = false
		}
	}
	if noNFT && len(all) == 0 {
		if _, err := os.Stat("/proc/net/netfilter"); err == nil {
			return nil, errors.New("neither nft nor iptables-save is installed, so packet rules can't be read")
		}
	}
	return all, nil
}

// words of a command that puts a rule first in a chain: what is matched, for nft and for iptables.
type opening struct{ nft, iptables string }

// admit is the command that accepts packets before any rule of a chain's hook drops them.
func (o opening) admit(c chain) string {
	if c.tool != "nft" {
		tool, table := c.tool, ""
		if c.table != "filter" {
			table = " -t " + c.table
		}
		return tool + table + " -I " + c.name + " " + o.iptables + " -j ACCEPT"
	}
	return fmt.Sprintf("nft insert rule %s %s %s %s accept", c.family, c.table, c.name, o.nft)
}

// lasting is what is to be said of a command, if it is to be said: firewalld remembers what it is told.
func lasting(command string) string {
	if strings.HasPrefix(command, "firewall-cmd ") && !strings.Contains(command, "nft ") {
		return ""
	}
	return "; what the command adds lasts until the rules are loaded again: put it in their file too"
}

func firewall(b *box) error {
	rules, err := b.rulesets()
	if err != nil {
		return err
	}
	n := 0
	for _, c := range rules {
		n += len(c.rules)
	}
	b.fact("%d packet rules", n)
	for _, i := range b.instances() {
		b.adverts(rules, i)
	}
	links, err := b.links()
	if err != nil {
		return err
	}
	for _, s := range b.services() {
		b.checks(rules, links, s)
	}
	for _, s := range b.onIPVS() {
		b.clients(rules, s)
	}
	return nil
}

// adverts: protocol 112 comes in and goes out.
func (b *box) adverts(rules ruleset, i config.Instance) {
	group := netip.AddrFrom4([4]byte{224, 0, 0, 18})
	if i.IPv6() {
		group = netip.MustParseAddr("ff02::12")
	}
	in := flow{protocol: protocolVRRP, to: group, in: i.Interface, state: "new", ipv6: i.IPv6(), multicast: true}
	out := flow{protocol: protocolVRRP, to: group, out: i.Interface, state: "new", ipv6: i.IPv6(), multicast: true}
	if len(i.UnicastPeers) > 0 {
		in.to, in.multicast = netip.Addr{}, false
		in.from, out.to, out.multicast = i.UnicastPeers[0], i.UnicastPeers[0], false
	}
	o := opening{"meta l4proto 112", "-p 112"}
	for _, c := range rules {
		if !c.sees(i.IPv6()) || c.device != "" && c.device != i.Interface {
			continue
		}
		f, why := in, ""
		switch c.hook {
		case "ingress":
			why = "instance " + i.Name + " hears no adverts, and becomes a second MASTER"
		case "input", "prerouting":
			why = "keepalived, and whatever else speaks VRRP through the kernel, hears no adverts here (xdirector does, before this rule); reject answers them with errors"
		case "egress":
			f, why = out, "the adverts of instance "+i.Name+" don't leave this box: both directors become MASTER"
		case "output", "postrouting":
			f, why = out, "adverts don't leave this box: both directors become MASTER"
			if !out.multicast {
				break
			}
			why = "keepalived's adverts don't leave this box (xdirector's to a multicast group do, past this rule)"
		default:
			continue
		}
		if r, dropped := rules.drops(c, f); dropped {
			command := b.open(c, i.Interface, o, "--add-protocol=vrrp")
			b.found(fmt.Sprintf("%s drops VRRP (protocol 112) on %s: %s", c.title(), i.Interface, r.text), why+lasting(command), command)
		}
	}
}

// open is the command that admits packets, in the words of what owns the chain.
func (b *box) open(c chain, in string, o opening, firewalld string) string {
	if c.tool != "nft" || c.table != "firewalld" {
		return o.admit(c)
	}
	// An interface that is in no zone by name belongs to the default one, as a command without a zone does.
	if zone, err := b.run("firewall-cmd", "--get-zone-of-interface="+in); err == nil && in != "" {
		firewalld = "--zone=" + quote(strings.TrimSpace(string(zone))) + " " + firewalld
	}
	return "firewall-cmd --permanent " + firewalld + " && firewall-cmd --reload"
}

// checks: this box reaches its real servers, and their answers come in.
func (b *box) checks(rules ruleset, links []link, s config.Service) {
	for _, server := range s.RealServers {
		check := server.Check
		if check == nil {
			check = s.Check
		}
		if check == nil {
			continue
		}
		ipv6 := server.Address.Is6()
		out := flow{protocol: protocolTCP, to: server.Address, toPort: cmp.Or(check.Port, server.Port), state: "new", ipv6: ipv6}
		in := flow{protocol: protocolTCP, from: server.Address, fromPort: out.toPort, state: "established", ipv6: ipv6}
		out.out = cmp.Or(wayTo(links, server.Address), b.entrance())
		in.in, in.toPort = out.out, anyPort
		words := fmt.Sprintf("tcp dport %d", out.toPort)
		back := fmt.Sprintf("tcp sport %d ct state established", out.toPort)
		o := opening{words, fmt.Sprintf("-p tcp --dport %d", out.toPort)}
		answers := opening{back, fmt.Sprintf("-p tcp --sport %d -m conntrack --ctstate ESTABLISHED", out.toPort)}
		if check.Kind == health.ICMP {
			out.protocol, in.protocol, o, answers = protocolICMP, protocolICMP, opening{"meta l4proto icmp", "-p icmp"}, opening{"meta l4proto icmp", "-p icmp"}
			if ipv6 {
				out.protocol, in.protocol, o, answers = protocolICMP6, protocolICMP6, opening{"meta l4proto ipv6-icmp", "-p ipv6-icmp"}, opening{"meta l4proto ipv6-icmp", "-p ipv6-icmp"}
			}
			out.icmpOfChecks, in.icmpOfChecks, out.toPort, in.fromPort, in.toPort = true, true, 0, 0, 0
		}
		for _, c := range rules {
			if !c.sees(ipv6) {
				continue
			}
			f, open, way := in, answers, "the answers to"
			switch c.hook {
			case "output", "postrouting":
				f, open, way = out, o, ""
			case "input", "prerouting", "ingress":
			default:
				continue
			}
			if r, dropped := rules.drops(c, f); dropped {
				command := b.open(c, out.out, open, "--add-port="+strconv.Itoa(int(out.toPort))+"/tcp")
				b.found(strings.TrimSpace(fmt.Sprintf("%s drops %s", c.title(), strings.TrimSpace(way+" checks of "+server.Address.String())))+": "+r.text,
					"real server "+s.Name+"/"+server.Address.String()+" counts as down"+lasting(command), command)
			}
		}
	}
}

// entrance is the interface by which clients come, or the first of several; empty: not known.
func (b *box) entrance() string {
	if b.Config == nil || len(b.Config.Dataplane.Interfaces) == 0 {
		return ""
	}
	return b.Config.Dataplane.Interfaces[0]
}

// anyPort is one of those that this box takes for its own connections.
const anyPort = 50000

// wayTo is the interface in whose network an address is; empty: none.
func wayTo(links []link, to netip.Addr) string {
	n := slices.IndexFunc(links, func(l link) bool {
		return slices.ContainsFunc(l.Addresses, func(a address) bool { return prefixOf(a).Contains(to) })
	})
	if n < 0 {
		return ""
	}
	return links[n].Name
}

// clients: what IPVS forwards passes the rules of the hook input first; what conntrack says of it is half the truth.
func (b *box) clients(rules ruleset, s config.Service) {
	if !s.Address.IsValid() || s.Bits != 0 || s.Forwarding != lb.Direct && s.Forwarding != lb.Tunnel {
		return // of NAT conntrack sees both directions
	}
	first := flow{protocol: uint8(s.Protocol), in: b.entrance(), to: s.Address, toPort: s.Port, state: "new", ipv6: s.Address.Is6()}
	later := first
	// It has seen no SYN-ACK, since answers don't come through this box.
	if later.state = "invalid"; s.Protocol != lb.TCP {
		later.state = "new"
	}
	if rules.untracked(first) {
		first.state, later.state = "untracked", "untracked"
	}
	for _, c := range rules {
		if c.hook != "input" && c.hook != "prerouting" && c.hook != "ingress" || !c.sees(first.ipv6) || c.device != "" && c.device != first.in {
			continue
		}
		if c.priority <= beforeConntrack {
			first, later := first, later
			first.state, later.state = "", "" // not yet known there
		}
		if r, dropped := rules.drops(c, first); dropped {
			admitted := b.open(c, first.in, openingTo(s), firewalldTo(s))
			b.found(fmt.Sprintf("%s drops what is for service %s: %s", c.title(), s.Name, r.text), "IPVS never sees a client of it"+lasting(admitted), admitted)
			continue
		}
		r, dropped := rules.drops(c, later)
		if !dropped {
			continue
		}
		untracked := first
		untracked.state = "untracked"
		command := notrack(c, s)
		if _, still := rules.drops(c, untracked); still {
			command += " && " + b.open(c, first.in, openingTo(s), firewalldTo(s))
		}
		b.found(fmt.Sprintf("%s drops what conntrack calls invalid, in front of IPVS: %s", c.title(), r.text),
			"with direct return this box sees one direction only, so conntrack knows no connection of service "+s.Name+consequence()+lasting(command), command)
	}
}

// consequence is what becomes of connections that conntrack sees half of, in front of a rule that drops what is invalid.
func consequence() string {
	if setting("net/netfilter/nf_conntrack_tcp_loose") == "0" || setting("net/ipv4/vs/conntrack") == "1" {
		return ": only their first packet passes, and none is made"
	}
	return ": all packets pass but those that end one (FIN, RST), so real servers and IPVS keep dead ones until they time out"
}

// firewalldTo says what openingTo says in the words of firewalld.
func firewalldTo(s config.Service) string {
	if s.Port != 0 {
		return fmt.Sprintf("--add-port=%d/%s", s.Port, s.Protocol)
	}
	return "--add-rich-rule=" + quote(fmt.Sprintf(`rule family="%s" destination address="%s" protocol value="%s" accept`, richFamily(s.Address), s.Address, s.Protocol))
}

func richFamily(a netip.Addr) string {
	if a.Is6() {
		return "ipv6"
	}
	return "ipv4"
}

// openingTo says in the words of both tools what is for a service.
func openingTo(s config.Service) opening {
	family := "ip"
	if s.Address.Is6() {
		family = "ip6"
	}
	o := opening{fmt.Sprintf("%s daddr %s", family, s.Address), fmt.Sprintf("-d %s -p %s", s.Address, s.Protocol)}
	if s.Port == 0 {
		o.nft += fmt.Sprintf(" meta l4proto %s", s.Protocol)
		return o
	}
	port := strconv.Itoa(int(s.Port))
	o.nft += fmt.Sprintf(" %s dport %s", s.Protocol, port)
	o.iptables += " --dport " + port
	return o
}

// notrack is the command that takes a service from conntrack.
func notrack(c chain, s config.Service) string {
	o := openingTo(s)
	if c.tool != "nft" {
		return c.tool + " -t raw -I PREROUTING " + o.iptables + " -j CT --notrack"
	}
	const table = "inet xdirector_notrack"
	return fmt.Sprintf("nft add table %[1]s && nft add chain %[1]s prerouting '{ type filter hook prerouting priority -300; }' && nft add rule %[1]s prerouting %[2]s notrack", table, o.nft)
}

// realServerFirewall: a real server takes what is for the virtual address.
func realServerFirewall(b *box) error {
	rules, err := b.rulesets()
	if err != nil {
		return err
	}
	list, err := b.networks()
	if err != nil {
		return err
	}
	ports := b.Ports
	if len(ports) == 0 {
		ports = []uint16{0}
		if len(rules) > 0 {
			b.fact("only rules that drop whatever is for the address are told: --port PORT says of which services more is to be known")
		}
	}
	for _, vip := range b.VIPs {
		for _, l := range list {
			for _, port := range ports {
				b.takes(rules, l.Name, vip, port)
			}
		}
	}
	return nil
}

// takes: a connection to a port of a virtual address is let in; port 0 is any.
func (b *box) takes(rules ruleset, in string, vip netip.Addr, port uint16) {
	f := flow{protocol: protocolTCP, to: vip, toPort: port, in: in, state: "new", ipv6: vip.Is6()}
	whom := vip.String()
	if port != 0 {
		whom = netip.AddrPortFrom(vip, port).String()
	}
	family := "ip"
	if f.ipv6 {
		family = "ip6"
	}
	o := opening{family + " daddr " + vip.String(), "-d " + vip.String()}
	rich := fmt.Sprintf(`rule family="%s" destination address="%s"`, richFamily(vip), vip)
	if port != 0 {
		o.nft += fmt.Sprintf(" tcp dport %d", port)
		o.iptables += fmt.Sprintf(" -p tcp --dport %d", port)
		rich += fmt.Sprintf(` port port="%d" protocol="tcp"`, port)
	}
	for _, c := range rules {
		if c.hook != "input" && c.hook != "prerouting" && c.hook != "ingress" || !c.sees(f.ipv6) || c.device != "" && c.device != in {
			continue
		}
		if r, dropped := rules.drops(c, f); dropped {
			command := b.open(c, in, o, "--add-rich-rule="+quote(rich+" accept"))
			b.found(fmt.Sprintf("%s drops what is for %s: %s", c.title(), whom, r.text), "clients that the director sends here get no answer"+lasting(command), command)
		}
	}
}
