package xdp

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/xdirector/xdirector/pkg/lb"
)

// pair is a plane and the model of it, which get the same frames.
type pair struct {
	p       *Plane
	m       *model
	program *ebpf.Program
	out     []byte
	wanted  map[string]uint64 // counters
	sent    int
}

func newPair(t testing.TB, s lb.State) *pair {
	t.Helper()
	cfg := testConfig(mountBPFFS(t))
	cfg.Interfaces = []string{"eth0", "eth0.10"}
	p, err := openOn(cfg, quiet(), taggedInterfaces, &knobs{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	devices, err := taggedInterfaces()
	if err != nil {
		t.Fatal(err)
	}
	b := &pair{p: p, m: newModel(devices), program: p.Program("eth0"), out: make([]byte, 4096), wanted: map[string]uint64{}}
	b.apply(t, s)
	return b
}

func (b *pair) apply(t testing.TB, s lb.State) {
	t.Helper()
	apply(t, b.p, s)
	b.m.apply(s)
}

// try gives one frame to both; the error says in what they differ.
func (b *pair) try(frame []byte) error {
	run := ebpf.RunOptions{Data: frame, DataOut: b.out}
	action, err := b.program.Run(&run)
	if err != nil {
		return err
	}
	want := b.m.judge(frame)
	verdict, wantAction, wantFrame := want.verdict, uint32(xdpPass), frame
	switch server := want.server; {
	case server == nil && verdict == "drop":
		wantAction = xdpDrop
		b.wanted["drop "+want.reason]++
	case server == nil:
	case server.NextHop.Local:
		verdict = "pass_local"
	default:
		wantAction, verdict = xdpRedirect, "redirect"
		if lower := b.m.interfaces[server.NextHop.Interface].lower; server.NextHop.Interface == eth0Index || lower == eth0Index {
			wantAction, verdict = xdpTX, "tx"
		}
		wantFrame = b.m.frameOf(frame, server)
		b.sent++
	}
	b.wanted[verdict]++
	if action != wantAction || !bytes.Equal(run.DataOut, wantFrame) {
		return fmt.Errorf("frame\n%x: action %d and frame\n%x, want %s %s, action %d and frame\n%x", frame, action, run.DataOut, verdict, want.reason, wantAction, wantFrame)
	}
	return nil
}

// counted compares what the plane counted since it was opened with what the model says.
func (b *pair) counted() error {
	got := map[string]uint64{}
	all, err := b.p.Counters()
	if err != nil {
		return err
	}
	for _, i := range all.Interfaces {
		for verdict, n := range i.Verdicts {
			got[verdict] += n
		}
		for reason, n := range i.Drops {
			got["drop "+reason] += n
		}
	}
	for what, n := range got {
		if n != b.wanted[what] {
			return fmt.Errorf("%s was counted %d times, want %d", what, n, b.wanted[what])
		}
	}
	if all.FlowTable.Unstored > 0 {
		return fmt.Errorf("%d flows found no place", all.FlowTable.Unstored)
	}
	return nil
}

// steady is a state without adverts and without limits: the model has neither.
func steady(s lb.State) lb.State {
	s.Routers = nil
	s.Services = slices.DeleteFunc(s.Services, func(s lb.Service) bool {
		l := s.Limits
		return s.Capped() || len(l.Allow)+len(l.Deny) > 0 || l.Packets != (lb.Rate{}) || l.New != (lb.Rate{})
	})
	for i := range s.Services {
		s.Services[i].NewFlows = math.MaxUint32
		s.Services[i].Timeouts = modelTimeouts
	}
	return s
}

// Time goes in steps of so much, so that nothing ever ends within the seconds that a test takes, or that a unit of time is long.
const modelStep = 40 * time.Second

var modelTimeouts = lb.Timeouts{Opening: 60 * time.Second, Established: 900 * time.Second, Closing: 140 * time.Second, UDP: 300 * time.Second}

// mutated is a frame of the tables, or noise, or a frame with some things wrong.
func mutated(random *rand.Rand, seeds [][]byte, into []byte) []byte {
	kind := random.IntN(16)
	if kind == 0 {
		into = into[:14+random.IntN(120)]
		for i := range into {
			into[i] = byte(random.Uint32())
		}
		return into
	}
	into = append(into[:0], seeds[random.IntN(len(seeds))]...)
	switch {
	case kind < 3: // cut short
		into = into[:14+random.IntN(len(into)-13)]
	case kind < 5: // the ports of a client, at times in the wrong place
		if len(into) > 36 {
			into[35] = byte(random.Uint32())
		}
	case kind < 14: // a few wrong bytes, mostly in the headers
		for range 1 + random.IntN(3) {
			into[random.IntN(min(len(into), 20+random.IntN(100)))] = byte(random.Uint32())
		}
	}
	return into
}

const mutatedFrames = 1_000_000

func TestRandomAndMutatedFramesGoWhereTheModelSaysAndNowhereElse(t *testing.T) {
	var seeds [][]byte
	for _, row := range slices.Concat(packetTable, vlanTable, rareTable) {
		for _, of := range append(row.before, row.packet) {
			if frame := of.bytes(); len(frame) < 1000 {
				seeds = append(seeds, frame)
			}
		}
	}
	s := steady(tableState())
	var workers sync.WaitGroup
	const crew, batch = 2, 20_000
	for worker := range crew {
		b := newPair(t, s)
		workers.Go(func() {
			random := rand.New(rand.NewPCG(3, uint64(worker)))
			buffer := make([]byte, 2048)
			for n := range mutatedFrames / crew {
				if n%batch == 0 {
					forget(t, b.p)
					b.m.forget()
				}
				if err := b.try(mutated(random, seeds, buffer)); err != nil {
					t.Errorf("worker %d, frame %d: %v", worker, n, err)
					return
				}
			}
			if err := b.counted(); err != nil {
				t.Error(err)
			}
			if b.sent < mutatedFrames/crew/5 {
				t.Errorf("only %d of %d frames were sent: the mutations are too wild to prove anything", b.sent, mutatedFrames/crew)
			}
		})
	}
	workers.Wait()
}

// modelServices are those of a random state: every kind, each with some of five real servers.
func modelServices(random *rand.Rand) lb.State {
	key := func(to netip.Addr, port uint16, protocol lb.Protocol) lb.ServiceKey {
		return lb.ServiceKey{Address: to, Port: port, Protocol: protocol}
	}
	var all []lb.Service
	add := func(k lb.ServiceKey, change func(*lb.Service)) {
		s := lb.Service{Key: k, Scheduler: lb.RoundRobin, Timeouts: modelTimeouts, NewFlows: math.MaxUint32}
		change(&s)
		for n := 1; n <= 5; n++ {
			r := server(n)
			if k.Address.Is6() {
				r = server6(n)
			}
			r.Weight, r.Port = []uint16{0, 1, 1, 2, 5}[random.IntN(5)], k.Port
			r.Up = random.IntN(5) > 0
			r.Failed = r.Weight == 0 && random.IntN(2) == 0
			switch n {
			case 3:
				r.NextHop.Interface = eth1Index
			case 4:
				r.NextHop.Interface = vlan10Index
			case 5:
				r.NextHop = lb.NextHop{Local: true}
			}
			if random.IntN(4) > 0 {
				s.RealServers = append(s.RealServers, r)
			}
		}
		if random.IntN(8) > 0 {
			all = append(all, s)
		}
	}
	add(key(vip, 80, lb.TCP), func(s *lb.Service) {})
	add(key(vip, 81, lb.TCP), func(s *lb.Service) { s.Scheduler = lb.WeightedRoundRobin })
	add(key(vip, 82, lb.TCP), func(s *lb.Service) { s.Scheduler = lb.MaglevHashing })
	add(key(vip, 83, lb.TCP), func(s *lb.Service) { s.Persistence, s.Group, s.PersistenceBits = 100*time.Second, "g", 31 })
	add(key(vip, 84, lb.TCP), func(s *lb.Service) { s.Persistence, s.Group, s.PersistenceBits = 100*time.Second, "g", 31 })
	add(key(vip, 85, lb.TCP), func(s *lb.Service) { s.Persistence, s.PersistenceBits = 60*time.Second, 31 })
	add(key(vip, 86, lb.TCP), func(s *lb.Service) { s.RefuseUnknown = true })
	add(key(vip, 80, lb.UDP), func(s *lb.Service) {})
	add(key(vip, 81, lb.UDP), func(s *lb.Service) { s.Scheduler, s.Persistence = lb.SourceHashing, 60*time.Second })
	add(lb.ServiceKey{Address: vip, Port: 82, LastPort: 90, Protocol: lb.TCP}, func(s *lb.Service) {})
	add(lb.ServiceKey{Address: vip, Bits: 24, Port: 0, Protocol: lb.TCP}, func(s *lb.Service) { s.Scheduler = lb.SourceHashing })
	add(key(vip6, 80, lb.TCP), func(s *lb.Service) {})
	add(key(vip6, 81, lb.TCP), func(s *lb.Service) { s.Persistence, s.PersistenceBits = 60*time.Second, 126 })
	add(key(vip6, 80, lb.UDP), func(s *lb.Service) { s.Scheduler = lb.MaglevHashing })
	return state(level(all)...)
}

// level gives the services of a group the same real servers. With others, a client's flows in both may bind it in turn, each not
// more often than once in a unit of time, and the model has no units.
func level(all []lb.Service) []lb.Service {
	var first *lb.Service
	for i := range all {
		if s := &all[i]; s.Group != "" && first == nil {
			first = s
		} else if s.Group != "" {
			s.RealServers = slices.Clone(first.RealServers)
			for i := range s.RealServers {
				s.RealServers[i].Port = s.Key.Port
			}
		}
	}
	return all
}

// modelFrame is a random packet of few clients and ports, so that most belong to a flow that is known.
func modelFrame(random *rand.Rand) []byte {
	pick := func(of ...lb.MAC) lb.MAC { return of[random.IntN(len(of))] }
	p := packet{
		flags: []byte{syn, syn, ack, ack, fin | ack, rst, syn | ack}[random.IntN(7)], fromPort: 1 + uint16(random.IntN(4)), toPort: 80 + uint16(random.IntN(8)),
		to: vip, from: netip.AddrFrom4([4]byte{192, 0, 2, byte(random.IntN(4))}), id: uint32(random.IntN(3)),
	}
	if random.IntN(3) == 0 {
		p.to, p.from = vip6, netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 15: byte(random.IntN(4))})
		p.toPort = 80 + uint16(random.IntN(2))
	} else if random.IntN(8) == 0 {
		p.to = serverAddress(250)
	}
	if random.IntN(3) == 0 {
		p.protocol = lb.UDP
	}
	if random.IntN(12) == 0 {
		p.source = pick(peerMAC, serverMAC(1), serverMAC(3))
		if random.IntN(3) == 0 {
			p.from = []netip.Addr{peer, serverAddress(1), serverAddress(3)}[random.IntN(3)]
			p.to = vip
		}
	}
	switch random.IntN(30) {
	case 0:
		p.destination = serverMAC(1)
	case 1:
		p.vlan, p.destination = 10, pick(vlan10MAC, vlan10MAC, eth0MAC)
	}
	return rarely(random, p).bytes()
}

