package keepalived

import (
	"math/bits"
	"slices"
	"strconv"
	"strings"
	"time"
)

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
		switch k.arg(1) {
		case "":
			on = true
		case "0":
			k.note(NotNeeded, "keepalived refuses 0, and the service is not persistent")
		default:
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
	switch {
	case !ok || !valid:
		k.note(Unsupported, "it is no address with a port, and keepalived leaves it out")
		return
	case a.IsLoopback():
		k.note(Unsupported, "the sorry server can't be reached by a loopback address; write that of another box that serves such a page on the service's port")
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
