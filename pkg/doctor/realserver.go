package doctor

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
)

// carried: a real server has each virtual address on lo, as a single address, and nowhere else.
func carried(b *box) error {
	all, err := b.links()
	if err != nil {
		return err
	}
	for _, vip := range b.VIPs {
		onLo := false
		for _, l := range all {
			for _, a := range l.Addresses {
				if a.Local != vip {
					continue
				}
				if !l.is("LOOPBACK") {
					b.found(fmt.Sprintf("%s is on %s", vip, l.Name), "this box answers ARP for it there: clients reach it and not the director",
						fmt.Sprintf("ip address del %s dev %s", prefixOf(a), quote(l.Name)))
					continue
				}
				onLo = true
				if a.Bits != vip.BitLen() {
					b.found(fmt.Sprintf("%s is on %s with a prefix of %d bits", vip, l.Name, a.Bits), "all of that network is this box itself now: nobody else in it can be reached",
						fmt.Sprintf("ip address add %s dev %[2]s && ip address del %[3]s dev %[2]s", netip.PrefixFrom(vip, vip.BitLen()), l.Name, prefixOf(a)))
				}
			}
		}
		if !onLo {
			b.found(vip.String()+" is not on lo", "this box drops what the director sends it", b.carry(vip))
		}
	}
	return nil
}

// carry is the command that puts an address on lo: with systemd for good.
func (b *box) carry(vip netip.Addr) string {
	if _, err := os.Stat("/run/systemd/system"); err == nil {
		var list []string
		for _, v := range b.VIPs {
			list = append(list, v.String())
		}
		return "xdirector real-server install --vip " + strings.Join(list, ",")
	}
	add := fmt.Sprintf("ip address add %s dev lo", netip.PrefixFrom(vip, vip.BitLen()))
	if vip.Is6() {
		return add // nothing answers for an address on lo
	}
	return set(conf("all", "arp_ignore", 1), conf("all", "arp_announce", 2)) + " && " + add
}

// networks are the interfaces of a real server by which clients' packets can come.
func (b *box) networks() ([]link, error) {
	all, err := b.links()
	if err != nil {
		return nil, err
	}
	kinds := []string{"", "veth", "bond", "bridge", "vlan", "macvlan"}
	return slices.DeleteFunc(slices.Clone(all), func(l link) bool {
		return l.is("LOOPBACK") || !l.is("UP") || len(l.Addresses) == 0 || !slices.Contains(kinds, l.Info.Kind)
	}), nil
}

func realServerSysctls(b *box) error {
	list, err := b.networks()
	if err != nil {
		return err
	}
	all, err := b.links()
	if err != nil {
		return err
	}
	lo, _ := linkNamed(all, "lo")
	for _, a := range lo.Addresses { // what is not there yet comes with these settings
		for _, l := range list {
			if a.Local.Is4() && slices.Contains(b.VIPs, a.Local) {
				b.quietAbout(l.Name, a.Local)
			}
		}
	}
	for _, l := range list {
		if ofInterface(l.Name, "rp_filter") == 1 && len(list) > 1 {
			b.found("rp_filter of "+l.Name+" is 1 (strict), and there are several interfaces", "clients whose way back leads by another interface get no answer",
				set(conf(l.Name, "rp_filter", 2)))
		}
	}
	return nil
}

// ethernetMTU is what a director sends on.
const ethernetMTU = 1500

func fullMTU(b *box) error {
	list, err := b.networks()
	if err != nil {
		return err
	}
	for _, l := range list {
		if l.MTU < ethernetMTU {
			b.found(fmt.Sprintf("the MTU of %s is %d", l.Name, l.MTU), fmt.Sprintf("the director sends on frames of up to %d bytes as they are, and longer ones than the MTU are lost here: large uploads hang", ethernetMTU),
				fmt.Sprintf("ip link set dev %s mtu %d", quote(l.Name), ethernetMTU))
		}
	}
	return nil
}

// listenAsRealServer hears who the director is, and looks whether answers would go back to it.
func listenAsRealServer(b *box) error {
	if b.Listen == 0 {
		return errNotAsked
	}
	list, err := b.networks()
	if err != nil {
		return err
	}
	var routes []struct {
		Gateway netip.Addr `json:"gateway"`
		Device  string     `json:"dev"`
	}
	if err := b.runJSON(&routes, "ip", "-json", "route", "show", "default"); err != nil {
		return err
	}
	var gateways []wanted
	for _, r := range routes {
		if r.Gateway.IsValid() {
			gateways = append(gateways, wanted{address: r.Gateway})
		}
	}
	e, err := openEars(list)
	if err != nil {
		return err
	}
	defer e.close()
	if err := e.listenFor(b.Listen, gateways); err != nil {
		return err
	}
	directors := directorsOf(e, b.VIPs)
	if len(directors) == 0 {
		return fmt.Errorf("no advert for %s was heard in %s, so it is not known who the director is", joined(b.VIPs), b.Listen)
	}
	for _, d := range directors {
		b.fact("the director is %s on %s", d.source, d.on)
		for _, r := range routes {
			if r.Gateway != d.source && !slices.Contains(d.advert.Addresses, r.Gateway) && !slices.Contains(e.owners[r.Gateway], d.mac) {
				continue
			}
			router, why := b.Gateway.String(), ""
			if !b.Gateway.IsValid() {
				router, why = "ROUTER", "; ROUTER is the router of the network (say --gateway)"
			}
			b.found(fmt.Sprintf("the default gateway %s is the director", r.Gateway),
				"with direct return answers don't go through it: it drops packets that come from its own virtual address"+why,
				fmt.Sprintf("ip route replace default via %s dev %s", router, quote(r.Device)))
		}
	}
	return nil
}
