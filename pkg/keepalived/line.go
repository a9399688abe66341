package keepalived

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// line is one line of a file while it is worked on.
type line struct {
	file    string
	number  int
	text    string // as written
	keyword string // of the first statement in it
	value   string
	used    bool // something of it is in the output, or held its structure together
	blank   bool
	braces  bool // of a block are in it, and perhaps nothing else
	notes   []note
}

type note struct {
	outcome Outcome
	reason  string
}

// note adds what is to be said of the line; the same is said once.
func (l *line) note(o Outcome, format string, args ...any) {
	n := note{o, strings.Map(visible, fmt.Sprintf(format, args...))}
	if !slices.Contains(l.notes, n) {
		l.notes = append(l.notes, n)
	}
}

// maxReasons keeps a line of the report readable: a definition may be used a thousand times.
const maxReasons = 4

// result says what became of the line: what is unsupported comes first, then what is converted.
func (l *line) result() Line {
	r := Line{File: l.file, Number: l.number, Keyword: l.keyword, Value: l.value, Outcome: Converted}
	has := func(o Outcome) bool { return slices.ContainsFunc(l.notes, func(n note) bool { return n.outcome == o }) }
	switch {
	case has(Unsupported):
		r.Outcome = Unsupported
	case l.used || has(Converted):
	case has(NotNeeded):
		r.Outcome = NotNeeded
	case l.braces:
	case l.blank:
		r.Outcome = Blank
	default:
		// Nothing may be dropped silently: what no rule has looked at is not converted.
		r.Outcome = Unsupported
		l.note(Unsupported, "nothing came of it")
	}
	var reasons []string
	for _, o := range []Outcome{Unsupported, Converted, NotNeeded} {
		for _, n := range l.notes {
			if n.outcome == o && !slices.Contains(reasons, n.reason) {
				reasons = append(reasons, n.reason)
			}
		}
	}
	if n := len(reasons); n > maxReasons {
		reasons = append(reasons[:maxReasons], fmt.Sprintf("and %d more reasons", n-maxReasons))
	}
	r.Reason = strings.Join(reasons, "; ")
	if r.Reason != "" && r.Keyword == "" {
		r.Keyword, r.Value = name(strings.TrimSpace(l.text))
	}
	return r
}

// name takes the text of a line apart into the keyword and its value, as they are shown. Secrets are not.
func name(text string) (keyword, value string) {
	keyword, value, _ = strings.Cut(strings.TrimSpace(strings.Map(visible, text)), " ")
	value = strings.TrimRight(strings.Join(strings.Fields(value), " "), " {")
	if len(keyword) > 1 {
		keyword = strings.TrimSuffix(keyword, "{")
	}
	if strings.Contains(text, "auth_pass") || keyword == "password" {
		value, _, _ = strings.Cut(value, "auth_pass")
		if keyword == "auth_pass" || keyword == "password" {
			value = ""
		}
	}
	return shorten(keyword), shorten(strings.TrimSpace(value))
}

func visible(r rune) rune {
	switch {
	case r == utf8.RuneError:
		return '?'
	case isBlank(r) || strings.ContainsRune(blanks, r):
		return ' '
	case r < ' ' || r == 0x7f:
		return '?'
	}
	return r
}

func shorten(s string) string {
	const most = 60
	if r := []rune(s); len(r) > most {
		return string(r[:most]) + "..."
	}
	return s
}

// quote shows a word of the file on one line.
func quote(s string) string { return strconv.Quote(shorten(s)) }
