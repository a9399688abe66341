package ha

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// The figures of these tests are of a fake clock.
func TestFewOfACrewWorkAtATimeInTheOrderOfTheirWaking(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		holders := make([]*holder, 100)
		var began []int
		var c *crew
		now, most := 0, 0
		c = &crew{work: func(h *holder) {
			c.mu.Lock()
			now++
			most = max(most, now)
			began = append(began, slices.Index(holders, h))
			c.mu.Unlock()
			time.Sleep(time.Millisecond)
			c.mu.Lock()
			now--
			c.mu.Unlock()
		}}
		for n := range holders {
			holders[n] = &holder{}
		}
		for n, h := range holders {
			c.wake(h)
			if n >= crewSize { // all are at work
				c.wake(h) // once more before anybody began is nothing more to do
			}
		}
		start := time.Now()
		c.running.Wait()
		if most != crewSize || len(began) != 100 || time.Since(start) != 100/crewSize*time.Millisecond {
			t.Errorf("%d turns, %d at a time, in %s", len(began), most, time.Since(start))
		}
		slices.Sort(began[:crewSize]) // these began together
		for n := range began {
			if d := began[n] - n; d >= crewSize || -d >= crewSize {
				t.Fatalf("order: %v", began)
			}
		}
	})
}

func TestAHolderThatIsWokenAtWorkIsWorkedAtOnceMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &holder{}
		turns, together := 0, 0
		c := &crew{work: func(*holder) {
			turns++
			if together++; together > 1 {
				t.Error("two at work at one holder")
			}
			time.Sleep(time.Second)
			together--
		}}
		c.wake(h)
		synctest.Wait()
		for range 3 {
			c.wake(h)
		}
		c.running.Wait()
		if turns != 2 {
			t.Errorf("%d turns, want 2", turns)
		}
	})
}

func TestHoldersThatWaitForTheDiskKeepNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := make(chan error)
		other := &holder{}
		done := make(chan struct{})
		var c *crew
		c = &crew{work: func(h *holder) {
			if h == other {
				close(done)
				return
			}
			if err := c.wait(func() error { return <-disk }); err != nil {
				t.Error(err)
			}
		}}
		for range 10 * crewSize {
			c.wake(&holder{})
		}
		c.wake(other)
		synctest.Wait()
		select {
		case <-done:
		default:
			t.Error("it has to wait too")
		}
		close(disk)
		c.running.Wait()
		if c.busy != 0 {
			t.Errorf("%d at work, and nothing to do", c.busy)
		}
	})
}

func TestACrewThatIsClosedBeginsNothingAndWaitsForWhatHasBegun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turns := 0
		c := &crew{work: func(*holder) { time.Sleep(time.Second); turns++ }}
		h := &holder{}
		c.wake(h)
		synctest.Wait()
		c.wake(h)
		c.close(time.Minute)
		c.wake(&holder{})
		synctest.Wait()
		if turns != 1 || c.busy != 0 {
			t.Errorf("%d turns, %d at work", turns, c.busy)
		}
		hung := &crew{work: func(*holder) { time.Sleep(time.Hour) }}
		hung.wake(&holder{})
		synctest.Wait()
		start := time.Now()
		hung.close(time.Second)
		if took := time.Since(start); took != time.Second {
			t.Errorf("closed within %s", took)
		}
		hung.running.Wait()
	})
}
