package ha

import (
	"context"
	"encoding/binary"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/mdlayher/packet"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/xdirector/xdirector/pkg/logging"
	"github.com/xdirector/xdirector/pkg/vrrp"
)

// frame is an IP packet to the group with a right header. total and ttl go into the header as given.
func frame(source netip.Addr, ttl uint8, total int, payload []byte) []byte {
	b := make([]byte, 20, 20+len(payload))
	b[0], b[1], b[8], b[9] = 0x45, 0xc0, ttl, protocolVRRP
	binary.BigEndian.PutUint16(b[2:], uint16(total))
	copy(b[12:], source.AsSlice())
	copy(b[16:], group.AsSlice())
	binary.BigEndian.PutUint16(b[10:], ^internetSum(b))
	return append(b, payload...)
}

// injector returns a function that sends IP packets out of eth0 as they are.
func (b *box) injector() func([]byte) {
	b.t.Helper()
	var conn *packet.Conn
	var err error
	index := b.eth0().Attrs().Index
	b.do(func() {
		nothing := mustAssemble(bpf.RetConstant{Val: 0})
		conn, err = packet.Listen(&net.Interface{Index: index, Name: "eth0"}, packet.Datagram, unix.ETH_P_IP, &packet.Config{Filter: nothing})
	})
	must(b.t, err)
	b.t.Cleanup(func() { conn.Close() })
	to := &packet.Addr{HardwareAddr: net.HardwareAddr{0x01, 0x00, 0x5e, 0, 0, 0x12}}
	return func(f []byte) {
		if _, err := conn.WriteTo(f, to); err != nil {
			b.t.Errorf("inject: %v", err)
		}
	}
}

func TestFloodOfBadAdvertsChangesNothingAndStopsNoAdvert(t *testing.T) {
	a, b := twoBoxesAlone(t)
	cfg := config(t, fast(100, vip1))
	r := a.start(cfg)
	r.state(vrrp.Master)
	eventually(t, "address added", func() bool { return a.has(vip1.String()) })
	inject := b.injector()
	source := netip.MustParseAddr("10.9.0.9")
	good := vrrp.Advert{Version: 3, VRID: 51, Priority: 200, Interval: 100 * time.Millisecond, Addresses: []netip.Addr{vip1.Addr()}}.Append(nil, source, group)
	random := rand.New(rand.NewPCG(1, 2))

	before := r.last.Instances[0]
	sent := before.AdvertsSent
	from, n := clock(unix.CLOCK_MONOTONIC), 0
	for clock(unix.CLOCK_MONOTONIC)-from < 2*time.Second {
		for cut := range good { // every truncation of an advert that would win, with both total lengths
			inject(frame(source, 255, 20+cut, good[:cut]))
			inject(frame(source, 255, 20+len(good), good[:cut]))
		}
		inject(frame(source, 254, 20+len(good), good))
		inject(frame(source, 255, 1020, append(good, make([]byte, 1000)...)[:100]))
		for range 16 {
			noise := make([]byte, 2+random.IntN(1400))
			for i := range noise {
				noise[i] = byte(random.Uint32())
			}
			noise[1] = 51
			inject(frame(source, 255, 20+len(noise), noise))
			noise[0] = 0x46 // options that are not there
			inject(noise)
		}
		n++
	}
	took := clock(unix.CLOCK_MONOTONIC) - from
	rep := r.report("adverts counted after the flood", func(rep Report) bool {
		return rep.Instances[0].AdvertsSent >= sent+uint64(took/(100*time.Millisecond))*3/4
	}).Instances[0]
	if late := clock(unix.CLOCK_MONOTONIC) - from - took; late > 1500*time.Millisecond {
		t.Errorf("the adverts that were due in the flood came %s later", late)
	}
	if rep.State != vrrp.Master || rep.Transitions[vrrp.Master] != 1 || rep.Transitions[vrrp.Backup] != 1 || rep.AdvertsReceived != 0 {
		t.Errorf("the flood had an effect: %+v", rep)
	}
	for _, reason := range []vrrp.Reason{vrrp.RefusedLength, vrrp.RefusedTTL, vrrp.RefusedChecksum} {
		if rep.AdvertsRefused[reason] < 10 {
			t.Errorf("refused for %s: %d of %d rounds", reason, rep.AdvertsRefused[reason], n)
		}
		r.logged(1, "level=WARN", "sender=10.9.0.9", "reason="+string(reason))
	}
}

