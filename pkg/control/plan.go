package control

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/xdirector/xdirector/pkg/status"
)

// Reloader is the part of the director that changes its configuration. An error is meant for the operator, and may have
// several lines.
type Reloader interface {
	// Reload reads the configuration file again and applies it. The old configuration stays in use if it is refused.
	Reload(ctx context.Context) error
	// ReloadOnTrial is Reload, and returns after the time. The old configuration comes back if something is lost until then,
	// or ctx ends.
	ReloadOnTrial(ctx context.Context, trial time.Duration) error
	// Plan says what a reload would change, if the file had this text; nil: with the text that it has.
	Plan(ctx context.Context, file string, text []byte) (*status.Plan, error)
}

// TrialMax is the longest time that a reload can be on trial.
const TrialMax = time.Hour

// planLimit is room for the largest file, as JSON.
const planLimit = 40 << 20

// planned is the body of POST /v1/plan: what the file would say, and its name for messages; without, it is read.
type planned struct {
	File string  `json:"file,omitempty"`
	Text *string `json:"text,omitempty"`
}

func (planned) example() string { return `{}, or {"file": "new.yaml", "text": "services: ..."}` }

func trialParameter() parameter {
	return parameter{"confirm", "A Go duration of up to 1h: the answer comes after that time. If something is lost until then that was served before, or the client hangs up, the configuration before is in force again.", typeOf[string]()}
}

func (a *api) postReload(r *http.Request, _ nothing) (nothing, error) {
	query, err := readQuery(r, trialParameter())
	if err != nil {
		return nothing{}, err
	}
	trial, err := readTime("confirm", query.Get("confirm"))
	if err != nil {
		return nothing{}, err
	}
	a.log.Info("reload asked for on the control socket")
	switch {
	case trial > TrialMax:
		return nothing{}, wrong{fmt.Errorf("read request: confirm %s is longer than %s", trial, TrialMax)}
	case trial > 0:
		return nothing{}, a.ReloadOnTrial(r.Context(), trial)
	}
	return nothing{}, a.Reload(r.Context())
}

func (a *api) postPlan(r *http.Request, p planned) (*status.Plan, error) {
	if p.Text == nil {
		return a.Plan(r.Context(), "", nil)
	}
	return a.Plan(r.Context(), p.File, []byte(*p.Text))
}

// Plan asks what a reload would change, if the file had this text; nil: with the text that it has.
func (c *Client) Plan(ctx context.Context, file string, text []byte) (*status.Plan, error) {
	body := planned{}
	if text != nil {
		s := string(text)
		body = planned{File: file, Text: &s}
	}
	var p status.Plan
	if err := c.do(ctx, http.MethodPost, "/v1/plan", body, reloadLimit, &p); err != nil {
		return nil, err
	}
	return &p, nil
}

// ErrCanceled is the error of a ReloadOnTrial whose context has ended.
var ErrCanceled = errors.New("canceled")

// ReloadOnTrial makes the director read its configuration file again, and returns when it has been in force for the time
// of the trial; see Reload. The error says why the old configuration is in force. When ctx ends, it comes back.
func (c *Client) ReloadOnTrial(ctx context.Context, trial time.Duration) error {
	err := c.do(ctx, http.MethodPost, "/v1/reload?confirm="+trial.String(), nil, trial+reloadLimit, &struct{}{})
	if err != nil && ctx.Err() != nil {
		return fmt.Errorf("%w: %w", ErrCanceled, context.Cause(ctx))
	}
	return err
}
