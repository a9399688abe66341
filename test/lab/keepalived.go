package lab

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"time"
)

// Keepalived is the VRRP instance of a keepalived peer.
type Keepalived struct {
	Version      int // 2 or 3
	VRID         uint8
	Priority     uint8
	Interval     time.Duration
	Password     string // v2: PASS
	Addresses    []string
	InitialState string // MASTER or BACKUP; BACKUP if empty
}

// StartKeepalived runs Debian's keepalived on the node, its VRRP part alone. Its log has every change of state, as
// "Entering MASTER STATE".
func (n *Node) StartKeepalived(k Keepalived) (*Process, error) {
	state := k.InitialState
	if state == "" {
		state = "BACKUP"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "global_defs {\n    router_id %s\n}\n", n.Name)
	fmt.Fprintf(&b, "vrrp_instance VI_1 {\n    state %s\n    interface eth0\n    version %d\n", state, k.Version)
	fmt.Fprintf(&b, "    virtual_router_id %d\n    priority %d\n    advert_int %g\n", k.VRID, k.Priority, k.Interval.Seconds())
	if k.Password != "" {
		fmt.Fprintf(&b, "    authentication {\n        auth_type PASS\n        auth_pass %s\n    }\n", k.Password)
	}
	b.WriteString("    virtual_ipaddress {\n")
	for _, a := range k.Addresses {
		fmt.Fprintf(&b, "        %s\n", a)
	}
	b.WriteString("    }\n}\n")
	conf := n.path("keepalived.conf")
	if err := os.WriteFile(conf, []byte(b.String()), 0o644); err != nil {
		return nil, fmt.Errorf("start keepalived on %s: %w", n.Name, err)
	}
	// Those of a killed one count as long as nobody has reaped its children.
	for _, file := range []string{"keepalived.pid", "vrrp.pid"} {
		if err := os.Remove(n.path(file)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("start keepalived on %s: %w", n.Name, err)
		}
	}
	return n.lab.start(n.t, n.Name+"/keepalived", n.Dir, nil, "keepalived", "--dont-fork", "--log-console", "--log-detail",
		"--vrrp", "--use-file", conf, "--pid", n.path("keepalived.pid"), "--vrrp_pid", n.path("vrrp.pid"))
}

// Holds says whether an interface of the node carries the address.
func (n *Node) Holds(iface string, address netip.Addr) (bool, error) {
	prefixes, err := n.Addresses(iface)
	if err != nil {
		return false, err
	}
	for _, p := range prefixes {
		if prefix, err := netip.ParsePrefix(p); err == nil && prefix.Addr() == address {
			return true, nil
		}
	}
	return false, nil
}
