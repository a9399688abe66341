package control

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/xdirector/xdirector/pkg/status"
)

// trials is a Reloader without a configuration.
type trials struct {
	refused error
	gone    chan struct{} // closed when who began the longest trial has gone
}

func (t *trials) ReloadOnTrial(ctx context.Context, trial time.Duration) error {
	if trial == TrialMax {
		<-ctx.Done()
		close(t.gone)
	}
	return fmt.Errorf("on trial for %s", trial)
}

func (t *trials) Plan(_ context.Context, file string, text []byte) (*status.Plan, error) {
	if text == nil {
		file = "its own"
	}
	return &status.Plan{File: file + ":" + string(text)}, t.refused
}

func TestPlanIsAboutTheDirectorsFileOrAnotherText(t *testing.T) {
	d := &daemon{status: picture}
	c := NewClient(start(t, d, defaults()))
	long := strings.Repeat("x", 3<<20)
	for _, tt := range []struct {
		file, text, want string
	}{{"", "", "its own:"}, {"new.yaml", "a: b", "new.yaml:a: b"}, {"long.yaml", long, "long.yaml:" + long}} {
		var text []byte
		if tt.text != "" {
			text = []byte(tt.text)
		}
		if p, err := c.Plan(t.Context(), tt.file, text); err != nil || p.File != tt.want {
			t.Errorf("plan of %q: %v", tt.file, err)
		}
	}
	d.refused = errors.New("no such file")
	if _, err := c.Plan(t.Context(), "", nil); err == nil || err.Error() != "no such file" {
		t.Errorf("error %v", err)
	}
}

func TestATrialIsAskedForWithItsTime(t *testing.T) {
	path := start(t, &daemon{status: picture}, defaults())
	if err := NewClient(path).ReloadOnTrial(t.Context(), 90*time.Second); err == nil || err.Error() != "on trial for 1m30s" {
		t.Errorf("got %v", err)
	}
	for text, want := range map[string]string{"10": "missing unit", "-1s": "not above 0", "2h": "longer than 1h"} {
		err := NewClient(path).do(t.Context(), http.MethodPost, "/v1/reload?confirm="+text, nil, time.Second, &struct{}{})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("confirm %q: %v, want %q", text, err, want)
		}
	}
}

func TestATrialEndsWithTheClientThatBeganIt(t *testing.T) {
	d := &daemon{status: picture, trials: trials{gone: make(chan struct{})}}
	c := NewClient(start(t, d, defaults()))
	ctx, hangUp := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer hangUp()
	if err := c.ReloadOnTrial(ctx, TrialMax); !errors.Is(err, ErrCanceled) {
		t.Errorf("error %v", err)
	}
	select {
	case <-d.gone:
	case <-time.After(10 * time.Second):
		t.Error("the director was not told that nobody waits any more")
	}
}
