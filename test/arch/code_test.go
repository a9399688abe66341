package arch_test

import (
	"go/ast"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestPureLogicReadsNoClock(t *testing.T) {
	for _, f := range load(t) {
		if f.test || !slices.Contains(pure(), f.pkg) {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			for _, name := range []string{"Now", "Since", "Until", "After", "AfterFunc", "Sleep", "NewTimer", "NewTicker", "Tick"} {
				if isCall(n, "time", name) {
					t.Errorf("%s: time.%s: time is an argument here", f.at(n), name)
				}
			}
			return true
		})
	}
}

func TestOnlyMainExits(t *testing.T) {
	for _, f := range load(t) {
		if f.test {
			continue
		}
		for _, d := range f.ast.Decls {
			function, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			if function.Name.Name == "init" && function.Recv == nil {
				t.Errorf("%s: no init(): it runs before anybody can see or stop it", f.at(d))
			}
			if f.ast.Name.Name == "main" && function.Name.Name == "main" {
				continue
			}
			ast.Inspect(d, func(n ast.Node) bool {
				if isCall(n, "os", "Exit") || isCall(n, "log", "Fatal") || isCall(n, "log", "Fatalf") {
					t.Errorf("%s: only main exits; return an error", f.at(n))
				}
				return true
			})
		}
	}
}

func TestTestsWaitForFactsNotForTime(t *testing.T) {
	for _, f := range load(t) {
		if !f.test {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			if isCall(n, "time", "Sleep") && !slices.Contains(f.imports(), "testing/synctest") {
				t.Errorf("%s: time.Sleep in a test: wait for the fact with a limit, pass now, or use testing/synctest", f.at(n))
			}
			return true
		})
	}
}

func TestEveryPackageAndExportedNameHasADocComment(t *testing.T) {
	documented := map[string]bool{}
	for _, f := range load(t) {
		documented[f.pkg] = documented[f.pkg] || f.ast.Doc.Text() != ""
		if f.test || ast.IsGenerated(f.ast) {
			continue
		}
		for _, d := range f.ast.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if d.Name.IsExported() && exportedReceiver(d) && d.Doc.Text() == "" {
					t.Errorf("%s: %s has no doc comment", f.at(d), d.Name.Name)
				}
			case *ast.GenDecl:
				for _, s := range d.Specs {
					if name := undocumented(d, s); name != "" {
						t.Errorf("%s: %s has no doc comment", f.at(s), name)
					}
				}
			}
		}
	}
	for pkg, ok := range documented {
		if !ok {
			t.Errorf("package %s has no doc comment", pkg)
		}
	}
}

// exportedReceiver says whether a function is seen from outside: it is no method, or the method of an exported type.
func exportedReceiver(d *ast.FuncDecl) bool {
	if d.Recv == nil {
		return true
	}
	kind := d.Recv.List[0].Type
	if star, ok := kind.(*ast.StarExpr); ok {
		kind = star.X
	}
	if generic, ok := kind.(*ast.IndexExpr); ok {
		kind = generic.X
	}
	name, ok := kind.(*ast.Ident)
	return ok && name.IsExported()
}

// undocumented returns the first exported name of a declaration that has no comment: neither of its own, nor of its
// group, nor behind it on the line.
func undocumented(d *ast.GenDecl, s ast.Spec) string {
	if d.Doc.Text() != "" {
		return ""
	}
	switch s := s.(type) {
	case *ast.TypeSpec:
		if s.Name.IsExported() && s.Doc.Text() == "" && s.Comment.Text() == "" {
			return s.Name.Name
		}
	case *ast.ValueSpec:
		for _, name := range s.Names {
			if name.IsExported() && s.Doc.Text() == "" && s.Comment.Text() == "" {
				return name.Name
			}
		}
	}
	return ""
}

// isCall says whether a node is a call of pkg.name.
func isCall(n ast.Node, pkg, name string) bool {
	call, ok := n.(*ast.CallExpr)
	if !ok {
		return false
	}
	selector, ok := call.Fun.(*ast.SelectorExpr)
	if !ok {
		return false
	}
	base, ok := selector.X.(*ast.Ident)
	return ok && base.Name == pkg && selector.Sel.Name == name
}

func TestEveryFileSaysItsLicence(t *testing.T) {
	// The kernel loads a GPL program only if its source says so, and a reader must not have to guess.
	for _, f := range bpfSources(t) {
		if !strings.HasPrefix(f.text, "// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause\n") && !strings.HasPrefix(f.text, "/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */\n") {
			t.Errorf("%s: the first line is not SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause", f.path)
		}
	}
}

// source is a C file of the programs.
type source struct{ path, text string }

// bpfSources reads the C files that we wrote; bpf/include is others'.
func bpfSources(t *testing.T) []source {
	t.Helper()
	var all []source
	for _, pattern := range []string{"*.c", "*.h"} {
		names, err := filepath.Glob(filepath.Join(root, "bpf", pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, source{path: name, text: string(text)})
		}
	}
	if len(all) == 0 {
		t.Fatal("found no C file in bpf/")
	}
	return all
}
