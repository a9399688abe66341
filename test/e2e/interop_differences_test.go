package e2e

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/xdirector/xdirector/pkg/status"
	"github.com/xdirector/xdirector/test/lab"
)

// The holders of an address.
const (
	us   = "xdirector"
	them = "the peer"
	both = "both" // two MASTERs
)

// splitBrain is what is told of another MASTER that is heard.
const splitBrain = "split_brain"

// difference is one virtual router that xdirector and a peer share, and in what their configurations differ.
type difference struct {
	name   string
	ours   lab.Instance
	theirs lab.Keepalived
	// Who holds the address when the peer was first, and after the peer has stopped and come back.
	then, later string
	kind        string // of the difference that xdirector tells of the peer; empty: none
	log         string // what keepalived logs about it while there are two MASTERs
}

// v3Pair and v2Pair are routers that agree.
func v3Pair(ours, theirs uint8) (lab.Instance, lab.Keepalived) {
	return lab.Instance{Version: 3, Priority: ours, Interval: time.Second}, lab.Keepalived{Version: 3, Priority: theirs, Interval: time.Second}
}

func v2Pair(ours, theirs uint8) (lab.Instance, lab.Keepalived) {
	return lab.Instance{Version: 2, Priority: ours, Interval: time.Second}, lab.Keepalived{Version: 2, Priority: theirs, Interval: time.Second}
}

// differences makes the rows, those that differ in something in both roles.
func differences() []difference {
	var rows []difference
	type pair func(ours, theirs uint8) (lab.Instance, lab.Keepalived)
	// add makes a row for each role; masters are the holders with us and with them preferred.
	add := func(name string, p pair, change func(*difference), preferUs, preferThem, kind, log string) {
		for _, priority := range []uint8{200, 50} {
			d := difference{name: fmt.Sprintf("%s, our priority is %d", name, priority), kind: kind, log: log, then: preferUs}
			if priority == 50 {
				d.then = preferThem
			}
			d.later = d.then
			d.ours, d.theirs = p(priority, 100)
			change(&d)
			rows = append(rows, d)
		}
	}
	const v2, v3 = "v2: ", "v3: "
	for i, name := range []string{v2, v3} {
		p := []pair{v2Pair, v3Pair}[i]
		add(name+"no difference", p, func(d *difference) {}, us, them, "", "")
		add(name+"preempt is off here", p, func(d *difference) {
			d.ours.NoPreempt = true
			d.then = them
		}, us, them, "", "")
		add(name+"preempt is off there", p, func(d *difference) {
			d.theirs.NoPreempt = true
			d.later = us
		}, us, them, "", "")
		add(name+"the same priority", p, func(d *difference) {
			d.ours.Priority = d.theirs.Priority
			d.then, d.later = them, us
		}, "", "", "", "")
		add(name+"another list of addresses", p, func(d *difference) { d.theirs.Addresses = []string{"10.77.3.1/32"} },
			both, map[string]string{v2: both, v3: them}[name], "collision", "not present in MASTER advert")
		add(name+"one more address there", p, func(d *difference) { d.theirs.Addresses = []string{"", "10.77.3.2/32"} },
			both, them, "addresses", "received an unexpected ip number count 1, expected 2!")
		add(name+"one more address here", p, func(d *difference) { d.ours.Addresses = []string{"", "10.77.3.3/32"} },
			both, them, "addresses", "received an unexpected ip number count 2, expected 1!")
		add(name+"unicast there", p, func(d *difference) {
			d.theirs.Peers = []netip.Addr{netip.MustParseAddr("10.77.0.12")}
		}, both, both, "destination", "")
	}
	add("version 3 here, 2 there", v3Pair, func(d *difference) { d.theirs.Version = 2 },
		both, both, "version", "wrong version. Received")
	add("version 2 here, 3 there", v2Pair, func(d *difference) { d.theirs.Version = 3 }, both, both, "version", "wrong version. Received")
	add(v2+"another password", v2Pair, func(d *difference) { d.ours.Password, d.theirs.Password = "1111", "2222" },
		both, both, "password", "received an invalid passwd!")
	add(v2+"no password here", v2Pair, func(d *difference) { d.theirs.Password = "2222" }, both, both, "auth_type", "received a 0 auth, expecting 1!")
	add(v2+"no password there", v2Pair, func(d *difference) { d.ours.Password = "1111" }, both, both, "auth_type", "received a 1 auth, expecting 0!")
	add(v2+"AH there", v2Pair, func(d *difference) {
		d.theirs.More = []string{"authentication {", "auth_type AH", "auth_pass 1111", "}"}
	}, both, both, "", "")
	add(v2+"another interval", v2Pair, func(d *difference) { d.theirs.Interval = 2 * time.Second }, both, both, "interval", "advertisement interval mismatch")
	add(v3+"another interval", v3Pair, func(d *difference) { d.theirs.Interval = 2 * time.Second }, us, them, "interval", "")
	return rows
}

