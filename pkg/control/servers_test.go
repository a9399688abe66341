package control

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"
)

func (o *operator) noteServer(service string, server netip.Addr, format string, args ...any) (ServerOrder, error) {
	if _, err := o.note(service + " " + server.String() + " " + fmt.Sprintf(format, args...)); err != nil {
		return ServerOrder{}, err
	}
	return ServerOrder{Service: service, RealServer: server.String(), Changed: true, Weight: 5}, nil
}

func (o *operator) Drain(_ context.Context, service string, server netip.Addr, deadline time.Duration) (ServerOrder, error) {
	return o.noteServer(service, server, "drain for %v", deadline)
}

func (o *operator) Undrain(_ context.Context, service string, server netip.Addr) (ServerOrder, error) {
	return o.noteServer(service, server, "undrain")
}

func (o *operator) Weight(_ context.Context, service string, server netip.Addr, weight *uint16) (ServerOrder, error) {
	if weight == nil {
		return o.noteServer(service, server, "weight default")
	}
	return o.noteServer(service, server, "weight %d", *weight)
}

func TestCommandsAboutRealServersReachTheDirector(t *testing.T) {
	d := &daemon{status: picture}
	c := NewClient(start(t, d, defaults()))
	v4, v6, weight := netip.MustParseAddr("192.168.5.103"), netip.MustParseAddr("2001:db8::3"), uint16(0)
	for _, tt := range []struct {
		want string
		do   func() (ServerOrder, error)
	}{
		{"web 192.168.5.103 drain for 10m0s", func() (ServerOrder, error) { return c.Drain(t.Context(), "web", v4, 10*time.Minute) }},
		{"web 2001:db8::3 drain for 0s", func() (ServerOrder, error) { return c.Drain(t.Context(), "web", v6, 0) }},
		{"web 2001:db8::3 undrain", func() (ServerOrder, error) { return c.Undrain(t.Context(), "web", v6) }},
		{"web 192.168.5.103 weight 0", func() (ServerOrder, error) { return c.Weight(t.Context(), "web", v4, &weight) }},
		{"web 2001:db8::3 weight default", func() (ServerOrder, error) { return c.Weight(t.Context(), "web", v6, nil) }},
	} {
		o, err := tt.do()
		if err != nil || o.Service != "web" || !o.Changed || o.Weight != 5 {
			t.Errorf("%s: %+v, %v", tt.want, o, err)
		}
		if got := d.commands[len(d.commands)-1]; got != tt.want {
			t.Errorf("the director heard %q, want %q", got, tt.want)
		}
	}
	if _, err := c.Drain(t.Context(), "unknown", v4, 0); err == nil || err.Error() != `no instance "unknown" is configured here (did you mean "VI_1"?)` {
		t.Errorf("unknown service: %v", err)
	}
}
