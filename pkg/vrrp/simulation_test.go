package vrrp

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"pgregory.net/rapid"
)

// lan is a simulated network with its own clock.
type lan struct {
	t            *rapid.T
	random       *rand.Rand // for what happens to single packets
	now          Time
	interval     time.Duration
	preempt      bool
	grouped      bool          // the virtual routers of a box are a sync group
	vrids        int           // virtual routers
	delay        time.Duration // of a packet, at most
	loss         float64       // share of packets
	twice        float64       // share of packets that arrive once more
	ordered      bool          // no packet overtakes another
	boxes        []*box
	wire         []frame // not sorted
	transitions  int
	disturbances []string
	both         []Time         // how long there were two MASTERs that were awake, by virtual router; nil: not measured
	gap          func(vrid int) // nobody has the addresses of a virtual router; nil: not looked at
}

// box is a director.
type box struct {
	nodes   []*node
	side    int     // of a partition
	away    bool    // suspended
	asleep  Time    // until
	waiting []frame // arrived meanwhile
}

// node is a virtual router on a box.
type node struct {
	address  netip.Addr
	vrid     int
	box      *box
	cfg      Config
	m        *Machine // nil: the process is not there
	held     bool     // the addresses are on the interface
	lastSent Time
	wasUp    bool // it was MASTER when the process died
	failed   bool
}

func (n *node) name() string { return fmt.Sprintf("%s/%d", n.address, n.vrid) }

type frame struct {
	at     Time
	from   *box
	to     *node
	packet Packet
}

func newLAN(t *rapid.T) *lan {
	l := &lan{
		t:       t,
		random:  rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0)),
		preempt: rapid.Bool().Draw(t, "preempt"),
		vrids:   rapid.SampledFrom([]int{1, 1, 2, 3}).Draw(t, "virtual routers"),
		twice:   rapid.SampledFrom([]float64{0, 0.2}).Draw(t, "duplicates"),
		disturbances: []string{"start", "start", "start", "start", "crash", "kill", "resign", "stop", "fail", "split", "join", "loss", "sleep",
			"track", "yield", "unyield", "hold", "unhold"},
	}
	l.grouped = l.vrids > 1 && rapid.Bool().Draw(t, "sync group")
	version := rapid.SampledFrom([]uint8{2, 3}).Draw(t, "version")
	l.interval = rapid.SampledFrom([]time.Duration{time.Second, 3 * time.Second}).Draw(t, "interval")
	network, virtual := "10.9.0.", vip
	if version == 3 {
		l.interval /= 10
		if rapid.Bool().Draw(t, "IPv6") {
			network, virtual = "fe80::", netip.MustParseAddr("fe80::100")
		}
	}
	l.delay = l.interval / 20
	priorities := rapid.SliceOfN(rapid.SampledFrom([]uint8{1, 50, 100, 100, 200, 254, 255}), 2, 4).Draw(t, "priorities")
	unicast := rapid.SampledFrom([]bool{false, false, true}).Draw(t, "unicast")
	for i, priority := range priorities {
		b := &box{}
		for vrid := range l.vrids {
			b.nodes = append(b.nodes, &node{
				address: netip.MustParseAddr(fmt.Sprintf("%s%d", network, i+1)),
				vrid:    vrid,
				box:     b,
				cfg: Config{Version: version, VRID: uint8(51 + vrid), Priority: priority, Interval: l.interval, Preempt: l.preempt,
					Addresses: []netip.Addr{virtual}},
			})
			for j := range priorities {
				if unicast && j != i {
					n := b.nodes[vrid]
					n.cfg.Peers = append(n.cfg.Peers, netip.MustParseAddr(fmt.Sprintf("%s%d", network, j+1)))
				}
			}
		}
		l.boxes = append(l.boxes, b)
	}
	return l
}

func (l *lan) largestSkew() time.Duration {
	lowest := uint8(Owner)
	for _, b := range l.boxes {
		for _, n := range b.nodes {
			lowest = min(lowest, n.cfg.Priority)
		}
	}
	return time.Duration(256-int(lowest)) * l.unit() / 256
}

