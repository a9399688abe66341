package web

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/xdirector/xdirector/pkg/status"
)

// names are the keys of the groups of a table.
func names(v view, table string) (all []string) {
	for _, t := range v.Tables {
		for _, g := range t.Groups {
			if t.ID == table {
				all = append(all, g.Key)
			}
		}
	}
	return all
}

func TestWithTenThousandServicesThePageStaysSmall(t *testing.T) {
	b := &box{}
	p := New(b.status, &b.feed)
	for n := range 3 {
		b.publish(crowd(10000, 2*n))
		p.turn()
	}
	w := get(p, "/")
	v := see(b.latest, nil, &p.history, "")
	data, err := json.Marshal(v.Tables[1])
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("the page has %d kB, its services %d kB of JSON", w.Body.Len()>>10, len(data)>>10)
	if w.Body.Len() > 1<<20 || len(data) > 256<<10 {
		t.Errorf("the page has %d bytes, its services %d of JSON", w.Body.Len(), len(data))
	}
	shown := names(v, "services")
	if len(shown) != most || !strings.Contains(w.Body.String(), "200 of 10,000 are shown") {
		t.Errorf("%d services are shown", len(shown))
	}
	if shown[0] != "service-00007" || shown[9] != "service-09007" || shown[10] != "service-09810" || shown[199] != "service-09999" {
		t.Errorf("shown are not the broken ones, then the busiest: %v", shown)
	}
	if found := names(see(b.latest, nil, &p.history, "service-04321"), "services"); len(found) != 1 || found[0] != "service-04321" {
		t.Errorf("a search finds %v", found)
	}
}

func TestServiceWithAThousandRealServersShowsThoseThatAreDown(t *testing.T) {
	s := picture(0, waves)
	v := &s.Services[2]
	one := v.RealServers[0]
	v.RealServers = nil
	for range 1000 {
		v.RealServers = append(v.RealServers, one)
	}
	v.RealServers[777].Up, v.RealServers[777].Address = false, "192.168.7.77"
	g := service(s, &history{}, find(s, 2, ""), manyServers)
	if len(g.Rows) != manyServers+2 || g.Rows[1].Key != "192.168.7.77" || g.Rows[51].Cells[0] != "950 more real servers" {
		t.Errorf("%d rows, of which the second is %v and the last %v", len(g.Rows), g.Rows[1].Cells, g.Rows[len(g.Rows)-1].Cells)
	}
}

func TestSearchFindsNamesAddressesAndStates(t *testing.T) {
	s := picture(0, waves)
	events := status.Changes(nil, s)
	for q, want := range map[string]string{
		"":              "db web web6 dns",
		"web":           "web web6",
		"192.168.5.110": "dns",
		"down":          "db web", // real servers
		"ipvs":          "db",
		"nothing":       "",
		"5.100:80":      "web",
	} {
		if got := strings.Join(names(see(s, events, &history{}, q), "services"), " "); got != want {
			t.Errorf("%q finds %q, want %q", q, got, want)
		}
	}
	v := see(s, events, &history{}, "192.168.5.110")
	if rows := v.Tables[1].Groups[0].Rows; len(rows) != 3 || rows[1].Key != "192.168.5.110" || rows[2].Cells[0] != "1 more real servers" {
		t.Errorf("a search for a real server shows %v", rows)
	}
	if got := strings.Join(names(see(s, events, &history{}, "fault"), "instances"), " "); got != "VI_OLD" {
		t.Errorf("a search for FAULT finds %s", got)
	}
	if got := see(s, events, &history{}, "vi_old"); len(got.Tables[3].Groups) != 1 {
		t.Errorf("a search for VI_OLD finds the events %v", got.Tables[3].Groups)
	}
}

func TestRatesAreThoseBetweenTwoSamples(t *testing.T) {
	var h history
	name := server{"dns", "192.168.5.110", false}
	at := func(seconds int, packets uint64) *trace {
		s := picture(seconds, waves)
		s.Services[2].RealServers[0].Packets = packets
		h.sample(s)
		return h.of(name)
	}
	if got := at(0, 1e6); got.rates.packets != 0 {
		t.Errorf("before the second sample the rate is %v", got.rates)
	}
	if got := at(1, 2e6); got.rates.packets != 0 {
		t.Errorf("too early a sample counts: %v", got.rates)
	}
	if got := at(4, 1e6+400); got.rates.packets != 100 {
		t.Errorf("the rate is %v, want 100", got.rates.packets)
	}
	var c curve
	c.add(&h, h.of(name))
	if c[points-1] != 100 || c[points-2] != 0 || !strings.HasSuffix(c.String(), " 0 100") {
		t.Errorf("the curve is %v", c)
	}
	if got := at(6, 5); got.rates.packets != 0 {
		t.Errorf("a counter that begins anew makes the rate %v", got.rates.packets)
	}
	s := picture(8, waves)
	s.Services = s.Services[:1]
	h.sample(s)
	if h.of(name).sampled != 0 || len(h.traces) != 5 {
		t.Errorf("%d traces are kept, want those of 4 real servers and a sorry server", len(h.traces))
	}
}

