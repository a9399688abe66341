package control

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// ErrRunning is in the error of Listen when another director uses the socket.
var ErrRunning = errors.New("already running")

// group may use the socket besides root, where it exists.
const group = "xdirector"

// maxPath is the longest path of a unix socket in bytes; the kernel says no more than "invalid argument".
const maxPath = 107

// Listen opens the control socket at path, for root and the group xdirector, or without such a group for root alone, and
// makes its folder if needed. The socket file of a crashed
// director is replaced; if another director uses it, the error wraps ErrRunning. The file PATH.lock is held locked as
// long as the listener is open, which makes two directors that start at once agree on one; it is never removed,
// because a lock on a removed file would exclude nobody.
func Listen(path string) (net.Listener, error) {
	if len(path) > maxPath {
		return nil, fmt.Errorf("open control socket %s: the path has %d bytes, the kernel allows %d: choose a shorter control.socket", path, len(path), maxPath)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("make folder of the control socket: %w", err)
	}
	lock, err := takeLock(path)
	if err != nil {
		return nil, err
	}
	l, err := listen(path, groupID())
	if err != nil {
		lock.Close()
		return nil, err
	}
	l.lock = lock
	return l, nil
}

// takeLock fails at once if another process has the lock: whoever has it is running, or about to.
func takeLock(path string) (*os.File, error) {
	lock, err := os.OpenFile(path+".lock", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock of the control socket: %w", err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		defer lock.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			pid := make([]byte, 16)
			n, _ := lock.ReadAt(pid, 0)
			return nil, running(path, strings.TrimSpace(string(pid[:n])))
		}
		return nil, fmt.Errorf("lock %s: %w", lock.Name(), err)
	}
	// The number is for the error text of others alone; without it they just don't name us.
	if lock.Truncate(0) == nil {
		lock.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	return lock, nil
}

func running(path, pid string) error {
	if pid != "" {
		pid = " with pid " + pid
	}
	return fmt.Errorf("%w: another xdirector answers on %s (a process%s: stop it first, or give this one another control.socket)", ErrRunning, path, pid)
}

func listen(path string, gid int) (*listener, error) {
	if err := removeLeftover(path); err != nil {
		return nil, err
	}
	// The mode of the socket before bind is the mode of its file, so that at no moment others may connect.
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var failed error
		err := c.Control(func(fd uintptr) { failed = syscall.Fchmod(int(fd), 0o600) })
		return errors.Join(err, failed)
	}}
	inner, err := config.Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, fmt.Errorf("open control socket: %w", err)
	}
	l := &listener{UnixListener: inner.(*net.UnixListener), path: path}
	l.SetUnlinkOnClose(false) // Close looks whose file it is
	if err := share(path, gid); err != nil {
		l.UnixListener.Close()
		os.Remove(path)
		return nil, err
	}
	l.file, err = os.Lstat(path)
	if err != nil {
		l.UnixListener.Close()
		return nil, fmt.Errorf("open control socket: %w", err)
	}
	return l, nil
}

// groupID is the number of the group xdirector; -1: there is none.
func groupID() int {
	g, err := user.LookupGroup(group)
	if err != nil {
		return -1
	}
	gid, err := strconv.Atoi(g.Gid)
	if err != nil {
		return -1
	}
	return gid
}

// share lets the group use the socket, which is root's alone until then. -1: there is no group.
func share(path string, gid int) error {
	if gid < 0 {
		return nil
	}
	if err := os.Chown(path, -1, gid); err != nil {
		return fmt.Errorf("give control socket to group %s: %w", group, err)
	}
	if err := os.Chmod(path, 0o660); err != nil {
		return fmt.Errorf("set mode of control socket: %w", err)
	}
	return nil
}

// removeLeftover removes the socket file of a crashed director. It is called with the lock held, so that no director
// can be between its bind and its listen; but a program that doesn't know the lock may answer.
func removeLeftover(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look at control socket: %w", err)
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("open control socket %s: there is a file which is no socket (%s): remove it, or change control.socket", path, info.Mode())
	}
	conn, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		conn.Close()
	}
	if !errors.Is(err, syscall.ECONNREFUSED) { // a full queue is a sign of life as well
		return running(path, "")
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove leftover control socket: %w", err)
	}
	return nil
}

// listener removes its socket file when it is closed, but no file that came there since.
type listener struct {
	*net.UnixListener
	path string
	file fs.FileInfo
	lock *os.File
	once sync.Once
	err  error
}

// Close ends listening and removes the socket file if it is still the one that Listen made.
func (l *listener) Close() error {
	l.once.Do(func() {
		if now, err := os.Lstat(l.path); err == nil && os.SameFile(now, l.file) {
			l.err = os.Remove(l.path)
		}
		l.err = errors.Join(l.err, l.UnixListener.Close(), l.lock.Close())
	})
	return l.err
}
