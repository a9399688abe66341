package director

import (
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/xdirector/xdirector/pkg/config"
	"github.com/xdirector/xdirector/pkg/neigh"
	"github.com/xdirector/xdirector/pkg/status"
)

func TestOfTwoReloadsTheOneThatReadsLaterIsTheLast(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config.yaml")
	write := func(routerID string) {
		const rest = "vrrp: {instances: [{name: a, interface: eth0, virtual_router_id: 1, virtual_addresses: [10.0.0.1]}]}\n"
		if err := os.WriteFile(file, []byte("router_id: "+routerID+"\n"+rest), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("first")
	synctest.Test(t, func(t *testing.T) {
		d, err := New(Options{ConfigFile: file, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		answers := make(chan error, 2)
		reload := func() { answers <- d.Reload(t.Context()) }
		go reload()
		early := <-d.reloads // has read the file
		write("second")
		go reload()
		synctest.Wait()
		select {
		case <-d.reloads:
			t.Fatal("the second reload is there before the first is done: which of them comes last is chance")
		default:
		}
		write("third")
		early.reply <- nil
		late := <-d.reloads
		late.reply <- nil
		if late.err != nil || late.cfg.RouterID != "third" {
			t.Errorf("second reload: %v, router_id %q, want that of the file when its turn came", late.err, late.cfg.RouterID)
		}
		for range 2 {
			if err := <-answers; err != nil {
				t.Error(err)
			}
		}
	})
}

// hops is a fake of neigh.Watcher.
type hops struct {
	watched [][]netip.Addr
	changes chan map[netip.Addr]neigh.Hop
}

func (*hops) Routed([]netip.Addr)                         {}
func (h *hops) Watch(targets, _ []netip.Addr)             { h.watched = append(h.watched, targets) }
func (h *hops) Changes() <-chan map[netip.Addr]neigh.Hop  { return h.changes }
func (h *hops) Source(netip.Addr) (a netip.Addr, _ error) { return a, nil }

func TestAReloadKnowsTheNextHopsOfNewRealServersBeforeThePlaneHearsOfThem(t *testing.T) {
	next, never := netip.MustParseAddr("192.168.5.105"), netip.MustParseAddr("192.168.5.106")
	for name, tt := range map[string]struct {
		beside []netip.Addr // real servers that the service keeps
		answer time.Duration
		takes  time.Duration
	}{
		"the only one, which answers":                      {nil, 30 * time.Millisecond, 30 * time.Millisecond},
		"the only one, which answers the second request":   {nil, 1010 * time.Millisecond, 1010 * time.Millisecond},
		"the only one, which doesn't answer":               {nil, time.Hour, lastHopPatience},
		"one more, which doesn't answer":                   {[]netip.Addr{first}, time.Hour, hopPatience},
		"the only one that answers, beside one that won't": {[]netip.Addr{never}, 30 * time.Millisecond, hopPatience},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := forTest(t, t.TempDir())
				fake := &hops{changes: make(chan map[netip.Addr]neigh.Hop, 1)}
				d.neigh, d.hops = fake, map[netip.Addr]neigh.Hop{first: hop1}
				cfg := oneService()
				cfg.Services[0].RealServers = nil
				for _, a := range append(tt.beside, next) {
					cfg.Services[0].RealServers = append(cfg.Services[0].RealServers, config.RealServer{Address: a, Port: 80, Weight: 1})
				}
				fake.changes <- map[netip.Addr]neigh.Hop{first: hop1, next: {}} // not answered yet
				defer time.AfterFunc(tt.answer, func() { fake.changes <- map[netip.Addr]neigh.Hop{first: hop1, next: hop1} }).Stop()
				began := time.Now()
				d.learnHops(t.Context(), cfg)
				if took := time.Since(began); took != tt.takes || d.hops[next].Known() != (tt.answer <= tt.takes) {
					t.Errorf("known %v after %v, want %v", d.hops[next].Known(), took, tt.takes)
				}
				// Those in use stay watched: the reload may still be refused.
				watched := append([]netip.Addr{first, other}, slices.DeleteFunc(append(tt.beside, next), func(a netip.Addr) bool { return a == first })...)
				if len(fake.watched) != 1 || !slices.Equal(fake.watched[0], watched) {
					t.Errorf("watched %v", fake.watched)
				}
			})
		})
	}
}

func TestAReloadWithoutNewRealServersWaitsForNothing(t *testing.T) {
	d := forTest(t, t.TempDir())
	d.neigh = &hops{} // Changes would block for ever
	began := time.Now()
	d.learnHops(t.Context(), oneService())
	if took := time.Since(began); took >= hopPatience {
		t.Errorf("it took %v", took)
	}
}

func TestAnInterfaceThatBrokeDownKeepsNobodyFromChangingTheRest(t *testing.T) {
	instance := func(name, iface string) config.Instance { return config.Instance{Name: name, Interface: iface} }
	old := &config.Config{Instances: []config.Instance{instance("a", "gone0")}, Dataplane: config.Dataplane{Interfaces: []string{"gone0"}}}
	now := *old
	now.Services = oneService().Services
	if err := checkInterfaces(&now, old); err != nil {
		t.Errorf("an interface in use that is gone: %v", err)
	}
	now.Instances = append(now.Instances, instance("b", "nosuch0"))
	if err := checkInterfaces(&now, old); err == nil || strings.Contains(err.Error(), "gone0") || !strings.Contains(err.Error(), "instance b: interface nosuch0 does not exist") {
		t.Errorf("a new one that doesn't exist: %v", err)
	}
}

func TestAReloadWhileStoppingSaysNothingAboutTheFile(t *testing.T) {
	d := forTest(t, t.TempDir())
	d.stopping, d.reloaded = true, status.Reload{Success: true}
	r := reload{cfg: oneService(), reply: make(chan error, 1)}
	d.reload(t.Context(), r)
	if err := <-r.reply; err == nil || !strings.Contains(err.Error(), "stopping") {
		t.Errorf("error %v", err)
	}
	if !d.reloaded.Success {
		t.Errorf("the file counts as refused: %+v", d.reloaded)
	}
}
