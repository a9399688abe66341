package ha

import (
	"errors"
	"fmt"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// poller waits for sockets and for a moment, on the thread that asks: between a packet and its machine lies no other
// goroutine. Other goroutines wake it through a bell.
type poller struct {
	fd     int
	events [64]unix.EpollEvent
	coarse bool // the kernel knows no epoll_pwait2 (before 5.11): a wait ends on whole milliseconds
}

func openPoller() (*poller, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("create an epoll: %w", err)
	}
	return &poller{fd: fd}, nil
}

// add has wait return fd while it is readable.
func (p *poller) add(fd int) error {
	if err := unix.EpollCtl(p.fd, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}); err != nil {
		return fmt.Errorf("watch a socket: %w", err)
	}
	return nil
}

func (p *poller) remove(fd int) {
	_ = unix.EpollCtl(p.fd, unix.EPOLL_CTL_DEL, fd, nil) // closed already: it went by itself
}

// wait returns what is readable now, or becomes so within the timeout.
func (p *poller) wait(timeout time.Duration) ([]unix.EpollEvent, error) {
	timeout = max(0, timeout)
	var n int
	var err error
	if p.coarse {
		n, err = unix.EpollWait(p.fd, p.events[:], int((timeout+time.Millisecond-1)/time.Millisecond))
	} else {
		limit := unix.NsecToTimespec(int64(timeout))
		r, _, e := unix.Syscall6(unix.SYS_EPOLL_PWAIT2, uintptr(p.fd), uintptr(unsafe.Pointer(&p.events[0])),
			uintptr(len(p.events)), uintptr(unsafe.Pointer(&limit)), 0, 0)
		switch n = int(r); {
		case e == unix.ENOSYS || e == unix.EPERM: // the latter from the filter of an old container runtime
			p.coarse = true
			return p.wait(timeout)
		case e != 0:
			n, err = 0, e
		}
	}
	if errors.Is(err, unix.EINTR) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("wait for adverts: %w", err)
	}
	return p.events[:n], nil
}

func (p *poller) close() { unix.Close(p.fd) }
