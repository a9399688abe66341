package xdp

import (
	"bytes"
	"context"
	"net/netip"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/xdirector/xdirector/pkg/lb"
)

// capturing has frames captured while they run. The last one must be wanted: it is the end.
func capturing(t *testing.T, p *Plane, w Watch, frames ...[]byte) (list []Captured, missed uint64) {
	t.Helper()
	wire, err := w.wire()
	if err != nil {
		t.Fatal(err)
	}
	memory, watched, err := mapValues[xdirectorWatch](p.watched)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(memory)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	ran := make(chan error, 1)
	go func() {
		for ctx.Err() == nil && atomic.LoadUint64(&watched[0].Until) == 0 {
			runtime.Gosched()
		}
		for _, frame := range frames {
			if _, _, err := p.Program("eth0").Test(frame); err != nil {
				ran <- err
				return
			}
		}
		ran <- nil
	}()
	captured, watch := cloned(t, p.maps.Captured), cloned(t, p.watched)
	missed, err = capture(ctx, captured, watch, wire, func(*ebpf.Map) bool { return false }, func(c Captured) error {
		c.Frame = bytes.Clone(c.Frame)
		list = append(list, c)
		if bytes.Equal(c.Frame, frames[len(frames)-1]) {
			cancel()
		}
		return nil
	})
	if err != nil || ctx.Err() != context.Canceled {
		t.Fatalf("%v, %v, got %d", err, ctx.Err(), len(list))
	}
	if err := <-ran; err != nil {
		t.Fatal(err)
	}
	if atomic.LoadUint64(&watched[0].Until) != 0 {
		t.Error("the programs go on capturing")
	}
	return list, missed
}

func cloned(t *testing.T, m *ebpf.Map) *ebpf.Map {
	t.Helper()
	clone, err := m.Clone()
	if err != nil {
		t.Fatal(err)
	}
	return clone
}

func TestWhatIsWantedIsCaptured(t *testing.T) {
	p := newTestPlane(t, tableState())
	six := packet{to: vip6, flags: syn}
	frames := map[string]packet{
		"tx": {flags: syn}, "other client": {flags: syn, from: netip.MustParseAddr("198.51.100.7")}, "redirect": {flags: syn, toPort: 82}, "no flow": {flags: rst, fromPort: 7},
		"no server": {flags: ack, toPort: 83}, "udp": {protocol: lb.UDP, toPort: 53}, "flooded": {flags: syn, destination: serverMAC(9)}, "local": {flags: syn, toPort: 81},
		"range": {flags: syn, to: netip.MustParseAddr("10.0.0.101"), toPort: 8033}, "foreign": {flags: syn, toPort: 8080}, "IPv6": six, "long": {flags: ack, payload: 1000},
	}
	all := []string{"tx", "other client", "redirect", "no flow", "no server", "udp", "flooded", "local", "range", "foreign", "IPv6", "long"}
	for name, tt := range map[string]struct {
		filter Filter
		want   []string
	}{
		"everything":         {Filter{}, []string{"tx", "other client", "redirect", "no flow", "no server", "udp", "flooded", "local", "range", "IPv6", "long"}},
		"one host":           {Filter{Host: netip.MustParsePrefix("198.51.100.7/32")}, []string{"other client"}},
		"one network":        {Filter{Host: netip.MustParsePrefix("198.51.0.0/16")}, []string{"other client"}},
		"a virtual address":  {Filter{Host: netip.MustParsePrefix("10.0.0.101/32")}, []string{"range"}},
		"a port":             {Filter{Port: 82}, []string{"redirect"}},
		"a client's port":    {Filter{Port: 7}, []string{"no flow"}},
		"udp":                {Filter{Protocol: lb.UDP}, []string{"udp"}},
		"a service":          {Filter{Service: webKey}, []string{"tx", "other client", "no flow", "flooded", "long"}},
		"a range":            {Filter{Service: lb.ServiceKey{Address: netip.MustParseAddr("10.0.0.101"), Port: 8000, LastPort: 8099, Protocol: lb.TCP}}, []string{"range"}},
		"IPv6":               {Filter{Service: lb.ServiceKey{Address: vip6, Port: 80, Protocol: lb.TCP}}, []string{"IPv6"}},
		"drops":              {Filter{Verdicts: []string{"drop"}}, []string{"no flow", "no server"}},
		"one reason":         {Filter{Verdicts: []string{"drop"}, Drops: []string{"no_real_server"}}, []string{"no server"}},
		"two verdicts":       {Filter{Verdicts: []string{"redirect", "pass_local"}}, []string{"redirect", "local"}},
		"a host's one drops": {Filter{Host: netip.PrefixFrom(client, 32), Service: webKey, Verdicts: []string{"drop"}}, []string{"no flow"}},
	} {
		t.Run(name, func(t *testing.T) {
			var run [][]byte
			for _, n := range append(slices.Clone(all), tt.want[0]) { // the first one once more, as the end
				of := frames[n]
				if len(run) == len(all) {
					of.payload++
				}
				run = append(run, of.bytes())
			}
			got, missed := capturing(t, p, Watch{Filter: tt.filter}, run...)
			if missed != 0 || len(got) != len(tt.want)+1 {
				t.Fatalf("got %d, missed %d, want %d", len(got)-1, missed, len(tt.want))
			}
			for i, n := range tt.want {
				if whole := frames[n].bytes(); !bytes.Equal(got[i].Frame, whole[:min(len(whole), len(got[i].Frame))]) || got[i].Length != len(whole) {
					t.Errorf("number %d is not %s: %x", i, n, got[i].Frame)
				}
			}
		})
	}
}

