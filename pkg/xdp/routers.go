package xdp

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"

	"github.com/xdirector/xdirector/pkg/lb"
)

const (
	routerFilter     = uint8(xdirectorRouterFlagROUTER_FILTER)
	routerVirtualMAC = uint8(xdirectorRouterFlagROUTER_VIRTUAL_MAC)
	routerUnicast    = uint8(xdirectorRouterFlagROUTER_UNICAST)
	routerSource     = uint8(xdirectorRouterFlagROUTER_SOURCE)
)

// routerTables is what the maps hold about our virtual routers.
type routerTables struct {
	written map[xdirectorRouterKey]xdirectorRouter
	peers   map[xdirectorPeerKey]struct{}
	free    []uint32          // slots, the next one first: who still uses one that was given up has most time to hear of it
	slots   map[string]uint32 // by Router.Name, of the last State
}

// wishedRouter is an lb.Router in terms of the maps, before its slot is given.
type wishedRouter struct {
	name  string
	key   xdirectorRouterKey
	value xdirectorRouter
	peers [][16]uint8
	holds []netip.Addr
}

// newWishedRouters leaves out the routers on interfaces that have no program of ours: nothing can be done for them.
func (p *Plane) newWishedRouters(s lb.State) ([]wishedRouter, error) {
	var list []wishedRouter
	seen := map[xdirectorRouterKey]string{}
	for _, r := range s.Routers {
		w := wishedRouter{name: r.Name, key: xdirectorRouterKey{Family: 4, Vrid: r.VRID}, holds: r.Addresses}
		if r.IPv6 {
			w.key.Family = 6
		}
		filter := r.Filter
		for _, n := range p.nics {
			if n.name == r.Interface {
				w.key.Interface = uint32(n.index)
				filter = filter && n.alone == ""
			}
		}
		if w.key.Interface == 0 {
			continue
		}
		if other, double := seen[w.key]; double {
			return nil, fmt.Errorf("router %s: %s has the same interface, family and virtual_router_id", r.Name, other)
		}
		seen[w.key] = r.Name
		w.value = xdirectorRouter{Version: r.Version, LowestTtl: 255}
		if filter {
			w.value.Flags |= routerFilter
		}
		if r.VirtualMAC {
			w.value.Flags |= routerVirtualMAC
		}
		if r.Source.IsValid() {
			w.value.Flags |= routerSource
			w.value.Source = routerAddress(r.Source)
		}
		if len(r.Peers) > 0 {
			w.value.Flags |= routerUnicast
			if r.PeerTTL > 0 {
				w.value.LowestTtl = r.PeerTTL
			}
		}
		for _, peer := range r.Peers {
			w.peers = append(w.peers, routerAddress(peer))
		}
		list = append(list, w)
	}
	return list, nil
}

// routerAddress is an address as bpf/advert.h compares it.
func routerAddress(a netip.Addr) [16]uint8 {
	var b [16]uint8
	copy(b[:], a.Unmap().AsSlice())
	return b
}

// readRouters recovers the slots that an earlier agent gave: the election has them in use.
func readRouters(m *xdirectorMaps) (routerTables, error) {
	t := routerTables{
		written: map[xdirectorRouterKey]xdirectorRouter{}, peers: map[xdirectorPeerKey]struct{}{}, slots: map[string]uint32{},
	}
	used := map[uint32]bool{0: true} // slot 0 means "none"
	var key xdirectorRouterKey
	var value xdirectorRouter
	routers := m.Routers.Iterate()
	for routers.Next(&key, &value) {
		t.written[key] = value
		used[value.Slot] = true
	}
	if err := routers.Err(); err != nil {
		return t, fmt.Errorf("read routers from their map: %w", err)
	}
	var peer xdirectorPeerKey
	var ignored uint32
	peers := m.Peers.Iterate()
	for peers.Next(&peer, &ignored) {
		t.peers[peer] = struct{}{}
	}
	if err := peers.Err(); err != nil {
		return t, fmt.Errorf("read peers from their map: %w", err)
	}
	for slot := range m.Words.MaxEntries() {
		if !used[slot] {
			t.free = append(t.free, slot)
		}
	}
	return t, nil
}

