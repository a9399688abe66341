package doctor

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/xdirector/xdirector/pkg/config"
)

// interfaces: each that the configuration names is here, up, and can do what is asked of it.
func interfaces(b *box) error {
	all, err := b.links()
	if err != nil {
		return err
	}
	for _, name := range b.wanted() {
		l, here := linkNamed(all, name)
		switch {
		case !here:
			b.missing(name, all)
			continue
		case !l.is("UP"):
			b.found(name+" is down", "no advert and no client's packet passes it", "ip link set dev "+quote(name)+" up")
			continue
		}
		for _, i := range b.instances() {
			if i.Interface == name {
				b.speaks(i, l)
			}
		}
	}
	return nil
}

// missing finds an interface that is not here. If there is only one that could be meant, that is the cure.
func (b *box) missing(name string, all []link) {
	var likely []string
	for _, l := range all {
		if !l.is("LOOPBACK") && l.Master == "" {
			likely = append(likely, l.Name)
		}
	}
	why := "it is in the configuration; what needs it is in FAULT or on a slower plane until it appears"
	if parent, vlan, ok := strings.Cut(name, "."); ok && slices.Contains(likely, parent) {
		b.found("there is no interface "+name, why, fmt.Sprintf("ip link add link %s name %s type vlan id %s && ip link set dev %s up", quote(parent), quote(name), quote(vlan), quote(name)))
		return
	}
	meant := "NAME"
	switch len(likely) {
	case 0:
		why += "; this box has no interface but lo, so NAME can't be told"
	case 1:
		meant = likely[0]
	default:
		why += "; NAME is the one that is meant: " + strings.Join(likely, ", ")
	}
	b.found("there is no interface "+name, why, b.replaceWord(name, meant))
}

// speaks: an instance can send adverts there.
func (b *box) speaks(i config.Instance, l link) {
	if len(i.UnicastPeers) == 0 && !l.is("MULTICAST") {
		b.found(l.Name+" takes no multicast", "instance "+i.Name+" sends its adverts to a multicast group", "ip link set dev "+quote(l.Name)+" multicast on")
	}
	usable := func(a address) bool {
		if i.IPv6() {
			return a.Local.Is6() && a.Local.IsLinkLocalUnicast()
		}
		return a.Local.Is4() && !slices.Contains(b.virtualAddresses(), a.Local)
	}
	if i.SourceAddress.IsValid() || slices.ContainsFunc(l.Addresses, usable) {
		return
	}
	if i.IPv6() {
		if setting("net/ipv6/conf/"+l.Name+"/disable_ipv6") == "1" {
			return // found among the sysctls
		}
		b.found(l.Name+" has no link-local address", "instance "+i.Name+" has no address to send adverts from; the kernel makes one at the next boot if net.ipv6.conf.*.addr_gen_mode is 0 by then",
			fmt.Sprintf("ip address add %s/64 dev %s", linkLocal(l.MAC), quote(l.Name)))
		return
	}
	b.found(l.Name+" has no IPv4 address of its own", "instance "+i.Name+" has no address to send adverts from; ADDRESS is one of its network, with the prefix length",
		"ip address add ADDRESS dev "+quote(l.Name))
}

// linkLocal is the address that the kernel would make of a MAC address (RFC 4291, appendix A).
func linkLocal(mac string) netip.Addr {
	m, err := net.ParseMAC(mac)
	if err != nil || len(m) != 6 {
		return netip.MustParseAddr("fe80::1") // no Ethernet: any will do
	}
	return netip.AddrFrom16([16]byte{0: 0xfe, 1: 0x80, 8: m[0] ^ 2, 9: m[1], 10: m[2], 11: 0xff, 12: 0xfe, 13: m[3], 14: m[4], 15: m[5]})
}

// sameMTU: a frame too long for the interface that it leaves by is lost.
func sameMTU(b *box) error {
	if b.Config == nil {
		return nil
	}
	all, err := b.links()
	if err != nil {
		return err
	}
	largest := link{}
	for _, name := range b.Config.Dataplane.Interfaces {
		if l, here := linkNamed(all, name); here && l.MTU > largest.MTU {
			largest = l
		}
	}
	for _, name := range b.Config.Dataplane.Interfaces {
		if l, here := linkNamed(all, name); here && l.MTU < largest.MTU {
			b.found(fmt.Sprintf("the MTU of %s is %d, that of %s is %d", name, l.MTU, largest.Name, largest.MTU),
				"a frame that comes in by "+largest.Name+" and is too long for "+name+" is lost: large uploads hang",
				fmt.Sprintf("ip link set dev %s mtu %d", quote(name), largest.MTU))
		}
	}
	return nil
}

// bonds: a bond notices a dead link, and is named as a whole.
func bonds(b *box) error {
	all, err := b.links()
	if err != nil {
		return err
	}
	for _, name := range b.wanted() {
		l, here := linkNamed(all, name)
		if !here {
			continue
		}
		if master, _ := linkNamed(all, l.Master); master.Info.Kind == "bond" {
			b.found(name+" is a member of "+l.Master, "its frames belong to the bond: name that", b.replaceWord(name, l.Master))
		}
		if l.Info.Kind != "bond" {
			continue
		}
		folder := "/sys/class/net/" + name + "/bonding/"
		read := func(file string) string {
			text, _ := os.ReadFile(folder + file) // missing: as if empty
			return strings.TrimSpace(string(text))
		}
		if read("miimon") == "0" && read("arp_interval") == "0" {
			b.found(name+" doesn't watch its links (miimon and arp_interval are 0)",
				"it goes on sending by a dead one, and the election never learns that the cable is out",
				"ip link set dev "+quote(name)+" type bond miimon 100")
		}
		mode, _, _ := strings.Cut(read("mode"), " ")
		if xdp := slices.Contains([]string{"balance-rr", "active-backup", "balance-xor", "802.3ad"}, mode); !xdp && b.plane() == config.ModeXDPNative {
			b.found(name+" is in mode "+mode+", in which native XDP doesn't work", "dataplane.mode asks for xdp-native and nothing else", b.replaceWord(config.ModeXDPNative, config.ModeAuto))
		}
	}
	return nil
}

// prefixOf is an address with its own length.
func prefixOf(a address) netip.Prefix { return netip.PrefixFrom(a.Local, a.Bits) }
