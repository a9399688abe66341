package ha

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"net"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// link is what the election needs to know of an interface.
type link struct {
	Index     int
	MAC       net.HardwareAddr
	Up        bool         // administratively
	Carrier   bool         // can send: carrier, and not dormant
	Addresses []ownAddress // of both families
}

func (k link) has(p netip.Prefix) bool {
	return slices.ContainsFunc(k.Addresses, func(a ownAddress) bool { return a.Prefix == p })
}

// snapshot is the state of all interfaces of the namespace at one moment, by name. It is not changed once made.
type snapshot map[string]link

// without returns the snapshot without some addresses.
func (s snapshot) without(gone map[spot]bool) snapshot {
	next := maps.Clone(s)
	for name, k := range s {
		is := func(a ownAddress) bool { return gone[spot{k.Index, a.Prefix}] }
		if slices.ContainsFunc(k.Addresses, is) {
			k.Addresses = slices.DeleteFunc(slices.Clone(k.Addresses), is)
			next[name] = k
		}
	}
	return next
}

// takeSnapshot reads all interfaces and their addresses.
func takeSnapshot(h *netlink.Handle) (snapshot, error) {
	links, err := whole(h.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	addresses, err := whole(func() ([]netlink.Addr, error) { return h.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	byIndex := map[int][]ownAddress{}
	for _, a := range addresses {
		byIndex[a.LinkIndex] = append(byIndex[a.LinkIndex], newOwnAddress(prefixOf(a), a.Scope, a.Flags))
	}
	s := snapshot{}
	for _, k := range links {
		a := k.Attrs()
		s[a.Name] = link{
			Index:     a.Index,
			MAC:       a.HardwareAddr,
			Up:        a.RawFlags&unix.IFF_UP != 0,
			Carrier:   a.RawFlags&unix.IFF_RUNNING != 0,
			Addresses: byIndex[a.Index],
		}
	}
	return s, nil
}

// newOwnAddress takes scope and flags as the kernel has them.
func newOwnAddress(p netip.Prefix, scope, flags int) ownAddress {
	return ownAddress{
		Prefix:    p,
		Global:    scope == unix.RT_SCOPE_UNIVERSE,
		Secondary: flags&unix.IFA_F_SECONDARY != 0 && p.Addr().Is4(), // IPv6: the same bit says temporary
		Tentative: flags&(unix.IFA_F_TENTATIVE|unix.IFA_F_DADFAILED) != 0 && flags&unix.IFA_F_OPTIMISTIC == 0,
	}
}

// whole repeats a dump that was interrupted by a change: such a one may lack an entry.
func whole[T any](dump func() ([]T, error)) ([]T, error) {
	for range 3 {
		if list, err := dump(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			return list, err
		}
	}
	list, err := dump()
	if errors.Is(err, netlink.ErrDumpInterrupted) {
		err = nil // the change that interrupted it is an event, and makes another snapshot
	}
	return list, err
}

func prefixOf(a netlink.Addr) netip.Prefix {
	addr, _ := netip.AddrFromSlice(a.IP)
	bits, _ := a.Mask.Size()
	return netip.PrefixFrom(addr.Unmap(), bits)
}

// spot is an address on an interface.
type spot struct {
	index  int
	prefix netip.Prefix
}

// place is a spot without the length of its prefix.
type place struct {
	index   int
	address netip.Addr
}

func (s spot) place() place { return place{s.index, s.prefix.Addr()} }

// routeKey is what no two routes have in common.
type routeKey struct {
	destination netip.Prefix
	table       uint32
	metric      uint32
}

// readPause is the shortest time between two readings, which take a fifth of a CPU at most: a thousand addresses that
// come one by one are not read a thousand times.
const readPause = 5 * time.Millisecond

// resync is how often interfaces are read without an event, in case that one was lost unseen.
const resync = 30 * time.Second

// sighting is a new state of the interfaces, and what became of them since the last one.
type sighting struct {
	snapshot snapshot
	came     map[place]bool    // addresses that were not there before
	removed  map[place]bool    // addresses removed, maybe there again
	routes   map[routeKey]bool // routes of ours removed, maybe there again
	moved    map[string]bool   // interfaces that came, went, changed otherwise than in their addresses, or were down, maybe up again
	blind    bool              // events were lost: anything may have been removed
}

// compare fills came, and adds to moved.
func (s *sighting) compare(before snapshot) {
	s.came = map[place]bool{}
	for name, k := range s.snapshot {
		old, ok := before[name]
		if !ok || k.Index != old.Index || !slices.Equal(k.MAC, old.MAC) || k.Up != old.Up {
			s.moved[name] = true
		}
		there := map[netip.Addr]bool{}
		if k.Index == old.Index {
			for _, a := range old.Addresses {
				there[a.Prefix.Addr()] = true
			}
		}
		for _, a := range k.Addresses {
			if !there[a.Prefix.Addr()] {
				s.came[place{k.Index, a.Prefix.Addr()}] = true
			}
		}
	}
	for name := range before {
		if _, ok := s.snapshot[name]; !ok {
			s.moved[name] = true
		}
	}
}

// merge adds what an older sighting told.
func (s *sighting) merge(older sighting) {
	maps.Copy(s.came, older.came)
	maps.Copy(s.removed, older.removed)
	maps.Copy(s.routes, older.routes)
	maps.Copy(s.moved, older.moved)
	s.blind = s.blind || older.blind
}

// watcher turns netlink events into snapshots. Events only say that something changed; everything is read again
// then, so a lost event (a full socket buffer) needs nothing but one more reading.
type watcher struct {
	handle    *netlink.Handle
	socket    *nl.NetlinkSocket
	sightings chan sighting // capacity 1, the newest
	seen      func()        // a sighting is there; never waits
	dirty     chan struct{}
	closed    chan struct{}
	wg        sync.WaitGroup

	mu      sync.Mutex
	removed map[place]bool
	routes  map[routeKey]bool
	moved   map[string]bool
	blind   bool
	known   map[spot]ownAddress // of the last snapshot
}

// watch subscribes in the network namespace of the calling thread and reads the first snapshot. What the netlink
// socket with the number quiet adds is no news.
func watch(quiet uint32, seen func(), onError func(error)) (*watcher, snapshot, error) {
	h, err := newHandle()
	if err != nil {
		return nil, nil, err
	}
	s, err := nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR,
		unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE)
	if err != nil {
		h.Close()
		return nil, nil, fmt.Errorf("subscribe to interface events: %w", err)
	}
	// A thousand addresses that come at once are half a megabyte of events.
	_ = unix.SetsockoptInt(s.GetFd(), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 4<<20) // losing some costs one more reading
	_ = attachFilter(s.GetFd(), eventFilter(quiet))                                // without it there is only more to read
	w := &watcher{handle: h, socket: s, sightings: make(chan sighting, 1), seen: seen, dirty: make(chan struct{}, 1),
		closed: make(chan struct{}), removed: map[place]bool{}, routes: map[routeKey]bool{}, moved: map[string]bool{}}
	first, err := takeSnapshot(h)
	if err != nil {
		s.Close()
		h.Close()
		return nil, nil, err
	}
	w.know(first)
	w.wg.Go(w.listen)
	w.wg.Go(func() { w.read(first, onError) })
	return w, first, nil
}

// eventFilter is a socket filter that keeps back what would only cost time: events about routes, of which a box that
// is also a router may have thousands a second, but for the removal of ours; and the addresses that the netlink socket
// with the number quiet renews.
func eventFilter(quiet uint32) []bpf.RawInstruction {
	const port, protocol = 12, unix.SizeofNlMsghdr + 5 // offsets of nlmsg_pid and rtm_protocol
	kind := uint32(4)                                  // of the low byte of nlmsg_type
	if binary.NativeEndian.Uint16([]byte{0, 1}) == 1 { // the last one, on a big-endian CPU
		kind++
	}
	return mustAssemble(
		bpf.LoadAbsolute{Off: kind, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.RTM_NEWROUTE, SkipTrue: 7},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.RTM_DELROUTE, SkipTrue: 3},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.RTM_NEWADDR, SkipTrue: 4},
		bpf.LoadAbsolute{Off: port, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: binary.BigEndian.Uint32(binary.NativeEndian.AppendUint32(nil, quiet)), SkipTrue: 3, SkipFalse: 2},
		bpf.LoadAbsolute{Off: protocol, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: routeProtocol, SkipTrue: 1},
		bpf.RetConstant{Val: math.MaxUint32},
		bpf.RetConstant{Val: 0})
}

