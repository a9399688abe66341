package ha

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"reflect"
	"sort"
	"strings"
	"sync"
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

// resync is how often interfaces are read without an event, in case that one was lost unseen.
const resync = 30 * time.Second

// watcher turns netlink events into snapshots. Events only say that something changed; everything is read again
// then, so a lost event (a full socket buffer) needs nothing but one more reading.
type watcher struct {
	handle    *netlink.Handle
	socket    *nl.NetlinkSocket
	snapshots chan snapshot // capacity 1, the newest
	dirty     chan struct{}
	closed    chan struct{}
	wg        sync.WaitGroup
}

// watch subscribes in the network namespace of the calling thread and reads the first snapshot.
func watch(onError func(error)) (*watcher, snapshot, error) {
	h, err := newHandle()
	if err != nil {
		return nil, nil, err
	}
	s, err := nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR)
	if err != nil {
		h.Close()
		return nil, nil, fmt.Errorf("subscribe to interface events: %w", err)
	}
	w := &watcher{handle: h, socket: s, snapshots: make(chan snapshot, 1), dirty: make(chan struct{}, 1), closed: make(chan struct{})}
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
		_, _, err := w.socket.Receive()
		if errors.Is(err, os.ErrClosed) {
			return
		}
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
		s, err := takeSnapshot(w.handle)
		if err != nil {
			onError(err)
			continue
		}
		if reflect.DeepEqual(s, last) {
			continue
		}
		last = s
		select {
		case <-w.snapshots:
		default:
		}
		w.snapshots <- s // only this goroutine sends, so there is room
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