// unit is what a skew is a share of.
func (l *lan) unit() time.Duration {
	if l.boxes[0].nodes[0].cfg.Version == 2 {
		return time.Second
	}
	return l.interval
}

// longest is the time that an election may take: a handover that nobody answers, a wait for the one before, another
// one by a late BACKUP or by a sync group, and a preemption.
func (l *lan) longest() time.Duration {
	return 2*(l.unit()+stopGrace) + lingerTime + 2*(3*l.interval+l.unit()) + 2*(l.interval+l.unit()) + 4*l.delay
}

// disturb does one harm, or undoes one.
func (l *lan) disturb() {
	l.disturbBox(l.boxes[rapid.IntRange(0, len(l.boxes)-1).Draw(l.t, "box")])
}

func (l *lan) disturbBox(b *box) {
	n := b.nodes[rapid.IntRange(0, l.vrids-1).Draw(l.t, "virtual router")]
	what := rapid.SampledFrom(l.disturbances).Draw(l.t, "event")
	switch {
	case what == "start":
		l.start(b)
	case what == "split":
		b.side = rapid.IntRange(0, 2).Draw(l.t, "side")
	case what == "join":
		l.join()
	case what == "loss":
		l.loss = rapid.Float64Range(0, 1).Draw(l.t, "loss")
	case b.away:
	case what == "sleep":
		b.away, b.asleep = true, l.now+time.Duration(rapid.Float64Range(0, 6).Draw(l.t, "sleep in intervals")*float64(l.interval))
	case what == "crash" || what == "kill":
		b.waiting = nil
		for _, n := range b.nodes {
			if n.m == nil {
				continue
			}
			n.wasUp, n.failed = n.m.State() == Master, false
			if what == "kill" && n.m.held {
				l.send(n, n.m.advert(0)) // by the supervisor, which starts the election again
			}
			n.m = nil
		}
		if what == "kill" {
			for _, n := range b.nodes {
				n.m = New(n.cfg)
			}
			for _, n := range b.nodes {
				l.step(n, Start{Source: n.address, HandedOver: n.held})
			}
		}
	case n.m == nil:
	case what == "resign":
		if n.m.State() == Master {
			l.send(n, n.m.advert(0)) // by the supervisor, while the election stood still
		}
		l.step(n, Resigned{})
	case what == "stop":
		for _, n := range b.nodes {
			l.step(n, Stop{})
		}
	case what == "fail":
		n.failed = true
		l.step(n, Fail{Reason: "no carrier"})
	case what == "track":
		adjust := rapid.SampledFrom([]int{-300, -50, 0, 50, 300}).Draw(l.t, "adjust")
		l.wish(n, func(c *Config) { c.Adjust = adjust })
	case what == "yield" || what == "unyield":
		l.wish(n, func(c *Config) { c.Yield = what == "yield" })
	case what == "hold":
		l.wish(n, func(c *Config) { c.Hold = "maintenance" })
	case what == "unhold":
		l.wish(n, func(c *Config) { c.Hold = "" })
	}
}

// wish changes one virtual router.
func (l *lan) wish(n *node, change func(*Config)) {
	change(&n.cfg)
	l.step(n, Configure{Config: n.cfg})
}

// start starts what is not running, and mends what has failed, as pkg/ha does it.
func (l *lan) start(b *box) {
	if b.away || slices.ContainsFunc(b.nodes, func(n *node) bool { return n.m != nil && n.m.stopping }) {
		return
	}
	resume := make([]bool, len(b.nodes))
	for i, n := range b.nodes {
		if n.m == nil {
			n.m = New(n.cfg)
			resume[i] = n.wasUp && l.now-n.lastSent < 3*l.interval
			n.held, n.wasUp = resume[i], false
		}
	}
	for i, n := range b.nodes {
		n.failed = false
		l.step(n, Start{Source: n.address, Resume: resume[i]})
	}
}

func (l *lan) join() {
	for _, b := range l.boxes {
		b.side = 0
	}
}

