package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// operator is a director that notes what operators command.
type operator struct{ commands []string }

func (o *operator) note(command string) (Order, error) {
	o.commands = append(o.commands, command)
	switch {
	case strings.Contains(command, "unknown"):
		return Order{}, fmt.Errorf("no instance %q %w (did you mean %q?)", "unknown", ErrUnknown, "VI_1")
	case strings.Contains(command, "refused"):
		return Order{}, errors.New("this director is stopping")
	}
	return Order{Instances: []string{"VI_1", "VI_2"}, Group: "both", Changed: true, HandoverLimit: 3 * time.Second}, nil
}

func (o *operator) Failover(_ context.Context, instance string, span time.Duration) (Order, error) {
	return o.note(fmt.Sprintf("failover %s for %v", instance, span))
}

func (o *operator) Return(_ context.Context, instance string) (Order, error) {
	return o.note("return " + instance)
}

func (o *operator) Maintenance(_ context.Context, on bool) (Order, error) {
	return o.note(fmt.Sprintf("maintenance %v", on))
}

func TestCommandsOfOperatorsReachTheDirector(t *testing.T) {
	d := &daemon{status: picture}
	c := NewClient(start(t, d, defaults()))
	odd := "a/b c?d"
	for _, tt := range []struct {
		want string
		do   func() (Order, error)
	}{
		{"failover VI_1 for 10m0s", func() (Order, error) { return c.Failover(t.Context(), "VI_1", 10*time.Minute) }},
		{"failover VI_1 for 0s", func() (Order, error) { return c.Failover(t.Context(), "VI_1", 0) }},
		{"return VI_1", func() (Order, error) { return c.Return(t.Context(), "VI_1") }},
		{"return " + odd, func() (Order, error) { return c.Return(t.Context(), odd) }},
		{"maintenance true", func() (Order, error) { return c.Maintenance(t.Context(), true) }},
		{"maintenance false", func() (Order, error) { return c.Maintenance(t.Context(), false) }},
	} {
		o, err := tt.do()
		if err != nil || len(o.Instances) != 2 || o.Group != "both" || !o.Changed || o.HandoverLimit != 3*time.Second {
			t.Errorf("%s: %+v, %v", tt.want, o, err)
		}
		if got := d.commands[len(d.commands)-1]; got != tt.want {
			t.Errorf("the director heard %q, want %q", got, tt.want)
		}
	}
	if _, err := c.Failover(t.Context(), "unknown", 0); err == nil || err.Error() != `no instance "unknown" is configured here (did you mean "VI_1"?)` {
		t.Errorf("unknown instance: %v", err)
	}
	if _, err := c.Failover(t.Context(), "refused", 0); err == nil || err.Error() != "this director is stopping" {
		t.Errorf("refused: %v", err)
	}
}

func TestWrongRequestsOfOperatorsAreToldWhatToSend(t *testing.T) {
	t.Parallel()
	d := &daemon{status: picture}
	path := start(t, d, defaults())
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}}
	for _, tt := range []struct {
		method, path, body string
		code               int
		answer, allow      string
	}{
		{"POST", "/v1/failover", ``, 400, `send {\"instance\": \"VI_1\"}`, ""},
		{"POST", "/v1/failover", `VI_1`, 400, `send {\"instance\"`, ""},
		{"POST", "/v1/failover", `{}`, 400, "no instance", ""},
		{"POST", "/v1/failover", `{"instnce": "VI_1"}`, 400, `unknown field \"instnce\"`, ""},
		{"POST", "/v1/failover", `{"instance": "VI_1", "for": "10"}`, 400, "write a duration such as 10m or 90s", ""},
		{"POST", "/v1/failover", `{"instance": "VI_1", "for": "-1s"}`, 400, "it is not above 0", ""},
		{"POST", "/v1/failover", `{"instance": "` + strings.Repeat("x", 70<<10) + `"}`, 413, "too large", ""},
		{"POST", "/v1/failover", `{"instance": "VI_1"}{"instance": "VI_2"}`, 400, "more than one JSON object", ""},
		{"POST", "/v1/failover", `["VI_1"]`, 400, "cannot unmarshal array", ""},
		{"POST", "/v1/failover", `{"instance": "unknown"}`, 404, "no instance", ""},
		{"POST", "/v1/failover", `{"instance": "refused"}`, 422, "stopping", ""},
		{"GET", "/v1/failover", ``, 405, "no GET /v1/failover here: there are GET /v1/status", "POST"},
		{"DELETE", "/v1/failover", ``, 405, "DELETE /v1/failover/INSTANCE", "POST"},
		{"GET", "/v1/failover/VI_1", ``, 405, "no GET", "DELETE"},
		{"PUT", "/v1/maintenance", ``, 405, "POST /v1/maintenance, DELETE /v1/maintenance", "POST, DELETE"},
		{"POST", "/v1/drain", ``, 400, `send {\"service\": \"web\"`, ""},
		{"POST", "/v1/drain", `{"real_server": "10.0.0.1"}`, 400, "no service: send {", ""},
		{"POST", "/v1/drain", `{"service": "web"}`, 400, "unable to parse IP", ""},
		{"POST", "/v1/drain", `{"service": "web", "real_server": "10.0.0.1", "weight": 1}`, 400, "unknown field", ""},
		{"POST", "/v1/drain", `{"service": "web", "real_server": "10.0.0.1", "deadline": "0s"}`, 400, "it is not above 0", ""},
		{"POST", "/v1/drain", `{"service": "unknown", "real_server": "10.0.0.1"}`, 404, "is configured here", ""},
		{"POST", "/v1/drain", `{"service": "refused", "real_server": "10.0.0.1"}`, 422, "stopping", ""},
		{"POST", "/v1/weight", `{"service": "web", "real_server": "10.0.0.1"}`, 400, "with a weight of 0 to 65535", ""},
		{"POST", "/v1/weight", `{"service": "web", "real_server": "10.0.0.1", "weight": 65536}`, 400, "cannot unmarshal", ""},
		{"DELETE", "/v1/drain/web/one", ``, 400, `real server \"one\"`, ""},
		{"GET", "/v1/status?nmae=web", ``, 400, `unknown parameter \"nmae\": there are name`, ""},
		{"GET", "/v1/status?name=%zz", ``, 400, "invalid URL escape", ""},
		{"GET", "/v1/status?name=web", ``, 404, `no instance, service or address \"web\" is configured here`, ""},
		{"GET", "/v1/drain", ``, 405, "POST /v1/drain", "POST"},
		{"POST", "/v1/weight/web/10.0.0.1", ``, 405, "/v1/weight/SERVICE/REAL_SERVER", "DELETE"},
		{"POST", "/v1/maintenanc", ``, 404, "there are", ""},
	} {
		r, err := http.NewRequestWithContext(t.Context(), tt.method, "http://xdirector"+tt.path, strings.NewReader(tt.body))
		if err != nil {
			t.Fatal(err)
		}
		a, err := client.Do(r)
		if err != nil {
			t.Fatalf("%s %s %.60s: %v", tt.method, tt.path, tt.body, err)
		}
		text, err := io.ReadAll(a.Body)
		a.Body.Close()
		if err != nil || a.StatusCode != tt.code || !strings.Contains(string(text), tt.answer) || a.Header.Get("Allow") != tt.allow {
			t.Errorf("%s %s %.60s: %d %s, allow %q, want %d, %q and allow %q (%v)", tt.method, tt.path, tt.body, a.StatusCode, text, a.Header.Get("Allow"), tt.code, tt.answer, tt.allow, err)
		}
	}
}
