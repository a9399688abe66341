package xdp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"time"

	"github.com/cilium/ebpf"

	"github.com/xdirector/xdirector/pkg/lb"
)

const (
	firstScope    = 1 << 24 // of a group; below are the ids of services
	serviceCapped = uint32(xdirectorServiceFlagSERVICE_CAPPED)
	serviceUsed   = uint32(xdirectorServiceFlagSERVICE_USED)
	serverUsed    = uint32(xdirectorServerFlagSERVER_USED)
	serverLive    = uint32(xdirectorServerFlagSERVER_LIVE)
	serverLocal   = uint32(xdirectorServerFlagSERVER_LOCAL)
	serverFailed  = uint32(xdirectorServerFlagSERVER_FAILED)
)

// tables is what the maps hold, as far as user space writes them. Every write to a map goes through apply.go, which
// notes it here only after it succeeded: so what failed is tried again by the next Apply.
type tables struct {
	services map[lb.ServiceKey]*serviceEntry
	servers  map[lb.ServerKey]*serverEntry
	vips     map[netip.Prefix]uint32 // ids
	members  map[xdirectorMemberKey]uint32
	scopes   map[string]uint32 // of groups
	boxes    map[xdirectorBoxFact]struct{}
	suspects xdirectorSuspects
	routers  routerTables
	limits   *limitTables

	freeServices []uint32 // ids, the next one last
	freeServers  []uint32
	freeVIPs     []uint32
	generations  []uint32 // by server id
}

type serviceEntry struct {
	id          uint32
	written     bool // to the map `services`
	value       xdirectorService
	ringKnown   bool // false after adoption: the ring is written anew
	ring        ring
	ringHalf    int // lines
	ringSecond  bool
	ringChanged time.Time
	array       *ebpf.Map  // of the ring; nil: it is not known, or too many would be open
	of          lb.Service // that the two were made of
	schedule    []int
	fallback    []int
}

func (e *serviceEntry) closeArray() {
	e.array.Close()
	e.array = nil
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
		vips:     map[netip.Prefix]uint32{},
		members:  map[xdirectorMemberKey]uint32{},
		boxes:    map[xdirectorBoxFact]struct{}{},
	}
	byID, err := t.readServices(m.Services)
	if err != nil {
		return nil, err
	}
	if err := readAll(m.Boxes, func(fact xdirectorBoxFact, _ uint32) { t.boxes[fact] = struct{}{} }); err != nil {
		return nil, fmt.Errorf("read boxes from their map: %w", err)
	}
	if err := readAll(m.Members, func(key xdirectorMemberKey, id uint32) { t.members[key] = id }); err != nil {
		return nil, fmt.Errorf("read members from their map: %w", err)
	}
	if err := m.Suspects.Lookup(uint32(0), &t.suspects); err != nil {
		return nil, fmt.Errorf("read suspects from their map: %w", err)
	}
	if err := t.readServers(m.Servers, byID); err != nil {
		return nil, err
	}
	if t.limits, err = readLimits(m); err != nil {
		return nil, err
	}
	t.routers, err = readRouters(m)
	return t, err
}

func readAll[K, V any](m *ebpf.Map, each func(K, V)) error {
	var key K
	var value V
	all := m.Iterate()
	for all.Next(&key, &value) {
		each(key, value)
	}
	return all.Err()
}

// readServices returns the services by id. Two that mean the same can't be there: the id of one is given up before the other
// gets one.
func (t *tables) readServices(m *ebpf.Map) (map[uint32]lb.ServiceKey, error) {
	ids, values, err := readArray[xdirectorService](m)
	if err != nil {
		return nil, fmt.Errorf("read services from their map: %w", err)
	}
	byID := map[uint32]lb.ServiceKey{}
	used := map[uint32]bool{}
	for i, id := range slices.Backward(ids) {
		value := values[i]
		switch {
		case id == 0:
		case value.Flags&serviceUsed == 0:
			t.freeServices = append(t.freeServices, id)
		default:
			key := serviceKeyOf(value)
			byID[id] = key
			t.services[key] = &serviceEntry{id: id, written: true, value: value}
			t.vips[key.Prefix()], used[value.Vip] = value.Vip, true
		}
	}
	for id := m.MaxEntries() - 1; id > 0; id-- {
		if !used[id] {
			t.freeVIPs = append(t.freeVIPs, id)
		}
	}
	return byID, nil
}

// readArray reads a whole array at once.
func readArray[V any](m *ebpf.Map) (ids []uint32, values []V, err error) {
	ids, values = make([]uint32, m.MaxEntries()), make([]V, m.MaxEntries())
	n, err := m.BatchLookup(new(ebpf.MapBatchCursor), ids, values, nil)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		err = nil // the end
	}
	return ids[:n], values[:n], err
}

func (t *tables) readServers(m *ebpf.Map, services map[uint32]lb.ServiceKey) error {
	ids, values, err := readArray[xdirectorServer](m)
	if err != nil {
		return fmt.Errorf("read servers from their map: %w", err)
	}
	t.generations = make([]uint32, len(ids))
	// From the last to the first, so that the lowest free id is given first. Id 0 means "none".
	for i, id := range slices.Backward(ids) {
		value := values[i]
		t.generations[id] = value.Generation
		if id == 0 {
			continue
		}
		service, ok := services[value.Service]
		server := lb.ServerKey{Service: service, Address: addressOf(value.Address, familyOf(service.Address))}
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

func addressOf(value xdirectorAddress, family uint32) netip.Addr {
	var b [16]byte
	for i, word := range value.Word {
		binary.NativeEndian.PutUint32(b[4*i:], word)
	}
	if family == 4 {
		return netip.AddrFrom4([4]byte(b[:4]))
	}
	return netip.AddrFrom16(b)
}

func wireAddress(a netip.Addr) (wire xdirectorAddress) {
	for i, b := 0, a.AsSlice(); 4*i < len(b); i++ {
		wire.Word[i] = binary.NativeEndian.Uint32(b[4*i:])
	}
	return wire
}

// wireMask is so many bits of an address, of either family.
func wireMask(bits int) (mask xdirectorAddress) {
	for i := range mask.Word {
		here := max(0, min(32, bits-32*i))
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], uint32(math.MaxUint32<<(32-here)))
		mask.Word[i] = binary.NativeEndian.Uint32(b[:])
	}
	return mask
}

// familyOf is 4 or 6.
func familyOf(a netip.Addr) uint32 {
	if a.Is4() {
		return 4
	}
	return 6
}

func serviceKeyOf(s xdirectorService) lb.ServiceKey {
	key := lb.ServiceKey{
		Address: addressOf(s.Address, uint32(s.Family)), Bits: uint8(s.Prefix), Port: s.FirstPort, LastPort: s.LastPort, Protocol: lb.Protocol(s.Protocol),
	}
	return key
}
