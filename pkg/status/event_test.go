package status

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// scene is a picture in which all is well; change makes another one of it.
func scene(change func(*Status)) *Status {
	at := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	s := &Status{
		Version: "1.0", RouterID: "lb1", Started: at, Time: at.Add(time.Minute), Healthy: true, Counted: at,
		Plane:     Plane{Name: "xdp-native", Reason: "every interface can"},
		Instances: []Instance{{Name: "VI_1", State: "MASTER", Since: at.Add(time.Second), Priority: 100, Reason: "no advert for 3.6s"}},
		Services: []Service{{Name: "web", Plane: Plane{Name: "xdp-native"}, Quorum: Quorum{Up: true, Needed: 1, Weight: 2}, RealServers: []RealServer{
			{Address: "10.0.0.3", Up: true, Checks: map[string]uint64{"up": 1}}, {Address: "10.0.0.4", Up: true, Checks: map[string]uint64{"up": 1}}}}},
		Reload: Reload{Success: true, Time: at},
	}
	if change != nil {
		change(s)
	}
	return s
}

func drained(flows uint64) func(*Status) {
	return func(s *Status) {
		s.Counted = s.Counted.Add(time.Duration(100-flows) * time.Second)
		s.Overrides = []Override{{Service: "web", RealServer: "10.0.0.3", Kind: KindDrain, Flows: flows}}
	}
}

func grouped(states ...string) func(*Status) {
	return func(s *Status) {
		s.Instances = nil
		for n, state := range states {
			s.Instances = append(s.Instances, Instance{Name: fmt.Sprintf("VI_%d", n+1), State: state, Reason: "x", SyncGroup: "VG"})
		}
	}
}

func TestEachChangeOfThePictureIsToldOnceWithItsCause(t *testing.T) {
	for _, c := range []struct {
		name          string
		before, after func(*Status)
		want          []string // kind, level and text
	}{
		{"nothing", nil, nil, nil},
		{"an instance", func(s *Status) { s.Instances[0].State, s.Instances[0].Since = "BACKUP", s.Started }, nil,
			[]string{"instance info VI_1 is MASTER, was BACKUP: no advert for 3.6s"}},
		{"an instance there and back", func(s *Status) { s.Instances[0].Since = s.Started }, nil,
			[]string{"instance warning VI_1 left MASTER meanwhile, and is MASTER again: no advert for 3.6s"}},
		{"a fault", nil, func(s *Status) {
			s.Instances[0].State, s.Instances[0].Since, s.Instances[0].Reason = "FAULT", s.Time, "eth0 is down"
		}, []string{"instance error VI_1 is FAULT, was MASTER: eth0 is down"}},
		{"an instance that was added", func(s *Status) { s.Instances = nil }, nil, []string{"instance info VI_1 is MASTER, was INIT: no advert for 3.6s"}},
		{"a sync group of which one member is late", grouped("BACKUP", "BACKUP"), grouped("MASTER", "BACKUP"), []string{"instance info VI_1 is MASTER, was BACKUP: x"}},
		{"a sync group", grouped("MASTER", "BACKUP"), grouped("MASTER", "MASTER"), []string{"instance info VI_2 is MASTER, was BACKUP: x", "sync_group info sync group VG is MASTER, was BACKUP"}},
		{"a sync group with a fault", grouped("MASTER", "MASTER"), grouped("MASTER", "FAULT"), []string{"instance error VI_2 is FAULT, was MASTER: x", "sync_group error sync group VG is FAULT, was MASTER"}},
		{"a failover", nil, func(s *Status) { s.Instances[0].Yielding = true },
			[]string{"override info VI_1 leaves MASTER to any other director, until xdirector failover VI_1 --off or its time is over"}},
		{"the end of a failover", func(s *Status) { s.Instances[0].Yielding = true }, nil, []string{"override info the failover of VI_1 is over: it takes part as configured"}},
		{"a mismatch", nil, func(s *Status) {
			s.Instances[0].Mismatches = []Notice{{"split_brain", "10.0.0.2", "10.0.0.2 is MASTER too"}}
		},
			[]string{"mismatch warning VI_1: SPLIT BRAIN: 10.0.0.2 is MASTER too"}},
		{"the end of a mismatch", func(s *Status) { s.Instances[0].Mismatches = []Notice{{"version", "10.0.0.2", "x"}} }, nil,
			[]string{"mismatch info VI_1: the mismatch with 10.0.0.2 is over (version)"}},
		{"a real server and the quorum", nil, func(s *Status) {
			v := &s.Services[0]
			v.Quorum = Quorum{Weight: 1, Needed: 2}
			v.RealServers[1] = RealServer{Address: "10.0.0.4", Reason: "connection refused", Checks: map[string]uint64{"up": 1, "down": 1}}
		}, []string{
			"service error service web has lost its quorum: real servers with a weight of 1 are up, 2 are needed",
			"check info web/10.0.0.4: a check says down",
			"real_server warning web/10.0.0.4 is down: connection refused; its flows are scheduled afresh"}},
		{"real servers in another order", nil, func(s *Status) {
			list := s.Services[0].RealServers
			s.Services[0].RealServers = []RealServer{list[1], list[0]}
		}, nil},
		{"a real server that is removed and one that is added", nil, func(s *Status) { s.Services[0].RealServers[0].Address = "10.0.0.9" },
			[]string{"check info web/10.0.0.9: a check says up"}},
		{"a drain", nil, drained(3), []string{"override info web/10.0.0.3 is drained until xdirector undrain web/10.0.0.3"}},
		{"flows of a drain", drained(3), drained(1), []string{"flows info web/10.0.0.3: 1 flow (0 active) left"}},
		{"the end of a drain", drained(3), nil, []string{"override info the drain of web/10.0.0.3 is over"}},
		{"a refused reload", nil, func(s *Status) { s.Reload = Reload{Time: s.Started, Error: "line 3: no\nline 4: no"} },
			[]string{"reload error reload refused, everything goes on with the configuration as it was: line 3: no; line 4: no"}},
		{"a reload", nil, func(s *Status) { s.Reload.Time = s.Time }, []string{"reload info configuration reloaded"}},
		{"another plane", nil, func(s *Status) {
			s.Plane, s.Services[0].Plane = Plane{Name: "xdp-generic", Reason: "no driver"}, Plane{Name: "xdp-generic"}
		},
			[]string{"plane info packets are forwarded by xdp-generic: no driver"}},
		{"no plane", nil, func(s *Status) { s.Plane, s.Services[0].Plane = Plane{Reason: "no bpffs"}, Plane{Reason: "no bpffs"} },
			[]string{"plane error no packet is forwarded: no bpffs"}},
		{"one service beside the others", nil, func(s *Status) { s.Services[0].Plane = Plane{Name: "ipvs", Reason: "NAT"} },
			[]string{"plane info service web is on ipvs: NAT"}},
		{"the health of the box", nil, func(s *Status) { s.Healthy, s.Unhealthy = false, "counters can't be read" },
			[]string{"director error not as configured: counters can't be read"}},
		{"maintenance", nil, func(s *Status) { s.Maintenance = true },
			[]string{"director warning an operator took this box out of all elections, until xdirector maintenance off"}},
		{"another election", nil, func(s *Status) { s.Election.Restarts = 1 },
			[]string{"election error the process of the elections was restarted: once so far; the log says why"}},
		{"the stop", nil, func(s *Status) { s.Stopping, s.Healthy, s.Unhealthy = true, false, "stopping" },
			[]string{"director warning this director is stopping, and hands its instances over"}},
	} {
		var got []string
		for _, e := range Changes(scene(c.before), scene(c.after)) {
			got = append(got, e.Kind+" "+e.Level+" "+e.Text)
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s: want -, got +:\n%s", c.name, diff)
		}
	}
}

