package ipvs

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cloudflare/ipvs"
	"github.com/xdirector/xdirector/pkg/lb"
	"golang.org/x/sys/unix"
)

// These tests forward real packets through the kernel's IPVS; see TestMain.

// openOn opens a plane on the director.
func (l *lan) openOn(t *testing.T) *Plane {
	t.Helper()
	var p *Plane
	l.director.must("open plane", func() (err error) {
		p, err = Open(stateFile(t), slog.New(slog.DiscardHandler))
		return err
	})
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

func (l *lan) apply(t *testing.T, p *Plane, services ...lb.Service) {
	t.Helper()
	l.director.must("apply", func() error { return p.Apply(t.Context(), lb.State{Services: services}) })
}

// real is real server i of the network, from 1.
func real(i int, weight uint16) lb.RealServer { return server(byte(20+i), weight) }

func down(r lb.RealServer) lb.RealServer {
	r.Up = false
	return r
}

func TestKernelModulesAreLoadedByOpenAndAnErrorNamesTheCure(t *testing.T) {
	if out, err := exec.Command("modprobe", slices.Concat([]string{"-r"}, modules[1:], modules[:1])...).CombinedOutput(); err != nil {
		t.Fatalf("modprobe -r: %v: %s", err, out)
	}
	loader, err := os.ReadFile("/proc/sys/kernel/modprobe")
	if err != nil {
		t.Fatal(err)
	}
	setLoader := func(path string) { // of the kernel itself, which would help otherwise
		if err := os.WriteFile("/proc/sys/kernel/modprobe", []byte(path), 0); err != nil {
			t.Fatal(err)
		}
	}
	setLoader("/bin/false")
	defer setLoader(strings.TrimSpace(string(loader)))
	file := stateFile(t)
	log := slog.New(slog.DiscardHandler)
	path := os.Getenv("PATH")
	t.Setenv("PATH", "/nowhere")
	_, err = Open(file, log)
	wantError(t, err, "kernel has no ip_vs: modprobe -a ip_vs ip_vs_rr ip_vs_wrr ip_vs_lc")

	t.Setenv("PATH", path)
	p, err := Open(file, log)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	for _, module := range modules {
		if _, err := os.Stat(filepath.Join("/sys/module", module)); err != nil {
			t.Errorf("module %s is not loaded: %v", module, err)
		}
	}
}

func TestKernelRightThatIsMissingIsNamed(t *testing.T) {
	runtime.LockOSThread() // for good: the rights are the thread's
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	if err := unix.Capset(&header, &none[0]); err != nil {
		t.Fatal(err)
	}
	_, err := Open(filepath.Join(t.TempDir(), "ipvs.json"), slog.New(slog.DiscardHandler))
	wantError(t, err, "CAP_NET_ADMIN")
}

func TestKernelSchedulesInTheOrderThatPkgLBSays(t *testing.T) {
	l := newLAN(t, 3)
	p := l.openOn(t)
	for _, s := range []lb.Service{
		service(tcpKey, lb.RoundRobin, real(1, 1), real(2, 1), real(3, 1)),
		service(tcpKey, lb.RoundRobin, real(1, 7), real(2, 0), real(3, 1)),
		service(tcpKey, lb.RoundRobin, real(1, 1), down(real(2, 1)), real(3, 1)),
		service(tcpKey, lb.WeightedRoundRobin, real(1, 1), real(2, 2), real(3, 3)),
		service(tcpKey, lb.WeightedRoundRobin, real(1, 4), real(2, 2), real(3, 2)),
		service(tcpKey, lb.WeightedRoundRobin, real(1, 3), real(2, 0), real(3, 2)),
		service(tcpKey, lb.WeightedRoundRobin, real(1, 5)),
	} {
		order := ""
		title := string(s.Scheduler)
		for _, i := range lb.Schedule(s) {
			order += string(s.RealServers[i].Address.String()[len("10.77.0.2"):])
		}
		for _, r := range s.RealServers {
			title += fmt.Sprintf(" %d", r.Weight)
			if !r.Up {
				title += " (down)"
			}
		}
		t.Run(title, func(t *testing.T) {
			l.apply(t, p) // a service made anew has its real servers in the order of the wish
			l.apply(t, p, s)
			// IPVS may begin anywhere in the order; from there on it must keep to it.
			got := l.askTimes(t, 2*len(order)+1)
			if !strings.Contains(strings.Repeat(order, 4), got) {
				t.Errorf("real servers %s, which is not in the order %s", got, order)
			}
		})
	}
}

func TestKernelWrittenInPlaceKeepsTheSharesOfTheWeights(t *testing.T) {
	l := newLAN(t, 3)
	p := l.openOn(t)
	l.apply(t, p, service(tcpKey, lb.WeightedRoundRobin, real(1, 1), real(2, 1), real(3, 1)))
	l.askTimes(t, 2)
	l.apply(t, p, service(tcpKey, lb.WeightedRoundRobin, down(real(1, 1)), real(2, 2), real(3, 1)))
	l.askTimes(t, 2)
	l.apply(t, p, service(tcpKey, lb.WeightedRoundRobin, real(1, 3), real(2, 2), real(3, 1)))
	l.askTimes(t, 1) // the kernel ends its round before the new weights count
	got := l.askTimes(t, 12)
	for name, share := range map[string]int{"1": 6, "2": 4, "3": 2} {
		if n := strings.Count(got, name); n < share-1 || n > share+1 {
			t.Errorf("real server %s got %d of %s, want %d", name, n, got, share)
		}
	}
}

func TestKernelHashesAClientToOneServer(t *testing.T) {
	for _, scheduler := range []lb.Scheduler{lb.SourceHashing, lb.MaglevHashing} {
		t.Run(string(scheduler), func(t *testing.T) {
			l := newLAN(t, 3)
			p := l.openOn(t)
			l.apply(t, p, service(tcpKey, scheduler, real(1, 1), real(2, 2), real(3, 1)))
			if got := l.askTimes(t, 9); strings.Trim(got, got[:1]) != "" {
				t.Errorf("flows of one client went to real servers %s", got)
			}
		})
	}
}

func TestKernelPersistentClientStaysUntilItsServerIsDown(t *testing.T) {
	l := newLAN(t, 3)
	p := l.openOn(t)
	web := service(tcpKey, lb.RoundRobin, real(1, 1), real(2, 1), real(3, 1))
	web.Persistence = 50 * time.Second
	l.apply(t, p, web)
	first := l.ask(t, "10.77.0.1:0")
	second := l.ask(t, "10.77.0.2:0")
	if first == second {
		t.Errorf("both clients got real server %s: persistence is by the single address", first)
	}
	for range 4 {
		if got := l.ask(t, "10.77.0.1:0"); got != first {
			t.Fatalf("client moved from %s to %s", first, got)
		}
	}
	its := &web.RealServers[first[0]-'1']
	its.Weight = 0
	l.apply(t, p, web)
	if got := l.ask(t, "10.77.0.1:0"); got != first {
		t.Errorf("client moved from %s to %s at weight 0", first, got)
	}
	its.Up = false
	l.apply(t, p, web)
	moved := l.ask(t, "10.77.0.1:0")
	if moved == first {
		t.Fatalf("client is still sent to %s, which is down", first)
	}
	its.Up, its.Weight = true, 1
	l.apply(t, p, web)
	if got := l.ask(t, "10.77.0.1:0"); got != moved {
		t.Errorf("client moved from %s to %s because another real server came back", moved, got)
	}
}

func TestKernelWeight0KeepsItsFlowsAndGetsNoNewOnes(t *testing.T) {
	l := newLAN(t, 2)
	p := l.openOn(t)
	l.apply(t, p, service(tcpKey, lb.RoundRobin, real(1, 1), real(2, 0)))
	c, name := l.open(t, anyPort)
	if name != "1" {
		t.Fatalf("real server %s, want 1", name)
	}
	l.apply(t, p, service(tcpKey, lb.RoundRobin, real(1, 0), real(2, 1)))
	if got := l.askTimes(t, 4); got != "2222" {
		t.Errorf("new connections went to %s, want only 2", got)
	}
	if got := again(t, c); got != "1" {
		t.Errorf("the open connection is answered by %s", got)
	}
}

func TestKernelFlowsOfADownServerAreScheduledAfresh(t *testing.T) {
	l := newLAN(t, 2)
	p := l.openOn(t)
	servers := []lb.RealServer{real(1, 1), down(real(2, 1))}
	web, dns := service(tcpKey, lb.RoundRobin, servers...), service(udpKey, lb.RoundRobin, servers...)
	l.apply(t, p, web, dns)
	tcp, name := l.open(t, anyPort)
	if name != "1" {
		t.Fatalf("real server %s, want 1", name)
	}
	udp, err := l.dial("udp4", anyPort)
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	if got := again(t, udp); got != "1" {
		t.Fatalf("datagram went to %s, want 1", got)
	}
	servers[0].Up, servers[1].Up = false, true
	l.apply(t, p, web, dns)
	if got := again(t, udp); got != "2" {
		t.Errorf("datagram of the same flow went to %s, want 2", got)
	}
	// The other real server knows nothing of the connection and ends it at once: the client need not wait.
	if _, err := tcp.Write([]byte("?")); err != nil {
		t.Fatal(err)
	}
	if _, err := tcp.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read on the old connection: %v, want a reset", err)
	}
}

