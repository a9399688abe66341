package health

import "time"

// Tracker turns the outcomes of one real server's probes into up and down, and says when the next probe is due. It
// reads no clock.
type Tracker struct {
	check     Check
	up        bool
	failures  int // in a row, while up
	successes int // in a row, while down
	started   time.Time
	due       time.Time
}

// NewTracker begins with a real server that counts as up or not, whose first probe is due at first. A Check field
// that must be positive and is not takes the default of the configuration.
func NewTracker(check Check, up bool, first time.Time) *Tracker {
	return &Tracker{check: withDefaults(check), up: up, due: first}
}

// Due is when the next probe is to start. It is not meaningful between Started and Finished.
func (t *Tracker) Due() time.Time { return t.due }

// Up says what the real server counts as now.
func (t *Tracker) Up() bool { return t.up }

// Started notes that a probe starts now: the interval counts from here.
func (t *Tracker) Started(now time.Time) { t.started = now }

// Finished takes the outcome of the running probe and reports whether it changed Up. A failure that is to be retried
// is followed by the next probe RetryDelay after its end, as keepalived does; everything else by one Interval after
// its start, or at once if it took longer than that.
func (t *Tracker) Finished(now time.Time, ok bool) (changed bool) {
	t.due = t.started.Add(t.check.Interval)
	switch {
	case t.up && ok:
		t.failures = 0
	case t.up:
		t.failures++
		if t.failures > t.check.Retries {
			t.up, t.successes, changed = false, 0, true
		} else {
			t.due = now.Add(t.check.RetryDelay)
		}
	case ok:
		t.successes++
		if t.successes >= t.check.Rise {
			t.up, t.failures, changed = true, 0, true
		}
	default:
		t.successes = 0
	}
	if t.due.Before(now) {
		t.due = now
	}
	return changed
}

// skipPause is between probes that can't find out anything: what the real server is worth is wanted soon after the
// obstacle is gone.
const skipPause = time.Second

// Skipped notes that the running probe could not find out anything: nothing but the time of the next one changes.
func (t *Tracker) Skipped(now time.Time) { t.due = now.Add(skipPause) }

// withDefaults keeps a Check that was not made by the configuration from probing without pause or without limit.
func withDefaults(c Check) Check {
	if c.Interval <= 0 {
		c.Interval = 5 * time.Second
	}
	if c.Timeout <= 0 {
		c.Timeout = 5 * time.Second
	}
	c.Retries = max(c.Retries, 0)
	c.RetryDelay = max(c.RetryDelay, 0)
	c.Rise = max(c.Rise, 1)
	return c
}