// repair ends all harm, and sees to it that somebody takes part everywhere.
func (l *lan) repair() {
	l.join()
	l.loss = 0
	// Who offers its place waits no longer than for an answer within stopGrace.
	l.delay = min(l.delay, stopGrace/2)
	for n := range l.wire { // what is on the way too
		l.wire[n].at = min(l.wire[n].at, l.now+l.delay)
	}
	for _, b := range l.boxes {
		l.wake(b)
	}
	for vrid := range l.vrids {
		if !slices.ContainsFunc(l.boxes, func(b *box) bool { return b.nodes[vrid].takesPart() }) {
			b := l.boxes[0]
			for _, n := range b.nodes {
				n.m, n.wasUp = nil, false
				n.cfg.Hold = ""
			}
			l.start(b)
		}
	}
}

// takesPart says whether a virtual router can be MASTER on its box.
func (n *node) takesPart() bool {
	return n.m != nil && !n.m.leaves() && (n.m.State() == Backup || n.m.State() == Master)
}

func (b *box) takesPart() bool {
	return !slices.ContainsFunc(b.nodes, func(n *node) bool { return !n.takesPart() })
}

// yields says whether somebody is to leave being MASTER to others.
func (l *lan) yields() bool {
	return slices.ContainsFunc(l.boxes, func(b *box) bool {
		return slices.ContainsFunc(b.nodes, func(n *node) bool { return n.takesPart() && n.m.yields() })
	})
}

func (l *lan) highest(vrid int) uint8 {
	highest := uint8(0)
	for _, b := range l.boxes {
		if n := b.nodes[vrid]; n.takesPart() {
			highest = max(highest, n.m.Priority())
		}
	}
	return highest
}

// masters returns the only MASTER of each virtual router, nil where nobody takes part.
func (l *lan) masters() []*node {
	winners := make([]*node, l.vrids)
	for vrid := range l.vrids {
		count, taking, text := 0, 0, ""
		for _, b := range l.boxes {
			n := b.nodes[vrid]
			if n.m != nil {
				text += fmt.Sprintf(" %s=%s(%d)", n.name(), n.m.State(), n.m.Priority())
			}
			if n.takesPart() {
				taking++
			}
			if n.m != nil && n.m.State() == Master {
				count++
				winners[vrid] = n
			}
		}
		if count != min(1, taking) {
			l.t.Fatalf("at %s there are %d MASTERs:%s", l.now, count, text)
		}
		if l.grouped && winners[vrid] != nil && winners[0] != nil && winners[vrid].box != winners[0].box {
			l.t.Fatalf("at %s %s and %s are MASTERs, which are on different boxes", l.now, winners[0].name(), winners[vrid].name())
		}
	}
	return winners
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
		for _, b := range l.boxes {
			if b.away {
				earlier(b.asleep, func() { l.wake(b) })
				continue
			}
			for _, n := range b.nodes {
				if n.m == nil {
					continue
				}
				if deadline, ok := n.m.Deadline(); ok {
					earlier(deadline, func() { l.step(n, Tick{}) })
				}
			}
		}
		l.measure(next - l.now)
		l.now = next
		if next >= end {
			return
		}
		do()
	}
}

// measure looks at the time until the next event.
func (l *lan) measure(span time.Duration) {
	for vrid := range l.vrids {
		masters, holders := 0, 0
		for _, b := range l.boxes {
			n := b.nodes[vrid]
			if n.m != nil && n.m.State() == Master && !n.m.handing && !b.away {
				masters++
			}
			if n.held {
				holders++
			}
		}
		if l.both != nil && masters > 1 {
			l.both[vrid] += span
		}
		if l.gap != nil && holders == 0 && span > 0 {
			l.gap(vrid)
		}
	}
}

func (l *lan) arrive(f frame) {
	switch {
	case f.to.m == nil || f.to.box.side != f.from.side:
	case f.to.box.away:
		f.to.box.waiting = append(f.to.box.waiting, f)
	default:
		l.step(f.to, f.packet)
	}
}

