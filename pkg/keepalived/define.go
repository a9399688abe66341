package keepalived

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

var errNotConfiguration = errors.New("it is no regular file, or larger than 4 MiB")

// definition is what $NAME stands for.
type definition struct {
	value string // of one line
	parts []part // of several
	lines []*line
	own   bool // keepalived's own
	used  bool
}

// part is one line of a definition of several.
type part struct {
	text string
	at   *line
}

func (d *definition) add(text string, at *line) {
	d.parts = append(d.parts, part{text, at})
	d.lines = append(d.lines, at)
}

// define keeps $NAME=VALUE, behind a condition or not; nil: it is none. More says that further lines belong to it.
func (r *reader) define(text string, at *line, more bool) *definition {
	body, skip := text, false
	for strings.HasPrefix(body, "@") {
		at := strings.IndexAny(body, " \t")
		if at < 0 {
			return nil
		}
		id, not := strings.CutPrefix(body[1:at], "^")
		skip = skip || (id == r.options.ConfigID) == not
		body = strings.TrimLeft(body[at:], " \t")
	}
	if !strings.HasPrefix(body, "$") {
		return nil
	}
	name, value, ok := strings.Cut(body[1:], "=")
	if name = strings.TrimRight(name, " \t"); !ok || nameLength(name) != len(name) || name == "" {
		return nil
	}
	d := &definition{lines: []*line{at}}
	value = strings.Trim(value, blanks)
	switch {
	case !more:
		d.value = value
	case value != "":
		d.parts = []part{{value, at}}
	default:
		d.parts = []part{{"", at}}
	}
	if skip {
		r.condition(text, at)
		if more {
			at.note(NotNeeded, "keepalived leaves out the first line of the definition alone, and reads the others as if they stood outside of it")
		}
		d.own = true // nobody wonders that it isn't used
		r.defs["@"+strconv.Itoa(len(r.defs))] = d
		return d
	}
	r.drop(name)
	r.defs[name] = d
	return d
}

// drop forgets a definition, and tells if nothing was made of it.
func (r *reader) drop(name string) {
	d := r.defs[name]
	if d == nil {
		return
	}
	for _, l := range d.lines {
		switch {
		case d.used: // what its lines say has been told already
		case d.own:
			l.note(NotNeeded, "it belongs to a definition that is for another director")
		default:
			l.note(NotNeeded, "a definition that nothing uses")
		}
	}
	delete(r.defs, name)
}

// unused tells of the definitions that nothing was made of.
func (r *reader) unused() {
	for name := range r.defs {
		r.drop(name)
	}
}

// nameLength is the length of the name that a text begins with.
func nameLength(s string) int {
	for i, c := range []byte(s) {
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c == '_'
		if !letter && (i == 0 || c < '0' || c > '9') {
			return i
		}
	}
	return len(s)
}

// substitute replaces the first $NAME or ${NAME} of a text that is defined. A definition of several lines can only stand at the
// end: lines are all of its lines then, of which the first one is in the text already.
func (r *reader) substitute(text string, at *line) (replaced string, lines []part, found bool) {
	for i := 0; i < len(text); i++ {
		if text[i] != '$' {
			continue
		}
		name, end, random := text[i+1:], 0, ""
		if braces := strings.HasPrefix(name, "{"); braces {
			closing := strings.IndexByte(name, '}')
			if closing < 0 {
				continue
			}
			name, end = name[1:closing], i+closing+2
			name, random, _ = strings.Cut(name, " ")
		} else {
			name = name[:nameLength(name)]
			end = i + 1 + len(name)
			if end < len(text) && strings.IndexByte(" \t,)", text[end]) < 0 {
				continue
			}
		}
		d := r.defs[name]
		if d == nil || random != "" && name != "_RANDOM" || d.parts != nil && strings.Trim(text[end:], blanks) != "" {
			continue
		}
		value := d.value
		switch name {
		case "_PWD":
			value = r.folder
		case "_RANDOM":
			value, _, _ = strings.Cut(strings.TrimSpace(random)+" ", " ")
			if value == "" {
				value = "0"
			}
			at.note(Unsupported, "nothing here is random; %s is written, the least that it could be", value)
		}
		d.used = true
		if len(d.lines) > 0 {
			d.lines[0].used = true
		}
		if d.parts != nil {
			return text[:i] + d.parts[0].text, d.parts, true
		}
		return text[:i] + value + text[end:], nil, true
	}
	return text, nil, false
}