// rarely makes an error, a fragment or more headers of every third packet.
func rarely(random *rand.Rand, p packet) packet {
	switch random.IntN(15) {
	case 0, 1:
		about := packet{from: p.to, to: p.from, fromPort: p.toPort, toPort: p.fromPort, protocol: p.protocol}
		p.data, p.from, p.protocol = icmpAbout(3, about, 48), peer, icmp4
		if p.to.Is6() {
			p.from, p.protocol = client6, icmp6
		}
	case 2:
		if p = first4(p); p.to.Is6() {
			p = first6(p)
		}
	case 3:
		p.fragment = []uint16{0, 0, 2, 3}[random.IntN(4)]
		if p = later4(p); p.to.Is6() {
			p = later6(p)
		}
	case 4:
		if p.to.Is6() {
			p.headers = slices.Repeat([]header{option(destinationOptions, random.IntN(3))}, 1+random.IntN(7))
		} else {
			p.options = make([]byte, 4*random.IntN(10))
		}
	}
	return p
}

// change is a random change of a real server or of the services.
func change(random *rand.Rand, s lb.State) lb.State {
	next := modelServices(random)
	if random.IntN(4) == 0 || len(s.Services) == 0 {
		return next
	}
	s.Services = slices.Clone(s.Services)
	of := &s.Services[random.IntN(len(s.Services))]
	of.RealServers = slices.Clone(of.RealServers)
	for i := range of.RealServers {
		switch r := &of.RealServers[i]; random.IntN(4) {
		case 0:
			r.Up = !r.Up
		case 1:
			r.Weight = uint16(random.IntN(3))
			r.Failed = r.Weight == 0 && random.IntN(2) == 0
		}
	}
	if n := len(of.RealServers); n > 0 && random.IntN(3) == 0 {
		of.RealServers = slices.Delete(of.RealServers, n-1, n)
	}
	level(s.Services)
	return s
}

