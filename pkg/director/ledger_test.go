package director

import (
	"io"
	"log/slog"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/xdirector/xdirector/pkg/config"
	"github.com/xdirector/xdirector/pkg/ha"
	"github.com/xdirector/xdirector/pkg/lb"
	"github.com/xdirector/xdirector/pkg/status"
	"github.com/xdirector/xdirector/pkg/vrrp"
	"github.com/xdirector/xdirector/pkg/xdp"
)

// counting is a director whose pictures are looked at, without anything that runs.
type counting struct {
	*Director
	t   *testing.T
	dir string
}

const countingFile = `vrrp: {instances: [{name: VI, interface: eth0, virtual_router_id: 1, virtual_addresses: [10.0.0.100]}]}
services:
  - name: web
    address: 10.0.0.100
    port: 80
    scheduler: rr
    check: {type: tcp}
    sorry_server: {address: 10.0.0.9}
    real_servers: [{address: 10.0.0.1}, {address: 10.0.0.2}]
`

// agent is one that is started, or started again.
func (c *counting) agent() {
	c.Director = &Director{log: slog.New(slog.NewTextHandler(io.Discard, nil)), servers: map[lb.ServerKey]*server{}, meter: newMeter()}
	c.plane.modes = map[string]xdp.Mode{"eth0": xdp.Native}
	c.configure(countingFile)
	c.openLedger()
}

func (c *counting) configure(file string) {
	cfg, err := config.Parse("f", []byte(file))
	if err != nil {
		c.t.Fatal(err)
	}
	cfg.StateDir = c.dir
	c.cfg = cfg
	c.targets(cfg)
}

// read has the meter read that of each kind of frame, of each real server and of the interface, were so many.
func (c *counting) read(n uint64) {
	traffic := lb.Traffic{Packets: n, Bytes: 100 * n, FlowsCreated: n}
	counters := lb.Counters{
		RealServers: map[lb.ServerKey]lb.Traffic{},
		FlowTable:   lb.FlowTable{Size: 10, Unstored: n},
		Interfaces: map[string]lb.InterfaceCounters{"eth0": {Verdicts: map[string]uint64{"tx": n}, Drops: map[string]uint64{"full": n},
			Lost: []lb.RedirectErrors{{To: "eth1", Reason: "down", Frames: n}}}},
		Adverts: map[string]map[string]uint64{"VI": {"ttl": n, "absorbed": n}},
		Refused: map[lb.ServiceKey]map[string]uint64{},
	}
	for _, s := range c.cfg.Services {
		for _, a := range []string{"10.0.0.1", "10.0.0.2", "10.0.0.9"} {
			counters.RealServers[lb.ServerKey{Service: serviceKey(s), Address: netip.MustParseAddr(a)}] = traffic
		}
		counters.Refused[s.Key()] = map[string]uint64{"denied": n}
	}
	c.meter.latest.Store(&measurement{Counters: counters})
}

// reported has the election report that each thing was so many times.
func (c *counting) reported(n uint64) {
	c.reportAt = time.Now()
	c.report = ha.Report{
		Lateness: ha.Histogram{Counts: []uint64{n, 0, 0, 0, 0, 0, 0, 0, 0, 0}, Sum: time.Duration(n) * time.Second},
		Instances: []ha.InstanceReport{{Name: "VI", State: vrrp.Backup, AdvertsSent: n, AdvertsReceived: n, Restored: n, AdvertsAbsorbed: n,
			AdvertsRefused: map[vrrp.Reason]uint64{vrrp.RefusedTTL: n}, AdvertsByForm: map[string]uint64{"rfc5798": n}, Transitions: map[vrrp.State]uint64{vrrp.Backup: n}}},
	}
}

func (c *counting) checked(n uint64) {
	for _, s := range c.servers {
		s.results[isDown], s.transitions[isUp] = n, n
	}
}

