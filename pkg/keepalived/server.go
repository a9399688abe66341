package keepalived

import (
	"math"
	"math/bits"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// target is what a virtual_server is for; a group has many.
type target struct {
	address netip.Addr
	port    int
	mark    uint32
	from    *node
}

// service is one virtual_server for one target.
type service struct {
	node       *node
	target     target
	out        *value
	forwarding string
	protocol   string
}

// virtualServer converts a virtual_server, for a group one service for each of its addresses.
func (c *converter) virtualServer(out *value, n *node) {
	if len(n.each("real_server")) == 0 {
		n.all(Unsupported, "it has no real_server, and keepalived leaves it out")
		return
	}
	targets, why := c.targets(n)
	if why != "" {
		n.all(Unsupported, "%s", why)
		return
	}
	c.superseded(n)
	for _, t := range targets {
		if s := c.service(n, t); s != nil {
			out.add(s)
		}
	}
	c.idle(n, "no real server has a check that it could be for")
}

// idle notes the words for checks that no check has had a use for.
func (c *converter) idle(n *node, why string) {
	for _, k := range n.kids {
		if slices.Contains(timing(), k.keyword()) && !c.heeded[k] {
			k.note(NotNeeded, "%s", why)
		}
	}
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

// leadingDigits is what keepalived makes of a number with something behind it.
func leadingDigits(s string) string {
	end := 0
	for end < len(s) && '0' <= s[end] && s[end] <= '9' {
		end++
	}
	return "0" + s[:end]
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

// service converts a virtual_server for one target; nil: nothing is left of it.
func (c *converter) service(n *node, t target) *value {
	s := &service{node: n, target: t, out: mapping(n, t.from)}
	o := s.out
	o.set("name", text(c.serviceName(s)))
	s.proto()
	if t.mark != 0 {
		o.set("firewall_mark", word(t.mark))
	} else {
		o.set("address", text(t.address.String()))
		o.set("port", word(t.port))
		o.set("protocol", word(s.protocol, n.find("protocol")))
	}
	c.scheduler(s)
	c.forwarding(s)
	c.persistence(s)
	c.timeouts(s)
	for _, k := range n.kids {
		switch k.keyword() {
		case "lb_algo", "lvs_sched", "lb_kind", "lvs_method", "protocol", "persistence_timeout", "persistence_granularity", "sorry_server",
			"sorry_server_lvs_method", "quorum", "hysteresis", "quorum_up", "quorum_down", "real_server", "virtualhost", "smtp_alert": // done together with others
		case "delay_loop", "connect_timeout", "retry", "delay_before_retry": // the checks do them
		case "snmp_name": // serviceName does it
		case "inhibit_on_failure": // realServers does it
		default:
			c.rest(atServer, k)
		}
	}
	c.sorryServer(s)
	o.set("notify", c.hooks(n, map[string]string{"quorum_up": "up", "quorum_down": "down"}))
	servers := c.realServers(s)
	c.quorum(s, servers)
	o.set("real_servers", servers)
	c.alert(n, o.get("name").unquoted(), "smtp_alert_checker", false)
	return o
}

// quorum keeps it within what the real servers weigh together, as keepalived does.
func (c *converter) quorum(s *service, servers *value) {
	total := 0
	for _, r := range servers.items {
		weight := 1
		if w := r.get("weight"); w != nil {
			weight, _ = atoi(w.scalar)
		}
		total += weight
	}
	quorum := 1
	if k := s.node.find("quorum"); k != nil {
		v, ok := number(k, 1, 1, math.MaxInt32)
		if quorum = max(v, 1); ok && v > total && total > 0 {
			quorum = total
			k.note(Converted, "it is %d, the weight of all real servers together, which keepalived reduces it to", total)
		}
		if ok {
			s.out.set("quorum", word(quorum, k))
		}
	}
	if k := s.node.find("hysteresis"); k != nil {
		v, ok := number(k, 1, 0, math.MaxInt32)
		if ok && v >= quorum {
			v = quorum - 1
			k.note(Converted, "it is %d, since it has to be less than the quorum, and keepalived reduces it", v)
		}
		if ok {
			s.out.set("hysteresis", word(v, k))
		}
	}
}

// unquoted is the text of a name, which never has escapes.
func (v *value) unquoted() string { return strings.Trim(v.scalar, `"`) }

// serviceName is snmp_name, or made of what the service is for.
func (c *converter) serviceName(s *service) string {
	k := s.node.find("snmp_name")
	if k != nil && k.arg(1) != "" {
		k.done()
		if s.target.from == nil {
			return c.unique("service", c.name("given", k.arg(1), k))
		}
	}
	s.proto()
	name := "mark-" + strconv.FormatUint(uint64(s.target.mark), 10)
	if s.target.mark == 0 {
		name = s.protocol + "-" + strings.Trim(strings.ReplaceAll(s.target.address.String(), ":", "-"), "-") + "-" + strconv.Itoa(s.target.port)
		if s.target.port == 0 {
			name = strings.TrimSuffix(name, "-0")
		}
	}
	return c.unique("service", name)
}

// unique is a name that nothing of that kind has yet.
func (c *converter) unique(kind, name string) string {
	for i := 1; ; i++ {
		try := name
		if i > 1 {
			try = name + "-" + strconv.Itoa(i)
		}
		if _, ok := c.names[kind][try]; !ok {
			return c.name(kind, try, nil)
		}
	}
}

// proto finds the protocol: without a word keepalived takes UDP.
func (s *service) proto() {
	s.protocol = "udp"
	k := s.node.valid([]string{"protocol"}, func(k *node) bool {
		return strings.EqualFold(k.arg(1), "tcp") || strings.EqualFold(k.arg(1), "udp") || strings.EqualFold(k.arg(1), "sctp")
	})
	switch {
	case s.target.mark != 0:
		if k != nil {
			k.note(NotNeeded, "a firewall mark says which packets are meant, whatever their protocol is")
		}
		return
	case k == nil:
		s.node.note(Converted, "without protocol keepalived takes UDP; if TCP was meant, write protocol TCP")
	case strings.EqualFold(k.arg(1), "tcp"), strings.EqualFold(k.arg(1), "udp"), strings.EqualFold(k.arg(1), "sctp"):
		s.protocol = strings.ToLower(k.arg(1))
	default:
		k.note(Unsupported, "%s is no protocol, and keepalived takes UDP", quote(k.arg(1)))
	}
}

// schedulers are those of keepalived.
func schedulers() []string {
	return []string{"rr", "wrr", "lc", "wlc", "lblc", "sh", "mh", "dh", "fo", "ovf", "lblcr", "sed", "nq", "twos"}
}

// valid is find for what keeps its last valid value in keepalived; without one it is the last of all.
func (n *node) valid(keywords []string, good func(*node) bool) *node {
	last := n.find(keywords...)
	for _, k := range n.kids {
		if slices.Contains(keywords, k.keyword()) && good(k) {
			last = k
		}
	}
	for _, k := range n.kids {
		if slices.Contains(keywords, k.keyword()) && k != last {
			k.note(NotNeeded, "line %d counts, the last one that keepalived can read", last.at.number)
		}
	}
	return last
}

// scheduler finds the scheduler: without a valid one keepalived takes wlc.
func (c *converter) scheduler(s *service) {
	k := s.node.valid([]string{"lb_algo", "lvs_sched"}, func(k *node) bool { return slices.Contains(schedulers(), k.arg(1)) })
	scheduler := "wlc"
	switch {
	case k == nil:
		s.node.note(Converted, "without lb_algo keepalived takes wlc")
	case slices.Contains([]string{"rr", "wrr", "lc", "wlc", "sh", "mh"}, k.arg(1)):
		scheduler = k.arg(1)
	case k.arg(1) == "sed" || k.arg(1) == "nq":
		k.note(Unsupported, "there is no scheduler %s; wlc is written, which is nearest to it", k.arg(1))
	case k.arg(1) == "fo" || k.arg(1) == "ovf":
		k.note(Unsupported, "there is no scheduler %s; wlc is written: for one server after the other write a sorry_server, and max_connections", k.arg(1))
	case slices.Contains([]string{"dh", "lblc", "lblcr", "twos"}, k.arg(1)):
		k.note(Unsupported, "there is no scheduler %s; wlc is written", k.arg(1))
	default:
		k.note(Unsupported, "%s is no scheduler, and keepalived takes wlc", quote(k.arg(1)))
	}
	s.out.set("scheduler", word(scheduler, k))
}

// method reads lb_kind; unknown ones are NAT, as none is.
func method(k *node) string {
	way := ""
	switch k.arg(1) {
	case "DR":
		way = "direct"
	case "NAT":
		way = "nat"
	case "TUN":
		way = "tunnel"
		if kind := strings.Join(k.words[2:], " "); kind != "" && kind != "type ipip" {
			k.note(Unsupported, "%s: a tunnel is ipip", kind)
		}
	default:
		k.note(Unsupported, "%s is none of DR, NAT and TUN, and keepalived takes NAT", quote(k.arg(1)))
		return "nat"
	}
	k.done()
	return way
}

// forwarding is one for the whole service, where keepalived has one for each real server.
func (c *converter) forwarding(s *service) {
	known := func(k *node) bool { return slices.Contains([]string{"DR", "NAT", "TUN"}, k.arg(1)) }
	k := s.node.valid([]string{"lb_kind", "lvs_method"}, known)
	usual := "nat"
	if k != nil {
		usual = method(k)
	}
	ways := map[string]*node{}
	for _, r := range s.node.each("real_server") {
		way, from := usual, k
		if own := r.valid([]string{"lb_kind", "lvs_method"}, known); own != nil {
			way, from = method(own), own
		}
		if _, ok := ways[way]; !ok {
			ways[way] = from
		}
	}
	s.forwarding = usual
	if len(ways) == 1 {
		for way, from := range ways {
			s.forwarding, k = way, from
		}
	} else {
		for way, from := range ways {
			if way != usual && from != nil {
				from.note(Unsupported, "a service has one way of forwarding for all its real servers, and it is %s", s.forwarding)
			}
		}
	}
	at := s.node
	if k != nil {
		at = k
	}
	switch {
	case k == nil:
		at.note(Converted, "without lb_kind keepalived takes NAT; if direct return was meant, write lb_kind DR")
	case s.forwarding == "direct" && !c.direct && s.protocol != "sctp" && s.target.mark == 0:
		c.direct = true
		at.note(Converted, "direct return is done by XDP, which sees the packets before the rules of nftables or iptables do: what those drop for a virtual address, write as allow and deny")
	}
	if s.forwarding != "direct" {
		at.note(Converted, "%s is done by the kernel's IPVS, as before", map[string]string{"nat": "NAT", "tunnel": "the tunnel"}[s.forwarding])
	}
	s.out.set("forwarding", word(s.forwarding, k))
}

func (c *converter) persistence(s *service) {
	k, mask := s.node.find("persistence_timeout"), s.node.find("persistence_granularity")
	timeout, on := 360, false
	if k != nil {
		on = true
		if k.arg(1) != "" {
			timeout, on = number(k, 1, 1, 2678400)
		}
	}
	switch {
	case on:
	case mask != nil:
		on, timeout = true, 360
		mask.note(Converted, "keepalived makes the service persistent by this, with a persistence_timeout of 360s")
	case s.target.mark == 0 && s.target.port == 0:
		on, timeout = true, 360
		s.node.note(Converted, "without a port it is for all ports, and persistent: keepalived takes a persistence_timeout of 360s")
	}
	if !on {
		return
	}
	p := mapping(k)
	p.set("timeout", duration(time.Duration(timeout)*time.Second))
	if mask != nil {
		if n, ok := granularity(mask.arg(1)); ok {
			p.set("prefix", word(n, mask))
			if v4 := s.target.mark == 0 && s.target.address.Is4(); v4 && !strings.Contains(mask.arg(1), ".") {
				mask.note(Converted, "keepalived takes it for the netmask 0.0.0.%d; written is what was meant", n)
			}
		} else {
			mask.note(Unsupported, "%s is no netmask of neighbouring bits and no length of a prefix", quote(mask.arg(1)))
		}
	}
	s.out.set("persistence", p)
}

// granularity reads a netmask like 255.255.255.0, or the length of a prefix.
func granularity(s string) (int, bool) {
	if v, err := strconv.Atoi(s); err == nil {
		return v, 1 <= v && v <= 128
	}
	a, ok := address(s)
	if !ok || !a.Is4() {
		return 0, false
	}
	raw := a.As4()
	m := uint32(raw[0])<<24 | uint32(raw[1])<<16 | uint32(raw[2])<<8 | uint32(raw[3])
	n := bits.LeadingZeros32(^m)
	return n, n > 0 && m<<n == 0
}

// timeouts writes lvs_timeouts into the services that XDP does; IPVS has those of the kernel.
func (c *converter) timeouts(s *service) {
	k := c.global.find("lvs_timeouts")
	if k == nil {
		return
	}
	if s.forwarding != "direct" || s.target.mark != 0 || s.protocol == "sctp" {
		k.note(Converted, "services on IPVS have the timeouts of the kernel: ipvsadm --set")
		return
	}
	m := mapping(k)
	for w := 1; w+1 < len(k.words); w += 2 {
		v, ok := atoi(k.arg(w + 1))
		key := map[string]string{"tcp tcp": "established", "tcp tcpfin": "closing", "udp udp": "udp"}[s.protocol+" "+k.arg(w)]
		if ok && v > 0 && key != "" {
			m.set(key, duration(time.Duration(v)*time.Second))
		}
	}
	s.out.set("timeouts", m)
}

func (c *converter) sorryServer(s *service) {
	k := s.node.find("sorry_server")
	if w := s.node.find("sorry_server_lvs_method"); w != nil && (k == nil || method(w) != s.forwarding) {
		w.note(Unsupported, "the sorry server is forwarded to as the real servers are: %s", s.forwarding)
	}
	if k == nil {
		return
	}
	a, ok := address(k.arg(1))
	p, valid := port(k.arg(2))
	if !ok || !valid {
		k.note(Unsupported, "it is no address with a port, and keepalived leaves it out")
		return
	}
	m := mapping(k)
	m.set("address", text(a.String()))
	if s.forwarding == "nat" && p != 0 && p != s.target.port {
		m.set("port", word(p))
	} else if p != 0 && p != s.target.port {
		k.note(Converted, "without its port %d, since only NAT changes ports", p)
	}
	s.out.set("sorry_server", m)
}

// realServers converts the real servers. What all of them have in common is written once, in the service.
func (c *converter) realServers(s *service) *value {
	list := sequenceOf()
	var checks []*value
	have := map[string]*node{}
	inhibit, servers := []*node(nil), 0
	usual := s.node.find("inhibit_on_failure")
	if usual != nil {
		on, ok := boolean(usual, 1)
		if ok {
			usual.done()
		}
		if !on {
			usual = nil
		}
	}
	for _, r := range s.node.each("real_server") {
		a, ok := address(r.arg(1))
		p, valid := port(r.arg(2))
		family := s.target.mark == 0 && ok && a.Is4() != s.target.address.Is4()
		switch {
		case !ok || !valid:
			r.all(Unsupported, "it is no address with a port, and keepalived leaves it out")
			continue
		case family:
			r.all(Unsupported, "it is of another family than the virtual address, and keepalived leaves it out")
			continue
		case have[a.String()+" "+strconv.Itoa(p)] != nil:
			r.all(NotNeeded, "it is a real server of this service already, at line %d", have[a.String()+" "+strconv.Itoa(p)].at.number)
			continue
		}
		have[a.String()+" "+strconv.Itoa(p)] = r
		servers++
		v, check, keep := c.realServer(s, r, a, p, usual)
		if keep != nil {
			inhibit = append(inhibit, keep)
		}
		list.add(v)
		checks = append(checks, check)
		name := s.out.get("name").unquoted() + "/" + a.String()
		c.alert(r, name, "smtp_alert_checker", true)
	}
	if len(inhibit) > 0 {
		s.out.set("on_down", word("keep-weight-0", inhibit...))
		if len(inhibit) < servers {
			inhibit[0].note(Unsupported, "on_down: keep-weight-0 is written, for all real servers of the service")
		}
	}
	c.common(s, list, checks)
	return list
}

// common writes the check of all real servers into the service if it is one, else into each of them.
func (c *converter) common(s *service, list *value, checks []*value) {
	same := len(checks) > 0
	for _, v := range checks {
		same = same && v != nil && checks[0] != nil && v.flow(math.MaxInt) == checks[0].flow(math.MaxInt)
	}
	if same {
		for _, v := range checks[1:] {
			checks[0].absorb(v)
		}
		s.out.set("check", checks[0])
		return
	}
	for i, v := range checks {
		list.items[i].set("check", v)
	}
}

// absorb notes that v was made of what an equal value was made of too.
func (v *value) absorb(other *value) {
	v.from = append(v.from, other.from...)
	for i, item := range v.items {
		item.absorb(other.items[i])
	}
}

// realServer converts one real server, and its check, which is nil if it has none. Keep is what says that its connections stay when
// it goes down.
func (c *converter) realServer(s *service, r *node, a netip.Addr, p int, usual *node) (v, check *value, keep *node) {
	v = mapping(r)
	extra(r, 2)
	c.superseded(r)
	v.set("address", text(a.String()))
	to := p
	switch {
	case p == 0:
		to = s.target.port
	case s.forwarding == "nat":
		if p != s.target.port {
			v.set("port", word(p))
		}
	case p != s.target.port:
		r.note(Converted, "without NAT a packet keeps its port, and keepalived resets that of the real server; only a check still goes to port %d", p)
	}
	keep = usual
	for _, k := range r.kids {
		switch k.keyword() {
		case "weight":
			w, ok := atoi(k.arg(1))
			if !ok || w < 0 {
				w, _ = atoi(leadingDigits(k.arg(1)))
				k.note(Converted, "%s is no weight, and keepalived takes %d", quote(k.arg(1)), w)
			}
			if w > 65535 {
				k.note(Converted, "weights go up to 65535, which is written")
			}
			v.set("weight", word(min(w, 65535), k))
		case "uthreshold":
			if w, ok := number(k, 1, 0, math.MaxInt32); ok && w > 0 {
				v.set("max_connections", word(w, k))
			} else if ok {
				k.note(NotNeeded, "0 is no limit")
			}
		case "inhibit_on_failure":
			if on, ok := boolean(k, 1); ok {
				keep = nil
				if k.done(); on {
					keep = k
				}
			}
		case "lvs_method", "lb_kind", "notify_up", "notify_down", "virtualhost", "smtp_alert", "delay_loop", "connect_timeout", "retry", "delay_before_retry":
			// done together with others
		default:
			if !slices.Contains(checks(), k.keyword()) {
				c.rest(atReal, k)
			}
		}
	}
	v.set("notify", c.hooks(r, map[string]string{"notify_up": "up", "notify_down": "down"}))
	check = c.check(s, r, to)
	c.idle(r, "it has no check that it could be for")
	return v, check, keep
}
