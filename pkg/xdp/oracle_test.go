package xdp

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/xdirector/xdirector/pkg/lb"
)

// judgement is what the oracle says about a frame.
type judgement int

const (
	foreign  judgement = iota // for no router of ours that filters, or nobody can tell: it must pass
	sound                     // it must pass, or be absorbed
	unsound                   // one of a second may pass
	repeated                  // sound, and the MASTER's last advert once more
)

// oracle judges frames by RFC 3768 and RFC 9568, from the routers as they are configured. It shares nothing with the
// programs.
type oracle struct {
	routers []lb.Router
	last    map[string][]byte // the frame that is absorbed, by router
}

func (o oracle) judge(frame []byte) (lb.Router, judgement) {
	none := lb.Router{}
	if len(frame) < 14 {
		return none, foreign
	}
	packet := frame[14:]
	var header, total int
	var source, destination netip.Addr
	var hops byte
	sound4 := true
	switch binary.BigEndian.Uint16(frame[12:]) {
	case 0x0800:
		if len(packet) < 20 || packet[0]>>4 != 4 || packet[9] != 112 || binary.BigEndian.Uint16(packet[6:])&0x1fff != 0 {
			return none, foreign
		}
		header, total = int(packet[0]&15)*4, int(binary.BigEndian.Uint16(packet[2:]))
		if header < 20 || len(packet) < header {
			return none, foreign
		}
		source, destination, hops = netip.AddrFrom4([4]byte(packet[12:16])), netip.AddrFrom4([4]byte(packet[16:20])), packet[8]
		sound4 = onesSum(packet[:header]) == 0xffff && packet[6]&0x20 == 0
	case 0x86dd:
		if len(packet) < 40 || packet[0]>>4 != 6 || packet[6] != 112 {
			return none, foreign
		}
		header, total = 40, 40+int(binary.BigEndian.Uint16(packet[4:]))
		source, destination, hops = netip.AddrFrom16([16]byte(packet[8:24])), netip.AddrFrom16([16]byte(packet[24:40])), packet[7]
	default:
		return none, foreign
	}
	if total < header+2 || len(packet) < header+2 {
		return none, foreign
	}
	i := slices.IndexFunc(o.routers, func(r lb.Router) bool {
		return r.Interface == "eth0" && r.VRID == packet[header+1] && r.IPv6 == (header == 40 && packet[0]>>4 == 6)
	})
	if i < 0 {
		return none, foreign
	}
	r := o.routers[i]
	group := netip.MustParseAddr("224.0.0.18")
	if r.IPv6 {
		group = netip.MustParseAddr("ff02::12")
	}
	switch {
	case destination != group && destination != r.Source:
		return none, foreign
	case !r.Filter, total-header > 1536: // nobody sends that, and nobody looks at it
		return r, sound
	case !sound4 || total > len(packet):
		return r, unsound
	}
	lowest := byte(255)
	if len(r.Peers) > 0 && r.PeerTTL > 0 {
		lowest = r.PeerTTL
	}
	own := lb.MAC(frame[6:12]) == eth0MAC || source == r.Source
	stranger := len(r.Peers) > 0 && !slices.Contains(r.Peers, source)
	if hops < lowest || own || stranger || !soundMessage(r, source, destination, packet[header:total]) {
		return r, unsound
	}
	if last := o.last[r.Name]; last != nil && bytes.Equal(masked(frame[:14+total]), masked(last)) {
		return r, repeated
	}
	return r, sound
}

func soundMessage(r lb.Router, source, destination netip.Addr, m []byte) bool {
	if len(m) < 8 || m[0] != r.Version<<4|1 || m[3] == 0 {
		return false
	}
	size := 8 + int(m[3])*len(source.AsSlice())
	interval := int(m[4]&15)<<8 | int(m[5])
	if r.Version == 2 {
		size, interval = size+8, int(m[5])
	}
	if len(m) < size || interval == 0 {
		return false
	}
	// What stands behind the addresses may be under the checksum, or not.
	return slices.ContainsFunc([][]byte{m[:size], m}, func(m []byte) bool {
		if !r.IPv6 && onesSum(m) == 0xffff {
			return true
		}
		pseudo := slices.Concat(source.AsSlice(), destination.AsSlice(), binary.BigEndian.AppendUint32(nil, uint32(len(m))), []byte{0, 0, 0, 112})
		return r.Version == 3 && onesSum(slices.Concat(pseudo, m)) == 0xffff
	})
}

