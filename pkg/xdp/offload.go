package xdp

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// restorable are the settings of an interface that we have changed, as kept in the map `interfaces`: bits of its restore.
const (
	restoreTags = uint8(xdirectorInterfaceRestoreRESTORE_RX_VLAN)
	restoreGRO  = uint8(xdirectorInterfaceRestoreRESTORE_GRO)
)

// offloads reads and sets what drivers do with frames before and after us, as ethtool(8) does. It acts on the interfaces of the
// calling thread's namespace.
type offloads interface {
	// takesTags says whether the driver takes VLAN tags off the frames: `ethtool -k` calls it rx-vlan-offload.
	takesTags(name string) (bool, error)
	setTakesTags(name string, on bool) error
	// merges says whether received packets are merged into larger ones: generic-receive-offload.
	merges(name string) (bool, error)
	setMerges(name string, on bool) error
	// segments says whether the driver cuts merged packets up again, and makes their checksums.
	segments(name string) (bool, error)
}

// ethtool is the kernel's offloads.
type ethtool struct{}

const flagReceiveVLAN = 1 << 8 // ETH_FLAG_RXVLAN

func (ethtool) takesTags(name string) (bool, error) {
	flags, err := ethtoolGet(name, unix.ETHTOOL_GFLAGS)
	if err != nil {
		return true, fmt.Errorf("ask for VLAN offload of %s: %w", name, err)
	}
	return flags&flagReceiveVLAN != 0, nil
}

func (e ethtool) setTakesTags(name string, on bool) error {
	flags, err := ethtoolGet(name, unix.ETHTOOL_GFLAGS)
	if err == nil {
		flags &^= flagReceiveVLAN
		if on {
			flags |= flagReceiveVLAN
		}
		err = ethtoolSet(name, unix.ETHTOOL_SFLAGS, flags)
	}
	if err == nil {
		// The kernel sets as many of the features as the driver lets it.
		var takes bool
		if takes, err = e.takesTags(name); err == nil && takes != on {
			err = errors.New("the driver can't change it")
		}
	}
	if err != nil {
		return fmt.Errorf("set VLAN offload of %s: %w", name, err)
	}
	return nil
}

func (ethtool) merges(name string) (bool, error) {
	on, err := ethtoolGet(name, unix.ETHTOOL_GGRO)
	if err != nil {
		return false, fmt.Errorf("ask for generic receive offload of %s: %w", name, err)
	}
	return on != 0, nil
}

func (ethtool) setMerges(name string, on bool) error {
	value := uint32(0)
	if on {
		value = 1
	}
	if err := ethtoolSet(name, unix.ETHTOOL_SGRO, value); err != nil {
		return fmt.Errorf("set generic receive offload of %s: %w", name, err)
	}
	return nil
}

func (ethtool) segments(name string) (bool, error) {
	for _, command := range []uint32{unix.ETHTOOL_GTSO, unix.ETHTOOL_GTXCSUM} {
		on, err := ethtoolGet(name, command)
		if err != nil {
			return false, fmt.Errorf("ask for segmentation offload of %s: %w", name, err)
		}
		if on == 0 {
			return false, nil
		}
	}
	return true, nil
}

func ethtoolGet(name string, command uint32) (uint32, error) {
	return ethtoolDo(name, command, 0)
}

func ethtoolSet(name string, command, value uint32) error {
	_, err := ethtoolDo(name, command, value)
	return err
}

// ethtoolDo is one of the commands whose argument is one number.
func ethtoolDo(name string, command, value uint32) (uint32, error) {
	argument := struct{ command, data uint32 }{command: command, data: value}
	request := struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte
	}{data: unsafe.Pointer(&argument)}
	copy(request.name[:unix.IFNAMSIZ-1], name)
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request))); errno != 0 {
		return 0, errno
	}
	return argument.data, nil
}

// restoreOffloads gives back what we have set otherwise on the interfaces of the pinned maps.
func (p pins) restoreOffloads() error {
	m, err := ebpf.LoadPinnedMap(filepath.Join(p.maps(), xdirectorMapInterfaces), nil)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open pinned interfaces: %w", err)
	}
	defer m.Close()
	if m.Type() != ebpf.Array || int(m.ValueSize()) != int(unsafe.Sizeof(xdirectorInterface{})) {
		return nil // of a version that changed nothing, or whose notes can't be read
	}
	present, err := devices()
	if err != nil {
		return err
	}
	now := byIndex(present)
	for slot := range m.MaxEntries() {
		var value xdirectorInterface
		if lookupErr := m.Lookup(slot, &value); lookupErr != nil {
			return errors.Join(err, fmt.Errorf("read pinned interfaces: %w", lookupErr))
		}
		err = errors.Join(err, restoreOffloads(ethtool{}, now[int(value.Index)], now, value.Restore))
	}
	return err
}