func (w *watcher) know(s snapshot) {
	known := map[spot]ownAddress{}
	for _, k := range s {
		for _, a := range k.Addresses {
			known[spot{k.Index, a.Prefix}] = a
		}
	}
	w.mu.Lock()
	w.known = known
	w.mu.Unlock()
}

func (w *watcher) close() {
	close(w.closed)
	w.socket.Close()
	w.wg.Wait()
	w.handle.Close()
}

func (w *watcher) listen() {
	for {
		messages, _, err := w.socket.Receive()
		if errors.Is(err, os.ErrClosed) {
			return
		}
		if w.note(messages, err != nil) {
			poke(w.dirty)
		}
		if err != nil && !errors.Is(err, unix.ENOBUFS) {
			select { // not expected; must not spin
			case <-w.closed:
				return
			case <-time.After(time.Second):
			}
		}
	}
}

// note takes note of events, and says whether there is anything new: a thousand addresses whose lifetimes are renewed
// every few seconds are not.
func (w *watcher) note(messages []syscall.NetlinkMessage, lost bool) (news bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.blind = w.blind || lost
	news = lost
	for _, m := range messages {
		if m.Header.Type == unix.RTM_NEWADDR {
			at, a, ok := addressOf(m)
			news = news || !ok || w.known[at] != a
			continue
		}
		news = true
		if at, _, ok := addressOf(m); ok && m.Header.Type == unix.RTM_DELADDR {
			w.removed[at.place()] = true
		}
		if r, ok := removedRoute(m); ok {
			w.routes[r] = true
		}
		if name, ok := setDown(m); ok {
			w.moved[name] = true
		}
	}
	return news
}