func TestKernelConnectionFromAPortUsedBeforeIsANewFlow(t *testing.T) {
	l := newLAN(t, 2)
	p := l.openOn(t)
	l.apply(t, p, service(tcpKey, lb.RoundRobin, real(1, 1), real(2, 1)))
	got := ""
	for range 4 {
		got += l.ask(t, "10.77.0.1:5555")
	}
	if got != "1212" && got != "2121" {
		t.Errorf("real servers %s, want them in turn", got)
	}
}

func TestKernelConnectionOpenAtATakeoverIsScheduled(t *testing.T) {
	l := newLAN(t, 1)
	p := l.openOn(t)
	l.apply(t, p, service(tcpKey, lb.RoundRobin, real(1, 1)))
	l.sendTo(l.servers[0]) // as if another director had sent it there
	c, _ := l.open(t, anyPort)
	l.sendTo(l.director)
	if got := again(t, c); got != "1" {
		t.Errorf("the open connection is answered by %s, want 1", got)
	}
}

func TestKernelWithoutARealServerRefusesAtOnce(t *testing.T) {
	l := newLAN(t, 1)
	p := l.openOn(t)
	for _, s := range []lb.Service{service(tcpKey, lb.RoundRobin, down(real(1, 1))), service(tcpKey, lb.RoundRobin, real(1, 0))} {
		l.apply(t, p, s)
		if _, err := l.dial("tcp4", anyPort); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("connect: %v, want refused", err)
		}
	}
}

