package lab

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/mdlayher/packet"
	"golang.org/x/sys/unix"
)

// Frame is one Ethernet frame seen on the wire.
type Frame struct {
	Time time.Time // when the kernel had it
	Data []byte
}

// maxFrames keeps a storm of frames from eating the memory; it is far above what any scenario counts.
const maxFrames = 200_000

// Wire keeps frames that pass one interface, with the kernel's time stamps.
type Wire struct {
	conn *packet.Conn
	done chan struct{}

	mu      sync.Mutex
	frames  []Frame
	adverts map[router][]Advert // those among the frames
}

// router is a virtual router on the wire.
type router struct {
	ipv6 bool
	vrid uint8
}

// Capture keeps the frames that reach the node's interface and for which keep is true, those for other nodes
// included.
func (n *Node) Capture(iface string, keep func([]byte) bool) (*Wire, error) {
	return n.lab.capture(n.t, iface, keep, everything)
}

// CapturePort keeps the frames that pass the node's port of the switch, in both directions.
func (n *Node) CapturePort(keep func([]byte) bool) (*Wire, error) {
	return n.lab.capture(n.lab.sw, n.port(), keep, everything)
}

// CaptureSent keeps the frames that the node sends, whatever MAC they are from, as they reach its port of the switch.
func (n *Node) CaptureSent(keep func([]byte) bool) (*Wire, error) {
	return n.lab.capture(n.lab.sw, n.port(), keep, arrivingOnly)
}

// CaptureOwn keeps the frames that the node sends on one of its interfaces.
func (n *Node) CaptureOwn(iface string, keep func([]byte) bool) (*Wire, error) {
	return n.lab.capture(n.t, iface, keep, ownOnly)
}

// CaptureVRRP keeps the adverts and the announcements of addresses that reach the client, of both families.
func (l *Lab) CaptureVRRP() (*Wire, error) { return l.Client.Capture("eth0", IsVRRP) }

// IsVRRP says whether a frame holds an advert or an announcement of an address.
func IsVRRP(b []byte) bool {
	_, advert := ParseAdvert(b)
	_, announcement := ParseAnnouncement(b)
	return advert || announcement
}

func (l *Lab) capture(t *thread, iface string, keep func([]byte) bool, which direction) (*Wire, error) {
	w := &Wire{done: make(chan struct{}), adverts: map[router][]Advert{}}
	err := t.do(func() error {
		i, err := net.InterfaceByName(iface)
		if err != nil {
			return err
		}
		w.conn, err = packet.Listen(i, packet.Raw, unix.ETH_P_ALL, nil)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("capture on %s: %w", iface, err)
	}
	raw, err := w.conn.SyscallConn()
	if err == nil {
		var option error
		err = raw.Control(func(fd uintptr) {
			option = errors.Join(unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1),
				unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20))
		})
		err = errors.Join(err, option)
	}
	if err != nil {
		_ = w.conn.Close()
		return nil, fmt.Errorf("capture on %s: %w", iface, err)
	}
	go func() {
		defer close(w.done)
		b, control := make([]byte, 65536), make([]byte, 128)
		for {
			var size, controlSize int
			var from unix.Sockaddr
			var failed error
			err := raw.Read(func(fd uintptr) bool {
				size, controlSize, _, from, failed = unix.Recvmsg(int(fd), b, control, 0)
				return !errors.Is(failed, unix.EAGAIN)
			})
			if err != nil {
				return // closed
			}
			// An error is the interface going down and up: frames come again.
			if failed == nil && which.has(from) && keep(b[:size]) {
				w.keep(Frame{Time: stamp(control[:controlSize]), Data: clone(b[:size])})
			}
		}
	}()
	l.onClose(func() { _ = w.conn.Close(); <-w.done })
	return w, nil
}

// direction is in which direction a frame passes the interface.
type direction uint8

const (
	everything   direction = iota
	arrivingOnly           // at the interface
	ownOnly                // of the box that has the interface
)

func (d direction) has(from unix.Sockaddr) bool {
	link, ok := from.(*unix.SockaddrLinklayer)
	outgoing := ok && link.Pkttype == unix.PACKET_OUTGOING
	return d == everything || outgoing == (d == ownOnly)
}

func (w *Wire) keep(f Frame) {
	a, advert := ParseAdvert(f.Data)
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.frames) >= maxFrames {
		return
	}
	w.frames = append(w.frames, f)
	if advert {
		a.Time = f.Time
		r := router{a.Source.Is6(), a.VRID}
		w.adverts[r] = append(w.adverts[r], a)
	}
}

// stamp reads the time that the kernel gave a frame.
func stamp(control []byte) time.Time {
	messages, err := unix.ParseSocketControlMessage(control)
	if err == nil {
		for _, m := range messages {
			if m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SCM_TIMESTAMPNS && len(m.Data) >= 16 {
				return time.Unix(int64(binary.NativeEndian.Uint64(m.Data)), int64(binary.NativeEndian.Uint64(m.Data[8:])))
			}
		}
	}
	return time.Now()
}

// Frames returns what was kept since from.
func (w *Wire) Frames(from time.Time) []Frame {
	w.mu.Lock()
	defer w.mu.Unlock()
	first, _ := slices.BinarySearchFunc(w.frames, from, func(f Frame, t time.Time) int { return f.Time.Compare(t) })
	return slices.Clone(w.frames[first:])
}

// Adverts returns the adverts kept since from.
func (w *Wire) Adverts(from time.Time) []Advert {
	var adverts []Advert
	for _, f := range w.Frames(from) {
		if a, ok := ParseAdvert(f.Data); ok {
			a.Time = f.Time
			adverts = append(adverts, a)
		}
	}
	return adverts
}

// AdvertsOf returns the adverts of one node kept since from.
func (w *Wire) AdvertsOf(n *Node, from time.Time) []Advert {
	var adverts []Advert
	for _, a := range w.Adverts(from) {
		if n.Is(a.Source) {
			adverts = append(adverts, a)
		}
	}
	return adverts
}

// AdvertsFor returns the adverts for one virtual router of the family kept since from.
func (w *Wire) AdvertsFor(ipv6 bool, vrid uint8, from time.Time) []Advert {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := w.adverts[router{ipv6, vrid}]
	first, _ := slices.BinarySearchFunc(all, from, func(a Advert, t time.Time) int { return a.Time.Compare(t) })
	return slices.Clone(all[first:])
}

// Announcements returns the announcements of an address kept since from.
func (w *Wire) Announcements(address netip.Addr, from time.Time) []Announcement {
	var list []Announcement
	for _, f := range w.Frames(from) {
		if a, ok := ParseAnnouncement(f.Data); ok && a.Address == address {
			a.Time = f.Time
			list = append(list, a)
		}
	}
	return list
}

// WaitAnnouncement waits for the first announcement of an address by a node since from, be it gratuitous ARP or an
// unsolicited neighbour advertisement. The node is known by the Ethernet source; nil takes that of any node, for a
// CaptureSent.
func (w *Wire) WaitAnnouncement(ctx context.Context, n *Node, address netip.Addr, from time.Time, limit time.Duration) (Announcement, error) {
	var found Announcement
	err := Wait(ctx, limit, func() error {
		for _, a := range w.Announcements(address, from) {
			if n == nil || a.From.String() == n.MAC.String() {
				found = a
				return nil
			}
		}
		return fmt.Errorf("no announcement of %s", address)
	})
	return found, err
}
