package lab

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	namePrefix = "xd"         // of every name a lab gives
	netnsDir   = "/run/netns" // where iproute2 looks for names of namespaces
)

// removeStale removes the mounts, folders and names of labs whose process is gone, and only those. Their processes
// and namespaces ended with them. What can't be removed stays: it hinders nobody.
func removeStale() error {
	mounts, err := mountPoints()
	if err != nil {
		return err
	}
	dirs, err := os.ReadDir(os.TempDir())
	if err != nil {
		return fmt.Errorf("look for stale labs: %w", err)
	}
	for _, d := range dirs {
		if !stale(d.Name()) {
			continue
		}
		dir := filepath.Join(os.TempDir(), d.Name())
		for _, m := range mounts {
			if strings.HasPrefix(m, dir+"/") {
				unmount(m)
			}
		}
		_ = os.RemoveAll(dir)
	}
	runs, _ := filepath.Glob(filepath.Join(frrRun, namePrefix+"*")) // the pattern is right
	for _, run := range runs {
		if stale(filepath.Base(run)) {
			_ = os.RemoveAll(run)
		}
	}
	names, err := os.ReadDir(netnsDir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("look for stale labs: %w", err)
	}
	for _, n := range names {
		if n.Type()&os.ModeSymlink != 0 && stale(n.Name()) {
			_ = os.Remove(filepath.Join(netnsDir, n.Name()))
		}
	}
	return nil
}

// stale says whether a name is a lab's, xd<pid>-..., and that process is gone.
func stale(name string) bool {
	rest, ok := strings.CutPrefix(name, namePrefix)
	if !ok {
		return false
	}
	digits, _, ok := strings.Cut(rest, "-")
	if !ok {
		return false
	}
	pid, err := strconv.Atoi(digits)
	if err != nil || pid <= 0 {
		return false
	}
	return errors.Is(unix.Kill(pid, 0), unix.ESRCH)
}

// mountPoints lists where file systems are mounted for this process, the latest last.
func mountPoints() ([]string, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("list mounts: %w", err)
	}
	defer f.Close()
	var points []string
	s := bufio.NewScanner(f)
	for s.Scan() {
		if fields := strings.Fields(s.Text()); len(fields) > 4 {
			points = append(points, fields[4])
		}
	}
	return points, s.Err()
}

// unmount takes a file system away, from its place at once if it is still in use.
func unmount(dir string) {
	if unix.Unmount(dir, 0) != nil {
		_ = unix.Unmount(dir, unix.MNT_DETACH)
	}
}
