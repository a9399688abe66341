package ha

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xdirector/xdirector/pkg/statefile"
)

// record says what one instance put on the box, or will when it becomes MASTER. It is written before the first of
// that is there, so that a crash never leaves something that nobody knows.
type record struct {
	Interface  string            `json:"interface"`
	Index      int               `json:"ifindex"`
	Version    uint8             `json:"version"`
	VRID       uint8             `json:"vrid"`
	Interval   time.Duration     `json:"interval_ns"`
	Slot       int               `json:"slot"` // of the time of its last advert; 0: none
	Addresses  []recordedAddress `json:"addresses,omitempty"`
	Routes     []recordedRoute   `json:"routes,omitempty"`
	VirtualMAC []recordedDevice  `json:"virtual_mac,omitempty"` // one, or two while the name changes
}

// recordedAddress is an address on an interface. The index tells an interface that was deleted and made anew, whose
// addresses are somebody else's; it is 0 for a virtual MAC's, which is known by its looks.
type recordedAddress struct {
	Prefix    netip.Prefix `json:"prefix"`
	Interface string       `json:"interface"`
	Index     int          `json:"ifindex,omitempty"`
}

type recordedRoute struct {
	Route Route `json:"route"`
	Index int   `json:"ifindex"`
}

// recordedDevice is the macvlan of a virtual MAC.
type recordedDevice struct {
	Name   string `json:"name"`
	Parent int    `json:"parent_ifindex"`
	MAC    string `json:"mac"`
}

func (d recordedDevice) hardware() net.HardwareAddr {
	mac, _ := net.ParseMAC(d.MAC) // one that is none is nobody's
	return mac
}

const (
	recordFile = "vrrp.json"
	advertFile = "vrrp.last"
)

// advertSlots is how many instances can note the time of their last advert. A restart of one that is left without
// begins as BACKUP.
const advertSlots = 4096

// lockPatience is how long a start waits for the one who uses the folder, who may be on its way out.
const lockPatience = 2 * time.Second

// records is what the instances of this director put on the box, in one file, and the times of their last adverts in
// another one. Who has it open holds a lock on the folder: two directors, or a cleanup beside one, would each take
// away what the other just put there. Its methods may be called from any goroutine; those that write wait for the
// disk, many callers at a time for the same write.
type records struct {
	dir    string
	bootID string
	log    *slog.Logger
	folder *os.File // locked; nil: it can't be made

	mu       sync.Mutex
	all      map[string]record // by instance
	version  int               // counts the changes of all
	words    []byte            // of the adverts, mapped when the first is wanted
	unmapped bool              // they can't be
	failed   bool              // to be written

	writing sync.Mutex
	written int // version on the disk
}

// openRecords locks dir and reads what a former run left there. Only a folder in use is an error: without one that
// works the director runs on, and says what is lost.
func openRecords(dir string, log *slog.Logger) (*records, error) {
	r := &records{dir: dir, log: log, all: map[string]record{}}
	var err error
	if r.bootID, err = statefile.BootID(); err != nil {
		return nil, err
	}
	if err := r.lock(); err != nil {
		return nil, err
	}
	if valid, err := statefile.Read(filepath.Join(dir, recordFile), r.bootID, &r.all); err != nil && !errors.Is(err, unix.ENOTDIR) {
		log.Warn("record of a former run is of no use; its addresses go when their lifetime ends", "error", err)
		r.all = map[string]record{}
	} else if !valid {
		r.all = map[string]record{}
	}
	return r, nil
}

// openFolder opens a folder under a high number: the kernel closes the descriptors of a dead process from the highest
// on, and needs tens of milliseconds for each packet socket, for which the next process would wait.
func openFolder(dir string) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 900)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), dir), nil
}

