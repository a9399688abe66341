// Package arch_test holds the code to the architecture: which package may import which, and a few rules for every
// file. docs/architecture.md says why the arrows are as they are.
package arch_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const (
	root   = "../.."
	module = "github.com/xdirector/xdirector/"
)

// rows are the layers from top to bottom: a package may import those of lower rows, never one of its own row. A new
// package must be placed here.
func rows() [][]string {
	return [][]string{
		{"test/arch", "test/bench", "test/benchvrrp", "test/demo", "test/e2e", "test/failover", "test/release", "test/vm"},
		{"test/lab"},
		{"cmd/xdirector"},
		{"pkg/director", "pkg/keepalived", "pkg/supervisor", "pkg/doctor"},
		{"pkg/config", "pkg/ha", "pkg/xdp", "pkg/ipvs", "pkg/neigh", "pkg/flowsync", "pkg/control", "pkg/web", "pkg/metrics", "pkg/track", "pkg/notify"},
		{"pkg/lb", "pkg/vrrp", "pkg/health", "pkg/status", "pkg/statefile", "pkg/logging", "pkg/packet", "pkg/command", "pkg/realserver"},
		{"pkg/owner"},
	}
}

// modules lists who may import a module of others, by the start of the import path. "tests" are the _test.go files of
// every package; a new module must be placed here.
func modules() map[string][]string {
	return map[string][]string{
		"github.com/cilium/ebpf":              {"pkg/xdp", "test/lab", "test/bench"},
		"github.com/vishvananda/netlink":      {"pkg/ha", "pkg/neigh", "pkg/ipvs", "test/lab"},
		"github.com/vishvananda/netns":        {"test/lab", "tests"},
		"github.com/cloudflare/ipvs":          {"pkg/ipvs"},
		"github.com/mdlayher/genetlink":       {"pkg/ipvs"},
		"github.com/mdlayher/netlink":         {"pkg/ipvs"},
		"github.com/google/nftables":          {"pkg/ha"},
		"github.com/mdlayher/packet":          {"pkg/ha", "test/lab", "tests"},
		"github.com/prometheus/client_golang": {"pkg/metrics", "cmd/xdirector"},
		"github.com/prometheus/client_model":  {"pkg/metrics"},
		"github.com/prometheus/common":        {"tests"},
		"gopkg.in/yaml.v3":                    {"pkg/config"},
		"github.com/spf13/cobra":              {"cmd/xdirector"},
		"github.com/spf13/pflag":              {"cmd/xdirector"},
		"github.com/coreos/go-systemd/v22":    {"cmd/xdirector"},
		"golang.org/x/term":                   {"cmd/xdirector", "test/demo"},
		"golang.org/x/net":                    {"pkg/ha", "pkg/health", "pkg/control", "pkg/metrics", "test/lab", "tests"},
		"golang.org/x/sync":                   {"pkg/director", "test/demo", "test/bench", "test/lab", "tests"},
		"golang.org/x/sys":                    {"pkg/ha", "pkg/health", "pkg/neigh", "pkg/ipvs", "pkg/xdp", "pkg/supervisor", "pkg/track", "pkg/command", "pkg/owner", "pkg/doctor", "test/lab", "test/demo", "test/bench", "tests"},
		"github.com/wneessen/go-mail":         {"pkg/notify"},
		"github.com/google/go-cmp":            {"tests"},
		"github.com/google/jsonschema-go":     {"tests"},
		"pgregory.net/rapid":                  {"tests"},
	}
}

// pure are the packages of logic that is told what happened: no clock, no input, no output, no goroutines.
func pure() []string { return []string{"pkg/lb", "pkg/vrrp"} }

// file is one Go file of the module.
type file struct {
	path string // from the root of the module
	pkg  string // the folder
	test bool
	ast  *ast.File
	set  *token.FileSet
}

func (f file) String() string { return f.path }

// at names a line of the file, as an editor wants it.
func (f file) at(n ast.Node) string {
	return fmt.Sprintf("%s:%d", f.path, f.set.Position(n.Pos()).Line)
}

func (f file) imports() []string {
	var all []string
	for _, i := range f.ast.Imports {
		name, _ := strconv.Unquote(i.Path.Value)
		all = append(all, name)
	}
	return all
}

