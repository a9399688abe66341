package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"
)

// Operator is the part of the director that operators command. Its methods return when the wish is in force; what comes
// of it is in the status. An error is meant for the operator. They are called from several goroutines at once.
type Operator interface {
	// Failover has an instance leave MASTER to any other director for a time, or with 0 until Return.
	Failover(ctx context.Context, instance string, span time.Duration) (Order, error)
	// Return has an instance take part as configured again.
	Return(ctx context.Context, instance string) (Order, error)
	// Maintenance takes the box out of all elections, or back into them.
	Maintenance(ctx context.Context, on bool) (Order, error)
	Servers
}

// Order is what a command of an operator is about.
type Order struct {
	Instances     []string      `json:"instances"`            // that it is about: of a sync group all of them
	Group         string        `json:"sync_group,omitempty"` // that they are
	Changed       bool          `json:"changed"`              // false: it was so already
	Until         time.Time     `json:"until,omitzero"`       // zero: until it is taken back
	HandoverLimit time.Duration `json:"handover_limit_ns"`    // who is MASTER then stays it
	Warning       string        `json:"warning,omitempty"`    // in force, but something went wrong beside
}

// ErrUnknown is in the error about a name that the configuration doesn't have: `no instance "VI_9" is configured here`.
var ErrUnknown = errors.New("is configured here")

// failover is the body of POST /v1/failover.
type failover struct {
	Instance string `json:"instance"`
	For      string `json:"for,omitempty"` // a Go duration; empty: until it is taken back
}

// reply answers a command or a question with its result.
func reply(w http.ResponseWriter, result any, err error) {
	switch {
	case errors.Is(err, ErrUnknown):
		answer(w, http.StatusNotFound, failure{err.Error()})
	case err != nil:
		answer(w, http.StatusUnprocessableEntity, failure{err.Error()})
	default:
		answer(w, http.StatusOK, result)
	}
}

// operate adds the commands of operators.
func operate(mux *http.ServeMux, d Operator, lim limits) {
	mux.HandleFunc("POST /v1/failover", func(w http.ResponseWriter, r *http.Request) {
		f, span, err := readFailover(http.MaxBytesReader(w, r.Body, lim.body))
		if err != nil {
			answer(w, http.StatusBadRequest, failure{err.Error()})
			return
		}
		o, err := d.Failover(r.Context(), f.Instance, span)
		reply(w, o, err)
	})
	mux.HandleFunc("DELETE /v1/failover/{instance}", func(w http.ResponseWriter, r *http.Request) {
		o, err := d.Return(r.Context(), r.PathValue("instance"))
		reply(w, o, err)
	})
	operateServers(mux, d, lim)
	for method, on := range map[string]bool{http.MethodPost: true, http.MethodDelete: false} {
		mux.HandleFunc(method+" /v1/maintenance", func(w http.ResponseWriter, r *http.Request) {
			o, err := d.Maintenance(r.Context(), on)
			reply(w, o, err)
		})
	}
}

func readFailover(body io.Reader) (f failover, span time.Duration, err error) {
	const example = `send {"instance": "VI_1"} or {"instance": "VI_1", "for": "10m"}`
	decoder := json.NewDecoder(body)
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&f); err != nil {
		return f, 0, fmt.Errorf("read request: %w: %s", err, example)
	}
	if f.Instance == "" {
		return f, 0, errors.New("read request: no instance: " + example)
	}
	if f.For == "" {
		return f, 0, nil
	}
	span, err = time.ParseDuration(f.For)
	if err == nil && span <= 0 {
		err = errors.New("it is not above 0")
	}
	if err != nil {
		return f, 0, fmt.Errorf("read request: for %q: %w: write a duration such as 10m or 90s", f.For, err)
	}
	return f, span, nil
}

// Failover has an instance leave MASTER to any other director for a time, or with 0 until Return.
func (c *Client) Failover(ctx context.Context, instance string, span time.Duration) (Order, error) {
	f := failover{Instance: instance}
	if span > 0 {
		f.For = span.String()
	}
	return c.order(ctx, http.MethodPost, "/v1/failover", f)
}

// Return takes a Failover back.
func (c *Client) Return(ctx context.Context, instance string) (Order, error) {
	return c.order(ctx, http.MethodDelete, "/v1/failover/"+url.PathEscape(instance), nil)
}

// Maintenance takes the box out of all elections, or back into them.
func (c *Client) Maintenance(ctx context.Context, on bool) (Order, error) {
	method := http.MethodDelete
	if on {
		method = http.MethodPost
	}
	return c.order(ctx, method, "/v1/maintenance", nil)
}

func (c *Client) order(ctx context.Context, method, path string, body any) (Order, error) {
	var o Order
	err := c.do(ctx, method, path, body, orderLimit, &o)
	return o, err
}
