package xdp

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"math/bits"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

const (
	flowWays       = uint32(xdirectorFlowBitsFLOW_WAYS)
	flowFree       = uint64(0) // prints, as in bpf/flow.h
	flowBusy       = uint64(1)
	generationMask = uint32(1)<<xdirectorFlowBitsFLOW_GENERATION_BITS - 1
)

// flowSeed is the secret behind the prints of flows. It is as old as the table.
type flowSeed = [xdirectorFlowBitsFLOW_SEED_WORDS]uint64

func newFlowSeed() (seed flowSeed) {
	for i := range seed {
		var word [8]byte
		rand.Read(word[:]) // never fails
		seed[i] = binary.NativeEndian.Uint64(word[:])
	}
	seed[len(seed)-1] |= 1 // a factor: an even one would lose bits
	return seed
}

// flowSets is how many sets a table needs that holds size flows without loss: it is full by half then.
func flowSets(size uint32) uint32 {
	return max(1, uint32(1)<<bits.Len32((2*size-1)/flowWays))
}

// flowClock converts to and from the units of time that flows expire in.
type flowClock struct {
	hz    uint64 // ticks per second
	shift uint32 // a unit is 1<<shift ticks: half a second to a second
}

func newFlowClock() (flowClock, error) {
	hz, err := ticksPerSecond()
	if err != nil {
		return flowClock{}, err
	}
	return newFlowClockOf(hz), nil
}

func newFlowClockOf(hz uint64) flowClock { return flowClock{hz: hz, shift: uint32(bits.Len64(hz / 2))} }

// units rounds up.
func (c flowClock) units(d time.Duration) uint32 {
	ticks := (uint64(d)*c.hz + uint64(time.Second) - 1) / uint64(time.Second)
	return uint32((ticks + 1<<c.shift - 1) >> c.shift)
}

// flowState is the second word of a place.
type flowState uint64

func (s flowState) server() uint32 { return uint32(s) & (1<<xdirectorFlowBitsFLOW_SERVER_BITS - 1) }

func (s flowState) generation() uint32 { return uint32(s) >> xdirectorFlowBitsFLOW_SERVER_BITS }

// active says that the flow is not closing.
func (s flowState) active() bool {
	return xdirectorFlowPhase(s>>xdirectorFlowBitsFLOW_PHASE_SHIFT)&xdirectorFlowPhase(xdirectorFlowBitsFLOW_PHASE_MASK) != xdirectorFlowPhaseFLOW_CLOSING
}

// remaining is how many units of time the flow is still known; 0 or less: it is forgotten.
func (s flowState) remaining(now uint32) int32 {
	const unused = 32 - xdirectorFlowBitsFLOW_EXPIRES_BITS
	return int32((uint32(s>>xdirectorFlowBitsFLOW_EXPIRES_SHIFT)-now)<<unused) >> unused
}

// flowTable is the map `flows` in this process's memory.
type flowTable struct {
	memory []byte
	places []xdirectorFlowPlace
}

func mapFlows(m *ebpf.Map) (*flowTable, error) {
	memory, sets, err := mapValues[xdirectorFlowSet](m)
	if err != nil {
		return nil, err
	}
	return &flowTable{memory: memory, places: unsafe.Slice(&sets[0].Place[0], m.MaxEntries()*flowWays)}, nil
}

func (t *flowTable) close() error {
	if err := unix.Munmap(t.memory); err != nil {
		return fmt.Errorf("unmap flow table: %w", err)
	}
	return nil
}

// sweep calls known for every flow that is not forgotten, and forgotten for each of the others when it has freed its place: the
// clock of their expiry begins anew every few weeks, and an old one would come back to life.
func (t *flowTable) sweep(now uint32, known, forgotten func(flowState)) {
	for i := range t.places {
		place := &t.places[i]
		print := atomic.LoadUint64(&place.Print)
		if print == flowFree || print == flowBusy {
			continue
		}
		state := flowState(atomic.LoadUint64(&place.State))
		if state.remaining(now) > 0 {
			known(state)
		} else if atomic.CompareAndSwapUint64(&place.Print, print, flowBusy) {
			if flowState(atomic.LoadUint64(&place.State)) == state {
				print = flowFree
				forgotten(state)
			}
			atomic.StoreUint64(&place.Print, print)
		}
	}
}

func (s flowState) phase() xdirectorFlowPhase {
	return xdirectorFlowPhase(s >> xdirectorFlowBitsFLOW_PHASE_SHIFT & flowState(xdirectorFlowBitsFLOW_PHASE_MASK))
}