// number fills in what makes each row a virtual router of its own.
func number(rows []difference) {
	for i := range rows {
		d := &rows[i]
		vrid := uint8(i + 1)
		name, address := fmt.Sprintf("R%d", vrid), fmt.Sprintf("10.77.2.%d/32", vrid)
		fill := func(addresses []string) []string {
			if addresses == nil {
				return []string{address}
			}
			if addresses[0] == "" {
				addresses = slices.Concat([]string{address}, addresses[1:])
			}
			return addresses
		}
		d.ours.Name, d.ours.VRID, d.ours.Addresses = name, vrid, fill(d.ours.Addresses)
		d.theirs.Name, d.theirs.VRID, d.theirs.Addresses = name, vrid, fill(d.theirs.Addresses)
	}
}

// rival is a live router that shares many virtual routers with xdirector.
type rival struct {
	name   string
	node   *lab.Node
	rows   []difference
	start  func() error
	stop   func() error
	log    func() string
	master func(log string, d difference) bool // whether it is, by its log
}

func (c *cluster) keepalivedRival(n *lab.Node, rows []difference) rival {
	var all []lab.Keepalived
	for _, r := range rows {
		all = append(all, r.theirs)
	}
	var p *lab.Process
	c.showLog(func() *lab.Process { return p })
	return rival{
		name: "keepalived", node: n, rows: rows,
		start: func() (err error) { p, err = n.StartKeepalived(all...); return err },
		stop:  func() error { return p.Terminate(patience) },
		log:   func() string { return p.Log() },
		master: func(log string, d difference) bool {
			return last(log, fmt.Sprintf("(%s) Entering ", d.ours.Name)) == "MASTER"
		},
	}
}

func (c *cluster) frrRival(n *lab.Node, rows []difference) rival {
	var all []lab.FRR
	for _, r := range rows {
		f := lab.FRR{Version: r.theirs.Version, VRID: r.theirs.VRID, Priority: r.theirs.Priority, Interval: r.theirs.Interval, NoPreempt: r.theirs.NoPreempt}
		for _, a := range r.theirs.Addresses {
			f.Addresses = append(f.Addresses, netip.MustParsePrefix(a).Addr().String())
		}
		all = append(all, f)
	}
	var p *lab.FRRouter
	c.showLog(func() *lab.Process {
		if p == nil {
			return nil
		}
		return p.Process()
	})
	return rival{
		name: "FRR", node: n, rows: rows,
		start: func() (err error) { p, err = n.StartFRR(all...); return err },
		stop:  func() error { return p.Stop(patience) },
		log:   func() string { return p.Process().Log() },
		master: func(log string, d difference) bool {
			key := fmt.Sprintf("[VRID %d] [IPv4] ", d.ours.VRID)
			return last(log, key+"Backup -> ") == "Master" &&
				strings.LastIndex(log, key+"Backup -> Master") > strings.LastIndex(log, key+"Master -> ")
		},
	}
}

// last is the word that follows the last one of a prefix in a log.
func last(log, prefix string) string {
	at := strings.LastIndex(log, prefix)
	if at < 0 {
		return ""
	}
	word, _, _ := strings.Cut(log[at+len(prefix):], " ")
	word, _, _ = strings.Cut(word, "\n")
	return word
}

func TestDifferencesBesideKeepalivedEndAsToldAndAreNamed(t *testing.T) {
	t.Parallel()
	onPlanes(t, func(t *testing.T, _ string) {
		rows := differences()
		number(rows)
		c := newCluster(t, "", 2, 0)
		k := c.keepalivedRival(c.lab.Directors[0], rows)
		c.differ(k)
		for _, r := range rows {
			logged := slices.ContainsFunc(strings.Split(k.log(), "\n"), func(line string) bool {
				return strings.Contains(line, "("+r.ours.Name+")") && strings.Contains(line, r.log)
			})
			if r.later == both && !logged {
				t.Errorf("%s: keepalived has not logged %q", r.name, r.log)
			}
		}
	})
}

func TestDifferencesBesideFRREndAsToldAndAreNamed(t *testing.T) {
	t.Parallel()
	onPlanes(t, func(t *testing.T, _ string) {
		var rows []difference
		for _, r := range differences() {
			// It knows neither passwords nor unicast.
			if r.theirs.Password != "" || r.theirs.Peers != nil || r.theirs.More != nil {
				continue
			}
			switch {
			case r.kind == "addresses" || r.kind == "collision" && r.ours.Version == 3:
				// It takes adverts whatever addresses they name.
				r.then = us
				if r.ours.Priority < r.theirs.Priority {
					r.then = them
				}
				r.later = r.then
			case r.kind == "collision":
				// We don't in version 2, so that a higher FRR and we are both MASTER.
				if r.ours.Priority > r.theirs.Priority {
					r.then, r.later = us, us
				}
			}
			rows = append(rows, r)
		}
		number(rows)
		c := newCluster(t, "", 2, 0)
		c.differ(c.frrRival(c.lab.Directors[0], rows))
	})
}

