package neigh

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// event is one change in the kernel.
type event struct {
	kind   eventKind
	at     key          // neighbour, neighbourGone
	entry  entry        // neighbour
	prefix netip.Prefix // routes
}

type eventKind int

const (
	neighbour eventKind = iota
	neighbourGone
	links
	addresses
	routes
	lost // events were lost: everything must be read again
)

// read sends the kernel's events to out until ctx ends or the socket fails. It waits when nobody takes them; what the
// kernel then can't keep comes as one lost event.
func (k *kernel) read(ctx context.Context, out chan<- []event) error {
	for {
		messages, from, err := k.events.Receive()
		var batch []event
		switch {
		case errors.Is(err, unix.ENOBUFS):
			batch = []event{{kind: lost}}
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN):
			continue
		case err != nil:
			return fmt.Errorf("read netlink events: %w", err)
		case from.Pid != nl.PidKernel:
			continue // any process may send to the socket
		}
		for _, m := range messages {
			if e, ok := parseEvent(m); ok {
				batch = append(batch, e)
			}
		}
		if len(batch) == 0 {
			continue
		}
		select {
		case out <- batch:
		case <-ctx.Done():
			return nil
		}
	}
}

func parseEvent(m syscall.NetlinkMessage) (event, bool) {
	switch m.Header.Type {
	case unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH:
		at, e, ok := parseNeighbour(m.Data)
		if m.Header.Type == unix.RTM_DELNEIGH {
			return event{kind: neighbourGone, at: at}, ok
		}
		return event{kind: neighbour, at: at, entry: e}, ok
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		return event{kind: links}, true
	case unix.RTM_NEWADDR, unix.RTM_DELADDR:
		return event{kind: addresses}, true
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		prefix, ok := parseRoute(m.Data)
		return event{kind: routes, prefix: prefix}, ok
	}
	return event{}, false
}

// parseRoute returns the destination of a route message: only targets within it may have another way now.
func parseRoute(m []byte) (netip.Prefix, bool) {
	if len(m) < unix.SizeofRtMsg {
		return netip.Prefix{}, false
	}
	header := nl.DeserializeRtMsg(m)
	if header.Flags&unix.RTM_F_CLONED != 0 {
		return netip.Prefix{}, false
	}
	var destination netip.Addr
	switch header.Family {
	case unix.AF_INET:
		destination = netip.IPv4Unspecified() // the default route has no destination attribute
	case unix.AF_INET6:
		destination = netip.IPv6Unspecified()
	default:
		return netip.Prefix{}, false
	}
	for kind, value := range attributes(m[unix.SizeofRtMsg:]) {
		if kind == unix.RTA_DST {
			destination, _ = netip.AddrFromSlice(value)
		}
	}
	prefix := netip.PrefixFrom(destination, int(header.Dst_len))
	return prefix, prefix.IsValid()
}
