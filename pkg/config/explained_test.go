package config

import (
	"regexp"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"
)

// The reference explains each key once. What is read by the same function elsewhere is explained there.
var sameElsewhere = strings.NewReplacer("real_servers[].check.", "check.", "excluded_addresses[].", "virtual_addresses[].",
	"sync_groups[].notify.", "instances[].notify.", "real_servers[].notify.", "notify.")

// inReference is where the reference has a key that is known at path.
func inReference(path string) string { return sameElsewhere.Replace(path) }

// explained is what the reference says about the key at path.
func explained(all map[string]explanation, path string) explanation {
	for _, at := range []string{path, inReference(path), strings.Replace(path, "services[].check.", "services[].real_servers[].check.", 1)} {
		if e := all[at]; e != (explanation{}) {
			return e
		}
	}
	return explanation{}
}

// explanation is what the reference says about one key.
type explanation struct {
	text     string // what it is
	required bool
	standard string // the default, as it is written; empty: none
	absent   string // what happens without the key; empty: nothing to say
}

var annotated = regexp.MustCompile(`^(?:(required)|default ([^;]+)|absent: ([^;]+)|leave it out ([^;]+))(?:; |$)`)

// explain takes the beginning off that every comment of the reference has; TestReferenceTellsTheTrueDefaults proves it true.
func explain(above, beside string) explanation {
	e := explanation{}
	if m := annotated.FindStringSubmatch(beside); m != nil {
		e.required, e.standard, e.absent = m[1] != "", m[2], m[3]
		if m[4] != "" {
			e.absent = strings.TrimPrefix(strings.TrimPrefix(m[4], "for "), "to ")
		}
		beside = beside[len(m[0]):]
	}
	if above != "" && beside != "" {
		above = sentences([]string{above}) + " "
	}
	e.text = above + beside
	return e
}

var hash = regexp.MustCompile(`(?m)^# ?`)

// comment takes the marks off a comment, and joins its lines.
func comment(text string) string {
	return strings.Join(strings.Fields(hash.ReplaceAllString(text, "")), " ")
}

// explanations reads the comments of the reference, by the paths of their keys; the first one of a path counts.
func explanations(t *testing.T) map[string]explanation {
	t.Helper()
	all := map[string]explanation{}
	eachKey(t, func(path string, mapping *yaml.Node, at int, beside string) {
		if e := explain(comment(mapping.Content[at].HeadComment), comment(beside)); all[path] == (explanation{}) {
			all[path] = e
		}
	})
	return all
}