func TestKernelDirectorMayBeARealServer(t *testing.T) {
	l := newLAN(t, 1)
	l.director.serve('d')
	p := l.openOn(t)
	local := lb.RealServer{Address: netip.MustParseAddr(director), Port: 80, Weight: 1, Up: true, NextHop: lb.NextHop{Local: true}}
	web := service(tcpKey, lb.RoundRobin, real(1, 1), local)
	l.apply(t, p, web)
	if got := l.askTimes(t, 4); got != "1d1d" && got != "d1d1" {
		t.Errorf("real servers %s, want 1 and d in turn", got)
	}
	l.apply(t, p, web) // what the kernel shows for itself must not look like a difference
}

func TestKernelForeignServiceForwardsOnBesideOurs(t *testing.T) {
	l := newLAN(t, 2)
	foreign := kernelService(service(udpKey, lb.RoundRobin))
	var theirs kernel
	l.director.must("make a foreign service", func() error {
		theirs = dialed(t)
		if err := theirs.CreateService(foreign); err != nil {
			return err
		}
		return theirs.CreateDestination(foreign, ipvs.Destination{Address: netip.MustParseAddr("10.77.0.22"), Port: 53, Family: ipvs.INET, FwdMethod: ipvs.DirectRoute, Weight: 1})
	})
	udp, err := l.dial("udp4", anyPort)
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	check := func(when string) {
		t.Helper()
		if got := again(t, udp); got != "2" {
			t.Errorf("%s: datagram to the foreign service went to %s, want 2", when, got)
		}
	}
	check("at first")
	p := l.openOn(t)
	l.apply(t, p, service(tcpKey, lb.RoundRobin, real(1, 1)))
	check("after Apply")
	if got := l.askTimes(t, 2); got != "11" {
		t.Errorf("our own service went to %s, want 1", got)
	}
	l.director.must("check the settings", func() error {
		value, err := theirs.Setting("net.ipv4.vs.expire_nodest_conn")
		if err == nil && value != "0" {
			err = fmt.Errorf("expire_nodest_conn is %s beside a foreign service", value)
		}
		return err
	})
	if len(p.Differences()) == 0 {
		t.Error("no difference is reported")
	}
	l.director.must("remove", p.Remove)
	check("after Remove")
	// The virtual address is the director's own, so without the service its kernel refuses.
	if c, err := l.dial("tcp4", anyPort); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("connect to our service after Remove: %v, %v", c, err)
	}
}

