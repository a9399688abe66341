package xdp

import (
	"math"
	"math/rand/v2"
	"net/netip"
	"sync"
	"testing"
	"time"
)

// flowPacket is a packet of flow n, unlike those of all other n below 2^32.
func flowPacket(n int, flags byte) packet {
	return packet{
		from: netip.AddrFrom4([4]byte{100, byte(n >> 28), byte(n >> 20), byte(n >> 12)}), fromPort: uint16(1024 + n&0xfff), flags: flags,
	}
}

// smallTable is a plane with two servers and a table of so many flows.
func smallTable(t testing.TB, size uint32) *Plane {
	t.Helper()
	cfg := testConfig(mountBPFFS(t))
	cfg.FlowTableSize = size
	p := openPlane(t, cfg, twoInterfaces)
	web := service(webKey, manyServers(64)...)
	web.NewFlows = math.MaxUint32 // no flood is one
	apply(t, p, state(web))
	return p
}

// establish sends the first two packets of a flow.
func establish(t testing.TB, p *Plane, flow int) (server int) {
	t.Helper()
	server = sentTo(t, p, flowPacket(flow, ack))
	sentTo(t, p, flowPacket(flow, ack))
	return server
}

func flowsAndUnstored(t testing.TB, p *Plane) (flows, unstored uint64) {
	t.Helper()
	read := counters(t, p)
	for _, traffic := range read.RealServers {
		flows += traffic.Flows
	}
	return flows, read.FlowTable.Unstored
}

func TestTableHoldsTheFlowsItWasMadeForWithoutLoss(t *testing.T) {
	const size = 60000 // the worst for a power of two just above: half of the places
	for name, flow := range map[string]func(int) packet{
		"one client after the other": func(n int) packet { return flowPacket(n, syn) },
		"one port of many clients": func(n int) packet {
			return packet{from: netip.AddrFrom4([4]byte{10, 1, byte(n >> 8), byte(n)}), fromPort: uint16(1024 + n>>16), flags: syn}
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := smallTable(t, size)
			if places := len(p.flows.places); places != 131072 {
				t.Fatalf("%d places", places)
			}
			servers := make([]int, size)
			for n := range servers {
				servers[n] = sentTo(t, p, flow(n))
			}
			for n, want := range servers {
				next := flow(n)
				next.flags = ack
				if got := sentTo(t, p, next); got != want {
					t.Fatalf("flow %d went to server %d, then to %d", n, want, got)
				}
			}
			if flows, unstored := flowsAndUnstored(t, p); flows != size || unstored != 0 {
				t.Errorf("%d flows are known, %d found no place; want all %d", flows, unstored, size)
			}
		})
	}
}

func TestFloodOfNewFlowsPushesNoEstablishedOneOut(t *testing.T) {
	for name, flags := range map[string]byte{"SYN": syn, "ACK": ack, "FIN": fin | ack} {
		t.Run(name, func(t *testing.T) {
			const size, kept = 512, 200
			p := smallTable(t, size)
			var servers [kept]int
			for n := range servers {
				servers[n] = sentTo(t, p, flowPacket(n, syn))
				sentTo(t, p, flowPacket(n, ack))
			}
			for n := range 20 * size {
				sentTo(t, p, flowPacket(1<<20+n, flags))
			}
			for n, want := range servers {
				if got := sentTo(t, p, flowPacket(n, ack)); got != want {
					t.Errorf("flow %d went to server %d after the flood, want %d", n, got, want)
				}
			}
			places := uint64(len(p.flows.places))
			flows, unstored := flowsAndUnstored(t, p)
			if flows > places || flows < places*9/10 {
				t.Errorf("%d flows are known in %d places", flows, places)
			}
			if unstored != 0 {
				t.Errorf("%d packets found no place, though older young flows could go", unstored)
			}
		})
	}
}

