package xdp

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	mountSource = "xdirector" // names our own mounts in /proc/mounts
	// The kernel's fixed number of the first mount namespace, since Linux 6.18; before, the number varies.
	firstMountNamespace = "mnt:[4026531832]"
)

// EnsureBPFFS makes sure that path is a folder on a bpffs. Folders missing below a bpffs are created, readable by
// root alone. Where there is no bpffs one is mounted, but only in the host's mount namespace: in any other it would
// vanish with the process, and what is pinned there with it. The error then holds the command to run.
func EnsureBPFFS(path string) error {
	runtime.LockOSThread() // look and mount in one mount namespace
	defer runtime.UnlockOSThread()
	return ensureBPFFS(path, "/proc")
}

func ensureBPFFS(path, proc string) error {
	on, err := OnBPFFS(path)
	if err != nil {
		return fmt.Errorf("find bpffs for %s: %w%s", path, err, notOurs(err))
	}
	if on {
		if err := os.MkdirAll(path, 0o700); err != nil {
			return fmt.Errorf("create pin path: %w%s", err, notOurs(err))
		}
		if err := unix.Access(path, unix.W_OK|unix.X_OK); err != nil {
			return fmt.Errorf("use pin path %s: %w%s", path, err, notOurs(err))
		}
		return nil
	}
	if reason := notHostsMountNamespace(proc); reason != "" {
		return fmt.Errorf("mount bpffs: %s is not on a bpffs, and one mounted from here would vanish with this process: %s; "+
			"run on the host: %s", path, reason, mountCommand(path))
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return fmt.Errorf("create pin path: %w", err)
	}
	if entries, err := os.ReadDir(path); err != nil {
		return fmt.Errorf("mount bpffs: %w", err)
	} else if len(entries) > 0 {
		return fmt.Errorf("mount bpffs: %s is not on a bpffs and not empty: a mount would hide %s; empty it or choose another dataplane.pin_path",
			path, entries[0].Name())
	}
	if err := unix.Mount(mountSource, path, "bpf", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0700"); err != nil {
		return fmt.Errorf("mount bpffs on %s: %w", path, err)
	}
	return nil
}

// notOurs is the cure where a user that isn't root may not write.
func notOurs(err error) string {
	if !errors.Is(err, unix.EACCES) && !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EROFS) {
		return ""
	}
	return fmt.Sprintf(": user %d must own that folder and see it writable: leave dataplane.pin_path out of the configuration for the one that comes with "+
		"the service, or chown yours, and name it in ReadWritePaths= of the unit", os.Geteuid())
}

func mountCommand(path string) string {
	command := fmt.Sprintf("mkdir -p %s && mount -t bpf -o mode=0700 %s %s", path, mountSource, path)
	if user := os.Geteuid(); user != 0 {
		command += fmt.Sprintf(" && chown %d %s", user, path)
	}
	return command
}

// MountCommand returns the command that makes path a folder on a bpffs, if EnsureBPFFS would refuse to do that itself in
// the mount namespace of the calling process; empty: nothing has to be done.
func MountCommand(path string) (string, error) {
	on, err := OnBPFFS(path)
	if err != nil {
		return "", fmt.Errorf("find bpffs for %s: %w", path, err)
	}
	if on || notHostsMountNamespace("/proc") == "" {
		return "", nil
	}
	return mountCommand(path), nil
}

// OnBPFFS says whether a path lies on a bpffs, or would: what exists of it is looked at.
func OnBPFFS(path string) (bool, error) {
	for {
		var fs unix.Statfs_t
		err := unix.Statfs(path, &fs)
		if err == nil {
			return fs.Type == unix.BPF_FS_MAGIC, nil
		}
		if !errors.Is(err, unix.ENOENT) || path == filepath.Dir(path) {
			return false, err
		}
		path = filepath.Dir(path)
	}
}

// notHostsMountNamespace says why this is, or might be, another mount namespace than the host's. The first process
// may refuse to be looked at, then a thread of the kernel is asked, which never leaves the first namespace.
func notHostsMountNamespace(proc string) string {
	own, err := os.Readlink(filepath.Join(proc, "thread-self/ns/mnt"))
	if err != nil {
		return "its mount namespace can't be read: " + err.Error()
	}
	if own == firstMountNamespace {
		return ""
	}
	hosts, err := os.Readlink(filepath.Join(proc, "1/ns/mnt"))
	if err != nil {
		name, nameErr := os.ReadFile(filepath.Join(proc, "2/comm"))
		if nameErr != nil || strings.TrimSpace(string(name)) != "kthreadd" {
			return "the host's mount namespace can't be read: " + err.Error()
		}
		if hosts, err = os.Readlink(filepath.Join(proc, "2/ns/mnt")); err != nil {
			return "the host's mount namespace can't be read: " + err.Error()
		}
	}
	if own != hosts {
		return "its mount namespace is " + own + ", the host's is " + hosts
	}
	return ""
}

// isOurMount says whether a bpffs that we mounted lies on path.
func isOurMount(path string) (bool, error) {
	mounts, err := os.ReadFile("/proc/thread-self/mountinfo")
	if err != nil {
		return false, fmt.Errorf("read mounts: %w", err)
	}
	for line := range strings.Lines(string(mounts)) {
		before, after, _ := strings.Cut(line, " - ")
		fields, source := strings.Fields(before), strings.Fields(after)
		if len(fields) > 4 && len(source) > 1 && fields[4] == path && source[0] == "bpf" && source[1] == mountSource {
			return true, nil
		}
	}
	return false, nil
}
