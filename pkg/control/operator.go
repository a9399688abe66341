package control

import (
	"context"
	"errors"
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

// failoverWish is the body of POST /v1/failover.
type failoverWish struct {
	Instance string `json:"instance"`
	For      string `json:"for,omitempty"` // a Go duration such as 10m; empty: until it is taken back
}

func (failoverWish) example() string {
	return `{"instance": "VI_1"} or {"instance": "VI_1", "for": "10m"}`
}

// operatorRoutes are the commands of operators to the elections.
func operatorRoutes(d Operator) []route {
	maintenance := func(on bool) func(*http.Request, nothing) (Order, error) {
		return func(r *http.Request, _ nothing) (Order, error) { return d.Maintenance(r.Context(), on) }
	}
	return []route{
		exchange("POST", "/v1/failover", "Have an instance leave MASTER to any other director, for a time or until it is taken back.",
			func(r *http.Request, f failoverWish) (Order, error) {
				if f.Instance == "" {
					return Order{}, wrongf(f, "no instance")
				}
				span, err := readTime("for", f.For)
				if err != nil {
					return Order{}, err
				}
				return d.Failover(r.Context(), f.Instance, span)
			}),
		exchange("DELETE", "/v1/failover/{instance}", "Have an instance take part as configured again.",
			func(r *http.Request, _ nothing) (Order, error) { return d.Return(r.Context(), r.PathValue("instance")) }),
		exchange("POST", "/v1/maintenance", "Take this box out of all elections.", maintenance(true)),
		exchange("DELETE", "/v1/maintenance", "Take this box back into all elections.", maintenance(false)),
	}
}

// Failover has an instance leave MASTER to any other director for a time, or with 0 until Return.
func (c *Client) Failover(ctx context.Context, instance string, span time.Duration) (Order, error) {
	f := failoverWish{Instance: instance}
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
