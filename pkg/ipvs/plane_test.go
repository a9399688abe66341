package ipvs

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/cloudflare/ipvs"
	"github.com/cloudflare/ipvs/netmask"
	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"github.com/xdirector/xdirector/pkg/lb"
	"golang.org/x/sys/unix"
)

// TestMain: what is named TestKernel needs a kernel with ip_vs, and exists only where test/vm/exec says that there is
// one. All other tests run on the fake everywhere, and there on the kernel too.
func TestMain(m *testing.M) {
	flag.Parse()
	if !onKernel() {
		if err := flag.Set("test.skip", "^TestKernel"); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}

func onKernel() bool { return os.Getenv("XDIRECTOR_VM") == "1" }

// onEach runs the same assertions on the fake and, in the virtual machine, on a fresh network namespace's IPVS.
func onEach(t *testing.T, test func(t *testing.T, k *watched)) {
	t.Run("fake", func(t *testing.T) { test(t, &watched{kernel: newFake()}) })
	if onKernel() {
		t.Run("kernel", func(t *testing.T) {
			enterNewNamespace(t)
			test(t, &watched{kernel: dialed(t)})
		})
	}
}

// enterNewNamespace moves the test's thread, which ends with the test, since it is never unlocked.
func enterNewNamespace(t *testing.T) {
	t.Helper()
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	// Where no route at all exists, IPVS takes every real server's address for a broadcast and refuses it.
	if err := netlink.LinkSetUp(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Name: "lo", Index: 1}}); err != nil {
		t.Fatal(err)
	}
}

func dialed(t *testing.T) kernel {
	t.Helper()
	k, err := dial()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := k.Close(); err != nil {
			t.Error(err)
		}
	})
	return k
}

func opened(t *testing.T, k kernel, stateFile string) *Plane {
	t.Helper()
	p, err := open(k, stateFile, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func stateFile(t *testing.T) string { return filepath.Join(t.TempDir(), "state", "ipvs.json") }

func apply(t *testing.T, p *Plane, services ...lb.Service) {
	t.Helper()
	if err := p.Apply(t.Context(), lb.State{Services: services}); err != nil {
		t.Fatal(err)
	}
}

func wantError(t *testing.T, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one with %q", words)
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("error %q lacks %q", err, word)
		}
	}
}

var (
	hop       = lb.NextHop{Interface: 2, MAC: lb.MAC{2, 0, 0, 0, 0, 1}}
	tcpKey    = lb.ServiceKey{Address: netip.MustParseAddr("10.77.0.100"), Port: 80, Protocol: lb.TCP}
	udpKey    = lb.ServiceKey{Address: netip.MustParseAddr("10.77.0.100"), Port: 53, Protocol: lb.UDP}
	otherKey  = lb.ServiceKey{Address: netip.MustParseAddr("10.77.0.200"), Port: 80, Protocol: lb.TCP}
	exclusive = netmask.MaskFrom(32, 32)
)

// server is a healthy real server 10.77.0.LAST.
func server(last byte, weight uint16) lb.RealServer {
	return lb.RealServer{Address: netip.AddrFrom4([4]byte{10, 77, 0, last}), Port: 80, Weight: weight, Up: true, NextHop: hop}
}

func service(key lb.ServiceKey, scheduler lb.Scheduler, servers ...lb.RealServer) lb.Service {
	return lb.Service{Name: "web", Key: key, Scheduler: scheduler, RealServers: servers}
}

// shown is what the kernel has for a service:
// as scheduler and timeout, then address, way and weight of each real server in the kernel's order.
func shown(t *testing.T, k kernel, key lb.ServiceKey) []string {
	t.Helper()
	found, err := read(k)
	if err != nil {
		t.Fatal(err)
	}
	s, ok := found.services[key]
	if !ok {
		return nil
	}
	list := []string{s.Scheduler + " " + (time.Duration(s.Timeout) * time.Second).String()}
	for _, d := range s.destinations {
		text := fmt.Sprintf("%s %s %d", d.Address, d.FwdMethod, d.Weight)
		if d.UpperThreshold > 0 || d.LowerThreshold > 0 {
			text += fmt.Sprintf(", thresholds %d %d", d.UpperThreshold, d.LowerThreshold)
		}
		list = append(list, text)
	}
	return list
}

func same(t *testing.T, what string, got, want []string) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

