package xdp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/cilium/ebpf"

	"github.com/xdirector/xdirector/pkg/lb"
)

const (
	serverUsed  = uint32(xdirectorServerFlagSERVER_USED)
	serverLive  = uint32(xdirectorServerFlagSERVER_LIVE)
	serverLocal = uint32(xdirectorServerFlagSERVER_LOCAL)
)

// tables is what the maps hold, as far as user space writes them. Every write to a map goes through apply.go, which
// notes it here only after it succeeded: so what failed is tried again by the next Apply.
type tables struct {
	services map[lb.ServiceKey]*serviceEntry
	servers  map[lb.ServerKey]*serverEntry
	boxes    map[xdirectorBoxFact]struct{}
	suspects xdirectorSuspects
	routers  routerTables

	freeServices []uint32 // ids, the next one last
	freeServers  []uint32
	generations  []uint32 // by server id
}

type serviceEntry struct {
	id        uint32
	written   bool // to the map `services`
	value     xdirectorService
	ringKnown bool // false after adoption: the ring is written anew
	ring      []uint32
	of        lb.Service // that schedule was made of
	schedule  []int
}

type serverEntry struct {
	id      uint32
	written bool
	value   xdirectorServer
}

// readTables recovers the ids that an earlier agent gave, so that flows go on meaning the same servers.
func readTables(m *xdirectorMaps) (*tables, error) {
	t := &tables{
		services: map[lb.ServiceKey]*serviceEntry{},
		servers:  map[lb.ServerKey]*serverEntry{},
		boxes:    map[xdirectorBoxFact]struct{}{},
	}
	byID := map[uint32]lb.ServiceKey{}
	var key xdirectorServiceKey
	var value xdirectorService
	services := m.Services.Iterate()
	for services.Next(&key, &value) {
		service := lb.ServiceKey{Address: addressOf(key.Address), Port: portOf(key.Port), Protocol: lb.Protocol(key.Protocol)}
		byID[value.Id] = service
		t.services[service] = &serviceEntry{id: value.Id, written: true, value: value}
	}
	if err := services.Err(); err != nil {
		return nil, fmt.Errorf("read services from their map: %w", err)
	}
	var fact xdirectorBoxFact
	var ignored uint32
	facts := m.Boxes.Iterate()
	for facts.Next(&fact, &ignored) {
		t.boxes[fact] = struct{}{}
	}
	if err := facts.Err(); err != nil {
		return nil, fmt.Errorf("read boxes from their map: %w", err)
	}
	if err := m.Suspects.Lookup(uint32(0), &t.suspects); err != nil {
		return nil, fmt.Errorf("read suspects from their map: %w", err)
	}
	if err := t.readServers(m.Servers, byID); err != nil {
		return nil, err
	}
	var err error
	if t.routers, err = readRouters(m); err != nil {
		return nil, err
	}
	for id := m.Services.MaxEntries(); id > 0; id-- {
		if _, used := byID[id-1]; !used {
			t.freeServices = append(t.freeServices, id-1)
		}
	}
	return t, nil
}

func (t *tables) readServers(m *ebpf.Map, services map[uint32]lb.ServiceKey) error {
	ids := make([]uint32, m.MaxEntries())
	values := make([]xdirectorServer, m.MaxEntries())
	n, err := m.BatchLookup(new(ebpf.MapBatchCursor), ids, values, nil)
	if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("read servers from their map: %w", err)
	}
	t.generations = make([]uint32, len(ids))
	// From the last to the first, so that the lowest free id is given first. Id 0 means "none".
	for i, id := range slices.Backward(ids[:n]) {
		value := values[i]
		t.generations[id] = value.Generation
		if id == 0 {
			continue
		}
		service, ok := services[value.Service]
		server := lb.ServerKey{Service: service, Address: addressOf(value.Address)}
		if value.Flags&serverUsed == 0 {
			t.freeServers = append(t.freeServers, id)
		} else if _, double := t.servers[server]; ok && !double {
			t.servers[server] = &serverEntry{id: id, written: true, value: value}
		} else {
			// Its service went and the agent died before this entry followed.
			value = xdirectorServer{Generation: (value.Generation + 1) & generationMask}
			if err := m.Put(id, value); err != nil {
				return fmt.Errorf("remove server %d that belongs to no service: %w", id, err)
			}
			t.generations[id] = value.Generation
			t.freeServers = append(t.freeServers, id)
		}
	}
	return nil
}

// Addresses and ports lie in the maps as on the wire.

func addressOf(value uint32) netip.Addr {
	var b [4]byte
	binary.NativeEndian.PutUint32(b[:], value)
	return netip.AddrFrom4(b)
}

func wireAddress(a netip.Addr) uint32 {
	b := a.As4()
	return binary.NativeEndian.Uint32(b[:])
}

func portOf(value uint16) uint16 {
	var b [2]byte
	binary.NativeEndian.PutUint16(b[:], value)
	return binary.BigEndian.Uint16(b[:])
}

func wirePort(port uint16) uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], port)
	return binary.NativeEndian.Uint16(b[:])
}

func wireService(k lb.ServiceKey) xdirectorServiceKey {
	return xdirectorServiceKey{Address: wireAddress(k.Address), Port: wirePort(k.Port), Protocol: uint8(k.Protocol)}
}
