package doctor

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// The generic netlink family "netdev" tells since Linux 6.3 which XDP a driver has. These are numbers of
// linux/genetlink.h and linux/netdev.h.
const (
	controlFamily     = 0x10
	controlGetFamily  = 3
	controlAttrID     = 1
	controlAttrName   = 2
	netdevDeviceGet   = 1
	netdevAttrIndex   = 1
	netdevAttrXDP     = 3
	featureBasic      = 1 // XDP_ABORTED, DROP, PASS, TX
	genericHeaderSize = 4
)

// xdpFeatures asks the kernel which XDP the driver of an interface has: bits of enum netdev_xdp_act.
func xdpFeatures(index int) (uint64, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_GENERIC)
	if err != nil {
		return 0, fmt.Errorf("open generic netlink: %w", err)
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 1}); err != nil {
		return 0, fmt.Errorf("limit the time of generic netlink: %w", err)
	}
	family, err := request(fd, controlFamily, controlGetFamily, controlAttrName, []byte("netdev\x00"), controlAttrID)
	if err != nil {
		return 0, err
	}
	if len(family) < 2 {
		return 0, errors.New("ask for the family netdev: no number")
	}
	features, err := request(fd, binary.NativeEndian.Uint16(family), netdevDeviceGet, netdevAttrIndex, binary.NativeEndian.AppendUint32(nil, uint32(index)), netdevAttrXDP)
	if err != nil {
		return 0, err
	}
	if len(features) < 8 {
		return 0, errors.New("ask for XDP features: no answer")
	}
	return binary.NativeEndian.Uint64(features), nil
}

// request sends a message with one attribute, and returns an attribute of the answer.
func request(fd int, family uint16, command uint8, attribute uint16, value []byte, wanted uint16) ([]byte, error) {
	length := 4 + len(value)
	padded := (length + 3) &^ 3
	m := make([]byte, unix.SizeofNlMsghdr+genericHeaderSize, unix.SizeofNlMsghdr+genericHeaderSize+padded)
	binary.NativeEndian.PutUint32(m[0:], uint32(cap(m)))
	binary.NativeEndian.PutUint16(m[4:], family)
	binary.NativeEndian.PutUint16(m[6:], unix.NLM_F_REQUEST)
	m[16], m[17] = command, 1
	m = binary.NativeEndian.AppendUint16(m, uint16(length))
	m = binary.NativeEndian.AppendUint16(m, attribute)
	m = append(m, value...)
	m = append(m, make([]byte, padded-length)...)
	if err := unix.Sendto(fd, m, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, fmt.Errorf("ask by generic netlink: %w", err)
	}
	answer := make([]byte, 8192)
	n, _, err := unix.Recvfrom(fd, answer, 0)
	if err != nil {
		return nil, fmt.Errorf("ask by generic netlink: %w", err)
	}
	answer = answer[:n]
	if n < unix.SizeofNlMsghdr+genericHeaderSize {
		return nil, errors.New("ask by generic netlink: a short answer")
	}
	if binary.NativeEndian.Uint16(answer[4:]) == unix.NLMSG_ERROR {
		return nil, fmt.Errorf("ask by generic netlink: %w", unix.Errno(-int32(binary.NativeEndian.Uint32(answer[16:]))))
	}
	for rest := answer[unix.SizeofNlMsghdr+genericHeaderSize:]; len(rest) >= 4; {
		size := int(binary.NativeEndian.Uint16(rest))
		if size < 4 || size > len(rest) {
			break
		}
		if binary.NativeEndian.Uint16(rest[2:])&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER) == wanted {
			return rest[4:size], nil
		}
		rest = rest[min((size+3)&^3, len(rest)):]
	}
	return nil, errors.New("ask by generic netlink: the answer lacks what was asked for")
}
