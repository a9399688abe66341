package config

import (
	"fmt"
	"regexp"
	"strings"

	"gopkg.in/yaml.v3"
)

// place is a position in the file, from 1.
type place struct{ line, column int }

// value is one node of the file together with the path of its key and the place where it is written.
type value struct {
	node  *yaml.Node // never an alias
	path  string
	place place
	shape *shape // to be filled in instead of reading; nil: read
}

// decoder walks the nodes of a file along the known keys and collects what is wrong with them. The walk reads each
// value by itself; what must hold between values is looked at afterwards (relations), with the places kept here.
type decoder struct {
	file     string
	problems Problems
	warnings Problems
	places   map[string]place // of every key that is written, by its path
	bad      map[string]bool  // paths with a problem
	families map[string]int   // 4 or 6 for every address, supported or not, by its path
	budget   int              // values that may still be read: aliases of aliases grow without limit
}

func newDecoder(file string, size int) *decoder {
	// A file without aliases has fewer values than bytes; the rest is room for honest use of aliases.
	return &decoder{file: file, places: map[string]place{}, bad: map[string]bool{}, families: map[string]int{}, budget: size + 10000}
}

func (d *decoder) report(at place, key, text string) {
	d.bad[key] = true
	d.problems = append(d.problems, Problem{File: d.file, Line: at.line, Column: at.column, Key: key, Text: text})
}

// wrong reports a problem of one value.
func (d *decoder) wrong(v value, format string, arguments ...any) {
	d.report(v.place, v.path, fmt.Sprintf(format, arguments...))
}

// wrongAt reports a problem of the key at path, at the place of the nearest key around it that is written.
func (d *decoder) wrongAt(path, format string, arguments ...any) {
	d.report(d.placeOf(path), path, fmt.Sprintf(format, arguments...))
}

func (d *decoder) warnAt(path, format string, arguments ...any) {
	at := d.placeOf(path)
	text := fmt.Sprintf(format, arguments...)
	d.warnings = append(d.warnings, Problem{File: d.file, Line: at.line, Column: at.column, Key: path, Text: text})
}

func (d *decoder) placeOf(path string) place {
	for path != "" {
		if at, ok := d.places[path]; ok {
			return at
		}
		path = path[:max(0, strings.LastIndexAny(path, ".["))]
	}
	return place{1, 1}
}

// written says whether the file has the key at path.
func (d *decoder) written(path string) bool {
	_, ok := d.places[path]
	return ok
}

// reported says whether the key at path has a problem already.
func (d *decoder) reported(path string) bool { return d.bad[path] }

// child makes the value below v under the given path; false when the file is too large to go on.
func (d *decoder) child(node *yaml.Node, path string) (value, bool) {
	v := value{node: node, path: path, place: place{node.Line, node.Column}}
	for v.node.Kind == yaml.AliasNode {
		v.node = v.node.Alias
	}
	d.places[path] = v.place
	d.budget--
	if d.budget == 0 {
		d.wrong(v, "the aliases before this one repeat too many values; write the values out")
	}
	return v, d.budget > 0
}

// field is one known key of a mapping.
type field struct {
	key     string
	read    func(value) // nil: a key of the product that this version doesn't have
	missing string      // what to write; empty: the key may be left out
}

func optional(key string, read func(value)) field { return field{key: key, read: read} }

func required(key string, read func(value), missing string) field {
	return field{key: key, read: read, missing: missing}
}

func unsupported(key string) field { return field{key: key} }

// into makes a reader that stores what read returns. A wrong value is stored as zero, which no valid value is
// where relations looks at it, so that one mistake gives one message.
func into[T any](target *T, read func(value) (T, bool)) func(value) {
	return func(v value) { *target, _ = read(v) }
}

