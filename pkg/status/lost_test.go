package status

import (
	"slices"
	"testing"
	"time"
)

func TestLostIsWhatWasServedAndIsNoLonger(t *testing.T) {
	server := func(up bool) RealServer { return RealServer{Address: "10.0.0.9", Up: up, Reason: "refused", Weight: 1} }
	web := Service{Name: "web", Address: "10.0.0.1", Port: 80, Protocol: "tcp", RealServers: []RealServer{server(true), server(false)}}
	with := func(change func(*Status)) *Status {
		s := &Status{Healthy: true, Instances: []Instance{{Name: "VI_1", State: "MASTER"}, {Name: "VI_2", State: "FAULT"}}, Services: []Service{web}}
		s.Services[0].RealServers = slices.Clone(web.RealServers)
		change(s)
		return s
	}
	same := func(*Status) {}
	fault := func(s *Status) { s.Instances[0].State, s.Instances[0].Reason = "FAULT", "eth9 is gone" }
	down := func(s *Status) { s.Services[0].RealServers[0].Up = false }
	unhealthy := func(s *Status) { s.Healthy, s.Unhealthy = false, "the plane could not be updated" }
	for name, tt := range map[string]struct {
		before, after func(*Status)
		want          string
	}{
		"nothing":                             {same, same, ""},
		"an instance in FAULT":                {same, fault, "instance VI_1 is in FAULT, was MASTER: eth9 is gone"},
		"a BACKUP in FAULT":                   {func(s *Status) { s.Instances[0].State = "BACKUP" }, fault, "instance VI_1 is in FAULT, was BACKUP: eth9 is gone"},
		"one in FAULT before":                 {fault, fault, ""},
		"MASTER to BACKUP":                    {same, func(s *Status) { s.Instances[0].State = "BACKUP" }, ""},
		"an instance that was taken out":      {same, func(s *Status) { s.Instances = s.Instances[1:] }, ""},
		"the last real server":                {same, down, "service web has no live real server, had 1: 10.0.0.9: refused"},
		"the last real server, renamed":       {same, func(s *Status) { down(s); s.Services[0].Name = "www" }, "service www has no live real server, had 1: 10.0.0.9: refused"},
		"the last one's weight":               {same, func(s *Status) { s.Services[0].RealServers[0].Weight = 0 }, "service web has no live real server, had 1: 10.0.0.9: its weight is 0"},
		"the last one's next hop":             {same, func(s *Status) { s.Services[0].RealServers[0].NextHopError = "no answer" }, "service web has no live real server, had 1: 10.0.0.9: no answer"},
		"none before":                         {down, down, ""},
		"one more real server":                {down, same, ""},
		"a service that was taken out":        {same, func(s *Status) { s.Services = nil }, ""},
		"a new service without real servers":  {func(s *Status) { s.Services = nil }, down, ""},
		"health":                              {same, unhealthy, "the plane could not be updated"},
		"health that was bad before":          {unhealthy, unhealthy, ""},
		"anything while the director is gone": {same, func(s *Status) { fault(s); s.Stopping = true }, ""},
	} {
		if got := Lost(with(tt.before), with(tt.after)); got != tt.want {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
}

func TestEventsTellOfTrials(t *testing.T) {
	first, later := time.Unix(1000, 0), time.Unix(2000, 0)
	old := Reload{Success: true, Time: first}
	trial := Reload{Success: true, Time: later, TrialUntil: later.Add(time.Minute)}
	passed := Reload{Success: true, Time: later}
	failed := Reload{Time: first, RolledBack: true, Error: "the reload was rolled back: no"}
	for _, tt := range []struct {
		before, after Reload
		want          string
	}{
		{old, trial, "applied"}, {trial, passed, "confirmed"}, {trial, failed, "rolled back"}, {failed, failed, ""}, {failed, trial, "applied"}, {passed, passed, ""},
	} {
		got := ""
		for _, e := range Changes(&Status{Healthy: true, Reload: tt.before}, &Status{Healthy: true, Reload: tt.after}) {
			got += e.State
		}
		if got != tt.want {
			t.Errorf("%+v to %+v: %q, want %q", tt.before, tt.after, got, tt.want)
		}
	}
	if list := Changes(nil, &Status{Healthy: true, Reload: failed}); len(list) != 2 || list[1].State != "rolled back" {
		t.Errorf("after a crash: %+v", list)
	}
}
