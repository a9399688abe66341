package main

import (
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"
)

// answering is a terminal that answers for a time. It has typed what is in keys at the end of that.
type answering struct {
	answers time.Duration
	began   time.Time
	keys    *io.PipeWriter
	typed   string
}

func (s *answering) Write(b []byte) (int, error) {
	if string(b) == statusReport && time.Since(s.began) < s.answers {
		go s.keys.Write([]byte("\x1b[0n"))
	} else if s.typed != "" {
		go s.keys.Write([]byte(s.typed))
	}
	return len(b), nil
}

func TestATerminalThatNoLongerAnswersEndsTheTrial(t *testing.T) {
	for name, tt := range map[string]struct {
		answers time.Duration
		typed   string
		want    error
		after   time.Duration
	}{
		"answers":                  {time.Hour, "", nil, 0},
		"never answers":            {0, "", nil, 0},
		"is cut off":               {3500 * time.Millisecond, "", errSilent, 8 * time.Second},
		"types instead of answers": {3500 * time.Millisecond, "x", nil, 0},
		"Ctrl-C":                   {3500 * time.Millisecond, "\x03", errInterrupted, 4 * time.Second},
		"Ctrl-C without answers":   {0, "\x03", errInterrupted, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				in, keys := io.Pipe()
				ctx, cancel := context.WithCancelCause(t.Context())
				began := time.Now()
				done := make(chan struct{})
				go func() {
					defer close(done)
					watchTerminal(ctx, in, &answering{tt.answers, began, keys, tt.typed}, answerLimit, cancel)
				}()
				select {
				case <-ctx.Done():
				case <-time.After(time.Minute):
				}
				took := time.Since(began)
				got := context.Cause(ctx)
				if !errors.Is(got, tt.want) || tt.want == nil && got != nil || tt.want != nil && took != tt.after {
					t.Errorf("ended with %v after %v, want %v after %v", got, took, tt.want, tt.after)
				}
				cancel(nil)
				<-done
				in.Close()
				synctest.Wait()
			})
		})
	}
}
