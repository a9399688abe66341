package doctor

import (
	"net/netip"
	"slices"
	"strings"
)

// flow is a packet as a rule sees it. What is zero is not known, and a rule that asks for it may match or not.
type flow struct {
	protocol     uint8 // of IP; always known
	from, to     netip.Addr
	fromPort     uint16
	toPort       uint16
	in, out      string // interfaces
	state        string // of conntrack: new, established, invalid, untracked
	ipv6         bool
	multicast    bool
	icmpOfChecks bool // an echo request or its reply
}

// answer is what a condition says of a flow.
type answer int

const (
	no answer = iota
	maybe
	yes
)

func answerOf(b bool) answer {
	if b {
		return yes
	}
	return no
}

// subject is what a condition looks at.
type subject int

const (
	other subject = iota // anything that we don't evaluate
	source
	destination
	sourcePort
	destinationPort
	protocol
	inInterface
	outInterface
	state
	packetType
	family
	icmpType
	mark // of packets or connections, or what NAT did to them: ours have none, and nothing was done
)

// condition is one test of a rule: the subject is one of the values, or, if not, none of them.
type condition struct {
	subject  subject
	not      bool
	prefixes []netip.Prefix
	numbers  [][2]uint16 // ranges of ports or protocols
	words    []string    // interfaces (a * at the end stands for the rest), states, types
	unknown  bool        // it has values that we can't read
}

// meets evaluates a condition.
func (c condition) meets(f flow) answer {
	a := c.plain(f)
	if a == no && c.unknown {
		a = maybe
	}
	if !c.not || a == maybe {
		return a
	}
	return yes - a
}

func (c condition) plain(f flow) answer {
	within := func(n uint16) answer {
		return answerOf(slices.ContainsFunc(c.numbers, func(r [2]uint16) bool { return r[0] <= n && n <= r[1] }))
	}
	of := func(a netip.Addr) answer {
		if !a.IsValid() {
			return maybe
		}
		return answerOf(slices.ContainsFunc(c.prefixes, func(p netip.Prefix) bool { return p.Contains(a) }))
	}
	named := func(name string) answer {
		if name == "" {
			return maybe
		}
		return answerOf(slices.ContainsFunc(c.words, func(w string) bool {
			start, open := strings.CutSuffix(w, "*")
			return w == name || open && strings.HasPrefix(name, start)
		}))
	}
	hasPorts := f.protocol == protocolTCP || f.protocol == protocolUDP || f.protocol == protocolSCTP
	switch c.subject {
	case source:
		return of(f.from)
	case destination:
		return of(f.to)
	case sourcePort, destinationPort:
		port := f.toPort
		if c.subject == sourcePort {
			port = f.fromPort
		}
		switch {
		case !hasPorts:
			return no
		case port == 0:
			return maybe
		}
		return within(port)
	case protocol:
		return within(uint16(f.protocol))
	case inInterface:
		return named(f.in)
	case outInterface:
		return named(f.out)
	case state:
		return named(f.state)
	case packetType:
		kind := "host"
		if f.multicast {
			kind = "multicast"
		}
		return named(kind)
	case family:
		return answerOf(slices.Contains(c.words, map[bool]string{false: "ipv4", true: "ipv6"}[f.ipv6]))
	case icmpType:
		if f.protocol != protocolICMP && f.protocol != protocolICMP6 {
			return no
		}
		return named(map[bool]string{true: "echo", false: ""}[f.icmpOfChecks])
	}
	if c.subject == mark {
		return within(0)
	}
	return maybe
}

// IANA's numbers of protocols that rules are about.
const (
	protocolICMP  = 1
	protocolTCP   = 6
	protocolUDP   = 17
	protocolICMP6 = 58
	protocolVRRP  = 112
	protocolSCTP  = 132
)

