package xdp

import (
	"errors"
	"fmt"
	"iter"
	"maps"
	"math/bits"
	"net/netip"
	"slices"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/xdirector/xdirector/pkg/lb"
)

const (
	directoryBits = 16 // as in bpf/layout_services.h, as the next two
	probes        = 16
	factor        = uint64(0x9e3779b97f4a7c15) // as in bpf/service.h, as the next one
	factor2       = uint64(0xbb67ae8584caa73b)
	halfPlaces    = 1 << directoryBits
)

// directory is the maps that say which service a packet belongs to, in this process's memory. They have two halves: the one that
// the programs don't look at is written whole, and then they change over.
type directory struct {
	vipMemory, portMemory []byte
	vips                  []xdirectorVip
	ports                 []xdirectorPort
	settings, prefixes    *ebpf.Map
	now                   xdirectorSettings
	listed                []listing // in the half in use; nil: not known
	networks              map[xdirectorPrefixKey]xdirectorVip
}

// listing is a service as the directory has it.
type listing struct {
	key  lb.ServiceKey
	id   uint32 // of the service
	vip  uint32 // of its addresses
	slot uint32 // of the virtual router that holds them, 0: none
}

var errCrowded = errors.New("its addresses and ports can't be told apart quickly enough; give some services to other directors")

func openDirectory(m *xdirectorMaps) (*directory, error) {
	d := &directory{settings: m.Settings, prefixes: m.Prefixes, networks: map[xdirectorPrefixKey]xdirectorVip{}}
	var err error
	if d.vipMemory, d.vips, err = mapValues[xdirectorVip](m.Vips); err != nil {
		return nil, err
	}
	if d.portMemory, d.ports, err = mapValues[xdirectorPort](m.Ports); err != nil {
		return nil, errors.Join(err, unix.Munmap(d.vipMemory))
	}
	if err := m.Settings.Lookup(uint32(0), &d.now); err != nil {
		return nil, errors.Join(fmt.Errorf("read settings: %w", err), d.close())
	}
	var key xdirectorPrefixKey
	var value xdirectorVip
	networks := m.Prefixes.Iterate()
	for networks.Next(&key, &value) {
		d.networks[key] = value
	}
	if err := networks.Err(); err != nil {
		return nil, errors.Join(fmt.Errorf("read prefixes from their map: %w", err), d.close())
	}
	return d, nil
}

// mapValues maps an array's values into memory.
func mapValues[T any](m *ebpf.Map) ([]byte, []T, error) {
	size := int(m.MaxEntries()) * int(unsafe.Sizeof(*new(T)))
	memory, err := unix.Mmap(m.FD(), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, nil, fmt.Errorf("map %d bytes of %s: %w", size, m, err)
	}
	return memory, unsafe.Slice((*T)(unsafe.Pointer(&memory[0])), m.MaxEntries()), nil
}

func (d *directory) close() error {
	return errors.Join(unix.Munmap(d.vipMemory), unix.Munmap(d.portMemory))
}

// list has the programs find these services and no others. The caller has waited since the last change for what they had begun
// before it.
func (d *directory) list(all []listing) (changed bool, err error) {
	slices.SortFunc(all, func(a, b listing) int { return int(a.id) - int(b.id) })
	if d.listed != nil && slices.Equal(d.listed, all) {
		return false, nil
	}
	half := 1 - d.now.Half&1
	vips := d.vips[half*halfPlaces : (half+1)*halfPlaces]
	ports := d.ports[half*halfPlaces : (half+1)*halfPlaces]
	clear(vips)
	clear(ports)
	networks := map[xdirectorPrefixKey]xdirectorVip{}
	for _, n := range neighbourhoods(all) {
		for port := range n.ports() {
			if !insert(ports, port.Key*factor, port, func(p xdirectorPort) bool { return p.Key == 0 }) {
				return false, fmt.Errorf("services at %s: %w", n.prefix, errCrowded)
			}
			n.vip.Levels |= 1 << (port.Key & 0xff)
		}
		if !n.prefix.IsSingleIP() {
			networks[prefixKey(n.prefix)] = n.vip
		} else if !insert(vips, productOf(n.vip.Address), n.vip, func(v xdirectorVip) bool { return v.Family == 0 }) {
			return false, fmt.Errorf("virtual address %s: %w", n.prefix.Addr(), errCrowded)
		}
	}
	d.listed = nil
	if err := d.before(networks); err != nil {
		return true, err
	}
	now := xdirectorSettings{Half: half, Prefixes: uint32(len(networks))}
	if err := d.settings.Put(uint32(0), now); err != nil {
		return true, fmt.Errorf("change over to other services: %w", err)
	}
	d.now = now
	for key, vip := range networks {
		if err := d.putNetwork(key, vip); err != nil {
			return true, err
		}
	}
	d.listed = all
	return true, nil
}

// before prepares the networks, which have no halves, for a change: whatever a program finds until they are as wished, it is a
// service around that address, or none that is to stay.
func (d *directory) before(wished map[xdirectorPrefixKey]xdirectorVip) error {
	for key, has := range d.networks {
		if vip, stays := wished[key]; stays {
			vip.Levels |= has.Levels // in both halves, everything is found
			if err := d.putNetwork(key, vip); err != nil {
				return err
			}
			continue
		}
		if err := d.prefixes.Delete(key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("remove prefix: %w", err)
		}
		delete(d.networks, key)
	}
	return nil
}

