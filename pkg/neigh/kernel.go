package neigh

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/xdirector/xdirector/pkg/lb"
)

// protocol marks the neighbour entries that are ours (NDA_PROTOCOL; `ip neigh` shows "proto 112"). The entry itself
// says so, and not a list of ours: that one would be lost in a crash, and would not notice that an administrator has
// replaced an entry.
const protocol = 112

// kernel is everything that this package says to the kernel. Its sockets belong to the network namespace in which it
// was opened.
type kernel struct {
	handle   *netlink.Handle
	requests map[int]*nl.SocketHandle // for neighbour messages: netlink.Neigh has no protocol
	events   *nl.NetlinkSocket
}

// key identifies a neighbour entry.
type key struct {
	index   int // of the interface
	address netip.Addr
}

// entry is what the kernel knows about a neighbour.
type entry struct {
	mac      lb.MAC // zero unless the state is a valid one
	state    uint16
	flags    uint8
	managed  bool
	protocol uint8
}

// ours says that we made the entry, and that nobody has made something else of it since.
func (e entry) ours() bool {
	return e.protocol == protocol && e.managed && e.state&netlink.NUD_PERMANENT == 0
}

// foreign says that somebody takes care of the entry: an administrator who set it, or a daemon that learns addresses
// by other means. We only look at it.
func (e entry) foreign() bool {
	return !e.ours() && (e.managed || e.state&(netlink.NUD_PERMANENT|netlink.NUD_NOARP) != 0 || e.flags&netlink.NTF_EXT_LEARNED != 0)
}

func openKernel() (*kernel, error) {
	k := &kernel{}
	timeout := unix.Timeval{Sec: 5}
	handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	k.handle = handle
	if err := handle.SetSocketTimeout(5e9); err != nil {
		k.close()
		return nil, fmt.Errorf("set timeout of netlink: %w", err)
	}
	requests, err := nl.Subscribe(unix.NETLINK_ROUTE) // to no group: a plain socket
	if err != nil {
		k.close()
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	k.requests = map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: {Socket: requests}}
	if err := errors.Join(requests.SetSendTimeout(&timeout), requests.SetReceiveTimeout(&timeout)); err != nil {
		k.close()
		return nil, fmt.Errorf("set timeout of netlink: %w", err)
	}
	k.events, err = nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_NEIGH, unix.RTNLGRP_LINK,
		unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE)
	if err != nil {
		k.close()
		return nil, fmt.Errorf("subscribe to netlink: %w", err)
	}
	// Thousands of entries may change at once. A failure costs a resync more, no correctness.
	_ = k.events.SetReceiveBufferSize(4<<20, true)
	return k, nil
}

// close ends read, too.
func (k *kernel) close() {
	if k.events != nil {
		k.events.Close()
	}
	for _, s := range k.requests {
		s.Socket.Close()
	}
	k.handle.Close()
}

func (k *kernel) request(kind, flags int) *nl.NetlinkRequest {
	return &nl.NetlinkRequest{
		NlMsghdr: unix.NlMsghdr{Len: unix.SizeofNlMsghdr, Type: uint16(kind), Flags: unix.NLM_F_REQUEST | uint16(flags)},
		Sockets:  k.requests,
	}
}

// manage makes the kernel resolve a neighbour and keep it fresh for ever. NTF_EXT_LEARNED keeps the entry out of the
// limit of the neighbour table (gc_thresh3). With replace an entry that is there becomes a managed one, without it
// that is an error (EEXIST).
func (k *kernel) manage(at key, replace bool) error {
	mode := unix.NLM_F_EXCL
	if replace {
		mode = unix.NLM_F_REPLACE
	}
	request := k.request(unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_ACK|mode)
	request.AddData(&netlink.Ndmsg{Family: family(at.address), Index: uint32(at.index), State: netlink.NUD_NONE, Flags: netlink.NTF_EXT_LEARNED})
	request.AddData(nl.NewRtAttr(netlink.NDA_DST, at.address.AsSlice()))
	request.AddData(nl.NewRtAttr(netlink.NDA_PROTOCOL, nl.Uint8Attr(protocol)))
	request.AddData(nl.NewRtAttr(netlink.NDA_FLAGS_EXT, nl.Uint32Attr(netlink.NTF_EXT_MANAGED)))
	_, err := request.Execute(unix.NETLINK_ROUTE, 0)
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("%w: run as root or with CAP_NET_ADMIN", err)
	}
	return err
}

// remove deletes a neighbour entry.
func (k *kernel) remove(at key) error {
	request := k.request(unix.RTM_DELNEIGH, unix.NLM_F_ACK)
	request.AddData(&netlink.Ndmsg{Family: family(at.address), Index: uint32(at.index)})
	request.AddData(nl.NewRtAttr(netlink.NDA_DST, at.address.AsSlice()))
	_, err := request.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

// neighbours reads the whole neighbour table.
func (k *kernel) neighbours() (map[key]entry, error) {
	messages, err := whole(func() ([][]byte, error) {
		request := k.request(unix.RTM_GETNEIGH, unix.NLM_F_DUMP)
		request.AddData(&netlink.Ndmsg{Family: unix.AF_UNSPEC})
		return request.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWNEIGH)
	})
	if err != nil {
		return nil, fmt.Errorf("list neighbours: %w", err)
	}
	table := map[key]entry{}
	for _, m := range messages {
		if at, e, ok := parseNeighbour(m); ok {
			table[at] = e
		}
	}
	return table, nil
}

