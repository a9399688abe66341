package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"time"
)

// Servers is the part of the director that operators command about real servers. Its methods return when the wish is in force.
// An error is meant for the operator. They are called from several goroutines at once.
type Servers interface {
	// Drain keeps new flows from a real server until Undrain; the flows that it has go on, with a deadline above 0 only so long.
	Drain(ctx context.Context, service string, server netip.Addr, deadline time.Duration) (ServerOrder, error)
	// Undrain has it take new flows again.
	Undrain(ctx context.Context, service string, server netip.Addr) (ServerOrder, error)
	// Weight gives it another weight than the configured one; nil takes that back.
	Weight(ctx context.Context, service string, server netip.Addr, weight *uint16) (ServerOrder, error)
}

// ServerOrder is what a command about a real server has made of it.
type ServerOrder struct {
	Service          string    `json:"service"`
	RealServer       string    `json:"real_server"` // its address
	Changed          bool      `json:"changed"`     // false: it was so already
	Drained          bool      `json:"drained"`
	Deadline         time.Time `json:"deadline,omitzero"` // of the drain
	Weight           uint16    `json:"weight"`            // in force; 0 while it is drained
	ConfiguredWeight uint16    `json:"configured_weight"`
	InForce          time.Time `json:"in_force"`          // since then
	Warning          string    `json:"warning,omitempty"` // in force, but something should be known beside
}

// Name returns what commands call the real server: web/192.168.5.103.
func (o ServerOrder) Name() string { return o.Service + "/" + o.RealServer }

// serverOrder is the body of POST /v1/drain and /v1/weight.
type serverOrder struct {
	Service    string  `json:"service"`
	RealServer string  `json:"real_server"`
	Deadline   string  `json:"deadline,omitempty"` // of a drain: a Go duration
	Weight     *uint16 `json:"weight,omitempty"`
}

// operateServers adds the commands of operators about real servers.
func operateServers(mux *http.ServeMux, d Servers, lim limits) {
	mux.HandleFunc("POST /v1/drain", func(w http.ResponseWriter, r *http.Request) {
		o, server, deadline, err := readServerOrder(http.MaxBytesReader(w, r.Body, lim.body), false)
		if err != nil {
			answer(w, http.StatusBadRequest, failure{err.Error()})
			return
		}
		result, err := d.Drain(r.Context(), o.Service, server, deadline)
		reply(w, result, err)
	})
	mux.HandleFunc("POST /v1/weight", func(w http.ResponseWriter, r *http.Request) {
		o, server, _, err := readServerOrder(http.MaxBytesReader(w, r.Body, lim.body), true)
		if err != nil {
			answer(w, http.StatusBadRequest, failure{err.Error()})
			return
		}
		result, err := d.Weight(r.Context(), o.Service, server, o.Weight)
		reply(w, result, err)
	})
	takeBack := func(path string, do func(ctx context.Context, service string, server netip.Addr) (ServerOrder, error)) {
		mux.HandleFunc("DELETE "+path+"/{service}/{server}", func(w http.ResponseWriter, r *http.Request) {
			server, err := netip.ParseAddr(r.PathValue("server"))
			if err != nil {
				answer(w, http.StatusBadRequest, failure{fmt.Sprintf("read request: real server %q: %v", r.PathValue("server"), err)})
				return
			}
			result, err := do(r.Context(), r.PathValue("service"), server)
			reply(w, result, err)
		})
	}
	takeBack("/v1/drain", d.Undrain)
	takeBack("/v1/weight", func(ctx context.Context, service string, server netip.Addr) (ServerOrder, error) {
		return d.Weight(ctx, service, server, nil)
	})
}

func readServerOrder(body io.Reader, weight bool) (o serverOrder, server netip.Addr, deadline time.Duration, err error) {
	example := `send {"service": "web", "real_server": "192.168.5.103"} or with "deadline": "10m"`
	if weight {
		example = `send {"service": "web", "real_server": "192.168.5.103", "weight": 5}, with a weight of 0 to 65535`
	}
	decoder := json.NewDecoder(body)
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&o); err != nil {
		return o, server, 0, fmt.Errorf("read request: %w: %s", err, example)
	}
	if o.Service == "" || weight != (o.Weight != nil) || weight && o.Deadline != "" {
		return o, server, 0, errors.New("read request: a key is missing or too many: " + example)
	}
	if server, err = netip.ParseAddr(o.RealServer); err != nil {
		return o, server, 0, fmt.Errorf("read request: real server %q: %w: %s", o.RealServer, err, example)
	}
	if o.Deadline == "" {
		return o, server, 0, nil
	}
	deadline, err = time.ParseDuration(o.Deadline)
	if err == nil && deadline <= 0 {
		err = errors.New("it is not above 0")
	}
	if err != nil {
		return o, server, 0, fmt.Errorf("read request: deadline %q: %w: write a duration such as 10m or 90s", o.Deadline, err)
	}
	return o, server, deadline, nil
}

// Drain keeps new flows from a real server until Undrain; with a deadline above 0, the flows that it has go on only so long.
func (c *Client) Drain(ctx context.Context, service string, server netip.Addr, deadline time.Duration) (ServerOrder, error) {
	o := serverOrder{Service: service, RealServer: server.String()}
	if deadline > 0 {
		o.Deadline = deadline.String()
	}
	return c.orderServer(ctx, http.MethodPost, "/v1/drain", o)
}

// Undrain takes a Drain back.
func (c *Client) Undrain(ctx context.Context, service string, server netip.Addr) (ServerOrder, error) {
	return c.orderServer(ctx, http.MethodDelete, "/v1/drain/"+url.PathEscape(service)+"/"+url.PathEscape(server.String()), nil)
}

// Weight gives a real server another weight than the configured one; nil takes that back.
func (c *Client) Weight(ctx context.Context, service string, server netip.Addr, weight *uint16) (ServerOrder, error) {
	if weight == nil {
		return c.orderServer(ctx, http.MethodDelete, "/v1/weight/"+url.PathEscape(service)+"/"+url.PathEscape(server.String()), nil)
	}
	return c.orderServer(ctx, http.MethodPost, "/v1/weight", serverOrder{Service: service, RealServer: server.String(), Weight: weight})
}

func (c *Client) orderServer(ctx context.Context, method, path string, body any) (ServerOrder, error) {
	var o ServerOrder
	err := c.do(ctx, method, path, body, orderLimit, &o)
	return o, err
}