// differ lets xdirector, on the second node, come to a rival, and the rival stop and come back.
func (c *cluster) differ(k rival) {
	d := c.d[1]
	var ours []lab.Instance
	for _, r := range k.rows {
		ours = append(ours, r.ours)
	}
	c.ok(k.start())
	c.ok(lab.Wait(c.t.Context(), patience, func() error {
		log := k.log()
		for _, r := range k.rows {
			if !k.master(log, r) {
				return fmt.Errorf("%s: %s is not MASTER", r.name, k.name)
			}
		}
		return nil
	}))
	c.ok(d.Configure(lab.Config{Instances: ours}))
	c.ok(d.Start())
	c.named(d, k.node, k.rows)
	c.holders(d, k, func(r difference) string { return r.then })

	c.ok(k.stop())
	c.ok(d.WaitStatus(c.t.Context(), patience, func(s *status.Status) error {
		for i, r := range k.rows {
			if s.Instances[i].State != "MASTER" {
				return fmt.Errorf("%s: %s is %s: %s", r.name, s.Instances[i].Name, s.Instances[i].State, s.Instances[i].Reason)
			}
		}
		return nil
	}))
	c.ok(k.start())
	c.holders(d, k, func(r difference) string { return r.later })
	// It stays like this.
	settled, err := d.Status(c.t.Context())
	c.ok(err)
	c.ok(d.WaitStatus(c.t.Context(), patience, func(s *status.Status) error {
		if got := s.Instances[0].AdvertsSent + s.Instances[0].AdvertsReceived; got < settled.Instances[0].AdvertsSent+settled.Instances[0].AdvertsReceived+10 {
			return errors.New("too few adverts went by")
		}
		return nil
	}))
	c.holders(d, k, func(r difference) string { return r.later })
}

// holders waits until the right one is MASTER of each row, and xdirector carries the addresses only where it is.
func (c *cluster) holders(d *lab.Director, k rival, want func(difference) string) {
	c.t.Helper()
	c.ok(d.WaitStatus(c.t.Context(), patience, func(s *status.Status) error {
		list, err := d.Addresses("eth0")
		if err != nil {
			return err
		}
		log := k.log()
		var wrong []error
		for i, r := range k.rows {
			got := "nobody"
			switch h, t := s.Instances[i].State == "MASTER", k.master(log, r); {
			case h && t:
				got = both
			case h:
				got = us
			case t:
				got = them
			}
			if w := want(r); got != w {
				wrong = append(wrong, fmt.Errorf("%s (%s): MASTER is %s, want %s", r.name, r.ours.Name, got, w))
			}
			if held := slices.Contains(list, r.ours.Addresses[0]); held != (got == us || got == both) {
				wrong = append(wrong, fmt.Errorf("%s (%s): state %s, address held: %v", r.name, r.ours.Name, s.Instances[i].State, held))
			}
		}
		return errors.Join(wrong...)
	}))
}

// named waits until the director has told each difference in its status, by its kind, with the address of the peer; where
// there is none it must have told none. It is enough that it was told once: any packet for its virtual router, a refused
// one too, keeps keepalived from sending its next advert, so that our adverts can make it fall silent.
func (c *cluster) named(d *lab.Director, peer *lab.Node, rows []difference) {
	c.t.Helper()
	told := make([]map[string]bool, len(rows))
	c.ok(d.WaitStatus(c.t.Context(), patience, func(s *status.Status) error {
		var missing []error
		for i, r := range rows {
			if told[i] == nil {
				told[i] = map[string]bool{}
			}
			for _, m := range s.Instances[i].Mismatches {
				told[i][m.Kind] = true
				if m.Peer != peer.Address.String() || !strings.Contains(m.Text, m.Peer) {
					c.t.Errorf("%s: difference %+v does not name %s", r.name, m, peer.Address)
				}
			}
			if r.kind != "" && !told[i][r.kind] {
				missing = append(missing, fmt.Errorf("%s: %q is not told", r.name, r.kind))
			}
		}
		return errors.Join(missing...)
	}))
	for i, r := range rows {
		for kind := range told[i] {
			if kind != r.kind && !(kind == splitBrain && r.then != them) {
				c.t.Errorf("%s: told the difference %q, want %q alone", r.name, kind, r.kind)
			}
		}
	}
}
