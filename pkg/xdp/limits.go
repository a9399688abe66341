package xdp

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/cilium/ebpf"

	"github.com/xdirector/xdirector/pkg/lb"
)

const (
	tickShift    = 24 // as in bpf/rate.h
	leastSources = 1024
	listBits     = 32 // of a rule's key, before the prefix
)

// limitTables is what the maps hold about services that don't take everything from their clients.
//
// The programs look a client up in a list, and a list is never changed: another one is written beside it, the services change over
// to it, each by one word, and then the old one goes. So no packet ever meets a part of a list. Services with the same prefixes
// share one; what a list says is its identity, so nothing has to be remembered to find it again.
type limitTables struct {
	services map[uint32]xdirectorLimit // by service id, those with limits
	lists    map[uint32][]rule         // by number
	sources  bool                      // there is a table of sources
	made     map[uint32]lb.Limits      // what those of services were made of
}

func sameLimits(a, b lb.Limits) bool {
	return slices.Equal(a.Allow, b.Allow) && slices.Equal(a.Deny, b.Deny) && a.SourceBits == b.SourceBits && a.Packets == b.Packets && a.New == b.New
}

// rule says what becomes of clients with an address in the prefix.
type rule struct {
	prefix netip.Prefix // IPv4 as in the maps: the first 4 bytes of 16
	denied uint32       // 0 or 1
}

func (r rule) compare(other rule) int {
	return cmp.Or(r.prefix.Addr().Compare(other.prefix.Addr()), r.prefix.Bits()-other.prefix.Bits(), int(r.denied)-int(other.denied))
}

func (r rule) key(list uint32) xdirectorRuleKey {
	return xdirectorRuleKey{Length: listBits + uint32(r.prefix.Bits()), List: list, Address: wireAddress(r.prefix.Addr())}
}

// rulesOf are a service's rules in order, as the maps have them: all of one family.
func rulesOf(limits lb.Limits) []rule {
	denied := map[netip.Prefix]uint32{}
	add := func(p netip.Prefix, value uint32) {
		var b [16]byte
		copy(b[:], p.Masked().Addr().AsSlice())
		denied[netip.PrefixFrom(netip.AddrFrom16(b), p.Bits())] = value
	}
	if len(limits.Allow) > 0 {
		add(netip.PrefixFrom(netip.IPv6Unspecified(), 0), 1)
	}
	for _, p := range limits.Allow {
		add(p, 0)
	}
	for _, p := range limits.Deny {
		add(p, 1)
	}
	rules := make([]rule, 0, len(denied))
	for p, value := range denied {
		rules = append(rules, rule{prefix: p, denied: value})
	}
	slices.SortFunc(rules, rule.compare)
	return rules
}

// readLimits recovers what an earlier agent wrote.
func readLimits(m *xdirectorMaps) (*limitTables, error) {
	t := &limitTables{services: map[uint32]xdirectorLimit{}, lists: map[uint32][]rule{}, made: map[uint32]lb.Limits{}}
	ids, values, err := readArray[xdirectorLimit](m.Limits)
	if err != nil {
		return nil, fmt.Errorf("read limits from their map: %w", err)
	}
	for i, id := range ids {
		if values[i] != (xdirectorLimit{}) {
			t.services[id] = values[i]
		}
	}
	err = readAll(m.Rules, func(key xdirectorRuleKey, denied uint32) {
		prefix := netip.PrefixFrom(addressOf(key.Address, 6), int(key.Length)-listBits)
		t.lists[key.List] = append(t.lists[key.List], rule{prefix: prefix, denied: denied})
	})
	if err != nil {
		return nil, fmt.Errorf("read rules from their map: %w", err)
	}
	for _, rules := range t.lists {
		slices.SortFunc(rules, rule.compare)
	}
	var table ebpf.MapID
	err = m.Sources.Lookup(uint32(0), &table)
	if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil, fmt.Errorf("look for the table of sources: %w", err)
	}
	t.sources = err == nil
	return t, nil
}

// find returns the number of the list with these rules; 0: there is none.
func (t *limitTables) find(rules []rule) uint32 {
	for list, have := range t.lists {
		if slices.Equal(have, rules) {
			return list
		}
	}
	return 0
}

// writeLimits writes what is about to be used: lists, the table of sources, and then the limits of each service. Those of one that
// has no flag yet wait for that.
func (p *Plane) writeLimits(w *wish) error {
	t := p.tables.limits
	if err := p.removeLists(); err != nil { // that an Apply left behind which failed, or an agent that died
		return err
	}
	for _, service := range w.services {
		id := p.tables.services[service.Key].id
		if made, known := t.made[id]; known && sameLimits(made, service.Limits) {
			continue
		}
		limit, err := p.wireLimit(service.Service)
		if err == nil && t.services[id] != limit {
			err = p.putLimit(id, limit)
		}
		if err != nil {
			return fmt.Errorf("limit clients of service %s: %w", service.Key, err)
		}
		t.made[id] = service.Limits
	}
	return nil
}

func (p *Plane) putLimit(id uint32, limit xdirectorLimit) error {
	if err := p.maps.Limits.Put(id, limit); err != nil {
		return err
	}
	if limit == (xdirectorLimit{}) {
		delete(p.tables.limits.services, id)
	} else {
		p.tables.limits.services[id] = limit
	}
	return nil
}

