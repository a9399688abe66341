package health

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// connect opens a TCP connection to the probed port from the source address. options are socket options to be set
// before the handshake.
func connect(ctx context.Context, p probe, options ...socketOption) (*net.TCPConn, error) {
	// Without IP_BIND_ADDRESS_NO_PORT the bind to the source takes a local port that nobody else on this box can bind
	// until TIME_WAIT is over: some 470 probes a second would use up all of them. With it the port is chosen at
	// connect and has to be unique for this destination only.
	options = append(options, socketOption{unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1})
	dialer := net.Dialer{
		LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(p.source, 0)),
		KeepAlive: -1,
		Control: func(_, _ string, raw syscall.RawConn) error {
			var failed error
			err := raw.Control(func(fd uintptr) {
				for _, o := range options {
					if err := unix.SetsockoptInt(int(fd), o.level, o.name, o.value); err != nil {
						failed = os.NewSyscallError("setsockopt", err)
					}
				}
			})
			return errors.Join(err, failed)
		},
	}
	dialer.SetMultipathTCP(false)
	conn, err := dialer.DialContext(ctx, "tcp", netip.AddrPortFrom(p.address, p.port).String())
	if err != nil {
		return nil, connectError(err, p.check)
	}
	return conn.(*net.TCPConn), nil
}

// socketOption is one integer option.
type socketOption struct{ level, name, value int }

// connectError says in plain words why there is no connection, for example "connect: connection refused".
func connectError(err error, c Check) error {
	if isTimeout(err) {
		return fmt.Errorf("connect: timeout after %v", c.Timeout)
	}
	var call *os.SyscallError
	if errors.As(err, &call) {
		return fmt.Errorf("%s: %w", call.Syscall, call.Err)
	}
	return fmt.Errorf("connect: %w", err)
}

// isTimeout says whether the probe's own time limit ended it. ETIMEDOUT, which the kernel returns, is not meant.
func isTimeout(err error) bool {
	var timeout net.Error
	var errno syscall.Errno
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &timeout) && timeout.Timeout() && !errors.As(err, &errno)
}