// wake reads the socket empty before anything else.
func (l *lan) wake(b *box) {
	b.away = false
	waiting := b.waiting
	b.waiting = nil
	for _, f := range waiting {
		if f.to.m != nil {
			l.step(f.to, f.packet)
		}
	}
}

// step gives an event to a virtual router, carries out what it and its group do, and checks what must always hold.
func (l *lan) step(n *node, event Event) {
	group, nodes, member := Group{n.m}, []*node{n}, 0
	if l.grouped {
		group, nodes, member = nil, n.box.nodes, n.vrid
		for _, other := range nodes {
			group = append(group, other.m)
		}
	}
	states := make([]State, len(nodes))
	for i, m := range group {
		states[i] = m.State()
	}
	steady, sends := !n.m.stopping, map[*node]int{}
	for _, action := range group.Step(l.now, member, event) {
		n := nodes[action.Member]
		switch a := action.Action.(type) {
		case Send:
			sends[n]++
			l.send(n, a.Advert)
		case AddAddresses:
			n.held = true
		case RemoveAddresses:
			if !n.held {
				l.t.Fatalf("%s removes addresses that it does not have", n.name())
			}
			n.held = false
		case Announce:
			if !n.held {
				l.t.Fatalf("%s announces addresses that it has not", n.name())
			}
		case Changed:
			l.transitions++
			if a.From != states[action.Member] || a.From == a.To || a.Reason == "" {
				l.t.Fatalf("%s tells of %+v, but was %s", n.name(), a, states[action.Member])
			}
			states[action.Member] = a.To
		case Stopped:
			if steady && states[action.Member] == Master || n.held {
				l.t.Fatalf("%s has stopped without handing over, addresses held: %t", n.name(), n.held)
			}
		case Refused:
			l.t.Fatalf("%s refuses a good advert: %s", n.name(), a.Text)
		case Mismatch:
			if a.Kind != "" && a.Kind != MismatchOwner && a.Kind != MismatchSplitBrain {
				l.t.Fatalf("%s sees a difference where none is: %s", n.name(), a.Text)
			}
		}
	}
	for i, n := range nodes {
		if sends[n] > 2 {
			l.t.Fatalf("%s sends %d adverts at once", n.name(), sends[n])
		}
		if states[i] != n.m.State() {
			l.t.Fatalf("%s did not tell that it is %s now, not %s", n.name(), n.m.State(), states[i])
		}
		if wrong := broken(n.m, l.now, l.interval); wrong != "" {
			l.t.Fatalf("%s at %s after %T: %s: %+v", n.name(), l.now, event, wrong, n.m)
		}
		if n.held != n.m.held && n.m.State() != Init {
			l.t.Fatalf("%s has addresses: %t, its machine thinks %t", n.name(), n.held, n.m.held)
		}
	}
	if deadline, ok := n.m.Deadline(); ok && deadline <= l.now && event == (Tick{}) {
		l.t.Fatalf("%s wants to be ticked at %s, but it was just then", n.name(), deadline)
	}
}

func (l *lan) send(from *node, a Advert) {
	from.lastSent = l.now
	for _, b := range l.boxes {
		to := b.nodes[from.vrid]
		if to == from || b.side != from.box.side || l.random.Float64() < l.loss {
			continue
		}
		destination := to.address
		switch {
		case len(from.cfg.Peers) > 0:
		case isIPv6(from.address):
			destination = multicast6
		default:
			destination = multicast4
		}
		for {
			at := l.now + time.Duration(l.random.Int64N(int64(l.delay)))
			for _, f := range l.wire {
				if l.ordered && f.from == from.box && f.to == to {
					at = max(at, f.at+1)
				}
			}
			l.wire = append(l.wire, frame{
				at:     at,
				from:   from.box,
				to:     to,
				packet: Packet{Source: from.address, Destination: destination, TTL: 255, Payload: a.Append(nil, from.address, destination)},
			})
			if l.random.Float64() >= l.twice {
				break
			}
		}
	}
}
