package ha

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"sort"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// link is what the election needs to know of an interface.
type link struct {
	Index     int
	MAC       net.HardwareAddr
	Up        bool // administratively
	Carrier   bool // can send: carrier, and not dormant
	Addresses []ownAddress
}

// snapshot is the state of all interfaces of the namespace at one moment, by name. It is not changed once made.
type snapshot map[string]link

// names lists the interfaces for an error message.
func (s snapshot) names() string {
	var names []string
	for n := range s {
		names = append(names, n)
	}
	sort.Strings(names)
	return strings.Join(names, ", ")
}

// without returns the snapshot without some addresses of an interface.
func (s snapshot) without(name string, gone map[netip.Prefix]bool) snapshot {
	k, ok := s[name]
	if !ok || len(gone) == 0 {
		return s
	}
	k.Addresses = slices.DeleteFunc(slices.Clone(k.Addresses), func(a ownAddress) bool { return gone[a.Prefix] })
	next := maps.Clone(s)
	next[name] = k
	return next
}

// takeSnapshot reads all interfaces and their IPv4 addresses.
func takeSnapshot(h *netlink.Handle) (snapshot, error) {
	links, err := whole(h.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	addresses, err := whole(func() ([]netlink.Addr, error) { return h.AddrList(nil, netlink.FAMILY_V4) })
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	byIndex := map[int][]ownAddress{}
	for _, a := range addresses {
		byIndex[a.LinkIndex] = append(byIndex[a.LinkIndex], ownAddress{
			Prefix:    prefixOf(a),
			Global:    a.Scope == unix.RT_SCOPE_UNIVERSE,
			Secondary: a.Flags&unix.IFA_F_SECONDARY != 0,
		})
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
	addr, _ := netip.AddrFromSlice(a.IP.To4())
	bits, _ := a.Mask.Size()
	return netip.PrefixFrom(addr, bits)
}

// readPause is the shortest time between two readings: a thousand addresses that come one by one are not read a
// thousand times.
const readPause = 5 * time.Millisecond

// resync is how often interfaces are read without an event, in case that one was lost unseen.
const resync = 30 * time.Second

// sighting is a new state of the interfaces, and what a snapshot can't show.
type sighting struct {
	snapshot snapshot
	removed  map[netip.Addr]bool // addresses removed since the last sighting, maybe there again
	blind    bool                // events were lost: anything may have been removed
}

// came returns the addresses that are on the link now and were not before.
func came(before, after link) map[netip.Addr]bool {
	there := map[netip.Addr]bool{}
	for _, a := range before.Addresses {
		there[a.Prefix.Addr()] = true
	}
	added := map[netip.Addr]bool{}
	for _, a := range after.Addresses {
		if !there[a.Prefix.Addr()] {
			added[a.Prefix.Addr()] = true
		}
	}
	return added
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
	removed map[netip.Addr]bool
	blind   bool
}

// watch subscribes in the network namespace of the calling thread and reads the first snapshot.
func watch(seen func(), onError func(error)) (*watcher, snapshot, error) {
	h, err := newHandle()
	if err != nil {
		return nil, nil, err
	}
	s, err := nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR)
	if err != nil {
		h.Close()
		return nil, nil, fmt.Errorf("subscribe to interface events: %w", err)
	}
	w := &watcher{handle: h, socket: s, sightings: make(chan sighting, 1), seen: seen, dirty: make(chan struct{}, 1),
		closed: make(chan struct{}), removed: map[netip.Addr]bool{}}
	first, err := takeSnapshot(h)
	if err != nil {
		s.Close()
		h.Close()
		return nil, nil, err
	}
	w.wg.Go(w.listen)
	w.wg.Go(func() { w.read(first, onError) })
	return w, first, nil
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
		w.mu.Lock()
		w.blind = w.blind || err != nil
		for _, m := range messages {
			if a, ok := removedAddress(m); ok {
				w.removed[a] = true
			}
		}
		w.mu.Unlock()
		poke(w.dirty)
		if err != nil && !errors.Is(err, unix.ENOBUFS) {
			select { // not expected; must not spin
			case <-w.closed:
				return
			case <-time.After(time.Second):
			}
		}
	}
}

// removedAddress returns the address that an event says was removed.
func removedAddress(m syscall.NetlinkMessage) (netip.Addr, bool) {
	if m.Header.Type != unix.RTM_DELADDR || len(m.Data) < unix.SizeofIfAddrmsg {
		return netip.Addr{}, false
	}
	attributes, err := nl.ParseRouteAttr(m.Data[unix.SizeofIfAddrmsg:])
	if err != nil {
		return netip.Addr{}, false
	}
	for _, a := range attributes {
		if a.Attr.Type == unix.IFA_LOCAL {
			return netip.AddrFromSlice(a.Value)
		}
	}
	return netip.Addr{}, false
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
		next := sighting{removed: w.removed, blind: w.blind}
		w.removed, w.blind = map[netip.Addr]bool{}, false
		w.mu.Unlock()
		var err error
		if next.snapshot, err = takeSnapshot(w.handle); err != nil {
			onError(err)
			w.mu.Lock()
			w.blind = true // for the next reading
			w.mu.Unlock()
			continue
		}
		if len(next.removed) == 0 && !next.blind && reflect.DeepEqual(next.snapshot, last) {
			continue
		}
		last = next.snapshot
		select {
		case unread := <-w.sightings:
			maps.Copy(next.removed, unread.removed)
			next.blind = next.blind || unread.blind
		default:
		}
		w.sightings <- next // only this goroutine sends, so there is room
		w.seen()
		select {
		case <-w.closed:
			return
		case <-time.After(readPause):
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
