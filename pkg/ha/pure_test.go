package ha

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/xdirector/xdirector/pkg/lb"
	"github.com/xdirector/xdirector/pkg/vrrp"
)

func TestGratuitousARPIsTheRequestThatKeepalivedSends(t *testing.T) {
	got := gratuitousARP(net.HardwareAddr{0x02, 0, 0, 0x77, 0, 1}, netip.MustParseAddr("10.9.0.100"))
	want := "ffffffffffff" + "020000770001" + "0806" +
		"0001" + "0800" + "06" + "04" + "0001" +
		"020000770001" + "0a090064" + "ffffffffffff" + "0a090064"
	if hex.EncodeToString(got) != want {
		t.Errorf("frame %x, want %s", got, want)
	}
}

func TestParseIPChecksTheHeader(t *testing.T) {
	source := netip.MustParseAddr("10.9.0.1")
	payload, _ := hex.DecodeString("31336401000a75610a090064")
	good := frame(source, 255, 32, payload)
	change := func(at int, b byte) []byte {
		f := append([]byte{}, good...)
		f[at] = b
		f[10], f[11] = 0, 0
		sum := ^internetSum(f[:20])
		f[10], f[11] = byte(sum>>8), byte(sum)
		return f
	}
	options := append([]byte{0x46}, good[1:20]...)
	options = append(append(options, 0x94, 4, 0, 0), payload...) // router alert
	options[3], options[10], options[11] = 36, 0, 0
	sum := ^internetSum(options[:24])
	options[10], options[11] = byte(sum>>8), byte(sum)
	broken := append([]byte{}, good...)
	broken[8] = 254

	for _, c := range []struct {
		name    string
		in      []byte
		vrid    uint8
		reason  vrrp.Reason
		payload int
	}{
		{"good", good, 51, "", 12},
		{"with padding of the frame", append(append([]byte{}, good...), make([]byte, 14)...), 51, "", 12},
		{"with options", options, 51, "", 12},
		{"version 6", change(0, 0x65), 0, vrrp.RefusedLength, 0},
		{"header of 16 bytes", change(0, 0x44), 0, vrrp.RefusedLength, 0},
		{"another protocol", change(9, 17), 0, vrrp.RefusedLength, 0},
		{"total length beyond the packet", change(3, 33), 51, vrrp.RefusedLength, 0},
		{"total length within the header", change(3, 19), 51, vrrp.RefusedLength, 0},
		{"header checksum", broken, 51, vrrp.RefusedChecksum, 0},
		{"no VRID", good[:21], 0, vrrp.RefusedLength, 0},
		{"empty", nil, 0, vrrp.RefusedLength, 0},
	} {
		p, vrid, reason := parseIP(c.in)
		if vrid != c.vrid || reason != c.reason || len(p.Payload) != c.payload {
			t.Errorf("%s: VRID %d, reason %q, payload %x", c.name, vrid, reason, p.Payload)
		}
	}
	p, _, _ := parseIP(good)
	if p.Source != source || p.Destination != group || p.TTL != 255 || p.Fragment {
		t.Errorf("%+v", p)
	}
	for at, b := range map[int]byte{6: 0x20, 7: 1} { // more fragments; an offset
		if p, _, reason := parseIP(change(at, b)); !p.Fragment || reason != "" {
			t.Errorf("fragment by byte %d: %+v, %q", at, p, reason)
		}
	}
	if p, _, _ := parseIP(change(6, 0x40)); p.Fragment {
		t.Error("don't-fragment is no fragment")
	}
}

func FuzzParseIP(f *testing.F) {
	f.Add(frame(netip.MustParseAddr("10.9.0.1"), 255, 28, make([]byte, 8)))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, vrid, reason := parseIP(b)
		if reason != "" {
			return
		}
		if len(p.Payload)+20 > len(b) || len(p.Payload) > 1 && vrid != p.Payload[1] {
			t.Errorf("payload of %d bytes and VRID %d out of %x", len(p.Payload), vrid, b)
		}
	})
}

