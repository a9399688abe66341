package vrrp

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestWholeLANEndsWithOneMaster lets two to four directors live through loss, delay, partitions, crashes, stops,
// failures and suspensions. When the network is whole again, exactly one of them is MASTER within one master-down
// interval (and the way of one advert), and it stays; with preempt it has the highest priority.
func TestWholeLANEndsWithOneMaster(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := newLAN(t)
		for range rapid.IntRange(0, 25).Draw(t, "events") {
			l.disturb()
			l.run(time.Duration(rapid.Float64Range(0, 5).Draw(t, "pause in intervals") * float64(l.interval)))
		}
		l.repair()
		// Adverts that were on the way are one delay late, the new MASTER's first one takes another.
		l.run(3*l.interval + l.largestSkew() + 2*l.delay)
		winner := l.onlyMaster()
		transitions := l.transitions
		l.run(5 * l.interval)
		if l.onlyMaster() != winner || l.transitions != transitions {
			t.Fatalf("the election is not over when it should be: %d transitions after it", l.transitions-transitions)
		}
		if highest := l.highestPriority(); l.preempt && winner.cfg.Priority != highest {
			t.Fatalf("%s is MASTER with priority %d, but somebody has %d", winner.address, winner.cfg.Priority, highest)
		}
	})
}

// TestTwoMastersAgreeWithinOneInterval joins two halves that both have a MASTER.
func TestTwoMastersAgreeWithinOneInterval(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := newLAN(t)
		for i, n := range l.nodes {
			n.side = i
			l.start(n)
		}
		l.run(time.Duration(rapid.Float64Range(5, 10).Draw(t, "split in intervals")*float64(l.interval)) + time.Second)
		for _, n := range l.nodes {
			if n.m.State() != Master {
				t.Fatalf("%s is alone, but %s", n.address, n.m.State())
			}
			n.side = 0
		}
		l.run(l.interval + 2*l.delay)
		winner := l.onlyMaster()
		for _, n := range l.nodes {
			if n.cfg.Priority > winner.cfg.Priority || n.cfg.Priority == winner.cfg.Priority && winner.address.Less(n.address) {
				t.Fatalf("%s (priority %d) is MASTER, but %s has priority %d", winner.address, winner.cfg.Priority, n.address, n.cfg.Priority)
			}
		}
	})
}

// lan is a simulated network with its own clock.
type lan struct {
	t           *rapid.T
	random      *rand.Rand // for what happens to single packets
	now         Time
	interval    time.Duration
	preempt     bool
	delay       time.Duration // of a packet, at most
	loss        float64       // share of packets
	nodes       []*node
	wire        []frame // not sorted
	transitions int
}

type node struct {
	address  netip.Addr
	cfg      Config
	m        *Machine // nil: the process is not there
	side     int      // of a partition
	asleep   Time     // suspended until
	waiting  []frame  // arrived meanwhile
	held     bool     // the addresses are on the interface
	lastSent Time
	wasUp    bool // it was MASTER when the process died
}

type frame struct {
	at     Time
	from   *node
	to     *node
	packet Packet
}

func newLAN(t *rapid.T) *lan {
	l := &lan{
		t:       t,
		random:  rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0)),
		preempt: rapid.Bool().Draw(t, "preempt"),
	}
	version := rapid.SampledFrom([]uint8{2, 3}).Draw(t, "version")
	l.interval = rapid.SampledFrom([]time.Duration{time.Second, 3 * time.Second}).Draw(t, "interval")
	if version == 3 {
		l.interval /= 10
	}
	l.delay = l.interval / 20
	priorities := rapid.SliceOfN(rapid.SampledFrom([]uint8{1, 50, 100, 100, 200, 254, 255}), 2, 4).Draw(t, "priorities")
	for i, priority := range priorities {
		l.nodes = append(l.nodes, &node{
			address: netip.AddrFrom4([4]byte{10, 9, 0, byte(i + 1)}),
			cfg:     Config{Version: version, VRID: 51, Priority: priority, Interval: l.interval, Preempt: l.preempt, Addresses: []netip.Addr{vip}},
		})
	}
	return l
}

