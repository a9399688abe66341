package config

import (
	"bytes"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/jsonschema-go/jsonschema"
	"gopkg.in/yaml.v3"
)

const schemaFile = "../../configs/config.schema.json"

// schema makes the JSON schema of what may stand at path.
func (s *shape) schema(path string, all map[string]explanation) *jsonschema.Schema {
	j := &jsonschema.Schema{}
	switch s.kind {
	case kindText:
		j.Type = "string"
		for _, word := range s.words {
			j.Enum = append(j.Enum, word)
		}
		if s.words == nil && !s.empty {
			j.MinLength = jsonschema.Ptr(1)
		}
		if s.most > 0 {
			j.MaxLength = jsonschema.Ptr(s.most)
		}
		if s.pattern != nil {
			j.Pattern = s.pattern.String()
		}
	case kindInteger:
		j.Type, j.Minimum, j.Maximum = "integer", jsonschema.Ptr(float64(s.low)), jsonschema.Ptr(float64(s.high))
	case kindBoolean:
		j.Type = "boolean"
	case kindList:
		j.Type, j.Items = "array", s.each.schema(path+"[]", all)
	case kindEither:
		for _, e := range s.either {
			j.AnyOf = append(j.AnyOf, e.schema(path, all))
		}
	case kindMapping:
		s.mappingSchema(j, path, all)
	}
	return j
}

func (s *shape) mappingSchema(j *jsonschema.Schema, path string, all map[string]explanation) {
	j.Type, j.Properties = "object", map[string]*jsonschema.Schema{}
	j.AdditionalProperties = &jsonschema.Schema{Not: &jsonschema.Schema{}} // false
	for _, k := range s.keys {
		at := join(path, k.name)
		below := k.shape.schema(at, all)
		below.Description = k.shape.description(explained(all, at))
		if standard := explained(all, at).standard; standard != "" {
			var v any
			if yaml.Unmarshal([]byte(standard), &v) == nil {
				below.Default, _ = json.Marshal(v) // what YAML gives can be written
			}
		}
		j.Properties[k.name], j.PropertyOrder = below, append(j.PropertyOrder, k.name)
		if k.required {
			j.Required = append(j.Required, k.name)
		}
	}
	for _, keys := range s.needs {
		j.AnyOf = append(j.AnyOf, &jsonschema.Schema{Required: keys})
	}
}

// description is what an editor shows beside a key.
func (s *shape) description(e explanation) string {
	text := []string{e.text}
	if s.allowed != "" && s.words == nil && !strings.Contains(e.text, s.allowed) {
		text = append(text, "Allowed: "+s.allowed+".")
	}
	if e.absent != "" {
		text = append(text, "Without it: "+e.absent+".")
	}
	return strings.Join(slices.DeleteFunc(text, func(s string) bool { return s == "" }), "\n\n")
}

func TestSchemaForEditorsIsTheDecodersOwn(t *testing.T) {
	s := shapeOfFile().schema("", explanations(t))
	s.Schema = "http://json-schema.org/draft-07/schema#"
	s.Title = "xdirector: /etc/xdirector/config.yaml"
	s.Description = "The configuration of the xdirector load-balancing director. `xdirector check FILE` finds more mistakes than an editor can."
	text, err := json.MarshalIndent(s, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	generated(t, schemaFile, append(text, '\n'))
}

// generated compares a committed file with what it has to be, or writes it with -update.
func generated(t *testing.T, path string, want []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, want, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is out of date: go test ./pkg/config -update\n%s", filepath.Base(path), cmp.Diff(string(got), string(want)))
	}
}

func committedSchema(t *testing.T) (*jsonschema.Schema, *jsonschema.Resolved) {
	t.Helper()
	data, err := os.ReadFile(schemaFile)
	if err != nil {
		t.Fatal(err)
	}
	var s jsonschema.Schema
	if err := json.Unmarshal(data, &s); err != nil {
		t.Fatal(err)
	}
	resolved, err := s.Resolve(&jsonschema.ResolveOptions{ValidateDefaults: true})
	if err != nil {
		t.Fatal(err)
	}
	return &s, resolved
}

// asEditor reads a file as an editor does, for which places and tags of YAML say nothing; an error: it is no YAML.
func asEditor(data []byte) (any, error) {
	var document yaml.Node
	if err := yaml.Unmarshal(data, &document); err != nil {
		return nil, err
	}
	return plain(&document)
}

// plain is the JSON of a node; an error: it has none.
func plain(node *yaml.Node) (v any, err error) {
	var decoded any
	if err := node.Decode(&decoded); err != nil {
		return nil, err
	}
	text, err := json.Marshal(decoded)
	if err == nil {
		err = json.Unmarshal(text, &v)
	}
	return v, err
}

func TestEveryFileThatWeShipIsValidForAnEditor(t *testing.T) {
	_, schema := committedSchema(t)
	files, err := filepath.Glob(examples + "*.yaml")
	if err != nil || len(files) < 14 {
		t.Fatalf("%d files: %v", len(files), err)
	}
	for _, file := range append(files, reference, "testdata/minimal.yaml") {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		v, err := asEditor(data)
		if err != nil {
			t.Fatal(err)
		}
		if err := schema.Validate(v); err != nil {
			t.Errorf("%s: %v", file, err)
		}
	}
}

func TestEveryKeyHasAWordForEditors(t *testing.T) {
	s, _ := committedSchema(t)
	told := 0
	var walk func(s *jsonschema.Schema, path string)
	walk = func(s *jsonschema.Schema, path string) {
		for _, name := range slices.Sorted(maps.Keys(s.Properties)) {
			p, at := s.Properties[name], join(path, name)
			told++
			if p.Description == "" && p.Type != "object" && p.Type != "array" {
				t.Errorf("%s has no description", at)
			}
			walk(p, at)
		}
		if s.Items != nil {
			walk(s.Items, path+"[]")
		}
		for _, e := range s.AnyOf {
			walk(e, path)
		}
	}
	walk(s, "")
	if told < 150 {
		t.Errorf("only %d keys were found", told)
	}
}