func TestFilterPassesOnlyOurVirtualRouters(t *testing.T) {
	var program []bpf.Instruction
	vrids := []uint8{1, 51, 52, 255}
	for _, raw := range advertFilter(false, vrids) {
		program = append(program, raw.Disassemble())
	}
	vm, err := bpf.NewVM(program)
	if err != nil {
		t.Fatal(err)
	}
	source := netip.MustParseAddr("10.9.0.1")
	for vrid := range 256 {
		n, err := vm.Run(append(make([]byte, etherHeader), frame(source, 255, 28, []byte{0x31, byte(vrid), 0, 0, 0, 0, 0, 0})...))
		ours := vrid == 1 || vrid == 51 || vrid == 52 || vrid == 255
		if err != nil || (n > 0) != ours {
			t.Errorf("VRID %d: passed %d, %v", vrid, n, err)
		}
	}
	udp := frame(source, 255, 28, []byte{0, 51, 0, 0, 0, 0, 0, 0})
	udp[9] = 17
	if n, _ := vm.Run(append(make([]byte, etherHeader), udp...)); n > 0 {
		t.Error("UDP passed")
	}
}

func TestChooseSource(t *testing.T) {
	p := netip.MustParsePrefix
	global := func(s string) ownAddress { return ownAddress{Prefix: p(s), Global: true} }
	secondary := func(s string) ownAddress { return ownAddress{Prefix: p(s), Global: true, Secondary: true} }
	local := func(s string) ownAddress { return ownAddress{Prefix: p(s)} }
	l := bareLoop(t, fast(100, p("10.0.0.100/32")))
	defer l.leave()
	for _, c := range []struct {
		name, current, want string
		owned               []netip.Addr
		addresses           []ownAddress
	}{
		{name: "the first", want: "10.0.0.1", addresses: []ownAddress{global("10.0.0.1/24"), global("10.1.0.1/24")}},
		{name: "never a virtual one", want: "10.0.0.1", addresses: []ownAddress{global("10.0.0.100/24"), secondary("10.0.0.1/24")}},
		{name: "a primary one", want: "10.1.0.1", addresses: []ownAddress{secondary("10.0.0.1/24"), global("10.1.0.1/24")}},
		{name: "of global scope, even if secondary", want: "10.1.0.1", addresses: []ownAddress{local("169.254.0.1/16"), secondary("10.1.0.1/24")}},
		{name: "the current one, while it is there", current: "10.0.0.2", want: "10.0.0.2", addresses: []ownAddress{global("10.0.0.1/24"), secondary("10.0.0.2/24")}},
		{name: "another when it is gone", current: "10.0.0.2", want: "10.0.0.1", addresses: []ownAddress{global("10.0.0.1/24")}},
		{name: "not the current one when it became virtual", current: "10.0.0.100", want: "10.0.0.1", addresses: []ownAddress{global("10.0.0.100/32"), global("10.0.0.1/24")}},
		{name: "of its family", want: "10.0.0.1", addresses: []ownAddress{local("fe80::1/64"), global("10.0.0.1/24")}},
		{name: "none", addresses: []ownAddress{global("10.0.0.100/24")}},
		{name: "the owner's real address", want: "10.0.0.100", owned: []netip.Addr{netip.MustParseAddr("10.0.0.100")}, addresses: []ownAddress{global("10.0.0.100/24")}},
		{name: "the owner's other address first", want: "10.0.0.1", owned: []netip.Addr{netip.MustParseAddr("10.0.0.100")}, addresses: []ownAddress{global("10.0.0.100/24"), secondary("10.0.0.1/24")}},
	} {
		clear(l.owns)
		got, why := chooseSource("eth0", c.addresses, l.own(link{Addresses: c.addresses}), wanted{current: addrOf(c.current)}, c.owned)
		if got != addrOf(c.want) || (why == "") != (c.want != "") {
			t.Errorf("%s: %s (%s), want %s", c.name, got, why, c.want)
		}
	}
}

