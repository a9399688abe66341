package vrrp

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestWholeLANEndsWithOneMaster lets two to four directors with one to three virtual routers each, in a sync group or
// not, live through loss, delay, duplicates, partitions, crashes, stops, failures, suspensions, tracked priorities,
// yields and holds. When the network is whole again, exactly one of them is MASTER of each virtual router, in a
// sync group the same one of all, and it stays; with preempt it has the highest priority.
func TestWholeLANEndsWithOneMaster(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := newLAN(t)
		for range rapid.IntRange(0, 25).Draw(t, "events") {
			l.disturb()
			l.run(time.Duration(rapid.Float64Range(0, 5).Draw(t, "pause in intervals") * float64(l.interval)))
		}
		l.repair()
		l.run(l.longest())
		if l.yields() { // what is offered then is taken
			l.run(max(offerPause, offerAdverts*l.interval) + l.longest())
		}
		winners := l.masters()
		transitions := l.transitions
		l.run(12 * l.interval)
		if !slices.Equal(l.masters(), winners) || l.transitions != transitions {
			t.Fatalf("the election is not over when it should be: %d transitions after it", l.transitions-transitions)
		}
		for vrid, winner := range winners {
			for _, b := range l.boxes {
				if n := b.nodes[vrid]; n.m != nil && n.m.State() != Init && n.held && n != winner {
					t.Fatalf("%s is %s and has the addresses still", n.name(), n.m.State())
				}
			}
			if winner != nil && winner.m.yields() && slices.ContainsFunc(l.boxes, func(b *box) bool { return b.takesPart() && !b.nodes[vrid].m.yields() }) {
				t.Fatalf("%s is MASTER though it is to yield", winner.name())
			}
			if highest := l.highest(vrid); winner != nil && l.preempt && winner.m.Priority() != highest {
				t.Fatalf("%s is MASTER with priority %d, but somebody has %d", winner.name(), winner.m.Priority(), highest)
			}
		}
	})
}

// TestAWholeLANAgreesWithinOneMasterDownInterval is the same for a single virtual router without waits of its own.
func TestAWholeLANAgreesWithinOneMasterDownInterval(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := newLAN(t)
		l.grouped = false
		l.disturbances = []string{"start", "start", "start", "crash", "stop", "fail", "split", "join", "loss", "sleep"}
		for range rapid.IntRange(0, 25).Draw(t, "events") {
			l.disturb()
			l.run(time.Duration(rapid.Float64Range(0, 5).Draw(t, "pause in intervals") * float64(l.interval)))
		}
		l.repair()
		// Adverts that were on the way are one delay late, the new MASTER's first one takes another.
		l.run(3*l.interval + l.largestSkew() + 2*l.delay)
		l.masters()
	})
}

// TestTwoMastersAgreeWithinOneInterval joins two halves that both have a MASTER.
func TestTwoMastersAgreeWithinOneInterval(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := newLAN(t)
		for i, b := range l.boxes {
			b.side = i
			l.start(b)
		}
		l.run(time.Duration(rapid.Float64Range(5, 10).Draw(t, "split in intervals")*float64(l.interval)) + time.Second)
		for _, b := range l.boxes {
			for _, n := range b.nodes {
				if n.m.State() != Master {
					t.Fatalf("%s is alone, but %s", n.name(), n.m.State())
				}
			}
			b.side = 0
		}
		span := l.interval + 2*l.delay
		if l.grouped {
			span += l.interval/10 + 6*l.delay // priority 0 for the other members, who hears it takes over, and is answered
		}
		l.run(span)
		for vrid, winner := range l.masters() {
			for _, b := range l.boxes {
				n := b.nodes[vrid]
				if n.m.Priority() > winner.m.Priority() || n.m.Priority() == winner.m.Priority() && winner.address.Less(n.address) {
					t.Fatalf("%s is MASTER (priority %d), but %s has priority %d", winner.name(), winner.m.Priority(), n.name(), n.m.Priority())
				}
			}
		}
	})
}

// TestWhoStoodStillIsNoSecondMaster suspends directors for any time in a network that loses nothing: when they go on
// there are never two MASTERs for longer than adverts need to arrive.
func TestWhoStoodStillIsNoSecondMaster(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := newLAN(t)
		for _, b := range l.boxes {
			l.start(b)
		}
		l.run(l.longest())
		l.both = make([]Time, l.vrids)
		for range rapid.IntRange(1, 4).Draw(t, "suspensions") {
			b := l.boxes[rapid.IntRange(0, len(l.boxes)-1).Draw(t, "box")]
			b.away, b.asleep = true, l.now+time.Duration(rapid.Float64Range(0, 12).Draw(t, "sleep in intervals")*float64(l.interval))
			l.run(b.asleep - l.now + time.Duration(rapid.Float64Range(0, 8).Draw(t, "pause in intervals")*float64(l.interval)))
		}
		for vrid, both := range l.both {
			if both > 5*2*l.delay {
				t.Fatalf("virtual router %d had two MASTERs for %s", vrid, both)
			}
		}
	})
}

// TestAHandoverLeavesNoGap hands over in every way that there is, in a network that loses nothing: from the beginning to
// the end somebody has the addresses.
func TestAHandoverLeavesNoGap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := newLAN(t)
		for _, b := range l.boxes {
			l.start(b)
		}
		l.run(l.longest())
		l.ordered, l.twice = true, 0 // an advert that arrives after priority 0 brings a dead MASTER back
		l.gap = func(vrid int) {
			t.Fatalf("at %s nobody has the addresses of virtual router %d", l.now, vrid)
		}
		for range rapid.IntRange(1, 6).Draw(t, "handovers") {
			l.disturbances = []string{"stop", "yield", "hold", "unyield", "unhold", "track", "start"}
			b := l.boxes[rapid.IntRange(0, len(l.boxes)-1).Draw(t, "box")]
			others := 0
			for _, other := range l.boxes {
				if other != b && other.takesPart() {
					others++
				}
			}
			if others > 0 {
				l.disturbBox(b)
			}
			l.run(l.longest())
		}
	})
}
