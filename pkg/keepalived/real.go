package keepalived

import (
	"math"
	"net/netip"
	"slices"
	"strconv"
)

// idle notes the words for checks that no check has had a use for.
func (c *converter) idle(n *node, why string) {
	for _, k := range n.kids {
		if slices.Contains(timing(), k.keyword()) && !c.heeded[k] {
			k.note(NotNeeded, "%s", why)
		}
	}
}

// leadingDigits is what keepalived makes of a number with something behind it.
func leadingDigits(s string) string {
	end := 0
	for end < len(s) && '0' <= s[end] && s[end] <= '9' {
		end++
	}
	return "0" + s[:end]
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