func TestForgedSendersFillNeitherMemoryNorLog(t *testing.T) {
	log := &testLog{}
	n := newNotices(slog.New(slog.NewTextHandler(log, nil)))
	now := vrrp.Time(0)
	for i := range 5000 {
		now += 10 * time.Millisecond
		s := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		n.refused(now, vrrp.Refused{Source: s, Reason: vrrp.RefusedTTL, Text: "ttl"})
		n.refused(now, vrrp.Refused{Source: s, Reason: vrrp.RefusedPassword, Text: "password"})
		n.peer(now, lb.Director{Address: s})
		n.expire(now, 300*time.Millisecond)
	}
	if len(n.said) > maxSaid || len(n.mismatches) > maxMismatches || len(n.peers) > maxPeers {
		t.Errorf("kept %d lines, %d mismatches, %d peers", len(n.said), len(n.mismatches), len(n.peers))
	}
	if len(log.lines) > maxLines+1 {
		t.Errorf("%d log lines", len(log.lines))
	}
	last := lb.Director{Address: netip.AddrFrom4([4]byte{10, 0, 0x13, 0x87})}
	if !slices.Contains(n.peerList(), last) {
		t.Error("the newest peer is not kept")
	}
}

func openTestRecords(t *testing.T, dir string) *records {
	t.Helper()
	r, err := openRecords(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.close)
	return r
}

func write(r *records, instance string, rec record) error {
	version, _ := r.put(instance, rec)
	return r.flush(version)
}

func TestAnUnchangedRecordWaitsForNoDisk(t *testing.T) {
	r := openTestRecords(t, t.TempDir())
	rec := record{Interface: "eth0", Slot: 1}
	if err := write(r, "VI_1", rec); err != nil {
		t.Fatal(err)
	}
	r.put("VI_2", record{Interface: "eth0", Slot: 2}) // on its way
	if _, news := r.put("VI_1", rec); news {
		t.Error("an unchanged record has its instance wait for another one's")
	}
	r.failed = true
	if _, news := r.put("VI_1", rec); !news {
		t.Error("what could not be written is not tried again")
	}
}

func TestRecordsAreReadBackByTheNextRunAndTheFilesGoWithTheLastOne(t *testing.T) {
	dir := t.TempDir()
	rec := record{Interface: "eth0", Index: 7, Version: 2, VRID: 51, Interval: time.Second, Slot: 1,
		Addresses:  []recordedAddress{{vip1, "eth0", 7}, {netip.MustParsePrefix("2001:db8::100/128"), "vrrp.51", 0}},
		Routes:     []recordedRoute{{Route{Destination: vip2, Metric: 5}, 7}},
		VirtualMAC: []recordedDevice{{"vrrp.51", 7, "00:00:5e:00:01:33"}}}
	r := openTestRecords(t, dir)
	if err := errors.Join(write(r, "../net", rec), write(r, "VI_2", record{Slot: 2})); err != nil {
		t.Fatal(err)
	}
	r.close()
	r = openTestRecords(t, dir)
	got, ok := r.of("../net")
	if !ok || !reflect.DeepEqual(got, rec) || !slices.Equal(r.names(), []string{"../net", "VI_2"}) {
		t.Errorf("read back %+v, %v of %v", got, ok, r.names())
	}
	if err := errors.Join(r.remove("../net"), r.remove("VI_2")); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(dir); len(left) != 0 || err != nil {
		t.Errorf("left: %v, %v", left, err)
	}
}

func TestAStateDirHasOneDirectorAtATime(t *testing.T) {
	t.Parallel() // it waits
	dir := t.TempDir()
	r := openTestRecords(t, dir)
	if _, err := openRecords(dir, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "another director uses it") {
		t.Errorf("opened twice: %v", err)
	}
	if err := Cleanup(dir, slog.New(slog.DiscardHandler)); err == nil {
		t.Error("cleaned up beside an election")
	}
	r.close()
	openTestRecords(t, dir)
}

