package xdp

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/xdirector/xdirector/pkg/lb"
)

// reopen closes a plane and opens the next one on its pins, as a restarted agent does.
func reopen(t *testing.T, p *Plane, change func(*Config)) *Plane {
	t.Helper()
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	cfg := p.config
	if change != nil {
		change(&cfg)
	}
	return openPlane(t, cfg, twoInterfaces)
}

func TestRestartedAgentKeepsFlowsTurnsClientsAndCounters(t *testing.T) {
	wish := state(service(webKey, server(1), server(2), server(3)), service(dnsKey, server(1)))
	p := newTestPlane(t, wish)
	before := newFlows(t, p, 1000, 4) // 1 2 3 1
	counted := counters(t, p)

	p = reopen(t, p, nil)
	got := counters(t, p)
	if !got.FlowsAt.After(counted.FlowsAt) {
		t.Errorf("flows were counted at %s, and at %s again", counted.FlowsAt, got.FlowsAt)
	}
	if got.FlowsAt = counted.FlowsAt; !reflect.DeepEqual(got, counted) {
		t.Errorf("counters after the restart\n%v, want\n%v", got, counted)
	}
	for round, when := range []string{"before the first Apply", "after it"} {
		if round == 1 {
			apply(t, p, wish)
		}
		for i, want := range before {
			if got := sentTo(t, p, packet{flags: ack, fromPort: uint16(1000 + i)}); got != want {
				t.Errorf("%s, flow %d went to server %d, want %d", when, i, got, want)
			}
		}
		if got, want := newFlows(t, p, 2000+round, 1)[0], 2+round; got != want {
			t.Errorf("%s, a new flow went to server %d, want %d", when, got, want)
		}
	}
}

func TestWhatChangedWhileTheAgentWasAwayIsAppliedAfterARestart(t *testing.T) {
	p := newTestPlane(t, state(service(webKey, server(1), server(2)), service(dnsKey, server(1))))
	newFlows(t, p, 1000, 2)
	p = reopen(t, p, nil)
	apply(t, p, state(service(webKey, server(3), server(2))))

	if got := sentTo(t, p, packet{flags: ack, fromPort: 1001}); got != 2 {
		t.Errorf("flow of a kept server went to server %d, want 2", got)
	}
	if got := sentTo(t, p, packet{flags: ack, fromPort: 1000}); got == 1 {
		t.Error("flow of a removed server still goes there")
	}
	if action, _ := run(t, p, packet{protocol: lb.UDP, toPort: 53}.bytes()); action != xdpPass {
		t.Errorf("packet of a removed service: action %d, want %d", action, xdpPass)
	}
}

func TestFlowOfAServerRemovedBeforeARestartDoesNotHitTheNextOwnerOfItsID(t *testing.T) {
	p := newTestPlane(t, state(persistent(service(webKey, server(1), server(2)))))
	if got := sentTo(t, p, packet{flags: syn}); got != 1 {
		t.Fatalf("first flow went to server %d, want 1", got)
	}
	apply(t, p, state(persistent(service(webKey, server(2)))))
	p = reopen(t, p, nil)
	apply(t, p, state(persistent(service(webKey, server(3), server(2)))))
	if got := sentTo(t, p, packet{flags: syn}); got != 2 {
		t.Errorf("the old flow went to server %d, want 2: scheduled afresh, and it is at its turn", got)
	}
}

func TestNextHopIsKeptOverARestartUntilANewOneIsKnown(t *testing.T) {
	p := newTestPlane(t, state(service(webKey, server(1), server(2))))
	p = reopen(t, p, nil)
	apply(t, p, state(service(webKey, unknown(1), unknown(2))))
	if got := newFlows(t, p, 1000, 2); !reflect.DeepEqual(got, []int{1, 2}) {
		t.Errorf("new flows went to %v, want 1, 2", got)
	}
}

