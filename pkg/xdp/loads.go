package xdp

import (
	"fmt"
	"sync/atomic"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/xdirector/xdirector/pkg/lb"
)

// loads is the map of that name in this process's memory: what lc and wlc choose by.
type loads struct {
	memory []byte
	byID   []xdirectorLoad
}

func mapLoads(m *ebpf.Map) (*loads, error) {
	memory, values, err := mapValues[xdirectorLoad](m)
	if err != nil {
		return nil, err
	}
	return &loads{memory: memory, byID: values}, nil
}

func (l *loads) close() error {
	if err := unix.Munmap(l.memory); err != nil {
		return fmt.Errorf("unmap loads: %w", err)
	}
	return nil
}

// reset is for an id that is given anew.
func (l *loads) reset(id uint32) { atomic.StoreUint64(&l.byID[id].Active, 0) }

// forget takes a flow that is gone from its server's active ones, if it was one.
func (l *loads) forget(flow flowState) {
	if flow.active() {
		atomic.AddUint64(&l.byID[flow.server()].Active, ^uint64(0))
	}
}

// weigh says how many flows a server may have compared to the others of its service.
func (l *loads) weigh(id uint32, scheduler lb.Scheduler, weight uint16) {
	if scheduler.IgnoresWeights() {
		weight = 1
	}
	if value := &l.byID[id]; value.Weight != uint32(weight) {
		atomic.StoreUint32(&value.Weight, uint32(weight))
	}
}

// cap says how many active flows a server may have; 0: as many as come.
func (l *loads) cap(id, most uint32) {
	if value := &l.byID[id]; value.Cap != most {
		atomic.StoreUint32(&value.Cap, most)
	}
}

// active is how many active flows a server has. A packet may count a flow's end before another CPU has counted its beginning.
func (l *loads) active(id uint32) uint64 {
	return uint64(max(0, int64(atomic.LoadUint64(&l.byID[id].Active))))
}
