package lab

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
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

	mu     sync.Mutex
	frames []Frame
}

// Capture keeps the frames that reach the node's interface and for which keep is true, those for other nodes
// included.
func (n *Node) Capture(iface string, keep func([]byte) bool) (*Wire, error) {
	return n.lab.capture(n.t, iface, keep)
}

// CapturePort keeps the frames that pass the node's port of the switch, in both directions.
func (n *Node) CapturePort(keep func([]byte) bool) (*Wire, error) {
	return n.lab.capture(n.lab.sw, n.port(), keep)
}

// CaptureVRRP keeps the adverts and gratuitous ARP requests that reach the client.
func (l *Lab) CaptureVRRP() (*Wire, error) {
	return l.Client.Capture("eth0", func(b []byte) bool {
		_, advert := ParseAdvert(b)
		_, garp := ParseGratuitousARP(b)
		return advert || garp
	})
}

func (l *Lab) capture(t *thread, iface string, keep func([]byte) bool) (*Wire, error) {
	w := &Wire{done: make(chan struct{})}
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
			var failed error
			err := raw.Read(func(fd uintptr) bool {
				size, controlSize, _, _, failed = unix.Recvmsg(int(fd), b, control, 0)
				return !errors.Is(failed, unix.EAGAIN)
			})
			if err != nil {
				return // closed
			}
			// An error is the interface going down and up: frames come again.
			if failed == nil && keep(b[:size]) {
				frame := Frame{Time: stamp(control[:controlSize]), Data: append([]byte(nil), b[:size]...)}
				w.mu.Lock()
				if len(w.frames) < maxFrames {
					w.frames = append(w.frames, frame)
				}
				w.mu.Unlock()
			}
		}
	}()
	l.onClose(func() { _ = w.conn.Close(); <-w.done })
	return w, nil
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
	for i, f := range w.frames {
		if !f.Time.Before(from) {
			return append([]Frame(nil), w.frames[i:]...)
		}
	}
	return nil
}

// Advert is what the lab reads from a VRRP advert.
type Advert struct {
	Time     time.Time
	Source   netip.Addr
	MAC      net.HardwareAddr
	Version  uint8
	VRID     uint8
	Priority uint8
}

// ParseAdvert reads an Ethernet frame with an IPv4 VRRP advert.
func ParseAdvert(b []byte) (Advert, bool) {
	if len(b) < 14+20+8 || binary.BigEndian.Uint16(b[12:]) != unix.ETH_P_IP || b[23] != 112 {
		return Advert{}, false
	}
	size := int(b[14]&15) * 4
	if len(b) < 14+size+8 {
		return Advert{}, false
	}
	v := b[14+size:]
	return Advert{
		Source: netip.AddrFrom4([4]byte(b[26:30])), MAC: append(net.HardwareAddr(nil), b[6:12]...),
		Version: v[0] >> 4, VRID: v[1], Priority: v[2],
	}, true
}

// GratuitousARP tells who has an address, unasked.
type GratuitousARP struct {
	Time    time.Time
	Address netip.Addr
	MAC     net.HardwareAddr
}

// ParseGratuitousARP reads an Ethernet frame with an ARP packet whose sender and target address are the same.
func ParseGratuitousARP(b []byte) (GratuitousARP, bool) {
	if len(b) < 42 || binary.BigEndian.Uint16(b[12:]) != unix.ETH_P_ARP || [4]byte(b[28:32]) != [4]byte(b[38:42]) {
		return GratuitousARP{}, false
	}
	return GratuitousARP{
		Address: netip.AddrFrom4([4]byte(b[28:32])), MAC: append(net.HardwareAddr(nil), b[22:28]...),
	}, true
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
		if a.Source == n.Address {
			adverts = append(adverts, a)
		}
	}
	return adverts
}

// WaitGratuitousARP waits for the first gratuitous ARP of a node for an address since from.
func (w *Wire) WaitGratuitousARP(ctx context.Context, n *Node, address netip.Addr, from time.Time, limit time.Duration) (GratuitousARP, error) {
	var found GratuitousARP
	err := Wait(ctx, limit, func() error {
		for _, f := range w.Frames(from) {
			if g, ok := ParseGratuitousARP(f.Data); ok && g.Address == address && g.MAC.String() == n.MAC.String() {
				found = g
				found.Time = f.Time
				return nil
			}
		}
		return fmt.Errorf("no gratuitous ARP of %s for %s", n.Name, address)
	})
	return found, err
}

// Send puts a frame on the wire from the node's eth0, as it is.
func (n *Node) Send(frame []byte) error {
	return n.t.do(func() error {
		i, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		c, err := packet.Listen(i, packet.Raw, unix.ETH_P_LOOP, nil)
		if err != nil {
			return fmt.Errorf("send frame: %w", err)
		}
		defer c.Close()
		if _, err := c.WriteTo(frame, &packet.Addr{HardwareAddr: net.HardwareAddr(frame[:6])}); err != nil {
			return fmt.Errorf("send frame: %w", os.NewSyscallError("sendto", err))
		}
		return nil
	})
}

// SYN is a frame with the first segment of a TCP connection, checksums included.
func SYN(to, from net.HardwareAddr, source, target netip.AddrPort) []byte {
	b := make([]byte, 54)
	copy(b, to)
	copy(b[6:], from)
	binary.BigEndian.PutUint16(b[12:], unix.ETH_P_IP)
	ip, tcp := b[14:34], b[34:]
	ip[0], ip[8], ip[9] = 0x45, 64, unix.IPPROTO_TCP
	binary.BigEndian.PutUint16(ip[2:], 40)
	copy(ip[12:], source.Addr().AsSlice())
	copy(ip[16:], target.Addr().AsSlice())
	binary.BigEndian.PutUint16(ip[10:], checksum(0, ip))
	binary.BigEndian.PutUint16(tcp, source.Port())
	binary.BigEndian.PutUint16(tcp[2:], target.Port())
	tcp[12], tcp[13] = 5<<4, 2 // 20 bytes of header; SYN
	binary.BigEndian.PutUint16(tcp[14:], 65535)
	binary.BigEndian.PutUint16(tcp[16:], checksum(checksumOf(0, ip[12:20])+unix.IPPROTO_TCP+20, tcp))
	return b
}

// checksum is the Internet checksum of the bytes, with a sum to start from.
func checksum(sum uint32, b []byte) uint16 {
	sum = checksumOf(sum, b)
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

func checksumOf(sum uint32, b []byte) uint32 {
	for ; len(b) > 1; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	return sum
}