func TestApplyingTheSameStateAgainWritesNothing(t *testing.T) {
	limits := lb.Limits{Allow: prefixes("192.0.2.0/24"), Packets: lb.Rate{PerSecond: 1}}
	wish := state(persistent(service(webKey, server(1), weighted(2, 0), downServer(3), unknown(4))), limited(service(dnsKey, server(1)), limits))
	p := newTestPlane(t, wish)
	for _, m := range []*ebpf.Map{
		p.maps.Services, p.maps.Servers, p.maps.Boxes, p.maps.Interfaces, p.maps.Rings, p.maps.Turns,
		p.maps.Suspects, p.maps.Settings, p.maps.Members, p.maps.Limits, p.maps.Rules, p.maps.Sources, p.maps.Refusals,
	} {
		if err := m.Freeze(); err != nil { // any write fails from here on
			t.Fatal(err)
		}
	}
	apply(t, p, wish)
	if err := p.Apply(context.Background(), lb.State{}); err == nil {
		t.Error("another state could be applied: the maps are not frozen, so this test proves nothing")
	}
}

func TestOtherWeightsAreOneOtherRing(t *testing.T) {
	heavy := service(webKey, weighted(1, 1), weighted(2, 1))
	heavy.Scheduler = lb.WeightedRoundRobin
	p := newTestPlane(t, state(heavy, service(dnsKey, server(1), server(2))))
	for _, m := range []*ebpf.Map{
		p.maps.Services, p.maps.Servers, p.maps.Boxes, p.maps.Interfaces, p.maps.Turns,
		p.maps.Suspects, p.maps.Settings, p.maps.Members,
	} {
		if err := m.Freeze(); err != nil {
			t.Fatal(err)
		}
	}
	var ring, other ebpf.MapID
	look := func(key lb.ServiceKey, into *ebpf.MapID) {
		t.Helper()
		if err := p.maps.Rings.Lookup(p.tables.services[key].id, into); err != nil {
			t.Fatal(err)
		}
	}
	look(webKey, &ring)
	look(dnsKey, &other)
	heavy.RealServers = []lb.RealServer{weighted(1, 1), weighted(2, 10)} // as at a step of a slow start
	apply(t, p, state(heavy, service(dnsKey, server(1), server(2))))
	var ringNow, otherNow ebpf.MapID
	look(webKey, &ringNow)
	look(dnsKey, &otherNow)
	if ringNow == ring || otherNow != other {
		t.Errorf("rings %v and %v, before %v and %v: want that the first is another one", ringNow, otherNow, ring, other)
	}
}

func TestChangingOneServiceLeavesTheOthersUntouched(t *testing.T) {
	p := newTestPlane(t, state(service(webKey, server(1), server(2)), service(dnsKey, server(1), server(2))))
	id := p.tables.services[dnsKey].id
	var before, after ebpf.MapID
	if err := p.maps.Rings.Lookup(id, &before); err != nil {
		t.Fatal(err)
	}
	apply(t, p, state(service(webKey, server(1), downServer(2)), service(dnsKey, server(1), server(2))))
	if err := p.maps.Rings.Lookup(id, &after); err != nil {
		t.Fatal(err)
	}
	if before != after {
		t.Error("the ring of an unchanged service was swapped")
	}
}

func TestMoreServicesThanOneBatchOfRingsAreAllApplied(t *testing.T) {
	var many lb.State
	for i := range 300 { // ringsPerBatch is 256
		key := lb.ServiceKey{Address: vip, Port: uint16(1000 + i), Protocol: lb.TCP}
		many.Services = append(many.Services, service(key, server(1+i%200), server(1+(i+1)%200)))
	}
	p := openPlane(t, testConfig(mountBPFFS(t)), twoInterfaces)
	apply(t, p, many)
	for i := range 300 {
		if got, want := sentTo(t, p, packet{flags: syn, toPort: uint16(1000 + i)}), 1+i%200; got != want {
			t.Fatalf("service %d sent to server %d, want %d", i, got, want)
		}
	}
}

