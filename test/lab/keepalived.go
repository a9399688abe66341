package lab

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"time"
)

// Keepalived is one VRRP instance of a keepalived peer. Zero values are left out of its file.
type Keepalived struct {
	Name         string // VI_1 if empty
	Interface    string // eth0 if empty
	Version      int    // 2 or 3
	VRID         uint8
	Priority     uint8
	Interval     time.Duration
	Password     string // v2: PASS
	Addresses    []string
	InitialState string // MASTER or BACKUP; BACKUP if empty
	NoPreempt    bool
	Peers        []netip.Addr // unicast
	VirtualMAC   bool         // use_vmac
	More         []string     // further lines of the instance
}

func (k Keepalived) text(b *strings.Builder) {
	fmt.Fprintf(b, "vrrp_instance %s {\n    state %s\n    interface %s\n    version %d\n", or(k.Name, "VI_1"), or(k.InitialState, "BACKUP"), or(k.Interface, "eth0"), k.Version)
	fmt.Fprintf(b, "    virtual_router_id %d\n    priority %d\n    advert_int %g\n", k.VRID, k.Priority, k.Interval.Seconds())
	optional(b, "    authentication {\n        auth_type PASS\n        auth_pass %s\n    }\n", k.Password)
	if k.NoPreempt {
		b.WriteString("    nopreempt\n")
	}
	if k.VirtualMAC {
		b.WriteString("    use_vmac\n")
	}
	block := func(name string, lines []string) {
		if len(lines) > 0 {
			fmt.Fprintf(b, "    %s {\n        %s\n    }\n", name, strings.Join(lines, "\n        "))
		}
	}
	var peers []string
	for _, p := range k.Peers {
		peers = append(peers, p.String())
	}
	block("unicast_peer", peers)
	block("virtual_ipaddress", k.Addresses)
	for _, line := range k.More {
		fmt.Fprintf(b, "    %s\n", line)
	}
	b.WriteString("}\n")
}

// ConfigureKeepalived writes the configuration file of the node's keepalived; a running one reads it at SIGHUP.
func (n *Node) ConfigureKeepalived(instances ...Keepalived) error {
	var b strings.Builder
	fmt.Fprintf(&b, "global_defs {\n    router_id %s\n}\n", n.Name)
	for _, k := range instances {
		k.text(&b)
	}
	if err := os.WriteFile(n.path("keepalived.conf"), []byte(b.String()), 0o644); err != nil {
		return fmt.Errorf("configure keepalived on %s: %w", n.Name, err)
	}
	return nil
}

// StartKeepalived runs Debian's keepalived on the node, its VRRP part alone. Its log has every change of state, as
// "(VI_1) Entering MASTER STATE".
func (n *Node) StartKeepalived(instances ...Keepalived) (*Process, error) {
	return n.startKeepalived(instances, "--log-detail")
}

// StartQuietKeepalived is StartKeepalived with as little in the log as keepalived writes by default.
func (n *Node) StartQuietKeepalived(instances ...Keepalived) (*Process, error) {
	return n.startKeepalived(instances)
}

func (n *Node) startKeepalived(instances []Keepalived, more ...string) (*Process, error) {
	if err := n.ConfigureKeepalived(instances...); err != nil {
		return nil, err
	}
	// Those of a killed one count as long as nobody has reaped its children.
	for _, file := range []string{"keepalived.pid", "vrrp.pid"} {
		if err := os.Remove(n.path(file)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("start keepalived on %s: %w", n.Name, err)
		}
	}
	argv := append([]string{"keepalived", "--dont-fork", "--log-console", "--vrrp",
		"--use-file", n.path("keepalived.conf"), "--pid", n.path("keepalived.pid"), "--vrrp_pid", n.path("vrrp.pid")}, more...)
	return n.lab.start(n.t, n.Name+"/keepalived", n.Dir, nil, argv...)
}

// Holds says whether an interface of the node carries the address; any interface with the name "".
func (n *Node) Holds(iface string, address netip.Addr) (bool, error) {
	names := []string{iface}
	if iface == "" {
		links, err := n.links.LinkList()
		if err != nil {
			return false, fmt.Errorf("list interfaces of %s: %w", n.Name, err)
		}
		names = nil
		for _, l := range links {
			names = append(names, l.Attrs().Name)
		}
	}
	for _, name := range names {
		prefixes, err := n.Addresses(name)
		if err != nil {
			return false, err
		}
		for _, p := range prefixes {
			if prefix, err := netip.ParsePrefix(p); err == nil && prefix.Addr() == address {
				return true, nil
			}
		}
	}
	return false, nil
}
