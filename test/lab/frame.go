package lab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// Injector puts frames on the wire from a node's eth0, as they are. It is for one goroutine.
type Injector struct {
	fd int
	to unix.SockaddrLinklayer
}

// Inject opens an injector; it is closed with the lab.
func (n *Node) Inject() (*Injector, error) {
	var i Injector
	err := n.t.do(func() error {
		eth0, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		i.to = unix.SockaddrLinklayer{Ifindex: eth0.Index, Halen: 6}
		i.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		return os.NewSyscallError("socket", err)
	})
	if err != nil {
		return nil, fmt.Errorf("open injector on %s: %w", n.Name, err)
	}
	n.lab.onClose(func() { _ = unix.Close(i.fd) })
	return &i, nil
}

// Send puts one frame on the wire.
func (i *Injector) Send(frame []byte) error {
	if len(frame) < 14 {
		return fmt.Errorf("send frame: %d bytes are no Ethernet header", len(frame))
	}
	copy(i.to.Addr[:], frame[:6])
	for {
		err := unix.Sendto(i.fd, frame, 0, &i.to)
		// ENOBUFS is the queue of the interface: it empties by itself.
		if err == nil || !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.ENOBUFS) {
			return os.NewSyscallError("sendto", err)
		}
	}
}

// Send puts one frame on the wire from the node's eth0, as it is.
func (n *Node) Send(frame []byte) error {
	i, err := n.Inject()
	if err != nil {
		return err
	}
	return i.Send(frame)
}

// SYN is a frame with the first segment of a TCP connection, checksums included.
func SYN(to, from net.HardwareAddr, source, target netip.AddrPort) []byte {
	b := make([]byte, 54)
	copy(b, to)
	copy(b[6:], from)
	binary.BigEndian.PutUint16(b[12:], unix.ETH_P_IP)
	ip, tcp := b[14:34], b[34:]
	ip[0], ip[8], ip[9] = 0x45, 64, unix.IPPROTO_TCP
	binary.BigEndian.PutUint16(ip[2:], 40)
	copy(ip[12:], source.Addr().AsSlice())
	copy(ip[16:], target.Addr().AsSlice())
	binary.BigEndian.PutUint16(ip[10:], checksum(0, ip))
	binary.BigEndian.PutUint16(tcp, source.Port())
	binary.BigEndian.PutUint16(tcp[2:], target.Port())
	tcp[12], tcp[13] = 5<<4, 2 // 20 bytes of header; SYN
	binary.BigEndian.PutUint16(tcp[14:], 65535)
	binary.BigEndian.PutUint16(tcp[16:], checksum(checksumOf(0, ip[12:20])+unix.IPPROTO_TCP+20, tcp))
	return b
}

// checksum is the Internet checksum of the bytes, with a sum to start from.
func checksum(sum uint32, b []byte) uint16 {
	sum = checksumOf(sum, b)
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

func checksumOf(sum uint32, b []byte) uint32 {
	for ; len(b) > 1; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	return sum
}
