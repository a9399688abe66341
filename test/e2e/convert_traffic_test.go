package e2e

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/xdirector/xdirector/test/lab"
)

// balancing is a set-up of two directors of which clients ask something.
type balancing struct {
	name     string
	file     string // of both directors, below testdata/convert; empty: the set-up of the examples
	routers  []uint8
	services []balanced
	listed   int  // services, those of which nobody asks something included
	real     int  // servers in the lab
	onXDP    bool // it has nothing that XDP can't do
}

// balanced is what clients ask for, and who answers.
type balanced struct {
	at      netip.AddrPort
	servers []netip.AddrPort // empty: the directors themselves
	sorry   netip.AddrPort

	persistent bool
	retries    int // of the checks
}

// balancings are one with everything that can be short, or all of them.
func balancings() []balancing {
	at, list := netip.MustParseAddrPort, func(all ...string) (list []netip.AddrPort) {
		for _, a := range all {
			list = append(list, netip.MustParseAddrPort(a))
		}
		return list
	}
	everything := balancing{"everything", "everything.conf", []uint8{51}, []balanced{
		{at: at("10.77.0.100:80"), servers: list("10.77.0.21:80", "10.77.0.22:80"), retries: 2},
		{at: at("10.77.0.100:81"), servers: list("10.77.0.21:81", "10.77.0.22:81"), sorry: at("10.77.0.23:81"), persistent: true},
	}, 4, 3, false}
	if os.Getenv("XDIRECTOR_SETUPS") != "all" {
		return []balancing{everything}
	}
	web := balanced{at: at("10.77.0.100:80"), servers: list("10.77.0.21:80", "10.77.0.22:80"), retries: 3}
	sticky := web
	sticky.persistent = true
	return []balancing{everything,
		{"hot-standby", "", []uint8{20}, []balanced{{at: at("10.77.0.100:80")}}, 0, 0, true},
		{"gateway", "", []uint8{10}, []balanced{{at: at("10.77.0.101:80")}}, 0, 0, true},
		{"lvs-dr-rr", "", []uint8{51}, []balanced{web}, 1, 2, true},
		{"lvs-dr-wrr-persistence", "", []uint8{51}, []balanced{sticky}, 1, 2, true},
		{"mutual-backup", "", []uint8{51, 52}, []balanced{web, {at: at("10.77.0.200:25"), servers: list("10.77.0.23:25", "10.77.0.24:25"), retries: 3}}, 2, 4, true},
		{"nat", "nat.conf", []uint8{51, 52}, []balanced{{at: at("10.77.0.100:80"), servers: list("10.77.0.21:8080", "10.77.0.22:8080"), retries: 2}}, 1, 2, false},
	}
}

// inTheLab puts the addresses of the examples into the lab's network.
var inTheLab = strings.NewReplacer("192.168.5.103", "10.77.0.21", "192.168.5.104", "10.77.0.22", "192.168.5.105", "10.77.0.23",
	"192.168.5.106", "10.77.0.24", "192.168.10.1\n", "10.77.0.101\n", "192.168.5.", "10.77.0.", "192.168.20.", "10.77.0.", "eth1", "eth0")

// text is the keepalived.conf of a director.
func (b balancing) text(t *testing.T, director int) string {
	t.Helper()
	name := filepath.Join("testdata/convert", b.file)
	if b.file == "" {
		name = filepath.Join("../../configs/examples/keepalived", fmt.Sprintf("%s-lb%d.conf", b.name, director+1))
	}
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return inTheLab.Replace(string(text))
}

// side is a pair of directors of one kind in a lab of its own.
type side struct {
	*cluster
	name  string
	set   balancing
	start func(director int) error
	stop  func(director int) error
	kill  func(director int)
	// rules are the services of a director as `ipvsadm -Sn` prints them.
	rules func(director int) ([]string, error)
	// looks is something that changes with them, and costs less.
	looks func(director int) (string, error)

	web   map[netip.AddrPort]*lab.Web
	dead  map[netip.AddrPort]*death  // in this act
	first map[netip.AddrPort]answers // of the first act
	times map[netip.AddrPort]int     // how often new clients have asked
	story []event
	acts  int
	title string // of the act
	began time.Time
}