// removeOurs deletes every entry of ours that is not wanted.
func (k *kernel) removeOurs(wanted map[key]bool) error {
	table, err := k.neighbours()
	if err != nil {
		return err
	}
	var failed error
	for at, e := range table {
		if !e.ours() || wanted[at] {
			continue
		}
		if err := k.remove(at); err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENODEV) {
			failed = fmt.Errorf("remove neighbour %s: %w", at.address, err)
		}
	}
	return failed
}

// link is an interface, as far as it matters here.
type link struct {
	name  string
	up    bool // and with carrier
	ether bool
	mac   string // as bytes; "" if it has none
}

func (k *kernel) links() (map[int]link, error) {
	list, err := whole(k.handle.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	links := make(map[int]link, len(list))
	for _, l := range list {
		a := l.Attrs()
		const running = unix.IFF_UP | unix.IFF_RUNNING
		links[a.Index] = link{name: a.Name, up: a.RawFlags&running == running, ether: a.EncapType == "ether", mac: string(a.HardwareAddr)}
	}
	return links, nil
}

// addresses returns the own addresses by interface, with the length of their network. IPv6 addresses that can't be
// used as a source (yet) are left out.
func (k *kernel) addresses() (map[int][]netip.Prefix, error) {
	list, err := whole(func() ([]netlink.Addr, error) { return k.handle.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	own := map[int][]netip.Prefix{}
	for _, a := range list {
		ip, ok := netip.AddrFromSlice(a.IP)
		if !ok || a.Flags&(unix.IFA_F_TENTATIVE|unix.IFA_F_DADFAILED) != 0 {
			continue
		}
		length, _ := a.Mask.Size()
		own[a.LinkIndex] = append(own[a.LinkIndex], netip.PrefixFrom(ip.Unmap(), length))
	}
	return own, nil
}

// route asks which way the kernel would send a packet.
func (k *kernel) route(target netip.Addr) (route, error) {
	list, err := k.handle.RouteGet(target.AsSlice())
	if err != nil {
		return route{}, err
	}
	if len(list) == 0 {
		return route{}, unix.ENETUNREACH
	}
	r := route{index: list[0].LinkIndex, kind: list[0].Type}
	if a, ok := netip.AddrFromSlice(list[0].Src); ok {
		r.source = a.Unmap()
	}
	if a, ok := netip.AddrFromSlice(list[0].Gw); ok {
		r.gateway = a.Unmap()
	}
	if via, ok := list[0].Via.(*netlink.Via); ok {
		r.gateway, _ = netip.AddrFromSlice(via.Addr)
	}
	return r, nil
}

// whole repeats a dump that a change has interrupted. A table that never rests is taken as it is: the change brings an
// event.
func whole[T any](dump func() ([]T, error)) ([]T, error) {
	for range 5 {
		list, err := dump()
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			return list, err
		}
	}
	list, err := dump()
	if errors.Is(err, netlink.ErrDumpInterrupted) {
		err = nil
	}
	return list, err
}

func family(a netip.Addr) uint8 {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// parseNeighbour takes the body of an RTM_NEWNEIGH or RTM_DELNEIGH message apart. ok is false for whatever isn't a
// neighbour entry of an IP address.
func parseNeighbour(m []byte) (at key, e entry, ok bool) {
	const header = 12 // struct ndmsg
	if len(m) < header || m[0] != unix.AF_INET && m[0] != unix.AF_INET6 {
		return key{}, entry{}, false
	}
	at.index = int(binary.NativeEndian.Uint32(m[4:]))
	e.state = binary.NativeEndian.Uint16(m[8:])
	e.flags = m[10]
	if e.flags&netlink.NTF_PROXY != 0 {
		return key{}, entry{}, false
	}
	for kind, value := range attributes(m[header:]) {
		switch {
		case kind == netlink.NDA_DST:
			at.address, ok = netip.AddrFromSlice(value)
		case kind == netlink.NDA_LLADDR && len(value) == len(e.mac):
			e.mac = lb.MAC(value)
		case kind == netlink.NDA_FLAGS_EXT && len(value) >= 4:
			e.managed = binary.NativeEndian.Uint32(value)&netlink.NTF_EXT_MANAGED != 0
		case kind == netlink.NDA_PROTOCOL && len(value) >= 1:
			e.protocol = value[0]
		}
	}
	return at, e, ok
}

// attributes yields the type and the value of each attribute in b. It ends at one that is cut; the netlink package's
// own parser panics there.
func attributes(b []byte) iter.Seq2[int, []byte] {
	return func(yield func(int, []byte) bool) {
		const header, align = unix.SizeofRtAttr, unix.RTA_ALIGNTO
		for len(b) >= header {
			length := int(binary.NativeEndian.Uint16(b))
			kind := int(binary.NativeEndian.Uint16(b[2:])) &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
			if length < header || length > len(b) || !yield(kind, b[header:length]) {
				return
			}
			b = b[min((length+align-1)/align*align, len(b)):]
		}
	}
}
