package xdp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"

	"github.com/xdirector/xdirector/pkg/lb"
)

// Files are what other processes need of a plane: Words and Events are for OpenFastPath in the election's process. Timers
// must be kept open by somebody who outlives the agent: the kernel stops all timers when nobody holds it any more, and
// then every advert arrives. The programs of the next agent have timers of their own.
type Files struct {
	Words, Events, Timers *os.File
}

// Close closes the files.
func (f Files) Close() error {
	var err error
	for _, file := range []*os.File{f.Words, f.Events, f.Timers} {
		if file != nil {
			err = errors.Join(err, file.Close())
		}
	}
	return err
}

// Files returns what other processes need, as new descriptors that the caller closes. Another Plane may have others.
func (p *Plane) Files() (Files, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.clock == nil {
		return Files{}, errClosed
	}
	var f Files
	var err error
	for _, one := range []struct {
		to   **os.File
		from *ebpf.Map
		name string
	}{{&f.Words, p.maps.Words, xdirectorMapWords}, {&f.Events, p.maps.Events, xdirectorMapEvents}, {&f.Timers, p.maps.Timers, xdirectorMapTimers}} {
		fd, dupErr := unix.FcntlInt(uintptr(one.from.FD()), unix.F_DUPFD_CLOEXEC, 0)
		if dupErr != nil {
			err = errors.Join(err, fmt.Errorf("copy descriptor of %s: %w", one.name, dupErr))
			continue
		}
		*one.to = os.NewFile(uintptr(fd), one.name)
	}
	if err != nil {
		return Files{}, errors.Join(err, f.Close())
	}
	return f, nil
}

// mapOf makes a map of a file that another process handed over; the file stays the caller's.
func mapOf(f *os.File) (*ebpf.Map, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return ebpf.NewMapFromFD(fd)
}

const (
	frameShift     = 2 // FRAME_SHIFT of bpf/layout_routers.h
	ethernetHeader = 14
	ipv6Header     = 40
	lookAgain      = time.Second // between looks at all timers, in case the kernel has lost one
)

// FastPath is the election's end of the plane: memory that it shares with the programs, and no call that can wait. It
// implements ha.FastPath. One goroutine uses it, but Renew and Gate may be called from any.
//
// The gates are as they were left: who takes over from another process goes on with them. Of the rest nothing is left:
// no advert is absorbed until Absorb.
type FastPath struct {
	memory []byte
	words  []xdirectorWords
	slots  []watch
	events *ebpf.Map
	ring   *ringbuf.Reader
	record ringbuf.Record
	poll   int // of the ring and the clock
	clock  int // a timerfd
	next   time.Duration
}

// watch is one slot on which adverts are, or were, absorbed.
type watch struct {
	absorbing bool
	began     uint64
	final     uint64 // after Release
}

// OpenFastPath maps the words of a plane and subscribes to its events; see Files. The caller may close the files then.
func OpenFastPath(words, events *os.File) (*FastPath, error) {
	f := &FastPath{poll: -1, clock: -1}
	if err := f.open(words, events); err != nil {
		f.Close()
		return nil, fmt.Errorf("open fast path of adverts: %w", err)
	}
	for slot := range f.words {
		f.forget(uint32(slot))
	}
	return f, nil
}

func (f *FastPath) open(words, events *os.File) error {
	w, err := mapOf(words)
	if err != nil {
		return fmt.Errorf("take over words: %w", err)
	}
	defer w.Close() // the mapping stays
	size := int(unsafe.Sizeof(xdirectorWords{}))
	if w.Type() != ebpf.Array || int(w.ValueSize()) != size || w.MaxEntries() == 0 {
		return fmt.Errorf("take over words: %v is not made for this version", w)
	}
	count := int(w.MaxEntries())
	if f.memory, err = unix.Mmap(w.FD(), 0, count*size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		return fmt.Errorf("map words: %w", err)
	}
	f.words = unsafe.Slice((*xdirectorWords)(unsafe.Pointer(&f.memory[0])), count)
	f.slots = make([]watch, count)
	if f.events, err = mapOf(events); err != nil {
		return fmt.Errorf("take over events: %w", err)
	}
	if f.ring, err = ringbuf.NewReader(f.events); err != nil {
		return fmt.Errorf("read events: %w", err)
	}
	f.ring.SetDeadline(time.Unix(1, 0)) // reading never waits
	if f.clock, err = unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK); err != nil {
		return fmt.Errorf("make timer: %w", err)
	}
	if f.poll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return fmt.Errorf("make epoll: %w", err)
	}
	for _, fd := range []int{f.events.FD(), f.clock} {
		if err := unix.EpollCtl(f.poll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}); err != nil {
			return fmt.Errorf("poll events: %w", err)
		}
	}
	return nil
}

