package notify

import (
	"context"
	"sync"
	"time"

	"github.com/xdirector/xdirector/pkg/status"
)

// Outcome is what became of a test of one target.
type Outcome struct {
	Target string        `json:"target"`
	Kind   string        `json:"kind"` // exec, webhook, mail
	OK     bool          `json:"ok"`
	Text   string        `json:"text"` // what the target answered, or why it could not be told
	Took   time.Duration `json:"took_ns"`
}

// TestState is the state of the event that Test sends, also as an argument of a command.
const TestState = "TEST"

// Test tells each target once, side by side, of an event that is marked as a test, and returns the outcomes in the order of the
// targets.
func Test(ctx context.Context, routerID string, targets []Target) []Outcome {
	outcomes := make([]Outcome, len(targets))
	var tests sync.WaitGroup
	for i, t := range targets {
		tests.Go(func() {
			now := time.Now()
			m := Message{RouterID: routerID, Test: true, Event: status.Event{
				ID: uint64(now.UnixMicro()) + uint64(i), Time: now, Kind: "test", Level: status.LevelInfo, State: TestState,
				Text: "this is a test of the notifications of " + routerID + ": nothing has happened",
			}}
			limit := t.Timeout
			if t.Exec != nil {
				limit = time.Hour // it has its own
			}
			limited, cancel := context.WithTimeout(ctx, limit)
			defer cancel()
			text, err := deliver(limited, t, []Message{m})
			if err != nil {
				text = err.Error()
			}
			outcomes[i] = Outcome{t.Name, t.kind(), err == nil, text, time.Since(now)}
		})
	}
	tests.Wait()
	return outcomes
}
