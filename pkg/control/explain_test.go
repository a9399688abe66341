package control

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/xdirector/xdirector/pkg/status"
)

func (o *operator) Explain(_ context.Context, q Question) ([]status.Explanation, error) {
	switch q.To.Port() {
	case 1:
		return nil, fmt.Errorf("no service at tcp %s %w", q.To, ErrUnknown)
	case 2:
		return nil, errors.New("no plane")
	}
	list := []status.Explanation{{Packet: q.From.String() + " " + q.To.String() + " " + q.Kind + " " + q.Interface}}
	for _, frame := range q.Frames {
		list = append(list, status.Explanation{Frame: frame})
	}
	return list, nil
}

func TestQuestionsAboutPacketsReachTheDirector(t *testing.T) {
	t.Parallel()
	path := start(t, &daemon{status: picture}, defaults())
	to := func(port uint16) Question {
		return Question{From: netip.MustParseAddrPort("192.0.2.1:0"), To: netip.AddrPortFrom(netip.MustParseAddr("10.0.0.100"), port)}
	}
	full := to(80)
	full.Kind, full.Interface = "ack", "eth0"
	large := Question{Frames: [][]byte{bytes.Repeat([]byte{7}, FramesMax)}}
	for name, tt := range map[string]struct {
		q    Question
		want []status.Explanation
		err  string
	}{
		"a packet":        {full, []status.Explanation{{Packet: "192.0.2.1:0 10.0.0.100:80 ack eth0"}}, ""},
		"many frames":     {large, []status.Explanation{{Packet: "invalid AddrPort invalid AddrPort  "}, {Frame: large.Frames[0]}}, ""},
		"too many frames": {Question{Frames: [][]byte{make([]byte, 2*FramesMax)}}, nil, "request body too large"},
		"of no service":   {to(1), nil, "no service at tcp 10.0.0.100:1 is configured here"},
		"refused":         {to(2), nil, "no plane"},
		"nothing":         {Question{}, nil, `no packet: send {"from"`},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := NewClient(path).Explain(t.Context(), tt.q)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("error is %v, want %s", err, tt.err)
				}
				return
			}
			if err != nil || !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got %.200v (%v), want %.200v", got, err, tt.want)
			}
		})
	}
}