// masked is an IP packet without what may differ between repeats.
func masked(frame []byte) []byte {
	frame = bytes.Clone(frame)
	if frame[12] == 8 {
		copy(frame[14+4:], []byte{0, 0})
		copy(frame[14+10:], []byte{0, 0})
	}
	return frame
}

func onesSum(b []byte) int {
	sum := 0
	for i, x := range b {
		sum += int(x) << (8 * (1 - i%2))
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	return sum
}

// spoil makes a frame from an advert: as it is, or with some things wrong, of which some are covered by right checksums.
func spoil(random *rand.Rand, a advert) []byte {
	for range random.IntN(3) {
		switch random.IntN(12) {
		case 0:
			a.id = uint16(random.Uint32())
		case 1:
			a.priority = 1 + random.IntN(255)
		case 2:
			a.ttl = 1 + random.IntN(255)
		case 3:
			a.trailer = make([]byte, random.IntN(40))
			a.over = random.IntN(2) == 0
		case 4:
			if !a.from.Is6() {
				a.options = bytes.Repeat([]byte{1}, 4*random.IntN(11))
			}
		case 5:
			a.fragment = uint16(1) << random.IntN(16)
		case 6:
			a.count = random.IntN(5) - 1
		case 7:
			a.interval = random.IntN(3) - 1 + random.IntN(2)<<12
		case 8:
			a.total = random.IntN(20) - 12
		case 9:
			a.padding = random.IntN(40)
		case 10:
			a.version = byte(2 + random.IntN(2))
		case 11:
			a.messageOnly = !a.messageOnly
		}
	}
	frame := a.bytes()
	for range max(0, random.IntN(4)-2) {
		switch random.IntN(5) {
		case 0:
			frame[random.IntN(min(len(frame), 60))] = byte(random.Uint32())
		case 1:
			frame[random.IntN(len(frame))] ^= 1 << random.IntN(8)
		case 2:
			frame = frame[:14+random.IntN(len(frame)-13)]
		case 3: // a VLAN tag
			frame = slices.Insert(frame, 12, 0x81, 0, byte(random.Uint32()), byte(random.Uint32()))
		case 4: // two bytes that make no difference to a sum
			if len(frame) >= 48 {
				frame[34], frame[35], frame[46], frame[47] = frame[46], frame[47], frame[34], frame[35]
			}
		}
	}
	return frame
}

// advertCount is how many adverts are tried: XDIRECTOR_ADVERTS, or as many as take a few seconds.
func advertCount(t *testing.T) int {
	text := os.Getenv("XDIRECTOR_ADVERTS")
	if text == "" {
		return 30_000
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1000 {
		t.Fatalf("XDIRECTOR_ADVERTS=%q is no number of 1000 or more", text)
	}
	return n
}

func TestTheFilterDropsNothingSoundAndAbsorbsNothingButRepeats(t *testing.T) {
	p := newTestPlane(t, tableState())
	f := openFastPath(t, p)
	f.Renew(monotonic() + 10*hour)
	six, fast := advert{}.six(), advert{vrid: vridFast}
	o := oracle{routers: testRouters(), last: map[string][]byte{"fast": fast.bytes(), "v6": six.bytes(), "v2": advert{version: 2}.bytes()}}
	for router, frame := range o.last {
		if !f.Absorb(p.Slots()[router], frame, hour) {
			t.Fatal("the plane can't absorb")
		}
	}
	kinds := []advert{
		{}, fast, fast, fast, six, six, {version: 2}, {version: 2}, {vrid: vridOff}, {vrid: 99}, {addresses: many(40)}, {to: ownAddress},
		{vrid: vridUnicast, to: ownAddress}, {vrid: vridUnicast, to: ownAddress, ttl: 64}, {vrid: vridUnicast, to: ownAddress, from: serverAddress(7)},
		{vrid: vridUnicast, from: peer6, to: ownAddress6}, {from: ownAddress}, {source: eth0MAC}, {vrid: vridFast, priority: 100}, {trailer: make([]byte, 28)},
	}
	random := rand.New(rand.NewPCG(5, 6))
	seen := map[judgement]int{}
	count := advertCount(t)
	for n := range count {
		if n%batch == 0 {
			pause(t, p, o.last)
		}
		frame := spoil(random, kinds[random.IntN(len(kinds))])
		router, judged := o.judge(frame)
		seen[judged]++
		fates := tryAdvert(t, p, router, frame)
		switch {
		case judged == foreign && fates.action != xdpPass:
			t.Fatalf("advert %d is for nobody here, and was dropped:\n%x", n, frame)
		case judged == sound && (fates.passed != 1 || fates.action != xdpPass):
			t.Fatalf("advert %d for %s is sound: action %d, %+v\n%x", n, router.Name, fates.action, fates, frame)
		case judged == repeated && (fates.absorbed != 1 || fates.action != xdpDrop):
			t.Fatalf("advert %d for %s is a repeat: action %d, %+v\n%x", n, router.Name, fates.action, fates, frame)
		case judged == unsound && (fates.passed != 0 || fates.absorbed != 0):
			t.Fatalf("advert %d for %s is unsound: action %d, %+v\n%x", n, router.Name, fates.action, fates, frame)
		}
	}
	for judged, n := range map[string]int{"foreign": seen[foreign], "sound": seen[sound], "unsound": seen[unsound], "repeated": seen[repeated]} {
		if n < count/20 {
			t.Errorf("only %d of %d adverts are %s: that proves little", n, count, judged)
		}
	}
}

// So many adverts are fewer than the routers take at once.
const batch = 200

// pause is as if nothing had come in for a while, but one repeat of each of the last adverts a moment ago.
func pause(t *testing.T, p *Plane, last map[string][]byte) {
	t.Helper()
	for name, slot := range p.Slots() {
		if err := p.maps.Timers.Put(slot, xdirectorTimer{Passed: uint64(monotonic() - 100*time.Millisecond)}); err != nil {
			t.Fatal(err)
		}
		// The timer went with what was there, and the kernel doesn't always have memory at hand for another one: then the
		// advert passes, and the next one asks again.
		for limit := time.Now().Add(10 * time.Second); last[name] != nil; {
			if action, _ := run(t, p, last[name]); action == xdpDrop && armed(t, p, slot) {
				break
			}
			if time.Now().After(limit) {
				t.Fatalf("%s: nothing is absorbed", name)
			}
		}
	}
}

func armed(t *testing.T, p *Plane, slot uint32) bool {
	t.Helper()
	var timer xdirectorTimer
	if err := p.maps.Timers.Lookup(slot, &timer); err != nil {
		t.Fatal(err)
	}
	return timer.Armed != 0
}

type tried struct {
	action           uint32
	passed, absorbed uint64
}

// tryAdvert runs one frame, as if its sender and its router had sent nothing for a while.
func tryAdvert(t *testing.T, p *Plane, router lb.Router, frame []byte) tried {
	t.Helper()
	slot, known := p.Slots()[router.Name]
	read := func() (passed, absorbed uint64) {
		var perCPU []xdirectorAdvertCounters
		if err := p.maps.Adverts.Lookup(slot, &perCPU); err != nil {
			t.Fatal(err)
		}
		for _, c := range perCPU {
			passed += c.ByFate[xdirectorAdvertFateADVERT_PASSED]
			absorbed += c.ByFate[xdirectorAdvertFateADVERT_ABSORBED]
		}
		return passed, absorbed
	}
	if !known {
		if len(frame) < 14 {
			return tried{action: xdpPass} // the kernel doesn't run a program on those
		}
		action, _ := run(t, p, frame)
		return tried{action: action}
	}
	key := xdirectorSenderKey{Slot: slot, Mac: [6]uint8(frame[6:12])}
	if router.IPv6 {
		key.Address = [16]uint8(frame[22:38])
	} else {
		copy(key.Address[:], frame[26:30])
	}
	_ = p.maps.Senders.Delete(key) // it may have sent nothing yet
	passed, absorbed := read()
	action, out := run(t, p, frame)
	if !bytes.Equal(out, frame) {
		t.Fatalf("the frame was changed from\n%x to\n%x", frame, out)
	}
	after, afterAbsorbed := read()
	return tried{action: action, passed: after - passed, absorbed: afterAbsorbed - absorbed}
}