// event is something that an operator or a client can see.
type event struct{ what, seen string }

// next begins an act.
func (s *side) next(title string) {
	s.acts++
	s.title = title
	s.t.Logf("%s: after %v: %s", s.name, time.Since(s.began).Round(time.Millisecond), title)
}

func (s *side) see(what, format string, args ...any) {
	e := event{s.title + ": " + what, fmt.Sprintf(format, args...)}
	s.story = append(s.story, e)
}

// newSide builds the lab of a pair, with servers that run.
func newSide(t *testing.T, name, plane string, set balancing) *side {
	t.Helper()
	s := &side{cluster: newBareCluster(t, plane, 2, set.real), name: name, set: set, web: map[netip.AddrPort]*lab.Web{},
		first: map[netip.AddrPort]answers{}, times: map[netip.AddrPort]int{}, title: "both started", began: time.Now()}
	for n := range clientsOfAct() * clientTimes {
		s.ok(s.lab.Client.AddAddress("eth0", clientAddress(n).String()+"/24"))
	}
	for _, r := range s.lab.RealServers {
		s.ok(r.AddAddress("lo", "10.77.0.200/32"))
	}
	for _, n := range s.lab.Directors {
		for path, value := range map[string]string{"net/ipv4/ip_forward": "1", "net/ipv4/conf/all/send_redirects": "0", "net/ipv4/conf/eth0/send_redirects": "0"} {
			s.ok(n.Sysctl(path, value))
		}
	}
	for _, b := range set.services {
		for _, at := range append(slices.Clone(b.servers), b.sorry) {
			if at.IsValid() && s.web[at] == nil {
				s.serve(at)
			}
		}
		if len(b.servers) == 0 {
			for _, n := range s.lab.Directors {
				_, err := n.StartWeb(b.at.Port())
				s.ok(err)
			}
		}
	}
	if set.name == "nat" {
		for _, r := range s.lab.RealServers {
			// The answers have to come through the director that is MASTER; the virtual address is not theirs.
			s.ok(r.DeleteAddress("lo", vip+"/32"))
			s.ok(r.Run("ip", "route", "replace", "10.77.0.0/25", "via", "10.77.0.101"))
			for _, n := range s.lab.Directors {
				s.ok(r.Run("ip", "route", "add", n.Address.String(), "dev", "eth0"))
			}
			s.ok(r.Run("ip", "route", "add", "10.77.0.101", "dev", "eth0"))
			s.ok(r.Run("ip", "route", "replace", "10.77.0.128/25", "via", "10.77.0.101"))
		}
	}
	return s
}

// server is the node that has an address.
func (s *side) server(a netip.Addr) *lab.Node {
	s.t.Helper()
	for _, n := range s.lab.RealServers {
		if n.Address == a {
			return n
		}
	}
	s.t.Fatalf("no real server has %s", a)
	return nil
}

// serve starts the web server of a real server.
func (s *side) serve(at netip.AddrPort) {
	s.t.Helper()
	p, err := s.server(at.Addr()).StartWeb(at.Port())
	s.ok(err)
	s.web[at] = p
}

// keepalivedSide balances by keepalived's own IPVS.
func keepalivedSide(t *testing.T, set balancing) *side {
	t.Helper()
	s := newSide(t, "keepalived", ipvs, set)
	running := make([]*lab.Process, 2)
	for i := range running {
		s.showLog(func() *lab.Process { return running[i] })
	}
	s.start = func(i int) (err error) {
		running[i], err = s.lab.Directors[i].StartKeepalivedFile(set.text(t, i), "--config-id", fmt.Sprintf("lb%d", i+1))
		return err
	}
	s.stop = func(i int) error { return running[i].Terminate(patience) }
	s.kill = func(i int) { running[i].Kill() }
	s.rules = func(i int) ([]string, error) { return s.lab.Directors[i].IPVSRules() }
	s.looks = func(i int) (string, error) { return s.lab.Directors[i].ListIPVS() }
	return s
}

