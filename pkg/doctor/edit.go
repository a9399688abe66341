package doctor

import (
	"fmt"
	"os"
	"regexp"
	"strings"
)

// edit is the command that changes the configuration by an expression of sed(1). Expressions find their place by names, not
// by numbers of lines: several cures are run one after another.
func (b *box) edit(expression string) string {
	command := "sed -i " + quote(expression) + " " + quote(b.File)
	if b.Live != nil {
		command += " && xdirector reload --config " + quote(b.File)
	}
	return command
}

// replaceWord is the command that writes another word everywhere in the configuration, as the name of an interface.
func (b *box) replaceWord(old, by string) string {
	return b.edit(`s/\b` + strings.ReplaceAll(old, ".", `\.`) + `\b/` + by + `/g`)
}

// The lists of the configuration that have items with names.
const (
	instancesList = "instances"
	servicesList  = "services"
)

// setKey is the command that gives a key of a named item another value, or the item that key.
func (b *box) setKey(list, item, key, value string) string {
	return b.change(list, item, key, fmt.Sprintf(`s/\b%s: *[^],}# ]*/%s: %s/`, key, key, escape(value)), value)
}

// addTo is the command that adds to a list of a named item, written in brackets, or gives it that list.
func (b *box) addTo(list, item, key, values string) string {
	return b.change(list, item, key, fmt.Sprintf(`s/\b%s: *\[/%s: [%s, /`, key, key, escape(values)), "["+values+"]")
}

func escape(text string) string { return strings.ReplaceAll(text, "/", `\/`) }

// change is an edit of one item: exists, if it has the key, else an insertion. Items are in block style, a key on a line, or
// in braces on one line.
func (b *box) change(list, item, key, exists, value string) string {
	text, err := os.ReadFile(b.File)
	if err != nil {
		text = nil // as for a file in block style that has no such key
	}
	named := `name: *"\{0,1\}` + item + `"\{0,1\} *\([,}#]\|$\)`
	whole, braces := itemOf(string(text), list, item)
	has := regexp.MustCompile(`\b` + key + `:`).MatchString(whole)
	within := fmt.Sprintf(`/^ *%s:/,/^[a-z_]*:/`, list)
	switch {
	case braces && has:
		return b.edit(fmt.Sprintf(`%s{/%s/%s}`, within, named, exists))
	case braces:
		return b.edit(fmt.Sprintf(`%s{/%s/s/{/{%s: %s, /}`, within, named, key, escape(value)))
	case has:
		// To the next item of the list, whose dash stands no deeper.
		next := fmt.Sprintf(`/^ \{0,%d\}- /`, depthOf(whole))
		return b.edit(fmt.Sprintf(`%s{/%s/,%s{%s!%s}}`, within, named, next, next, exists))
	}
	return b.edit(fmt.Sprintf(`%s{/%s/s/^\( *\)\(- \{0,1\}\|\)name:.*/&\n\1%s%s: %s/}`, within, named, indentOf(whole), key, escape(value)))
}

// indentOf is what keys of an item have in front of them, beyond the indentation of its first line.
func indentOf(item string) string {
	if strings.HasPrefix(strings.TrimSpace(item), "- ") {
		return "  "
	}
	return ""
}

// depthOf is how deep the dash of an item stands; its first line here is that with the name.
func depthOf(item string) int {
	depth := strings.Index(item, "name:")
	if indentOf(item) == "" {
		return max(depth-2, 0)
	}
	return len(item) - len(strings.TrimLeft(item, " "))
}

// itemOf returns the text of a named item, from its name on, and whether it is written in braces.
func itemOf(text, list, item string) (whole string, braces bool) {
	named := regexp.MustCompile(`name: *"?` + regexp.QuoteMeta(item) + `"? *([,}#]|$)`)
	begins := regexp.MustCompile(`^ *` + list + `:`)
	next := regexp.MustCompile(`^( *)- |^[a-z_]+:`)
	inside := false
	var lines []string
	for line := range strings.SplitSeq(text, "\n") {
		switch {
		case !inside:
			inside = begins.MatchString(line)
		case len(lines) == 0:
			if named.MatchString(line) {
				lines = append(lines, line)
				if braces = strings.Contains(line, "{"); braces {
					return line, true
				}
			}
		case next.MatchString(line) && len(line)-len(strings.TrimLeft(line, " ")) <= depthOf(lines[0]):
			return strings.Join(lines, "\n"), false
		default:
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "\n"), false
}