func TestFullTableTakesOtherServicesInsteadOfItsOwn(t *testing.T) {
	key := func(port uint16) lb.ServiceKey { return lb.ServiceKey{Address: vip, Port: port, Protocol: lb.TCP} }
	p := newTestPlane(t, state(service(key(80), server(1), server(2)), service(key(81), server(3), server(4))))
	p.tables.freeServices, p.tables.freeServers = nil, nil // as if that were all
	more := state(service(key(80), server(1), server(2), server(5)), service(key(81), server(3), server(4)))
	if err := p.Apply(t.Context(), more); err == nil || !strings.Contains(err.Error(), "at most 32767") {
		t.Errorf("one real server too many: error %v, want one with the limit", err)
	}
	if got := sentTo(t, p, packet{flags: syn}); got != 1 {
		t.Errorf("after that a flow went to server %d, want 1 as before", got)
	}
	apply(t, p, state(service(key(90), server(6), server(7)), service(key(91), server(8), server(9))))
	if got := sentTo(t, p, packet{flags: syn, toPort: 90}); got != 6 {
		t.Errorf("a new service sent to server %d, want 6", got)
	}
	if action, _ := run(t, p, packet{flags: syn, toPort: 80}.bytes()); action != xdpPass {
		t.Errorf("packet of a removed service: action %d, want %d", action, xdpPass)
	}
	if services, servers := len(p.tables.freeServices), len(p.tables.freeServers); services != 0 || servers != 0 {
		t.Errorf("%d service ids and %d server ids are free, want none", services, servers)
	}
}

func TestEmptyStateLeavesEmptyTables(t *testing.T) {
	p := newTestPlane(t, tableState())
	var ids []uint32
	for _, entry := range p.tables.services {
		ids = append(ids, entry.id)
	}
	apply(t, p, lb.State{})
	var key []byte
	if err := p.maps.Boxes.NextKey(nil, &key); err == nil {
		t.Error("boxes is not empty")
	}
	for _, id := range ids {
		var value xdirectorService
		if err := p.maps.Services.Lookup(id, &value); err != nil || value != (xdirectorService{}) {
			t.Errorf("service id %d is still there: %+v (%v)", id, value, err)
		}
		var ring ebpf.MapID
		if err := p.maps.Rings.Lookup(id, &ring); err != nil {
			t.Fatal(err)
		}
		m, err := ebpf.NewMapFromID(ring)
		if err != nil {
			t.Fatal(err)
		}
		var line xdirectorRingLine
		if err := m.Lookup(uint32(0), &line); err != nil || line.Word[0] != 0 || line.Word[1] != 0 {
			t.Errorf("service id %d still has a ring: %v (%v)", id, line, err)
		}
		m.Close()
	}
	if n := len(p.tables.freeServers); n != int(p.maps.Servers.MaxEntries())-1 {
		t.Errorf("%d server ids are free, want all but id 0", n)
	}
	if action, _ := run(t, p, packet{flags: syn}.bytes()); action != xdpPass {
		t.Errorf("packet of a removed service: action %d, want %d", action, xdpPass)
	}
}

func TestServerOfAServiceThatVanishedInACrashIsFreed(t *testing.T) {
	p := newTestPlane(t, state(service(webKey, server(1)), service(dnsKey, server(1))))
	if err := p.maps.Services.Put(p.tables.services[dnsKey].id, xdirectorService{}); err != nil { // and the agent died here
		t.Fatal(err)
	}
	p = reopen(t, p, nil)
	if n, want := len(p.tables.freeServers), int(p.maps.Servers.MaxEntries())-2; n != want {
		t.Errorf("%d server ids are free, want %d", n, want)
	}
	apply(t, p, state(service(webKey, server(1)), service(dnsKey, server(2))))
	if got := sentTo(t, p, packet{protocol: lb.UDP, toPort: 53}); got != 2 {
		t.Errorf("the service made again sends to server %d, want 2", got)
	}
}

