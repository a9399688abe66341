package e2e

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/xdirector/xdirector/test/lab"
)

// setUp is a pair of keepalived.conf of the examples.
type setUp struct {
	name    string
	routers []uint8
	fast    bool // in version 3, ten times as fast, so that the test is
}

// setUps are two of the examples with short intervals, or all of them as they are.
func setUps() []setUp {
	if os.Getenv("XDIRECTOR_SETUPS") != "all" {
		return []setUp{{"hot-standby", []uint8{20}, true}, {"mutual-backup", []uint8{51, 52}, true}}
	}
	return []setUp{{"hot-standby", []uint8{20}, false}, {"gateway", []uint8{10}, false}, {"lvs-dr-rr", []uint8{51}, false},
		{"lvs-dr-wrr-persistence", []uint8{51}, false}, {"mutual-backup", []uint8{51, 52}, false}}
}

var noService = regexp.MustCompile(`(?s)\nvirtual_server .*`)

// file is the keepalived.conf of a director, for the lab's interface, without the services: this kernel has no IPVS for them.
func (s setUp) file(t *testing.T, director int) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../../configs/examples/keepalived", fmt.Sprintf("%s-lb%d.conf", s.name, director+1)))
	if err != nil {
		t.Fatal(err)
	}
	file := strings.ReplaceAll(noService.ReplaceAllString(string(text), "\n"), "eth1", "eth0")
	if s.fast {
		file = strings.ReplaceAll(file, "    advert_int 1\n", "    version 3\n    advert_int 0.1\n")
	}
	return file
}

// pair is two directors of one kind.
type pair struct {
	start func(director int) error
	kill  func(director int)
}

func (c *cluster) keepalivedPair(s setUp) pair {
	running := make([]*lab.Process, 2)
	for i := range running {
		c.showLog(func() *lab.Process { return running[i] })
	}
	return pair{
		start: func(i int) (err error) {
			if running[i], err = c.lab.Directors[i].StartKeepalivedFile(s.file(c.t, i), "--vrrp"); err != nil {
				return err
			}
			return lab.Wait(c.t.Context(), patience, func() error {
				if n := strings.Count(running[i].Log(), "Entering BACKUP STATE (init)"); n < len(s.routers) {
					return fmt.Errorf("keepalived has begun with %d of %d instances", n, len(s.routers))
				}
				return nil
			})
		},
		kill: func(i int) { running[i].Kill() },
	}
}

// convertedPair has what the command itself makes of the same files.
func (c *cluster) convertedPair(s setUp) pair {
	for i, d := range c.d {
		c.convert(d, i, s.file(c.t, i), lab.Config{})
	}
	return pair{start: func(i int) error { return c.d[i].Start() }, kill: func(i int) { c.d[i].Kill() }}
}

// convert gives a director what the command makes of a keepalived.conf, with the paths of the lab and what else it says.
func (c *cluster) convert(d *lab.Director, director int, text string, more lab.Config) {
	c.t.Helper()
	c.ok(d.Configure(more))
	head, err := os.ReadFile(d.ConfigFile())
	c.ok(err)
	_, head, _ = bytes.Cut(head, []byte("\n")) // the file has a router_id
	input := filepath.Join(c.t.TempDir(), "keepalived.conf")
	c.ok(os.WriteFile(input, []byte(text), 0o644))
	out, err := d.Command("convert", input, "--strict", "--config-id", fmt.Sprintf("lb%d", director+1))
	c.ok(err)
	c.ok(d.WriteFile(string(head) + string(out)))
}

// course is what a pair did: who was MASTER of each virtual router in the end of each act, and how long it was without one.
type course struct {
	masters [3]map[uint8]int
	silence map[uint8]time.Duration // from the last advert of the one that was killed to the first one of the other
}