func TestNumbersAreForPeople(t *testing.T) {
	for n, want := range map[float64]string{0: "0", 0.01: "0", 0.5: "0.5/s", 1: "1/s", 9.97: "10/s", 42.4: "42/s", 999.4: "999/s", 999.6: "1.00 k/s", 12345: "12.3 k/s", 123456: "123 k/s", 1e6: "1.00 M/s", 2.5e10: "25.0 G/s"} {
		if got := perSecond(n, ""); got != want {
			t.Errorf("%v is %q, want %q", n, got, want)
		}
	}
	for n, want := range map[float64]string{0: "0 bit/s", 12: "12 bit/s", 1234: "1.23 kbit/s"} {
		if got := perSecond(n, "bit"); got != want {
			t.Errorf("%v is %q, want %q", n, got, want)
		}
	}
	for n, want := range map[uint64]string{0: "0", 999: "999", 1000: "1,000", 123456: "123,456", 1048576: "1.05 M", 1 << 63: "9.22 E"} {
		if got := count(n); got != want {
			t.Errorf("%d is %q, want %q", n, got, want)
		}
	}
	if got := plain("a\u202eb\x1b[2J\xff"); got != "a?b?[2J\ufffd" {
		t.Errorf("hidden characters are %q", got)
	}
}

func TestHeadSaysWhatIsWrongWithTheBox(t *testing.T) {
	for name, row := range map[string]struct {
		change       func(*status.Status)
		state, level string
	}{
		"well":        {func(*status.Status) {}, "healthy", ""},
		"warnings":    {func(s *status.Status) { s.Reload.Success = false }, "healthy, but look at the warnings", "warning"},
		"unhealthy":   {func(s *status.Status) { s.Healthy, s.Unhealthy = false, "no plane\u202e" }, "NOT HEALTHY: no plane?", "error"},
		"stopping":    {func(s *status.Status) { s.Healthy, s.Unhealthy, s.Stopping = false, "it stops", true }, "stopping: hands its instances over", "warning"},
		"maintenance": {func(s *status.Status) { s.Maintenance = true }, "maintenance: this box takes part in no election, until xdirector maintenance off", "warning"},
	} {
		s := &status.Status{RouterID: "lb1", Time: noon, Healthy: true, Reload: status.Reload{Success: true, Time: noon}}
		row.change(s)
		if h := heading(s, &history{}); h.State != row.state || h.Level != row.level || len(h.Warnings) > 1 {
			t.Errorf("%s: it says %q (%s) and warns of %v", name, h.State, h.Level, h.Warnings)
		}
	}
	degraded := &status.Status{Plane: status.Plane{Name: "xdp-generic", Reason: "eth0 can't do more", Degraded: true}}
	if h := heading(degraded, &history{}); h.Facts[0] != (fact{"Plane", "warning", "xdp-generic: eth0 can't do more"}) {
		t.Errorf("of a degraded plane it says %v", h.Facts[0])
	}
	if h := heading(crowdOfWarnings(), &history{}); len(h.Warnings) != mostWarnings || h.Warnings[mostWarnings-1].Text != "and 32 more" {
		t.Errorf("of many warnings it shows %v", h.Warnings)
	}
}

// crowdOfWarnings is a picture with 51 warnings.
func crowdOfWarnings() *status.Status {
	s := crowd(50, 0)
	s.Notifications = nil
	for i := range s.Services {
		for k := range s.Services[i].RealServers {
			s.Services[i].RealServers[k].Up = false
		}
	}
	return s
}

func BenchmarkTenThousandServices(b *testing.B) {
	bad := crowd(10000, 2)
	for i := range bad.Services {
		for k := range bad.Services[i].RealServers {
			r := &bad.Services[i].RealServers[k]
			r.Up, r.Reason, r.NextHopError = false, "connect: no route to host", "no answer to ARP requests"
		}
	}
	for name, row := range map[string]struct {
		s *status.Status
		q string
	}{
		"well": {crowd(10000, 2), ""}, "down": {bad, ""}, "search": {crowd(10000, 2), "4321"},
	} {
		b.Run(name, func(b *testing.B) {
			var h history
			h.sample(crowd(10000, 0))
			for b.Loop() {
				h.last = h.last.Add(-step)
				h.sample(row.s)
				for _, part := range see(row.s, nil, &h, row.q).parts() {
					if _, err := json.Marshal(part.value); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}
