package xdp

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"net/netip"
	"slices"
	"time"

	"github.com/cilium/ebpf"

	"github.com/xdirector/xdirector/pkg/lb"
)

// Apply makes the maps as s wishes, writing only what differs, in an order in which no packet meets a service that
// points at nothing: servers that get better, rings, services; then the reverse for what goes. A State that can't be
// carried out (another family, a service twice, a full table) is an error; one that is found before the first write
// changes nothing, and after any error the next Apply completes the work.
//
// It also notices when the MAC address of an own interface has changed.
func (p *Plane) Apply(ctx context.Context, s lb.State) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("apply state to xdp plane: %w", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.clock == nil {
		return errClosed
	}
	exits, err := p.refreshInterfaces()
	if err != nil {
		return err
	}
	usable := p.usable(s, exits)
	if p.findAlone(s) {
		p.applied = nil
	}
	done, err := p.applyServers(s, exits, usable)
	if err == nil && !done {
		err = p.applyAll(s, exits, usable)
	}
	if err != nil {
		return fmt.Errorf("apply state to xdp plane: %w", err)
	}
	p.suspect(s)
	p.tellLosses(time.Now())
	p.fitOffloads()
	return nil
}

func (p *Plane) applyAll(s lb.State, exits, usable map[int]exit) error {
	p.applied = nil // until all is done
	w, err := newWish(s, p.tables, usable)
	if err != nil {
		return err
	}
	if w.routers, err = p.newWishedRouters(s); err != nil {
		return err
	}
	if err := p.apply(w, exits); err != nil {
		return err
	}
	p.applied = newApplied(s, w, usable)
	return nil
}

// Fits says whether the tables can hold s at all; the error has the limit and the cure.
func (p *Plane) Fits(s lb.State) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.clock == nil {
		return errClosed
	}
	servers := 0
	for _, service := range s.Services {
		servers += len(service.RealServers)
	}
	for _, t := range []struct {
		of         string
		have, most int
	}{
		{"services", len(s.Services), int(p.maps.Services.MaxEntries()) - 1}, // nor id 0
		{"routers", len(s.Routers), int(p.maps.Words.MaxEntries()) - 1},      // nor slot 0
		{"real servers", servers, int(p.maps.Servers.MaxEntries()) - 1},      // id 0 is never used
	} {
		if t.have > t.most {
			return fmt.Errorf("%d %s: the XDP plane holds at most %d; give some to other directors, or restart with dataplane.mode ipvs", t.have, t.of, t.most)
		}
	}
	return nil
}