// loop reads ~SEQ(name, start, step, end) and ~LST(name, value, ...), and expands what stands behind once for each value.
func (r *reader) loop(text string, at *line, depth int) {
	kind := text[:4]
	rest, inHex := strings.CutPrefix(text[4:], "x")
	rest = strings.TrimLeft(rest, " \t")
	inside, body, ok := brackets(rest)
	bad := func(why string) {
		at.note(Unsupported, "%s: %s", kind, why)
	}
	if !ok {
		bad("the brackets are missing or not closed")
		return
	}
	for n := 0; n < 100; n++ {
		replaced, rest, found := r.substitute(inside, at)
		if !found || rest != nil || len(replaced) > maxText {
			break
		}
		inside = replaced
	}
	fields := split(inside)
	if len(fields) < 2 {
		bad("a name and what it stands for are missing")
		return
	}
	names := split(strings.Trim(fields[0], "{}"))
	for _, name := range names {
		if name == "" || nameLength(name) != len(name) {
			bad(quote(name) + " can't be a name")
			return
		}
	}
	var values [][]string
	if kind == "~LST" {
		for _, f := range fields[1:] {
			one := []string{f}
			if len(names) > 1 || strings.HasPrefix(f, "{") {
				one = split(strings.TrimSuffix(strings.TrimPrefix(f, "{"), "}"))
			}
			if len(one) != len(names) {
				bad(fmt.Sprintf("%s has %d values for %d names", quote(f), len(one), len(names)))
				return
			}
			values = append(values, one)
		}
	} else {
		numbers, why := sequence(fields[1:], inHex)
		if why != "" {
			bad(why)
			return
		}
		values = numbers
	}
	at.used = true
	for _, v := range values {
		for i, name := range names {
			r.drop(name)
			r.defs[name] = &definition{value: v[i], own: true}
		}
		r.expand(body, at, depth+1)
		if r.expands > maxLines {
			return
		}
	}
}

// sequence counts from start to end; each of the numbers is a value of its own.
func sequence(fields []string, inHex bool) (values [][]string, why string) {
	var n []int64
	for _, f := range fields {
		v, err := strconv.ParseInt(strings.TrimSpace(f), 0, 32)
		if err != nil {
			return nil, quote(f) + " is no number"
		}
		n = append(n, v)
	}
	var start, step, end int64
	switch len(n) {
	case 1:
		start, step, end = 1, 1, n[0]
		if end < 0 {
			start, step = -1, -1
		}
	case 2:
		start, step, end = n[0], 1, n[1]
		if start > end {
			step = -1
		}
	case 3:
		start, step, end = n[0], n[1], n[2]
	default:
		return nil, "at most a start, a step and an end are possible"
	}
	switch {
	case step == 0 || start < end && step < 0 || start > end && step > 0:
		return nil, "the step leads away from the end"
	case inHex && (start < 0 || end < 0):
		return nil, "numbers below 0 have no hexadecimal form here"
	case (end-start)/step >= maxLines:
		return nil, fmt.Sprintf("more than %d lines", maxLines)
	}
	base := 10
	if inHex {
		base = 16
	}
	for v := start; step > 0 && v <= end || step < 0 && v >= end; v += step {
		values = append(values, []string{strconv.FormatInt(v, base)})
	}
	return values, ""
}

// brackets cuts (INSIDE) off the beginning of a text.
func brackets(s string) (inside, behind string, ok bool) {
	if !strings.HasPrefix(s, "(") {
		return "", "", false
	}
	end := strings.IndexByte(s, ')')
	if end < 0 {
		return "", "", false
	}
	return s[1:end], s[end+1:], true
}

// split cuts at commas that are in no braces.
func split(s string) []string {
	var list []string
	depth, from := 0, 0
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '{':
			depth++
		case '}':
			depth--
		case ',':
			if depth == 0 {
				list = append(list, strings.Trim(s[from:i], blanks))
				from = i + 1
			}
		}
	}
	return append(list, strings.Trim(s[from:], blanks))
}