func TestManyRecordsNeedFewWrites(t *testing.T) {
	dir := t.TempDir()
	r := openTestRecords(t, dir)
	var wg sync.WaitGroup
	r.writing.Lock() // the disk is slow
	for i := range 1000 {
		wg.Go(func() {
			name := fmt.Sprint("VI_", i)
			slot, _, _ := r.slot(name)
			if err := write(r, name, record{Interface: "eth0", Slot: slot}); err != nil {
				t.Error(err)
			}
		})
	}
	eventually(t, "all wait", func() bool { r.mu.Lock(); defer r.mu.Unlock(); return r.version == 2000 }) // a slot and a record each
	r.writing.Unlock()
	wg.Wait()
	r.close()
	r = openTestRecords(t, dir)
	slots := map[int]bool{}
	for _, n := range r.names() {
		rec, _ := r.of(n)
		slots[rec.Slot] = true
	}
	if len(r.names()) != 1000 || len(slots) != 1000 {
		t.Errorf("%d records, %d slots", len(r.names()), len(slots))
	}
}

func TestTimeOfTheLastAdvertOutlivesTheProcess(t *testing.T) {
	dir := t.TempDir()
	for run := range 3 {
		r := openTestRecords(t, dir)
		slot, l, before := r.slot("VI_1")
		if before != time.Duration(run)*time.Hour {
			t.Fatalf("run %d: %s", run, before)
		}
		if err := write(r, "VI_1", record{Slot: slot}); err != nil {
			t.Fatal(err)
		}
		l.note(time.Duration(run+1) * time.Hour)
		l.close()
		l.note(0) // after the end: nothing happens
		r.close()
	}
}

func TestAFileOfTheLastAdvertThatIsCutShortEndsTheNotesAlone(t *testing.T) {
	dir := t.TempDir()
	r := openTestRecords(t, dir)
	_, l, _ := r.slot("VI_1")
	if err := os.Truncate(filepath.Join(dir, advertFile), 0); err != nil {
		t.Fatal(err)
	}
	l.note(time.Second) // a plain store here is a SIGBUS
	l.note(2 * time.Second)
	l.close()
}

func TestAMasterThatStoodStillSaysSo(t *testing.T) {
	for stood, want := range map[time.Duration]int{2 * time.Second: 0, time.Minute: 1} { // adverts every second: the first is on time
		c := fast(100, vip1)
		c.VRRP.Interval = time.Second
		l := bareLoop(t, c)
		out := &testLog{}
		i := l.instances[0]
		i.log = slog.New(slog.NewTextHandler(out, nil))
		l.step(i, l.clock()-stood, vrrp.Start{Source: netip.MustParseAddr("10.9.0.1"), Resume: true})
		l.fire()
		if got := out.count("process stood still"); got != want || got > 0 && out.count("late=59") != 1 {
			t.Errorf("stood for %s: %q", stood, out.lines)
		}
		l.leave()
	}
}

func TestWhatAnEndedHolderRemovedIsNobodysBeforeTheWatcherSeesIt(t *testing.T) {
	own := ownAddress{Prefix: netip.MustParsePrefix("10.9.0.1/24"), Global: true}
	seen := snapshot{"eth0": {Index: 2, Addresses: []ownAddress{own, {Prefix: vip1, Global: true}}}, "eth1": {Index: 3}}
	h := &holder{removed: map[spot]bool{{2, vip1}: true}}
	l := bareLoop(t, fast(100, vip1))
	defer l.leave()
	l.snapshot, l.instances[0].holder = seen, h
	l.released(h)
	if got := l.snapshot["eth0"].Addresses; len(got) != 1 || got[0] != own || len(l.snapshot) != 2 {
		t.Errorf("snapshot %+v, want all but %s", l.snapshot, vip1)
	}
	if len(seen["eth0"].Addresses) != 2 {
		t.Error("the snapshot that others read was changed")
	}
}

