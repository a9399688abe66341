package statefile

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"unsafe"
)

// Counters are counters that go on when the process that counts is replaced by another one, however it ended: they lie in
// a file that is mapped into memory, so that what was counted needs no writing. What they count is a source that may start anew
// at 0, which they notice by its fall. They are for one goroutine at a time.
//
// Without a file (no folder, no space) they are in memory alone; see Keep.
type Counters struct {
	path, boot string
	file       *os.File
	chunks     int // of the file
	free       []*record
	known      map[identity]*Counter
	round      uint64
	lacking    bool // some are in memory alone
}

// Counter is one of Counters, until that is swept without it.
type Counter struct {
	*record
	round uint64 // in which it was last asked for; 0: by an earlier process
	kept  bool   // in the file
}

// record is a counter as the file has it.
type record struct {
	id   identity
	base uint64 // what earlier lives of the source have counted
	last uint64 // what this one has
}

// identity is the start of the key's SHA-256 sum: a file of fixed records needs no names. All zero: the record is free.
type identity [16]byte

const (
	chunkSize  = 64 << 10
	recordSize = int(unsafe.Sizeof(record{}))
	headerSize = 2 * 32 // in the place of two records
	// CountersSpare is how many counters are remembered that nobody has asked for in the last round.
	CountersSpare = 16384
)

// NewCounters returns counters that will be in the file at path, for the given boot, once Keep has had success.
func NewCounters(path, boot string) *Counters {
	return &Counters{path: path, boot: boot, known: map[identity]*Counter{}, round: 1, lacking: true}
}

// Lacking says that not all counters are in the file: Keep is to be tried again.
func (c *Counters) Lacking() bool { return c.lacking }

// Keep has the file hold all counters. What it has from an earlier process is added to what was counted meanwhile.
func (c *Counters) Keep() error {
	c.lacking = true
	if c.file == nil {
		if err := c.open(); err != nil {
			return fmt.Errorf("keep counters: %w", err)
		}
	}
	for _, counter := range c.known {
		if counter.kept {
			continue
		}
		place, err := c.place()
		if err != nil {
			return fmt.Errorf("keep counters: %w", err)
		}
		*place = *counter.record
		counter.record, counter.kept = place, true
	}
	c.lacking = false
	return nil
}

// Close lets go of the file. The counters must not be used any more.
func (c *Counters) Close() error {
	if c.file == nil {
		return nil
	}
	return c.file.Close() // the mappings end with the process
}

// Counter returns the counter with the key; a new one is 0.
func (c *Counters) Counter(key string) *Counter {
	sum := sha256.Sum256([]byte(key))
	id := identity(sum[:])
	counter := c.known[id]
	if counter == nil {
		counter = &Counter{record: &record{id: id}}
		if place, err := c.place(); err == nil {
			*place = *counter.record
			counter.record, counter.kept = place, true
		} else {
			c.lacking = true
		}
		c.known[id] = counter
	}
	counter.round = c.round
	return counter
}

// Begin begins a round: what is not asked for before the next Sweep is no longer needed.
func (c *Counters) Begin() { c.round++ }

// Sweep forgets counters that nobody has asked for since Begin, the oldest first, when there are very many: years of changes
// must not fill the memory. Those that it forgets must not be used any more.
func (c *Counters) Sweep() {
	var spare []*Counter
	for _, counter := range c.known {
		if counter.round != c.round {
			spare = append(spare, counter)
		}
	}
	if len(spare) <= CountersSpare {
		return
	}
	slices.SortFunc(spare, func(a, b *Counter) int {
		return cmp.Or(cmp.Compare(a.round, b.round), bytes.Compare(a.id[:], b.id[:]))
	})
	for _, counter := range spare[:len(spare)-CountersSpare] {
		delete(c.known, counter.id)
		*counter.record = record{}
		if counter.kept {
			c.free = append(c.free, counter.record)
		}
	}
}

// Observe notes what the source says, and returns the total.
func (c *Counter) Observe(now uint64) uint64 {
	if c.Fell(now) {
		c.Restart()
	}
	c.last = now
	return c.Total()
}