// makeForeign creates a service with a real server as keepalived would, behind the plane's back.
func makeForeign(t *testing.T, k *watched, key lb.ServiceKey) ipvs.Service {
	t.Helper()
	s := ipvs.Service{Address: key.Address, Port: key.Port, Protocol: ipvs.Protocol(key.Protocol), Family: ipvs.INET, Scheduler: "wrr", Netmask: exclusive}
	if err := k.kernel.CreateService(s); err != nil {
		t.Fatal(err)
	}
	d := ipvs.Destination{Address: netip.MustParseAddr("10.77.0.9"), Port: key.Port, Family: ipvs.INET, FwdMethod: ipvs.Masquerade, Weight: 7}
	if err := k.kernel.CreateDestination(s, d); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestApplyMakesTheServicesAndASecondOneWritesNothing(t *testing.T) {
	onEach(t, func(t *testing.T, k *watched) {
		p := opened(t, k, stateFile(t))
		web := service(tcpKey, lb.WeightedRoundRobin, server(3, 1), server(4, 0), server(5, 65535))
		dns := service(udpKey, lb.RoundRobin, server(3, 2))
		dns.Persistence = 50 * time.Second
		apply(t, p, web, dns)
		same(t, "tcp service", shown(t, k, tcpKey), []string{"wrr 0s", "10.77.0.3 DirectRoute 1", "10.77.0.4 DirectRoute 0", "10.77.0.5 DirectRoute 65535"})
		same(t, "udp service", shown(t, k, udpKey), []string{"rr 50s", "10.77.0.3 DirectRoute 2"})
		if len(k.taken()) == 0 {
			t.Fatal("the first Apply wrote nothing")
		}
		apply(t, p, web, dns)
		same(t, "writes of the second Apply", k.taken(), nil)
	})
}

func TestApplyWritesOnlyWhatChanged(t *testing.T) {
	onEach(t, func(t *testing.T, k *watched) {
		p := opened(t, k, stateFile(t))
		still := service(udpKey, lb.RoundRobin, server(3, 1))
		apply(t, p, still, service(tcpKey, lb.WeightedRoundRobin, server(3, 1), server(4, 2)))
		k.taken()

		// The one that gets a weight comes before the one that loses it, so that one can be chosen all the time.
		apply(t, p, still, service(tcpKey, lb.WeightedRoundRobin, server(3, 5), server(4, 0)))
		same(t, "weights", k.taken(), []string{"set 10.77.0.3 5", "set 10.77.0.4 0"})
		apply(t, p, still, service(tcpKey, lb.WeightedRoundRobin, server(6, 1), server(4, 0)))
		same(t, "another real server", k.taken(), []string{"add 10.77.0.6 1", "remove 10.77.0.3"})
		sticky := service(tcpKey, lb.RoundRobin, server(6, 1), server(4, 0))
		sticky.Persistence = 10 * time.Second
		apply(t, p, still, sticky)
		same(t, "scheduler", k.taken(), []string{"update 10.77.0.100:80 rr 10"})
		same(t, "service", shown(t, k, tcpKey), []string{"rr 10s", "10.77.0.6 DirectRoute 1", "10.77.0.4 DirectRoute 0"})
		sticky.Persistence = 0
		apply(t, p, still, sticky)
		same(t, "persistence", k.taken(), []string{"update 10.77.0.100:80 rr 0"})
		apply(t, p, still)
		same(t, "service left out", k.taken(), []string{"delete 10.77.0.100:80"})
	})
}

func TestOnlyAReachableRealServerThatIsUpIsInTheKernel(t *testing.T) {
	onEach(t, func(t *testing.T, k *watched) {
		p := opened(t, k, stateFile(t))
		down, unknown, local := server(3, 1), server(4, 1), server(5, 1)
		down.Up = false
		unknown.NextHop.MAC = lb.MAC{}
		local.NextHop = lb.NextHop{Local: true}
		apply(t, p, service(tcpKey, lb.RoundRobin, down, unknown, local))
		same(t, "service", shown(t, k, tcpKey), []string{"rr 0s", "10.77.0.5 DirectRoute 1"})
		apply(t, p, service(tcpKey, lb.RoundRobin, down, unknown))
		same(t, "service with nobody", shown(t, k, tcpKey), []string{"rr 0s"})
		apply(t, p, service(tcpKey, lb.RoundRobin, server(3, 1), unknown))
		same(t, "service after one came up", shown(t, k, tcpKey), []string{"rr 0s", "10.77.0.3 DirectRoute 1"})
	})
}

func TestForeignServicesAreNeverTouchedAndOneOfOurKeyIsRefusedWithTheCure(t *testing.T) {
	onEach(t, func(t *testing.T, k *watched) {
		theirs := makeForeign(t, k, otherKey)
		p := opened(t, k, stateFile(t))
		web, wished := service(tcpKey, lb.RoundRobin, server(3, 1)), service(otherKey, lb.RoundRobin, server(3, 1))
		err := p.Apply(t.Context(), lb.State{Services: []lb.Service{wished, web}})
		wantError(t, err, "web", "tcp 10.77.0.200:80", "not ours", "ipvsadm -D -t 10.77.0.200:80")
		same(t, "our other service", shown(t, k, tcpKey), []string{"rr 0s", "10.77.0.3 DirectRoute 1"})
		untouched := []string{"wrr 0s", "10.77.0.9 Masquerade 7"}
		same(t, "foreign service", shown(t, k, otherKey), untouched)
		apply(t, p, web)
		same(t, "foreign service, no longer wished", shown(t, k, otherKey), untouched)
		if err := p.Remove(); err != nil {
			t.Fatal(err)
		}
		same(t, "foreign service after Remove", shown(t, k, otherKey), untouched)
		same(t, "our service after Remove", shown(t, k, tcpKey), nil)

		if err := k.kernel.RemoveService(theirs); err != nil {
			t.Fatal(err)
		}
		apply(t, p, wished)
		same(t, "service once the foreign one is gone", shown(t, k, otherKey), []string{"rr 0s", "10.77.0.3 DirectRoute 1"})
	})
}

func TestSettingsAreChangedOnlyWhileNobodyElseUsesIPVS(t *testing.T) {
	onEach(t, func(t *testing.T, k *watched) {
		theirs := makeForeign(t, k, otherKey)
		p := opened(t, k, stateFile(t))
		web := service(tcpKey, lb.RoundRobin, server(3, 1))
		apply(t, p, web)
		for _, write := range k.taken() {
			if strings.Contains(write, "=") {
				t.Errorf("setting changed beside a foreign service: %s", write)
			}
		}
		differences := strings.Join(p.Differences(), "\n")
		for _, word := range []string{"sloppy_tcp", "expire_nodest_conn", "conn_reuse_mode", "tcp 10.77.0.200:80", "sysctl -w net.ipv4.vs.sloppy_tcp=1"} {
			if !strings.Contains(differences, word) {
				t.Errorf("differences lack %q:\n%s", word, differences)
			}
		}

		if err := k.kernel.RemoveService(theirs); err != nil {
			t.Fatal(err)
		}
		apply(t, p, web)
		same(t, "writes", k.taken(), []string{"sloppy_tcp=1", "expire_nodest_conn=1", "conn_reuse_mode=2"})
		same(t, "differences", p.Differences(), nil)
		apply(t, p, web)
		same(t, "writes of one more Apply", k.taken(), nil)
	})
}

func TestCleanupDeletesWhatTheRecordNamesAndNeedsNoIPVSWithoutOne(t *testing.T) {
	onEach(t, func(t *testing.T, k *watched) {
		file := stateFile(t)
		apply(t, opened(t, k, file), service(tcpKey, lb.RoundRobin, server(3, 1)))
		makeForeign(t, k, otherKey)
		k.taken()
		log := slog.New(slog.DiscardHandler)
		if err := cleanup(file, log, func() (kernel, error) { return k, nil }); err != nil {
			t.Fatal(err)
		}
		same(t, "writes", k.taken(), []string{"delete 10.77.0.100:80"})
		earlier := `{"boot_id": "00000000-0000-0000-0000-000000000000", "services": ["tcp 10.77.0.200:80"]}`
		if err := os.WriteFile(file, []byte(earlier), 0o644); err != nil {
			t.Fatal(err)
		}
		for range 2 { // with the record of an earlier boot, then with none
			if err := cleanup(file, log, func() (kernel, error) { return nil, errors.New("IPVS was asked for") }); err != nil {
				t.Error(err)
			}
		}
		if _, err := os.Stat(file); !os.IsNotExist(err) {
			t.Errorf("the record of an earlier boot is still there: %v", err)
		}
	})
}

func TestWithoutServicesNothingIsTouched(t *testing.T) {
	onEach(t, func(t *testing.T, k *watched) {
		file := stateFile(t)
		apply(t, opened(t, k, file))
		same(t, "writes", k.taken(), nil)
		if _, err := os.Stat(file); !os.IsNotExist(err) {
			t.Errorf("there is a record of no services: %v", err)
		}
	})
}

func TestARestartedDirectorTakesOverItsServices(t *testing.T) {
	onEach(t, func(t *testing.T, k *watched) {
		file := stateFile(t)
		web := service(tcpKey, lb.RoundRobin, server(3, 1))
		apply(t, opened(t, k, file), web, service(udpKey, lb.RoundRobin, server(3, 1)))
		k.taken()
		makeForeign(t, k, otherKey)
		p := opened(t, k, file)
		same(t, "writes of Open", k.taken(), nil)
		apply(t, p, web)
		same(t, "writes of Apply", k.taken(), []string{"delete 10.77.0.100:53"})
		if err := p.Remove(); err != nil {
			t.Fatal(err)
		}
		same(t, "writes of Remove", k.taken(), []string{"delete 10.77.0.100:80"})
		if _, err := os.Stat(file); !os.IsNotExist(err) {
			t.Errorf("the record outlives its services: %v", err)
		}
	})
}

func TestARecordOfAnEarlierBootOrWithoutSenseClaimsNothing(t *testing.T) {
	onEach(t, func(t *testing.T, k *watched) {
		makeForeign(t, k, tcpKey)
		for _, content := range []string{
			`{"boot_id": "00000000-0000-0000-0000-000000000000", "services": ["tcp 10.77.0.100:80"]}`,
			`{"boot_id": `, ``,
		} {
			file := filepath.Join(t.TempDir(), "ipvs.json")
			if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
				t.Fatal(err)
			}
			p := opened(t, k, file)
			wantError(t, p.Apply(t.Context(), lb.State{Services: []lb.Service{service(tcpKey, lb.RoundRobin)}}), "not ours")
			if err := p.Remove(); err != nil {
				t.Fatal(err)
			}
			same(t, "writes", k.taken(), nil)
		}
	})
}

