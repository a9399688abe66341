package config

import (
	"regexp"
	"strings"
	"testing"

	"github.com/google/jsonschema-go/jsonschema"
	"gopkg.in/yaml.v3"
)

// ofOneKey are messages about a key or value by itself, which a schema can tell as well.
var ofOneKey = regexp.MustCompile(`(?m): (unknown key|.* is not (a mapping|a list|an integer|a boolean|a text|a duration)|.* is unknown|"[^"]*" is not supported|not supported|missing; write|empty; allowed|-?[0-9]+ is out of range; allowed: -?[0-9]+ to)`)

func TestWhatCheckRefusesAnEditorRefusesToo(t *testing.T) {
	_, schema := committedSchema(t)
	_, cases := readCases(t, "testdata/wrong.txt")
	told := 0
	for _, c := range cases {
		v, err := asEditor([]byte(c.file))
		if err != nil || !ofOneKey.MatchString(c.wants) || c.name == "merge keys" || c.name == "checks of services without a single port" {
			continue // editors merge; the other one depends on the service
		}
		told++
		if schema.Validate(v) == nil {
			t.Errorf("%s: the schema takes it, check says:\n%s", c.name, c.wants)
		}
	}
	if told < 20 {
		t.Errorf("only %d cases", told)
	}
}

func TestWhatCheckTakesAnEditorTakesToo(t *testing.T) {
	_, schema := committedSchema(t)
	_, cases := readCases(t, "testdata/warnings.txt")
	for _, c := range cases {
		v, err := asEditor([]byte(c.file))
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if err := schema.Validate(v); err != nil {
			t.Errorf("%s: check takes it, the schema says: %v", c.name, err)
		}
	}
}

// Each key of the reference in turn gets a value of another type, then one out of its range or list, then a neighbour that nobody
// knows, then it is left out if it is required: what the decoder says of each, the schema says too.
func TestEachKeyIsCheckedByEditorsAsByTheDecoder(t *testing.T) {
	_, schema := committedSchema(t)
	document, all := leaves(t)
	tried := 0
	for _, l := range all {
		content := l.mapping.Content
		try := func(what string, key, v *yaml.Node) {
			t.Helper()
			l.mapping.Content = append(append([]*yaml.Node{}, content[:l.at]...), content[l.at+2:]...)
			if key != nil {
				l.mapping.Content = append(l.mapping.Content, key, v)
			}
			refused(t, schema, l.path+" "+what, document)
			l.mapping.Content = content
			tried++
		}
		text := func(s string) *yaml.Node {
			return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s, Style: yaml.DoubleQuotedStyle}
		}
		key, value := content[l.at], content[l.at+1]
		try("as a mapping", key, &yaml.Node{Kind: yaml.MappingNode, Content: []*yaml.Node{text("a"), text("b")}})
		switch {
		case value.Kind == yaml.SequenceNode:
			try("as a text", key, &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!int", Value: "12"})
		case value.ShortTag() == "!!int":
			try("as a text", key, text("high"))
			try("out of range", key, &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!int", Value: "99999999999"})
		case value.ShortTag() == "!!bool":
			try("as a text", key, text("yes"))
		default:
			try("as a number", key, &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!float", Value: "1.5"})
			try("empty", key, text(""))
		}
		try("misspelt", text(key.Value+"x"), value)
		if strings.HasPrefix(l.comment, "required") {
			try("missing", nil, nil)
		}
	}
	if tried < 500 {
		t.Errorf("only %d files were tried", tried)
	}
}

// refused checks that the decoder refuses a document, and the schema too.
func refused(t *testing.T, schema *jsonschema.Resolved, what string, document *yaml.Node) {
	t.Helper()
	root := document.Content[0]
	v, err := plain(root)
	if err != nil {
		t.Fatal(err)
	}
	d := newDecoder("f", 1<<20)
	d.config(value{node: root})
	if told := schema.Validate(v); told == nil || len(d.problems) == 0 {
		t.Errorf("%s: the schema says %v, the decoder %v", what, told, d.problems)
	}
}
