package control

import (
	"context"
	"encoding/json"
	"fmt"
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

// explainPackets adds the question to the mux.
func explainPackets(mux *http.ServeMux, d Explainer) {
	mux.HandleFunc("POST /v1/explain", func(w http.ResponseWriter, r *http.Request) {
		const example = `send {"from": "192.0.2.1:40000", "to": "192.168.5.100:80"}`
		var q Question
		decoder := json.NewDecoder(http.MaxBytesReader(w, r.Body, 2*FramesMax))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(&q); err != nil {
			answer(w, http.StatusBadRequest, failure{fmt.Sprintf("read request: %v: %s", err, example)})
			return
		}
		if len(q.Frames) == 0 && (!q.From.IsValid() || !q.To.IsValid()) {
			answer(w, http.StatusBadRequest, failure{"read request: no packet: " + example})
			return
		}
		list, err := d.Explain(r.Context(), q)
		reply(w, list, err)
	})
}

// Explain asks what becomes of packets.
func (c *Client) Explain(ctx context.Context, q Question) ([]status.Explanation, error) {
	var list []status.Explanation
	err := c.do(ctx, http.MethodPost, "/v1/explain", q, explainLimit, &list)
	return list, err
}
