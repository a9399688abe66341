package control

import (
	"context"
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

// drainWish is the body of POST /v1/drain.
type drainWish struct {
	Service    string `json:"service"`
	RealServer string `json:"real_server"`        // its address
	Deadline   string `json:"deadline,omitempty"` // a Go duration such as 10m: flows that are left then are scheduled afresh
}

func (drainWish) example() string {
	return `{"service": "web", "real_server": "192.168.5.103"} or with "deadline": "10m"`
}

// weightWish is the body of POST /v1/weight.
type weightWish struct {
	Service    string  `json:"service"`
	RealServer string  `json:"real_server"` // its address
	Weight     *uint16 `json:"weight"`
}

func (weightWish) example() string {
	return `{"service": "web", "real_server": "192.168.5.103", "weight": 5}, with a weight of 0 to 65535`
}

// serverRoutes are the commands of operators about real servers.
func serverRoutes(d Servers) []route {
	takeBack := func(path, summary string, do func(ctx context.Context, service string, server netip.Addr) (ServerOrder, error)) route {
		return exchange("DELETE", path+"/{service}/{real_server}", summary, func(r *http.Request, _ nothing) (ServerOrder, error) {
			service := r.PathValue("service")
			server, err := readServer(nothing{}, service, r.PathValue("real_server"))
			if err != nil {
				return ServerOrder{}, err
			}
			return do(r.Context(), service, server)
		})
	}
	return []route{
		exchange("POST", "/v1/drain", "Keep new flows from a real server, while those that it has go on.", func(r *http.Request, o drainWish) (ServerOrder, error) {
			server, err := readServer(o, o.Service, o.RealServer)
			if err != nil {
				return ServerOrder{}, err
			}
			deadline, err := readTime("deadline", o.Deadline)
			if err != nil {
				return ServerOrder{}, err
			}
			return d.Drain(r.Context(), o.Service, server, deadline)
		}),
		takeBack("/v1/drain", "Have a real server take new flows again.", d.Undrain),
		exchange("POST", "/v1/weight", "Give a real server another weight than the configured one.", func(r *http.Request, o weightWish) (ServerOrder, error) {
			server, err := readServer(o, o.Service, o.RealServer)
			if err != nil {
				return ServerOrder{}, err
			}
			if o.Weight == nil {
				return ServerOrder{}, wrongf(o, "no weight")
			}
			return d.Weight(r.Context(), o.Service, server, o.Weight)
		}),
		takeBack("/v1/weight", "Give a real server its configured weight again.", func(ctx context.Context, service string, server netip.Addr) (ServerOrder, error) {
			return d.Weight(ctx, service, server, nil)
		}),
	}
}

// readServer reads the address of a real server in the body q.
func readServer(q any, service, server string) (netip.Addr, error) {
	if service == "" {
		return netip.Addr{}, wrongf(q, "no service")
	}
	address, err := netip.ParseAddr(server)
	if err != nil {
		return address, wrongf(q, "real server %q: %w", server, err)
	}
	return address, nil
}

// Drain keeps new flows from a real server until Undrain; with a deadline above 0, the flows that it has go on only so long.
func (c *Client) Drain(ctx context.Context, service string, server netip.Addr, deadline time.Duration) (ServerOrder, error) {
	o := drainWish{Service: service, RealServer: server.String()}
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
	return c.orderServer(ctx, http.MethodPost, "/v1/weight", weightWish{Service: service, RealServer: server.String(), Weight: weight})
}

func (c *Client) orderServer(ctx context.Context, method, path string, body any) (ServerOrder, error) {
	var o ServerOrder
	err := c.do(ctx, method, path, body, orderLimit, &o)
	return o, err
}