func TestACaptureTellsWhatBecameOfThePacket(t *testing.T) {
	p := newTestPlane(t, tableState())
	got, _ := capturing(t, p, Watch{}, packet{toPort: 82, flags: syn}.bytes(), packet{flags: rst}.bytes(), packet{to: vip6, flags: syn}.bytes(), packet{toPort: 81, flags: syn}.bytes())
	want := []Captured{
		{Verdict: "redirect", RealServer: serverAddress(3), MAC: serverMAC(3), Out: eth1Index},
		{Verdict: "drop", Drop: "no_flow"},
		{Verdict: "tx", RealServer: netip.MustParseAddr("2001:db8::1"), MAC: serverMAC(1), Out: eth0Index},
		{Verdict: "pass_local", RealServer: serverAddress(5)},
	}
	for i := range want {
		if i >= len(got) {
			t.Fatalf("got %d frames", len(got))
		}
		if age := time.Since(got[i].Time); age < -time.Second || age > time.Minute {
			t.Errorf("frame %d is of %s ago", i, age)
		}
		want[i].Time, want[i].Frame, want[i].Length, want[i].Interface = got[i].Time, got[i].Frame, got[i].Length, eth0Index
		if !reflect.DeepEqual(got[i], want[i]) {
			t.Errorf("got %+v, want %+v", got[i], want[i])
		}
	}
}

func TestACaptureIsBounded(t *testing.T) {
	p := newTestPlane(t, tableState())
	var frames [][]byte
	for i := range 500 {
		frames = append(frames, packet{flags: syn, fromPort: uint16(i + 1)}.bytes())
	}
	wire, err := Watch{Rate: 10}.wire()
	if err != nil {
		t.Fatal(err)
	}
	wire.Until = uint64(monotonic() + time.Minute)
	if err := p.watched.Put(uint32(0), wire); err != nil {
		t.Fatal(err)
	}
	for _, frame := range frames {
		run(t, p, frame)
	}
	if err := p.watched.Lookup(uint32(0), &wire); err != nil {
		t.Fatal(err)
	}
	if most := uint64(10 * 3); wire.Missed < 500-most || wire.Missed > 490 { // it took two seconds at most
		t.Errorf("%d of 500 were too many for 10 a second", wire.Missed)
	}
}

func TestAWrongFilterIsRefused(t *testing.T) {
	for want, w := range map[string]Watch{
		`no verdict "sent": there are pass_not_ours`: {Filter: Filter{Verdicts: []string{"sent"}}},
		`no reason of drops "no": there are`:         {Filter: Filter{Drops: []string{"no"}}},
		"host and service are not of one family":     {Filter: Filter{Service: webKey, Host: netip.PrefixFrom(client6, 128)}},
		"has no packets of udp":                      {Filter: Filter{Service: webKey, Protocol: lb.UDP}},
	} {
		if _, err := w.wire(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error is %v, want %s", err, want)
		}
	}
}
