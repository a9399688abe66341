package lab

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// thread is an operating system thread that lives in one network namespace and runs what it is given, one function
// after another. Sockets, processes and sysctls made there belong to the namespace. It lives until it is closed, so
// that children with a parent death signal, which fires when the *thread* that started them ends, outlive the call.
type thread struct {
	ns    netns.NsHandle
	tid   int
	calls chan func()
	quit  chan struct{} // closed by close
	done  chan struct{} // closed when the thread ends
}

// newThread starts a thread in the namespace of another one, or in a new namespace if that is nil.
func newThread(home *thread) (*thread, error) {
	t := &thread{calls: make(chan func()), quit: make(chan struct{}), done: make(chan struct{})}
	ready := make(chan error, 1)
	go t.run(home, ready)
	if err := <-ready; err != nil {
		return nil, err
	}
	return t, nil
}

func (t *thread) run(home *thread, ready chan<- error) {
	runtime.LockOSThread()
	if unix.Gettid() == os.Getpid() {
		// The main thread can't end before the process, and /proc/self/net shows its namespace: take another one.
		started := make(chan struct{})
		go func() {
			runtime.LockOSThread()
			close(started)
			t.serve(home, ready)
		}()
		<-started
		runtime.UnlockOSThread()
		return
	}
	t.serve(home, ready)
}

// serve never unlocks its thread: when it returns, the thread ends, and with it a namespace that nobody else holds.
func (t *thread) serve(home *thread, ready chan<- error) {
	defer close(t.done)
	t.tid = unix.Gettid()
	var err error
	if home != nil {
		if err = netns.Set(home.ns); err == nil {
			t.ns, err = netns.Get()
		}
	} else {
		t.ns, err = netns.New()
	}
	if err != nil {
		ready <- fmt.Errorf("enter network namespace: %w: it takes root with all capabilities, not that of a container", err)
		return
	}
	ready <- nil
	for {
		select {
		case f := <-t.calls:
			f()
		case <-t.quit:
			_ = t.ns.Close()
			return
		}
	}
}

// do runs f on the thread and waits for it.
func (t *thread) do(f func() error) error {
	result := make(chan error, 1)
	select {
	case t.calls <- func() { result <- f() }:
		return <-result
	case <-t.done:
		return fmt.Errorf("run in namespace: %w", os.ErrClosed)
	}
}

// close ends the thread. It must be called once only.
func (t *thread) close() {
	close(t.quit)
	<-t.done
}

// path is where other processes can open the namespace while the thread lives.
func (t *thread) path() string {
	return filepath.Join("/proc", strconv.Itoa(os.Getpid()), "task", strconv.Itoa(t.tid), "ns/net")
}

func (t *thread) hasSysctl(path string) bool {
	return t.do(func() error { _, err := os.Stat("/proc/sys/" + path); return err }) == nil
}

// sysctl sets a network setting of the namespace, by its path below /proc/sys.
func (t *thread) sysctl(path, value string) error {
	err := t.do(func() error { return os.WriteFile("/proc/sys/"+path, []byte(value), 0o644) })
	if err != nil {
		return fmt.Errorf("set sysctl %s=%s: %w", path, value, err)
	}
	return nil
}
