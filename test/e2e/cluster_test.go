package e2e

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/xdirector/xdirector/pkg/status"
	"github.com/xdirector/xdirector/test/lab"
)

const (
	vip      = "10.77.0.100"
	vip6     = "fd77::100"
	interval = 100 * time.Millisecond // between VRRPv3 adverts
	patience = time.Minute            // for a fact that has no promised time: an emulated machine needs 15 s to load a program
)

var (
	vipAddress = netip.MustParseAddr(vip)
	web        = netip.AddrPortFrom(vipAddress, 80)
)

// requestLimit is how long a request may take; the emulated machine is 20 times slower.
func requestLimit() time.Duration {
	if inVM() {
		return 3 * time.Second
	}
	return 250 * time.Millisecond
}

// check finds a failed real server quickly, but takes no busy one for failed.
func check() string {
	if inVM() {
		return "{type: tcp, interval: 500ms, timeout: 3s, retries: 1, retry_delay: 500ms}"
	}
	return "{type: tcp, interval: 200ms, timeout: 500ms, retries: 1, retry_delay: 100ms}"
}

// loadRate is the number of new connections per second. More than 20 leave an emulated machine no time for the rest.
func loadRate() int {
	if inVM() {
		return 20
	}
	return 200
}

// calmInterval is long enough for an emulated machine that stands still to be no lost MASTER.
const calmInterval = 300 * time.Millisecond

// cluster is a lab with directors and the wire in view.
type cluster struct {
	t     *testing.T
	lab   *lab.Lab
	plane string // also the mode in the configuration

	interval time.Duration               // between adverts of the instance that all scenarios share
	more     func(director int) []string // further keys of that instance; nil: none
	d        []*lab.Director
	servers  []webServer // by real server
	wire     *lab.Wire
}

// newCluster builds a lab with real servers that run nginx, and directors that don't run yet.
func newCluster(t *testing.T, plane string, directors, servers int) *cluster {
	t.Helper()
	c := newBareCluster(t, plane, directors, servers)
	c.servers = make([]webServer, servers)
	for i := range c.servers {
		c.serve(i)
	}
	return c
}

