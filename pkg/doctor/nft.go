package doctor

import (
	"encoding/json"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
)

// nftObject is one of the things that `nft -j list ruleset` lists.
type nftObject struct {
	Chain *nftChain `json:"chain"`
	Rule  *struct {
		Family string            `json:"family"`
		Table  string            `json:"table"`
		Chain  string            `json:"chain"`
		Handle int               `json:"handle"`
		Expr   []json.RawMessage `json:"expr"`
	} `json:"rule"`
	Set *nftSet `json:"set"`
	Map *nftSet `json:"map"`
}

type nftChain struct {
	Family string `json:"family"`
	Table  string `json:"table"`
	Name   string `json:"name"`
	Hook   string `json:"hook"`
	Prio   int    `json:"prio"`
	Policy string `json:"policy"`
	Device any    `json:"dev"`
}

type nftSet struct {
	Family string `json:"family"`
	Table  string `json:"table"`
	Name   string `json:"name"`
	Elem   []any  `json:"elem"`
}

// parseNFT reads what `nft -j list ruleset` prints.
func parseNFT(text []byte) (ruleset, error) {
	var list struct {
		Objects []nftObject `json:"nftables"`
	}
	if err := json.Unmarshal(text, &list); err != nil {
		return nil, fmt.Errorf("read what nft prints: %w", err)
	}
	p := nftParser{sets: map[string][]any{}}
	key := func(family, table, name string) string { return family + " " + table + " " + name }
	var all ruleset
	for _, o := range list.Objects {
		for _, s := range []*nftSet{o.Set, o.Map} {
			if s != nil {
				p.sets[key(s.Family, s.Table, s.Name)] = s.Elem
			}
		}
		if c := o.Chain; c != nil {
			device, _ := c.Device.(string) // several devices: not known
			all = append(all, chain{family: c.Family, table: c.Table, name: c.Name, hook: c.Hook, priority: c.Prio, drops: c.Policy == "drop", device: device, tool: "nft"})
		}
	}
	for _, o := range list.Objects {
		r := o.Rule
		if r == nil {
			continue
		}
		n := slices.IndexFunc(all, func(c chain) bool { return c.family == r.Family && c.table == r.Table && c.name == r.Chain })
		if n < 0 {
			continue
		}
		p.set = func(name string) []any { return p.sets[key(r.Family, r.Table, name)] }
		parsed := p.rules(r.Expr)
		for i := range parsed {
			parsed[i].text = fmt.Sprintf("rule %s %s %s handle %d", r.Family, r.Table, r.Chain, r.Handle)
		}
		all[n].rules = append(all[n].rules, parsed...)
	}
	return all, nil
}

type nftParser struct {
	sets map[string][]any
	set  func(name string) []any // of the table of the rule that is read
}

// rules reads the expressions of one rule; a verdict map makes several of it.
func (p nftParser) rules(expressions []json.RawMessage) []rule {
	var r rule
	for n, raw := range expressions {
		var e map[string]any
		if json.Unmarshal(raw, &e) != nil {
			r.conditions = append(r.conditions, condition{}) // something new: it may match
			continue
		}
		for kind, value := range e {
			switch kind {
			case "match":
				r.conditions = append(r.conditions, p.match(value)...)
			case "accept", "drop", "return":
				r.verdict = kind
			case "reject":
				r.verdict = "drop"
			case "jump", "goto":
				target, _ := value.(map[string]any)
				r.verdict = kind
				r.target, _ = target["target"].(string)
			case "notrack":
				r.verdict = "notrack"
			case "vmap":
				return append(p.verdictMap(r, value), p.rules(expressions[n+1:])...)
			case "limit":
				if m, _ := value.(map[string]any); m["inv"] == true { // what is over the limit
					r.conditions = append(r.conditions, condition{})
				}
			case "counter", "log", "comment", "mangle", "set", "map", "ct helper", "flow":
			default: // xt, quota, fib, ...
				r.conditions = append(r.conditions, condition{})
			}
		}
	}
	return []rule{r}
}

// verdictMap makes a rule of each pair.
func (p nftParser) verdictMap(r rule, value any) []rule {
	m, _ := value.(map[string]any)
	var out []rule
	for _, pair := range p.elements(m["data"]) {
		two, ok := pair.([]any)
		if !ok || len(two) != 2 {
			continue
		}
		raw, err := json.Marshal(two[1])
		if err != nil {
			continue
		}
		for _, one := range p.rules([]json.RawMessage{raw}) {
			one.conditions = append(slices.Clone(r.conditions), p.conditions(m["key"], two[0], false)...)
			out = append(out, one)
		}
	}
	return out
}

func (p nftParser) match(value any) []condition {
	m, _ := value.(map[string]any)
	op, _ := m["op"].(string)
	if op != "==" && op != "!=" && op != "in" {
		return []condition{{}}
	}
	return p.conditions(m["left"], m["right"], op == "!=")
}