// Close ends all absorbing and lets go of the plane. The gates stay as they are.
func (f *FastPath) Close() error {
	for slot := range f.words {
		f.forget(uint32(slot))
	}
	var err error
	if f.ring != nil {
		err = f.ring.Close()
	}
	if f.events != nil {
		err = errors.Join(err, f.events.Close())
	}
	for _, fd := range []int{f.poll, f.clock} {
		if fd >= 0 {
			err = errors.Join(err, unix.Close(fd))
		}
	}
	if f.memory != nil {
		err = errors.Join(err, unix.Munmap(f.memory))
	}
	*f = FastPath{poll: -1, clock: -1}
	return err
}

// at is the memory of a slot; nil: there is no such slot.
func (f *FastPath) at(slot uint32) *xdirectorWords {
	if slot == 0 || int(slot) >= len(f.words) {
		return nil
	}
	return &f.words[slot]
}

// Gate opens or closes the plane for frames to the virtual MAC of an instance. While it is open nothing is absorbed.
func (f *FastPath) Gate(slot uint32, master bool) {
	if w := f.at(slot); w != nil {
		open := uint64(0)
		if master {
			open = 1
		}
		atomic.StoreUint64(&w.Gate, open)
	}
}

// SecondChance has packets that are no SYN and have no flow go to previous, which was MASTER before us on this interface, until
// then (CLOCK_MONOTONIC). The zero MAC: we were MASTER, and look up what our successor sends us so.
func (f *FastPath) SecondChance(slot uint32, previous lb.MAC, interfaceIndex int, until time.Duration) {
	w := f.at(slot)
	if w == nil {
		return
	}
	word := uint64(0)
	if !previous.IsZero() {
		for i, b := range previous {
			word |= uint64(b) << (8 * i)
		}
		word |= uint64(interfaceIndex) << 48
	}
	atomic.StoreUint64(&w.Until, 0) // nobody meets the one with the other's
	atomic.StoreUint64(&w.Previous, word)
	atomic.StoreUint64(&w.Until, uint64(max(0, until)))
}

// Absorb has the plane absorb exact repeats of the frame, Ethernet header included, and wake us when none came for down.
// With down 0 it absorbs nothing, but lets repeats pass whatever else comes in the name of their sender. The frame must
// be the last valid advert of the MASTER that a BACKUP obeys; given again it changes nothing. False: every advert still
// arrives.
func (f *FastPath) Absorb(slot uint32, frame []byte, down time.Duration) bool {
	w := f.at(slot)
	template, length := templateOf(frame)
	if w == nil {
		return false
	}
	if length == 0 {
		f.forget(slot)
		return false
	}
	s := &f.slots[slot]
	same := w.Length == length && w.Template == template
	if same && s.absorbing && down > 0 && w.Down == uint64(down) && atomic.LoadUint64(&w.Seen) != 0 {
		return true
	}
	f.Release(slot)
	if !same {
		// A program that reads a half of it knows the difference, or finds at the end that `seen` has changed.
		atomic.StoreUint64(&w.Length, 0)
		for i, word := range template {
			atomic.StoreUint64(&w.Template[i], word)
		}
		atomic.StoreUint64(&w.Length, length)
	}
	final := s.final
	s.final = 0
	if down <= 0 || atomic.LoadUint64(&w.Gate) != 0 {
		return false
	}
	atomic.StoreUint64(&w.Down, uint64(down))
	// Later than everything that a program may have read here before, also where the clock is a coarse one.
	s.absorbing, s.began = true, max(uint64(monotonic()), s.began+1, final+1)
	atomic.StoreUint64(&w.Seen, s.began)
	f.lookAt(time.Duration(s.began) + down)
	return true
}

// forget leaves a slot as if nothing had ever been absorbed there, by whichever process.
func (f *FastPath) forget(slot uint32) {
	if w := f.at(slot); w != nil {
		f.slots[slot] = watch{}
		atomic.StoreUint64(&w.Seen, 0)
		atomic.StoreUint64(&w.Length, 0)
	}
}