func TestARecordThatCannotBeWrittenIsAnErrorButTheServiceWorks(t *testing.T) {
	onEach(t, func(t *testing.T, k *watched) {
		file := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(file, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		p := opened(t, k, filepath.Join(file, "ipvs.json"))
		err := p.Apply(t.Context(), lb.State{Services: []lb.Service{service(tcpKey, lb.RoundRobin, server(3, 1))}})
		wantError(t, err, "write record", file)
		same(t, "service", shown(t, k, tcpKey), []string{"rr 0s", "10.77.0.3 DirectRoute 1"})
	})
}

func TestApplyRepairsWhatSomebodyElseChanged(t *testing.T) {
	onEach(t, func(t *testing.T, k *watched) {
		p := opened(t, k, stateFile(t))
		web := service(tcpKey, lb.RoundRobin, server(3, 1), server(4, 1))
		apply(t, p, web)
		inKernel := kernelService(web)
		changed := kernelDestination(web, server(3, 9))
		changed.UpperThreshold = 5
		if err := k.kernel.UpdateDestination(inKernel, changed); err != nil {
			t.Fatal(err)
		}
		k.taken()
		apply(t, p, web)
		same(t, "writes for a real server", k.taken(), []string{"set 10.77.0.3 1"})
		if err := k.kernel.RemoveService(inKernel); err != nil {
			t.Fatal(err)
		}
		apply(t, p, web)
		same(t, "writes for a service", k.taken(), []string{"create 10.77.0.100:80", "add 10.77.0.4 1", "add 10.77.0.3 1"})
		if err := k.kernel.RemoveService(inKernel); err != nil {
			t.Fatal(err)
		}
		if _, err := p.Counters(); err != nil { // a look in between sees it missing
			t.Fatal(err)
		}
		makeForeign(t, k, tcpKey)
		wantError(t, p.Apply(t.Context(), lb.State{Services: []lb.Service{web}}), "not ours")
	})
}

func TestOneBadServiceDoesNotHoldUpTheOthers(t *testing.T) {
	onEach(t, func(t *testing.T, k *watched) {
		p := opened(t, k, stateFile(t))
		bad := service(udpKey, "nonsense", server(3, 1))
		err := p.Apply(t.Context(), lb.State{Services: []lb.Service{bad, service(tcpKey, lb.RoundRobin, server(3, 1))}})
		wantError(t, err, "udp 10.77.0.100:53", "nonsense", "modprobe ip_vs_nonsense")
		same(t, "the other", shown(t, k, tcpKey), []string{"rr 0s", "10.77.0.3 DirectRoute 1"})
	})
}

func TestACancelledApplyWritesNoMore(t *testing.T) {
	onEach(t, func(t *testing.T, k *watched) {
		p := opened(t, k, stateFile(t))
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		wantError(t, p.Apply(ctx, lb.State{Services: []lb.Service{service(tcpKey, lb.RoundRobin)}}), "context canceled")
		same(t, "service", shown(t, k, tcpKey), nil)
	})
}

func TestADifferenceAfterTheChangeIsAnErrorThatNamesIt(t *testing.T) {
	f := newFake()
	f.deaf = true
	p := opened(t, f, stateFile(t))
	err := p.Apply(t.Context(), lb.State{Services: []lb.Service{service(tcpKey, lb.RoundRobin, server(3, 1))}})
	wantError(t, err, "tcp 10.77.0.100:80", "add real server 10.77.0.3 with weight 1")
}

func TestASettingThatTheKernelLacksIsADifference(t *testing.T) {
	f := newFake()
	delete(f.settings, "net.ipv4.vs.sloppy_tcp")
	p := opened(t, f, stateFile(t))
	apply(t, p, service(tcpKey, lb.RoundRobin, server(3, 1)))
	if got := p.Differences(); len(got) != 1 || !strings.Contains(got[0], "net.ipv4.vs.sloppy_tcp") {
		t.Errorf("differences %q", got)
	}
}

func TestCountersOnlyGrowWhenTheKernelStartsAnew(t *testing.T) {
	f, file := newFake(), stateFile(t)
	p := opened(t, f, file)
	web := service(tcpKey, lb.RoundRobin, server(3, 1))
	count := func(connections, packets, bytes uint64, active, inactive uint32) {
		d := &f.services[0].destinations[0]
		d.Stats64 = ipvs.Stats{Connections: connections, IncomingPackets: packets, IncomingBytes: bytes}
		d.ActiveConnections, d.InactiveConnections = active, inactive
	}
	want := func(want lb.Traffic) {
		t.Helper()
		got, err := p.Counters()
		if err != nil {
			t.Fatal(err)
		}
		server := lb.ServerKey{Service: tcpKey, Address: web.RealServers[0].Address}
		if diff := cmp.Diff(map[lb.ServerKey]lb.Traffic{server: want}, got.RealServers, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
			t.Errorf("counters (-want +got):\n%s", diff)
		}
	}
	apply(t, p, web)
	want(lb.Traffic{})
	count(3, 30, 3000, 2, 1)
	want(lb.Traffic{FlowsCreated: 3, Packets: 30, Bytes: 3000, Flows: 3, Active: 2})

	count(4, 40, 4000, 0, 1)
	web.RealServers[0].Up = false
	apply(t, p, web)
	want(lb.Traffic{FlowsCreated: 4, Packets: 40, Bytes: 4000})
	web.RealServers[0].Up = true
	apply(t, p, web)
	want(lb.Traffic{FlowsCreated: 4, Packets: 40, Bytes: 4000})
	count(1, 100, 100, 1, 0)
	want(lb.Traffic{FlowsCreated: 5, Packets: 140, Bytes: 4100, Flows: 1, Active: 1})

	count(0, 1, 10, 0, 0) // ipvsadm --zero, and a packet since
	want(lb.Traffic{FlowsCreated: 5, Packets: 141, Bytes: 4110})

	// However busy the new life is: one number below the last reading is enough.
	count(7, 7, 70, 0, 0)
	want(lb.Traffic{FlowsCreated: 12, Packets: 147, Bytes: 4170})
	count(7, 6, 70, 0, 0)
	want(lb.Traffic{FlowsCreated: 19, Packets: 153, Bytes: 4240})
	count(7, 6, 69, 0, 0)
	want(lb.Traffic{FlowsCreated: 26, Packets: 159, Bytes: 4309})
	count(6, 6, 69, 0, 0)
	want(lb.Traffic{FlowsCreated: 32, Packets: 165, Bytes: 4378})

	// The next director knows what the lives before this one have counted.
	p = opened(t, f, file)
	apply(t, p, web)
	want(lb.Traffic{FlowsCreated: 32, Packets: 165, Bytes: 4378})
	count(7, 8, 70, 0, 0)
	want(lb.Traffic{FlowsCreated: 33, Packets: 167, Bytes: 4379})
}

func TestCountsOfThousandsOfFormerRealServersAreForgotten(t *testing.T) {
	p := opened(t, newFake(), stateFile(t))
	for n := range 50 {
		var servers []lb.RealServer
		for i := range 100 {
			r := server(3, 1)
			r.Address = netip.AddrFrom4([4]byte{10, 9, byte(n), byte(i)})
			servers = append(servers, r)
		}
		apply(t, p, service(tcpKey, lb.RoundRobin, servers...))
	}
	if n := len(p.tallies); n > 100+tallySpare+100 {
		t.Errorf("%d counts are kept for 100 real servers", n)
	}
}
