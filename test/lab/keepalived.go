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

// KeepalivedServices are the virtual servers of a keepalived that balances by IPVS. Direct return, rr and a TCP check
// every 200 ms are fixed; a real server counts as down until its first check.
type KeepalivedServices []Service

func (s KeepalivedServices) text(b *strings.Builder) {
	for _, service := range s {
		fmt.Fprintf(b, "virtual_server %s %d {\n    delay_loop 0.2\n    lb_algo rr\n    lb_kind DR\n    protocol TCP\n    alpha\n", service.Address, service.Port)
		for _, r := range service.RealServers {
			fmt.Fprintf(b, "    real_server %s %d {\n        weight 1\n        TCP_CHECK {\n            connect_timeout 3\n        }\n    }\n", r.Address, service.Port)
		}
		b.WriteString("}\n")
	}
}

// ConfigureKeepalived writes the configuration file of the node's keepalived; a running one reads it at SIGHUP.
func (n *Node) ConfigureKeepalived(instances ...Keepalived) error {
	return n.ConfigureBalancingKeepalived(nil, instances...)
}

// ConfigureBalancingKeepalived is ConfigureKeepalived for one with services.
func (n *Node) ConfigureBalancingKeepalived(services KeepalivedServices, instances ...Keepalived) error {
	var b strings.Builder
	fmt.Fprintf(&b, "global_defs {\n    router_id %s\n}\n", n.Name)
	for _, k := range instances {
		k.text(&b)
	}
	services.text(&b)
	if err := os.WriteFile(n.path("keepalived.conf"), []byte(b.String()), 0o644); err != nil {
		return fmt.Errorf("configure keepalived on %s: %w", n.Name, err)
	}
	return nil
}

// StartKeepalived runs Debian's keepalived on the node, its VRRP part alone. Its log has every change of state, as
// "(VI_1) Entering MASTER STATE".
func (n *Node) StartKeepalived(instances ...Keepalived) (*Process, error) {
	return n.startKeepalived(nil, instances, "--vrrp", "--log-detail")
}

// StartQuietKeepalived is StartKeepalived with as little in the log as keepalived writes by default.
func (n *Node) StartQuietKeepalived(instances ...Keepalived) (*Process, error) {
	return n.startKeepalived(nil, instances, "--vrrp")
}

// StartBalancingKeepalived is StartKeepalived with all of keepalived: it checks real servers and balances the services
// by IPVS, which the kernel must have.
func (n *Node) StartBalancingKeepalived(services KeepalivedServices, instances ...Keepalived) (*Process, error) {
	return n.startKeepalived(services, instances, "--log-detail", "--checkers_pid", n.path("checkers.pid"))
}

// StartKeepalivedFile is StartKeepalived with a whole configuration file, and with more options: --vrrp is not among its own.
func (n *Node) StartKeepalivedFile(text string, more ...string) (*Process, error) {
	if err := os.WriteFile(n.path("keepalived.conf"), []byte(text), 0o644); err != nil {
		return nil, fmt.Errorf("configure keepalived on %s: %w", n.Name, err)
	}
	return n.runKeepalived(append(more, "--log-detail", "--checkers_pid", n.path("checkers.pid"))...)
}

func (n *Node) startKeepalived(services KeepalivedServices, instances []Keepalived, more ...string) (*Process, error) {
	if err := n.ConfigureBalancingKeepalived(services, instances...); err != nil {
		return nil, err
	}
	return n.runKeepalived(more...)
}

func (n *Node) runKeepalived(more ...string) (*Process, error) {
	// Those of a killed one count as long as nobody has reaped its children.
	for _, file := range []string{"keepalived.pid", "vrrp.pid", "checkers.pid"} {
		if err := os.Remove(n.path(file)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("start keepalived on %s: %w", n.Name, err)
		}
	}
	argv := append([]string{"keepalived", "--dont-fork", "--log-console",
		"--use-file", n.path("keepalived.conf"), "--pid", n.path("keepalived.pid"), "--vrrp_pid", n.path("vrrp.pid")}, more...)
	return n.lab.start(n.t, n.Name+"/keepalived", n.Dir, nil, argv...)
}

// IPVSRealServers is the number of real servers that the node's IPVS balances to, whoever has put them there.
func (n *Node) IPVSRealServers() (int, error) {
	var table []byte
	err := n.t.do(func() (err error) {
		table, err = os.ReadFile("/proc/thread-self/net/ip_vs")
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("look at IPVS of %s: %w", n.Name, err)
	}
	// The title has an arrow too.
	return max(strings.Count(string(table), "\n  -> ")-1, 0), nil
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
