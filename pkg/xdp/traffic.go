package xdp

import (
	"fmt"
	"sync/atomic"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/xdirector/xdirector/pkg/lb"
)

const serversMax = 32768 // as in bpf/layout_services.h

// traffic is the map of that name in this process's memory: counters of the servers, for each CPU.
type traffic struct {
	memory []byte
	perCPU [][]xdirectorServerCounters
}

func mapTraffic(m *ebpf.Map) (*traffic, error) {
	memory, values, err := mapValues[xdirectorServerCounters](m)
	if err != nil {
		return nil, err
	}
	t := &traffic{memory: memory}
	for ; len(values) >= serversMax; values = values[serversMax:] {
		t.perCPU = append(t.perCPU, values[:serversMax])
	}
	return t, nil
}

func (t *traffic) close() error {
	if err := unix.Munmap(t.memory); err != nil {
		return fmt.Errorf("unmap traffic: %w", err)
	}
	return nil
}

// reset is for an id that is given anew.
func (t *traffic) reset(id uint32) {
	for _, counters := range t.perCPU {
		c := &counters[id]
		for _, word := range []*uint64{&c.Packets, &c.Bytes, &c.FlowsCreated} {
			atomic.StoreUint64(word, 0)
		}
	}
}

func (t *traffic) of(id uint32) (sum lb.Traffic) {
	for _, counters := range t.perCPU {
		c := &counters[id]
		sum.Packets += atomic.LoadUint64(&c.Packets)
		sum.Bytes += atomic.LoadUint64(&c.Bytes)
		sum.FlowsCreated += atomic.LoadUint64(&c.FlowsCreated)
	}
	return sum
}
