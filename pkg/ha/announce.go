package ha

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// announcement is the frame that tells the link that addr is at mac. router is what a neighbour advertisement says of
// its sender.
func announcement(mac net.HardwareAddr, addr netip.Addr, router bool) []byte {
	if addr.Is4() {
		return gratuitousARP(mac, addr)
	}
	return neighbourAdvertisement(mac, addr, router)
}

// gratuitousARP is the whole frame that tells the link who holds addr: an ARP request for the address itself, as
// keepalived sends it. mac has 6 bytes.
func gratuitousARP(mac net.HardwareAddr, addr netip.Addr) []byte {
	ip := addr.As4()
	f := make([]byte, 0, 42)
	f = append(f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff)
	f = append(f, mac...)
	f = append(f, 0x08, 0x06) // ARP
	f = append(f, 0x00, 0x01, 0x08, 0x00, 6, 4, 0x00, 0x01)
	f = append(f, mac...)
	f = append(f, ip[:]...)
	f = append(f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff)
	return append(f, ip[:]...)
}

// neighbourAdvertisement is the whole frame of an unsolicited neighbour advertisement: "Set the Router (R) flag, unset
// the Solicited (S) flag, set the Override (O) flag, set the target address to the IPv6 address of the virtual
// router" (RFC 9568, 6.4.1); the R flag only where this box routes, since hosts drop a router that stops saying so.
// mac has 6 bytes.
func neighbourAdvertisement(mac net.HardwareAddr, addr netip.Addr, router bool) []byte {
	source, allNodes := addr.As16(), netip.MustParseAddr("ff02::1").As16()
	const length = 32
	f := make([]byte, 0, 14+40+length)
	f = append(f, 0x33, 0x33, 0, 0, 0, 1)
	f = append(f, mac...)
	f = append(f, 0x86, 0xdd)                                         // IPv6
	f = append(f, 0x60, 0, 0, 0, 0, length, unix.IPPROTO_ICMPV6, 255) // RFC 4861, 7.1.2: the hop limit shows that no router was passed
	f = append(f, source[:]...)
	f = append(f, allNodes[:]...)
	flags := byte(0x20)
	if router {
		flags |= 0x80
	}
	f = append(f, 136, 0, 0, 0, flags, 0, 0, 0)
	f = append(f, source[:]...)
	f = append(f, 2, 1) // option: target link-layer address, 8 bytes
	f = append(f, mac...)

	pseudo := append([]byte{}, f[22:54]...)
	pseudo = append(pseudo, 0, 0, 0, length, 0, 0, 0, unix.IPPROTO_ICMPV6)
	binary.BigEndian.PutUint16(f[56:], ^internetSum(append(pseudo, f[54:]...)))
	return f
}

// A burst is sent in pieces, and the holder does what else is to be done between them: a thousand addresses make five
// thousand frames, and an interval between them minutes.
const (
	batch      = 64
	batchPause = time.Millisecond
	maxRounds  = 200 // that can pile up

	// A frame that finds the kernel's queue full, as behind those of 255 addresses that come at once, is sent again; after a second
	// without room it is given up, and so is what comes after it until there is some.
	fullPause = 10 * time.Millisecond
	fullTries = 100
)

// burst is what is left to be announced.
type burst struct {
	rounds       int // not sent yet, the one under way included
	next         int // address within the round
	sent, missed int
	full         int             // times in a row that a frame found no room and was kept
	err          error           // of the last one missed
	routers      map[string]bool // interfaces that forward IPv6, as read in this burst
}

func (b *burst) add(rounds int) { b.rounds = min(b.rounds+rounds, maxRounds) }

// announce sends the next piece, and asks for the one after it.
func (h *holder) announce(w wish) {
	b := &h.burst
	n, pause := batch, batchPause
	if w.instance.ARPInterval > 0 {
		n, pause = 1, w.instance.ARPInterval
	}
	for ; n > 0 && b.rounds > 0; n-- {
		if !h.current().hold || len(w.instance.VirtualAddresses) == 0 {
			*b = burst{} // MASTER no more
			return
		}
		if b.next >= len(w.instance.VirtualAddresses) {
			b.next = 0
		}
		if !h.announceOne(w, w.instance.VirtualAddresses[b.next]) {
			pause = max(pause, fullPause)
			break
		}
		if b.next++; b.next == len(w.instance.VirtualAddresses) {
			b.next, b.rounds = 0, b.rounds-1
		}
	}
	if b.rounds > 0 {
		later(&h.pacing, pause, h.wake)
		return
	}
	if b.missed > 0 {
		h.log.Warn("neighbours not told all: they may send to the old MASTER until they ask again", "frames", b.missed, "of", b.sent,
			"interface", w.instance.Interface, "error", b.err)
	}
	*b = burst{}
}

// announceOne sends the frame for one address, out of its own interface. It is false if that has to be tried again.
func (h *holder) announceOne(w wish, v VirtualAddress) bool {
	name, index := w.instance.device(v), h.index(w, v)
	mac := w.links[name].MAC
	if name == w.instance.VirtualMAC {
		mac = virtualMAC(w.instance)
	}
	if _, held := h.held[spot{index, v.Prefix}]; !held && !h.foreign[v.Prefix.Addr()] || len(mac) != 6 {
		return true
	}
	router := false
	if v.Prefix.Addr().Is6() {
		known := false
		if router, known = h.burst.routers[name]; !known {
			router = h.host.sysctls.get(true, name, "forwarding") == "1"
			if h.burst.routers == nil {
				h.burst.routers = map[string]bool{}
			}
			h.burst.routers[name] = router
		}
	}
	b := &h.burst
	err := h.host.wire.sendWithin(0, index, announcement(mac, v.Prefix.Addr(), router))
	switch full := errors.Is(err, unix.ENOBUFS) || errors.Is(err, unix.EAGAIN); {
	case full && b.full < fullTries:
		b.full++
		return false
	case !full:
		b.full = 0
	}
	b.sent++
	if err != nil {
		b.missed, b.err = b.missed+1, err
	}
	return true
}
