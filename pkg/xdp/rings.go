package xdp

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/xdirector/xdirector/pkg/lb"
)

const (
	lineWords = len(xdirectorRingLine{}.Word)
	// ringPause is longer than any packet is on its way through the program: by then nothing reads a half that is not in use.
	ringPause = 100 * time.Millisecond
)

// ring is what a service's flows are scheduled by: server ids.
type ring struct {
	turns, fallback []uint32
	list            []uint32 // of a service with caps: how many there are in turns, and each of them once
}

func newList(turns []uint32) []uint32 {
	all := slices.Compact(slices.Sorted(slices.Values(turns)))
	return append([]uint32{uint32(len(all))}, all...)
}

func (r ring) equal(to ring) bool {
	return slices.Equal(r.turns, to.turns) && slices.Equal(r.fallback, to.fallback) && slices.Equal(r.list, to.list)
}

// lines is how many lines the ring takes.
func (r ring) lines() int {
	return (len(r.turns) + len(r.fallback) + len(r.list) + lineWords - 1) / lineWords
}

// half is how many lines a new array has for each half: one more than needed, for a server that comes.
func (r ring) half() int { return r.lines() + 1 }

// write puts the ring into the lines of a half.
func (r ring) write(m *ebpf.Map, first int) error {
	var lines []xdirectorRingLine
	var indexes []uint32
	for chunk := range slices.Chunk(slices.Concat(r.turns, r.fallback, r.list), lineWords) {
		var line xdirectorRingLine
		copy(line.Word[:], chunk)
		indexes = append(indexes, uint32(first+len(lines)))
		lines = append(lines, line)
	}
	if len(lines) == 0 {
		return nil
	}
	_, err := m.BatchUpdate(indexes, lines, nil)
	return err
}

// ringSwap is the new ring of one service.
type ringSwap struct {
	entry *serviceEntry
	ring  ring // empty: no server can take a new flow
}

// writeRings changes the rings that differ.
func (p *Plane) writeRings(w *wish) error {
	var swaps []ringSwap
	for _, service := range w.services {
		ids := make([]uint32, len(service.RealServers))
		for i, r := range service.RealServers {
			ids[i] = p.tables.servers[lb.ServerKey{Service: service.Key, Address: r.Address}].id
		}
		var next ring
		for _, i := range service.schedule {
			next.turns = append(next.turns, ids[i])
		}
		for _, i := range service.fallback {
			next.fallback = append(next.fallback, ids[i])
		}
		if service.Capped() {
			next.list = newList(next.turns)
		}
		entry := p.tables.services[service.Key]
		entry.of, entry.schedule, entry.fallback = service.Service, service.schedule, service.fallback
		if !entry.ringKnown || !entry.ring.equal(next) {
			swaps = append(swaps, ringSwap{entry: entry, ring: next})
		}
	}
	return p.swapRings(swaps)
}

// swapRings writes what has room in the half of a ring that is not in use. Others get a new array.
func (p *Plane) swapRings(swaps []ringSwap) error {
	var arrays []ringSwap
	for _, swap := range swaps {
		done, err := p.changeRing(swap)
		if err != nil {
			return fmt.Errorf("change ring: %w", err)
		}
		if !done {
			arrays = append(arrays, swap)
		}
	}
	return p.swapArrays(arrays)
}

// swapArrays gives each of them a new array: the kernel returns only when no packet uses the old one any more, which takes some
// 20 ms, once for a batch since Linux 6.8, for each ring before.
func (p *Plane) swapArrays(swaps []ringSwap) error {
	for chunk := range slices.Chunk(swaps, ringsPerBatch) {
		if err := p.putRings(chunk); err != nil {
			return fmt.Errorf("write rings: %w", err)
		}
	}
	return nil
}

func (p *Plane) putRings(swaps []ringSwap) error {
	var ids, descriptors []uint32
	for _, swap := range swaps {
		swap.entry.ringKnown = false // until all are written
		swap.entry.closeArray()
		array, err := p.newRing(swap.ring)
		if err != nil {
			return err
		}
		swap.entry.array = array
		ids = append(ids, swap.entry.id)
		descriptors = append(descriptors, uint32(array.FD()))
	}
	if err := p.updateRings(ids, descriptors); err != nil {
		return err
	}
	for _, swap := range swaps {
		if len(p.tables.services) > p.mostArrays {
			swap.entry.closeArray() // the outer map holds it
		}
		swap.entry.ringKnown, swap.entry.ring = true, swap.ring
		swap.entry.ringHalf, swap.entry.ringSecond, swap.entry.ringChanged = swap.ring.half(), false, time.Now()
	}
	return nil
}

// updateRings has several threads wait for the kernel at the same time: before Linux 6.8 a thousand rings one after the
// other would take a quarter of a minute.
func (p *Plane) updateRings(ids, descriptors []uint32) error {
	var writers sync.WaitGroup
	size := (len(ids) + ringWriters - 1) / ringWriters
	failed := make([]error, ringWriters)
	for i := 0; i*size < len(ids); i++ {
		from, to := i*size, min((i+1)*size, len(ids))
		writers.Go(func() { _, failed[i] = p.maps.Rings.BatchUpdate(ids[from:to], descriptors[from:to], nil) })
	}
	writers.Wait()
	return errors.Join(failed...)
}

// mostArrays is the number of services up to which the arrays of their rings stay open. To open one again by its id takes
// CAP_SYS_ADMIN ("BPF_MAP_GET_FD_BY_ID", bpf(2)), which the service hasn't got.
func mostArrays() int {
	var files unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err != nil {
		return 0
	}
	return int(min(files.Cur/2, math.MaxInt32))
}

// changeRing has the other half of a ring used, once the new ring is in it. False: it has no room for that, or may still be read.
func (p *Plane) changeRing(swap ringSwap) (bool, error) {
	e := swap.entry
	if !e.ringKnown || e.array == nil || swap.ring.lines() > e.ringHalf || time.Since(e.ringChanged) < ringPause {
		return false, nil
	}
	first := 1
	lengths := uint64(len(swap.ring.fallback))<<32 | uint64(len(swap.ring.turns))
	if !e.ringSecond {
		first += e.ringHalf
		lengths |= uint64(xdirectorRingWordRING_SECOND)
	}
	e.ringKnown = false // until all is written
	if err := swap.ring.write(e.array, first); err != nil {
		return false, err
	}
	change := struct {
		Service, Padding uint32
		Lengths          uint64
	}{Service: e.id, Lengths: lengths}
	answer, err := p.changer.Run(&ebpf.RunOptions{Context: change})
	if err == nil && answer != 0 {
		err = errors.New("it is gone")
	}
	if err != nil {
		return false, err
	}
	e.ringKnown, e.ring, e.ringSecond, e.ringChanged = true, swap.ring, !e.ringSecond, time.Now()
	return true, nil
}

func (p *Plane) newRing(r ring) (*ebpf.Map, error) {
	spec := p.ring.Copy()
	spec.MaxEntries = uint32(1 + 2*r.half())
	m, err := ebpf.NewMap(spec)
	if err != nil {
		return nil, err
	}
	var head xdirectorRingLine
	head.Word[xdirectorRingWordRING_TURNS] = uint32(len(r.turns))
	head.Word[xdirectorRingWordRING_TABLE] = uint32(len(r.fallback))
	head.Word[xdirectorRingWordRING_HALF] = uint32(r.half() * lineWords)
	if err := errors.Join(r.write(m, 1), m.Put(uint32(0), head)); err != nil {
		m.Close()
		return nil, err
	}
	return m, nil
}
