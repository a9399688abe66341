package control

import (
	"bytes"
	"cmp"
	"encoding/json"
	"flag"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/xdirector/xdirector/pkg/status"
)

var update = flag.Bool("update", false, "write openapi.json anew")

type object = map[string]any

// document makes openapi.json of the routes, of the Go types of their bodies, and of what the comments say about those.
type document struct {
	comments map[string]string // of a type or of TYPE.FIELD, both with the package: status.RealServer.Up
	schemas  object
}

func newDocument(t *testing.T) *document {
	t.Helper()
	d := &document{comments: map[string]string{}, schemas: object{}}
	for _, name := range append(glob(t, "*.go"), glob(t, "../status/*.go")...) {
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool { d.read(f.Name.Name, n); return true })
	}
	return d
}

func glob(t *testing.T, pattern string) []string {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		t.Fatalf("%s: %v", pattern, err)
	}
	return files
}

func (d *document) read(pkg string, n ast.Node) {
	declaration, ok := n.(*ast.GenDecl)
	if !ok {
		return
	}
	for _, spec := range declaration.Specs {
		typ, ok := spec.(*ast.TypeSpec)
		if !ok {
			continue
		}
		name := pkg + "." + typ.Name.Name
		d.comments[name] = cmp.Or(text(typ.Doc), text(declaration.Doc))
		if s, ok := typ.Type.(*ast.StructType); ok {
			for _, f := range s.Fields.List {
				for _, field := range f.Names {
					d.comments[name+"."+field.Name] = cmp.Or(text(f.Doc), text(f.Comment))
				}
			}
		}
	}
}

func text(c *ast.CommentGroup) string { return strings.Join(strings.Fields(c.Text()), " ") }

func (d *document) make(routes []route) object {
	paths := object{}
	for _, r := range routes {
		path, _ := paths[r.path].(object)
		if path == nil {
			path = object{}
			paths[r.path] = path
		}
		path[strings.ToLower(r.method)] = d.operation(r)
	}
	d.ref(typeOf[failure]())
	return object{
		"openapi": "3.1.0",
		"info": object{"title": "xdirector", "version": "1",
			"description": "The control socket of xdirector: HTTP and JSON over a unix socket. Keys may be added to answers within /v1; an unknown key in a request is refused."},
		"servers": []object{{"url": "http://xdirector", "description": "over /run/xdirector/control.sock, or what control.socket names"}},
		"paths":   paths, "components": object{"schemas": d.schemas},
	}
}

func (d *document) operation(r route) object {
	o := object{"summary": r.summary, "operationId": strings.ToLower(r.method) + strings.NewReplacer("/v1", "", "/", "_", "{", "", "}", "", ".json", "").Replace(r.path)}
	var parameters []object
	for part := range strings.SplitSeq(r.path, "/") {
		if name, found := strings.CutPrefix(part, "{"); found {
			parameters = append(parameters, object{"name": strings.TrimSuffix(name, "}"), "in": "path", "required": true, "schema": object{"type": "string"}})
		}
	}
	for _, p := range r.query {
		parameters = append(parameters, object{"name": p.name, "in": "query", "description": p.text, "schema": d.schema(p.kind)})
	}
	if len(parameters) > 0 {
		o["parameters"] = parameters
	}
	body := func(media string, schema object) object { return object{media: object{"schema": schema}} }
	if r.request != nil {
		o["requestBody"] = object{"required": true, "content": body("application/json", d.schema(r.request))}
	}
	answer := object{"type": "object"}
	if r.answer != nil && r.answer != typeOf[nothing]() {
		answer = d.schema(r.answer)
	}
	done := object{"description": "Done.", "content": body(cmp.Or(r.media, "application/json"), answer)}
	if r.media == "text/event-stream" {
		done["description"] = "Each event has the fields id, event (its kind) and data (JSON as below); lines that begin with a colon are signs of life."
	}
	o["responses"] = object{"200": done, "default": object{"description": "Refused: 400 for a wrong request, 404 for a name that is not configured, 422 for what can't be done, 503 for what can't be done now.",
		"content": body("application/json", d.ref(typeOf[failure]()))}}
	return o
}

func (d *document) ref(t reflect.Type) object {
	name := strings.ToUpper(t.Name()[:1]) + t.Name()[1:]
	if _, known := d.schemas[name]; !known {
		d.schemas[name] = object{} // it may hold itself
		properties, required := object{}, []string{}
		for f := range fields(t) {
			key, options, _ := strings.Cut(f.Tag.Get("json"), ",")
			schema := d.schema(f.Type)
			if options == "" {
				required = append(required, key)
				if k := f.Type.Kind(); (k == reflect.Slice || k == reflect.Map) && f.Type != typeOf[[]byte]() {
					schema["type"] = []string{schema["type"].(string), "null"}
				}
			}
			if comment := d.comments[t.String()+"."+f.Name]; comment != "" {
				schema["description"] = comment
			}
			properties[key] = schema
		}
		d.schemas[name] = object{"type": "object", "description": d.comments[t.String()], "properties": properties, "required": required, "additionalProperties": false}
	}
	return object{"$ref": "#/components/schemas/" + name}
}

