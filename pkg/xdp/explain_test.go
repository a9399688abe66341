package xdp

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/xdirector/xdirector/pkg/lb"
)

// explain asks what would become of a frame on eth0.
func explainFrame(t testing.TB, p *Plane, frame []byte) lb.Explanation {
	t.Helper()
	e, err := p.Explain("eth0", frame)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// richState is tableState and services of every other kind, at ports from 9000 on.
func richState() lb.State {
	s := tableState()
	for i, change := range []func(*lb.Service){
		func(s *lb.Service) { s.Persistence = time.Minute },
		func(s *lb.Service) { s.Persistence, s.Group = time.Minute, "g" },
		func(s *lb.Service) { s.Persistence, s.Group = time.Minute, "g" },
		func(s *lb.Service) { s.RefuseUnknown = true },
		func(s *lb.Service) { s.NewFlows = 1 },
		func(s *lb.Service) { s.Scheduler = lb.WeightedRoundRobin },
		func(s *lb.Service) { s.Scheduler = lb.SourceHashing },
		func(s *lb.Service) { s.Scheduler = lb.MaglevHashing },
		func(s *lb.Service) { s.Scheduler = lb.LeastConnection },
		func(s *lb.Service) { s.Limits.Deny = []netip.Prefix{netip.PrefixFrom(client, 32)} },
		func(s *lb.Service) { s.Limits.New = lb.Rate{PerSecond: 10} },
		func(s *lb.Service) { s.Limits.Packets = lb.Rate{PerSecond: 10} },
		func(s *lb.Service) { // the first one is where the client's hash points
			s.Scheduler, s.RealServers[0].MaxConnections = lb.MaglevHashing, 5
		},
		func(s *lb.Service) { s.RealServers[0].MaxConnections, s.RealServers[1].MaxConnections = 1, 1 },
	} {
		of := service(lb.ServiceKey{Address: vip, Port: 9000 + uint16(i), Protocol: lb.TCP}, server(1), server(2))
		change(&of)
		s.Services = append(s.Services, of)
	}
	return s
}

var ofServices = slices.Concat(packetTable, rareTable)

// traffic makes frames of all kinds: those of the packet table and adverts, to all services, some with wrong bytes.
func anyTraffic(random *rand.Rand) []byte {
	if random.IntN(10) == 0 {
		return spoil(random, []advert{{}, {vrid: vridFast}, advert{}.six(), {version: 2}}[random.IntN(4)])
	}
	of := ofServices[random.IntN(len(ofServices))].packet
	if random.IntN(2) == 0 {
		of = packet{flags: []byte{syn, ack, fin | ack, rst}[random.IntN(4)], toPort: 9000 + uint16(random.IntN(14)), fromPort: 1 + uint16(random.IntN(500))}
	}
	frame := of.bytes()
	if random.IntN(3) == 0 {
		frame[random.IntN(len(frame))] = byte(random.Uint32())
	}
	return frame
}

// mapsOf opens all maps that a program uses, by id.
func mapsOf(t *testing.T, program *ebpf.Program) map[ebpf.MapID]*ebpf.Map {
	t.Helper()
	info, err := program.Info()
	if err != nil {
		t.Fatal(err)
	}
	ids, known := info.MapIDs()
	if !known || len(ids) < 20 {
		t.Fatalf("the program uses %d maps", len(ids))
	}
	all := map[ebpf.MapID]*ebpf.Map{}
	for _, id := range ids {
		all[id] = mapByID(t, id)
	}
	return all
}

func mapByID(t *testing.T, id ebpf.MapID) *ebpf.Map {
	t.Helper()
	m, err := ebpf.NewMapFromID(id)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

// sumOf is a hash of all that a map holds.
func sumOf(t *testing.T, m *ebpf.Map) string {
	t.Helper()
	hash := sha256.New()
	memory := func(from int64, size int) {
		mapped, err := unix.Mmap(m.FD(), from, size, unix.PROT_READ, unix.MAP_SHARED)
		if err != nil {
			t.Fatalf("map %s: %v", m, err)
		}
		hash.Write(mapped)
		if err := unix.Munmap(mapped); err != nil {
			t.Fatal(err)
		}
	}
	switch {
	case m.Type() == ebpf.RingBuf: // how much was written
		memory(int64(os.Getpagesize()), 8)
	case m.Flags()&unix.BPF_F_MMAPABLE != 0:
		memory(0, int(m.MaxEntries())*(int(m.ValueSize()+7)/8*8))
	default:
		for key := nextKey(t, m, nil); key != nil; key = nextKey(t, m, key) {
			value, err := m.LookupBytes(key)
			if err != nil {
				t.Fatalf("read %s: %v", m, err)
			}
			hash.Write(key)
			hash.Write(value)
			if m.Type() == ebpf.ArrayOfMaps && value != nil {
				hash.Write([]byte(sumOf(t, mapByID(t, ebpf.MapID(binary.NativeEndian.Uint32(value))))))
			}
		}
	}
	return fmt.Sprintf("%x", hash.Sum(nil))
}

func nextKey(t *testing.T, m *ebpf.Map, key []byte) []byte {
	t.Helper()
	var from any // nil: from the beginning
	if key != nil {
		from = key
	}
	next, err := m.NextKeyBytes(from)
	if err != nil {
		t.Fatalf("read keys of %s: %v", m, err)
	}
	return next
}

func TestManyExplanationsChangeNoMap(t *testing.T) {
	p := newTestPlane(t, richState())
	openGate(t, p, "v3")
	f := openFastPath(t, p)
	f.Renew(monotonic() + 10*hour)
	if !f.Absorb(p.Slots()["fast"], advert{vrid: vridFast}.bytes(), hour) {
		t.Fatal("the plane can't absorb")
	}
	random := rand.New(rand.NewPCG(7, 8))
	for range 3000 {
		run(t, p, anyTraffic(random))
	}
	explainFrame(t, p, packet{}.bytes()) // loads the copy
	n := p.nics[0]
	live, dry := mapsOf(t, n.program), mapsOf(t, n.dry.program)
	before := map[ebpf.MapID]string{}
	for id, m := range live {
		before[id] = sumOf(t, m)
	}
	whys := map[string]int{}
	for range 100_000 {
		e := explainFrame(t, p, anyTraffic(random))
		whys[e.Why]++
	}
	for id, m := range live {
		info, err := m.Info()
		if err != nil {
			t.Fatal(err)
		}
		if sumOf(t, m) != before[id] {
			t.Errorf("map %s has changed", info.Name)
		}
		if _, shared := dry[id]; shared == slices.Contains([]string{xdirectorMapScratch, xdirectorMapQuotes, ".bss", ".rodata"}, info.Name) {
			t.Errorf("map %s: the copy has it too is %v", info.Name, shared)
		}
	}
	for _, name := range whyNames {
		if whys[name] < 100 {
			t.Errorf("only %d packets were for the reason %q", whys[name], name)
		}
	}
}

func TestExplainedAdvertsTakeNoTurnOfTheirSender(t *testing.T) {
	p := newTestPlane(t, tableState())
	sound := []advert{{}, {vrid: vridFast}, advert{}.six(), {version: 2}}
	explainFrame(t, p, sound[0].bytes()) // loads the copy
	maps := []*ebpf.Map{p.maps.Senders, p.maps.Timers, p.maps.Words, p.maps.Adverts}
	var before []string
	begin := time.Now()
	for range 20 {
		for _, a := range sound {
			run(t, p, a.bytes())
		}
	}
	for _, m := range maps {
		before = append(before, sumOf(t, m))
	}
	for n := 0; time.Since(begin) < 500*time.Millisecond; n++ { // a second later the first one is news again
		if e := explainFrame(t, p, sound[n%len(sound)].bytes()); n < len(sound) && e.Advert != "passed" {
			t.Errorf("a sound advert is explained as %+v", e)
		}
	}
	for i, m := range maps {
		if sumOf(t, m) != before[i] {
			t.Errorf("%s has changed", m)
		}
	}
}

func TestBothCopiesAgreeOnAnyPacket(t *testing.T) {
	p := newTestPlane(t, richState())
	openGate(t, p, "v3")
	random := rand.New(rand.NewPCG(9, 10))
	for _, size := range []int{1500, 9000, 16 << 10} {
		frame := packet{flags: ack, payload: size - 54}.bytes()
		if e := checkAgreement(t, p, frame); e.Verdict != "tx" || !bytes.Equal(e.Frame[12:], frame[12:]) {
			t.Errorf("a frame of %d bytes is explained as %s", size, e.Verdict)
		}
	}
	seen := map[string]int{}
	for range 10_000 {
		seen[checkAgreement(t, p, anyTraffic(random)).Verdict]++
	}
	for _, verdict := range []string{"pass_not_ours", "pass_other_mac", "pass_balanced", "pass_refused", "pass_local", "pass_advert", "tx", "redirect", "drop"} {
		if seen[verdict] < 20 {
			t.Errorf("only %d frames with the verdict %s", seen[verdict], verdict)
		}
	}
}

// checkAgreement asks what would become of a frame, and compares that with what does.
func checkAgreement(t *testing.T, p *Plane, frame []byte) lb.Explanation {
	t.Helper()
	said := explainFrame(t, p, frame)
	action, out := run(t, p, frame)
	want := uint32(xdpPass)
	switch said.Verdict {
	case "tx":
		want = xdpTX
	case "redirect":
		want = xdpRedirect
	case "drop":
		want = xdpDrop
	}
	if waits := strings.Contains(said.Drop, "rate") || strings.HasPrefix(said.Drop, "advert") || said.Flooded; waits {
		return said // a moment later it may be in time
	}
	if action != want || !bytes.Equal(out, said.Frame) {
		t.Fatalf("explained as %+v, but the program answered %d for frame\n%x, with\n%x", said, action, frame, out)
	}
	return said
}
