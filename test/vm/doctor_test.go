package vm_test

import (
	"os"
	"strings"
	"testing"
)

func TestDoctorCuresUnderSystemd(t *testing.T) {
	needLab(t)
	t.Parallel()
	script, err := os.ReadFile("testdata/doctor.sh")
	if err != nil {
		t.Fatal(err)
	}
	code, out, errout := run(t, string(script), "VM_SYSTEMD=1", "XDIRECTOR_BIN="+binary(t))
	if code != 0 || !strings.Contains(out, "fact: systemd-networkd keeps") {
		t.Fatalf("exit code %d\n%s%s", code, out, errout)
	}
	t.Log(out)
}
