package vm_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// binary is the program that is tested: XDIRECTOR_BIN, or one that is built.
func binary(t *testing.T) string {
	t.Helper()
	if given := os.Getenv("XDIRECTOR_BIN"); given != "" {
		return given
	}
	made := filepath.Join(t.TempDir(), "xdirector")
	build := exec.Command("go", "build", "-o", made, "./cmd/xdirector")
	build.Dir = "../.."
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return made
}

// packaged returns a package of a version, which is built here: a .deb, or what XDIRECTOR_PACKAGE_KIND says.
func packaged(t *testing.T, version string) string {
	t.Helper()
	kind := os.Getenv("XDIRECTOR_PACKAGE_KIND")
	if kind == "" {
		kind = "deb"
	}
	folder := t.TempDir()
	build := exec.Command("tools/package", version, runtime.GOARCH, folder)
	build.Dir = "../.."
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("tools/package: %v\n%s", err, out)
	}
	files, err := filepath.Glob(filepath.Join(folder, "*."+kind))
	if err != nil || len(files) != 1 {
		t.Fatalf("tools/package has built %v: %v", files, err)
	}
	return files[0]
}

func TestUnitRunsUnderSystemdAndOutlivesTheDeathOfEachProcess(t *testing.T) {
	needLab(t)
	t.Parallel()
	script, err := os.ReadFile("testdata/unit.sh")
	if err != nil {
		t.Fatal(err)
	}
	page, err := filepath.Abs("../../docs/install.md")
	if err != nil {
		t.Fatal(err)
	}
	code, out, errout := run(t, string(script), "VM_SYSTEMD=1", "VM_MEMORY=1024",
		"XDIRECTOR_UNIT_ALL="+os.Getenv("XDIRECTOR_UNIT_ALL"), "XDIRECTOR_PACKAGE="+packaged(t, "v1.0.0"), "XDIRECTOR_NEWER_PACKAGE="+packaged(t, "v999.0.0"),
		"XDIRECTOR_PAGE="+page)
	if code != 0 || !strings.Contains(out, "fact: a package that is removed takes all with it") {
		t.Fatalf("exit code %d\n%s%s", code, out, errout)
	}
	t.Log(out)
}