func TestTheFirstPictureTellsTheStartAndWhatIsNotAsItShouldBe(t *testing.T) {
	var got []string
	for _, e := range Changes(nil, scene(func(s *Status) {
		s.Services[0].RealServers[0].Up, s.Services[0].RealServers[0].Reason = false, "down before the restart"
		s.Instances = append(s.Instances, Instance{Name: "old", State: "MASTER", Since: s.Started.Add(-time.Hour)}) // of an election that went on
	})) {
		got = append(got, e.Text)
	}
	want := []string{"xdirector 1.0 started on lb1", "packets are forwarded by xdp-native: every interface can", "VI_1 is MASTER, was INIT: no advert for 3.6s",
		"web/10.0.0.3 is down: down before the restart; its flows are scheduled afresh"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("want -, got +:\n%s", diff)
	}
}

func TestAFeedRemembersWhatMattersAndWaitsForNobody(t *testing.T) {
	var f Feed
	f.Publish([]Event{{Kind: KindCheck, Text: "passing"}, {Kind: KindReload, Text: "first"}})
	first := f.Recent(0)
	if len(first) != 1 || first[0].Text != "first" {
		t.Fatalf("remembered: %+v", first)
	}
	l, missed := f.Listen(first[0].ID - 1)
	defer l.Close()
	if len(missed) != 1 || missed[0].ID != first[0].ID {
		t.Errorf("missed: %+v", missed)
	}
	if _, missed := f.Listen(first[0].ID); len(missed) != 0 {
		t.Errorf("nothing was missed, and it got %+v", missed)
	}
	for range 3 * feedHistory {
		f.Publish([]Event{{Kind: KindReload}})
	}
	if got := f.Recent(0); len(got) != feedHistory || got[0].ID >= got[1].ID {
		t.Errorf("%d events are remembered, from %d on", len(got), got[0].ID)
	}
	if len(l.C) != feedQueue || l.Lost() != 3*feedHistory-feedQueue || l.Lost() != 0 {
		t.Errorf("a listener that reads nothing has %d events", len(l.C))
	}
	if e := <-l.C; e.ID <= first[0].ID {
		t.Errorf("event %+v after %d", e, first[0].ID)
	}
}
