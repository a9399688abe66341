package xdp

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// vlanFile lists the VLAN interfaces of this network namespace; it exists while the kernel can have some.
const vlanFile = "/proc/thread-self/net/vlan/config"

// hidesTags says whether frames of VLAN interfaces come to an interface's program without their tags: then an advert for
// VRID 51 of VLAN 20 looks like one for VRID 51 of the interface itself. What can't be found out counts as yes.
func hidesTags(name string) (bool, error) {
	file, err := os.Open(vlanFile)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return true, fmt.Errorf("look for VLANs on %s: %w", name, err)
	}
	defer file.Close()
	carries, err := carriesVLANs(file, name)
	if err != nil || !carries {
		return err != nil, err
	}
	return takesTags(name)
}

// carriesVLANs reads vlanFile: "eth0.20 | 20 | eth0".
func carriesVLANs(file io.Reader, name string) (bool, error) {
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		columns := strings.Split(lines.Text(), "|")
		if len(columns) == 3 && strings.TrimSpace(columns[2]) == name {
			return true, nil
		}
	}
	if err := lines.Err(); err != nil {
		return true, fmt.Errorf("look for VLANs on %s: %w", name, err)
	}
	return false, nil
}

// takesTags says whether the driver of an interface takes VLAN tags off the frames: `ethtool -k` calls it rx-vlan-offload.
func takesTags(name string) (bool, error) {
	const receiveVLAN = 1 << 8 // ETH_FLAG_RXVLAN
	flags := struct{ command, data uint32 }{command: unix.ETHTOOL_GFLAGS}
	request := struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte
	}{data: unsafe.Pointer(&flags)}
	copy(request.name[:unix.IFNAMSIZ-1], name)
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return true, fmt.Errorf("ask for VLAN offload of %s: %w", name, err)
	}
	defer unix.Close(fd)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request))); errno != 0 {
		return true, fmt.Errorf("ask for VLAN offload of %s: %w", name, errno)
	}
	return flags.data&receiveVLAN != 0, nil
}

// leaveAlone notes why adverts on an interface are left alone, if those of its VLANs can't be told from them, and tells it
// once.
func (p *Plane) leaveAlone(n *nic) {
	why := ""
	if hidden, err := p.hidesTags(n.name); err != nil {
		why = "whether its driver hides the VLANs that it may carry is not known: " + err.Error()
	} else if hidden {
		why = "its driver hides the VLAN of a frame, and it carries VLANs"
	}
	if why != "" {
		why = fmt.Sprintf("adverts on %s are neither filtered nor absorbed: %s; cure: ethtool -K %s rxvlan off", n.name, why, n.name)
	}
	if why != "" && n.alone == "" {
		p.log.Warn(why, "interface", n.name)
	}
	n.alone = why
}

// Differences names the interfaces whose adverts are left alone, with the reason and the cure, as of the last Apply.
func (p *Plane) Differences() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var list []string
	for _, n := range p.nics {
		if n.alone != "" {
			list = append(list, n.alone)
		}
	}
	return list
}
