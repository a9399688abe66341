package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Node is one box of the lab: a network namespace with the interface eth0 on the switch.
type Node struct {
	Name      string           // c, d1, r1, ...
	Address   netip.Addr       // of eth0, in Prefix
	Address6  netip.Addr       // of eth0: fd77:: and the same number
	LinkLocal netip.Addr       // of eth0, made of the MAC
	MAC       net.HardwareAddr // of eth0: 02:00:00:77:00 and the last byte of the address
	Dir       string           // work folder of the node's processes

	lab   *Lab
	t     *thread
	links *netlink.Handle
}

// port is the name of the node's port on the switch.
func (n *Node) port() string { return "p-" + n.Name }

func (n *Node) build() error {
	var err error
	if err := os.Mkdir(n.Dir, 0o755); err != nil {
		return err
	}
	if n.t, err = n.lab.newNamespace(n.Name); err != nil {
		return err
	}
	if n.links, err = netlink.NewHandleAt(n.t.ns); err != nil {
		return fmt.Errorf("open netlink: %w", err)
	}
	n.lab.onClose(n.links.Close)
	// Addresses of IPv6 are there at once, not after a second of duplicate address detection.
	if err := n.Sysctl("net/ipv6/conf/default/accept_dad", "0"); err != nil {
		return err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = n.port()
	attrs.Namespace = netlink.NsFd(n.lab.sw.ns)
	veth := netlink.NewVeth(attrs)
	veth.PeerName = "eth0"
	veth.PeerHardwareAddr = n.MAC
	veth.PeerNamespace = netlink.NsFd(n.t.ns)
	if err := netlink.LinkAdd(veth); err != nil {
		return fmt.Errorf("add veth: %w", err)
	}
	port, err := n.switchPort()
	if err != nil {
		return err
	}
	bridge, err := n.lab.swLink.LinkByName("br0")
	if err != nil {
		return fmt.Errorf("find bridge: %w", err)
	}
	if err := n.lab.swLink.LinkSetMaster(port, bridge); err != nil {
		return fmt.Errorf("put port on the bridge: %w", err)
	}
	if err := n.lab.swLink.LinkSetUp(port); err != nil {
		return fmt.Errorf("set port up: %w", err)
	}
	for _, name := range []string{"lo", "eth0"} {
		if err := n.setUp(name); err != nil {
			return err
		}
	}
	if err := n.AddAddress("eth0", netip.PrefixFrom(n.Address6, 64).String()); err != nil {
		return err
	}
	return n.AddAddress("eth0", netip.PrefixFrom(n.Address, 24).String())
}

// Is says whether an address is one of the node's own.
func (n *Node) Is(a netip.Addr) bool { return a == n.Address || a == n.Address6 || a == n.LinkLocal }

func (n *Node) setUp(name string) error {
	l, err := n.links.LinkByName(name)
	if err == nil {
		err = n.links.LinkSetUp(l)
	}
	if err != nil {
		return fmt.Errorf("set %s up: %w", name, err)
	}
	return nil
}

// SetInterface does what `ip link set dev NAME up` or down does on the node.
func (n *Node) SetInterface(name string, up bool) error {
	if up {
		return n.setUp(name)
	}
	l, err := n.links.LinkByName(name)
	if err == nil {
		err = n.links.LinkSetDown(l)
	}
	if err != nil {
		return fmt.Errorf("set %s of %s down: %w", name, n.Name, err)
	}
	return nil
}

func (n *Node) switchPort() (netlink.Link, error) {
	l, err := n.lab.swLink.LinkByName(n.port())
	if err != nil {
		return nil, fmt.Errorf("find switch port %s: %w", n.port(), err)
	}
	return l, nil
}

// AddAddress adds an address, with its prefix length, to an interface of the node.
func (n *Node) AddAddress(iface, prefix string) error {
	return n.changeAddress(iface, prefix, n.links.AddrAdd)
}

// DeleteAddress removes an address, with its prefix length, from an interface of the node.
func (n *Node) DeleteAddress(iface, prefix string) error {
	return n.changeAddress(iface, prefix, n.links.AddrDel)
}

func (n *Node) changeAddress(iface, prefix string, change func(netlink.Link, *netlink.Addr) error) error {
	a, err := netlink.ParseAddr(prefix)
	if err != nil {
		return fmt.Errorf("change address: %w", err)
	}
	if a.IP.To4() == nil {
		a.Flags = unix.IFA_F_NODAD
	}
	l, err := n.links.LinkByName(iface)
	if err == nil {
		err = change(l, a)
	}
	if err != nil {
		return fmt.Errorf("change address %s of %s on %s: %w", prefix, iface, n.Name, err)
	}
	return nil
}

// Addresses lists the addresses of an interface with their prefix lengths.
func (n *Node) Addresses(iface string) ([]string, error) {
	l, err := n.links.LinkByName(iface)
	if err != nil {
		return nil, fmt.Errorf("list addresses of %s on %s: %w", iface, n.Name, err)
	}
	addrs, err := n.links.AddrList(l, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("list addresses of %s on %s: %w", iface, n.Name, err)
	}
	var list []string
	for _, a := range addrs {
		list = append(list, a.IPNet.String())
	}
	return list, nil
}

// CarryVIPs makes the node a real server for direct return: the addresses are on its loopback, and it answers no ARP
// request for them.
func (n *Node) CarryVIPs(vips ...string) error {
	for _, name := range []string{"all", "eth0"} {
		for key, value := range map[string]string{"arp_ignore": "1", "arp_announce": "2"} {
			if err := n.Sysctl("net/ipv4/conf/"+name+"/"+key, value); err != nil {
				return err
			}
		}
	}
	for _, vip := range vips {
		a, err := netip.ParseAddr(vip)
		if err != nil {
			return fmt.Errorf("carry virtual address: %w", err)
		}
		if err := n.AddAddress("lo", netip.PrefixFrom(a, a.BitLen()).String()); err != nil {
			return err
		}
	}
	return nil
}

// Sysctl sets a network setting of the node, by its path below /proc/sys.
func (n *Node) Sysctl(path, value string) error { return n.t.sysctl(path, value) }

// Bridge puts eth0 under a bridge named br0 that takes over its address and MAC: an interface without native XDP.
func (n *Node) Bridge() error {
	eth0, err := n.links.LinkByName("eth0")
	if err != nil {
		return fmt.Errorf("bridge eth0 on %s: %w", n.Name, err)
	}
	snooping := false
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0", HardwareAddr: n.MAC}, MulticastSnooping: &snooping}
	if err := n.links.LinkAdd(bridge); err != nil {
		return fmt.Errorf("add bridge on %s: %w", n.Name, err)
	}
	prefix := netip.PrefixFrom(n.Address, 24).String()
	if err := n.DeleteAddress("eth0", prefix); err != nil {
		return err
	}
	if err := n.links.LinkSetMaster(eth0, bridge); err != nil {
		return fmt.Errorf("bridge eth0 on %s: %w", n.Name, err)
	}
	if err := n.setUp("br0"); err != nil {
		return err
	}
	return n.AddAddress("br0", prefix)
}

// SetLink pulls the node's cable (false) or puts it back (true), on the switch's side: the node sees its carrier go.
func (n *Node) SetLink(up bool) error {
	port, err := n.switchPort()
	if err != nil {
		return err
	}
	if up {
		err = n.lab.swLink.LinkSetUp(port)
	} else {
		err = n.lab.swLink.LinkSetDown(port)
	}
	if err != nil {
		return fmt.Errorf("set link of %s: %w", n.Name, err)
	}
	return nil
}

// Isolate cuts the node off from every other isolated node, and from those only.
func (n *Node) Isolate(on bool) error {
	port, err := n.switchPort()
	if err != nil {
		return err
	}
	if err := n.lab.swLink.LinkSetIsolated(port, on); err != nil {
		return fmt.Errorf("isolate %s: %w", n.Name, err)
	}
	return nil
}

// Forget makes the switch forget where the node is, so that frames for it go to all ports until it sends one.
func (n *Node) Forget() error {
	port, err := n.switchPort()
	if err != nil {
		return err
	}
	entry := &netlink.Neigh{LinkIndex: port.Attrs().Index, Family: unix.AF_BRIDGE, Flags: netlink.NTF_MASTER, HardwareAddr: n.MAC}
	if err := n.lab.swLink.NeighDel(entry); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("forget %s on the switch: %w", n.Name, err)
	}
	return nil
}

// Run runs a program on the node to its end; the error has what it printed.
func (n *Node) Run(argv ...string) error {
	cmd := exec.Command(argv[0], argv[1:]...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := n.t.do(cmd.Start); err != nil {
		return fmt.Errorf("run %s on %s: %w", argv[0], n.Name, err)
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("run %s on %s: %w: %s", argv[0], n.Name, err, out.Bytes())
	}
	return nil
}

// Dial opens a connection from the node. The address must be numeric.
func (n *Node) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	var c net.Conn
	err := n.t.do(func() (err error) {
		c, err = (&net.Dialer{}).DialContext(ctx, network, address)
		return err
	})
	return c, err
}

// Listen opens a TCP listener on the node, for example to take a port away from a director.
func (n *Node) Listen(address string) (net.Listener, error) {
	var l net.Listener
	err := n.t.do(func() (err error) {
		l, err = net.Listen("tcp", address)
		return err
	})
	return l, err
}

// path joins a file name to the node's folder.
func (n *Node) path(file string) string { return filepath.Join(n.Dir, file) }
