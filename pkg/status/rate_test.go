package status

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestRatesAreThoseBetweenTwoPictures(t *testing.T) {
	at := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	picture := func(after time.Duration, servers []RealServer, sorry uint64) *Status {
		return &Status{Measured: at.Add(after), Services: []Service{{Name: "web", Address: "10.0.0.1", Port: 80, RealServers: servers,
			SorryServer: &SorryServer{Address: "10.0.0.3", Port: 80, Packets: sorry, Bytes: 2 * sorry, FlowsCreated: 1, Flows: 1}}}}
	}
	before := picture(0, []RealServer{
		{Address: "10.0.0.3", Port: 80, Packets: 1000, Bytes: 64000, FlowsCreated: 10},
		{Address: "10.0.0.4", Port: 80, Packets: 1000, Bytes: 64000, FlowsCreated: 10},
	}, 5)
	after := picture(2*time.Second, []RealServer{
		{Address: "10.0.0.4", Port: 80, Packets: 10, Bytes: 640, FlowsCreated: 10, Flows: 1, Active: 1}, // began anew
		{Address: "10.0.0.3", Port: 80, Packets: 3000, Bytes: 164000, FlowsCreated: 11, Flows: 7, Active: 5},
		{Address: "10.0.0.5", Port: 80, Packets: 3000, Bytes: 164000, FlowsCreated: 11, Flows: 2, Active: 0}, // is new
	}, 15)
	list, all, ok := Rates(before, after)
	want := []ServiceRate{{Rate: Rate{Name: "web", Endpoint: "10.0.0.1:80", Packets: 1010, Bytes: 50330, NewFlows: 0.5, Flows: 11, Active: 6}, RealServers: []Rate{
		{Name: "10.0.0.4", Endpoint: "10.0.0.4:80", Packets: 5, Bytes: 320, NewFlows: 0, Flows: 1, Active: 1},
		{Name: "10.0.0.3", Endpoint: "10.0.0.3:80", Packets: 1000, Bytes: 50000, NewFlows: 0.5, Flows: 7, Active: 5},
		{Name: "10.0.0.5", Endpoint: "10.0.0.5:80", Flows: 2},
		{Name: "10.0.0.3", Endpoint: "10.0.0.3:80", Sorry: true, Packets: 5, Bytes: 10, Flows: 1},
	}}}
	if diff := cmp.Diff(want, list); diff != "" || !ok {
		t.Errorf("%v; want -, got +:\n%s", ok, diff)
	}
	if sum := (Rate{Name: "all", Packets: 1010, Bytes: 50330, NewFlows: 0.5, Flows: 11, Active: 6}); all != sum {
		t.Errorf("all are %+v, want %+v", all, sum)
	}
	for name, b := range map[string]*Status{"the same reading": picture(2*time.Second, nil, 0), "a later one": picture(time.Hour, nil, 0), "none": {}} {
		if list, _, ok := Rates(b, after); ok {
			t.Errorf("%s: rates %+v", name, list)
		}
	}
}

func TestOnlyShowsWhatIsAskedFor(t *testing.T) {
	for name, tt := range map[string]struct {
		names     []string
		instances []string
		services  []string
		overrides int
		missing   string
	}{
		"a service":                         {[]string{"shop"}, nil, []string{"shop"}, 4, ""},
		"an instance":                       {[]string{"VI_1"}, []string{"VI_1"}, nil, 0, ""},
		"both":                              {[]string{"VI_1", "web"}, []string{"VI_1"}, []string{"web"}, 0, ""},
		"a pattern":                         {[]string{"net*"}, nil, []string{"net", "net6"}, 0, ""},
		"a virtual address":                 {[]string{"192.168.5.101"}, []string{"VI_1"}, []string{"dns"}, 0, ""},
		"a virtual address with its prefix": {[]string{"192.168.6.1"}, []string{"gateway"}, nil, 0, ""},
		"a network":                         {[]string{"2001:0db8:0::"}, nil, []string{"net6"}, 0, ""},
		"a real server":                     {[]string{"192.168.5.105"}, nil, []string{"web", "shop"}, 4, ""},
		"a name that nothing has":           {[]string{"web", "wbe"}, nil, []string{"web"}, 0, "wbe"},
		"no pattern":                        {[]string{"[web"}, nil, nil, 0, "[web"},
	} {
		whole := busy()
		got, missing := whole.Only(tt.names)
		var instances, services []string
		for _, i := range got.Instances {
			instances = append(instances, i.Name)
		}
		for _, v := range got.Services {
			services = append(services, v.Name)
		}
		if diff := cmp.Diff([][]string{tt.instances, tt.services}, [][]string{instances, services}); diff != "" || missing != tt.missing || len(got.Overrides) != tt.overrides {
			t.Errorf("%s: missing %q, %d overrides; want -, got +:\n%s", name, missing, len(got.Overrides), diff)
		}
		if diff := cmp.Diff(busy(), whole); diff != "" {
			t.Errorf("%s: the published picture was changed: %s", name, diff)
		}
	}
}
