package keepalived

import (
	"net/netip"
	"strconv"
	"strings"
)

// target is what a virtual_server is for; a group has many.
type target struct {
	address netip.Addr
	port    int
	mark    uint32
	from    *node
}

// targets reads IP [PORT], fwmark N or group NAME.
func (c *converter) targets(n *node) ([]target, string) {
	switch n.arg(1) {
	case "":
		return nil, "it has no address"
	case "fwmark":
		v, err := strconv.ParseUint(n.arg(2), 10, 32)
		if err != nil || v == 0 {
			return nil, quote(n.arg(2)) + " is no firewall mark of 1 to 4294967295"
		}
		extra(n, 2)
		return []target{{mark: uint32(v)}}, ""
	case "group":
		g := c.groups[n.arg(2)]
		if g == nil {
			return nil, "there is no virtual_server_group " + quote(n.arg(2))
		}
		extra(n, 2)
		if list := c.groupTargets(g); len(list) > 0 {
			return list, ""
		}
		return nil, "the group " + quote(n.arg(2)) + " has no address that could be converted"
	}
	a, ok := address(n.arg(1))
	port, valid := port(n.arg(2))
	switch {
	case !ok:
		return nil, quote(n.arg(1)) + " is no IP address, and keepalived leaves the virtual_server out"
	case !valid:
		return nil, quote(n.arg(2)) + " is no port of 1 to 65535, and keepalived leaves the virtual_server out"
	}
	extra(n, 2)
	return []target{{address: a, port: port}}, ""
}

// port reads a port, or nothing: 0 for all ports.
func port(s string) (int, bool) {
	if s == "" {
		return 0, true
	}
	v, err := strconv.ParseUint(s, 10, 16)
	return int(v), err == nil
}

// maxRange is how many addresses of a range become a service each.
const maxRange = 256

// groupTargets lists what a virtual_server_group stands for.
func (c *converter) groupTargets(g *node) []target {
	g.done()
	c.inUse[g] = true
	var list []target
	for _, k := range g.kids {
		if k.keyword() == "fwmark" {
			if v, err := strconv.ParseUint(k.arg(1), 10, 32); err == nil && v > 0 {
				list = append(list, target{mark: uint32(v), from: k})
			} else {
				k.note(Unsupported, "%s is no firewall mark of 1 to 4294967295", quote(k.arg(1)))
			}
			continue
		}
		p, valid := port(k.arg(1))
		first, last, ok := addressRange(k.arg(0))
		if !ok || !valid {
			k.note(Unsupported, "it is no address or range of addresses with a port, and keepalived leaves it out")
			continue
		}
		extra(k, 1)
		for a, n := first, 0; ; a, n = a.Next(), n+1 {
			if n == maxRange {
				k.note(Unsupported, "the range has more than %d addresses; write one service for the network, like address: %s/24", maxRange, first)
				break
			}
			list = append(list, target{address: a, port: p, from: k})
			if a == last {
				break
			}
		}
	}
	return list
}

// addressRange reads A, A-N, A-B or A/BITS.
func addressRange(s string) (first, last netip.Addr, ok bool) {
	if p, err := netip.ParsePrefix(s); err == nil {
		first = p.Masked().Addr()
		raw := first.AsSlice()
		for i := p.Bits(); i < len(raw)*8; i++ {
			raw[i/8] |= 0x80 >> (i % 8)
		}
		last, _ = netip.AddrFromSlice(raw)
		return p.Addr(), last, true
	}
	from, to, has := strings.Cut(s, "-")
	if first, ok = address(from); !ok || !has {
		return first, first, ok
	}
	if last, ok = address(to); ok {
		return first, last, first.Is4() == last.Is4() && first.Compare(last) <= 0
	}
	if first.Is4() {
		v, err := strconv.ParseUint(to, 10, 8)
		raw := first.As4()
		raw[3] = byte(v)
		last = netip.AddrFrom4(raw)
		return first, last, err == nil && first.Compare(last) <= 0
	}
	v, err := strconv.ParseUint(to, 16, 16)
	raw := first.As16()
	raw[14], raw[15] = byte(v>>8), byte(v)
	last = netip.AddrFrom16(raw)
	return first, last, err == nil && first.Compare(last) <= 0
}
