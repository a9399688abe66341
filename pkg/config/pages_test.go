package config

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"
)

var yamlBlock = regexp.MustCompile("(?ms)^ *```yaml\n(.*?)^ *```$")

// mappings lists all that a file can have.
func (s *shape) mappings() (list []*shape) {
	if s.kind == kindMapping {
		list = append(list, s)
	}
	for _, k := range s.keys {
		list = append(list, k.shape.mappings()...)
	}
	if s.each != nil {
		list = append(list, s.each.mappings()...)
	}
	for _, e := range s.either {
		list = append(list, e.mappings()...)
	}
	return list
}

// What pages show of the configuration could be written so: all of a file, or what stands at some key.
func TestYAMLInPagesIsOfThisConfiguration(t *testing.T) {
	pages, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	file := shapeOfFile()
	found := 0
	for _, page := range append(pages, "../../README.md", "../../configs/realserver/README.md") {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range yamlBlock.FindAllSubmatch(text, -1) {
			if strings.TrimSpace(regexp.MustCompile(`(?m)^\s*#.*$`).ReplaceAllString(string(m[1]), "")) == "" {
				continue
			}
			var document yaml.Node
			if err := yaml.Unmarshal(m[1], &document); err != nil {
				t.Errorf("%s: %v in\n%s", page, err, m[1])
				continue
			}
			found++
			v, err := plain(&document)
			if err != nil {
				t.Errorf("%s: %v in\n%s", page, err, m[1])
				continue
			}
			fits := slices.ContainsFunc(file.mappings(), func(s *shape) bool {
				schema := s.schema("", nil)
				schema.Required, schema.AnyOf = nil, nil // a part of it is shown
				resolved, err := schema.Resolve(nil)
				return err == nil && resolved.Validate(v) == nil
			})
			if !fits {
				t.Errorf("%s: at no key of the configuration this can stand:\n%s", page, m[1])
			}
		}
	}
	if found < 5 {
		t.Errorf("only %d blocks were found", found)
	}
}
