package doctor

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// parseIPTables reads what iptables-save prints for a tool: iptables, ip6tables or one of their legacy forms.
func parseIPTables(text, tool string) ruleset {
	family, prerouting := "ip", map[string]int{"raw": -300, "mangle": -150, "nat": -100, "filter": 0, "security": 50}
	if strings.HasPrefix(tool, "ip6") {
		family = "ip6"
	}
	hooks := map[string]string{"PREROUTING": "prerouting", "INPUT": "input", "FORWARD": "forward", "OUTPUT": "output", "POSTROUTING": "postrouting"}
	var all ruleset
	table := ""
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, "*"):
			table = line[1:]
		case strings.HasPrefix(line, ":"):
			fields := strings.Fields(line[1:])
			if len(fields) > 1 {
				all = append(all, chain{family: family, table: table, name: fields[0], hook: hooks[fields[0]], priority: prerouting[table], drops: fields[1] == "DROP", tool: tool})
			}
		case strings.HasPrefix(line, "-A "):
			name, r := parseIPTablesRule(words(line[3:]), line)
			if n := slices.IndexFunc(all, func(c chain) bool { return c.table == table && c.name == name }); n >= 0 {
				all[n].rules = append(all[n].rules, r)
			}
		}
	}
	return all
}

// parseIPTablesRule reads one rule behind its -A.
func parseIPTablesRule(fields []string, text string) (name string, r rule) {
	if len(fields) == 0 {
		return "", r
	}
	name, fields = fields[0], fields[1:]
	r.text = text
	not := false
	for len(fields) > 0 {
		option := fields[0]
		fields = fields[1:]
		if option == "!" {
			not = true
			continue
		}
		value := ""
		text := option == "--comment" || option == "--log-prefix" // which may look like anything
		if len(fields) > 0 && (text || !strings.HasPrefix(fields[0], "-") && fields[0] != "!") {
			value, fields = fields[0], fields[1:]
		}
		switch option {
		case "-m", "--match", "--comment", "--reject-with", "--log-prefix", "--log-level", "--set-mark", "--set-xmark", "--to-destination":
		case "-j", "-g":
			r.verdict, r.target = iptablesVerdict(value, option)
		case "--limit", "--limit-burst": // what is within the limit
		case "--notrack":
			r.verdict = "notrack"
		default:
			r.conditions = append(r.conditions, iptablesCondition(option, value, not))
		}
		not = false
	}
	return name, r
}

func iptablesVerdict(target, option string) (verdict, chain string) {
	switch target {
	case "ACCEPT":
		return "accept", ""
	case "DROP", "REJECT":
		return "drop", ""
	case "RETURN":
		return "return", ""
	case "NOTRACK":
		return "notrack", ""
	case "LOG", "MARK", "CT", "NFLOG", "CONNMARK":
		return "", ""
	}
	if option == "-g" {
		return "goto", target
	}
	return "jump", target
}

func iptablesCondition(option, value string, not bool) condition {
	c := condition{not: not}
	switch option {
	case "-s", "-d":
		c.subject = map[string]subject{"-s": source, "-d": destination}[option]
		p, ok := prefix(value)
		c.prefixes, c.unknown = []netip.Prefix{p}, !ok
	case "-i", "-o":
		c.subject = map[string]subject{"-i": inInterface, "-o": outInterface}[option]
		c.words = []string{strings.Replace(value, "+", "*", 1)}
	case "-p":
		c.subject = protocol
		number, ok := protocolNamed(value)
		if n, err := strconv.ParseUint(value, 10, 8); err == nil {
			number, ok = uint16(n), true
		}
		c.numbers, c.unknown = [][2]uint16{{number, number}}, !ok
	case "--sport", "--sports", "--dport", "--dports":
		c.subject = sourcePort
		if option[2] == 'd' {
			c.subject = destinationPort
		}
		for _, one := range strings.Split(value, ",") {
			first, last, ranged := strings.Cut(one, ":")
			if !ranged {
				last = first
			}
			a, err1 := strconv.ParseUint(first, 10, 16)
			b, err2 := strconv.ParseUint(last, 10, 16)
			c.unknown = c.unknown || err1 != nil || err2 != nil
			c.numbers = append(c.numbers, [2]uint16{uint16(a), uint16(b)})
		}
	case "--ctstate", "--state":
		c.subject = state
		c.words = strings.Split(strings.ToLower(value), ",")
	case "--mark", "--ctstatus":
		c.subject = mark
		if strings.TrimLeft(strings.SplitN(value, "/", 2)[0], "0x") == "" {
			c.numbers = [][2]uint16{{0, 0}}
		}
	case "--pkt-type":
		c.subject = packetType
		c.words = []string{strings.Replace(value, "unicast", "host", 1)}
	case "--icmp-type", "--icmpv6-type":
		c.subject = icmpType
		c.words = []string{map[string]string{"8": "echo", "0": "echo", "128": "echo", "129": "echo"}[value]}
		c.unknown = c.words[0] == "" && value == "any"
	}
	return c
}

// words divides a line as a shell does.
func words(line string) []string {
	var out []string
	var word strings.Builder
	quoted, escaped, begun := false, false, false
	for _, r := range line {
		switch {
		case escaped:
			word.WriteRune(r)
			escaped = false
		case r == '\\':
			escaped = true
		case r == '"':
			quoted, begun = !quoted, true
		case r == ' ' && !quoted:
			if begun {
				out = append(out, word.String())
			}
			word.Reset()
			begun = false
		default:
			word.WriteRune(r)
			begun = true
		}
	}
	if begun {
		out = append(out, word.String())
	}
	return out
}