func TestMapsThatDoNotFitAreMadeAnewAndSaidSo(t *testing.T) {
	for name, change := range map[string]func(t *testing.T, p *Plane, cfg *Config){
		"another flow table size": func(_ *testing.T, _ *Plane, cfg *Config) { cfg.FlowTableSize *= 2 },
		"another layout version": func(t *testing.T, p *Plane, _ *Config) {
			if err := p.maps.Layout.Put(uint32(0), xdirectorLayout{Version: 99}); err != nil {
				t.Fatal(err)
			}
		},
		"making of the maps cut short": func(t *testing.T, p *Plane, _ *Config) {
			if err := p.maps.Layout.Unpin(); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := newTestPlane(t, state(service(webKey, server(1))))
			newFlows(t, p, 1000, 1)
			cfg := p.config
			change(t, p, &cfg)
			if err := p.Close(); err != nil {
				t.Fatal(err)
			}
			var said bytes.Buffer
			next, err := open(cfg, slog.New(slog.NewTextHandler(&said, nil)), twoInterfaces)
			if err != nil {
				t.Fatal(err)
			}
			defer next.Close()
			if !strings.Contains(said.String(), "level=WARN") || !strings.Contains(said.String(), cfg.PinPath) {
				t.Errorf("the log says %q, want a warning with the path", said.String())
			}
			if n := len(counters(t, next).RealServers); n != 0 {
				t.Errorf("%d real servers in new maps, want 0", n)
			}
			apply(t, next, state(service(webKey, server(2))))
			if got := sentTo(t, next, packet{flags: syn}); got != 2 {
				t.Errorf("a flow went to server %d, want 2", got)
			}
		})
	}
}

func TestRestartWithTheSameConfigurationIsSilent(t *testing.T) {
	p := newTestPlane(t, state(service(webKey, server(1))))
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	next, err := open(p.config, slog.New(slog.NewTextHandler(&said, nil)), twoInterfaces)
	if err != nil {
		t.Fatal(err)
	}
	defer next.Close()
	if said.Len() > 0 {
		t.Errorf("the log says %q, want nothing", said.String())
	}
}

func TestChangedAddressOfAnOwnInterfaceIsUsed(t *testing.T) {
	mac := eth0MAC
	system := func() ([]device, error) {
		return []device{{Index: eth0Index, Name: "eth0", HardwareAddr: mac[:]}}, nil
	}
	p := openPlane(t, testConfig(mountBPFFS(t)), system)
	apply(t, p, state(service(webKey, server(1))))
	mac[5] = 0x77
	apply(t, p, state(service(webKey, server(1))))
	action, out := run(t, p, packet{destination: mac, flags: syn}.bytes())
	if action != xdpTX || lb.MAC(out[6:12]) != mac {
		t.Errorf("frame for the new address: action %d from %s, want %d from %s", action, lb.MAC(out[6:12]), xdpTX, mac)
	}
	if action, _ := run(t, p, packet{flags: syn}.bytes()); action != xdpPass {
		t.Errorf("frame for the old address: action %d, want %d", action, xdpPass)
	}
}

