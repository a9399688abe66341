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
	return lab.Instance{Version: 3, Priority: ours, Interval: interval}, lab.Keepalived{Version: 3, Priority: theirs, Interval: interval}
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
	for name, p := range map[string]pair{v2: v2Pair, v3: v3Pair} {
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
	add("version 3 here, 2 there", v3Pair, func(d *difference) { d.theirs.Version, d.theirs.Interval = 2, time.Second },
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
	add(v3+"another interval", v3Pair, func(d *difference) { d.theirs.Interval = 2 * interval }, us, them, "interval", "")
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

func TestDifferencesBesideKeepalivedEndAsToldAndAreNamed(t *testing.T) {
	t.Parallel()
	onPlanes(t, func(t *testing.T, _ string) {
		rows := differences()
		number(rows)
		c := newCluster(t, "", 2, 0)
		peer, own, d := c.lab.Directors[0], c.lab.Directors[1], c.d[1]
		var ours []lab.Instance
		var theirs []lab.Keepalived
		for _, r := range rows {
			ours, theirs = append(ours, r.ours), append(theirs, r.theirs)
		}
		p, err := peer.StartKeepalived(theirs...)
		c.ok(err)
		c.showLog(func() *lab.Process { return p })
		for _, r := range rows {
			c.ok(p.WaitLog(t.Context(), patience, fmt.Sprintf("(%s) Entering MASTER STATE", r.ours.Name), 1))
		}
		c.ok(d.Configure(lab.Config{Instances: ours}))
		c.ok(d.Start())
		c.named(d, peer, rows)
		c.ok(lab.Wait(t.Context(), patience, func() error {
			return c.holders(rows, own, peer, func(r difference) string { return r.then })
		}))

		c.ok(p.Terminate(patience))
		c.ok(d.WaitStatus(t.Context(), patience, func(s *status.Status) error {
			for i, r := range rows {
				if s.Instances[i].State != "MASTER" {
					return fmt.Errorf("%s: %s is %s: %s", r.name, s.Instances[i].Name, s.Instances[i].State, s.Instances[i].Reason)
				}
			}
			return nil
		}))
		p, err = peer.StartKeepalived(theirs...)
		c.ok(err)
		c.ok(lab.Wait(t.Context(), patience, func() error {
			return c.holders(rows, own, peer, func(r difference) string { return r.later })
		}))
		// It stays like this.
		settled, err := d.Status(t.Context())
		c.ok(err)
		c.ok(d.WaitStatus(t.Context(), patience, func(s *status.Status) error {
			if got := s.Instances[0].AdvertsSent + s.Instances[0].AdvertsReceived; got < settled.Instances[0].AdvertsSent+settled.Instances[0].AdvertsReceived+10 {
				return errors.New("too few adverts went by")
			}
			return nil
		}))
		c.ok(c.holders(rows, own, peer, func(r difference) string { return r.later }))
		for _, r := range rows {
			logged := slices.ContainsFunc(strings.Split(p.Log(), "\n"), func(line string) bool {
				return strings.Contains(line, "("+r.ours.Name+")") && strings.Contains(line, r.log)
			})
			if r.later == both && !logged {
				t.Errorf("%s: keepalived has not logged %q", r.name, r.log)
			}
		}
	})
}

// holders compares who holds the addresses.
func (c *cluster) holders(rows []difference, own, peer *lab.Node, want func(difference) string) error {
	hold := func(n *lab.Node) (map[string]bool, error) {
		list, err := n.Addresses("eth0")
		m := map[string]bool{}
		for _, a := range list {
			m[a] = true
		}
		return m, err
	}
	here, err := hold(own)
	there, err2 := hold(peer)
	if err := errors.Join(err, err2); err != nil {
		return err
	}
	var wrong []error
	for _, r := range rows {
		got := "nobody"
		switch h, t := here[r.ours.Addresses[0]], there[r.theirs.Addresses[0]]; {
		case h && t:
			got = both
		case h:
			got = us
		case t:
			got = them
		}
		if w := want(r); got != w {
			wrong = append(wrong, fmt.Errorf("%s (%s): held by %s, want %s", r.name, r.ours.Name, got, w))
		}
	}
	return errors.Join(wrong...)
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
			if kind != r.kind {
				c.t.Errorf("%s: told the difference %q, want %q alone", r.name, kind, r.kind)
			}
		}
	}
}
