package doctor

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What ethtool(8) calls large-receive-offload and rx-vlan-offload: bits of ETHTOOL_GFLAGS.
const (
	flagReceiveVLAN = 1 << 8
	flagLRO         = 1 << 15
)

// Commands that golang.org/x/sys has as numbers, with the structs of linux/ethtool.h that go with them.
type (
	oneValue struct{ command, value uint32 }
	// ringSizes is struct ethtool_ringparam: what is possible, then what is.
	ringSizes struct{ command, maxRX, maxMini, maxJumbo, maxTX, rx, mini, jumbo, tx uint32 }
	// channels is struct ethtool_channels.
	channels struct{ command, maxRX, maxTX, maxOther, maxCombined, rx, tx, other, combined uint32 }
)

// ioctl asks the driver of an interface; argument is one of the structs above.
func ioctl(name string, argument unsafe.Pointer) error {
	// struct ifreq: a name, and a pointer in a union of 24 bytes on 64-bit machines.
	var request struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte
	}
	copy(request.name[:unix.IFNAMSIZ-1], name)
	request.data = argument
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open a socket for ethtool: %w", err)
	}
	defer unix.Close(fd)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request))); errno != 0 {
		return fmt.Errorf("ask the driver of %s: %w", name, errno)
	}
	return nil
}

// ask is an ethtool command that answers with one number; a driver that doesn't know it answers 0.
func ask(name string, command uint32) uint32 {
	v := oneValue{command: command}
	if ioctl(name, unsafe.Pointer(&v)) != nil {
		return 0
	}
	return v.value
}

// driverOf returns the name of an interface's driver; empty: it has none.
func driverOf(name string) string {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return ""
	}
	defer unix.Close(fd)
	info, err := unix.IoctlGetEthtoolDrvinfo(fd, name)
	if err != nil {
		return ""
	}
	return unix.ByteSliceToString(info.Driver[:])
}
