package e2e

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/xdirector/xdirector/pkg/status"
	"github.com/xdirector/xdirector/test/lab"
)

// badAdvertCount is how many random and mutated adverts are sent: XDIRECTOR_ADVERTS, or 50,000.
func badAdvertCount(t *testing.T) int {
	text := os.Getenv("XDIRECTOR_ADVERTS")
	if text == "" {
		return 50_000
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1000 {
		t.Fatalf("XDIRECTOR_ADVERTS=%q is no number of 1000 or more", text)
	}
	return n
}

// judged is a router as the oracle knows it: what is on the wire, and nothing of how the product reads it.
type judged struct {
	version, vrid uint8
	priority      uint8
	interval      time.Duration
	own           netip.Addr
	addresses     []netip.Addr
}

// verdictOn is what an advert means for a router.
type verdictOn uint8

const (
	noEffect verdictOn = iota // not for it, or to be discarded
	accepted                  // valid, and the state stays
	decisive                  // valid, and the state or the next change of it is another one
)

// judge is an oracle of its own, made from RFC 3768 and RFC 9568 and from what keepalived sends: it reads a whole frame.
func (j judged) judge(frame []byte, master bool) verdictOn {
	source, message, ok := j.ip(frame)
	if !ok || len(message) < 8 || message[1] != j.vrid || message[0] != j.version<<4|1 {
		return noEffect
	}
	size, trailer := source.BitLen()/8, 0
	if j.version == 2 {
		trailer = 8
	}
	end := 8 + int(message[3])*size + trailer
	if message[3] == 0 || len(message) < end || !j.summed(source, message[:end]) {
		return noEffect
	}
	var interval time.Duration
	if j.version == 2 {
		interval = time.Duration(message[5]) * time.Second
		if message[4] != 0 || interval != j.interval {
			return noEffect
		}
	} else {
		interval = time.Duration(binary.BigEndian.Uint16(message[4:])&0xfff) * 10 * time.Millisecond
	}
	if interval == 0 {
		return noEffect
	}
	common := false
	for n := range int(message[3]) {
		a, _ := netip.AddrFromSlice(message[8+n*size : 8+(n+1)*size])
		common = common || slices.Contains(j.addresses, a)
	}
	if j.version == 2 && !common {
		return noEffect
	}
	priority := message[2]
	if slices.Contains(j.addresses, source) && priority != 255 {
		return noEffect
	}
	switch {
	case master && (priority > j.priority || priority == j.priority && source.Compare(j.own) > 0):
		return decisive
	case !master && (priority == 0 || priority >= j.priority && interval != j.interval):
		return decisive
	}
	return accepted
}

// ip checks the headers below the advert.
func (j judged) ip(frame []byte) (source netip.Addr, message []byte, ok bool) {
	var destination netip.Addr
	var hops uint8
	b := frame[14:]
	switch binary.BigEndian.Uint16(frame[12:]) {
	case 0x0800:
		if len(b) < 20 || b[0]>>4 != 4 {
			return source, nil, false
		}
		header, total := int(b[0]&15)*4, int(binary.BigEndian.Uint16(b[2:]))
		if header < 20 || total < header || len(b) < total || b[9] != 112 || binary.BigEndian.Uint16(b[6:])&0x3fff != 0 || ones(b[:header]) != 0xffff {
			return source, nil, false
		}
		source, destination, hops, message = netip.AddrFrom4([4]byte(b[12:])), netip.AddrFrom4([4]byte(b[16:])), b[8], b[header:total]
		if destination != netip.MustParseAddr("224.0.0.18") {
			return source, nil, false
		}
	case 0x86dd:
		if len(b) < 40 || b[0]>>4 != 6 || b[6] != 112 || len(b) < 40+int(binary.BigEndian.Uint16(b[4:])) {
			return source, nil, false
		}
		source, destination, hops = netip.AddrFrom16([16]byte(b[8:])), netip.AddrFrom16([16]byte(b[24:])), b[7]
		message = b[40 : 40+int(binary.BigEndian.Uint16(b[4:]))]
		if destination != netip.MustParseAddr("ff02::12") {
			return source, nil, false
		}
	default:
		return source, nil, false
	}
	broadcast := netip.MustParseAddr("255.255.255.255")
	if hops != 255 || source == j.own || source.BitLen() != j.own.BitLen() || source.IsUnspecified() || source.IsMulticast() ||
		source.IsLoopback() || source == broadcast || source.Is4In6() {
		return source, nil, false
	}
	return source, message, true
}

// summed says whether the checksum is right, in either form over IPv4 in version 3.
func (j judged) summed(source netip.Addr, message []byte) bool {
	group := netip.MustParseAddr("224.0.0.18")
	if source.Is6() {
		group = netip.MustParseAddr("ff02::12")
	}
	head := slices.Concat(source.AsSlice(), group.AsSlice(), []byte{0, 112}, binary.BigEndian.AppendUint16(nil, uint16(len(message))))
	full := ones(slices.Concat(head, message)) == 0xffff
	switch {
	case j.version == 2:
		return ones(message) == 0xffff
	case source.Is6():
		return full
	}
	return full || ones(message) == 0xffff
}

// ones is the ones' complement sum of 16-bit words.
func ones(b []byte) uint16 {
	sum := 0
	for n, x := range b {
		if n%2 == 0 {
			sum += int(x) << 8
		} else {
			sum += int(x)
		}
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	return uint16(sum)
}

// mutate makes an advert for a router and spoils it in zero to three ways.
func mutate(r *rand.Rand, f lab.Forged) []byte {
	f.Priority = uint8(r.Uint32())
	family := fmt.Sprintf("v%d", f.Version)
	if f.Source.Is6() {
		family = "v6"
	}
	for range r.IntN(3) {
		x := badAdverts()[r.IntN(len(badAdverts()))]
		if len(f.Addresses) > 0 && (x.families == "" || strings.Contains(x.families, family)) {
			x.change(&f)
		}
	}
	switch r.IntN(8) {
	case 0:
		f.Trailer = randomBytes(r, r.IntN(40))
	case 1:
		f.Sum = lab.Sum(r.IntN(4))
	case 2:
		f.Interval = time.Duration(r.IntN(4096)) * 10 * time.Millisecond
	case 3:
		f.Reserved, f.Padding = uint8(r.IntN(16)), r.IntN(20)
	}
	frame := f.Frame()
	switch r.IntN(6) {
	case 0: // a flipped bit
		n := 14 + r.IntN(len(frame)-14)
		frame[n] ^= 1 << r.IntN(8)
	case 1: // cut off
		frame = frame[:14+r.IntN(len(frame)-14)]
	case 2: // rubbish behind the IP header
		const message = 34
		if len(frame) > message {
			copy(frame[message:], randomBytes(r, len(frame)-message))
		}
	case 3: // several random bytes
		for range 1 + r.IntN(4) {
			frame[14+r.IntN(len(frame)-14)] = byte(r.Uint32())
		}
	}
	return frame
}

func randomBytes(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// TestOnlyValidAdvertsChangeAState sends random and mutated adverts to a MASTER and a BACKUP of
// each family. What is accepted is counted exactly; those that must change a state are kept back, and sent at the end to
// see that they do.
func TestOnlyValidAdvertsChangeAState(t *testing.T) {
	onPlanes(t, func(t *testing.T, _ string) {
		b := newBed(t)
		var routers []lab.Instance
		k := b.keep()
		for _, f := range families {
			for _, master := range []bool{true, false} {
				i := b.router(f, 100)
				if !master {
					k.send(b.forge(i, 200), 250*time.Millisecond)
				}
				routers = append(routers, i)
			}
		}
		b.slow()
		var all []judged
		for n := range routers {
			i := b.instances[n]
			routers[n] = i
			own := b.director.Address
			if isIPv6(i) {
				own = b.director.LinkLocal
			}
			all = append(all, judged{uint8(i.Version), i.VRID, i.Priority, i.Interval, own, virtual(i)})
			if n%2 == 1 {
				k.send(b.forge(i, 200), 250*time.Millisecond)
			}
		}
		b.start()
		b.ok(b.director.WaitStatus(t.Context(), patience, func(s *status.Status) error {
			for n, i := range s.Instances {
				if want := []string{"MASTER", "BACKUP"}[n%2]; i.State != want {
					return fmt.Errorf("%s is %s, want %s", i.Name, i.State, want)
				}
			}
			return nil
		}))
		before, err := b.director.Status(t.Context())
		b.ok(err)
		seed := uint64(time.Now().UnixNano())
		t.Logf("seed %d", seed)
		r := rand.New(rand.NewPCG(seed, 0))
		election := b.director.Process().PIDsWith("election")
		cpu, err := lab.CPUTime(election)
		b.ok(err)
		held := make([][][]byte, len(all)) // what changes a state, by router
		valid := make([]uint64, len(all))
		count := badAdvertCount(t)
		begin := time.Now()
		for n := 0; n < count; n++ {
			to := r.IntN(len(all))
			frame := mutate(r, b.forge(routers[to], 0))
			decides := false
			var accepts []int
			for i, j := range all {
				switch j.judge(frame, i%2 == 0) {
				case decisive:
					decides = true
					held[i] = append(held[i], frame)
				case accepted:
					accepts = append(accepts, i)
				}
			}
			if decides {
				continue
			}
			for _, i := range accepts {
				valid[i]++
			}
			b.ok(b.inject.Send(frame))
			if n%500 == 499 { // no more than the queue of a socket holds
				b.countsAccepted(before, valid)
			}
		}
		b.countsAccepted(before, valid)
		used, err := lab.CPUTime(election)
		b.ok(err)
		t.Logf("%d adverts in %v, %v accepted: %v of CPU for each", count, time.Since(begin).Round(time.Millisecond), valid, (used-cpu)/time.Duration(count))
		after, err := b.director.Status(t.Context())
		b.ok(err)
		for n, i := range after.Instances {
			if fmt.Sprint(i.Transitions) != fmt.Sprint(before.Instances[n].Transitions) {
				t.Errorf("seed %d: %s: changes of state %v, before %v: %s", seed, i.Name, i.Transitions, before.Instances[n].Transitions, i.Reason)
			}
			if valid[n] < uint64(count/1000) {
				t.Errorf("seed %d: %s: only %d valid adverts of %d: the test shows little", seed, i.Name, valid[n], count)
			}
			if len(held[n]) == 0 {
				t.Errorf("seed %d: %s: no advert would change its state", seed, i.Name)
			}
		}
		// A MASTER obeys each of those that win.
		for n := 0; n < len(all) && !t.Failed(); n += 2 {
			b.ok(b.inject.Send(held[n][0]))
			b.wait(routers[n], func(s status.Instance) error {
				if s.State != "BACKUP" {
					return fmt.Errorf("seed %d: %s is %s after % x", seed, s.Name, s.State, held[n][0])
				}
				return nil
			})
		}
	})
}

// countsAccepted waits until the MASTERs have accepted exactly the valid adverts, and the BACKUPs at least those.
func (b *bed) countsAccepted(before *status.Status, valid []uint64) {
	b.t.Helper()
	b.ok(b.director.WaitStatus(b.t.Context(), patience, func(s *status.Status) error {
		for n, i := range s.Instances {
			got := i.AdvertsReceived - before.Instances[n].AdvertsReceived
			if n%2 == 0 && got > valid[n] {
				b.t.Fatalf("%s accepted %d adverts, %d were valid: %v", i.Name, got, valid[n], i.AdvertsRefused)
			}
			if got < valid[n] {
				return fmt.Errorf("%s accepted %d adverts, %d were valid: %v", i.Name, got, valid[n], i.AdvertsRefused)
			}
		}
		return nil
	}))
	// However many kinds of bad adverts there are, Prometheus gets no more series than docs/metrics.md says.
	_, body, err := scrape(b.director, "/metrics")
	b.ok(err)
	for _, i := range before.Instances {
		if series := strings.Count(body, `instance="`+i.Name+`"`); series < 10 || series > 60 {
			b.t.Errorf("%s has %d series", i.Name, series)
		}
	}
}