// newBareCluster is newCluster with real servers that run nothing.
func newBareCluster(t *testing.T, plane string, directors, servers int) *cluster {
	t.Helper()
	binary, err := filepath.Abs(os.Getenv("XDIRECTOR_BIN"))
	if err != nil {
		t.Fatal(err)
	}
	l, err := lab.New(lab.Options{Directors: directors, RealServers: servers, VIPs: []string{vip, vip6}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	c := &cluster{t: t, lab: l, plane: plane, interval: interval}
	for _, n := range l.Directors {
		d, err := l.NewDirector(n, binary)
		c.ok(err)
		c.d = append(c.d, d)
	}
	t.Cleanup(c.showLogs)
	c.wire, err = l.CaptureVRRP()
	c.ok(err)
	return c
}

// webServer is a real server's nginx; in the emulated machine, where each would take a second to start, a server within the
// test.
type webServer interface {
	Kill() // and all of its connections
}

// serve starts the web server of a real server.
func (c *cluster) serve(server int) {
	c.t.Helper()
	var err error
	if r := c.lab.RealServers[server]; inVM() {
		c.servers[server], err = r.StartWeb(80)
	} else {
		c.servers[server], err = r.StartNginx(80)
	}
	c.ok(err)
}

// calm gives a scenario in which nobody may take over another interval where the machine is an emulated one, which may
// stand still for longer than the usual one.
func (c *cluster) calm(interval time.Duration) {
	if inVM() {
		c.interval = interval
	}
}

// ok ends the test on an error.
func (c *cluster) ok(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

// showLogs prints what the directors said, if the test failed.
func (c *cluster) showLogs() {
	if !c.t.Failed() {
		return
	}
	for _, d := range c.d {
		lines := strings.SplitAfter(d.Log(), "\n")
		c.t.Logf("log of %s:\n%s", d.Name, strings.Join(lines[max(0, len(lines)-60):], ""))
	}
}

// instance is the one that all scenarios share; director 0 has priority 200, director 1 has 100.
func (c *cluster) instance(director int) lab.Instance {
	i := lab.Instance{
		Version: 3, Priority: uint8(200 - 100*director), Interval: c.interval, Addresses: []string{vip + "/32"},
	}
	if c.more != nil {
		i.More = c.more(director)
	}
	return i
}

// service balances port 80 of the VIP by rr over all real servers, with a check.
func (c *cluster) service() lab.Service {
	s := lab.Service{Address: vip, Port: 80, Check: check()}
	for _, r := range c.lab.RealServers {
		s.RealServers = append(s.RealServers, lab.RealServer{Address: r.Address})
	}
	return s
}

// config is a director's configuration with the given services.
func (c *cluster) config(director int, services ...lab.Service) lab.Config {
	return lab.Config{Mode: c.plane, Instances: []lab.Instance{c.instance(director)}, Services: services}
}

// start configures and starts all directors with the same services, and waits until the first is MASTER and every
// real server is known to be up.
func (c *cluster) start(services ...lab.Service) {
	c.t.Helper()
	for i, d := range c.d {
		c.ok(d.Configure(c.config(i, services...)))
		c.ok(d.Start())
		c.ok(d.WaitStatus(c.t.Context(), patience, serversUp))
	}
	c.ok(c.d[0].WaitState(c.t.Context(), "VI_1", "MASTER", patience))
	s, err := c.d[0].Status(c.t.Context())
	c.ok(err)
	if len(services) > 0 && s.Plane.Name != c.plane {
		c.t.Fatalf("plane is %q (%s), want %q", s.Plane.Name, s.Plane.Reason, c.plane)
	}
}

// serversUp is nil when each real server passed its check, if it has one, and its MAC is known.
func serversUp(s *status.Status) error {
	for _, service := range s.Services {
		for _, r := range service.RealServers {
			if !r.Up || r.NextHopError != "" || r.Reason == "not checked yet" {
				return fmt.Errorf("real server %s: up=%v, %s, %s", r.Address, r.Up, r.Reason, r.NextHopError)
			}
		}
	}
	return nil
}

// get makes n requests, one after another, and returns the names of the servers in the order of their answers.
func (c *cluster) get(target netip.AddrPort, n int) []string {
	c.t.Helper()
	var servers []string
	for range n {
		r := c.lab.Client.Get(target, 10*requestLimit())
		if r.Outcome != lab.OK {
			c.t.Fatalf("request %d: %s (%v)", len(servers)+1, r.Outcome, r.Err)
		}
		servers = append(servers, r.Server)
	}
	return servers
}

// load starts the usual load on port 80 of the VIP and waits for the first answer.
func (c *cluster) load() *lab.Load {
	c.t.Helper()
	return c.loadOn(web)
}

// loadOn starts the usual load on another place.
func (c *cluster) loadOn(target netip.AddrPort) *lab.Load {
	c.t.Helper()
	l, err := c.lab.Client.StartLoad(target, loadRate(), requestLimit())
	c.ok(err)
	c.ok(lab.Wait(c.t.Context(), patience, func() error {
		if rs := l.Requests(); rs.Outcomes()[lab.OK] == 0 {
			return fmt.Errorf("no request answered: %v", rs.Outcomes())
		}
		return nil
	}))
	return l
}

// answered waits until n requests that were started at or after from were answered.
func (c *cluster) answered(l *lab.Load, from time.Time, n int) {
	c.t.Helper()
	if inVM() {
		n = max(10, n/4) // of a load that is a tenth
	}
	c.ok(lab.Wait(c.t.Context(), patience, func() error {
		if rs := l.Requests().Between(from, time.Now()); rs.Outcomes()[lab.OK] < n {
			return fmt.Errorf("answered since %v: %v", from, rs.Outcomes())
		}
		return nil
	}))
}

// takeover waits for the first gratuitous ARP of a director since from.
func (c *cluster) takeover(d *lab.Director, from time.Time) time.Time {
	c.t.Helper()
	g, err := c.wire.WaitAnnouncement(c.t.Context(), d.Node, vipAddress, from, patience)
	c.ok(err)
	return g.Time
}

// handover checks what a planned change of the MASTER cost. On IPVS it is printed only: there, forwarding ends with
// the address.
func (c *cluster) handover(what string, requests lab.Requests, garp time.Time) {
	c.t.Helper()
	c.t.Logf("%s: %d requests, %v", what, len(requests), requests.Outcomes())
	if err := lab.CheckHandover(requests, garp); err != nil && c.plane != ipvs {
		c.t.Errorf("%s: %v", what, err)
	}
}

// oneMaster waits until one director is MASTER, the other BACKUP, and the address is on the MASTER only.
func (c *cluster) oneMaster(master, backup *lab.Director, limit time.Duration) {
	c.t.Helper()
	c.ok(master.WaitState(c.t.Context(), "VI_1", "MASTER", limit))
	c.ok(backup.WaitState(c.t.Context(), "VI_1", "BACKUP", limit))
	c.ok(c.waitCount(master.Node, 1))
	c.ok(c.waitCount(backup.Node, 0))
}

// waitCount waits until a node's eth0 carries the VIP that often.
func (c *cluster) waitCount(n *lab.Node, want int) error {
	return lab.Wait(c.t.Context(), patience, func() error {
		if got, err := c.count(n); err != nil || got != want {
			return fmt.Errorf("%s holds the address %d times, want %d (%v)", n.Name, got, want, err)
		}
		return nil
	})
}

// count says how often a node's eth0 carries the VIP.
func (c *cluster) count(n *lab.Node) (int, error) {
	addresses, err := n.Addresses("eth0")
	count := 0
	for _, a := range addresses {
		if a == vip+"/32" {
			count++
		}
	}
	return count, err
}
