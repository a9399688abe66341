package xdp

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"
)

// Captured is an advert as the programs saw it.
type Captured struct {
	Time      time.Time
	Interface int    // index
	Ours      bool   // it is for one of our virtual routers
	Fate      string // what became of it: passed, sampled, absorbed, or a reason to drop
	Length    int    // of the whole frame
	Frame     []byte // its beginning, from the Ethernet header on; not kept
}

// Capturing goes on for as long after the last time that somebody asked for it.
const captureLease = 2 * time.Second

// ErrNoPrograms is in the error of Capture when no program of a director is attached.
var ErrNoPrograms = errors.New("no XDP program of a director is attached")

// Capture gives each the adverts that come from now on, whatever becomes of them, until ctx ends or each returns an
// error, which it returns. What comes while each takes long may be lost. One process at a time can capture.
func Capture(ctx context.Context, pinPath string, each func(Captured) error) error {
	p := pins{path: filepath.Clean(pinPath)}
	folder, err := os.Open(p.maps())
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("capture: %w", p.noPrograms())
	}
	if err != nil {
		return fmt.Errorf("capture: %w", err)
	}
	defer folder.Close()
	if err := unix.Flock(int(folder.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return fmt.Errorf("capture: somebody captures under %s already: %w", pinPath, err)
	}
	captured, err := p.captured()
	if err != nil {
		return fmt.Errorf("capture: %w", err)
	}
	defer captured.Close()
	words, err := ebpf.LoadPinnedMap(filepath.Join(p.maps(), xdirectorMapWords), nil)
	if err != nil {
		return fmt.Errorf("capture: open words: %w", err)
	}
	defer words.Close()
	// The process of the election shares this memory: only the word for capturing is written here.
	memory, err := unix.Mmap(words.FD(), 0, int(unsafe.Sizeof(xdirectorWords{})), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("capture: map words: %w", err)
	}
	defer unix.Munmap(memory)
	until := &(*xdirectorWords)(unsafe.Pointer(&memory[0])).Capture
	defer atomic.StoreUint64(until, 0)
	reader, err := ringbuf.NewReader(captured)
	if err != nil {
		return fmt.Errorf("capture: %w", err)
	}
	defer reader.Close()
	stop := context.AfterFunc(ctx, func() { reader.Close() })
	defer stop()
	return read(reader, until, each)
}

// read gives each what comes, and asks the programs to go on.
func read(reader *ringbuf.Reader, until *uint64, each func(Captured) error) error {
	for {
		now := monotonic()
		atomic.StoreUint64(until, uint64(now+captureLease))
		reader.SetDeadline(time.Now().Add(captureLease / 2))
		record, err := reader.Read()
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			continue
		case errors.Is(err, ringbuf.ErrClosed):
			return nil
		case err != nil:
			return fmt.Errorf("capture: %w", err)
		}
		var c xdirectorCapture
		if _, err := binary.Decode(record.RawSample, binary.NativeEndian, &c); err != nil {
			return fmt.Errorf("capture: %w", err)
		}
		fate := "unknown"
		if int(c.Fate) < len(fateNames) {
			fate = fateNames[c.Fate]
		}
		frame := c.Frame[frameShift:min(frameShift+int(c.Length), len(c.Frame))]
		at := time.Now().Add(time.Duration(c.Time) - monotonic())
		if err := each(Captured{Time: at, Interface: int(c.Interface), Ours: c.Slot != 0, Fate: fate, Length: int(c.Length), Frame: frame}); err != nil {
			return err
		}
	}
}

// captured finds the ring of captured adverts, which is not pinned: by a program that uses it.
func (p pins) captured() (*ebpf.Map, error) {
	links, err := p.list()
	if err != nil {
		return nil, err
	}
	for _, l := range links {
		pinned, err := link.LoadPinnedLink(l.path, nil)
		if err != nil {
			continue
		}
		info, err := pinned.Info()
		pinned.Close()
		if err != nil {
			continue
		}
		if m := mapOfProgram(info.Program, xdirectorMapCaptured); m != nil {
			return m, nil
		}
	}
	return nil, p.noPrograms()
}

func (p *pins) noPrograms() error {
	return fmt.Errorf("%w under %s: xdirector status tells the plane and why; without services dataplane.vrrp_fast_path must be written", ErrNoPrograms, p.path)
}

// mapOfProgram finds a map by its name among those that a program uses; nil: there is none.
func mapOfProgram(id ebpf.ProgramID, name string) *ebpf.Map {
	program, err := ebpf.NewProgramFromID(id)
	if err != nil {
		return nil
	}
	defer program.Close()
	info, err := program.Info()
	if err != nil {
		return nil
	}
	ids, _ := info.MapIDs()
	for _, id := range ids {
		m, err := ebpf.NewMapFromID(id)
		if err != nil {
			continue
		}
		if about, err := m.Info(); err == nil && about.Name == name {
			return m
		}
		m.Close()
	}
	return nil
}