// object reads a mapping whose known keys are the given fields.
func (d *decoder) object(v value, fields ...field) {
	if v.shape != nil {
		v.shape.mapping(fields)
		return
	}
	if isNull(v.node) {
		d.wrong(v, "empty; allowed: a mapping with the keys %s", keyList(fields))
		return
	}
	if v.node.Kind != yaml.MappingNode || v.node.ShortTag() != "!!map" {
		d.wrong(v, "%s is not a mapping; allowed: a mapping with the keys %s", describe(v.node), keyList(fields))
		return
	}
	seen := map[string]place{}
	for i := 0; i+1 < len(v.node.Content); i += 2 {
		key := v.node.Content[i]
		at := place{key.Line, key.Column}
		for key.Kind == yaml.AliasNode {
			key = key.Alias
		}
		path := join(v.path, keyName(key))
		if key.Kind != yaml.ScalarNode {
			d.report(at, path, fmt.Sprintf("%s is not a key; allowed: %s", describe(key), keyList(fields)))
			continue
		}
		if first, ok := seen[key.Value]; ok {
			d.report(at, path, fmt.Sprintf("the key is here twice, first in line %d; write it once", first.line))
			continue
		}
		seen[key.Value] = at
		f, ok := find(fields, key)
		if !ok {
			d.report(at, path, unknownKey(key, fields))
			continue
		}
		if f.read == nil {
			d.report(at, path, "not supported by this version; allowed: "+keyList(fields))
			continue
		}
		child, ok := d.child(v.node.Content[i+1], path)
		if !ok {
			return
		}
		f.read(child)
	}
	for _, f := range fields {
		if _, ok := seen[f.key]; !ok && f.missing != "" {
			d.report(v.place, join(v.path, f.key), "missing; write "+f.missing)
		}
	}
}

// list reads a sequence; each is called for every element in order.
func (d *decoder) list(v value, of string, each func(value)) {
	if v.shape != nil {
		v.shape.list(each)
		return
	}
	if isNull(v.node) {
		d.wrong(v, "empty; allowed: a list of %s", of)
		return
	}
	if v.node.Kind != yaml.SequenceNode || v.node.ShortTag() != "!!seq" {
		d.wrong(v, "%s is not a list; allowed: a list of %s", describe(v.node), of)
		return
	}
	for i, node := range v.node.Content {
		child, ok := d.child(node, fmt.Sprintf("%s[%d]", v.path, i))
		if !ok {
			return
		}
		each(child)
	}
}

func find(fields []field, key *yaml.Node) (field, bool) {
	for _, f := range fields {
		if f.key == key.Value && key.ShortTag() == "!!str" {
			return f, true
		}
	}
	return field{}, false
}

func unknownKey(key *yaml.Node, fields []field) string {
	if key.ShortTag() == "!!merge" {
		return "merge keys are not supported; write the keys out, or use an alias for a whole value; allowed: " + keyList(fields)
	}
	if hint := keepalivedHint(key.Value, fields); hint != "" {
		return "unknown key; " + hint + "; allowed: " + keyList(fields)
	}
	return "unknown key" + didYouMean(key.Value, keys(fields)) + "; allowed: " + keyList(fields)
}

// keys returns the names of the keys that this version has.
func keys(fields []field) []string {
	var names []string
	for _, f := range fields {
		if f.read != nil {
			names = append(names, f.key)
		}
	}
	return names
}

func keyList(fields []field) string { return strings.Join(keys(fields), ", ") }

var plainKey = regexp.MustCompile(`^[A-Za-z0-9_<-]{1,64}$`)

// keyName is how a key stands in a path; strange ones are quoted, so that a message stays on one line.
func keyName(key *yaml.Node) string {
	switch {
	case key.Kind != yaml.ScalarNode:
		return "?"
	case plainKey.MatchString(key.Value):
		return key.Value
	}
	return quote(key.Value)
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

func isNull(node *yaml.Node) bool {
	return node.Kind == yaml.ScalarNode && node.ShortTag() == "!!null"
}

// describe shows a node in a message.
func describe(node *yaml.Node) string {
	tag := node.ShortTag()
	switch node.Kind {
	case yaml.MappingNode:
		return kindAndTag("a mapping", tag, "!!map")
	case yaml.SequenceNode:
		return kindAndTag("a list", tag, "!!seq")
	}
	switch tag {
	case "!!int", "!!float", "!!bool", "!!timestamp":
		if plainValue.MatchString(node.Value) {
			return node.Value
		}
	}
	return quote(node.Value)
}

func kindAndTag(kind, tag, usual string) string {
	if tag == usual {
		return kind
	}
	return kind + " with the tag " + quote(tag)
}

var plainValue = regexp.MustCompile(`^[A-Za-z0-9_.:+-]{1,64}$`)
