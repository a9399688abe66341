package track

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
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

// onOwnThread calls f on a thread that ends with it. The thread of a run has given up its way to gain privileges, and what
// it started is killed when it ends.
func onOwnThread(f func()) {
	runtime.LockOSThread()
	f()
}

// patience is how much longer than its timeout a script may take to die.
const patience = time.Second

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
		go onOwnThread(func() {
			result <- s.run(ctx)
			<-l.slots
		})
		err := await(ctx, result, s.Timeout, func(err error) { l.settle(t, s, err, tell) })
		if ctx.Err() != nil {
			return
		}
		if isOwnFault(err) {
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

// await waits for the end of a run. One that doesn't end though it was killed counts as failed meanwhile, and nobody
// waits for it when ctx has ended.
func await(ctx context.Context, result <-chan error, timeout time.Duration, failed func(error)) error {
	limit := time.NewTimer(timeout + patience)
	defer limit.Stop()
	gone := ctx.Done()
	for {
		select {
		case err := <-result:
			return err
		case <-gone:
			gone = nil
			limit.Reset(patience)
		case <-limit.C:
			if ctx.Err() != nil {
				return ctx.Err()
			}
			failed(fmt.Errorf("it does not end within %v, though it was killed: a file system that doesn't answer does that (see ps -eo pid,state,wchan:20,args), or a service without CAP_KILL", timeout))
		}
	}
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

// isOwnFault says whether a run could not begin because this box has no more processes, files or memory: that says
// nothing about what the script looks at.
func isOwnFault(err error) bool {
	for _, fault := range []error{unix.EAGAIN, unix.ENOMEM, unix.EMFILE, unix.ENFILE} {
		if errors.Is(err, fault) {
			return true
		}
	}
	return false
}
