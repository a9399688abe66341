package lab

import (
	"fmt"
	"net"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

const flagSendVLAN = 1 << 7 // ETH_FLAG_TXVLAN

// allowNativeTX turns the two knobs without which a native XDP_TX on veth delivers nothing, both on the switch's
// side: a native XDP program, because veth wakes the receiving end only if it has one, and no checksum offload,
// because XDP_TX would send frames with unfinished checksums. And VLAN tags come in the frames, not beside them.
func (n *Node) allowNativeTX() error {
	return n.lab.sw.do(func() error {
		if _, err := ethtool(n.port(), unix.ETHTOOL_STXCSUM, 0); err != nil {
			return fmt.Errorf("switch off tx checksum of %s: %w", n.port(), err)
		}
		flags, err := ethtool(n.port(), unix.ETHTOOL_GFLAGS, 0)
		if err == nil {
			_, err = ethtool(n.port(), unix.ETHTOOL_SFLAGS, flags&^flagSendVLAN)
		}
		if err != nil {
			return fmt.Errorf("switch off VLAN tx offload of %s: %w", n.port(), err)
		}
		iface, err := net.InterfaceByName(n.port())
		if err != nil {
			return err
		}
		pass, err := ebpf.NewProgram(&ebpf.ProgramSpec{
			Name: "lab_pass", Type: ebpf.XDP, License: "GPL",
			Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 2), asm.Return()}, // XDP_PASS
		})
		if err != nil {
			return fmt.Errorf("load XDP program for the lab (is BPF allowed here?): %w", err)
		}
		defer pass.Close()
		attached, err := link.AttachXDP(link.XDPOptions{Program: pass, Interface: iface.Index, Flags: link.XDPDriverMode})
		if err != nil {
			return fmt.Errorf("attach XDP program to %s: %w", n.port(), err)
		}
		n.lab.onClose(func() { _ = attached.Close() })
		return nil
	})
}

// ethtool carries out one of its commands on an interface, with a value in or out.
func ethtool(name string, command, value uint32) (uint32, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	data := struct{ command, value uint32 }{command, value}
	var request struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte
	}
	copy(request.name[:], name)
	request.data = unsafe.Pointer(&data)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request)))
	if errno != 0 {
		return 0, errno
	}
	return data.value, nil
}