func TestChooseSourceOfIPv6(t *testing.T) {
	p := netip.MustParsePrefix
	trying := ownAddress{Prefix: p("fe80::1/64"), Tentative: true}
	both := []ownAddress{{Prefix: p("10.0.0.1/24"), Global: true}, {Prefix: p("2001:db8::1/64"), Global: true}, {Prefix: p("fe80::1/64")}}
	for _, c := range []struct {
		name, want, why string
		want6           wanted
		addresses       []ownAddress
	}{
		{name: "the link-local one", want: "fe80::1", want6: wanted{linkLocal: true}, addresses: both},
		{name: "a global one for peers that are farther", want: "2001:db8::1", addresses: both},
		{name: "none yet", why: "the IPv6 address of eth0 is still being looked for", want6: wanted{linkLocal: true}, addresses: []ownAddress{trying}},
		{name: "none", why: "eth0 has no IPv6 link-local address", want6: wanted{linkLocal: true}, addresses: both[:2]},
	} {
		c.want6.ipv6 = true
		got, why := chooseSource("eth0", c.addresses, c.addresses, c.want6, nil)
		if got != addrOf(c.want) || !strings.HasPrefix(why, c.why) || (why == "") != (c.why == "") {
			t.Errorf("%s: %s (%s), want %s (%s)", c.name, got, why, c.want, c.why)
		}
	}
}

func addrOf(s string) (a netip.Addr) {
	if s != "" {
		a = netip.MustParseAddr(s)
	}
	return a
}

func bareLoop(t *testing.T, instances ...Instance) *loop {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	l := newLoop(New(Config{}, log), log)
	var err error
	if l.poller, err = openPoller(); err != nil {
		t.Fatal(err)
	}
	if os.Getuid() == 0 {
		if l.outbox, err = openOutbox(); err != nil {
			t.Fatal(err)
		}
		if l.host, err = openHost(t.TempDir(), log); err != nil {
			t.Fatal(err)
		}
	}
	if l.host == nil {
		l.host = &host{}
	}
	l.host.crew = &crew{closed: true} // nobody does what these instances ask of the kernel
	l.prepareInbound()
	l.look()
	for n := range instances {
		l.enlist(&instances[n])
	}
	return l
}

func TestEventsThatOnlyCostTimeStayInTheKernel(t *testing.T) {
	const quiet = 0xfedc1234
	var program []bpf.Instruction
	for _, raw := range eventFilter(quiet) {
		program = append(program, raw.Disassemble())
	}
	vm, err := bpf.NewVM(program)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name     string
		kind     uint16
		port     uint32
		protocol byte
		passes   bool
	}{
		{"link", unix.RTM_NEWLINK, 7, 0, true},
		{"link by the quiet socket", unix.RTM_NEWLINK, quiet, 0, true},
		{"address", unix.RTM_NEWADDR, 7, 0, true},
		{"renewed address", unix.RTM_NEWADDR, quiet, 0, false},
		{"address removed by the quiet socket", unix.RTM_DELADDR, quiet, 0, true},
		{"new route of ours", unix.RTM_NEWROUTE, 7, routeProtocol, false},
		{"removed route of ours", unix.RTM_DELROUTE, 7, routeProtocol, true},
		{"removed route of a routing daemon", unix.RTM_DELROUTE, 7, 186, false},
		{"lost events", unix.NLMSG_OVERRUN, 0, 0, true},
	} {
		m := make([]byte, 28)
		binary.NativeEndian.PutUint16(m[4:], c.kind)
		binary.NativeEndian.PutUint32(m[12:], c.port)
		m[21] = c.protocol
		if n, err := vm.Run(m); err != nil || n > 0 != c.passes {
			t.Errorf("%s: passed %d, %v", c.name, n, err)
		}
	}
}

func TestNeighbourAdvertisementOnTheWire(t *testing.T) {
	got := neighbourAdvertisement(net.HardwareAddr{0, 0, 0x5e, 0, 2, 0x33}, netip.MustParseAddr("2001:db8::100"), true)
	want := "333300000001" + "00005e000233" + "86dd" +
		"60000000" + "0020" + "3a" + "ff" + "20010db8000000000000000000000100" + "ff020000000000000000000000000001" +
		"88" + "00" + "18fa" + "a0000000" + "20010db8000000000000000000000100" + "0201" + "00005e000233"
	if hex.EncodeToString(got) != want || len(got) != 86 {
		t.Errorf("frame %x, want %s", got, want)
	}
	if plain := neighbourAdvertisement(got[6:12], netip.MustParseAddr("2001:db8::100"), false); plain[58] != 0x20 {
		t.Errorf("flags %#x without forwarding", plain[58])
	}
}
