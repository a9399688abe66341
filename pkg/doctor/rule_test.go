package doctor

import (
	"net/netip"
	"slices"
	"testing"
)

func TestRulesDropWhatTheyCertainlyDrop(t *testing.T) {
	web := flow{protocol: protocolTCP, to: netip.MustParseAddr("10.0.0.1"), toPort: 80, in: "eth0", state: "new"}
	for _, c := range []struct {
		name  string
		rules string // of iptables, in INPUT
		drops bool
	}{
		{"nothing", "", false},
		{"policy", ":INPUT DROP", true},
		{"accepted before", "-A INPUT -i eth+ -j ACCEPT\n-A INPUT -j DROP", false},
		{"accepted on another interface", "-A INPUT -i lo -j ACCEPT\n-A INPUT -j DROP", true},
		{"some clients are accepted", "-A INPUT -s 10.0.0.0/8 -j ACCEPT\n-A INPUT -j DROP", false},
		{"some clients are dropped", "-A INPUT -s 10.0.0.0/8 -j DROP", false},
		{"everything else", "-A INPUT ! -d 10.0.0.0/24 -j DROP", false},
		{"not that port", "-A INPUT -p tcp -m tcp ! --dport 22 -j REJECT", true},
		{"ports", "-A INPUT -p tcp -m multiport --dports 22,79:81 -j DROP", true},
		{"another protocol", "-A INPUT -p udp -m udp --dport 80 -j DROP", false},
		{"what we don't know may match", "-A INPUT -m recent --rcheck -j DROP", false},
		{"and may accept", "-A INPUT -m recent --rcheck -j ACCEPT\n-A INPUT -j DROP", false},
		{"packets of ours have no mark", "-A INPUT -m mark --mark 0x1 -j ACCEPT\n-A INPUT -j DROP", true},
		{"which is a mark of 0", "-A INPUT -m mark --mark 0x0/0xff -j ACCEPT\n-A INPUT -j DROP", false},
		{"nor did NAT change them", "-A INPUT -m conntrack --ctstatus DNAT -j ACCEPT\n-A INPUT -j DROP", true},
		{"what is within a limit", "-A INPUT -m limit --limit 10/sec -j ACCEPT\n-A INPUT -j DROP", false},
		{"state", "-A INPUT -m conntrack --ctstate INVALID,NEW -j DROP", true},
		{"other state", "-A INPUT -m conntrack --ctstate INVALID -j DROP", false},
		{"a quoted comment that looks like an option", `-A INPUT -m comment --comment "-p udp -j ACCEPT" -j DROP`, true},
		{"jump that returns", "-A more -j RETURN\n-A more -j DROP\n-A INPUT -j more", false},
		{"jump that drops", "-A more -d 10.0.0.1/32 -j DROP\n-A INPUT -j more", true},
		{"goto does not come back", "-A more -p udp -j DROP\n-A INPUT -g more\n-A INPUT -j DROP", false},
		{"jump comes back", "-A more -p udp -j DROP\n-A INPUT -j more\n-A INPUT -j DROP", true},
		{"circle", "-A more -j more\n-A INPUT -j more", false},
		{"log goes on", "-A INPUT -j LOG --log-prefix \"drop it \"\n-A INPUT -j DROP", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			all := parseIPTables("*filter\n:INPUT ACCEPT [0:0]\n:more - [0:0]\n"+c.rules+"\nCOMMIT\n", "iptables")
			input := all[0]
			for _, other := range all {
				if other.name == "INPUT" && other.drops {
					input = other
				}
			}
			if r, drops := all.drops(input, web); drops != c.drops {
				t.Errorf("drops: %v (%s), want %v", drops, r.text, c.drops)
			}
		})
	}
}

func TestNotrackIsSeenBeforeConntrackAlone(t *testing.T) {
	web := flow{protocol: protocolTCP, to: netip.MustParseAddr("10.0.0.1"), toPort: 80}
	for rules, want := range map[string]bool{
		"*raw\n:PREROUTING ACCEPT\n-A PREROUTING -d 10.0.0.1/32 -p tcp -m tcp --dport 80 -j CT --notrack":                              true,
		"*raw\n:PREROUTING ACCEPT\n-A PREROUTING -d 10.0.0.1/32 -p tcp -m tcp --dport 81 -j CT --notrack":                              false,
		"*raw\n:PREROUTING ACCEPT [0:0]\n:x - [0:0]\n-A PREROUTING -j x\n-A x -p tcp -j NOTRACK":                                       true,
		"*mangle\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -p tcp -j NOTRACK":                                                           false,
		"*raw\n:PREROUTING ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n-A OUTPUT -p tcp -j NOTRACK\n-A PREROUTING -s 10.0.0.9 -j CT --notrack": false,
	} {
		if got := parseIPTables(rules, "iptables").untracked(web); got != want {
			t.Errorf("untracked: %v, want %v, by\n%s", got, want, rules)
		}
	}
}

func TestWordsAreDividedAsByAShell(t *testing.T) {
	for line, want := range map[string][]string{
		`-A INPUT -m comment --comment "a \"b\" c" -j DROP`: {"-A", "INPUT", "-m", "comment", "--comment", `a "b" c`, "-j", "DROP"},
		`a  b`: {"a", "b"},
		`""`:   {""},
		``:     nil,
	} {
		if got := words(line); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", line, got, want)
		}
	}
}

func FuzzRulesOfNftablesAndIPTables(f *testing.F) {
	f.Add([]byte(`{"nftables": [{"chain": {"family": "inet", "table": "t", "name": "c", "hook": "input", "policy": "drop"}}, {"rule": {"family": "inet", "table": "t", "chain": "c", "expr": [{"vmap": {"key": {"ct": {"key": "state"}}, "data": {"set": [["invalid", {"drop": null}]]}}}]}}]}`))
	f.Add([]byte("*filter\n:INPUT DROP [0:0]\n-A INPUT ! -s 10.0.0.0/8 -p tcp -m multiport --dports 1,2:3 -j x\n:x - [0:0]\n-A x -j INPUT"))
	f.Fuzz(func(t *testing.T, text []byte) {
		all, err := parseNFT(text)
		if err != nil {
			all = parseIPTables(string(text), "ip6tables")
		}
		for _, c := range all {
			_, _ = all.drops(c, flow{protocol: protocolVRRP})
		}
		_ = all.untracked(flow{protocol: protocolTCP})
	})
}