// convertedSide has what the command makes of the same files.
func convertedSide(t *testing.T, plane string, set balancing) *side {
	t.Helper()
	s := newSide(t, plane, plane, set)
	for i, d := range s.d {
		s.convert(d, i, set.text(t, i), lab.Config{Mode: plane})
	}
	s.start = func(i int) error { return s.d[i].Start() }
	s.stop = func(i int) error { return s.d[i].Stop() }
	s.kill = func(i int) { s.d[i].Kill() }
	if plane == ipvs {
		s.rules = func(i int) ([]string, error) { return s.d[i].IPVSRules() }
		s.looks = func(i int) (string, error) { return s.d[i].ListIPVS() }
		return s
	}
	s.rules = s.statusRules
	s.looks = func(i int) (string, error) {
		rules, err := s.statusRules(i)
		return strings.Join(rules, "\n"), err
	}
	return s
}

// methods are what `ipvsadm` calls them.
var methods = map[string]string{"direct": "-g", "nat": "-m", "tunnel": "-i"}

// statusRules are the services of a director's status, as they would be in IPVS.
func (s *side) statusRules(director int) ([]string, error) {
	if !s.d[director].Process().Running() {
		return nil, nil
	}
	status, err := s.d[director].Status(s.t.Context())
	if err != nil {
		return nil, err
	}
	var rules []string
	for _, v := range status.Services {
		name := fmt.Sprintf("-t %s:%d", v.Address, v.Port)
		rule := fmt.Sprintf("-A %s -s %s", name, v.Scheduler)
		if v.Persistence > 0 {
			rule += fmt.Sprintf(" -p %d", int(v.Persistence.Seconds()))
		}
		rules = append(rules, rule)
		for _, r := range v.RealServers {
			if r.Up {
				rules = append(rules, fmt.Sprintf("-a %s -r %s:%d %s -w %d", name, r.Address, r.Port, methods[v.Forwarding], r.Weight))
			}
		}
	}
	slices.Sort(rules)
	return rules, nil
}

// TestConvertedPairServesAsTheKeepalivedPair has clients ask a pair of keepalived that balances by its own IPVS, and the pair that
// it is converted to, while the same happens to both: real servers die and come back, the MASTER loses its power, comes back, and
// is stopped. All that an operator or a client can see is the same.
func TestConvertedPairServesAsTheKeepalivedPair(t *testing.T) {
	onPlanes(t, func(t *testing.T, plane string) {
		for _, set := range balancings() {
			t.Run(set.name, func(t *testing.T) {
				sides := []*side{keepalivedSide(t, set), convertedSide(t, plane, set)}
				outages := make([]time.Duration, 2, 3)
				done := make(chan bool, len(sides))
				for i, s := range sides {
					go func() {
						ended := false
						defer func() { done <- ended }()
						outages[i] = s.plays()
						ended = true
					}()
				}
				for range sides {
					if !<-done {
						t.FailNow() // it has told why
					}
				}
				if set.onXDP { // by itself: to load a program is a lot for an emulated machine
					s := convertedSide(t, native, set)
					sides, outages = append(sides, s), append(outages, s.plays())
				}
				theirs := sides[0].story
				for _, e := range theirs {
					t.Logf("%s: %s", e.what, e.seen)
				}
				for i, ours := range sides[1:] {
					if len(ours.story) != len(theirs) {
						t.Errorf("%s has %d events, keepalived %d", ours.name, len(ours.story), len(theirs))
						continue
					}
					for n, e := range ours.story {
						if e != theirs[n] {
							t.Errorf("%s, %s: %s\nwith keepalived: %s", ours.name, e.what, e.seen, theirs[n].seen)
						}
					}
					if d := outages[i+1]; d > 2*outages[0]+3*peerLimit { // exactly it is measured where elections are
						t.Errorf("%s: the loss of the MASTER cost clients %v, with keepalived %v", ours.name, d, outages[0])
					}
				}
			})
		}
	})
}
