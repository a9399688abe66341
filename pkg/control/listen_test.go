package control

import (
	"errors"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// leftoverSocket makes the socket file of a director that crashed.
func leftoverSocket(t *testing.T, path string) string {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	if _, err := os.Stat(path); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestListenMakesFolderAndSocketForRootAndGroup(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "control.sock")
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	want := os.ModeSocket | 0o600
	if _, err := user.LookupGroup("xdirector"); err == nil {
		want = os.ModeSocket | 0o660
	}
	if info.Mode() != want {
		t.Errorf("mode of the socket is %s, want %s", info.Mode(), want)
	}
	if info, err := os.Stat(filepath.Dir(path)); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("mode of the folder is %v (%v), want 0755", info.Mode(), err)
	}
}

func TestOnlyAGroupThatExistsSharesTheSocket(t *testing.T) {
	for gid, want := range map[int]os.FileMode{-1: 0o600, 4242: 0o660} {
		path := filepath.Join(t.TempDir(), "control.sock")
		l, err := listen(path, gid)
		if err != nil {
			t.Fatal(err)
		}
		defer l.UnixListener.Close()
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		owner := info.Sys().(*syscall.Stat_t)
		if info.Mode().Perm() != want || owner.Uid != uint32(os.Getuid()) || gid > 0 && owner.Gid != uint32(gid) {
			t.Errorf("group %d: mode %s, owner %d:%d", gid, info.Mode(), owner.Uid, owner.Gid)
		}
	}
}

func TestListenReplacesALeftoverSocket(t *testing.T) {
	path := leftoverSocket(t, filepath.Join(t.TempDir(), "control.sock"))
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatalf("nobody answers: %v", err)
	}
	conn.Close()
}

func TestListenRefusesASocketInUse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "control.sock")
	t.Run("by a director", func(t *testing.T) {
		l, err := Listen(path)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		refused(t, path, "with pid ")
		os.Remove(path)
		refused(t, path, "with pid ") // somebody removed the file: there is still only one director
	})
	t.Run("by a program that knows no lock", func(t *testing.T) {
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		refused(t, path, "a process: ")
		if _, err := os.Stat(path); err != nil {
			t.Error("its socket was removed")
		}
	})
}

func refused(t *testing.T, path, detail string) {
	t.Helper()
	l, err := Listen(path)
	if err == nil {
		l.Close()
		t.Fatal("a second director may listen")
	}
	if !errors.Is(err, ErrRunning) || !strings.HasPrefix(err.Error(), "already running: another xdirector answers on "+path+" (") || !strings.Contains(err.Error(), detail) {
		t.Errorf("error is %v", err)
	}
}

func TestListenNeverRemovesAnotherKindOfFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "control.sock")
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(path); err == nil || !strings.Contains(err.Error(), "no socket") {
		t.Errorf("error is %v, want one that says that the file is no socket", err)
	}
	if data, err := os.ReadFile(path); err != nil || string(data) != "precious" {
		t.Errorf("the file holds %q (%v)", data, err)
	}
}

func TestListenNamesThePathThatIsTooLong(t *testing.T) {
	path := filepath.Join(t.TempDir(), strings.Repeat("x", maxPath))
	if _, err := Listen(path); err == nil || !strings.Contains(err.Error(), "shorter control.socket") {
		t.Errorf("error is %v, want one that asks for a shorter path", err)
	}
	path = filepath.Join(t.TempDir(), "s")
	path += strings.Repeat("s", maxPath-len(path))
	l, err := Listen(path)
	if err != nil {
		t.Fatalf("the longest allowed path: %v", err)
	}
	l.Close()
}

func TestConcurrentStartsLeaveExactlyOneDirector(t *testing.T) {
	const starts = 50
	for range 20 {
		path := leftoverSocket(t, filepath.Join(t.TempDir(), "control.sock"))
		var group sync.WaitGroup
		gate := make(chan struct{})
		listeners := make(chan net.Listener, starts)
		for range starts {
			group.Go(func() {
				<-gate
				l, err := Listen(path)
				if err == nil {
					listeners <- l
				} else if !errors.Is(err, ErrRunning) {
					t.Errorf("a start lost with %v", err)
				}
			})
		}
		close(gate)
		group.Wait()
		if n := len(listeners); n != 1 {
			t.Fatalf("%d directors listen, want 1", n)
		}
		conn, err := net.Dial("unix", path)
		if err != nil {
			t.Fatalf("the winner doesn't answer: %v", err)
		}
		conn.Close()
		(<-listeners).Close()
	}
}

func TestCloseRemovesOnlyItsOwnSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "control.sock")
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("the socket is left behind: %v", err)
	}
	l, err = Listen(path)
	if err != nil {
		t.Fatalf("start after a stop: %v", err)
	}
	os.Remove(path)
	leftoverSocket(t, path)
	l.Close()
	if _, err := os.Stat(path); err != nil {
		t.Errorf("the socket of somebody else was removed: %v", err)
	}
}
