package xdp

import (
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// drop takes capabilities away from the test's thread until the end of the test.
func drop(t *testing.T, capabilities ...uint) {
	t.Helper()
	runtime.LockOSThread() // never unlocked
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var before [2]unix.CapUserData
	if err := unix.Capget(&header, &before[0]); err != nil {
		t.Fatal(err)
	}
	less := before
	for _, c := range capabilities {
		less[c/32].Effective &^= 1 << (c % 32)
	}
	if err := unix.Capset(&header, &less[0]); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Capset(&header, &before[0]); err != nil {
			t.Error(err)
		}
	})
}

func TestMissingCapabilityIsNamed(t *testing.T) {
	for _, row := range []struct {
		name    string
		without []uint
		want    string // what is lacking; empty: the plane opens
	}{
		{"CAP_SYS_ADMIN", []uint{unix.CAP_SYS_ADMIN}, ""},
		{"CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN, but CAP_SYS_ADMIN is there", []uint{unix.CAP_BPF, unix.CAP_PERFMON, unix.CAP_NET_ADMIN}, ""},
		{"CAP_BPF", []uint{unix.CAP_BPF, unix.CAP_SYS_ADMIN}, "lacks CAP_BPF:"},
		{"CAP_PERFMON", []uint{unix.CAP_PERFMON, unix.CAP_SYS_ADMIN}, "lacks CAP_PERFMON:"},
		{"CAP_NET_ADMIN", []uint{unix.CAP_NET_ADMIN, unix.CAP_SYS_ADMIN}, "lacks CAP_NET_ADMIN:"},
		{"all", []uint{unix.CAP_BPF, unix.CAP_PERFMON, unix.CAP_NET_ADMIN, unix.CAP_SYS_ADMIN}, "lacks CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN:"},
	} {
		t.Run(row.name, func(t *testing.T) {
			cfg := testConfig(mountBPFFS(t))
			drop(t, row.without...)
			p, err := open(cfg, quiet(), twoInterfaces)
			if err == nil {
				p.Close()
			}
			if row.want == "" {
				if err != nil {
					t.Errorf("error %v, want none", err)
				}
			} else if err == nil || !strings.Contains(err.Error(), row.want) || strings.Contains(err.Error(), "MEMLOCK") {
				t.Errorf("error %v, want one that says %q", err, row.want)
			}
		})
	}
}
