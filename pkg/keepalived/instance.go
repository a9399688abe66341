package keepalived

import (
	"net/netip"
	"strconv"
	"strings"
)

// instance is one vrrp_instance.
type instance struct {
	node     *node
	name     string
	out      *value
	master   bool // state MASTER
	priority int
	six      bool
	group    *node // vrrp_sync_group; nil: none
	weighs   bool  // weights of what it tracks count
	track    map[string]*value
	tracked  map[string]bool
}

// vrrp converts everything of the elections.
func (c *converter) vrrp(out *value) {
	var order []*instance
	for _, n := range c.tree.instanceNodes() {
		switch {
		case n.arg(1) == "":
			n.all(Unsupported, "it has no name")
		case c.instances[n.arg(1)] != nil:
			n.all(Unsupported, "there is an instance of this name already, at line %d, which keepalived uses", c.instances[n.arg(1)].node.at.number)
		default:
			i := &instance{node: n, out: mapping(n), weighs: true, track: map[string]*value{}, tracked: map[string]bool{}}
			i.name = c.name("instance", n.arg(1), n)
			c.instances[n.arg(1)] = i
			order = append(order, i)
		}
	}
	groups := c.syncGroups()
	list := sequenceOf()
	for _, i := range order {
		c.instance(i)
		list.add(i.out)
	}
	group := sequenceOf()
	for _, g := range groups {
		c.syncGroup(group, g)
	}
	for _, i := range order {
		track := mapping()
		for _, kind := range []string{"interfaces", "scripts", "files", "processes"} {
			track.set(kind, i.track[kind])
		}
		i.out.set("track", track)
	}
	out.set("scripts", c.scriptList())
	out.set("instances", list)
	out.set("sync_groups", group)
}

// instance converts one vrrp_instance.
func (c *converter) instance(i *instance) {
	n, o := i.node, i.out
	o.set("name", text(i.name))
	c.superseded(n)
	strict := c.strict(n)
	if s := n.find("state"); s != nil {
		i.master = s.arg(1) == "MASTER"
	}
	for _, list := range n.each("virtual_ipaddress") { // the family decides what else is possible
		for _, k := range list.kids {
			if a, _, ok := prefix(k.arg(0)); ok {
				i.six = a.Is6()
				break
			}
		}
	}
	if k := n.find("interface"); k != nil && valued(k) {
		o.set("interface", text(k.arg(1), k))
	} else if d := c.global.find("default_interface"); d != nil {
		o.set("interface", text(d.arg(1), d))
		n.note(Converted, "it has no interface; the default_interface is written")
	}
	version := c.version(i)
	if k := n.find("virtual_router_id"); k != nil {
		if v, ok := number(k, 1, 1, 255); ok {
			o.set("virtual_router_id", word(v, k))
		}
	}
	c.priority(i)
	c.interval(i, version)
	c.preemption(i)
	c.authentication(i, version, strict)
	c.downTimer(i)
	if d, from := c.globalSeconds("vrrp_startup_delay", 0, 1000); from != nil && d > 0 {
		o.set("startup_delay", duration(d, from))
	}
	var peers []*node
	for _, k := range n.kids {
		switch k.keyword() {
		case "interface", "virtual_router_id", "priority", "advert_int", "version", "nopreempt", "preempt_delay", "authentication",
			"down_timer_adverts", "strict_mode", "garp_master_delay", "garp_master_repeat", "garp_master_refresh", "garp_master_refresh_repeat",
			"garp_lower_prio_delay", "garp_lower_prio_repeat", "unicast_ttl": // done together with others
		case "state":
			c.state(i, k)
		case "mcast_src_ip", "unicast_src_ip":
			if valued(k) {
				o.set("source_address", text(k.arg(1), k))
				extra(k, 1)
			}
		case "unicast_peer":
			peers = append(peers, k)
		case "virtual_ipaddress":
			c.addresses(i, "virtual_addresses", k)
		case "virtual_ipaddress_excluded":
			c.addresses(i, "excluded_addresses", k)
		case "virtual_routes":
			c.routes(i, k)
		case "use_vmac":
			c.virtualMAC(i, k)
		case "accept":
			if strict {
				o.set("accept", word(true, k))
			} else {
				k.note(NotNeeded, "it is the default")
			}
		case "no_accept":
			o.set("accept", word(false, k))
		case "v3_checksum_as_v2":
			if on, ok := boolean(k, 1); ok && on && version == 3 && !i.six {
				o.set("checksum", word("rfc9568", k))
			} else if ok {
				k.note(NotNeeded, "it is for VRRP version 3 over IPv4")
			}
		case "track_interface", "track_script", "track_file", "track_process":
			c.trackBlock(i, k)
		case "smtp_alert": // alerts does it
		default:
			if hookKeys()[k.keyword()] == "" {
				c.rest(atInstance, k)
			}
		}
	}
	if strict && i.priority != 255 && n.find("accept", "no_accept") == nil {
		o.set("accept", word(false))
	}
	c.peers(i, peers)
	c.garp(i, strict)
	o.set("notify", c.hooks(n, hookKeys()))
	c.alert(n, i.name, "smtp_alert_vrrp", false)
}

