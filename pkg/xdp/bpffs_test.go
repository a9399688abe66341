package xdp

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// fakeProc makes a /proc that shows the given mount namespaces; "" can't be read.
func fakeProc(t *testing.T, own, first, kernelThread string) string {
	t.Helper()
	proc := t.TempDir()
	for process, namespace := range map[string]string{"thread-self": own, "1": first, "2": kernelThread} {
		if err := os.MkdirAll(filepath.Join(proc, process, "ns"), 0o700); err != nil {
			t.Fatal(err)
		}
		if namespace == "" {
			continue
		}
		if err := os.Symlink(namespace, filepath.Join(proc, process, "ns/mnt")); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(proc, "2/comm"), []byte("kthreadd\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return proc
}

func TestBPFFSIsMountedInTheHostsMountNamespaceAlone(t *testing.T) {
	needRoot(t)
	for _, row := range []struct {
		name                     string
		own, first, kernelThread string
		mounts                   bool
	}{
		{"same as the first process", "mnt:[7]", "mnt:[7]", "", true},
		{"other than the first process", "mnt:[8]", "mnt:[7]", "mnt:[8]", false},
		{"first process not readable, same as the kernel's threads", "mnt:[7]", "", "mnt:[7]", true},
		{"first process not readable, other than the kernel's threads", "mnt:[8]", "", "mnt:[7]", false},
		{"the kernel's fixed first namespace", firstMountNamespace, "", "", true},
		{"nothing readable", "mnt:[7]", "", "", false},
		{"own not readable", "", "mnt:[7]", "mnt:[7]", false},
	} {
		t.Run(row.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "deep", "bpf")
			err := ensureBPFFS(path, fakeProc(t, row.own, row.first, row.kernelThread))
			if err == nil {
				defer unix.Unmount(path, 0)
			}
			if row.mounts {
				if err != nil {
					t.Fatal(err)
				}
				if on, err := OnBPFFS(path); err != nil || !on {
					t.Errorf("%s on bpffs: %v, %v", path, on, err)
				}
				if err := ensureBPFFS(path, t.TempDir()); err != nil {
					t.Errorf("with the mount there: %v, want it to be used", err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), "mount -t bpf -o mode=0700 xdirector "+path) {
				t.Errorf("error %v, want one with the command that mounts", err)
			}
			if _, err := os.Stat(path); err == nil {
				t.Error("a folder was made though nothing was mounted")
			}
		})
	}
}

func TestFoldersMissingBelowABPFFSAreCreated(t *testing.T) {
	path := filepath.Join(mountBPFFS(t), "a", "b")
	if err := EnsureBPFFS(path); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o700 {
		t.Errorf("mode %o, want 700", info.Mode().Perm())
	}
}

func TestAPinPathThatTheServiceMayNotWriteIsRefusedWithTheCure(t *testing.T) {
	needRoot(t)
	path := t.TempDir()
	if err := unix.Mount("bpf", path, "bpf", unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(path, 0)
	for _, folder := range []string{path, filepath.Join(path, "below")} {
		if err := EnsureBPFFS(folder); err == nil || !strings.Contains(err.Error(), "leave dataplane.pin_path out of the configuration") {
			t.Errorf("%s: %v", folder, err)
		}
	}
}

func TestMountDoesNotHideFiles(t *testing.T) {
	needRoot(t)
	folder := t.TempDir()
	if err := os.WriteFile(filepath.Join(folder, "precious"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	err := ensureBPFFS(folder, fakeProc(t, "mnt:[7]", "mnt:[7]", ""))
	if err == nil {
		unix.Unmount(folder, 0)
	}
	if err == nil || !strings.Contains(err.Error(), "precious") {
		t.Errorf("error %v, want one that names the file", err)
	}
}

func TestOwnMountIsRemovedWithThePins(t *testing.T) {
	needRoot(t)
	path := filepath.Join(t.TempDir(), "bpf")
	if err := ensureBPFFS(path, fakeProc(t, "mnt:[7]", "mnt:[7]", "")); err != nil {
		t.Fatal(err)
	}
	cfg := testConfig(path)
	cfg.PinPath = path
	p := openPlane(t, cfg, twoInterfaces)
	if err := p.Remove(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err == nil {
		unix.Unmount(path, 0)
		t.Error("the mount point is still there")
	}
}
