package lab

import (
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
)

// AddNetworks joins the directors by n more networks, each with a switch of its own: their interfaces are eth1, eth2,
// ..., with the addresses 10.78.0.11, 10.79.0.11, ... on the first director.
func (l *Lab) AddNetworks(n int) error {
	for k := 1; k <= n; k++ {
		if err := l.addNetwork(k); err != nil {
			return fmt.Errorf("add network %d: %w", k, err)
		}
	}
	return nil
}

func (l *Lab) addNetwork(k int) error {
	snooping := false
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: fmt.Sprintf("br%d", k)}, MulticastSnooping: &snooping}
	if err := l.swLink.LinkAdd(bridge); err != nil {
		return fmt.Errorf("add bridge: %w", err)
	}
	if err := l.swLink.LinkSetUp(bridge); err != nil {
		return err
	}
	for _, d := range l.Directors {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = fmt.Sprintf("%s-%d", d.port(), k)
		attrs.Namespace = netlink.NsFd(l.sw.ns)
		veth := netlink.NewVeth(attrs)
		veth.PeerName = fmt.Sprintf("eth%d", k)
		veth.PeerNamespace = netlink.NsFd(d.t.ns)
		if err := netlink.LinkAdd(veth); err != nil {
			return fmt.Errorf("add veth: %w", err)
		}
		port, err := l.swLink.LinkByName(attrs.Name)
		if err != nil {
			return err
		}
		if err := l.swLink.LinkSetMaster(port, bridge); err != nil {
			return err
		}
		if err := l.swLink.LinkSetUp(port); err != nil {
			return err
		}
		if err := d.setUp(veth.PeerName); err != nil {
			return err
		}
		own := d.Address.As4()
		own[1] += byte(k)
		if err := d.AddAddress(veth.PeerName, netip.PrefixFrom(netip.AddrFrom4(own), 24).String()); err != nil {
			return err
		}
	}
	return nil
}
