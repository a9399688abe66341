package xdp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// pins knows what lies where under the pin path:
//
//	maps/NAME         one pin per map
//	traces/NAME       programs that count what the kernel loses, one per tracepoint
//	links/MODE-INDEX  one per interface, by index: a name may hold a dot, which bpffs refuses
type pins struct {
	path string
}

func (p pins) maps() string  { return filepath.Join(p.path, "maps") }
func (p pins) links() string { return filepath.Join(p.path, "links") }

func (p pins) link(mode Mode, index int) string {
	return filepath.Join(p.links(), fmt.Sprintf("%s-%d", mode, index))
}

func (p pins) makeFolders() error {
	for _, folder := range []string{p.maps(), p.links(), p.traces()} {
		if err := os.Mkdir(folder, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("create folder for pins: %w", err)
		}
	}
	return nil
}

// ErrInUse is in an error of Open and Cleanup when another process that runs uses the pin path.
var ErrInUse = errors.New("is in use by another director that runs")

// lock keeps other processes away from the pin path, until the file is closed or this process ends: each would undo the
// other's work, and detach its programs.
func (p pins) lock() (*os.File, error) {
	folder, err := os.Open(p.path)
	if err != nil {
		return nil, fmt.Errorf("lock pin path: %w", err)
	}
	err = unix.Flock(int(folder.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		return folder, nil
	}
	folder.Close()
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, fmt.Errorf("pin path %s %w: give each a dataplane.pin_path of its own", p.path, ErrInUse)
	}
	return nil, fmt.Errorf("lock pin path %s: %w", p.path, err)
}

// exist says whether anything of ours is pinned.
func (p pins) exist() (bool, error) {
	for _, folder := range []string{p.maps(), p.links()} {
		entries, err := os.ReadDir(folder)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return false, fmt.Errorf("look for pins: %w", err)
		}
		if len(entries) > 0 {
			return true, nil
		}
	}
	return false, nil
}

// layoutVersion is that of the pinned maps; 0: there are none, or their making was cut short.
func (p pins) layoutVersion() (uint32, error) {
	m, err := ebpf.LoadPinnedMap(filepath.Join(p.maps(), xdirectorMapLayout), nil)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("open pinned layout: %w", err)
	}
	defer m.Close()
	if m.Type() != ebpf.Array || m.KeySize() != 4 || m.ValueSize() < 4 {
		return 0, nil
	}
	// The version is the first word of the value in every layout, whatever its size.
	value := make([]byte, m.ValueSize())
	if err := m.Lookup(uint32(0), value); err != nil {
		return 0, fmt.Errorf("read pinned layout: %w", err)
	}
	return binary.NativeEndian.Uint32(value), nil
}

// pinnedLink is a link that an earlier agent, or this one, left pinned.
type pinnedLink struct {
	path  string
	mode  Mode
	index int // of the interface in the pin's name
}

// list finds the pinned links. A file that is not named like one has mode "" and index 0.
func (p pins) list() ([]pinnedLink, error) {
	entries, err := os.ReadDir(p.links())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list pinned links: %w", err)
	}
	var found []pinnedLink
	for _, entry := range entries {
		pinned := pinnedLink{path: filepath.Join(p.links(), entry.Name())}
		mode, number, _ := strings.Cut(entry.Name(), "-")
		if index, err := strconv.Atoi(number); err == nil && (Mode(mode) == Native || Mode(mode) == Generic) {
			pinned.mode, pinned.index = Mode(mode), index
		}
		found = append(found, pinned)
	}
	return found, nil
}

// detach ends a pinned link, even if another process holds it too.
func (p pins) detach(path string) error {
	pinned, err := link.LoadPinnedLink(path, nil)
	if err != nil {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("unpin link: %w", err)
		}
		return nil
	}
	defer pinned.Close()
	// A link whose interface is gone can't be detached any more and needs not be.
	if err := pinned.Detach(); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOLINK) {
		return fmt.Errorf("detach %s: %w", path, err)
	}
	if err := pinned.Unpin(); err != nil {
		return fmt.Errorf("unpin link: %w", err)
	}
	return nil
}

// removeAll detaches and unpins all that is ours, and removes our folders and our mount. The pin path itself goes
// only if nothing else is in it.
func (p pins) removeAll() error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	found, err := p.list()
	restored := p.restoreOffloads() // its map is removed next
	for _, pinned := range found {
		err = errors.Join(err, p.detach(pinned.path))
	}
	entries, readErr := os.ReadDir(p.maps())
	if readErr != nil && !errors.Is(readErr, fs.ErrNotExist) {
		err = errors.Join(err, readErr)
	}
	for _, entry := range entries {
		err = errors.Join(err, os.Remove(filepath.Join(p.maps(), entry.Name())))
	}
	err = errors.Join(err, p.removeTraces())
	for _, folder := range []string{p.maps(), p.links(), p.traces()} {
		if removeErr := os.Remove(folder); removeErr != nil && !errors.Is(removeErr, fs.ErrNotExist) {
			err = errors.Join(err, removeErr)
		}
	}
	if err == nil {
		err = p.removePath()
	}
	if err = errors.Join(err, restored); err != nil {
		return fmt.Errorf("remove pins under %s: %w", p.path, err)
	}
	return nil
}

func (p pins) removePath() error {
	entries, err := os.ReadDir(p.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if name := entry.Name(); name != "maps.debug" && name != "progs.debug" { // the kernel puts these into each bpffs
			return nil
		}
	}
	ours, err := isOurMount(p.path)
	if err != nil {
		return err
	}
	if ours {
		if err := unix.Unmount(p.path, 0); errors.Is(err, unix.EPERM) {
			return nil // root mounted it, for us; an empty one is in nobody's way
		} else if err != nil {
			return fmt.Errorf("unmount bpffs: %w", err)
		}
	}
	// A mount that somebody else made stays: then the folder is busy.
	if err := os.Remove(p.path); err != nil && !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.ENOTEMPTY) {
		return err
	}
	return nil
}
