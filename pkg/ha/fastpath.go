package ha

import (
	"io"
	"time"

	"github.com/xdirector/xdirector/pkg/lb"
	"github.com/xdirector/xdirector/pkg/vrrp"
)

// The plane absorbs for us only until absorbLease from the last sign of life, which comes every renewInterval.
const (
	renewInterval = 500 * time.Millisecond
	absorbLease   = 3 * renewInterval
)

// repeat is the last advert of the MASTER whom an instance obeys, as it came. A frame that is equal to it needs no second
// look: it is accepted for the same reasons, and does nothing but start the timer anew.
type repeat struct {
	frame  []byte // empty: there is none
	form   int    // of its checksum; -1: not counted
	peer   *heard // its sender
	differ *noticed
	given  bool // the plane knows it
}

// keep remembers an obeyed advert.
func (r *repeat) keep(frame []byte, form int, peer *heard) {
	r.frame, r.form, r.peer, r.given = append(r.frame[:0], frame...), form, peer, false
}

func (r *repeat) forget() { r.frame, r.peer, r.differ = r.frame[:0], nil, nil }

// fastPath is the plane as the loop uses it.
type fastPath struct {
	plane   FastPath // nil: none
	fd      int
	slots   map[uint32]*instance
	count   int       // of instances that are absorbed
	renewAt vrrp.Time // while there are some
}

// use replaces the plane.
func (l *loop) use(plane FastPath) {
	now := l.clock()
	for _, i := range l.instances {
		l.release(i, now)
	}
	l.abandonPlane()
	l.fast.plane = plane
	if plane == nil {
		return
	}
	l.fast.fd = plane.FD()
	if err := l.poller.add(l.fast.fd); err != nil {
		l.log.Error("adverts are not absorbed: the plane's timers can't be heard", "error", err)
		l.fast.plane, l.fast.fd = nil, -1
		return
	}
	for _, i := range l.instances {
		i.repeat.given = false
		l.gate(i)
	}
}

// abandonPlane lets go of the plane.
func (l *loop) abandonPlane() {
	if l.fast.plane == nil {
		return
	}
	l.poller.remove(l.fast.fd)
	if c, ok := l.fast.plane.(io.Closer); ok {
		if err := c.Close(); err != nil {
			l.log.Warn("plane not closed", "error", err)
		}
	}
	l.fast.plane, l.fast.fd = nil, -1
}

// gate opens or closes the plane for frames to the virtual MAC: "MUST NOT [...] forward" for a BACKUP, RFC 9568 6.4.2.
func (l *loop) gate(i *instance) {
	if l.fast.plane != nil && i.cfg.Slot != 0 {
		l.fast.plane.Gate(i.cfg.Slot, i.machine.State() == vrrp.Master)
	}
}

// secondChance is for connections that outlive a handover by so long; see FastPath.
const secondChance = 10 * time.Second

// succession has the plane know who was MASTER before, or that we were it. Who has been silent for two intervals is dead, or hears
// nobody: what is sent there would be lost. Nor is a virtual MAC address the way to a single box.
func (l *loop) succession(i *instance, now vrrp.Time, c vrrp.Changed) {
	virtual := i.before[0] == 0 && i.before[1] == 0 && i.before[2] == 0x5e && i.before[3] == 0
	switch {
	case c.From == vrrp.Master:
		l.secondChance(i, now, lb.MAC{})
	case c.To == vrrp.Master && !i.before.IsZero() && !virtual && now-i.beforeAt <= 2*i.given.Interval:
		l.secondChance(i, now, i.before)
	case c.To == vrrp.Master:
		l.noSecondChance(i)
	}
}

func (l *loop) secondChance(i *instance, now vrrp.Time, previous lb.MAC) {
	if l.fast.plane != nil && i.cfg.Slot != 0 {
		l.fast.plane.SecondChance(i.cfg.Slot, previous, i.index, now-l.asleep+secondChance)
	}
}

func (l *loop) noSecondChance(i *instance) {
	if l.fast.plane != nil && i.cfg.Slot != 0 {
		l.fast.plane.SecondChance(i.cfg.Slot, lb.MAC{}, 0, 0)
	}
}

// placed gives the plane's slots to the instances of the configuration; before is an instance's former one.
func (l *loop) placed(i *instance, before uint32) {
	if before != i.cfg.Slot && before != 0 {
		delete(l.fast.slots, before)
		if l.fast.plane != nil {
			l.fast.plane.Gate(before, false)
			l.fast.plane.SecondChance(before, lb.MAC{}, 0, 0)
		}
	}
	if i.cfg.Slot != 0 {
		l.fast.slots[i.cfg.Slot] = i
		l.gate(i)
	}
}

// offer gives the plane the advert that i has kept: repeats of it are let through whatever else comes in the name of their
// sender, or absorbed. Neither the addresses that are about to go nor a handover have a place in the plane's timer: there, and
// while MASTER, every advert arrives.
func (l *loop) offer(i *instance, now vrrp.Time) {
	f := &l.fast
	if f.plane == nil || i.absorbing || i.cfg.Slot == 0 || len(i.repeat.frame) == 0 || i.machine.State() != vrrp.Backup {
		return
	}
	if !i.cfg.Absorb || i.holds || i.leaving {
		if !i.repeat.given {
			i.repeat.given = true
			f.plane.Absorb(i.cfg.Slot, i.repeat.frame, 0)
		}
		return
	}
	if f.count == 0 {
		l.renew(now)
	}
	if i.repeat.given = true; !f.plane.Absorb(i.cfg.Slot, i.repeat.frame, i.machine.Patience()) {
		return
	}
	i.absorbing = true
	f.count++
	l.arm(i)
}

// release ends the absorbing, and tells the machine what was absorbed. It comes before every decision: an advert that
// arrives from now on is in the socket, one that came before is in LastSeen, and none is between.
func (l *loop) release(i *instance, now vrrp.Time) {
	if !i.absorbing {
		return
	}
	l.fast.plane.Release(i.cfg.Slot)
	i.absorbing = false
	l.fast.count--
	l.hearAbsorbed(i, now)
}

// hearAbsorbed tells the machine when the last absorbed advert came.
func (l *loop) hearAbsorbed(i *instance, now vrrp.Time) {
	if last := l.fast.plane.LastSeen(i.cfg.Slot); last != 0 {
		l.give(i, now, vrrp.Heard{At: min(last+l.asleep, now)})
		if i.beforeAt = max(i.beforeAt, min(last+l.asleep, now)); i.repeat.peer != nil {
			i.repeat.peer.at = now
		}
		if i.repeat.differ != nil {
			i.repeat.differ.heard = now
		}
	}
	l.arm(i)
}

// renew says that we live, and looks whether a timer of the plane should have run out: a program that was exchanged or a
// lost event must not make a BACKUP wait for ever. The plane's clock stands still while the box is suspended, and an
// instance that is absorbed has no timer that could be late then.
func (l *loop) renew(now vrrp.Time) {
	l.look()
	l.fast.renewAt = now + renewInterval
	l.fast.plane.Renew(now - l.asleep + absorbLease)
	for _, i := range l.instances {
		if !i.absorbing {
			continue
		}
		l.hearAbsorbed(i, now)
		if due, ok := i.machine.Deadline(); ok && due <= now {
			l.silent(i)
		}
	}
}

// expired takes the slots whose timers in the kernel ran out. That makes them candidates and no more.
func (l *loop) expired() {
	for _, slot := range l.fast.plane.Expired() {
		if i := l.fast.slots[slot]; i != nil && i.absorbing {
			l.silent(i)
		}
	}
}
