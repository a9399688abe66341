package control

import (
	"context"
	"net/http"
	"net/netip"
	"time"

	"github.com/xdirector/xdirector/pkg/status"
)

// Question is what Explain is asked: about one packet that a client would send, or about frames as they were captured.
type Question struct {
	From      netip.AddrPort `json:"from,omitzero"` // port 0: any
	To        netip.AddrPort `json:"to,omitzero"`
	Kind      string         `json:"kind,omitempty"`      // syn, ack, udp; empty: syn, or udp where there is only that
	Interface string         `json:"interface,omitempty"` // that it comes in by; empty: the one that has the virtual address
	Frames    [][]byte       `json:"frames,omitempty"`    // instead of the packet, from the Ethernet header on
}

// Explainer says what becomes of packets, and why, and changes nothing by that.
type Explainer interface {
	// Explain answers for the packet, or for each frame. An error is meant for the operator; a virtual address or port without a
	// service is ErrUnknown.
	Explain(ctx context.Context, q Question) ([]status.Explanation, error)
}

const (
	explainLimit = 30 * time.Second
	// FramesMax is how many bytes of frames one Question may have.
	FramesMax = 256 << 10
)

func (Question) example() string { return `{"from": "192.0.2.1:40000", "to": "192.168.5.100:80"}` }

// explain asks the director.
func explain(d Explainer) func(*http.Request, Question) ([]status.Explanation, error) {
	return func(r *http.Request, q Question) ([]status.Explanation, error) {
		if len(q.Frames) == 0 && (!q.From.IsValid() || !q.To.IsValid()) {
			return nil, wrongf(q, "no packet")
		}
		return d.Explain(r.Context(), q)
	}
}

// Explain asks what becomes of packets.
func (c *Client) Explain(ctx context.Context, q Question) ([]status.Explanation, error) {
	var list []status.Explanation
	err := c.do(ctx, http.MethodPost, "/v1/explain", q, explainLimit, &list)
	return list, err
}