func TestOpenRefusesWhatItCanNotUse(t *testing.T) {
	folder := mountBPFFS(t)
	for name, change := range map[string]func(*Config){
		"no interface":      func(c *Config) { c.Interfaces = nil },
		"unknown interface": func(c *Config) { c.Interfaces = []string{"eth0", "eth9"} },
		"interface twice":   func(c *Config) { c.Interfaces = []string{"eth0", "eth0"} },
		"relative path":     func(c *Config) { c.PinPath = "here" },
		"no flow table":     func(c *Config) { c.FlowTableSize = 0 },
	} {
		cfg := testConfig(folder)
		change(&cfg)
		if p, err := open(cfg, quiet(), twoInterfaces); err == nil {
			p.Close()
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := os.Stat(testConfig(folder).PinPath); err == nil {
		t.Error("failed opens left the pin path, want nothing")
	}
}

func TestOpenFailureNamesTheMissingInterface(t *testing.T) {
	cfg := testConfig(mountBPFFS(t))
	cfg.Interfaces = []string{"eth9"}
	if _, err := open(cfg, quiet(), twoInterfaces); err == nil || !strings.Contains(err.Error(), "eth9") {
		t.Errorf("error %v, want one that names eth9", err)
	}
}

func TestClosedPlaneRefusesWork(t *testing.T) {
	p := newTestPlane(t, tableState())
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if err := p.Apply(context.Background(), tableState()); !errors.Is(err, errClosed) {
		t.Errorf("Apply: %v, want %v", err, errClosed)
	}
	if _, err := p.Counters(); !errors.Is(err, errClosed) {
		t.Errorf("Counters: %v, want %v", err, errClosed)
	}
	if _, err := p.Attach(Generic); !errors.Is(err, errClosed) {
		t.Errorf("Attach: %v, want %v", err, errClosed)
	}
	if err := p.Close(); err != nil {
		t.Errorf("closing again: %v", err)
	}
}

func TestPinPathOfARunningAgentIsLeftAlone(t *testing.T) {
	p := newTestPlane(t, state(service(webKey, server(1))))
	if other, err := open(p.config, quiet(), twoInterfaces); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), "dataplane.pin_path") {
		if err == nil {
			other.Close()
		}
		t.Errorf("opening it again: error %v, want %v and the cure", err, ErrInUse)
	}
	if err := Cleanup(p.config.PinPath); !errors.Is(err, ErrInUse) {
		t.Errorf("cleaning up: error %v, want %v", err, ErrInUse)
	}
	if got := sentTo(t, p, packet{flags: syn}); got != 1 {
		t.Errorf("a flow went to server %d, want 1 as before", got)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if err := Cleanup(p.config.PinPath); err != nil {
		t.Errorf("cleaning up after its end: %v", err)
	}
	if _, err := os.Stat(p.config.PinPath); err == nil {
		t.Error("the pin path is still there")
	}
}

func TestRemoveLeavesNothingButWhatIsNotOurs(t *testing.T) {
	p := newTestPlane(t, tableState())
	folder := filepath.Dir(p.config.PinPath)
	if err := p.Remove(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(p.config.PinPath); err == nil {
		t.Error("the pin path is still there")
	}

	cfg := testConfig(folder)
	p = openPlane(t, cfg, twoInterfaces)
	foreign := filepath.Join(cfg.PinPath, "somebody-elses")
	if err := os.Mkdir(foreign, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := p.Remove(); err != nil {
		t.Fatal(err)
	}
	if entries, err := os.ReadDir(cfg.PinPath); err != nil || len(entries) != 1 {
		t.Errorf("left %v (%v), want the folder that is not ours alone", entries, err)
	}
}

func TestApplySaysWhenAnInterfaceIsGoneOrReplaced(t *testing.T) {
	mac := eth0MAC
	present := []device{{Index: eth0Index, Name: "eth0", HardwareAddr: mac[:]}}
	p := openPlane(t, testConfig(mountBPFFS(t)), func() ([]device, error) { return present, nil })
	apply(t, p, state(service(webKey, server(1))))
	present = nil
	err := p.Apply(t.Context(), state(service(webKey, server(1))))
	if err == nil || !strings.Contains(err.Error(), "interface eth0 is gone") || errors.Is(err, ErrReplaced) {
		t.Errorf("without the interface: %v", err)
	}
	present = []device{{Index: eth0Index + 1, Name: "eth0", HardwareAddr: mac[:]}}
	if err := p.Apply(t.Context(), state(service(webKey, server(1)))); !errors.Is(err, ErrReplaced) {
		t.Errorf("with a new one of the name: %v", err)
	}
}

func TestFitsNamesTheLimit(t *testing.T) {
	p := newTestPlane(t, state())
	many := func(services, servers int) lb.State {
		var s lb.State
		for i := range services {
			one := lb.Service{Key: lb.ServiceKey{Address: vip, Port: uint16(i + 1), Protocol: lb.TCP}}
			one.RealServers = make([]lb.RealServer, servers)
			s.Services = append(s.Services, one)
		}
		return s
	}
	if err := p.Fits(many(16383, 2)); err != nil {
		t.Errorf("16383 services with 2 real servers each: %v", err)
	}
	for want, s := range map[string]lb.State{
		"16384 services: the XDP plane holds at most 16383":     many(16384, 1),
		"32768 real servers: the XDP plane holds at most 32767": many(8192, 4),
	} {
		if err := p.Fits(s); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}
