package keepalived

import (
	"math"
	"net/netip"
	"strconv"
	"strings"
	"time"
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

// strict says whether the instance keeps to the letter of the RFC, which takes some things away.
func (c *converter) strict(n *node) bool {
	on := false
	if g := c.global.find("vrrp_strict"); g != nil {
		on = true
		g.note(Unsupported, "there is no strict mode; what it takes away is left out, and accept: false written where no accept is")
	}
	if k := n.find("strict_mode"); k != nil {
		if v, ok := boolean(k, 1); ok {
			if on = v; !on {
				k.note(NotNeeded, "there is no strict mode")
			} else {
				k.note(Unsupported, "there is no strict mode; what it takes away is left out, and accept: false written where no accept is")
			}
		}
	}
	return on
}

// state says nothing about who is MASTER, but has two side effects.
func (c *converter) state(i *instance, k *node) {
	switch {
	case k.arg(1) != "MASTER" && k.arg(1) != "BACKUP":
		k.note(NotNeeded, "%s is no state, so that keepalived takes BACKUP, which everybody starts as", quote(k.arg(1)))
	case i.master && i.priority == 255 && i.node.find("priority") == nil: // priority has told
	case i.master && i.priority == 255:
		k.note(NotNeeded, "priority 255 becomes MASTER at once in any case")
	case i.master:
		k.note(NotNeeded, "it has no effect on who is MASTER: every director starts as BACKUP, and the priority decides")
	default:
		k.note(NotNeeded, "every director starts as BACKUP")
	}
}

// version is 2 or 3; IPv6 is always 3 here.
func (c *converter) version(i *instance) int {
	version, from := c.globalNumber("vrrp_version", 2, 3)
	if k := i.node.find("version"); k != nil {
		if v, ok := number(k, 1, 2, 3); ok {
			k.done()
			version, from = v, k
		}
	}
	if from == nil {
		version = 2
	}
	if i.six {
		if version == 2 && from != nil && from.keyword() == "version" {
			from.note(Unsupported, "IPv6 is VRRP version 3; keepalived speaks a version 2 of its own with it, so change all directors of this instance at the same time")
		}
		return 3
	}
	if version == 3 {
		i.out.set("version", word(3, from))
	}
	return version
}

func (c *converter) priority(i *instance) {
	i.priority = 100
	k := i.node.find("priority")
	if k != nil {
		if v, ok := number(k, 1, 1, 255); ok {
			extra(k, 1)
			i.priority = v
			i.out.set("priority", word(v, k))
			return
		}
	}
	// What is not a priority counts as none written, and then the state decides.
	if i.master {
		i.priority = 255
		at := i.node.find("state")
		i.out.set("priority", word(255))
		at.note(Converted, "without a priority, state MASTER gives priority 255, which is for who owns the addresses: write a lower one here and in keepalived")
		return
	}
	i.out.set("priority", word(100, k))
}

// interval is rounded as keepalived does: to whole seconds in version 2, to hundredths in version 3.
func (c *converter) interval(i *instance, version int) {
	k := i.node.find("advert_int")
	if k == nil {
		return
	}
	d, ok := seconds(k, 1, 0.01, 255)
	if !ok {
		return
	}
	extra(k, 1)
	step, high := time.Second, 255*time.Second
	if version == 3 {
		step, high = 10*time.Millisecond, 40950*time.Millisecond
	}
	rounded := min(max(time.Duration(math.Round(float64(d)/float64(step)))*step, step), high)
	if rounded != d {
		k.note(Converted, "it is %s: version %d has steps of %s, which keepalived rounds to", rounded, version, step)
	}
	i.out.set("advert_interval", duration(rounded, k))
}

func (c *converter) preemption(i *instance) {
	no, delay := i.node.find("nopreempt"), i.node.find("preempt_delay")
	if p := i.node.find("preempt"); p != nil && no != nil && later(i.node, p, no) {
		no.note(NotNeeded, "preempt takes its effect away, at line %d", p.at.number)
		no = nil
	}
	if no != nil {
		extra(no, 0)
		switch {
		case i.master:
			no.note(NotNeeded, "it has no effect in keepalived beside state MASTER: this director does preempt; if it shall not, write state BACKUP there, and preempt: false here")
			no = nil
		case i.priority == 255:
			no.note(NotNeeded, "it has no effect with priority 255")
			no = nil
		default:
			i.out.set("preempt", word(false, no))
		}
	}
	if delay != nil {
		d, ok := seconds(delay, 1, 0, 1000)
		switch {
		case !ok:
		case i.master:
			delay.note(NotNeeded, "it has no effect in keepalived beside state MASTER; if it shall have one, write state BACKUP there, and preempt_delay here")
		case no != nil:
			delay.note(NotNeeded, "it has no effect beside nopreempt")
		default:
			i.out.set("preempt_delay", duration(d, delay))
		}
	}
}

// later says whether a stands behind b.
func later(block, a, b *node) bool {
	for _, k := range block.kids {
		if k == a {
			return false
		}
		if k == b {
			return true
		}
	}
	return false
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

func (c *converter) downTimer(i *instance) {
	v, from := c.globalNumber("vrrp_down_timer_adverts", 1, 100)
	if k := i.node.find("down_timer_adverts"); k != nil {
		if own, ok := number(k, 1, 1, 100); ok {
			v, from = own, k
		}
	}
	if from != nil {
		i.out.set("down_timer_adverts", word(v, from))
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

// garp writes what differs from the defaults, which are keepalived's.
func (c *converter) garp(i *instance, strict bool) {
	g := mapping()
	const most = 1000
	type setting[T any] struct {
		v    T
		from *node
	}
	delay, lowerDelay := setting[time.Duration]{5 * time.Second, nil}, setting[time.Duration]{}
	repeat, lowerRepeat := setting[int]{5, nil}, setting[int]{}
	if k := c.global.find("vrrp_min_garp"); k != nil {
		if on, ok := boolean(k, 1); ok && !on {
			k.done()
		} else if ok {
			k.done()
			delay, repeat = setting[time.Duration]{0, k}, setting[int]{1, k}
		}
	}
	if d, from := c.globalSeconds("vrrp_garp_master_delay", 0, most); from != nil {
		delay = setting[time.Duration]{d, from}
	}
	if v, from := c.globalNumber("vrrp_garp_master_repeat", 1, 100); from != nil {
		repeat = setting[int]{v, from}
	}
	// A lower MASTER's follow those of global_defs, not those of the instance.
	lowerDelay, lowerRepeat = delay, repeat
	if d, from := c.globalSeconds("vrrp_garp_lower_prio_delay", 0, most); from != nil {
		lowerDelay = setting[time.Duration]{d, from}
	}
	if v, from := c.globalNumber("vrrp_garp_lower_prio_repeat", 0, 100); from != nil {
		lowerRepeat = setting[int]{v, from}
	}
	refresh, refreshFrom := c.globalSeconds("vrrp_garp_master_refresh", 0, 86400)
	refreshRepeat, refreshRepeatFrom := c.globalNumber("vrrp_garp_master_refresh_repeat", 1, 100)
	for _, k := range i.node.kids {
		switch k.keyword() {
		case "garp_master_delay":
			if d, ok := seconds(k, 1, 0, most); ok {
				k.done()
				delay = setting[time.Duration]{d, k}
			}
		case "garp_master_repeat":
			if v, ok := number(k, 1, 1, 100); ok {
				k.done()
				repeat = setting[int]{v, k}
			}
		case "garp_lower_prio_delay":
			if d, ok := seconds(k, 1, 0, most); ok {
				k.done()
				lowerDelay = setting[time.Duration]{d, k}
			}
		case "garp_lower_prio_repeat":
			if v, ok := number(k, 1, 0, 100); ok {
				k.done()
				lowerRepeat = setting[int]{v, k}
			}
		case "garp_master_refresh":
			if d, ok := seconds(k, 1, 0, 86400); ok {
				k.done()
				refresh, refreshFrom = d, k
			}
		case "garp_master_refresh_repeat":
			if v, ok := number(k, 1, 1, 100); ok {
				k.done()
				refreshRepeat, refreshRepeatFrom = v, k
			}
		}
	}
	if strict {
		lowerRepeat = setting[int]{0, nil}
	}
	if repeat.from != nil {
		g.set("repeat", word(repeat.v, repeat.from))
	}
	if delay.from != nil {
		g.set("delay", duration(delay.v, delay.from))
	}
	if refreshFrom != nil && refresh > 0 {
		g.set("refresh", duration(max(refresh.Round(time.Second), time.Second), refreshFrom))
	}
	if refreshRepeatFrom != nil {
		g.set("refresh_repeat", word(refreshRepeat, refreshRepeatFrom))
	}
	keyword, other := "vrrp_garp_interval", "vrrp_gna_interval"
	if i.six {
		keyword, other = other, keyword
	}
	if d, from := c.globalSeconds(keyword, 0, 1); from != nil && d > 0 {
		g.set("interval", duration(d, from))
	}
	if k := c.global.find(other); k != nil && !k.at.used {
		k.note(NotNeeded, "no instance is of that family")
	}
	if lowerRepeat.v != repeat.v {
		g.set("lower_priority_repeat", word(lowerRepeat.v, lowerRepeat.from))
	}
	if lowerDelay.v != delay.v {
		g.set("lower_priority_delay", duration(lowerDelay.v, lowerDelay.from))
	}
	i.out.set("garp", g)
}

func (c *converter) virtualMAC(i *instance, k *node) {
	name := ""
	for _, w := range k.words[1:] {
		if strings.Count(w, ":") >= 4 {
			k.note(Unsupported, "the MAC follows from virtual_router_id and can't be another one")
			continue
		}
		name = w
	}
	if name == "" {
		i.out.set("virtual_mac", word(true, k))
		k.note(Converted, "keepalived calls the macvlan vrrp.%s, here it is vrrp%d-%[1]s", i.node.find("virtual_router_id").arg2(), map[bool]int{false: 4, true: 6}[i.six])
		return
	}
	m := mapping(k)
	m.set("name", text(name))
	i.out.set("virtual_mac", m)
}

// arg2 is the value of a statement that may not be there.
func (n *node) arg2() string {
	if n == nil {
		return "VRID"
	}
	return n.arg(1)
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