// fields are those that JSON has.
func fields(t reflect.Type) func(func(reflect.StructField) bool) {
	return func(yield func(reflect.StructField) bool) {
		for n := range t.NumField() {
			if f := t.Field(n); f.IsExported() && !yield(f) {
				return
			}
		}
	}
}

func (d *document) schema(t reflect.Type) object {
	switch {
	case t == typeOf[time.Time]():
		return object{"type": "string", "format": "date-time"}
	case t == typeOf[[]byte]():
		return object{"type": "string", "contentEncoding": "base64"}
	case t.Implements(typeOf[interface{ MarshalText() ([]byte, error) }]()):
		return object{"type": "string"}
	}
	switch t.Kind() {
	case reflect.Pointer:
		return d.schema(t.Elem())
	case reflect.Struct:
		return d.ref(t)
	case reflect.Slice:
		return object{"type": "array", "items": d.schema(t.Elem())}
	case reflect.Map:
		return object{"type": "object", "additionalProperties": d.schema(t.Elem())}
	case reflect.String:
		return object{"type": "string"}
	case reflect.Bool:
		return object{"type": "boolean"}
	case reflect.Float64:
		return object{"type": "number"}
	case reflect.Uint8, reflect.Uint16, reflect.Uint32:
		return object{"type": "integer", "minimum": 0, "maximum": uint64(math.Pow(2, float64(t.Bits()))) - 1}
	case reflect.Uint64:
		return object{"type": "integer", "minimum": 0}
	case reflect.Int, reflect.Int64:
		return object{"type": "integer"}
	}
	panic("openapi.json can't say " + t.String())
}

func allRoutes() []route { return newAPI(&daemon{}, nil, defaults(), nil).routes() }

func TestTheDocumentSaysWhatTheSocketOffersAndNothingElse(t *testing.T) {
	want, err := json.MarshalIndent(newDocument(t).make(allRoutes()), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	want = append(want, '\n')
	if *update {
		if err := os.WriteFile("openapi.json", want, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if !bytes.Equal(want, openapi) {
		have, said := strings.Split(string(openapi), "\n"), strings.Split(string(want), "\n")
		n := 0
		for n < min(len(have), len(said))-1 && have[n] == said[n] {
			n++
		}
		t.Errorf("openapi.json:%d: %q, and routes, types and their comments say %q (go test ./pkg/control -update writes it anew)", n+1, have[n], said[n])
	}
}

// TestAnswersHaveTheKeysOfTheDocument looks at real JSON, not at types: each key of it is in the document, and each key there
// is in it.
func TestAnswersHaveTheKeysOfTheDocument(t *testing.T) {
	var d struct {
		Components struct {
			Schemas map[string]struct {
				Properties map[string]any
			}
		}
	}
	if err := json.Unmarshal(openapi, &d); err != nil {
		t.Fatal(err)
	}
	known := 0
	for _, v := range []any{status.Status{}, status.Event{}, status.Explanation{}, Order{}, ServerOrder{}, Question{}, failoverWish{}, drainWish{}, weightWish{}, failure{}} {
		filled := reflect.New(reflect.TypeOf(v)).Elem()
		fill(filled)
		text, err := json.Marshal(filled.Interface())
		if err != nil {
			t.Fatal(err)
		}
		var keys object
		if err := json.Unmarshal(text, &keys); err != nil {
			t.Fatal(err)
		}
		name := filled.Type().Name()
		name = strings.ToUpper(name[:1]) + name[1:]
		known++
		if have, want := slices.Sorted(maps.Keys(keys)), slices.Sorted(maps.Keys(d.Components.Schemas[name].Properties)); !slices.Equal(have, want) {
			t.Errorf("%s has the keys %q, and openapi.json says %q", name, have, want)
		}
	}
	if known < 10 || len(d.Components.Schemas) < known {
		t.Errorf("openapi.json has only the types %q", slices.Sorted(maps.Keys(d.Components.Schemas)))
	}
}

// fill gives everything a value that is not left out.
func fill(v reflect.Value) {
	switch v.Kind() {
	case reflect.Struct:
		if at, ok := v.Addr().Interface().(*time.Time); ok {
			*at = time.Unix(1, 0)
			return
		}
		if u, ok := v.Addr().Interface().(interface{ UnmarshalText([]byte) error }); ok {
			u.UnmarshalText([]byte("192.0.2.1:80"))
			return
		}
		for n := range v.NumField() {
			if v.Type().Field(n).IsExported() {
				fill(v.Field(n))
			}
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem())
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0))
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(reflect.Zero(v.Type().Key()), reflect.Zero(v.Type().Elem()))
	case reflect.String:
		v.SetString("x")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Float64:
		v.SetFloat(1)
	default:
		if v.CanInt() {
			v.SetInt(1)
		} else {
			v.SetUint(1)
		}
	}
}