func TestFlowThatFindsNoPlaceGoesToOneServerAllTheSame(t *testing.T) {
	const size = 64
	p := smallTable(t, size)
	for n := range 16 * size { // until every place is held
		establish(t, p, n)
	}
	_, before := flowsAndUnstored(t, p)
	used := map[int]bool{}
	for n := range 100 {
		late := 1<<24 + n<<12 // each of another client
		server := sentTo(t, p, flowPacket(late, syn))
		used[server] = true
		for range 3 {
			if got := sentTo(t, p, flowPacket(late, ack)); got != server {
				t.Fatalf("flow %d went to server %d, then to %d", n, server, got)
			}
		}
	}
	if _, unstored := flowsAndUnstored(t, p); unstored-before != 400 {
		t.Errorf("%d packets found no place, want all 400: the table was not full", unstored-before)
	}
	if len(used) < 32 { // of 64; a hundred at random hit 51
		t.Errorf("the flows went to %d servers of 64", len(used))
	}
}

func TestConnectionSeenFromItsMiddleIsAnEstablishedOne(t *testing.T) {
	p := smallTable(t, 64)
	for n := range 10 {
		establish(t, p, n)
	}
	age(t, p, tcpTimeout-time.Minute)
	if flows, unstored := flowsAndUnstored(t, p); flows != 10 || unstored != 0 {
		t.Errorf("%d flows are known, %d found no place; want 10 and none", flows, unstored)
	}
}

// Its SYN may have found no place, and gone where its hash says.
func TestFlowGoesToOneServerAlsoWhenItFindsAPlaceLater(t *testing.T) {
	const size = 64
	p := smallTable(t, size)
	for n := range 16 * size {
		establish(t, p, n)
	}
	_, before := flowsAndUnstored(t, p)
	var servers [50]int
	for n := range servers {
		servers[n] = sentTo(t, p, flowPacket(1<<20+n, syn))
	}
	if _, after := flowsAndUnstored(t, p); after-before != uint64(len(servers)) {
		t.Fatalf("%d of %d found no place", after-before, len(servers))
	}
	age(t, p, tcpTimeout+time.Second)
	for n, want := range servers {
		if got := sentTo(t, p, flowPacket(1<<20+n, ack)); got != want {
			t.Errorf("flow %d went to server %d, then to %d", n, want, got)
		}
	}
	if flows, _ := flowsAndUnstored(t, p); flows != uint64(len(servers)) {
		t.Errorf("%d flows are known, want %d", flows, len(servers))
	}
}

func TestForgottenFlowsMakeRoom(t *testing.T) {
	const size = 64
	p := smallTable(t, size)
	for round := range 3 {
		for n := range size {
			establish(t, p, round<<20+n)
		}
		if flows, unstored := flowsAndUnstored(t, p); flows != size || unstored != 0 {
			t.Fatalf("round %d: %d flows are known, %d found no place; want %d and none", round, flows, unstored, size)
		}
		age(t, p, tcpTimeout+time.Second)
	}
	if flows, _ := flowsAndUnstored(t, p); flows != 0 {
		t.Errorf("%d flows are known after their time", flows)
	}
	for i, place := range p.flows.places {
		if place.Print != flowFree {
			t.Fatalf("place %d of a forgotten flow is not free", i)
		}
	}
}

// Each goroutine has flows of its own; in a small table all of them fight for the same places.
func TestFlowsOfAllCPUsShareTheTableWithoutMixUps(t *testing.T) {
	const size, goroutines, flows, rounds = 1024, 4, 200, 200
	p := smallTable(t, size)
	program := p.Program("eth0")
	var servers [goroutines][flows]int
	for g := range servers {
		for n := range servers[g] {
			servers[g][n] = sentTo(t, p, flowPacket(g<<20+n, syn))
			sentTo(t, p, flowPacket(g<<20+n, ack))
		}
	}
	var group sync.WaitGroup
	for g := range goroutines {
		group.Add(1)
		go func() {
			defer group.Done()
			random := rand.New(rand.NewPCG(1, uint64(g)))
			for range rounds {
				for n, want := range servers[g] {
					action, out, err := program.Test(flowPacket(g<<20+n, ack).bytes())
					if err != nil || action != xdpTX || int(out[5]) != want {
						t.Errorf("flow %d of goroutine %d: action %d, went to server %d, want %d (%v)", n, g, action, out[5], want, err)
						return
					}
					noise := flowPacket(1<<24+random.IntN(1<<20), syn)
					if _, _, err := program.Test(noise.bytes()); err != nil {
						t.Error(err)
						return
					}
				}
			}
		}()
	}
	stop := make(chan struct{})
	swept := make(chan struct{})
	go func() {
		defer close(swept)
		for {
			select {
			case <-stop:
				return
			default:
				flowsAndUnstored(t, p)
			}
		}
	}()
	group.Wait()
	close(stop)
	<-swept
	_, hints, err := readArray[xdirectorFlowHints](p.maps.FlowHints)
	if err != nil {
		t.Fatal(err)
	}
	for i, place := range p.flows.places {
		if place.Print == flowBusy {
			t.Errorf("place %d is still marked as being written", i)
		}
		if hint := hints[i/int(flowWays)].Way[i%int(flowWays)]; place.Print != flowFree && uint64(hint) != place.Print>>56 {
			t.Errorf("place %d has the print %x and the hint %x: its flow would not be found in a flood", i, place.Print, hint)
		}
	}
}