func (c *converter) authentication(i *instance, version int, strict bool) {
	for _, block := range i.node.each("authentication") {
		block.done()
		c.superseded(block)
		kind, pass := block.find("auth_type"), block.find("auth_pass")
		for _, k := range block.kids {
			if k != kind && k != pass && k.keyword() != "auth_type" && k.keyword() != "auth_pass" {
				c.rest("authentication", k)
			}
			if strings.Contains(" "+k.value(), " auth_pass") {
				k.note(Converted, "keepalived reads one keyword of a line, so that auth_pass has no effect: its passwordless adverts are refused by who has one")
			}
		}
		why := ""
		switch {
		case version == 3 || i.six:
			why = "VRRP version 3 has no authentication, and keepalived uses none"
		case strict:
			why = "strict mode has no authentication, and keepalived uses none"
		case kind == nil || kind.arg(1) != "PASS" && kind.arg(1) != "AH":
			why = "without auth_type PASS keepalived uses no authentication"
		case kind.arg(1) == "AH":
			why = "only passwords are possible: change all directors to PASS or none before, at the same time"
			kind.note(Unsupported, "%s", why)
			if pass != nil {
				pass.note(Unsupported, "%s", why)
			}
			continue
		case pass == nil || pass.arg(1) == "":
			why = "without auth_pass keepalived uses no authentication"
		}
		if why != "" {
			for _, k := range []*node{kind, pass} {
				if k != nil {
					k.note(NotNeeded, "%s", why)
				}
			}
			continue
		}
		extra(pass, 1)
		password := pass.arg(1)
		if len(password) > 8 {
			password = password[:8]
			pass.note(Converted, "only its first 8 bytes are used")
		}
		auth := mapping(kind, pass)
		auth.set("type", word("pass"))
		v := text(password, pass)
		if v.scalar == password {
			v.scalar = strconv.Quote(password)
		}
		auth.set("password", v)
		i.out.set("authentication", auth)
	}
}

// peers writes unicast_peers, and the lowest TTL that adverts of theirs may have.
func (c *converter) peers(i *instance, blocks []*node) {
	ttl := i.node.find("unicast_ttl")
	list := sequenceOf()
	lowest, why := 255, (*node)(nil)
	for _, b := range blocks {
		b.done()
		for _, k := range b.kids {
			list.add(text(k.arg(0), k))
			for w := 1; w < len(k.words); w += 2 {
				switch v, err := strconv.Atoi(k.arg(w + 1)); {
				case k.arg(w) == "min_ttl" && err == nil && v >= 0 && v <= 255:
					lowest, why = min(lowest, max(v, 1)), k
				case k.arg(w) == "max_ttl":
					k.note(Unsupported, "max_ttl: there is no highest TTL")
				default:
					k.note(Unsupported, "keepalived doesn't know %s here", quote(k.arg(w)))
				}
			}
		}
	}
	if ttl != nil {
		v, ok := number(ttl, 1, 0, 255)
		switch {
		case !ok:
		case len(list.items) == 0:
			ttl.note(NotNeeded, "there are no unicast peers")
		case v < lowest:
			lowest, why = max(v, 1), ttl
			ttl.note(Converted, "adverts are always sent with 255; written is the lowest that is accepted, so that peers which send with %d are heard", v)
		default:
			ttl.note(NotNeeded, "adverts are always sent with 255")
		}
	}
	if len(list.items) == 0 {
		return
	}
	i.out.set("unicast_peers", list)
	if why == nil && i.six {
		lowest, why = 64, blocks[0]
		why.note(Converted, "unicast_ttl: 64 is written too, since keepalived 2.2.7 sends to IPv6 peers with that; take it out when all directors are xdirector")
	}
	if lowest < 255 {
		i.out.set("unicast_ttl", word(lowest, why))
	}
}

// prefix reads an address with or without a prefix length. A length that can't be is that of the address, as in keepalived.
func prefix(s string) (a netip.Addr, bits int, ok bool) {
	host, length, has := strings.Cut(s, "/")
	if a, ok = address(host); !ok {
		return a, 0, false
	}
	if bits = a.BitLen(); has {
		if v, err := strconv.Atoi(length); err == nil && 0 <= v && v <= a.BitLen() {
			bits = v
		} else {
			return a, -1, true
		}
	}
	return a, bits, true
}