// protocolNamed reads a protocol as nft and iptables print it.
func protocolNamed(name string) (uint16, bool) {
	number, ok := map[string]uint16{"icmp": 1, "igmp": 2, "tcp": 6, "udp": 17, "gre": 47, "esp": 50, "ah": 51, "icmpv6": 58, "ipv6-icmp": 58, "ospf": 89, "vrrp": 112, "sctp": 132, "udplite": 136}[name]
	return number, ok
}

// rule is one line of a chain.
type rule struct {
	text       string // for people
	conditions []condition
	verdict    string // accept, drop, jump, goto, return, notrack; empty: none
	target     string // of jump and goto
}

// meets is the weakest answer of all conditions.
func (r rule) meets(f flow) answer {
	all := yes
	for _, c := range r.conditions {
		all = min(all, c.meets(f))
	}
	return all
}

// chain is a list of rules; with a hook the kernel begins there.
type chain struct {
	family, table, name string
	hook                string // input, output, ...; empty: only jumped to
	priority            int
	drops               bool // the policy
	device              string
	rules               []rule
	tool                string // the command that owns it: nft, iptables, ip6tables, iptables-legacy, ip6tables-legacy
}

// sees says whether packets of a family pass a chain.
func (c chain) sees(ipv6 bool) bool {
	switch c.family {
	case "ip":
		return !ipv6
	case "ip6":
		return ipv6
	}
	return c.family == "inet" || c.family == "netdev"
}

// title names a chain as its tool does.
func (c chain) title() string {
	if c.tool == "nft" {
		return strings.Join([]string{"nft", c.family, c.table, c.name}, " ")
	}
	return c.tool + " -t " + c.table + " " + c.name
}

// rules are all chains of a box.
type ruleset []chain

// find returns a chain of the same table.
func (s ruleset) find(of chain, name string) (chain, bool) {
	n := slices.IndexFunc(s, func(c chain) bool {
		return c.name == name && c.table == of.table && c.family == of.family && c.tool == of.tool
	})
	if n < 0 {
		return chain{}, false
	}
	return s[n], true
}

// deepest is how far we follow jumps; the kernel has a limit too.
const deepest = 16

// drops returns the rule that certainly drops a flow on its way through a base chain, or the chain's policy as one;
// nothing if it may pass. A rule that may match is taken to accept, and not to drop.
func (s ruleset) drops(c chain, f flow) (rule, bool) {
	verdict, by := s.walk(c, f, deepest)
	if verdict == "" && c.drops {
		return rule{text: "policy drop"}, true
	}
	return by, verdict == "drop"
}

func (s ruleset) walk(c chain, f flow, depth int) (verdict string, by rule) {
	if depth == 0 {
		return "accept", rule{} // not to be found wanting for what we can't follow
	}
	for _, r := range c.rules {
		match := r.meets(f)
		if match == no {
			continue
		}
		switch r.verdict {
		case "accept":
			return "accept", r
		case "drop":
			if match == yes {
				return "drop", r
			}
		case "return":
			if match == yes {
				return "", rule{}
			}
		case "jump", "goto":
			next, here := s.find(c, r.target)
			if !here {
				continue
			}
			verdict, by := s.walk(next, f, depth-1)
			if verdict == "accept" || verdict == "drop" && match == yes {
				return verdict, by
			}
			if r.verdict == "goto" && match == yes {
				return "", rule{}
			}
		}
	}
	return "", rule{}
}

// untracked says whether a rule in front of conntrack takes a flow from it.
func (s ruleset) untracked(f flow) bool {
	for _, c := range s {
		if c.hook == "prerouting" && c.priority <= beforeConntrack && c.sees(f.ipv6) && s.notracks(c, f, deepest) {
			return true
		}
	}
	return false
}

// beforeConntrack is the priority at which conntrack looks at packets.
const beforeConntrack = -200

func (s ruleset) notracks(c chain, f flow, depth int) bool {
	return depth > 0 && slices.ContainsFunc(c.rules, func(r rule) bool {
		if r.meets(f) != yes {
			return false
		}
		next, here := s.find(c, r.target)
		return r.verdict == "notrack" || here && s.notracks(next, f, depth-1)
	})
}
