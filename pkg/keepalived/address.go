package keepalived

import (
	"net/netip"
	"slices"
	"strconv"
)

// addresses converts a block of virtual addresses, one on each line.
func (c *converter) addresses(i *instance, key string, block *node) {
	block.done()
	list := i.out.get(key)
	if list == nil {
		list = sequenceOf()
	}
	for _, k := range block.kids {
		a, bits, ok := prefix(k.arg(0))
		switch {
		case !ok:
			k.note(Unsupported, "%s is no IP address, and keepalived leaves it out", quote(k.arg(0)))
			continue
		case key == "virtual_addresses" && a.Is6() != i.six:
			k.note(Unsupported, "it is of another family than the first one, and keepalived leaves it out; write it into virtual_ipaddress_excluded, or into an instance of its own")
			continue
		case i.tracked["address "+a.String()]:
			k.note(NotNeeded, "the instance has %s already", a)
			continue
		case bits < 0:
			bits = a.BitLen()
			k.note(Converted, "the prefix length can't be, and keepalived takes %d", bits)
		}
		v := c.address(k, a, bits)
		if v == nil {
			continue
		}
		i.tracked["address "+a.String()] = true
		list.add(v)
	}
	i.out.set(key, list)
}

// address converts one line; nil: keepalived leaves it out.
func (c *converter) address(k *node, a netip.Addr, bits int) *value {
	m := mapping(k)
	whole := text(netip.PrefixFrom(a, bits).String(), k)
	m.set("address", whole)
	for w := 1; w < len(k.words); w++ {
		option := k.arg(w)
		if slices.Contains([]string{"brd", "broadcast", "dev", "scope", "label", "peer", "preferred_lft", "track_group"}, option) {
			w++
			if w == len(k.words) {
				k.note(Unsupported, "there is nothing behind %s, and keepalived leaves the address out", option)
				return nil
			}
		}
		switch arg := k.arg(w); option {
		case "dev":
			m.set("interface", text(arg))
		case "label":
			m.set("label", text(arg))
		case "scope":
			switch arg {
			case "global", "0":
			case "site", "link", "host":
				if a.Is4() {
					m.set("scope", word(arg))
				}
			default:
				k.note(Unsupported, "scope %s: scopes are global, site, link and host", arg)
			}
		case "brd", "broadcast":
			k.note(NotNeeded, "brd: the kernel knows the broadcast address by the prefix length")
		case "peer":
			k.note(Unsupported, "peer: the address has none here")
		case "use_vmac":
			k.note(Unsupported, "use_vmac: only the instance's own interface has a macvlan")
		case "preferred_lft":
			k.note(NotNeeded, "preferred_lft: a virtual address is never the one that this box begins connections from")
		case "no_track":
			k.note(NotNeeded, "no_track: an address that somebody takes away is put back")
		case "home", "-nodad", "nodad", "mngtmpaddr", "noprefixroute", "autojoin":
			k.note(Unsupported, "%s: the address has no such flag here", option)
		case "track_group":
			k.note(Unsupported, "track_group: it is for static addresses")
		default:
			k.note(Unsupported, "keepalived reads one address of a line, and leaves out %s", quote(option))
			w = len(k.words)
		}
	}
	if len(m.items) == 1 {
		return whole
	}
	return m
}

// routes converts virtual_routes, one on each line.
func (c *converter) routes(i *instance, block *node) {
	block.done()
	list := i.out.get("routes")
	if list == nil {
		list = sequenceOf()
	}
	for _, k := range block.kids {
		if v := c.route(i, k); v != nil {
			list.add(v)
		}
	}
	i.out.set("routes", list)
}

func (c *converter) route(i *instance, k *node) *value {
	m := mapping()
	six := i.six
	for w := 0; w < len(k.words); w++ {
		option, arg := k.arg(w), k.arg(w+1)
		switch option {
		case "inet6":
			six = true
			continue
		case "inet":
			six = false
			continue
		case "no_track":
			k.note(NotNeeded, "no_track: a route that somebody takes away is put back")
			continue
		case "src", "from":
			m.set("source", text(arg))
		case "via", "gw":
			if arg == "inet" || arg == "inet6" {
				w++
				arg = k.arg(w + 1)
			}
			m.set("via", text(arg))
		case "dev", "oif":
			m.set("interface", text(arg))
		case "metric", "priority", "preference":
			m.set("metric", word(digits(arg)))
		case "table":
			if number, ok := map[string]string{"main": "254", "default": "253", "local": "255"}[arg]; ok {
				arg = number
			}
			if _, err := strconv.ParseUint(arg, 10, 32); err != nil {
				k.note(Unsupported, "table %s has a name; write its number, which is in /etc/iproute2/rt_tables", arg)
				return nil
			}
			m.set("table", word(digits(arg)))
		case "proto", "protocol", "scope":
			k.note(NotNeeded, "%s: a route has that of its kind", option)
		case "to":
			m.set("destination", c.destination(arg, six))
		case "blackhole", "unreachable", "prohibit", "throw", "nexthop", "or", "tos", "dsfield", "mtu", "advmss", "encap", "vrf", "onlink", "rtt",
			"rttvar", "ssthresh", "cwnd", "initcwnd", "initrwnd", "window", "features", "quickack", "congctl", "rto_min", "hoplimit", "reordering",
			"realms", "expires", "pref", "fastopen_no_cookie", "ttl-propagate", "as", "lock", "weight", "append":
			k.note(Unsupported, "%s: routes have a destination, via, dev, src, metric and table", option)
			return nil
		default:
			v := c.destination(option, six)
			if m.get("destination") != nil || v == nil {
				k.note(Unsupported, "%s is none of the words of a route", quote(option))
				return nil
			}
			m.set("destination", v)
			continue
		}
		w++
	}
	if m.get("destination") == nil {
		k.note(Unsupported, "it has no destination")
		return nil
	}
	if m.get("interface") == nil && m.get("via") != nil {
		k.note(Converted, "without dev it is put on the interface of the instance, where keepalived lets the kernel choose one")
	}
	m.by([]*node{k})
	return m
}

// digits is a number as it is written, or what makes the reader of the output refuse it.
func digits(s string) string {
	if v, err := strconv.ParseUint(s, 10, 32); err == nil {
		return strconv.FormatUint(v, 10)
	}
	return text(s + "?").scalar
}

// destination is a network; nil: it is none.
func (c *converter) destination(s string, six bool) *value {
	if s == "default" && six {
		return text("::/0")
	}
	if s == "default" {
		return text("0.0.0.0/0")
	}
	a, bits, ok := prefix(s)
	if !ok || bits < 0 {
		return nil
	}
	return text(netip.PrefixFrom(a, bits).Masked().String())
}
