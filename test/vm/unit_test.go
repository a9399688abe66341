package vm_test

import (
	"os"
	"os/exec"
	"path/filepath"
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

func TestUnitRunsUnderSystemdAndOutlivesTheDeathOfEachProcess(t *testing.T) {
	needLab(t)
	t.Parallel()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	script, err := os.ReadFile("testdata/unit.sh")
	if err != nil {
		t.Fatal(err)
	}
	code, out, errout := run(t, string(script), "VM_SYSTEMD=1", "VM_MEMORY=1024",
		"XDIRECTOR_UNIT_ALL="+os.Getenv("XDIRECTOR_UNIT_ALL"), "XDIRECTOR_BIN="+binary(t), "XDIRECTOR_UNIT="+filepath.Join(root, "configs", "xdirector.service"),
		"XDIRECTOR_CLEANUP_UNIT="+filepath.Join(root, "configs", "xdirector-cleanup.service"))
	if code != 0 || !strings.Contains(out, "fact: a clean stop leaves nothing") {
		t.Fatalf("exit code %d\n%s%s", code, out, errout)
	}
	t.Log(out)
}
