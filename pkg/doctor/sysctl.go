package doctor

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"

	"github.com/xdirector/xdirector/pkg/lb"
)

// ofInterface reads a setting of an interface and that of "all" and returns the larger one, which is in force for
// rp_filter, arp_ignore, arp_announce and, as one of the two is enough, for send_redirects.
func ofInterface(name, key string) int {
	value := 0
	for _, n := range []string{"all", name} {
		v, _ := strconv.Atoi(setting("net/ipv4/conf/" + n + "/" + key)) // missing: 0, as the kernel has it then
		value = max(value, v)
	}
	return value
}

func conf(name, key string, value int) string {
	return fmt.Sprintf("net/ipv4/conf/%s/%s=%d", name, key, value)
}

func directorSysctls(b *box) error {
	used, err := b.used()
	if err != nil {
		return err
	}
	for _, l := range used {
		if ofInterface(l.Name, "rp_filter") == 1 {
			b.found("rp_filter of "+l.Name+" is 1 (strict)",
				"the kernel drops packets of clients and real servers whose way back leads by another interface, and says nothing",
				set(conf(l.Name, "rp_filter", 2)))
		}
		if setting("net/ipv4/conf/"+l.Name+"/forwarding") == "1" && ofInterface(l.Name, "send_redirects") > 0 {
			b.found("send_redirects of "+l.Name+" is 1 on a box that forwards",
				"clients and real servers are told to go around this box: connections break when it fails over",
				set(conf("all", "send_redirects", 0), conf(l.Name, "send_redirects", 0)))
		}
	}
	b.forwardingForNAT()
	b.jit()
	b.ipv6Enabled()
	b.arpFlux(used)
	return b.ownShare()
}

// forwardingForNAT: answers of real servers behind NAT are routed by this box.
func (b *box) forwardingForNAT() {
	for _, s := range b.services() {
		if s.Forwarding != lb.NAT {
			continue
		}
		key := "net/ipv4/ip_forward"
		if len(s.RealServers) > 0 && s.RealServers[0].Address.Is6() {
			key = "net/ipv6/conf/all/forwarding"
		}
		if setting(key) == "0" {
			b.found("service "+s.Name+" has forwarding: nat, and this box doesn't forward",
				"answers of its real servers don't reach the clients", set(key+"=1"))
		}
	}
}

func (b *box) jit() {
	if setting("net/core/bpf_jit_enable") == "0" {
		b.found("the kernel interprets BPF programs", "XDP takes several times as long for each packet", set("net/core/bpf_jit_enable=1"))
	}
}

func (b *box) ipv6Enabled() {
	for _, i := range b.instances() {
		key := "net/ipv6/conf/" + i.Interface + "/disable_ipv6"
		if i.IPv6() && setting(key) == "1" {
			b.found("IPv6 is switched off on "+i.Interface, "instance "+i.Name+" can neither send adverts nor hold its addresses there", set(key+"=0"))
		}
	}
}

// arpFlux: two interfaces in one network answer for one another's addresses.
func (b *box) arpFlux(used []link) {
	networks := map[netip.Prefix]string{}
	for _, l := range used {
		for _, a := range l.Addresses {
			network := netip.PrefixFrom(a.Local, a.Bits).Masked()
			if !a.Local.Is4() || network.IsSingleIP() {
				continue
			}
			other, twice := networks[network]
			networks[network] = l.Name
			if !twice || other == l.Name {
				continue
			}
			for _, name := range []string{other, l.Name} {
				if ofInterface(name, "arp_ignore") == 0 || ofInterface(name, "arp_announce") < 2 {
					b.found(fmt.Sprintf("%s and %s are both in %s, and %s answers ARP for the addresses of all interfaces", other, l.Name, network, name),
						"neighbours learn the MAC address of the wrong interface for a virtual address, and its packets miss the program on the right one",
						set(conf(name, "arp_ignore", 1), conf(name, "arp_announce", 2)))
				}
			}
		}
	}
}

// ownShare: a director that is a real server too carries the address on lo in any state, and must not answer for it
// while another director is MASTER.
func (b *box) ownShare() error {
	all, err := b.links()
	if err != nil {
		return err
	}
	lo, _ := linkNamed(all, "lo")
	for _, a := range lo.Addresses {
		if !slices.Contains(b.virtualAddresses(), a.Local) || !a.Local.Is4() {
			continue
		}
		for _, name := range b.wanted() {
			if _, here := linkNamed(all, name); here {
				b.quietAbout(name, a.Local)
			}
		}
	}
	return nil
}

// quietAbout finds an interface that answers ARP for an address on lo, or asks with it.
func (b *box) quietAbout(name string, vip netip.Addr) {
	if ofInterface(name, "arp_ignore") == 0 {
		b.found(fmt.Sprintf("arp_ignore of %s is 0, with %s on lo", name, vip),
			"this box answers ARP for the virtual address, so clients reach it and not the MASTER",
			set(conf("all", "arp_ignore", 1)))
	}
	if ofInterface(name, "arp_announce") < 2 {
		b.found(fmt.Sprintf("arp_announce of %s is %d, with %s on lo", name, ofInterface(name, "arp_announce"), vip),
			"this box asks ARP with the virtual address as its own, and neighbours learn its MAC address for it",
			set(conf("all", "arp_announce", 2)))
	}
}
