package ha

import (
	"errors"
	"fmt"
	"time"
)

// readyPackets makes the priority-0 adverts of an instance that is MASTER, from its last advert.
func (i *instance) readyPackets() []ReadyPacket {
	a := i.out.advert
	a.Priority = 0
	if i.out.frame != nil {
		to := group
		if i.ipv6 {
			to = group6
		}
		return []ReadyPacket{{Interface: i.index, Destination: to, Packet: groupFrame(i.out.mac, i.out.source, a), Interval: a.Interval}}
	}
	var list []ReadyPacket
	for _, to := range i.out.peers {
		r := ReadyPacket{Destination: to.address, Packet: ipPacket(i.out.source, to.address, a), Interval: a.Interval}
		if to.address.Is6() && to.address.IsLinkLocalUnicast() {
			r.Interface = i.index
		}
		list = append(list, r)
	}
	return list
}

// Sender sends ready packets. It is opened beforehand, so that nothing but the sending is left to do. It is not safe for
// concurrent use.
type Sender struct {
	wire *wire
	unicast
}

// OpenSender opens a Sender in the network namespace of the calling thread.
func OpenSender() (*Sender, error) {
	w, err := openWire()
	if err != nil {
		return nil, err
	}
	u, err := openUnicast()
	if err != nil {
		w.close()
		return nil, err
	}
	return &Sender{wire: w, unicast: u}, nil
}

// Send sends the packets and never waits. One that is lost is not sent again; the error joins what could not be sent.
func (s *Sender) Send(packets []ReadyPacket) error {
	var errs []error
	for _, p := range packets {
		var err error
		if p.Destination.IsMulticast() {
			err = s.wire.sendWithin(0, p.Interface, p.Packet)
		} else {
			err = s.sendTo(p.Destination, p.Interface, p.Packet)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("send priority 0 to %s: %w", p.Destination, err))
		}
	}
	return errors.Join(errs...)
}

// Close gives the sockets back.
func (s *Sender) Close() {
	s.wire.close()
	s.unicast.close()
}

// SilentIntervals is how many of its intervals an instance may be without a sign of life of its process until its ready
// packets are sent. A peer takes over after three and more without an advert.
const SilentIntervals = 2

// idleLease is how much later than planned the loop may turn while no instance is MASTER and nothing is at stake.
const idleLease = 2 * time.Second