// plays starts the first director and then the second one, kills the MASTER of the first virtual router, and starts it again.
func (c *cluster) plays(s setUp, p pair) (story course) {
	c.t.Helper()
	began := time.Now()
	c.ok(p.start(0))
	c.settled(s, began)
	c.ok(p.start(1))
	story.masters[0] = c.settled(s, time.Now())

	victim := story.masters[0][s.routers[0]]
	p.kill(victim)
	killed := time.Now()
	story.masters[1] = c.settled(s, killed)
	story.silence = map[uint8]time.Duration{}
	for id, master := range story.masters[0] {
		if master != victim {
			continue
		}
		last := time.Time{}
		for _, a := range c.wire.AdvertsFor(false, id, began) {
			if c.sender(a) == victim {
				last = a.Time
			} else if !last.IsZero() && a.Time.After(last) && story.silence[id] == 0 {
				story.silence[id] = a.Time.Sub(last)
			}
		}
	}

	c.ok(p.start(victim))
	story.masters[2] = c.settled(s, time.Now())
	return story
}

// sender is the director that sent an advert, -1 if none did.
func (c *cluster) sender(a lab.Advert) int {
	for i, n := range c.lab.Directors {
		if string(a.From) == string(n.MAC) {
			return i
		}
	}
	return -1
}

// inARow is how many adverts of one director settle who is MASTER: a BACKUP that starts, and has to hear nothing for four intervals
// before it takes over, has done so by then.
const inARow = 6

// settled waits until the last adverts of each virtual router came from one director.
func (c *cluster) settled(s setUp, from time.Time) map[uint8]int {
	c.t.Helper()
	masters := map[uint8]int{}
	c.ok(lab.Wait(c.t.Context(), patience, func() error {
		for _, id := range s.routers {
			adverts := c.wire.AdvertsFor(false, id, from)
			if len(adverts) < inARow {
				return fmt.Errorf("virtual router %d: %d adverts", id, len(adverts))
			}
			masters[id] = c.sender(adverts[len(adverts)-1])
			for _, a := range adverts[len(adverts)-inARow:] {
				if c.sender(a) != masters[id] {
					return fmt.Errorf("virtual router %d has more than one MASTER", id)
				}
			}
		}
		return nil
	}))
	return masters
}

// TestConvertedPairBehavesAsTheKeepalivedPair has each pair of keepalived.conf of the examples beside the pair that it is
// converted to, in two labs, and has the same happen to both.
func TestConvertedPairBehavesAsTheKeepalivedPair(t *testing.T) {
	t.Parallel()
	onPlanes(t, func(t *testing.T, plane string) {
		for _, s := range setUps() {
			t.Run(s.name, func(t *testing.T) {
				t.Parallel()
				theirs, ours := newCluster(t, plane, 2, 0), newCluster(t, plane, 2, 0)
				done := make(chan course, 1)
				go func() {
					defer close(done)
					done <- theirs.plays(s, theirs.keepalivedPair(s))
				}()
				got := ours.plays(s, ours.convertedPair(s))
				want, ok := <-done
				if !ok {
					t.FailNow() // it has told why
				}
				for act, when := range []string{"both started", "the MASTER was killed", "it came back"} {
					if !maps.Equal(got.masters[act], want.masters[act]) {
						t.Errorf("when %s: the MASTERs by virtual router are %v, with keepalived %v", when, got.masters[act], want.masters[act])
					}
				}
				t.Logf("silence %v, with keepalived %v", got.silence, want.silence)
				least, most := 3*time.Second, 4*time.Second
				if s.fast {
					least, most = least/10, most/10
				}
				for id, theirs := range want.silence {
					if d := got.silence[id]; d < least || d > most+lab.Slack*250*time.Millisecond {
						t.Errorf("virtual router %d was without adverts for %v, with keepalived for %v", id, d, theirs)
					}
				}
				if len(got.silence) == 0 {
					t.Errorf("nobody was killed who was MASTER")
				}
			})
		}
	})
}