// disturb does one harm, or undoes one.
func (l *lan) disturb() {
	n := l.nodes[rapid.IntRange(0, len(l.nodes)-1).Draw(l.t, "node")]
	switch what := rapid.SampledFrom([]string{"start", "start", "start", "crash", "stop", "fail", "split", "join", "loss", "sleep"}).Draw(l.t, "event"); {
	case what == "start":
		l.start(n)
	case what == "split":
		n.side = rapid.IntRange(0, 2).Draw(l.t, "side")
	case what == "join":
		l.join()
	case what == "loss":
		l.loss = rapid.Float64Range(0, 1).Draw(l.t, "loss")
	case n.m == nil || l.now < n.asleep:
	case what == "crash":
		n.wasUp = n.m.State() == Master
		n.m, n.waiting = nil, nil
	case what == "stop":
		l.step(n, Stop{})
	case what == "fail":
		l.step(n, Fail{Reason: "no carrier"})
	case what == "sleep":
		n.asleep = l.now + time.Duration(rapid.Float64Range(0, 6).Draw(l.t, "sleep in intervals")*float64(l.interval))
	}
}

// start starts what is not running, as pkg/ha does it.
func (l *lan) start(n *node) {
	if l.now < n.asleep {
		return
	}
	resume := false
	if n.m == nil {
		n.m = New(n.cfg)
		resume = n.wasUp && l.now-n.lastSent < 3*l.interval
		n.held, n.wasUp = resume, false
	}
	l.step(n, Start{Source: n.address, Resume: resume})
}

func (l *lan) join() {
	for _, n := range l.nodes {
		n.side = 0
	}
}

// repair ends all harm, and sees to it that somebody takes part.
func (l *lan) repair() {
	l.join()
	l.loss = 0
	for _, n := range l.nodes {
		l.wake(n)
	}
	if len(l.taking()) == 0 {
		n := l.nodes[0]
		n.m, n.wasUp = nil, false
		l.start(n)
	}
}

// taking returns the nodes that take part in the election.
func (l *lan) taking() []*node {
	var out []*node
	for _, n := range l.nodes {
		if n.m != nil && !n.m.stopping && (n.m.State() == Backup || n.m.State() == Master) {
			out = append(out, n)
		}
	}
	return out
}

func (l *lan) highestPriority() uint8 {
	highest := uint8(0)
	for _, n := range l.taking() {
		highest = max(highest, n.cfg.Priority)
	}
	return highest
}

func (l *lan) largestSkew() time.Duration {
	lowest := uint8(Owner)
	for _, n := range l.taking() {
		lowest = min(lowest, n.cfg.Priority)
	}
	unit := l.interval
	if l.nodes[0].cfg.Version == 2 {
		unit = time.Second
	}
	return time.Duration(256-int(lowest)) * unit / 256
}

func (l *lan) onlyMaster() *node {
	var masters []*node
	text := ""
	for _, n := range l.taking() {
		text += fmt.Sprintf(" %s=%s(%d)", n.address, n.m.State(), n.cfg.Priority)
		if n.m.State() == Master {
			masters = append(masters, n)
		}
	}
	if len(masters) != 1 {
		l.t.Fatalf("at %s there are %d MASTERs:%s", l.now, len(masters), text)
	}
	return masters[0]
}

// run lets time go by.
func (l *lan) run(span time.Duration) {
	for end := l.now + span; ; {
		next, do := end, func() {}
		earlier := func(at Time, what func()) {
			if at < next {
				next, do = max(at, l.now), what
			}
		}
		for i, f := range l.wire {
			earlier(f.at, func() {
				l.wire = slices.Delete(l.wire, i, i+1)
				l.arrive(f)
			})
		}
		for _, n := range l.nodes {
			if n.asleep > l.now {
				earlier(n.asleep, func() { l.wake(n) })
			} else if n.m != nil {
				if deadline, ok := n.m.Deadline(); ok {
					earlier(deadline, func() { l.step(n, Tick{}) })
				}
			}
		}
		l.now = next
		if next >= end {
			return
		}
		do()
	}
}

func (l *lan) arrive(f frame) {
	switch {
	case f.to.m == nil || f.to.side != f.from.side:
	case f.to.asleep > l.now:
		f.to.waiting = append(f.to.waiting, f)
	default:
		l.step(f.to, f.packet)
	}
}

// wake reads the socket empty before anything else.
func (l *lan) wake(n *node) {
	n.asleep = l.now
	for _, f := range n.waiting {
		l.step(n, f.packet)
	}
	n.waiting = nil
}

