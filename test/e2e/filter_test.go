package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/xdirector/xdirector/pkg/status"
	"github.com/xdirector/xdirector/test/lab"
)

// TestFilterKeepsAFloodFromTheElection: of each sender and reason at most one advert a second passes.
func TestFilterKeepsAFloodFromTheElection(t *testing.T) {
	onPlanes(t, func(t *testing.T, plane string) {
		b := newBed(t)
		var routers []lab.Instance
		for _, f := range families {
			routers = append(routers, b.router(f, 100))
		}
		b.slow()
		b.ok(b.director.Configure(lab.Config{Instances: b.instances, Mode: plane, FastPath: "filter"}))
		b.ok(b.director.Start())
		b.all("MASTER")
		// What the program looks at without knowing more than the router.
		reasons := []string{"V-20 TTL 1", "V-21 version 4", "V-22 type 2", "V-23 count of three", "V-25 checksum", "V-27 count 0", "V-28 interval 0"}
		var frames [][]byte
		for _, i := range routers {
			for _, x := range badAdverts() {
				if slices.ContainsFunc(reasons, func(r string) bool { return strings.HasPrefix(x.name, r) }) {
					f := b.forge(i, 200)
					x.change(&f)
					frames = append(frames, f.Frame())
				}
			}
		}
		election := b.director.Process().PIDsWith("election")
		const flood, tries = 20_000, 3
		sent, seconds := uint64(0), uint64(0)
		// To a process the kernel counts what it did for others meanwhile, too, but not each time.
		for try := 1; ; try++ {
			used, took := b.flood(frames, flood, election)
			sent, seconds = sent+flood, seconds+uint64(took/time.Second)+2 // a tail may fall into one more second
			b.ok(b.director.WaitStatus(t.Context(), patience, func(s *status.Status) error {
				filtered, passed := uint64(0), uint64(0)
				for _, i := range s.Instances {
					for _, n := range i.AdvertsFiltered {
						filtered += n
					}
					for _, n := range i.AdvertsRefused {
						passed += n
					}
				}
				if limit := uint64(len(frames)) * seconds; passed == 0 || passed > limit {
					return fmt.Errorf("%d of %d bad adverts have passed in %d s, want 1 to %d", passed, sent, seconds, limit)
				}
				if filtered+passed < sent {
					return fmt.Errorf("%d filtered and %d passed, %d were sent", filtered, passed, sent)
				}
				return nil
			}))
			t.Logf("%d bad adverts in %v: %v of CPU for the election", flood, took, used)
			limit := took/20 + 20*time.Millisecond
			if used <= limit {
				break
			}
			if try == tries {
				t.Errorf("the election used %v of CPU in a flood of %v, want at most %v", used, took, limit)
				break
			}
		}
	})
}

// flood sends so many frames and returns what CPU time processes used meanwhile.
func (b *bed) flood(frames [][]byte, n int, pids []int) (used, took time.Duration) {
	b.t.Helper()
	before, err := lab.CPUTime(pids)
	b.ok(err)
	begin := time.Now()
	for n := range n {
		b.ok(b.inject.Send(frames[n%len(frames)]))
	}
	took = time.Since(begin)
	after, err := lab.CPUTime(pids)
	b.ok(err)
	return after - before, took
}