func TestSYNOfAKnownFlowGoesToItsServerAlsoInAFlood(t *testing.T) {
	const size = 1024
	p := smallTable(t, size)
	var servers [size]int
	for n := range servers {
		servers[n] = sentTo(t, p, flowPacket(n, syn)) // in turn; in a flood all would go where the hash of their client says
		sentTo(t, p, flowPacket(n, ack))
	}
	guarded := service(webKey, manyServers(64)...)
	guarded.NewFlows = 1
	apply(t, p, state(guarded))
	for n, want := range servers {
		sentTo(t, p, flowPacket(1<<20+n, syn)) // if it is stored, the next one would not be
		if got := sentTo(t, p, flowPacket(n, syn)); got != want {
			t.Errorf("flow %d went to server %d in the flood, want %d", n, got, want)
		}
	}
	if _, unstored := flowsAndUnstored(t, p); unstored < size/2 {
		t.Errorf("%d packets were not stored: that was no flood", unstored)
	}
}

func TestClockOfExpiryGoesOnOverItsEnd(t *testing.T) {
	const last = 1<<xdirectorFlowBitsFLOW_EXPIRES_BITS - 1
	expires := func(unit uint32) flowState {
		return flowState(uint64(unit&last) << xdirectorFlowBitsFLOW_EXPIRES_SHIFT)
	}
	for _, row := range []struct {
		expires, now uint32
		want         int32
	}{{10, 5, 5}, {5, 10, -5}, {5, 5, 0}, {3, last, 4}, {last, 3, -4}, {3, last + 1<<24, 4}} {
		if got := expires(row.expires).remaining(row.now); got != row.want {
			t.Errorf("expires in unit %d, now %d: %d remain, want %d", row.expires, row.now, got, row.want)
		}
	}
}

func TestTableSizes(t *testing.T) {
	for size, want := range map[uint32]uint32{1: 1, 4: 1, 5: 2, 1024: 256, 1048576: 262144, 16777216: 4194304, 600000: 262144} {
		if got := flowSets(size); got != want || uint64(got)*uint64(flowWays) < 2*uint64(size) {
			t.Errorf("%d flows: %d sets, want %d", size, got, want)
		}
	}
}

func TestUnitsOfTimeAreAboutASecondWhateverTheKernelsTick(t *testing.T) {
	for hz, shift := range map[uint64]uint32{100: 6, 250: 7, 300: 8, 1000: 9} {
		c := newFlowClockOf(hz)
		length := float64(uint64(1)<<c.shift) / float64(hz)
		if c.shift != shift || length <= 0.5 || length > 1 {
			t.Errorf("HZ %d: a unit is 1<<%d ticks, %.2f s", hz, c.shift, length)
		}
		if got, want := c.units(time.Minute), uint32(60/length); got < want || got > want+1 {
			t.Errorf("HZ %d: a minute is %d units, want %d", hz, got, want)
		}
	}
}

func BenchmarkSweep(b *testing.B) {
	p := smallTable(b, 1<<20)
	now, err := p.ticks()
	if err != nil {
		b.Fatal(err)
	}
	for i := range p.flows.places {
		if i%2 == 0 {
			p.flows.places[i] = xdirectorFlowPlace{Print: uint64(i + 2), State: uint64(now>>p.flowClock.shift+1000) << xdirectorFlowBitsFLOW_EXPIRES_SHIFT}
		}
	}
	for b.Loop() {
		p.flows.sweep(uint32(now>>p.flowClock.shift), func(flowState) {}, func(flowState) {})
	}
}