// wireLimit makes what the limits of a service need.
func (p *Plane) wireLimit(s lb.Service) (limit xdirectorLimit, err error) {
	if rules := rulesOf(s.Limits); len(rules) > 0 {
		if limit.List, err = p.listOf(rules); err != nil {
			return limit, err
		}
	}
	for kind, rate := range map[xdirectorRateKind]lb.Rate{
		xdirectorRateKindRATE_PACKETS: s.Limits.Packets,
		xdirectorRateKindRATE_NEW:     s.Limits.New,
	} {
		if rate.PerSecond == 0 {
			continue
		}
		limit.Rates[kind].Cost, limit.Rates[kind].Burst = p.flowClock.rate(rate)
		limit.SourceMask = wireMask(cmp.Or(int(s.Limits.SourceBits), s.Key.Address.BitLen()))
		if err := p.makeSources(); err != nil {
			return limit, err
		}
	}
	return limit, nil
}

// rate is how much time one takes, and how many may come at once: not fewer than come within one tick, since time stands still
// then.
func (c flowClock) rate(r lb.Rate) (cost, burst uint64) {
	perSecond := uint64(r.PerSecond)
	cost = max(1, (c.hz<<tickShift+perSecond/2)/perSecond)
	return cost, max(uint64(cmp.Or(r.Burst, r.PerSecond)), (perSecond+c.hz-1)/c.hz)
}

// listOf returns the number of a list with these rules, which is made if need be.
func (p *Plane) listOf(rules []rule) (uint32, error) {
	t := p.tables.limits
	if list := t.find(rules); list != 0 {
		return list, nil
	}
	list := uint32(1)
	for t.lists[list] != nil {
		list++
	}
	var keys []xdirectorRuleKey
	var denied []uint32
	for _, r := range rules {
		keys, denied = append(keys, r.key(list)), append(denied, r.denied)
	}
	t.lists[list] = rules
	if n, err := p.maps.Rules.BatchUpdate(keys, denied, nil); err != nil {
		t.lists[list] = slices.Clone(rules[:n])
		return 0, fmt.Errorf("write %d prefixes, while all services together have %d at most, old and new: %w", len(rules), p.maps.Rules.MaxEntries(), err)
	}
	return list, nil
}

// makeSources makes the table in which the sources of all services are counted, unless it is there.
func (p *Plane) makeSources() error {
	if p.tables.limits.sources {
		return nil
	}
	table, err := ebpf.NewMap(p.sources)
	if err != nil {
		return fmt.Errorf("make table of %d sources: %w", p.sources.MaxEntries, err)
	}
	defer table.Close() // the outer map holds it
	if err := p.maps.Sources.Put(uint32(0), table); err != nil {
		return fmt.Errorf("take table of sources into use: %w", err)
	}
	p.tables.limits.sources = true
	return nil
}

// removeLimits forgets what no service has any more.
func (p *Plane) removeLimits(w *wish) error {
	t := p.tables.limits
	kept := map[uint32]bool{}
	for _, service := range w.services {
		kept[p.tables.services[service.Key].id] = true
	}
	rates := false
	for id, limit := range maps.Clone(t.services) {
		if kept[id] {
			rates = rates || limit.SourceMask != xdirectorAddress{}
		} else if err := p.putLimit(id, xdirectorLimit{}); err != nil {
			return fmt.Errorf("forget limits of a service: %w", err)
		}
	}
	maps.DeleteFunc(t.made, func(id uint32, _ lb.Limits) bool { return !kept[id] })
	if err := p.removeLists(); err != nil || rates || !t.sources {
		return err
	}
	if err := p.maps.Sources.Delete(uint32(0)); err != nil {
		return fmt.Errorf("remove table of sources: %w", err)
	}
	t.sources = false
	return nil
}

// removeLists removes the lists that no service has, once no packet can be in the middle of one.
func (p *Plane) removeLists() error {
	t := p.tables.limits
	unused := maps.Clone(t.lists)
	for _, limit := range t.services {
		delete(unused, limit.List)
	}
	if len(unused) == 0 {
		return nil
	}
	if err := p.settle(); err != nil {
		return fmt.Errorf("wait for packets before prefixes are forgotten: %w", err)
	}
	for list, rules := range unused {
		for _, r := range rules {
			if err := p.maps.Rules.Delete(r.key(list)); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
				return fmt.Errorf("forget prefix: %w", err)
			}
		}
		delete(t.lists, list)
	}
	return nil
}

// readRefusals reads what the services with limits have refused.
func (p *Plane) readRefusals() (map[lb.ServiceKey]map[string]uint64, error) {
	read := map[lb.ServiceKey]map[string]uint64{}
	for key, entry := range p.tables.services {
		if _, limited := p.tables.limits.services[entry.id]; !limited && entry.value.Flags&serviceCapped == 0 {
			continue
		}
		var perCPU []xdirectorRefusals
		if err := p.maps.Refusals.Lookup(entry.id, &perCPU); err != nil {
			return nil, fmt.Errorf("read refusals of service %s: %w", key, err)
		}
		read[key] = map[string]uint64{}
		for _, c := range perCPU {
			for reason, packets := range c.ByReason {
				read[key][refusalNames[reason]] += packets
			}
		}
	}
	return read, nil
}
