package vm_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestDoctorCuresRealServersAndItsPageIsTrue(t *testing.T) {
	examine(t, "doctor.sh")
}

func TestDoctorCuresWhatTheServiceLacks(t *testing.T) {
	examine(t, "doctor-service.sh")
}

func TestDoctorGetsItsRightsAndEndsRivals(t *testing.T) {
	examine(t, "doctor-rights.sh")
}

// examine runs a script about the doctor in a guest with systemd.
func examine(t *testing.T, name string) {
	needLab(t)
	t.Parallel()
	var script strings.Builder
	for _, file := range []string{"doctor-lib.sh", name} {
		text, err := os.ReadFile(filepath.Join("testdata", file))
		if err != nil {
			t.Fatal(err)
		}
		script.Write(text)
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	code, out, errout := run(t, script.String(), "VM_SYSTEMD=1", "XDIRECTOR_BIN="+binary(t), "XDIRECTOR_SOURCES="+root)
	if code != 0 || !strings.Contains(out, "fact: that was all") {
		t.Fatalf("exit code %d\n%s%s", code, out, errout)
	}
	t.Log(out)
}