func (d *directory) putNetwork(key xdirectorPrefixKey, vip xdirectorVip) error {
	if d.networks[key] == vip {
		return nil
	}
	if err := d.prefixes.Put(key, vip); err != nil {
		return fmt.Errorf("add prefix: %w", err)
	}
	d.networks[key] = vip
	return nil
}

// neighbourhood is an address, or a network, that has services of its own, and all services that its packets may belong to: the
// smallest network first, and of those in one the fewest ports.
type neighbourhood struct {
	prefix   netip.Prefix
	vip      xdirectorVip
	services []listing
}

// neighbourhoods are those of all services, the lowest id first.
func neighbourhoods(all []listing) []*neighbourhood {
	at := map[netip.Prefix]*neighbourhood{}
	var list []*neighbourhood
	lengths := map[int]bool{}
	for _, l := range all {
		prefix := l.key.Prefix()
		n := at[prefix]
		if n == nil {
			n = &neighbourhood{prefix: prefix}
			at[prefix], list = n, append(list, n)
			lengths[prefix.Bits()] = true
		}
		n.vip = xdirectorVip{Address: wireAddress(prefix.Addr()), Family: familyOf(prefix.Addr()), Id: l.vip, Slot: l.slot}
		n.services = append(n.services, l)
	}
	slices.SortFunc(list, func(a, b *neighbourhood) int { return int(a.vip.Id) - int(b.vip.Id) })
	for _, n := range list {
		slices.SortStableFunc(n.services, byPorts)
	}
	order := slices.SortedFunc(maps.Keys(lengths), func(a, b int) int { return b - a })
	widestFirst := slices.SortedFunc(slices.Values(list), func(a, b *neighbourhood) int { return a.prefix.Bits() - b.prefix.Bits() })
	for _, n := range widestFirst {
		for _, bits := range order { // the next network around it has those of all others already
			if bits >= n.prefix.Bits() {
				continue
			}
			if wider, err := n.prefix.Addr().Prefix(bits); err == nil && at[wider] != nil {
				n.services = append(n.services, at[wider].services...)
				break
			}
		}
	}
	return list
}

// byPorts has services with fewer ports first: a port in two ranges is the narrower one's.
func byPorts(a, b listing) int {
	width := func(l listing) int {
		first, last := l.key.Ports()
		return int(last) - int(first)
	}
	return width(a) - width(b)
}

// ports are the blocks of ports by which a packet to this neighbourhood finds its service: a program takes the narrowest block,
// so a wider network's block within a service of a smaller one is left out.
func (n *neighbourhood) ports() iter.Seq[xdirectorPort] {
	return func(yield func(xdirectorPort) bool) {
		taken := make(map[uint64]bool, len(n.services)-1)
		smaller := 0 // so many are of smaller networks than this one
		for i, l := range n.services {
			if i > 0 && l.vip != n.services[i-1].vip {
				smaller = i
			}
			for _, b := range blocks(l.key.Ports()) {
				key := uint64(n.vip.Id)<<32 | uint64(b.first>>b.level)<<16 | uint64(l.key.Protocol)<<8 | uint64(b.level)
				if taken[key] || slices.ContainsFunc(n.services[:smaller], func(o listing) bool { return o.hides(l, b) }) {
					continue
				}
				taken[key] = true
				if !yield(xdirectorPort{Key: key, Service: uint64(l.id)}) {
					return
				}
			}
		}
	}
}

// hides says whether a service of a smaller network has a whole block of another one's ports.
func (l listing) hides(wider listing, b block) bool {
	first, last := l.key.Ports()
	return l.key.Protocol == wider.key.Protocol && uint32(first) <= b.first && b.first+1<<b.level-1 <= uint32(last)
}

// insert puts a value into the first free place from where its product says, no further than the programs look.
func insert[T any](places []T, product uint64, value T, free func(T) bool) bool {
	place := product >> (64 - directoryBits)
	for range probes {
		if free(places[place]) {
			places[place] = value
			return true
		}
		place = (place + 1) % halfPlaces
	}
	return false
}

func productOf(a xdirectorAddress) uint64 {
	return (uint64(a.Word[0])|uint64(a.Word[1])<<32)*factor + (uint64(a.Word[2])|uint64(a.Word[3])<<32)*factor2
}

// block is all ports that differ from the first one in so many lower bits at most.
type block struct {
	first uint32
	level int
}

// blocks divides a range of ports into as few blocks as possible, at most 30.
func blocks(first, last uint16) []block {
	var list []block
	for at := uint32(first); at <= uint32(last); {
		level := 16
		if at > 0 {
			level = bits.TrailingZeros32(at)
		}
		for at+1<<level-1 > uint32(last) {
			level--
		}
		list = append(list, block{first: at, level: level})
		at += 1 << level
	}
	return list
}

// prefixKey has IPv4 behind ::ffff, so that both families share one map.
func prefixKey(p netip.Prefix) xdirectorPrefixKey {
	length := p.Bits()
	if p.Addr().Is4() {
		length += 96
	}
	return xdirectorPrefixKey{Length: uint32(length), Word: wireAddress(netip.AddrFrom16(p.Addr().As16())).Word}
}
