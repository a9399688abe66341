package ha

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// wire is a packet socket that sends whole Ethernet frames out of any interface, and receives nothing. It is safe for
// concurrent use.
type wire struct {
	file *os.File
	raw  syscall.RawConn
}

// openWire opens it in the network namespace of the calling thread.
func openWire() (*wire, error) {
	fd, err := openPacketSender()
	if err != nil {
		return nil, err
	}
	w := &wire{file: os.NewFile(uintptr(fd), "packet socket")}
	if w.raw, err = w.file.SyscallConn(); err != nil {
		w.file.Close()
		return nil, fmt.Errorf("use a packet socket: %w", err)
	}
	return w, nil
}

func openPacketSender() (int, error) {
	// Protocol 0 receives nothing.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, fmt.Errorf("open a packet socket: %w%s", err, cure(err))
	}
	// The highest band of the queue of an interface; where that isn't permitted adverts wait with the rest.
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PRIORITY, 7)
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 1<<20)
	return fd, nil
}

// cure says what an operator can do about an error of a socket.
func cure(err error) string {
	if errors.Is(err, unix.EPERM) {
		return "; run as root, or with CAP_NET_RAW and CAP_NET_ADMIN"
	}
	return ""
}

// sendWithin sends a frame out of the interface with that index; when the socket is full it waits for room, but no
// longer than the limit.
func (w *wire) sendWithin(limit time.Duration, index int, frame []byte) error {
	to := &unix.SockaddrLinklayer{Ifindex: index, Protocol: binary.NativeEndian.Uint16(frame[12:])} // in network order, as it lies there
	var sendErr error
	err := w.raw.Control(func(fd uintptr) {
		sendErr = unix.Sendto(int(fd), frame, 0, to)
		if errors.Is(sendErr, unix.EAGAIN) && limit > 0 {
			_, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, int(limit.Milliseconds())) // what the second try says counts
			sendErr = unix.Sendto(int(fd), frame, 0, to)
		}
	})
	return errors.Join(err, sendErr)
}

func (w *wire) close() { w.file.Close() }