// sees fails unless every counter of the picture is as wanted: those of the plane, of the election, and of checks.
func (c *counting) sees(what string, plane, election, checks uint64) {
	c.t.Helper()
	c.publish()
	s := c.picture.Load()
	i := s.Instances[0]
	got := []any{i.AdvertsSent, i.AdvertsReceived, i.AddressesRestored, i.AdvertsRefused, i.AdvertsByForm, i.Transitions, s.Election.LatenessCounts[0], s.Election.LatenessSum}
	want := []any{election, election, election, map[string]uint64{"ttl": election}, map[string]uint64{"rfc5798": election},
		map[string]uint64{"INIT": 0, "BACKUP": election, "MASTER": 0, "FAULT": 0}, election, float64(election)}
	for _, v := range s.Services {
		for _, r := range v.RealServers {
			got = append(got, r.Packets, r.Bytes, r.FlowsCreated, r.Checks, r.Transitions)
			want = append(want, plane, 100*plane, plane, map[string]uint64{"up": 0, "down": checks}, map[string]uint64{"up": checks, "down": 0})
		}
		got = append(got, v.SorryServer.Packets)
		want = append(want, plane)
		if v.Refused != nil {
			got, want = append(got, v.Refused["denied"]), append(want, plane)
		}
	}
	if n := s.Interfaces[0]; n.Verdicts != nil {
		got = append(got, n.Verdicts["tx"], n.Drops["full"], n.Lost, s.FlowTable.Unstored, i.AdvertsFiltered["ttl"])
		want = append(want, plane, plane, []status.RedirectErrors{{To: "eth1", Reason: "down", Frames: plane}}, plane, plane)
	}
	if !reflect.DeepEqual(got, want) {
		c.t.Errorf("%s: counters are\n%v, want\n%v", what, got, want)
	}
}

func TestCountersGoOnWhoeverBeginsAnew(t *testing.T) {
	c := &counting{t: t, dir: t.TempDir()}
	c.agent()
	c.reported(0)
	c.sees("at the start", 0, 0, 0)
	c.read(10)
	c.reported(20)
	c.checked(30)
	c.sees("later", 10, 20, 30)

	c.agent()
	c.reported(20)
	c.sees("a new agent, which has not read the plane yet", 10, 20, 30)
	c.read(12)
	c.reported(22)
	c.checked(3)
	c.sees("and which has", 12, 22, 33)

	c.read(2)
	c.sees("the plane is made anew", 14, 22, 33)
	c.reported(1)
	c.sees("another election", 14, 23, 33)

	delete(c.report.Instances[0].Transitions, vrrp.Backup)
	c.report.Instances[0].AdvertsRefused = nil
	c.reportAt = c.reportAt.Add(time.Second)
	c.sees("one that has not seen everything yet", 14, 23, 33)

	c.agent()
	c.reported(0)
	c.read(0)
	c.sees("everything is another one", 14, 23, 33)

	c.configure("vrrp: {instances: [{name: VI, interface: eth0, virtual_router_id: 1, virtual_addresses: [10.0.0.100]}]}\n")
	c.read(5)
	c.publish()
	c.configure(countingFile)
	c.read(0)
	c.checked(0)
	c.publish()
	if r := c.picture.Load().Services[0].RealServers[0]; r.Packets != 14 || r.Checks["down"] != 33 {
		t.Errorf("a real server that comes back has %d packets, %d checks", r.Packets, r.Checks["down"])
	}
	c.configure(strings.ReplaceAll(countingFile, "web", "other"))
	c.publish()
	if r := c.picture.Load().Services[0].RealServers[0]; r.Checks["down"] != 0 {
		t.Errorf("the same of a service with another name has %d checks", r.Checks["down"])
	}
}

func TestElectionRestartsAreNotCountedTwice(t *testing.T) {
	l := &ledger{}
	l.open(&config.Config{})
	for _, row := range []struct {
		pid            int
		restarts, want uint64
	}{{0, 0, 0}, {7, 1, 1}, {0, 0, 1}, {7, 1, 1}, {8, 2, 2}, {9, 0, 2}, {10, 1, 3}} {
		e := status.Election{PID: row.pid, Restarts: row.restarts}
		if l.settleElection(&e); e.Restarts != row.want {
			t.Errorf("pid %d, %d restarts: %d, want %d", row.pid, row.restarts, e.Restarts, row.want)
		}
	}
}

func TestCountersThatCantBeKeptAreToldOnceAndKeptLater(t *testing.T) {
	var log strings.Builder
	c := &counting{t: t, dir: t.TempDir() + "/none/of/these"}
	c.Director = &Director{log: slog.New(slog.NewTextHandler(&log, nil)), cfg: &config.Config{StateDir: "/proc/nowhere"}}
	c.openLedger()
	c.keepCounters()
	if n := strings.Count(log.String(), "counters would begin at 0"); n != 1 {
		t.Errorf("told %d times: %s", n, log.String())
	}
	c.cfg.StateDir = c.dir
	c.openLedger()
	c.keepCounters()
	if n := strings.Count(log.String(), "counters outlive a restart again"); n != 1 {
		t.Errorf("its end is told %d times: %s", n, log.String())
	}
}
