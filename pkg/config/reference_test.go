package config

import (
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"
)

const reference = "../../configs/config.yaml"

// leaf is one key of the reference whose value is a scalar or a list of scalars.
type leaf struct {
	path    string // with [] for any index
	mapping *yaml.Node
	at      int    // index of the key in mapping.Content
	comment string // on the line of the value
}

func (l leaf) key() string { return l.mapping.Content[l.at].Value }

// eachKey reads the reference and shows every key of it: with its path, its place in a mapping, and the comment on its line.
func eachKey(t *testing.T, show func(path string, mapping *yaml.Node, at int, beside string)) *yaml.Node {
	t.Helper()
	data, err := os.ReadFile(reference)
	if err != nil {
		t.Fatal(err)
	}
	var document yaml.Node
	if err := yaml.Unmarshal(data, &document); err != nil {
		t.Fatal(err)
	}
	var walk func(node *yaml.Node, path string)
	walk = func(node *yaml.Node, path string) {
		switch node.Kind {
		case yaml.SequenceNode:
			for _, element := range node.Content {
				walk(element, path+"[]")
			}
		case yaml.MappingNode:
			for i := 0; i < len(node.Content); i += 2 {
				key, value := node.Content[i], node.Content[i+1]
				beside := value.LineComment
				if beside == "" {
					beside = key.LineComment
				}
				at := join(path, key.Value)
				show(at, node, i, beside)
				walk(value, at)
			}
		}
	}
	walk(document.Content[0], "")
	return &document
}

// leaves returns the document and the first leaf of each path in it.
func leaves(t *testing.T) (*yaml.Node, []leaf) {
	t.Helper()
	var found []leaf
	seen := map[string]bool{}
	document := eachKey(t, func(path string, mapping *yaml.Node, at int, beside string) {
		value := mapping.Content[at+1]
		scalars := value.Kind == yaml.SequenceNode && value.Content[0].Kind == yaml.ScalarNode
		if (value.Kind == yaml.ScalarNode || scalars) && !seen[path] {
			seen[path] = true
			found = append(found, leaf{path, mapping, at, strings.TrimPrefix(beside, "# ")})
		}
	})
	return document, found
}

func parseNode(t *testing.T, document *yaml.Node) (*Config, error) {
	t.Helper()
	data, err := yaml.Marshal(document)
	if err != nil {
		t.Fatal(err)
	}
	c, err := Parse("f", data)
	if c != nil {
		c.Warnings = nil // their lines are those of the edited file
	}
	return c, err
}

func TestReferenceIsValidAndWithoutWarnings(t *testing.T) {
	c, err := Load(reference)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range c.Warnings {
		t.Error(w)
	}
	checkInvariants(t, c)
}

func TestReferenceHoldsEveryKeyThatTheDecoderKnows(t *testing.T) {
	data, err := os.ReadFile(reference)
	if err != nil {
		t.Fatal(err)
	}
	d := newDecoder("f", len(data))
	root := d.document(data)
	d.config(value{node: root})
	written := map[string]bool{}
	for path := range d.places {
		written[inReference(index.ReplaceAllString(path, "[]"))] = true
	}
	known := shapeOfFile().paths("")
	for _, path := range known {
		if !written[inReference(path)] {
			t.Errorf("%s is missing in %s", path, reference)
		}
	}
	if len(known) < 100 {
		t.Errorf("the decoder knows only %d keys, so the walk went wrong", len(known))
	}
}

var index = regexp.MustCompile(`\[\d+\]`)

// paths lists every key below a path.
func (s *shape) paths(path string) []string {
	var all []string
	for _, k := range s.keys {
		at := join(path, k.name)
		all = append(append(all, at), k.shape.paths(at)...)
	}
	if s.each != nil {
		all = append(all, s.each.paths(path+"[]")...)
	}
	for _, e := range s.either {
		all = append(all, e.paths(path)...)
	}
	return all
}

func TestEveryKeyOfElectionsIsExplainedToOperators(t *testing.T) {
	page, err := os.ReadFile("../../docs/vrrp.md")
	if err != nil {
		t.Fatal(err)
	}
	known := 0
	for _, path := range shapeOfFile().paths("") {
		key := path[strings.LastIndex(path, ".")+1:]
		if !strings.HasPrefix(path, "vrrp.") {
			continue
		}
		known++
		if !regexp.MustCompile(`\b` + key + `\b`).Match(page) {
			t.Errorf("docs/vrrp.md doesn't explain %s", path)
		}
	}
	if known < 60 {
		t.Errorf("only %d keys of elections were found", known)
	}
}

var annotation = regexp.MustCompile(`^(?:(required); |default ([^;]+); |(absent): )`)

func TestReferenceTellsTheTrueDefaults(t *testing.T) {
	document, all := leaves(t)
	told := 0
	for _, l := range all {
		if strings.HasPrefix(l.path, "services[].real_servers[].check.") && l.key() != "insecure" {
			continue
		}
		t.Run(l.path, func(t *testing.T) {
			m := annotation.FindStringSubmatch(l.comment)
			if m == nil {
				t.Fatalf("comment %q begins with none of: required; default VALUE; absent:", l.comment)
			}
			key, value := l.mapping.Content[l.at], l.mapping.Content[l.at+1]
			whole := l.mapping.Content
			l.mapping.Content = slices.Delete(slices.Clone(whole), l.at, l.at+2)
			without, err := parseNode(t, document)
			l.mapping.Content = whole
			switch {
			case m[1] != "":
				missing := strings.Replace(key.Value, "firewall_mark", "address", 1) // one of the two
				if err == nil || !strings.Contains(err.Error(), missing+": missing; write ") {
					t.Fatalf("without the key: %v, want that it is missing", err)
				}
			case err != nil:
				t.Fatalf("without the key: %v", err)
			case m[2] != "":
				told++
				l.mapping.Content = slices.Clone(whole)
				l.mapping.Content[l.at+1] = &yaml.Node{Kind: yaml.ScalarNode, Value: m[2]}
				with, err := parseNode(t, document)
				l.mapping.Content = whole
				if err != nil {
					t.Fatalf("with %s: %v", m[2], err)
				}
				if !reflect.DeepEqual(with, without) {
					t.Errorf("without the key:\n%+v\nwith %s:\n%+v", without, m[2], with)
				}
			default: // absent: the words tell what happens, and TestDefaults what the words mean
				if with, err := parseNode(t, document); err != nil || reflect.DeepEqual(with, without) && value.Value != "80" && l.path != "dataplane.interfaces" {
					t.Errorf("the key makes no difference (error %v)", err)
				}
			}
		})
	}
	if told < 45 {
		t.Errorf("only %d defaults are told", told)
	}
}