// step gives an event to a node, carries the actions out and checks what must always hold.
func (l *lan) step(n *node, event Event) {
	before, wasStopping := n.m.State(), n.m.stopping
	sends := 0
	for _, action := range n.m.Step(l.now, event) {
		switch a := action.(type) {
		case Send:
			sends++
			l.send(n, a.Advert)
			_, failed := event.(Fail)
			if (a.Advert.Priority == 0) != (n.m.handing || failed) || n.m.State() != Master && !failed && !n.m.handing {
				l.t.Fatalf("%s sends priority %d in %s, stopping %t", n.address, a.Advert.Priority, n.m.State(), n.m.stopping)
			}
		case AddAddresses:
			n.held = true
		case RemoveAddresses:
			if !n.held {
				l.t.Fatalf("%s removes addresses that it does not have", n.address)
			}
			n.held = false
		case Changed:
			if !wasStopping {
				l.transitions++
			}
			if a.From != before || a.To != n.m.State() || a.From == a.To || a.Reason == "" {
				l.t.Fatalf("%s tells of %+v, but went from %s to %s", n.address, a, before, n.m.State())
			}
		case Stopped:
			if !wasStopping && before == Master || n.held {
				l.t.Fatalf("%s has stopped without handing over, addresses held: %t", n.address, n.held)
			}
		case Refused:
			l.t.Fatalf("%s refuses a good advert: %s", n.address, a.Text)
		case Mismatch:
			if a.Kind != "" && a.Kind != MismatchOwner && a.Kind != MismatchSplitBrain {
				l.t.Fatalf("%s sees a difference where none is: %s", n.address, a.Text)
			}
		}
	}
	if sends > 1 {
		l.t.Fatalf("%s sends %d adverts at once", n.address, sends)
	}
	if wrong := broken(n.m, l.now, l.interval); wrong != "" {
		l.t.Fatalf("%s at %s after %T: %s: %+v", n.address, l.now, event, wrong, n.m)
	}
	if n.held != n.m.held {
		l.t.Fatalf("%s has addresses: %t, its machine thinks %t", n.address, n.held, n.m.held)
	}
	if deadline, ok := n.m.Deadline(); ok && deadline <= l.now && event == (Tick{}) {
		l.t.Fatalf("%s wants to be ticked at %s, but it was just then", n.address, deadline)
	}
}

// broken says which rule a machine violates at now, if nobody has an advert interval longer than interval.
func broken(m *Machine, now Time, interval time.Duration) string {
	_, waits := m.Deadline()
	announces := m.bursts.soon.set || m.bursts.again.set || m.bursts.refresh.set
	lingers := m.leaves() && m.state == Backup && m.remove.set
	switch {
	case m.stopping && m.state != Master && m.state != Backup:
		return "it stops without anything to hand over"
	case m.handing && !m.held:
		return "it hands over what it does not have"
	case m.handing && m.timer.set == m.remove.set:
		return "a handover waits for a successor or for the end, one of them"
	case m.hold() != "" && m.state == Master && !m.handing:
		return "MASTER although it is held"
	case m.leaves() && m.state == Backup && !m.handing && !m.remove.set:
		return "BACKUP that should have left"
	case m.state != Master && announces || m.handing && announces:
		return "who is not MASTER announces"
	case m.state != Master && (m.gone.set || m.follow != ""):
		return "who is not MASTER remembers what a MASTER knows"
	case m.state == Master && !m.held:
		return "MASTER without addresses"
	case m.handing || lingers:
	case m.state == Master && !m.timer.set:
		return "MASTER without an advert timer"
	case m.state == Master && (m.timer.at > now+m.cfg.Interval || m.timer.at >= m.doubt || m.sent > now):
		return "MASTER that lets the others wait longer than its interval"
	case m.state == Master && m.remove.set:
		return "MASTER that will lose its addresses"
	case m.state == Backup && !m.timer.set:
		return "BACKUP without a master-down timer"
	case m.state == Backup && m.timer.at > now+m.downAdverts()*interval+max(interval, time.Second):
		return "BACKUP that waits too long"
	case m.state == Backup && (m.interval < 10*time.Millisecond || m.interval > interval):
		return "BACKUP that learned an interval nobody has"
	case m.remove.set && m.remove.at > now+lingerTime:
		return "addresses stay too long"
	case (m.state == Init || m.state == Fault) && (waits || m.held):
		return "a timer runs or addresses are there without an election"
	}
	return ""
}

func (l *lan) send(from *node, a Advert) {
	from.lastSent = l.now
	for _, to := range l.nodes {
		if to == from || to.side != from.side || l.random.Float64() < l.loss {
			continue
		}
		l.wire = append(l.wire, frame{
			at:     l.now + time.Duration(l.random.Int64N(int64(l.delay))),
			from:   from,
			to:     to,
			packet: Packet{Source: from.address, Destination: group, TTL: 255, Payload: a.Append(nil, from.address, group)},
		})
	}
}