func (r *records) lock() error {
	var err error
	if r.folder, err = openFolder(r.dir); err != nil {
		return nil //nolint:nilerr // told by who makes it
	}
	for end := time.Now().Add(lockPatience); ; time.Sleep(time.Millisecond) {
		err = unix.Flock(int(r.folder.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return nil // some file systems can't lock
		}
		if time.Now().After(end) {
			r.folder.Close()
			return fmt.Errorf("lock state_dir %s: another director uses it; stop that one, or give each its own state_dir", r.dir)
		}
	}
}

// mapAdverts maps the file with the times of the last adverts, once.
func (r *records) mapAdverts() error {
	f, err := os.OpenFile(filepath.Join(r.dir, advertFile), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return fmt.Errorf("open the times of the last adverts: %w", err)
	}
	defer f.Close()
	var b [8 * advertSlots]byte
	_, _ = f.ReadAt(b[:], 0) // a short one is a new one
	// Written back as it is, so that the pages exist: a store to a hole of a full file system kills the process.
	if _, err := f.WriteAt(b[:], 0); err != nil {
		return fmt.Errorf("write the times of the last adverts: %w", err)
	}
	if r.words, err = unix.Mmap(int(f.Fd()), 0, len(b), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		return fmt.Errorf("map the times of the last adverts: %w", err)
	}
	return nil
}

// close gives the lock back. Nothing may be noted any more.
func (r *records) close() {
	if r.words != nil {
		_ = unix.Munmap(r.words) // can't fail for what Mmap returned
		r.words = nil
	}
	if r.folder != nil {
		r.folder.Close()
	}
}

// of returns the record of an instance.
func (r *records) of(instance string) (record, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	rec, ok := r.all[instance]
	return rec, ok
}

// names lists the instances with a record.
func (r *records) names() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Sorted(maps.Keys(r.all))
}

// slot returns the slot of an instance for the time of its last advert, and what stands there; 0: there is none.
func (r *records) slot(instance string) (int, *lastAdvert, time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	rec := r.all[instance]
	known := rec.Slot > 0 && rec.Slot < advertSlots
	if !known {
		// Bits, and a word more than there are slots: a thousand instances ask one after another, on small stacks.
		var taken [advertSlots/64 + 1]uint64
		for _, o := range r.all {
			if o.Slot > 0 && o.Slot < advertSlots {
				taken[o.Slot/64] |= 1 << (o.Slot % 64)
			}
		}
		for rec.Slot = 1; taken[rec.Slot/64]&(1<<(rec.Slot%64)) != 0; rec.Slot++ {
		}
		if rec.Slot >= advertSlots {
			return 0, nil, 0
		}
		r.all[instance] = rec // so that no other one takes it
		r.version++
	}
	if r.words == nil && !r.unmapped {
		if err := r.mapAdverts(); err != nil {
			r.log.Warn("a restart will not know that it was MASTER", "error", err)
			r.unmapped = true
		}
	}
	if r.words == nil {
		return rec.Slot, nil, 0
	}
	l := &lastAdvert{word: r.words[8*rec.Slot : 8*rec.Slot+8]}
	if !known {
		l.note(0)
		return rec.Slot, l, 0
	}
	return rec.Slot, l, time.Duration(binary.NativeEndian.Uint64(l.word))
}

// put replaces the record of an instance. news: something is to be flushed, and the caller must wait for that. What could
// not be written is news with the next call, of whomever.
func (r *records) put(instance string, rec record) (version int, news bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	news = r.failed
	if old, ok := r.all[instance]; !ok || !reflect.DeepEqual(old, rec) {
		r.all[instance] = rec
		r.version++
		news = true
	}
	return r.version, news
}

// remove forgets instances; with the last one the files go.
func (r *records) remove(instances ...string) error {
	r.mu.Lock()
	for _, name := range instances {
		if _, ok := r.all[name]; ok {
			delete(r.all, name)
			r.version++
		}
	}
	version := r.version
	r.mu.Unlock()
	return r.flush(version)
}

// flush writes the file, unless a later caller's write has done it.
func (r *records) flush(version int) error {
	r.writing.Lock()
	defer r.writing.Unlock()
	if r.written >= version {
		return nil
	}
	r.mu.Lock()
	all := maps.Clone(r.all)
	version = r.version
	if len(all) == 0 {
		r.words = nil // its file goes; whoever comes next gets another one
	}
	failed := r.failed
	r.mu.Unlock()
	path := filepath.Join(r.dir, recordFile)
	var err error
	if len(all) > 0 {
		err = statefile.Write(path, r.bootID, all)
	} else {
		err = errors.Join(statefile.Remove(path), statefile.Remove(filepath.Join(r.dir, advertFile)))
	}
	switch {
	case err != nil && !failed:
		r.log.Error("what the director puts on the box is not recorded: after a crash addresses stay until their lifetime ends, the rest until it is removed by hand; tried again every few seconds", "error", err)
	case err == nil && failed:
		r.log.Info("records are written again")
	}
	r.mu.Lock()
	r.failed = err != nil
	r.mu.Unlock()
	if err == nil {
		r.written = version
	}
	return err
}

// lastAdvert is the time of the last advert of an instance, in nanoseconds of CLOCK_BOOTTIME, in a file mapped into
// memory: noting it costs one store, waits for no disk and outlives a crash. The boot clock counts suspended time
// too: a box that slept is not the MASTER any more.
type lastAdvert struct{ word []byte }

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

// close ends the notes.
func (l *lastAdvert) close() {
	if l != nil {
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