// modelSeed is XDIRECTOR_MODEL_SEED, or another one each time.
func modelSeed(t *testing.T) uint64 {
	text := os.Getenv("XDIRECTOR_MODEL_SEED")
	if text == "" {
		return rand.Uint64()
	}
	seed, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("XDIRECTOR_MODEL_SEED=%q is no number", text)
	}
	return seed
}

func TestTheProgramAndItsModelAgreeWhateverComesAndChanges(t *testing.T) {
	const sequences, steps = 4, 1500
	seed := modelSeed(t)
	b := newPair(t, lb.State{})
	for n := range sequences {
		random := rand.New(rand.NewPCG(seed, uint64(n)))
		b.apply(t, lb.State{})
		forget(t, b.p)
		b.m.forget()
		b.apply(t, modelServices(random))
		var story []string
		tell := func(format string, args ...any) { story = append(story, fmt.Sprintf(format, args...)) }
		for step := range steps {
			switch kind := random.IntN(60); kind {
			case 0, 1: // a change and then the time: a flow's packets bind its client again not more often than once in a unit of time
				if kind == 0 {
					b.apply(t, change(random, b.m.state))
					tell("%d: other services", step)
				}
				by := time.Duration(1+random.IntN(4)) * modelStep
				age(t, b.p, by)
				b.m.now += by
				tell("%d: %v later", step, by)
			default:
				frame := modelFrame(random)
				tell("%d: %x", step, frame)
				if err := b.try(frame); err != nil {
					t.Fatalf("XDIRECTOR_MODEL_SEED=%d, sequence %d, step %d: %v\nbefore:\n%s\nservices: %+v", seed, n, step, err,
						strings.Join(story[max(0, len(story)-30):], "\n"), b.m.state.Services)
				}
			}
		}
	}
	b.p.flowCountsDue = time.Time{}
	if err := b.counted(); err != nil {
		t.Errorf("XDIRECTOR_MODEL_SEED=%d: %v", seed, err)
	}
}