func TestAdvertsOfOtherVirtualRoutersDontReachUs(t *testing.T) {
	a, b := twoBoxes(t)
	other := fast(200, vip2)
	other.VRRP.VRID = 52
	o := b.start(config(t, other))
	o.state(vrrp.Master)
	r := a.start(config(t, fast(100, vip1)))
	rep := r.state(vrrp.Master)
	if rep.AdvertsReceived != 0 || len(rep.AdvertsRefused) != 0 {
		t.Errorf("%+v", rep)
	}
}

func TestMismatchIsReportedUntilItIsOver(t *testing.T) {
	a, b := twoBoxes(t)
	cfg := config(t, fast(150, vip1, vip2))
	high := a.start(cfg)
	high.state(vrrp.Master)
	low := b.start(config(t, fast(100, vip1)))
	rep := low.report("a mismatch", func(rep Report) bool { return len(rep.Instances[0].Mismatches) == 1 })
	m := rep.Instances[0].Mismatches[0]
	if m.Kind != "addresses" || m.Peer != netip.MustParseAddr("10.9.0.1") || rep.Instances[0].State != vrrp.Backup {
		t.Errorf("mismatch %+v in %s", m, rep.Instances[0].State)
	}
	cfg.Instances = []Instance{fast(150, vip1)}
	high.Configure(cfg)
	low.report("the end of the mismatch", func(rep Report) bool { return len(rep.Instances[0].Mismatches) == 0 })
	low.logged(1, "level=WARN", m.Text)
	low.logged(1, "mismatch is over", "sender=10.9.0.1", "kind=addresses")
}

func TestRefusalForAConfigurationDifferenceIsAMismatchUntilTheSenderIsSilent(t *testing.T) {
	a, b := twoBoxes(t)
	old := fast(255, vip1)
	old.VRRP.Version, old.VRRP.Interval = 2, time.Second
	peer := b.start(config(t, old))
	r := a.start(config(t, fast(100, vip1)))
	rep := r.report("a mismatch", func(rep Report) bool { return len(rep.Instances[0].Mismatches) == 1 })
	if m := rep.Instances[0].Mismatches[0]; m.Kind != "version" || rep.Instances[0].AdvertsRefused[vrrp.RefusedVersion] == 0 {
		t.Errorf("mismatch %+v", m)
	}
	peer.crash()
	r.report("the end of the mismatch", func(rep Report) bool { return len(rep.Instances[0].Mismatches) == 0 })
}

// A log that takes nothing any more, behind the queue that each process has for that, and nobody who reads the reports.
func TestElectionWaitsForNoLogAndNoReader(t *testing.T) {
	a, b := twoBoxes(t)
	adverts := b.sniff(0x0800)
	stuck := make(chan struct{})
	defer close(stuck)
	r := &running{t: t, done: make(chan error, 1), Runtime: New(config(t, fast(255, vip1)), slog.New(logging.NewQueue().Handler(gate{slog.DiscardHandler, stuck})))}
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel = cancel
	go a.do(func() { r.done <- r.Run(ctx) })
	for range 10 {
		nextFrame(t, adverts, "advert", func(f []byte) bool { return f[23] == protocolVRRP })
	}
	eventually(t, "address added", func() bool { return a.has(vip1.String()) })
	r.crash()
}

// gate holds every log line back until it is opened.
type gate struct {
	slog.Handler
	open <-chan struct{}
}

func (g gate) Handle(ctx context.Context, r slog.Record) error {
	<-g.open
	return g.Handler.Handle(ctx, r)
}

func (g gate) WithAttrs(a []slog.Attr) slog.Handler { return gate{g.Handler.WithAttrs(a), g.open} }

// After a pause of the process the adverts of a living MASTER lie in the queue when the timer is found due.
func TestAdvertsInTheQueueComeBeforeADueTimer(t *testing.T) {
	a, b := twoBoxes(t)
	c := fast(100, vip1)
	source := netip.MustParseAddr("10.9.0.2")
	advert := vrrp.Advert{Version: 3, VRID: 51, Priority: 150, Interval: 100 * time.Millisecond, Addresses: c.VRRP.Addresses}.Append(nil, source, group)
	inject := b.injector()
	index := a.eth0().Attrs().Index
	a.do(func() {
		l := bareLoop(t, c)
		defer l.leave()
		i := l.instances[0]
		l.snapshot = snapshot{"eth0": {Index: index}}
		l.openPorts()
		l.connect(i)
		i.running = true
		l.step(i, l.clock(), vrrp.Start{Source: netip.MustParseAddr("10.9.0.1")})
		inject(frame(source, 255, 20+len(advert), advert))
		due, _ := i.machine.Deadline()
		eventually(t, "timer due", func() bool { return l.clock() > due })
		l.fire()
		if i.machine.State() != vrrp.Backup || i.received != 1 {
			t.Errorf("state %s after %d adverts", i.machine.State(), i.received)
		}
	})
}
