package ha

import (
	"slices"
	"time"
)

// late is the histogram of how late the loop was for its own timers.
type late struct {
	bounds []time.Duration
	Histogram
}

func newLate() late {
	bounds := LatenessBounds()
	return late{bounds: bounds, Histogram: Histogram{Counts: make([]uint64, len(bounds)+1)}}
}

func (l *late) note(d time.Duration) {
	l.Sum += d
	for at, bound := range l.bounds {
		if d <= bound {
			l.Counts[at]++
			return
		}
	}
	l.Counts[len(l.bounds)]++
}

func (l *late) report() Histogram { return Histogram{Counts: slices.Clone(l.Counts), Sum: l.Sum} }
