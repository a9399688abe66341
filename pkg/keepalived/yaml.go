package keepalived

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// value is a part of the output: a mapping, a list or a scalar, with the lines that it was made of.
type value struct {
	keys   []string // of a mapping
	items  []*value // of a mapping or a list
	list   bool
	scalar string // as it is written
	parent *value
	from   []*line
}

// mapping is a new, empty one.
func mapping(from ...*node) *value { return (&value{}).by(from) }

// sequenceOf is a new list.
func sequenceOf(from ...*node) *value { return (&value{list: true}).by(from) }

// by notes which statements a value was made of.
func (v *value) by(from []*node) *value {
	for _, n := range from {
		if n != nil && !slices.Contains(v.from, n.at) {
			v.from = append(v.from, n.at)
			n.done()
		}
	}
	return v
}

// plain is what YAML reads as the same text without quotes; no number, no date, none of its words.
var plain = regexp.MustCompile(`^(/[A-Za-z0-9._/-]*|[A-Za-z_][A-Za-z0-9._/-]*|[0-9]+\.[0-9]+\.[0-9]+\.[0-9]+(/[0-9]+)?|-[A-Za-z]+)$`)

// text is a string.
func text(s string, from ...*node) *value {
	switch strings.ToLower(s) {
	case "", "yes", "no", "on", "off", "true", "false", "null", "y", "n", "nan", "inf":
	default:
		if plain.MatchString(s) {
			return (&value{scalar: s}).by(from)
		}
	}
	quoted, _ := json.Marshal(strings.ToValidUTF8(s, "?")) // a string can always be marshalled
	q := strings.NewReplacer(`\u003c`, "<", `\u003e`, ">", `\u0026`, "&", "\x7f", `\u007f`).Replace(string(quoted))
	return (&value{scalar: q}).by(from)
}

// word is a number, a boolean, a word or a range.
func word(v any, from ...*node) *value { return (&value{scalar: fmt.Sprint(v)}).by(from) }

// duration is written as short as it can be: 1m30s, 500ms.
func duration(d time.Duration, from ...*node) *value {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return word(s, from...)
}

// strs is a list of texts.
func strs(list []string, from ...*node) *value {
	v := sequenceOf(from...)
	for _, s := range list {
		v.add(text(s))
	}
	return v
}

// set puts a key into a mapping, in place of what was there; an empty mapping or list is left out.
func (v *value) set(key string, to *value) {
	if to == nil || to.scalar == "" && len(to.items) == 0 {
		return
	}
	to.parent = v
	if i := slices.Index(v.keys, key); i >= 0 {
		v.items[i] = to
		return
	}
	v.keys, v.items = append(v.keys, key), append(v.items, to)
}

func (v *value) get(key string) *value {
	if v == nil {
		return nil
	}
	if i := slices.Index(v.keys, key); i >= 0 {
		return v.items[i]
	}
	return nil
}

// add puts an item at the end of a list.
func (v *value) add(item *value) {
	item.parent = v
	v.items = append(v.items, item)
}

// find returns the value at a path like vrrp.instances[0].priority, or as much of the way as there is.
func (v *value) find(path string) *value {
	for _, step := range strings.FieldsFunc(path, func(r rune) bool { return r == '.' || r == '[' || r == ']' }) {
		next := v.get(step)
		if v.list {
			if i, err := strconv.Atoi(step); err == nil && i < len(v.items) {
				next = v.items[i]
			}
		}
		if next == nil {
			return v
		}
		v = next
	}
	return v
}

// spare are keys that can go alone. Without any other one of what it belongs to, the rest would mean something else.
func spare() []string {
	return []string{"garp", "label", "scope", "notify", "host", "body", "status", "startup_delay", "down_timer_adverts", "timeouts",
		"hysteresis", "quorum", "sorry_server", "max_connections", "source_address", "unicast_ttl", "retries", "timeout", "interval",
		"check", "retry_delay", "router_id", "virtual_mac", "preempt_delay", "on_down", "slow_start", "user", "track", "metric",
		"master", "backup", "fault", "stop", "lower_priority", "any", "up", "down"}
}