// removeRouters goes before writeRouters: their slots may be needed, and without its entry a router's adverts pass.
func (p *Plane) removeRouters(w *wish) error {
	t := &p.tables.routers
	wished := map[xdirectorRouterKey]bool{}
	for _, r := range w.routers {
		wished[r.key] = true
	}
	for key, value := range t.written {
		if wished[key] {
			continue
		}
		if err := p.maps.Routers.Delete(key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("remove router %d of interface %d: %w", key.Vrid, key.Interface, err)
		}
		delete(t.written, key)
		t.free = append(t.free, value.Slot)
	}
	return nil
}

func (p *Plane) writeRouters(w *wish) error {
	t := &p.tables.routers
	slots := map[string]uint32{}
	peers := map[xdirectorPeerKey]struct{}{}
	for _, r := range w.routers {
		written, known := t.written[r.key]
		r.value.Slot = written.Slot
		if !known {
			slot, err := p.takeSlot()
			if err != nil {
				return fmt.Errorf("add router %s: %w", r.name, err)
			}
			r.value.Slot = slot
		}
		for _, address := range r.peers {
			peer := xdirectorPeerKey{Slot: r.value.Slot, Address: address}
			peers[peer] = struct{}{}
			if _, there := t.peers[peer]; there {
				continue
			}
			if err := p.maps.Peers.Put(peer, uint32(0)); err != nil {
				return fmt.Errorf("add a peer of router %s: %w", r.name, err)
			}
			t.peers[peer] = struct{}{}
		}
		if written != r.value {
			if err := p.maps.Routers.Put(r.key, r.value); err != nil {
				return fmt.Errorf("write router %s: %w", r.name, err)
			}
			t.written[r.key] = r.value
		}
		slots[r.name] = r.value.Slot
	}
	for peer := range t.peers {
		if _, wished := peers[peer]; wished {
			continue
		}
		if err := p.maps.Peers.Delete(peer); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("remove a peer from slot %d: %w", peer.Slot, err)
		}
		delete(t.peers, peer)
	}
	t.slots = slots
	return nil
}

// takeSlot finds a slot, and clears what its last owner left there. It stays free until its router is written.
func (p *Plane) takeSlot() (uint32, error) {
	t := &p.tables.routers
	if len(t.free) == 0 {
		return 0, fmt.Errorf("the XDP plane holds at most %d routers", p.maps.Words.MaxEntries()-1)
	}
	slot := t.free[0]
	if err := p.maps.Words.Put(slot, xdirectorWords{}); err != nil {
		return 0, fmt.Errorf("clear words of slot %d: %w", slot, err)
	}
	if err := p.maps.Timers.Put(slot, xdirectorTimer{}); err != nil {
		return 0, fmt.Errorf("clear timer of slot %d: %w", slot, err)
	}
	if err := p.maps.Adverts.Put(slot, make([]xdirectorAdvertCounters, ebpf.MustPossibleCPU())); err != nil {
		return 0, fmt.Errorf("reset counters of slot %d: %w", slot, err)
	}
	t.free = t.free[1:]
	return slot, nil
}

// Slots returns the slot of each router of the last State applied, by Router.Name, for the election (see FastPath). A
// router on an interface without a program has none. A slot stays that of its interface, family and VRID, also when
// the agent is another one.
func (p *Plane) Slots() map[string]uint32 {
	p.mu.Lock()
	defer p.mu.Unlock()
	slots := map[string]uint32{}
	if p.tables != nil {
		for name, slot := range p.tables.routers.slots {
			slots[name] = slot
		}
	}
	return slots
}

// readAdverts reads what became of the adverts of each router.
func (p *Plane) readAdverts() (map[string]map[string]uint64, error) {
	all := map[string]map[string]uint64{}
	var perCPU []xdirectorAdvertCounters
	for name, slot := range p.tables.routers.slots {
		if err := p.maps.Adverts.Lookup(slot, &perCPU); err != nil {
			return nil, fmt.Errorf("read advert counters of router %s: %w", name, err)
		}
		read := map[string]uint64{}
		for _, c := range perCPU {
			for fate, adverts := range c.ByFate {
				read[fateNames[fate]] += adverts
			}
		}
		all[name] = read
	}
	return all, nil
}
