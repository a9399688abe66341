package health

import (
	"testing"
	"time"
)

// step is one probe: how it ends, how long it takes, and what must follow.
type step struct {
	ok      bool
	takes   time.Duration
	changed bool
	up      bool
	next    time.Duration // from the start of this probe to the start of the next
}

func TestTracker(t *testing.T) {
	check := Check{Interval: 6 * time.Second, Timeout: 3 * time.Second, Retries: 2, RetryDelay: time.Second, Rise: 3}
	tests := []struct {
		name  string
		check Check
		up    bool
		steps []step
	}{
		{"a healthy real server is probed once per interval, counted from the start", check, true, []step{
			{ok: true, takes: 10 * time.Millisecond, up: true, next: 6 * time.Second},
			{ok: true, takes: 2 * time.Second, up: true, next: 6 * time.Second},
		}},
		{"it goes down after 1 + retries failures, retry_delay after the end of each", check, true, []step{
			{ok: false, takes: 3 * time.Second, up: true, next: 4 * time.Second},
			{ok: false, takes: 0, up: true, next: time.Second},
			{ok: false, takes: time.Second, changed: true, up: false, next: 6 * time.Second},
			{ok: false, takes: time.Second, up: false, next: 6 * time.Second},
		}},
		{"a success between failures starts the count again", check, true, []step{
			{ok: false, up: true, next: time.Second},
			{ok: false, up: true, next: time.Second},
			{ok: true, up: true, next: 6 * time.Second},
			{ok: false, up: true, next: time.Second},
			{ok: false, up: true, next: time.Second},
			{ok: false, changed: true, up: false, next: 6 * time.Second},
		}},
		{"it comes back after rise successes, an interval apart", check, false, []step{
			{ok: true, up: false, next: 6 * time.Second},
			{ok: true, up: false, next: 6 * time.Second},
			{ok: true, changed: true, up: true, next: 6 * time.Second},
		}},
		{"a failure between successes starts the count again", check, false, []step{
			{ok: true, up: false, next: 6 * time.Second},
			{ok: true, up: false, next: 6 * time.Second},
			{ok: false, up: false, next: 6 * time.Second},
			{ok: true, up: false, next: 6 * time.Second},
			{ok: true, up: false, next: 6 * time.Second},
			{ok: true, changed: true, up: true, next: 6 * time.Second},
		}},
		{"one that came back has all its retries again, and needs all of rise again", check, true, []step{
			{ok: false, up: true, next: time.Second},
			{ok: false, up: true, next: time.Second},
			{ok: false, changed: true, up: false, next: 6 * time.Second},
			{ok: true, up: false, next: 6 * time.Second},
			{ok: true, up: false, next: 6 * time.Second},
			{ok: true, changed: true, up: true, next: 6 * time.Second},
			{ok: false, up: true, next: time.Second},
			{ok: false, up: true, next: time.Second},
			{ok: false, changed: true, up: false, next: 6 * time.Second},
			{ok: true, up: false, next: 6 * time.Second},
		}},
		{"without retries the first failure counts", Check{Interval: time.Second, Rise: 1}, true, []step{
			{ok: false, changed: true, up: false, next: time.Second},
			{ok: true, changed: true, up: true, next: time.Second},
		}},
		{"a probe longer than the interval is followed at once", check, true, []step{
			{ok: true, takes: 7 * time.Second, up: true, next: 7 * time.Second},
		}},
		{"fields that must be positive and are not take the defaults", Check{Retries: -1, RetryDelay: -1}, true, []step{
			{ok: false, changed: true, up: false, next: 5 * time.Second},
			{ok: true, changed: true, up: true, next: 5 * time.Second},
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			now := time.Unix(1_000_000, 0)
			tracker := NewTracker(test.check, test.up, now)
			if tracker.Up() != test.up || !tracker.Due().Equal(now) {
				t.Fatalf("new tracker: up %v, due %v; want %v, now", tracker.Up(), tracker.Due().Sub(now), test.up)
			}
			for i, s := range test.steps {
				tracker.Started(now)
				changed := tracker.Finished(now.Add(s.takes), s.ok)
				if changed != s.changed || tracker.Up() != s.up {
					t.Fatalf("probe %d: changed %v, up %v; want %v, %v", i+1, changed, tracker.Up(), s.changed, s.up)
				}
				if got := tracker.Due().Sub(now); got != s.next {
					t.Fatalf("probe %d: next probe %v after the start of this one, want %v", i+1, got, s.next)
				}
				now = tracker.Due()
			}
		})
	}
}
