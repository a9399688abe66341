package ha

import (
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xdirector/xdirector/pkg/vrrp"
)

// Garbage would have to be collected, beside the adverts: with many instances that is more work than they are.
func TestAdvertsLikeTheOnesBeforeMakeNoGarbage(t *testing.T) {
	a, b := twoBoxesAlone(t)
	var word uint64
	master := newFastLoopIn(t, a, b, func(c *Instance) {
		c.VRRP.Priority, c.Slot, c.Absorb, c.VRRP.Announce.Delay = 255, 0, false, -1
	})
	master.lease.word = &word
	send := func() {
		now, _ := master.i.machine.Deadline()
		master.step(master.i, now, vrrp.Tick{})
		master.flush()
		master.tell(master.clock())
	}
	send()
	before := master.i.sent
	if n := testing.AllocsPerRun(100, send); n > 0 {
		t.Errorf("an advert sent allocates %v times", n)
	}
	if sent := master.i.sent - before; sent != 101 || word == 0 {
		t.Errorf("%d adverts sent, lease %d", sent, word)
	}

	backup := newFastLoopIn(t, a, b, func(c *Instance) { c.Slot, c.Absorb = 0, false })
	backup.hear(backup.advert(200))
	f := slices.Clone(backup.i.repeat.frame)
	from := &unix.RawSockaddrLinklayer{Ifindex: int32(backup.i.index)}
	at := backup.clock()
	hear := func() {
		at += time.Millisecond
		backup.arrived(backup.i.port, f, from, at)
		backup.timers.first()
	}
	received := backup.i.received
	if n := testing.AllocsPerRun(100, hear); n > 0 {
		t.Errorf("an advert heard again allocates %v times", n)
	}
	if heard := backup.i.received - received; heard != 101 {
		t.Errorf("%d adverts received", heard)
	}
}
