package lab

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// What a planned change of the MASTER may cost. Only connections that are open at that moment may be reset: the new
// MASTER does not know them.
const (
	MaxResets   = 2                     // at 200 new connections per second
	ResetWindow = 50 * time.Millisecond // around the new MASTER's first gratuitous ARP
	Slack       = 3                     // durations may be longer by this factor on a busy machine; counts may not

	maxPause = 50 * time.Millisecond // of the load; one that long has kept the directors and the servers too
)

// Excused says that the machine kept the load itself from running for so long while the request was open, that nobody
// else is to blame for its failure.
func (r Request) Excused() bool { return r.Pause > maxPause }

// MaxOutage is the longest time without service after the last advert of a MASTER that vanishes without a word, for
// a BACKUP with VRRPv3 and the priority.
func MaxOutage(interval time.Duration, priority uint8) time.Duration {
	return 3*interval + time.Duration(256-int(priority))*interval/256 + 50*time.Millisecond
}

// CheckHandover says which of the requests around a planned change of the MASTER failed in a way that they may not.
// The moment of the change is the new MASTER's first gratuitous ARP; zero: there was none.
func CheckHandover(requests Requests, garp time.Time) error {
	var problems []error
	resets, others := 0, 0
	for _, r := range requests.Failed() {
		when := r.End.Sub(garp)
		switch {
		case r.Excused():
		case r.Outcome != Reset:
			if others++; others == 1 {
				problems = append(problems, fmt.Errorf("a request failed %v after its start and %v after the change of the MASTER: %s (%v); the load stood still for %v of that",
					r.End.Sub(r.Start), when, r.Outcome, r.Err, r.Pause))
			}
		case garp.IsZero():
			problems = append(problems, errors.New("a connection was reset without a change of the MASTER"))
		case when.Abs() > Slack*ResetWindow:
			problems = append(problems, fmt.Errorf("a connection was reset %v away from the change of the MASTER", when))
		default:
			resets++
		}
	}
	if others > 1 {
		problems = append(problems, fmt.Errorf("%d more requests failed", others-1))
	}
	if resets > MaxResets {
		problems = append(problems, fmt.Errorf("%d connections were reset, more than %d", resets, MaxResets))
	}
	return errors.Join(problems...)
}

// recovered is how many requests in a row have to succeed for an outage to be over.
const recovered = 20

// Outage is the time from since until a request is started that succeeds, as do those after it; 0 if none failed.
// Requests that failed by a reset were open when the MASTER changed, and don't count. What fails later, after some
// requests in a row have succeeded, is not part of the outage.
func Outage(requests Requests, since time.Time) time.Duration {
	ordered := slices.SortedFunc(slices.Values(requests), func(a, b Request) int { return a.Start.Compare(b.Start) })
	end, row, failed := since, 0, false
	for _, r := range ordered {
		switch {
		case r.Outcome == OK || r.Outcome == Reset:
			if row++; row == 1 && failed {
				end = r.Start
			}
		case failed && row >= recovered:
			return end.Sub(since)
		default:
			row, failed, end = 0, true, r.End
		}
	}
	return max(end.Sub(since), 0)
}