// conditions reads what a match compares: usually one condition, two where the left side says which protocol it is about.
func (p nftParser) conditions(left, right any, not bool) []condition {
	l, _ := left.(map[string]any)
	field := func(of, name string) string {
		m, _ := l[of].(map[string]any)
		s, _ := m[name].(string)
		return s
	}
	c := condition{not: not}
	var implied []condition
	switch kind := field("payload", "protocol"); kind {
	case "ip", "ip6":
		implied = []condition{{subject: family, words: []string{map[string]string{"ip": "ipv4", "ip6": "ipv6"}[kind]}}}
		c.subject = map[string]subject{"saddr": source, "daddr": destination, "protocol": protocol, "nexthdr": protocol}[field("payload", "field")]
	case "tcp", "udp", "sctp", "th":
		if number, ok := protocolNamed(kind); ok {
			implied = []condition{{subject: protocol, numbers: [][2]uint16{{number, number}}}}
		}
		c.subject = map[string]subject{"sport": sourcePort, "dport": destinationPort}[field("payload", "field")]
	case "icmp", "icmpv6":
		number, _ := protocolNamed(kind)
		implied = []condition{{subject: protocol, numbers: [][2]uint16{{number, number}}}}
		if field("payload", "field") == "type" {
			c.subject = icmpType
		}
	}
	switch field("meta", "key") {
	case "l4proto":
		c.subject = protocol
	case "iif", "iifname":
		c.subject = inInterface
	case "oif", "oifname":
		c.subject = outInterface
	case "pkttype":
		c.subject = packetType
	case "mark":
		c.subject = mark
	case "nfproto", "protocol":
		c.subject = family
	}
	switch field("ct", "key") {
	case "state":
		c.subject = state
	case "status", "mark":
		c.subject = mark
	}
	for _, v := range p.elements(right) {
		c.take(v)
	}
	return append(implied, c)
}

// elements lists the values of a right side: one, a set, or a set by its name.
func (p nftParser) elements(value any) []any {
	switch v := value.(type) {
	case string:
		if name, is := strings.CutPrefix(v, "@"); is {
			return p.set(name)
		}
	case []any:
		return v
	case map[string]any:
		if list, is := v["set"].([]any); is {
			return list
		}
	}
	return []any{value}
}

// take adds one value.
func (c *condition) take(value any) {
	switch v := value.(type) {
	case float64:
		if v >= 0 && v <= math.MaxUint16 {
			c.numbers = append(c.numbers, [2]uint16{uint16(v), uint16(v)})
			return
		}
	case string:
		if c.word(v) {
			return
		}
	case map[string]any:
		if c.compound(v) {
			return
		}
	}
	c.unknown = true
}

// word adds a value that is a word.
func (c *condition) word(v string) bool {
	switch c.subject {
	case source, destination:
		p, ok := prefix(v)
		c.prefixes = append(c.prefixes, p)
		return ok
	case protocol:
		number, ok := protocolNamed(v)
		if ok {
			c.numbers = append(c.numbers, [2]uint16{number, number})
		}
		return ok
	case icmpType:
		if strings.HasPrefix(v, "echo-") {
			v = "echo"
		}
	case family:
		v = map[string]string{"ip": "ipv4", "ip6": "ipv6", "ipv4": "ipv4", "ipv6": "ipv6"}[v]
	case sourcePort, destinationPort:
		return false // a name of a service: nft prints numbers
	}
	c.words = append(c.words, v)
	return true
}

// compound adds a prefix, a range, or an element of a set with its timeout or comment.
func (c *condition) compound(v map[string]any) bool {
	if m, is := v["prefix"].(map[string]any); is {
		address, _ := m["addr"].(string)
		bits, _ := m["len"].(float64)
		a, err := netip.ParseAddr(address)
		if err != nil {
			return false
		}
		c.prefixes = append(c.prefixes, netip.PrefixFrom(a, int(bits)))
		return true
	}
	if r, is := v["range"].([]any); is && len(r) == 2 {
		first, ok1 := r[0].(float64)
		last, ok2 := r[1].(float64)
		if ok1 && ok2 && first >= 0 && last <= math.MaxUint16 {
			c.numbers = append(c.numbers, [2]uint16{uint16(first), uint16(last)})
			return true
		}
		return false // of addresses
	}
	if e, is := v["elem"].(map[string]any); is {
		c.take(e["val"])
		return true
	}
	return false
}

// prefix reads an address or a network.
func prefix(s string) (netip.Prefix, bool) {
	if a, err := netip.ParseAddr(s); err == nil {
		return netip.PrefixFrom(a, a.BitLen()), true
	}
	p, err := netip.ParsePrefix(s)
	return p, err == nil
}