// templateOf is the frame as bpf/absorb.h compares it, without what differs between repeats; length 0: it can't be one.
func templateOf(frame []byte) (template [len(xdirectorWords{}.Template)]uint64, length uint64) {
	bytes := make([]byte, len(template)*8)
	if len(frame) < ethernetHeader {
		return template, 0
	}
	end := 0
	switch ethertype := binary.BigEndian.Uint16(frame[12:]); {
	case ethertype == 0x0800 && len(frame) >= ethernetHeader+20:
		end = ethernetHeader + int(binary.BigEndian.Uint16(frame[ethernetHeader+2:]))
	case ethertype == 0x86dd && len(frame) >= ethernetHeader+ipv6Header:
		end = ethernetHeader + ipv6Header + int(binary.BigEndian.Uint16(frame[ethernetHeader+4:]))
	}
	if end < ethernetHeader+20 || end > len(frame) || frameShift+end > len(bytes) {
		return template, 0
	}
	copy(bytes[frameShift:], frame[:end])
	if frame[12] == 0x08 {
		ip := bytes[frameShift+ethernetHeader:]
		ip[4], ip[5], ip[10], ip[11] = 0, 0, 0, 0 // id and checksum
	}
	for i := range template {
		template[i] = binary.NativeEndian.Uint64(bytes[i*8:])
	}
	return template, uint64(frameShift + end)
}

// Release ends Absorb. When it returns, no further advert is absorbed and LastSeen is final: the programs absorb only if
// they can replace the very value that is taken out here.
func (f *FastPath) Release(slot uint32) {
	w := f.at(slot)
	if w == nil || !f.slots[slot].absorbing {
		return
	}
	s := &f.slots[slot]
	s.absorbing, s.final = false, atomic.SwapUint64(&w.Seen, 0)
	switch s.final {
	case s.began:
		s.final = 0
	case 0:
		// Somebody else has taken it out: the next FastPath of these words, or an agent that gave the slot away. What it
		// was nobody knows. Now is the latest that it can have been, and adverts arrive since.
		s.final = uint64(monotonic())
	}
}

// LastSeen is when an advert was absorbed last, in CLOCK_MONOTONIC; 0: none since Absorb.
func (f *FastPath) LastSeen(slot uint32) time.Duration {
	w := f.at(slot)
	if w == nil {
		return 0
	}
	s := f.slots[slot]
	if !s.absorbing {
		return time.Duration(s.final)
	}
	if seen := atomic.LoadUint64(&w.Seen); seen != s.began {
		return time.Duration(seen)
	}
	return 0
}

// Renew lets all absorbing go on until then, in CLOCK_MONOTONIC: nobody absorbs for a process that is gone.
func (f *FastPath) Renew(until time.Duration) {
	atomic.StoreUint64(&f.words[0].Lease, uint64(until))
}

// FD becomes readable when a timer of Absorb has run out.
func (f *FastPath) FD() int { return f.poll }

// Expired takes the slots whose timers have run out since it was called last. Each is silent still: an advert that was
// absorbed meanwhile takes its slot off the list.
func (f *FastPath) Expired() []uint32 {
	now := monotonic()
	var list []uint32
	take := func(slot uint32) {
		if w := f.at(slot); w != nil && f.slots[slot].absorbing && !slices.Contains(list, slot) &&
			time.Duration(atomic.LoadUint64(&w.Seen)+w.Down) <= now {
			list = append(list, slot)
		}
	}
	for f.ring.ReadInto(&f.record) == nil {
		if len(f.record.RawSample) >= 4 {
			take(binary.NativeEndian.Uint32(f.record.RawSample))
		}
	}
	var ticks [8]byte
	if n, _ := unix.Read(f.clock, ticks[:]); n == len(ticks) {
		// The kernel's timers begin with the first advert absorbed, and end with the last process that holds them. Until
		// and after that this clock stands in.
		f.next = 0
		for slot := range f.slots {
			if !f.slots[slot].absorbing {
				continue
			}
			take(uint32(slot))
			due := now + lookAgain
			if f.LastSeen(uint32(slot)) == 0 {
				due = max(time.Duration(f.slots[slot].began+f.words[slot].Down), now+time.Millisecond)
			}
			f.lookAt(due)
		}
	}
	return list
}

// lookAt has the clock go off at a moment, if it doesn't earlier.
func (f *FastPath) lookAt(at time.Duration) {
	if f.next != 0 && f.next <= at {
		return
	}
	f.next = at
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(int64(at))}
	// It fails on a bad descriptor or time alone.
	_ = unix.TimerfdSettime(f.clock, unix.TFD_TIMER_ABSTIME, &spec, nil)
}

// monotonic is the clock of bpf_ktime_get_ns, which time.Now doesn't give.
func monotonic() time.Duration {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		panic(err) // no Linux is without it
	}
	return time.Duration(now.Nano())
}