// Observe notes what sources say that start anew together: one that fell tells about the others, even those that have
// overtaken what they were since.
func Observe(all []*Counter, now []uint64) {
	anew := false
	for n, c := range all {
		anew = anew || c.Fell(now[n])
	}
	for n, c := range all {
		if anew {
			c.Restart()
		}
		c.Observe(now[n])
	}
}

// Fell says that the source has started anew.
func (c *Counter) Fell(now uint64) bool { return now < c.last }

// Restart notes that the source has started anew. A process that ends here has counted too much rather than gone back.
func (c *Counter) Restart() {
	c.base += c.last
	c.last = 0
}

// Total is what all lives of the source have counted. It never falls.
func (c *Counter) Total() uint64 { return c.base + c.last }

// place returns a free record of the file.
func (c *Counters) place() (*record, error) {
	if len(c.free) == 0 {
		if c.file == nil {
			return nil, errors.New("no file")
		}
		// Written, or a full disk would be a fault at the first count.
		if _, err := c.file.WriteAt(make([]byte, chunkSize), int64(c.chunks)*chunkSize); err != nil {
			return nil, errors.Join(err, c.file.Truncate(int64(c.chunks)*chunkSize))
		}
		records, err := c.chunk(c.chunks)
		if err != nil {
			return nil, err
		}
		c.chunks++
		c.add(records)
	}
	last := len(c.free) - 1
	r := c.free[last]
	c.free = c.free[:last]
	return r, nil
}

// add takes over the records of a chunk.
func (c *Counters) add(records []record) {
	for n := range records {
		r := &records[n]
		if r.id == (identity{}) {
			c.free = append(c.free, r)
			continue
		}
		if counter := c.known[r.id]; counter == nil {
			c.known[r.id] = &Counter{record: r, kept: true}
		} else if !counter.kept { // counted before the file could be had
			r.base += r.last + counter.base
			r.last = counter.last
			counter.record, counter.kept = r, true
		}
	}
}

// chunk maps a chunk of the file. It stays so until the process ends.
func (c *Counters) chunk(n int) ([]record, error) {
	memory, err := syscall.Mmap(int(c.file.Fd()), int64(n)*chunkSize, chunkSize, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map %s: %w", c.path, err)
	}
	records := unsafe.Slice((*record)(unsafe.Pointer(&memory[0])), chunkSize/recordSize)
	if n == 0 {
		records = records[headerSize/recordSize:]
	}
	return records, nil
}

// header is the start of a file of this boot.
func (c *Counters) header() []byte {
	return append([]byte("xdirector counters 1 "+c.boot), make([]byte, headerSize)...)[:headerSize]
}

// open opens the file, or makes a new one in the place of one that is of another boot, or no such file at all.
func (c *Counters) open() error {
	file, err := os.OpenFile(c.path, os.O_RDWR, 0)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	size := int64(0)
	if err == nil {
		header := make([]byte, headerSize)
		info, failed := file.Stat()
		if _, unread := file.ReadAt(header, 0); failed == nil && unread == nil && bytes.Equal(header, c.header()) {
			size = info.Size() / chunkSize * chunkSize // a process may have ended while it added a chunk
		}
		if size == 0 {
			file.Close()
		}
	}
	if size == 0 {
		if file, err = c.create(); err != nil {
			return err
		}
		size = chunkSize
	}
	c.file, c.free, c.chunks = file, nil, int(size/chunkSize)
	var all [][]record
	for n := range c.chunks {
		records, err := c.chunk(n)
		if err != nil {
			c.file = nil
			file.Close()
			return err
		}
		all = append(all, records)
	}
	for _, records := range all {
		c.add(records)
	}
	return nil
}

func (c *Counters) create() (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(c.path), 0o755); err != nil {
		return nil, err
	}
	file, err := os.OpenFile(c.path+".new", os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	_, err = file.Write(append(c.header(), make([]byte, chunkSize-headerSize)...))
	if err == nil {
		err = os.Rename(c.path+".new", c.path)
	}
	if err != nil {
		file.Close()
		os.Remove(c.path + ".new")
		return nil, err
	}
	return file, nil
}
