package ha

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/xdirector/xdirector/pkg/lb"
	"github.com/xdirector/xdirector/pkg/vrrp"
)

// outbox sends adverts. Those to a group leave as whole frames by one packet socket, so that the Ethernet source is what it
// should be whatever becomes of a virtual MAC's device, and what is due at the same time leaves with one system call. Those
// to unicast peers are routed by the kernel.
type outbox struct {
	fd int
	unicast
	messages
	from [batchSize]*instance
	n    int
}

func openOutbox() (*outbox, error) {
	fd, err := openPacketSender()
	if err != nil {
		return nil, err
	}
	o := &outbox{fd: fd}
	o.init()
	if o.unicast, err = openUnicast(); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return o, nil
}

// add has a frame sent out of the interface with that index by the next flush; until then the frame must not change.
func (o *outbox) add(i *instance, index int, frame []byte, now vrrp.Time) {
	if o.n == batchSize {
		o.flush(now)
	}
	o.set(o.n, frame)
	o.names[o.n] = unix.RawSockaddrLinklayer{Family: unix.AF_PACKET, Protocol: networkOrder(unix.ETH_P_IP), Ifindex: int32(index), Halen: 6}
	if i.ipv6 {
		o.names[o.n].Protocol = networkOrder(unix.ETH_P_IPV6)
	}
	o.from[o.n] = i
	o.n++
}

// flush sends what was added, and tells each instance what became of it. It never waits: when the queue of an interface is full, its
// adverts are lost, and the others are in time.
func (o *outbox) flush(now vrrp.Time) {
	for at := 0; at < o.n; {
		sent, err := o.send(o.fd, at, o.n)
		for range sent {
			o.from[at].delivered(now, nil)
			at++
		}
		if err != nil && !errors.Is(err, unix.EINTR) {
			o.from[at].delivered(now, err)
			at++
		}
	}
	o.n = 0
}

func (o *outbox) close() {
	unix.Close(o.fd)
	o.unicast.close()
}

// unicast is raw IP sockets, by family, that send whole packets and receive nothing. -1: the box has no such family.
type unicast struct{ fd4, fd6 int }

func openUnicast() (u unicast, err error) {
	if u.fd4, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_RAW); err != nil {
		return u, fmt.Errorf("open a raw socket for adverts: %w%s", err, cure(err))
	}
	// Without it the kernel says that an advert was sent that the queue of the interface has dropped.
	_ = unix.SetsockoptInt(u.fd4, unix.SOL_IP, unix.IP_RECVERR, 1)
	if u.fd6, err = unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_RAW); err != nil {
		u.fd6 = -1
	} else {
		_ = unix.SetsockoptInt(u.fd6, unix.SOL_IPV6, unix.IPV6_RECVERR, 1)
	}
	for _, fd := range []int{u.fd4, u.fd6} {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PRIORITY, 7)
	}
	return u, nil
}

// sendTo sends an IP packet to a peer. A link-local one is on the interface with that index.
func (u unicast) sendTo(peer netip.Addr, index int, packet []byte) error {
	fd, to := u.fd4, unix.Sockaddr(nil)
	if peer.Is4() {
		to = &unix.SockaddrInet4{Addr: peer.As4()}
	} else {
		v6 := &unix.SockaddrInet6{Addr: peer.As16()}
		if peer.IsLinkLocalUnicast() {
			v6.ZoneId = uint32(index)
		}
		fd, to = u.fd6, v6
	}
	err := unix.Sendto(fd, packet, unix.MSG_DONTWAIT, to)
	if err == nil || errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.ENOBUFS) {
		return err
	}
	// What IP_RECVERR has left of an earlier packet (nobody there, no route) is told once and is no reason to keep this one.
	return unix.Sendto(fd, packet, unix.MSG_DONTWAIT, to)
}

func (u unicast) close() {
	for _, fd := range []int{u.fd4, u.fd6} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}

// prepared is an instance's packets as they were sent last: what doesn't change is not made again.
type prepared struct {
	advert vrrp.Advert
	source netip.Addr
	mac    lb.MAC
	frame  []byte // to the group; nil: there are peers
	peers  []peer // unicast
	id     uint16 // of the last IPv4 packet
}

// peer is a packet ready for a unicast peer.
type peer struct {
	address netip.Addr
	packet  []byte
}

// prepare makes the packets for an advert, or numbers those that are there. anew: they are others than before.
func (p *prepared) prepare(a vrrp.Advert, source netip.Addr, mac lb.MAC, peers []netip.Addr) (anew bool) {
	if p.advert.Addresses == nil || !sameAdvert(a, p.advert) || p.source != source || p.mac != mac || !p.meant(peers) {
		anew = true
		p.advert, p.source, p.mac, p.frame, p.peers = a, source, mac, nil, nil
		p.advert.Addresses = slices.Clone(a.Addresses)
		for _, address := range peers {
			p.peers = append(p.peers, peer{address, ipPacket(source, address, a)})
		}
		if peers == nil {
			p.frame = groupFrame(mac, source, a)
		}
	}
	if source.Is6() {
		return anew
	}
	if p.id++; p.id == 0 {
		p.id = 1 // the kernel would replace a 0
	}
	if p.frame != nil {
		number(p.frame[etherHeader:], p.id)
	}
	for _, to := range p.peers {
		number(to.packet, p.id)
	}
	return anew
}

// meant says whether the packets are for these peers.
func (p *prepared) meant(peers []netip.Addr) bool {
	return slices.EqualFunc(p.peers, peers, func(a peer, b netip.Addr) bool { return a.address == b })
}

func sameAdvert(a, b vrrp.Advert) bool {
	addresses := slices.Equal(a.Addresses, b.Addresses)
	return addresses && a.Version == b.Version && a.VRID == b.VRID && a.Priority == b.Priority && a.Interval == b.Interval &&
		a.AuthType == b.AuthType && a.Checksum == b.Checksum && a.Password == b.Password
}

// groupFrame is the whole frame with an advert to the group.
func groupFrame(mac lb.MAC, source netip.Addr, a vrrp.Advert) []byte {
	f := []byte{0x01, 0, 0x5e, 0, 0, 0x12, mac[0], mac[1], mac[2], mac[3], mac[4], mac[5], 0x08, 0x00}
	to := group
	if source.Is6() {
		copy(f, []byte{0x33, 0x33, 0, 0, 0, 0x12})
		f[12], f[13] = 0x86, 0xdd
		to = group6
	}
	return append(f, ipPacket(source, to, a)...)
}
