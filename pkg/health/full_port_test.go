package health

import (
	"net"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// fullPort is a port whose accept queue is full: the kernel answers no SYN there.
func fullPort(t *testing.T) uint16 {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	address := netip.AddrPortFrom(loopback, uint16(name.(*unix.SockaddrInet4).Port))
	for range 5 {
		conn, err := net.DialTimeout("tcp4", address.String(), short)
		if err != nil {
			return address.Port()
		}
		t.Cleanup(func() { conn.Close() })
	}
	t.Fatalf("port %d takes connections without end although its accept queue has one place", address.Port())
	return 0
}