// load parses all Go files, whatever their build tags are.
func load(t *testing.T) []file {
	t.Helper()
	var all []file
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			_, other := os.Stat(filepath.Join(name, "go.mod"))
			if name != root && (other == nil || d.Name() == "testdata" || strings.HasPrefix(d.Name(), ".")) {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") {
			return nil
		}
		rel, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		set := token.NewFileSet()
		parsed, err := parser.ParseFile(set, name, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		all = append(all, file{path: rel, pkg: path.Dir(rel), test: strings.HasSuffix(name, "_test.go"), ast: parsed, set: set})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 20 {
		t.Fatalf("found %d Go files: the search looks at the wrong place", len(all))
	}
	return all
}

// row returns the layer of a package of ours, 0 being the top; -1: it is not placed.
func row(pkg string) int {
	return slices.IndexFunc(rows(), func(r []string) bool { return slices.Contains(r, pkg) })
}

// arrow says why pkg may not import name; empty: it may.
func arrow(pkg string, test bool, name string) string {
	if ours, ok := strings.CutPrefix(name, module); ok {
		switch {
		case row(ours) < 0:
			return "no such package in the architecture: place it in test/arch"
		case ours == pkg, test && ours == "test/lab": // an external test of the package itself; kernel tests need the lab
			return ""
		case row(ours) <= row(pkg):
			return "arrows go down only"
		}
		return ""
	}
	first, _, _ := strings.Cut(name, "/")
	if !strings.Contains(first, ".") {
		return standard(pkg, test, name)
	}
	best := ""
	for m := range modules() {
		if strings.HasPrefix(name, m) && len(m) > len(best) {
			best = m
		}
	}
	allowed := modules()[best]
	switch {
	case best == "":
		return "unknown module: place it in test/arch"
	case slices.Contains(allowed, pkg), test && slices.Contains(allowed, "tests"):
		return ""
	}
	return "only for " + strings.Join(allowed, ", ")
}

// standard is arrow for the standard library.
func standard(pkg string, test bool, name string) string {
	if test || !slices.Contains(pure(), pkg) || name == "net/netip" {
		return ""
	}
	if first, _, _ := strings.Cut(name, "/"); slices.Contains([]string{"net", "os", "sync", "context", "syscall", "log", "testing", "unsafe"}, first) {
		return "pure logic has no input, output or goroutines"
	}
	return ""
}

func TestImportsFollowTheArrows(t *testing.T) {
	for _, f := range load(t) {
		if row(f.pkg) < 0 {
			t.Errorf("%s: package %s has no place in the architecture: give it one in test/arch and docs/architecture.md", f, f.pkg)
			continue
		}
		for _, name := range f.imports() {
			if why := arrow(f.pkg, f.test, name); why != "" {
				t.Errorf("%s imports %s: %s", f, name, why)
			}
		}
	}
}

func TestArrowsRefuseWhatTheArchitectureForbids(t *testing.T) {
	for _, c := range []struct {
		pkg  string
		test bool
		name string
		ok   bool
	}{
		{"cmd/xdirector", false, module + "pkg/director", true},
		{"pkg/director", false, module + "pkg/xdp", true},
		{"pkg/xdp", false, module + "pkg/lb", true},
		{"pkg/xdp", false, module + "pkg/director", false},
		{"pkg/xdp", false, module + "pkg/ipvs", false},
		{"pkg/xdp", true, module + "pkg/ipvs", false},
		{"pkg/xdp", true, module + "test/lab", true},
		{"pkg/xdp", false, module + "test/lab", false},
		{"pkg/vrrp", false, module + "pkg/lb", false},
		{"pkg/lb", true, module + "pkg/lb", true},
		{"pkg/xdp", false, module + "pkg/util", false},
		{"pkg/xdp", false, "github.com/cilium/ebpf/link", true},
		{"pkg/ipvs", false, "github.com/cilium/ebpf/link", false},
		{"pkg/xdp", false, "github.com/vishvananda/netlink/nl", false},
		{"pkg/metrics", true, "github.com/prometheus/client_golang/prometheus/testutil", true},
		{"pkg/status", false, "github.com/prometheus/client_golang/prometheus", false},
		{"pkg/director", false, "gopkg.in/yaml.v3", false},
		{"pkg/lb", false, "github.com/google/go-cmp/cmp", false},
		{"pkg/lb", true, "github.com/google/go-cmp/cmp", true},
		{"pkg/lb", false, "example.org/new/module", false},
		{"pkg/vrrp", false, "net/netip", true},
		{"pkg/vrrp", false, "net", false},
		{"pkg/vrrp", false, "net/http", false},
		{"pkg/vrrp", false, "sync/atomic", false},
		{"pkg/vrrp", false, "os", false},
		{"pkg/vrrp", true, "os", true},
		{"pkg/vrrp", false, "context", false},
		{"pkg/health", false, "context", true},
	} {
		if why := arrow(c.pkg, c.test, c.name); (why == "") != c.ok {
			t.Errorf("%s (test %v) imports %s: allowed should be %v, and the rule says %q", c.pkg, c.test, c.name, c.ok, why)
		}
	}
}
