package logging

import (
	"log/slog"
	"strings"
	"time"
)

const (
	window   = time.Minute
	atOnce   = 5    // times that a line is written within a window before it is only counted
	maxLines = 1000 // that are remembered; what is said meanwhile besides them is written as it comes
)

// repeats finds lines that say the same again and again. The time is an argument.
type repeats struct {
	lines map[string]*line
	first time.Time // end of the window that ends first; zero: there is none
}

// line is what was said within a window, which begins with the first.
type line struct {
	until time.Time
	said  int
	last  entry
}

// pass says whether a line is to be written now. If not, it is counted until its window is over.
func (r *repeats) pass(e entry) bool {
	what := sameness(e)
	l := r.lines[what]
	if l == nil {
		if len(r.lines) >= maxLines {
			return true
		}
		l = &line{until: e.record.Time.Add(window)}
		r.lines[what] = l
		if r.first.IsZero() || l.until.Before(r.first) {
			r.first = l.until
		}
	}
	l.said++
	l.last = e
	return l.said <= atOnce
}

// due is when over is to be called next; zero: not before the next line.
func (r *repeats) due() time.Time { return r.first }

// over returns a line for each that was not written, as its window is over, and begins another window for it.
func (r *repeats) over(now time.Time) []entry {
	if r.first.IsZero() || now.Before(r.first) {
		return nil
	}
	var list []entry
	r.first = time.Time{}
	for what, l := range r.lines {
		if !now.Before(l.until) {
			more := l.said - atOnce
			if more <= 0 {
				delete(r.lines, what)
				continue
			}
			e := l.last
			e.record = e.record.Clone()
			e.record.Add("repeats", more, "within", window)
			list = append(list, e)
			l.until, l.said = now.Add(window), atOnce // if it goes on, it is counted at once
		}
		if r.first.IsZero() || l.until.Before(r.first) {
			r.first = l.until
		}
	}
	return list
}

// sameness is what two lines have in common that say the same: all but times, numbers and durations.
func sameness(e entry) string {
	var b strings.Builder
	b.WriteString(e.record.Level.String() + " " + e.record.Message + e.about)
	e.record.Attrs(func(a slog.Attr) bool {
		switch v := a.Value.Resolve(); v.Kind() {
		case slog.KindInt64, slog.KindUint64, slog.KindFloat64, slog.KindDuration, slog.KindTime:
			b.WriteString(" " + a.Key)
		default:
			b.WriteString(" " + a.Key + "=" + v.String())
		}
		return true
	})
	return b.String()
}