// addressOf returns the address that an event is about.
func addressOf(m syscall.NetlinkMessage) (spot, ownAddress, bool) {
	if m.Header.Type != unix.RTM_NEWADDR && m.Header.Type != unix.RTM_DELADDR || len(m.Data) < unix.SizeofIfAddrmsg {
		return spot{}, ownAddress{}, false
	}
	message, rest := nl.DeserializeIfAddrmsg(m.Data), m.Data[unix.SizeofIfAddrmsg:]
	found := attribute(rest, unix.IFA_LOCAL)
	if found == nil { // as usual with IPv6
		found = attribute(rest, unix.IFA_ADDRESS)
	}
	a, ok := netip.AddrFromSlice(found)
	flags := int(message.Flags)
	if b := attribute(rest, unix.IFA_FLAGS); len(b) == 4 {
		flags = int(binary.NativeEndian.Uint32(b))
	}
	p := netip.PrefixFrom(a, int(message.Prefixlen))
	return spot{int(message.Index), p}, newOwnAddress(p, int(message.Scope), flags), ok
}

// removedRoute returns the route that an event says was removed.
func removedRoute(m syscall.NetlinkMessage) (routeKey, bool) {
	if m.Header.Type != unix.RTM_DELROUTE || len(m.Data) < unix.SizeofRtMsg {
		return routeKey{}, false
	}
	message, rest := nl.DeserializeRtMsg(m.Data), m.Data[unix.SizeofRtMsg:]
	k := routeKey{table: uint32(message.Table)}
	if b := attribute(rest, unix.RTA_TABLE); len(b) == 4 {
		k.table = binary.NativeEndian.Uint32(b)
	}
	if b := attribute(rest, unix.RTA_PRIORITY); len(b) == 4 {
		k.metric = binary.NativeEndian.Uint32(b)
	}
	to, ok := netip.AddrFromSlice(attribute(rest, unix.RTA_DST))
	if !ok && message.Family == unix.AF_INET {
		to = netip.IPv4Unspecified()
	} else if !ok {
		to = netip.IPv6Unspecified()
	}
	k.destination = netip.PrefixFrom(to, int(message.Dst_len))
	return k, true
}

// setDown returns the interface that an event says is down: it may be so in no snapshot, or in both that its being up lay
// between.
func setDown(m syscall.NetlinkMessage) (name string, ok bool) {
	if m.Header.Type != unix.RTM_NEWLINK || len(m.Data) < unix.SizeofIfInfomsg || nl.DeserializeIfInfomsg(m.Data).Flags&unix.IFF_UP != 0 {
		return "", false
	}
	return unix.ByteSliceToString(attribute(m.Data[unix.SizeofIfInfomsg:], unix.IFLA_IFNAME)), true
}

// attribute returns the value of one attribute, or nothing.
func attribute(b []byte, kind uint16) []byte {
	attributes, err := nl.ParseRouteAttr(b)
	if err != nil {
		return nil
	}
	for _, a := range attributes {
		if a.Attr.Type == kind {
			return a.Value
		}
	}
	return nil
}

func (w *watcher) read(last snapshot, onError func(error)) {
	ticker := time.NewTicker(resync)
	defer ticker.Stop()
	for {
		select {
		case <-w.closed:
			return
		case <-w.dirty:
		case <-ticker.C:
		}
		w.mu.Lock()
		next := sighting{removed: w.removed, routes: w.routes, moved: w.moved, blind: w.blind}
		w.removed, w.routes, w.moved, w.blind = map[place]bool{}, map[routeKey]bool{}, map[string]bool{}, false
		w.mu.Unlock()
		began := time.Now()
		var err error
		if next.snapshot, err = takeSnapshot(w.handle); err != nil {
			onError(err)
			w.mu.Lock()
			w.blind = true // for the next reading
			w.mu.Unlock()
			continue
		}
		took := time.Since(began)
		w.know(next.snapshot)
		if len(next.removed) == 0 && len(next.routes) == 0 && len(next.moved) == 0 && !next.blind && reflect.DeepEqual(next.snapshot, last) {
			continue
		}
		next.compare(last)
		last = next.snapshot
		select {
		case unread := <-w.sightings:
			next.merge(unread)
		default:
		}
		w.sightings <- next // only this goroutine sends, so there is room
		w.seen()
		select {
		case <-w.closed:
			return
		case <-time.After(max(readPause, 4*took)):
		}
	}
}

// newHandle opens a netlink socket in the namespace of the calling thread. No request takes longer than a second.
func newHandle() (*netlink.Handle, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open a netlink socket: %w", err)
	}
	if err := h.SetSocketTimeout(time.Second); err != nil {
		h.Close()
		return nil, fmt.Errorf("limit the time of netlink requests: %w", err)
	}
	return h, nil
}

// attachFilter gives a socket a filter.
func attachFilter(fd int, program []bpf.RawInstruction) error {
	var filter []unix.SockFilter
	for _, i := range program {
		filter = append(filter, unix.SockFilter{Code: i.Op, Jt: i.Jt, Jf: i.Jf, K: i.K})
	}
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]})
}
