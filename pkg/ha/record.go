package ha

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xdirector/xdirector/pkg/statefile"
)

// record says which addresses on which interface are an instance's own, put there by us. It is written before the
// first of them is added, so that a crash never leaves one that nobody knows.
type record struct {
	Instance  string         `json:"instance"`
	Interface string         `json:"interface"`
	Index     int            `json:"ifindex"`
	Version   uint8          `json:"version"`
	VRID      uint8          `json:"vrid"`
	Interval  time.Duration  `json:"interval_ns"`
	Addresses []netip.Prefix `json:"addresses"`
}

func (r record) equal(o record) bool {
	return slices.Equal(r.Addresses, o.Addresses) && r.Instance == o.Instance &&
		r.Interface == o.Interface && r.Index == o.Index && r.Version == o.Version && r.VRID == o.VRID && r.Interval == o.Interval
}

const (
	recordPrefix = "vrrp-"
	recordSuffix = ".json"
	advertSuffix = ".last"
)

// recordPath names the record of an instance; the escape keeps a name with a slash inside the folder.
func recordPath(dir, instance string) string {
	return filepath.Join(dir, recordPrefix+url.PathEscape(instance)+recordSuffix)
}

// advertPath names the file with the time of the instance's last advert.
func advertPath(dir, instance string) string {
	return filepath.Join(dir, recordPrefix+url.PathEscape(instance)+advertSuffix)
}

// removeRecord removes the record at path and the time of the last advert beside it.
func removeRecord(path string) error {
	for _, p := range []string{path, strings.TrimSuffix(path, recordSuffix) + advertSuffix} {
		if err := statefile.Remove(p); err != nil {
			return err
		}
	}
	return nil
}

// recordPaths lists the records in dir.
func recordPaths(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("list records: %w", err)
	}
	var paths []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), recordPrefix) && strings.HasSuffix(e.Name(), recordSuffix) {
			paths = append(paths, filepath.Join(dir, e.Name()))
		}
	}
	return paths, nil
}

// lastAdvert is the time of the last advert, in nanoseconds of CLOCK_BOOTTIME, in a file mapped into memory: noting
// it costs one store, waits for no disk and outlives a crash. The boot clock counts suspended time too: a box that
// slept is not the MASTER any more.
type lastAdvert struct{ word []byte }

// openLastAdvert maps the file and returns what a former run noted there; 0: nothing.
func openLastAdvert(dir, instance string) (*lastAdvert, time.Duration, error) {
	f, err := os.OpenFile(advertPath(dir, instance), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, 0, fmt.Errorf("open the time of the last advert: %w", err)
	}
	defer f.Close()
	var b [8]byte
	if n, _ := f.ReadAt(b[:], 0); n < len(b) {
		b = [8]byte{}
	}
	// Written back as it is, so that the page exists: a store to a hole of a full file system kills the process.
	if _, err := f.WriteAt(b[:], 0); err != nil {
		return nil, 0, fmt.Errorf("write the time of the last advert: %w", err)
	}
	word, err := unix.Mmap(int(f.Fd()), 0, len(b), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, 0, fmt.Errorf("map the time of the last advert: %w", err)
	}
	return &lastAdvert{word: word}, time.Duration(binary.NativeEndian.Uint64(b[:])), nil
}

// note stores the time; 0: MASTER no more. A nil receiver, whose file could not be opened, notes nothing. Where the
// file is gone from under the mapping (cut short, or its file system became read-only), the kernel kills a process
// that stores: an election must not end of that, so it is turned into no more than the end of the notes.
func (l *lastAdvert) note(t time.Duration) {
	if l == nil || l.word == nil {
		return
	}
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if recover() != nil {
			l.close()
		}
	}()
	binary.NativeEndian.PutUint64(l.word, uint64(t))
}

func (l *lastAdvert) close() {
	if l != nil && l.word != nil {
		_ = unix.Munmap(l.word) // can't fail for what Mmap returned
		l.word = nil
	}
}

// clock reads one of the kernel's clocks.
func clock(id int32) time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(id, &t); err != nil {
		panic("clock_gettime of a clock that every Linux has: " + err.Error())
	}
	return time.Duration(t.Nano())
}