func (p *Plane) apply(w *wish, exits map[int]exit) error {
	for _, step := range p.steps(w, exits) {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// steps are what turns the tables into the wish. The agent may die after any of them, and between any two writes of one.
func (p *Plane) steps(w *wish, exits map[int]exit) []func() error {
	wished := w.serverKeys()
	return []func() error{
		func() error { return p.removeRouters(w) },
		func() error { return p.writeRouters(w) },
		func() error { return p.makeRoom(w) },
		func() error { return p.giveIDs(w) },
		func() error { return p.addFacts(p.tables.wireFacts(w)) },
		func() error { return p.writeServers(w, exits, true) },
		func() error { return p.writeRings(w) },
		func() error { return p.writeLimits(w) },
		func() error { return p.writeServices(w) },
		func() error { return p.list(w, false) },
		func() error { return p.removeServices(w) },
		func() error { return p.removeLimits(w) },
		func() error { return p.writeServers(w, exits, false) },
		func() error {
			return p.removeServers(p.tables.serversThat(func(key lb.ServerKey) bool { return !wished[key] }))
		},
		func() error { return p.removeFacts(p.tables.wireFacts(w)) },
	}
}

// makeRoom removes the services that are not wished any more, if what is new doesn't fit beside them.
func (p *Plane) makeRoom(w *wish) error {
	if p.hasRoom(w) {
		return nil
	}
	if err := p.removeServices(w); err != nil {
		return err
	}
	gone := func(key lb.ServerKey) bool { return p.tables.services[key.Service] == nil }
	if err := p.removeServers(p.tables.serversThat(gone)); err != nil {
		return err
	}
	return p.removeFacts(p.tables.wireFacts(w)) // before their ids mean other services
}

// hasRoom says whether what is new fits beside everything old: then nothing has to go before its successor is there.
func (p *Plane) hasRoom(w *wish) bool {
	services, servers := 0, 0
	for _, service := range w.services {
		if p.tables.services[service.Key] == nil {
			services++
		}
	}
	for key := range w.serverKeys() {
		if p.tables.servers[key] == nil {
			servers++
		}
	}
	return services <= len(p.tables.freeServices) && servers <= len(p.tables.freeServers)
}

// giveIDs makes an entry for every service and real server that has none. Counters of a used id start from zero.
func (p *Plane) giveIDs(w *wish) error {
	t := p.tables
	for _, service := range w.services {
		if t.services[service.Key] == nil {
			id, err := take(&t.freeServices, "services", p.maps.Services.MaxEntries()-1)
			if err != nil {
				return fmt.Errorf("add service %s: %w", service.Key, err)
			}
			t.services[service.Key] = &serviceEntry{id: id}
			if t.vips[service.Key.Prefix()] == 0 {
				if t.vips[service.Key.Prefix()], err = take(&t.freeVIPs, "virtual addresses", p.maps.Services.MaxEntries()-1); err != nil {
					return fmt.Errorf("add service %s: %w", service.Key, err)
				}
			}
			if err := p.maps.Turns.Put(id, xdirectorTurn{}); err != nil {
				return fmt.Errorf("reset turn of service %s: %w", service.Key, err)
			}
			if err := p.maps.Refusals.Put(id, make([]xdirectorRefusals, ebpf.MustPossibleCPU())); err != nil {
				return fmt.Errorf("reset counters of service %s: %w", service.Key, err)
			}
		}
		for _, r := range service.RealServers {
			key := lb.ServerKey{Service: service.Key, Address: r.Address}
			if t.servers[key] != nil {
				continue
			}
			id, err := take(&t.freeServers, "real servers", p.maps.Servers.MaxEntries()-1)
			if err != nil {
				return fmt.Errorf("add real server %s of %s: %w", r.Address, service.Key, err)
			}
			t.servers[key] = &serverEntry{id: id}
			p.loads.reset(id)
			p.traffic.reset(id)
		}
	}
	t.giveScopes(w.services)
	return nil
}

func take(free *[]uint32, of string, size uint32) (uint32, error) {
	n := len(*free)
	if n == 0 {
		return 0, fmt.Errorf("the XDP plane holds at most %d %s, old and new together", size, of)
	}
	id := (*free)[n-1]
	*free = (*free)[:n-1]
	return id, nil
}

// writeServers writes the real servers that are live in the wish, or those that are not: the first before the rings
// that name them, the others after the rings that no longer do.
func (p *Plane) writeServers(w *wish, exits map[int]exit, live bool) error {
	for _, service := range w.services {
		for _, r := range service.RealServers {
			if (r.Up && r.NextHop.Known()) != live {
				continue
			}
			entry := p.tables.servers[lb.ServerKey{Service: service.Key, Address: r.Address}]
			out := exits[r.NextHop.Interface]
			p.loads.weigh(entry.id, service.Scheduler, r.Weight)
			p.loads.cap(entry.id, r.MaxConnections)
			value := xdirectorServer{
				Destination: r.NextHop.MAC,
				Source:      out.mac,
				Interface:   uint32(out.index),
				Vlan:        uint32(out.vlan),
				Device:      uint32(r.NextHop.Interface),
				Generation:  p.tables.generations[entry.id],
				Address:     wireAddress(r.Address),
				Service:     p.tables.services[service.Key].id,
				Flags:       serverUsed,
			}
			if live {
				value.Flags |= serverLive
			}
			if r.NextHop.Local {
				value.Flags |= serverLocal
			}
			if r.Failed {
				value.Flags |= serverFailed
			}
			if entry.written && entry.value == value {
				continue
			}
			if err := p.maps.Servers.Put(entry.id, value); err != nil {
				return fmt.Errorf("write real server %s of %s: %w", r.Address, service.Key, err)
			}
			entry.written, entry.value = true, value
		}
	}
	return nil
}

func (p *Plane) writeServices(w *wish) error {
	for _, service := range w.services {
		if err := p.writeService(service); err != nil {
			return err
		}
	}
	return nil
}

func (p *Plane) writeService(service wishedService) error {
	entry := p.tables.services[service.Key]
	value := p.wireService(service, entry.id)
	if !entry.written || entry.value != value {
		if err := p.maps.Services.Put(entry.id, value); err != nil {
			return fmt.Errorf("write service %s: %w", service.Key, err)
		}
		entry.written, entry.value = true, value
	}
	if service.Group == "" {
		return nil
	}
	for _, r := range service.RealServers {
		key := xdirectorMemberKey{Service: entry.id, Address: wireAddress(r.Address)}
		id := p.tables.servers[lb.ServerKey{Service: service.Key, Address: r.Address}].id
		if p.tables.members[key] == id {
			continue
		}
		if err := p.maps.Members.Put(key, id); err != nil {
			return fmt.Errorf("note real server %s of group %s: %w", r.Address, service.Group, err)
		}
		p.tables.members[key] = id
	}
	return nil
}

func (p *Plane) wireService(s wishedService, id uint32) xdirectorService {
	units := func(d, usual time.Duration) uint32 { return p.flowClock.units(cmp.Or(d, usual)) }
	key := s.Key
	value := xdirectorService{
		Flags:       serviceUsed,
		Persistence: uint32(s.Persistence / time.Second),
		Scope:       p.tables.scopes[s.Group],
		ClientMask:  wireMask(cmp.Or(int(s.PersistenceBits), key.Address.BitLen())),
		NewFlows:    p.newFlows(s.NewFlows),
		Address:     wireAddress(key.Address),
		Prefix:      uint32(key.Bits),
		FirstPort:   key.Port,
		LastPort:    key.LastPort,
		Protocol:    uint8(key.Protocol),
		Family:      uint8(familyOf(key.Address)),
		Vip:         p.tables.vips[key.Prefix()],
	}
	value.Timeouts[xdirectorFlowPhaseFLOW_OPENING] = units(s.Timeouts.Opening, openingTimeout)
	value.Timeouts[xdirectorFlowPhaseFLOW_OPEN] = units(s.Timeouts.Established, tcpTimeout)
	value.Timeouts[xdirectorFlowPhaseFLOW_CLOSING] = units(s.Timeouts.Closing, closingTimeout)
	value.Timeouts[xdirectorFlowPhaseFLOW_UDP] = units(s.Timeouts.UDP, udpTimeout)
	value.Timeouts[xdirectorFlowPhaseFLOW_UDP_FIRST] = value.Timeouts[xdirectorFlowPhaseFLOW_UDP]
	if s.Group == "" {
		value.Scope = id
	} else {
		value.Flags |= uint32(xdirectorServiceFlagSERVICE_GROUPED)
	}
	if s.Scheduler.Hashes() {
		value.Flags |= uint32(xdirectorServiceFlagSERVICE_HASHES)
	}
	if slices.ContainsFunc(s.RealServers, func(r lb.RealServer) bool { return r.NextHop.Local }) {
		value.Flags |= uint32(xdirectorServiceFlagSERVICE_LOCAL)
	}
	if s.Scheduler.Counts() {
		value.Flags |= uint32(xdirectorServiceFlagSERVICE_LEAST)
	}
	if s.Capped() {
		value.Flags |= serviceCapped
	}
	if _, limited := p.tables.limits.services[id]; limited {
		value.Flags |= uint32(xdirectorServiceFlagSERVICE_LIMITED)
	}
	if s.RefuseUnknown {
		value.Flags |= uint32(xdirectorServiceFlagSERVICE_REFUSES)
	}
	return value
}

// newFlows is how many flows a service may store in a unit of time: by default so many that a flood needs eight seconds for the
// whole table, and not less than a busy service has.
func (p *Plane) newFlows(second uint32) uint32 {
	if second == 0 {
		second = max(leastNewFlows, p.config.FlowTableSize/8)
	}
	return uint32(min(math.MaxUint32, max(1, uint64(second)<<p.flowClock.shift/p.flowClock.hz)))
}

// giveScopes has the services of a group share the bindings of their clients. A scope that an earlier agent gave stays.
func (t *tables) giveScopes(services []wishedService) {
	t.scopes = map[string]uint32{}
	used := map[uint32]bool{}
	for _, s := range services {
		if entry := t.services[s.Key]; s.Group != "" && t.scopes[s.Group] == 0 && entry.value.Scope >= firstScope && !used[entry.value.Scope] {
			t.scopes[s.Group], used[entry.value.Scope] = entry.value.Scope, true
		}
	}
	next := uint32(firstScope)
	for _, s := range services {
		if s.Group == "" || t.scopes[s.Group] != 0 {
			continue
		}
		for used[next] {
			next++
		}
		t.scopes[s.Group], used[next] = next, true
	}
}

// list has the programs know the services of the wish; with known, only those that they knew before.
func (p *Plane) list(w *wish, known bool) error {
	slots := map[netip.Addr]uint32{} // of the routers that hold an address
	for _, r := range w.routers {
		for _, a := range r.holds {
			slots[a] = p.tables.routers.slots[r.name]
		}
	}
	var all []listing
	for _, service := range w.services {
		if entry := p.tables.services[service.Key]; entry != nil && (!known || entry.written) {
			all = append(all, listing{key: service.Key, id: entry.id, vip: entry.value.Vip, slot: slots[service.Key.Address]})
		}
	}
	changed, err := p.directory.list(all)
	if changed {
		err = errors.Join(err, p.settle())
	}
	if err != nil {
		return fmt.Errorf("list services: %w", err)
	}
	return nil
}

// settle returns when no packet is on its way that has met what was there before: the kernel waits for that when a ring is
// swapped. Id 0 has no service.
func (p *Plane) settle() error {
	m, err := p.newRing(ring{})
	if err != nil {
		return err
	}
	defer m.Close()
	return p.updateRings([]uint32{0}, []uint32{uint32(m.FD())})
}

// removeServices gives up the ids of the services that are gone. It leaves empty rings: to delete one takes as long as to swap a
// whole batch.
func (p *Plane) removeServices(w *wish) error {
	wished := map[lb.ServiceKey]bool{}
	vips := map[netip.Prefix]bool{}
	for _, service := range w.services {
		wished[service.Key], vips[service.Key.Prefix()] = true, true
	}
	t := p.tables
	var gone []lb.ServiceKey
	var swaps []ringSwap
	for key, entry := range t.services {
		if !wished[key] {
			gone, swaps = append(gone, key), append(swaps, ringSwap{entry: entry})
		}
	}
	if len(gone) == 0 {
		return nil
	}
	if err := p.list(w, true); err != nil {
		return err
	}
	if err := p.swapArrays(swaps); err != nil {
		return err
	}
	for _, key := range gone {
		entry := t.services[key]
		if err := p.maps.Services.Put(entry.id, xdirectorService{}); err != nil {
			return fmt.Errorf("remove service %s: %w", key, err)
		}
		entry.closeArray()
		t.freeServices = append(t.freeServices, entry.id)
		delete(t.services, key)
	}
	for prefix, id := range t.vips {
		if !vips[prefix] {
			t.freeVIPs = append(t.freeVIPs, id)
			delete(t.vips, prefix)
		}
	}
	return p.removeMembers(w)
}

// removeMembers forgets what was in a group and no longer is.
func (p *Plane) removeMembers(w *wish) error {
	wished := map[xdirectorMemberKey]bool{}
	for _, service := range w.services {
		for _, r := range service.RealServers {
			if entry := p.tables.services[service.Key]; entry != nil && service.Group != "" {
				wished[xdirectorMemberKey{Service: entry.id, Address: wireAddress(r.Address)}] = true
			}
		}
	}
	for key := range p.tables.members {
		if wished[key] {
			continue
		}
		if err := p.maps.Members.Delete(key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("forget member of a group: %w", err)
		}
		delete(p.tables.members, key)
	}
	return nil
}

// removeServers gives up the ids of the real servers that are gone: with another generation, no old flow means the
// next owner of the id.
func (p *Plane) removeServers(gone map[lb.ServerKey]bool) error {
	t := p.tables
	for key := range gone {
		entry := t.servers[key]
		generation := (t.generations[entry.id] + 1) & generationMask
		if err := p.maps.Servers.Put(entry.id, xdirectorServer{Generation: generation}); err != nil {
			return fmt.Errorf("remove real server %s of %s: %w", key.Address, key.Service, err)
		}
		t.generations[entry.id] = generation
		t.freeServers = append(t.freeServers, entry.id)
		delete(t.servers, key)
	}
	return nil
}

func (t *tables) serversThat(are func(lb.ServerKey) bool) map[lb.ServerKey]bool {
	found := map[lb.ServerKey]bool{}
	for key := range t.servers {
		if are(key) {
			found[key] = true
		}
	}
	return found
}

// wireFacts leaves out what is about a service without an id.
func (t *tables) wireFacts(w *wish) map[xdirectorBoxFact]struct{} {
	facts := map[xdirectorBoxFact]struct{}{}
	for fact := range w.facts {
		value := fact.value
		if fact.kind == xdirectorBoxFactKindBOX_NEXT_HOP {
			entry := t.services[fact.service]
			if entry == nil {
				continue
			}
			value = xdirectorAddress{Word: [4]uint32{entry.id}}
		}
		facts[xdirectorBoxFact{Mac: fact.mac, Kind: uint16(fact.kind), Value: value}] = struct{}{}
	}
	return facts
}

// addFacts goes by kind, so that what excuses a box is there before what accuses it.
func (p *Plane) addFacts(wished map[xdirectorBoxFact]struct{}) error {
	for _, fact := range missing(wished, p.tables.boxes) {
		if err := p.maps.Boxes.Put(fact, uint32(0)); err != nil {
			return fmt.Errorf("note box %s: %w", lb.MAC(fact.Mac), err)
		}
		p.tables.boxes[fact] = struct{}{}
	}
	return p.writeSuspects()
}

func (p *Plane) removeFacts(wished map[xdirectorBoxFact]struct{}) error {
	if err := p.forgetFacts(missing(p.tables.boxes, wished)); err != nil {
		return err
	}
	return p.writeSuspects()
}

// forgetFacts goes by kind too, the other way round.
func (p *Plane) forgetFacts(list []xdirectorBoxFact) error {
	for _, fact := range slices.Backward(list) {
		if err := p.maps.Boxes.Delete(fact); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("forget box %s: %w", lb.MAC(fact.Mac), err)
		}
		delete(p.tables.boxes, fact)
	}
	return nil
}

// writeSuspects marks the MAC addresses of all boxes that the tables know.
func (p *Plane) writeSuspects() error {
	var all xdirectorSuspects
	for fact := range p.tables.boxes {
		bit := suspectBit(fact.Mac)
		all.Bits[bit/64] |= 1 << (bit % 64)
	}
	if all == p.tables.suspects {
		return nil
	}
	if err := p.maps.Suspects.Put(uint32(0), all); err != nil {
		return fmt.Errorf("mark MAC addresses of boxes: %w", err)
	}
	p.tables.suspects = all
	return nil
}

// suspectBit is the hash of a MAC address, as in bpf/service.h.
func suspectBit(mac lb.MAC) uint64 {
	const size = len(xdirectorSuspects{}.Bits) * 64
	var word [8]byte
	copy(word[:], mac[:])
	return binary.LittleEndian.Uint64(word[:]) * factor >> (64 - bits.TrailingZeros(uint(size)))
}

// missing returns what is in a but not in b, in the order of kinds.
func missing(a, b map[xdirectorBoxFact]struct{}) []xdirectorBoxFact {
	var found []xdirectorBoxFact
	for fact := range a {
		if _, ok := b[fact]; !ok {
			found = append(found, fact)
		}
	}
	slices.SortFunc(found, func(x, y xdirectorBoxFact) int { return int(x.Kind) - int(y.Kind) })
	return found
}