func TestKernelRestartUnderTrafficBreaksNothing(t *testing.T) {
	l := newLAN(t, 2)
	file := stateFile(t)
	web := service(tcpKey, lb.RoundRobin, real(1, 1), real(2, 1))
	var open []net.Conn
	var names []string
	for range 3 {
		l.director.must("start", func() error {
			p, err := Open(file, slog.New(slog.DiscardHandler))
			if err != nil {
				return err
			}
			return errors.Join(p.Apply(t.Context(), lb.State{Services: []lb.Service{web}}), p.Close())
		})
		c, name := l.open(t, anyPort)
		open, names = append(open, c), append(names, name)
		for i, c := range open {
			if got := again(t, c); got != names[i] {
				t.Errorf("connection %d is answered by %s instead of %s", i, got, names[i])
			}
		}
	}
}

func TestKernelCountersAreExactAndGrowAcrossDownAndUp(t *testing.T) {
	l := newLAN(t, 2)
	p := l.openOn(t)
	servers := []lb.RealServer{real(1, 1), real(2, 1)}
	web, dns := service(tcpKey, lb.RoundRobin, servers...), service(udpKey, lb.RoundRobin, servers...)
	key := lb.ServerKey{Service: udpKey, Address: servers[0].Address}
	counters := func() lb.Traffic {
		t.Helper()
		c, err := p.Counters()
		if err != nil {
			t.Fatal(err)
		}
		return c.RealServers[key]
	}
	// The kernel renews what it shows every 2 s.
	until := func(what string, is func(lb.Traffic) bool) lb.Traffic {
		t.Helper()
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for end := time.Now().Add(limit); ; <-tick.C {
			got := counters()
			if is(got) {
				return got
			}
			if time.Now().After(end) {
				t.Fatalf("counters %+v, want %s", got, what)
			}
		}
	}
	exactly := func(want lb.Traffic) {
		t.Helper()
		until(fmt.Sprintf("%+v", want), func(got lb.Traffic) bool { return got == want })
	}
	l.apply(t, p, web, dns)
	udp, err := l.dial("udp4", anyPort)
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	key.Address = servers[again(t, udp)[0]-'1'].Address
	for range 9 {
		again(t, udp)
	}
	exactly(lb.Traffic{FlowsCreated: 1, Packets: 10, Bytes: 10 * 29, Flows: 1})

	for i := range servers {
		if servers[i].Address == key.Address {
			servers[i].Up = false
		}
	}
	l.apply(t, p, web, dns)
	if got := counters(); got != (lb.Traffic{FlowsCreated: 1, Packets: 10, Bytes: 10 * 29}) {
		t.Errorf("counters of a real server that is down: %+v", got)
	}
	again(t, udp)
	for i := range servers {
		servers[i].Up = servers[i].Address == key.Address
	}
	l.apply(t, p, web, dns)
	for range 5 {
		again(t, udp)
	}
	exactly(lb.Traffic{FlowsCreated: 2, Packets: 15, Bytes: 15 * 29, Flows: 1})

	key.Service = tcpKey
	l.askTimes(t, 3)
	if got := until("3 TCP connections", func(got lb.Traffic) bool { return got.FlowsCreated == 3 }); got.Packets < 12 || got.Bytes < got.Packets*40 {
		t.Errorf("counters of 3 TCP connections: %+v", got)
	}
}
