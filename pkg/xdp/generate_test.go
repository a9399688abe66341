package xdp

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// What is committed must be what the sources give, or readers of bpf/ would be misled about what runs. It needs
// clang-19 and llvm-strip-19, as `go generate` does.
func TestCommittedObjectIsWhatTheSourcesGive(t *testing.T) {
	needRoot(t)
	source, err := os.ReadFile("generate.go")
	if err != nil {
		t.Fatal(err)
	}
	_, line, found := strings.Cut(string(source), "//go:generate ")
	if !found {
		t.Fatal("no go:generate line in generate.go")
	}
	folder := t.TempDir()
	args := strings.Fields(line)
	args = append([]string{"tool", "bpf2go", "-output-dir", folder}, args[3:]...)
	generate := exec.Command("go", args...)
	generate.Env = append(os.Environ(), "GOPACKAGE=xdp", "GOFILE=generate.go")
	if out, err := generate.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", line, err, out)
	}
	for _, name := range []string{"xdirector_bpfel.go", "xdirector_bpfel.o"} {
		made, err := os.ReadFile(filepath.Join(folder, name))
		if err != nil {
			t.Fatal(err)
		}
		committed, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(made, committed) {
			t.Errorf("%s differs from what the sources give: run go generate ./pkg/xdp", name)
		}
	}
}
