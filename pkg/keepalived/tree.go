package keepalived

import (
	"slices"
	"strings"
)

// node is a statement, and what stands in the braces behind it.
type node struct {
	words  []string
	raw    string // the whole statement
	at     *line
	order  int  // how many statements stand before it
	block  bool // it has braces
	kids   []*node
	parent *node
}

// keyword is the first word.
func (n *node) keyword() string { return n.arg(0) }

// arg is the word with that number, 0 for the keyword; empty: there is none.
func (n *node) arg(i int) string {
	if i < len(n.words) {
		return n.words[i]
	}
	return ""
}

// value is everything behind the keyword.
func (n *node) value() string {
	if len(n.words) < 2 {
		return ""
	}
	return strings.Join(n.words[1:], " ")
}

func (n *node) note(o Outcome, format string, args ...any) { n.at.note(o, format, args...) }

// done says that the statement is converted.
func (n *node) done() { n.at.used = true }

// all notes the same of the statement and of everything within its braces.
func (n *node) all(o Outcome, format string, args ...any) {
	n.note(o, format, args...)
	for _, k := range n.kids {
		k.all(o, format, args...)
	}
}

// find returns the last child with one of the keywords, which is the one that counts; nil: none.
func (n *node) find(keywords ...string) *node {
	var last *node
	for _, k := range n.kids {
		if slices.Contains(keywords, k.keyword()) {
			last = k
		}
	}
	return last
}

// buildTree puts statements into the braces that they are in. Braces that don't match are reported.
func buildTree(tokens []token, last *line) *node {
	root := &node{block: true}
	in := root
	var behind *node // the statement that a brace would belong to
	for n, t := range tokens {
		switch {
		case t.text == "{":
			t.at.braces = true
			if behind == nil {
				behind = &node{at: t.at, parent: in, raw: "{", words: []string{"{"}}
				in.kids = append(in.kids, behind)
				t.at.note(Unsupported, "this brace belongs to nothing; keepalived leaves it out, and takes its end for the end of what is around it")
			}
			behind.block, in, behind = true, behind, nil
		case t.text == "}":
			t.at.braces, behind = true, nil
			if in == root {
				t.at.note(Unsupported, "there is nothing that this brace could close")
				continue
			}
			in = in.parent
		default:
			if behind != nil && alwaysBlock(behind) {
				behind.note(Converted, "its opening brace is missing; read as if it were there")
				behind.block, in = true, behind
			}
			behind = &node{words: words(t.text), raw: t.text, at: t.at, parent: in, order: n}
			if len(behind.words) == 0 {
				behind.words = []string{""}
			}
			in.kids = append(in.kids, behind)
		}
	}
	for ; in != root; in = in.parent {
		in.note(Converted, "its closing brace is missing; read as if it stood at the end of the file, line %d", last.number)
	}
	root.prune()
	return root
}

// prune cuts off what stands in braces behind a word that has none.
func (n *node) prune() {
	allowed := blocksIn(n.keyword())
	for _, k := range n.kids {
		if k.block && !slices.Contains(allowed, k.keyword()) {
			for _, inner := range k.kids {
				inner.all(Unsupported, "it stands in braces behind %s, which has none", quote(k.keyword()))
			}
			k.kids = nil
			continue
		}
		k.prune()
	}
}

// blocksIn lists the words that have braces within those of another word; empty: of the top.
func blocksIn(keyword string) []string {
	lists := map[string]string{
		"": "global_defs vrrp_instance vrrp_sync_group vrrp_script track_file vrrp_track_file vrrp_track_process virtual_server_group " +
			"virtual_server linkbeat_interfaces track_group static_ipaddress static_routes static_rules bfd_instance garp_group " +
			"interface_up_down_delays SSL",
		"global_defs":     "notification_email",
		"vrrp_sync_group": "group track_interface track_script track_file track_process track_bfd",
		"vrrp_instance": "authentication virtual_ipaddress virtual_ipaddress_excluded virtual_routes virtual_rules track_interface track_script " +
			"track_file track_process track_bfd unicast_peer",
		"virtual_server": "real_server",
		"real_server":    strings.Join(checks(), " "),
		"HTTP_GET":       "url",
		"SSL_GET":        "url",
		"SMTP_CHECK":     "host",
		"garp_group":     "interfaces",
		"track_group":    "group",
	}
	return strings.Fields(lists[keyword])
}

// alwaysBlock says whether keepalived reads what follows the statement as if it stood in braces, whether there are any or not.
func alwaysBlock(n *node) bool {
	switch n.keyword() {
	case "global_defs", "vrrp_instance", "vrrp_sync_group", "vrrp_script", "virtual_server_group", "virtual_server":
		return n.parent.parent == nil
	case "real_server":
		return n.parent.keyword() == "virtual_server"
	case "virtual_ipaddress", "virtual_ipaddress_excluded", "authentication", "unicast_peer", "virtual_routes":
		return n.parent.keyword() == "vrrp_instance"
	}
	return false
}
