package track

import (
	"context"
	"fmt"
	"time"

	"github.com/xdirector/xdirector/pkg/command"
)

// tally turns the ends of a script's runs into good and bad.
type tally struct {
	rise, fall  int
	known, good bool
	row         int // ends in a row that speak against good
}

// add takes the end of a run and reports whether it changed what the script is worth. The first run decides alone.
func (t *tally) add(ok bool) (changed bool) {
	if t.known && ok == t.good {
		t.row = 0
		return false
	}
	t.row++
	need := max(t.fall, 1)
	if ok {
		need = max(t.rise, 1)
	}
	if t.known && t.row < need {
		return false
	}
	t.known, t.good = true, ok
	return true
}

// blameAgain is between log lines about faults of this box.
const blameAgain = time.Minute

// watchScript runs a script on time until ctx ends. No run begins before the one before it has ended.
func (l *loop) watchScript(ctx context.Context, s Script, before ScriptState, tell func(func(*State))) {
	t := &tally{rise: s.Rise, fall: s.Fall, known: before.Known, good: before.Good}
	due := time.NewTimer(0)
	defer due.Stop()
	var blamed time.Time
	for {
		select {
		case <-due.C:
		case <-ctx.Done():
			return
		}
		select {
		case l.slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		began := time.Now()
		result := make(chan error, 1)
		go func() {
			result <- s.command().Run(ctx)
			<-l.slots
		}()
		err := command.Await(ctx, result, s.Timeout, func(err error) { l.settle(t, s, err, tell) })
		if ctx.Err() != nil {
			return
		}
		if command.IsOwnFault(err) {
			if time.Since(blamed) >= blameAgain {
				blamed = time.Now()
				l.log.Warn("a script can't be run, by a fault of this box; what it was worth stands; told once a minute", "script", s.Name, "error", err)
			}
		} else {
			l.settle(t, s, err, tell)
		}
		due.Reset(max(s.Interval-time.Since(began), 0))
	}
}

func (s Script) command() command.Command {
	return command.Command{Line: s.Command, User: s.User, Timeout: s.Timeout}
}

// settle counts the end of a run, and tells what changed.
func (l *loop) settle(t *tally, s Script, err error, tell func(func(*State))) {
	if !t.add(err == nil) {
		return
	}
	now := ScriptState{Known: true, Good: t.good}
	switch {
	case err == nil:
		now.Reason = times("succeeded", t.row)
	default:
		now.Reason = times("failed", t.row) + ": " + err.Error()
	}
	t.row = 0
	tell(func(state *State) { state.Scripts[s.Name] = now })
}

func times(verb string, n int) string {
	if n == 1 {
		return verb
	}
	return fmt.Sprintf("%s %d times", verb, n)
}