// names are lists of which a word can go without the others; in a command it can't.
func names() []string {
	return []string{"virtual_addresses", "excluded_addresses", "unicast_peers", "interfaces", "scripts", "files", "processes",
		"instances", "to"}
}

// whole is the smallest part around v that can be taken out without changing what the rest means.
func (v *value) whole() *value {
	for ; v != nil && v.parent != nil; v = v.parent {
		p := v.parent
		if p.list && (v.scalar == "" || p.parent != nil && slices.Contains(names(), p.parent.key(p))) {
			return v
		}
		if !p.list && slices.Contains(spare(), p.key(v)) {
			return v
		}
	}
	return v
}

// key is the name of an item.
func (v *value) key(item *value) string {
	if i := slices.Index(v.items, item); i >= 0 && !v.list {
		return v.keys[i]
	}
	return ""
}

// within says whether v is a part of one of the others.
func (v *value) within(others map[*value]bool) bool {
	for p := v.parent; p != nil; p = p.parent {
		if others[p] {
			return true
		}
	}
	return false
}

// remove takes v out, and what is left empty by that.
func (v *value) remove() {
	p := v.parent
	if p == nil {
		return
	}
	i := slices.Index(p.items, v)
	if i < 0 {
		return
	}
	p.items = slices.Delete(p.items, i, i+1)
	if !p.list {
		p.keys = slices.Delete(p.keys, i, i+1)
	}
	if len(p.items) == 0 {
		p.remove()
	}
}

// note tells of the line that v was made of: one of its own, or of what is around it, or of its first part.
func (v *value) note(o Outcome, reason string) {
	for at := v; at != nil; at = at.parent {
		if len(at.from) > 0 {
			at.from[0].note(o, "%s", reason)
			return
		}
	}
	for at := v; len(at.items) > 0; {
		if at = at.items[0]; len(at.from) > 0 {
			at.from[0].note(o, "%s", reason)
			return
		}
	}
}

// noteAll tells of all the lines that v and its parts were made of.
func (v *value) noteAll(o Outcome, reason string) {
	if !v.each(o, reason) {
		v.note(o, reason)
	}
}

func (v *value) each(o Outcome, reason string) bool {
	told := len(v.from) > 0
	for _, l := range v.from {
		l.note(o, "%s", reason)
	}
	for _, item := range v.items {
		told = item.each(o, reason) || told
	}
	return told
}

// bytes is the YAML.
func (v *value) bytes() []byte {
	var b strings.Builder
	v.write(&b, 0)
	return []byte(b.String())
}

const widest = 110 // columns of a line

// flow is v on one line; empty: that would be too long.
func (v *value) flow(room int) string {
	if v.scalar != "" {
		return v.scalar
	}
	var parts []string
	for i, item := range v.items {
		s := item.flow(room)
		if s == "" || len(item.items) > 0 && !item.list && len(v.items) > 1 {
			return ""
		}
		if strings.HasPrefix(s, "::") || strings.ContainsAny(s, ",[]{}") && s[0] != '"' && len(item.items) == 0 {
			return ""
		}
		if !v.list {
			s = v.keys[i] + ": " + s
		}
		parts = append(parts, s)
	}
	s := "{" + strings.Join(parts, ", ") + "}"
	if v.list {
		s = "[" + strings.Join(parts, ", ") + "]"
	}
	if len(s) > room {
		return ""
	}
	return s
}

// write writes v from the given column on; the place for its first line is there already.
func (v *value) write(b *strings.Builder, column int) {
	indent := strings.Repeat(" ", column)
	for i, item := range v.items {
		if i > 0 || column == 0 {
			b.WriteString(indent)
		}
		room := widest - column
		if v.list {
			b.WriteString("- ")
		} else {
			b.WriteString(v.keys[i] + ":")
			room -= len(v.keys[i])
		}
		line := item.flow(room)
		block := column < 4 && !v.list && len(item.items) > 0 && !(item.list && item.items[0].scalar != "") || v.list && item.get("name") != nil && column <= 4
		switch {
		case line != "" && !block:
			if !v.list {
				b.WriteString(" ")
			}
			b.WriteString(line + "\n")
		case v.list:
			item.write(b, column+2)
		default:
			b.WriteString("\n" + indent + "  ")
			item.write(b, column+2)
		}
	}
}
