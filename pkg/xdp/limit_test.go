package xdp

import (
	"testing"
	"time"

	"github.com/xdirector/xdirector/pkg/lb"
)

// The limits of bpf/limit.h, per second and at once.
const (
	senderRate, senderBurst = 300, 100
	routerRate, routerBurst = 1000, 300
)

// flooded gives the adverts to the plane and returns how many have passed, and how many may have in that time.
func flooded(t *testing.T, p *Plane, rate, burst, n int, next func(int) advert) (passed, most int) {
	t.Helper()
	began := monotonic()
	for i := range n {
		if action, _ := run(t, p, next(i).bytes()); action == xdpPass {
			passed++
		}
	}
	took := monotonic() - began
	// One in each second that is news passes beside the limit.
	return passed, burst + int(took*time.Duration(rate)/time.Second) + 2 + int(took/time.Second)
}

func TestAFloodOfSoundAdvertsIsCutForEachSenderAndForAllTogether(t *testing.T) {
	p := newTestPlane(t, tableState())
	check := func(what string, passed, least, most int) {
		t.Helper()
		if passed < least || passed > most {
			t.Errorf("%s: %d passed, want %d to %d", what, passed, least, most)
		}
	}
	passed, most := flooded(t, p, senderRate, senderBurst, 2000, func(int) advert { return advert{} })
	check("one sender", passed, senderBurst, most)
	forget(t, p)
	passed, most = flooded(t, p, routerRate, routerBurst, 2000, func(i int) advert {
		return advert{from: many(i + 1)[i], source: lb.MAC{2, 1, 0, 0, byte(i >> 8), byte(i)}}
	})
	check("as many senders as adverts", passed, routerBurst, most)
	forget(t, p)
	passed, most = flooded(t, p, routerRate, routerBurst, 2000, func(i int) advert { return advert{from: many(i + 1)[i], broken: true} })
	check("as many senders of broken ones", passed, routerBurst, most)
	// Sound ones, also those that are no news, have their own rate.
	passed, most = flooded(t, p, senderRate, senderBurst, senderBurst, func(int) advert { return advert{priority: 10} })
	check("one sender beside them", passed, senderBurst, most)
	passed, most = flooded(t, p, routerRate, routerBurst, 2000, func(i int) advert { return advert{from: many(i + 1)[i]} })
	check("as many senders as adverts again", passed, routerBurst-senderBurst, most)
	// Nor does that keep priority 0 or a higher priority from the election: the first in a second.
	if action, _ := run(t, p, advert{priority: -1}.bytes()); action != xdpPass {
		t.Error("priority 0 drowned in the flood")
	}
	if action, _ := run(t, p, advert{priority: 254}.bytes()); action != xdpPass {
		t.Error("a higher priority drowned in the flood")
	}
	// Another router has a rate of its own.
	if action, _ := run(t, p, advert{version: 2}.bytes()); action != xdpPass {
		t.Error("the flood of one router has cut another one")
	}
}

func TestOneOfASecondPassesOfEachSenderAndReason(t *testing.T) {
	p := newTestPlane(t, tableState())
	passed := map[int]int{}
	kinds := []advert{{broken: true}, {ttl: 1}, {broken: true, from: serverAddress(77)}}
	began := monotonic()
	for monotonic() < began+1200*time.Millisecond {
		for i, a := range kinds {
			if action, _ := run(t, p, a.bytes()); action == xdpPass {
				passed[i]++
			}
		}
	}
	most := 1 + int((monotonic()-began)/time.Second)
	for i := range kinds {
		if passed[i] < 2 || passed[i] > most {
			t.Errorf("%d of kind %d passed, want 2 to %d", passed[i], i, most)
		}
	}
}

// A flood in the name of the MASTER, which even has its MAC address, doesn't starve what the MASTER sends.
func TestAFloodInTheNameOfTheMasterDoesNotStarveIt(t *testing.T) {
	p := newTestPlane(t, tableState())
	f := openFastPath(t, p)
	slot := p.Slots()["v3"]
	f.Gate(slot, false)
	master := advert{}.bytes()
	f.Absorb(slot, master, 0)
	forged := advert{priority: 10}
	flooded(t, p, senderRate, senderBurst, 1000, func(int) advert { return forged })
	flooded(t, p, routerRate, routerBurst, 1000, func(i int) advert { return advert{priority: 10, from: many(i + 1)[i]} })
	if action, _ := run(t, p, master); action != xdpPass {
		t.Error("the MASTER's advert was cut")
	}
}
