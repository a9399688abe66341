package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/xdirector/xdirector/pkg/control"
	"github.com/xdirector/xdirector/pkg/status"
)

func (o *obedient) Drain(_ context.Context, service string, server netip.Addr, deadline time.Duration) (control.ServerOrder, error) {
	return o.hear("drain %s %s %s", service, server, deadline)
}

func (o *obedient) Undrain(_ context.Context, service string, server netip.Addr) (control.ServerOrder, error) {
	return o.hear("undrain %s %s", service, server)
}

func (o *obedient) Weight(_ context.Context, service string, server netip.Addr, weight *uint16) (control.ServerOrder, error) {
	if weight == nil {
		return o.hear("weight %s %s default", service, server)
	}
	return o.hear("weight %s %s %d", service, server, *weight)
}

func (o *obedient) hear(format string, args ...any) (control.ServerOrder, error) {
	if o.heard = fmt.Sprintf(format, args...); strings.Contains(o.heard, "wbe") {
		return control.ServerOrder{}, errors.New(`no service "wbe" is configured here (did you mean "web"?): there are web`)
	}
	return o.server, nil
}

func TestCommandsAboutRealServersPrintWhatBecameOfThem(t *testing.T) {
	at := time.Date(2030, 1, 2, 3, 4, 5, 0, time.Local)
	order := control.ServerOrder{Service: "web", RealServer: "10.0.0.3", Changed: true, Weight: 3, ConfiguredWeight: 3, InForce: at}
	change := func(f func(*control.ServerOrder)) control.ServerOrder { o := order; f(&o); return o }
	timed := change(func(o *control.ServerOrder) { o.Deadline = at })
	unchanged := change(func(o *control.ServerOrder) { o.Changed = false })
	ill := change(func(o *control.ServerOrder) { o.Warning = "rr ignores weights other than 0" })
	left := func(flows uint64, counted time.Duration, over bool) status.Status {
		return status.Status{Counted: at.Add(counted), Overrides: []status.Override{
			{Service: "web", RealServer: "10.0.0.3", Kind: status.KindWeight},
			{Service: "web", RealServer: "10.0.0.30", Kind: status.KindDrain, Flows: 99},
			{Service: "web", RealServer: "10.0.0.3", Kind: status.KindDrain, Flows: flows, Active: min(flows, 2), Over: over},
		}}
	}
	type pictures = []status.Status
	took := regexp.MustCompile(`after \d+s`)
	const again = "until told otherwise: xdirector undrain web/10.0.0.3\n"
	for name, tt := range map[string]struct {
		args           string
		order          control.ServerOrder
		pictures       pictures
		code           int
		heard          string
		stdout, stderr string
	}{
		"drain": {"drain web/10.0.0.3", order, pictures{left(7, -1, false), left(5, 1, false)}, 0,
			"drain web 10.0.0.3 0s", "web/10.0.0.3 gets no new flows: 5 flows (2 active) left\n" + again, ""},
		"drain with a deadline": {"drain web/10.0.0.3 --deadline 10m", timed, pictures{left(1, 1, false)}, 0,
			"drain web 10.0.0.3 10m0s", "web/10.0.0.3 gets no new flows: 1 flow left; at 2030-01-02 03:04:05 they are scheduled afresh\n" + again, ""},
		"wait": {"drain web/10.0.0.3 --wait", order, pictures{left(0, -1, false), left(2, 1, false), left(0, 2, false)}, 0,
			"drain web 10.0.0.3 0s", "web/10.0.0.3 is drained: no flow is left after a while\n" + again, ""},
		"wait for the deadline": {"drain web/10.0.0.3 --wait --deadline 1s", timed, pictures{left(2, 1, false), left(0, 2, true)}, 1,
			"drain web 10.0.0.3 1s", "", "xdirector: the deadline of draining web/10.0.0.3 is over: 2 flows left; they are scheduled afresh\n"},
		"wait for what is taken back": {"drain web/10.0.0.3 --wait", order, pictures{left(2, 1, false), {}}, 1,
			"drain web 10.0.0.3 0s", "", "xdirector: web/10.0.0.3 is no longer drained: somebody took that back, or the configuration has it no longer; 2 flows left after a while\n"},
		"undrain":          {"undrain web/10.0.0.3", order, nil, 0, "undrain web 10.0.0.3", "web/10.0.0.3 gets new flows again, with the weight 3\n", ""},
		"undrain for none": {"undrain web/10.0.0.3", unchanged, nil, 0, "undrain web 10.0.0.3", "web/10.0.0.3 was not drained; its weight is 3\n", ""},
		"weight":           {"weight web/2001:db8::3 7", order, nil, 0, "weight web 2001:db8::3 7", "web/10.0.0.3 has the weight 7 instead of 3\nuntil told otherwise: xdirector weight web/10.0.0.3 default\n", ""},
		"weight that rr ignores": {"weight web/10.0.0.3 7", ill, nil, 0, "weight web 10.0.0.3 7",
			"web/10.0.0.3 has the weight 7 instead of 3\nuntil told otherwise: xdirector weight web/10.0.0.3 default\n", "warning: rr ignores weights other than 0\n"},
		"weight default":       {"weight web/10.0.0.3 default", order, nil, 0, "weight web 10.0.0.3 default", "web/10.0.0.3 has its configured weight again, 3\n", ""},
		"weight default again": {"weight web/10.0.0.3 default", unchanged, nil, 0, "weight web 10.0.0.3 default", "web/10.0.0.3 had its configured weight, 3\n", ""},
		"unknown": {"drain wbe/10.0.0.3", order, nil, 1, "drain wbe 10.0.0.3 0s", "",
			"xdirector: no service \"wbe\" is configured here (did you mean \"web\"?): there are web\n"},
		"no port":        {"drain web/10.0.0.3:80", order, nil, 2, "", "", "xdirector: drain: real server \"10.0.0.3:80\": write its address alone, without a port, like xdirector drain web/192.168.5.103; see xdirector drain --help\n"},
		"no service":     {"undrain 10.0.0.3", order, nil, 2, "", "", "xdirector: undrain: \"10.0.0.3\" is not SERVICE/REAL_SERVER: write it like xdirector undrain web/192.168.5.103; see xdirector undrain --help\n"},
		"no deadline":    {"drain web/10.0.0.3 --deadline 0s", order, nil, 2, "", "", "xdirector: drain: --deadline 0s is not above 0: write a time such as 10m; see xdirector drain --help\n"},
		"no weight":      {"weight web/10.0.0.3", order, nil, 2, "", "", "xdirector: weight: a weight of 0 to 65535 is missing, or default; see xdirector weight --help\n"},
		"a wrong weight": {"weight web/10.0.0.3 65536", order, nil, 2, "", "", "xdirector: weight: \"65536\" is not a weight: write 0 to 65535, or default; see xdirector weight --help\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := &obedient{server: tt.order, overrides: tt.pictures}
			code, stdout, stderr := command(t, append(strings.Fields(tt.args), "--config", serveDirector(t, o))...)
			stdout, stderr = took.ReplaceAllString(stdout, "after a while"), took.ReplaceAllString(stderr, "after a while")
			if code != tt.code || stdout != tt.stdout || stderr != tt.stderr || o.heard != tt.heard {
				t.Errorf("exit code %d, heard %q, stdout:\n%sstderr:\n%swant %d, %q,\n%s%s", code, o.heard, stdout, stderr, tt.code, tt.heard, tt.stdout, tt.stderr)
			}
		})
	}
}

func TestDrainPrintsJSON(t *testing.T) {
	at := time.Now()
	for over, want := range map[bool]struct {
		code int
		done bool
	}{false: {0, true}, true: {1, false}} {
		o := &obedient{
			server:    control.ServerOrder{Service: "web", RealServer: "10.0.0.3", Drained: true, InForce: at},
			overrides: []status.Status{{Counted: at.Add(1), Overrides: []status.Override{{Service: "web", RealServer: "10.0.0.3", Kind: status.KindDrain, Over: over}}}},
		}
		code, stdout, stderr := command(t, "drain", "web/10.0.0.3", "--wait", "--json", "--config", serveDirector(t, o))
		var got struct {
			Service string
			Done    bool
			Text    string
		}
		if err := json.Unmarshal([]byte(stdout), &got); err != nil {
			t.Fatalf("%v: %s%s", err, stdout, stderr)
		}
		if code != want.code || got.Done != want.done || got.Service != "web" || got.Text == "" || stderr != "" {
			t.Errorf("exit code %d, %+v, stderr %q", code, got, stderr)
		}
	}
}
