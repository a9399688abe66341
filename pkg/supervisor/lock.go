package supervisor

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrRunning is in the error of Lock when a director uses the folder.
var ErrRunning = errors.New("already running")

// Lock takes the lock of a state_dir, which is a director's alone and is held as long as it runs, whatever becomes of
// its children. Closing the file gives it back. The file is never removed: a lock on a removed one would exclude
// nobody.
func Lock(stateDir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(stateDir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock of state_dir: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		defer f.Close()
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
		}
		pid := make([]byte, 16)
		n, _ := f.ReadAt(pid, 0)
		return nil, fmt.Errorf("%w: another xdirector uses state_dir %s (process %s): stop it first", ErrRunning, stateDir, strings.TrimSpace(string(pid[:n])))
	}
	// The number is for the error text of others alone; without it they just don't name us.
	if f.Truncate(0) == nil {
		_, _ = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	return f, nil
}
