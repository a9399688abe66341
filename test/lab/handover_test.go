package lab

import (
	"strings"
	"testing"
	"time"
)

func TestStandstillOfTheLoadIsHeldAgainstNobody(t *testing.T) {
	start := time.Now()
	rs := series(start, "otoo")
	rs[1].Pause = 2 * maxPause
	if err := CheckHandover(rs, start); err != nil {
		t.Error(err)
	}
	l := &Load{pauses: []pause{{start, start.Add(time.Second)}}, requests: []Request{
		{Start: start.Add(-time.Second), End: start.Add(300 * time.Millisecond), Outcome: Timeout},
		{Start: start.Add(2 * time.Second), End: start.Add(3 * time.Second), Outcome: Timeout},
	}}
	if got := l.Requests(); got[0].Pause != 300*time.Millisecond || got[1].Pause != 0 {
		t.Errorf("pauses of the requests: %v and %v, want 300ms and 0s", got[0].Pause, got[1].Pause)
	}
}

// series makes one request every 5 ms, each with the outcome of its letter: o ok, t timeout, f refused, r reset.
func series(start time.Time, outcomes string) Requests {
	names := map[rune]Outcome{'o': OK, 't': Timeout, 'f': Refused, 'r': Reset}
	var rs Requests
	for i, letter := range outcomes {
		at := start.Add(time.Duration(i) * 5 * time.Millisecond)
		rs = append(rs, Request{Start: at, End: at.Add(time.Millisecond), Outcome: names[letter]})
	}
	return rs
}

func TestOutageEndsWithTheFirstOfManyGoodRequests(t *testing.T) {
	start := time.Now()
	good := strings.Repeat("o", recovered)
	for _, row := range []struct {
		outcomes string
		want     time.Duration
	}{
		{good, 0},
		{good + "r" + good, 0},
		{"tttt" + good, 20 * time.Millisecond},
		{"oott" + good, 20 * time.Millisecond},
		{"ttoot" + good, 25 * time.Millisecond},
		{"tt" + good + "t" + good, 10 * time.Millisecond},
		{"tt", 6 * time.Millisecond},
	} {
		if got := Outage(series(start, row.outcomes), start); got != row.want {
			t.Errorf("%s: outage %v, want %v", row.outcomes, got, row.want)
		}
	}
}

func TestHandoverMayResetTwoOpenConnectionsAndNoMore(t *testing.T) {
	start := time.Now()
	far := start.Add(time.Minute)
	for _, row := range []struct {
		outcomes string
		garp     time.Time
		want     string // part of the error; empty: none
	}{
		{"ooooo", start, ""},
		{"orroo", start, ""},
		{"orrro", start, "3 connections were reset"},
		{"otooo", start, "timeout"},
		{"ofooo", start, "refused"},
		{"orooo", far, "away"},
		{"orooo", time.Time{}, "without a change"},
		{"offfo", start, "2 more requests failed"},
	} {
		err := CheckHandover(series(start, row.outcomes), row.garp)
		switch {
		case row.want == "" && err != nil:
			t.Errorf("%s: %v, want no error", row.outcomes, err)
		case row.want != "" && (err == nil || !strings.Contains(err.Error(), row.want)):
			t.Errorf("%s: %v, want an error with %q", row.outcomes, err, row.want)
		}
	}
}
