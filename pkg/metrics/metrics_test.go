package metrics

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/prometheus/common/expfmt"

	"github.com/xdirector/xdirector/pkg/status"
)

var update = flag.Bool("update", false, "write testdata anew")

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// picture has a value for every metric.
func picture() *status.Status {
	return &status.Status{
		Version: "0.1.0", Time: noon, Healthy: true,
		Instances: []status.Instance{{
			Name: "VI_1", State: "MASTER", Transitions: map[string]uint64{"INIT": 1, "BACKUP": 3, "MASTER": 2}, AdvertsSent: 1234, AdvertsReceived: 567,
			AdvertsRefused: map[string]uint64{"password": 8, "ttl": 9},
			Mismatches:     []status.Notice{{Kind: "addresses", Peer: "192.168.5.2"}, {Kind: "addresses", Peer: "192.168.5.3"}, {Kind: "collision", Peer: "192.168.5.4"}},
			Priority:       80, ConfiguredPriority: 100, AdvertInterval: 100 * time.Millisecond, Yielding: true, AdvertsAbsorbed: 99, AddressesRestored: 4,
			AdvertsByForm: map[string]uint64{"rfc5798": 500, "rfc9568": 67}, AdvertsFiltered: map[string]uint64{"ttl": 10},
		}, {
			Name: "VI_2", State: "FAULT",
		}},
		Maintenance: true,
		Election: status.Election{
			PID: 4711, Restarts: 2, Denied: []string{"real-time scheduling"}, FastPath: "filter", FastPathReason: "as configured",
			LatenessBounds: []float64{0.0001, 0.001, 0.01}, LatenessCounts: []uint64{50, 30, 15, 5}, LatenessSum: 0.5,
		},
		Services: []status.Service{{
			Name: "web", Plane: status.Plane{Degraded: true, Name: "xdp-native", Reason: "every interface\nruns \"it\""},
			Refused: map[string]uint64{"denied": 12, "rate_new": 0},
			Quorum:  status.Quorum{Up: true, Weight: 1, Needed: 1}, SorryServer: &status.SorryServer{Address: "192.168.5.109", Port: 80, Packets: 11, Bytes: 1100, FlowsCreated: 3, Flows: 2},
			RealServers: []status.RealServer{
				{Address: "192.168.5.103", Port: 80, Weight: 1, Up: true, Transitions: map[string]uint64{"up": 2}, Checks: map[string]uint64{"up": 100}, CheckDuration: 1500 * time.Microsecond, Packets: 1 << 40, Bytes: 5000, FlowsCreated: 60, Flows: 7},
				{Address: "2001:db8::4", Port: 80, Weight: 0},
			},
		}},
		Overrides: []status.Override{{Service: "web", RealServer: "2001:db8::4", Kind: status.KindDrain}},
		FlowTable: status.FlowTable{Size: 1048576, Flows: 7, Unstored: 2},
		Interfaces: []status.Interface{{Name: "eth0", Mode: "native", Verdicts: map[string]uint64{"tx": 10, "pass_not_ours": 20}, Drops: map[string]uint64{"no_real_server": 3},
			Lost: []status.RedirectErrors{{To: "eth1", Reason: "down", Frames: 4}}}},
		Notifications: []status.Notifications{{Target: "chat", Sent: 12, Failed: 3, Dropped: 1}},

		Reload: status.Reload{Success: true, Time: noon.Add(-1500 * time.Millisecond)},
	}
}

func get(h http.Handler, path string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	return w
}

// text is our part of a scrape.
func text(s *status.Status) string {
	var b strings.Builder
	for _, family := range newPage(s).gather() {
		if _, err := expfmt.MetricFamilyToText(&b, family); err != nil {
			panic(err) // no sample is without its value
		}
	}
	return b.String()
}

func TestExpositionIsExactlyThePicture(t *testing.T) {
	got := strings.ReplaceAll(text(picture()), runtime.Version(), "GOVERSION")
	const file = "testdata/metrics.txt"
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("exposition is\n%s\nwant\n%s(go test ./pkg/metrics -update writes it anew)", got, want)
	}
}

func TestEveryMetricIsShownWithItsLabels(t *testing.T) {
	page := text(picture())
	for _, m := range metrics() {
		sample := regexp.MustCompile(`(?m)^` + prefix + m.name + `(?:_bucket)?(?:\{(.*)\})? \S+$`).FindStringSubmatch(page)
		if sample == nil {
			t.Errorf("the full picture has no %s", m.name)
			continue
		}
		var labels []string
		for _, label := range regexp.MustCompile(`(\w+)="(?:[^"\\]|\\.)*"`).FindAllStringSubmatch(sample[1], -1) {
			if label[1] != "le" {
				labels = append(labels, label[1])
			}
		}
		if !slices.Equal(labels, m.labels) {
			t.Errorf("%s has the labels %v, and says that it has %v", m.name, labels, m.labels)
		}
	}
}

func TestPrometheusHasNothingToSayAboutAScrape(t *testing.T) {
	promtool(t, get(Handler(picture, front()), "/metrics").Body, "check", "metrics")
	if out, err := promtoolSays(t, strings.NewReader("# HELP xdirector_x x\n# TYPE xdirector_x counter\nxdirector_x 1\n"), "check", "metrics"); err == nil {
		t.Errorf("a counter with a bad name is nothing to it: %s", out)
	}
}

func TestScrapeSurvivesBytesThatAreNoText(t *testing.T) {
	s := picture()
	s.Services[0].Plane.Reason = "\xff\"\\\n\xfe"
	s.Instances[0].Mismatches[0].Kind = "\x80"
	page := text(s)
	if want := `reason="?\"\\\n?"} 1`; !strings.Contains(page, want) || !utf8.ValidString(page) {
		t.Errorf("no %s in\n%s", want, page)
	}
}

func TestScrapeHoldsProductGoAndProcessMetrics(t *testing.T) {
	w := get(Handler(picture, front()), "/metrics")
	for _, name := range []string{"xdirector_vrrp_state{instance=\"VI_1\"} 2\n", "go_goroutines ", "process_open_fds "} {
		if !strings.Contains(w.Body.String(), name) {
			t.Errorf("the scrape (status %d) has no %q", w.Code, name)
		}
	}
}

func TestOneDoubledMetricDoesNotCostTheOthers(t *testing.T) {
	s := picture()
	s.Services = append(s.Services, s.Services[0])
	w := get(Handler(func() *status.Status { return s }, front()), "/metrics")
	if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), "xdirector_vrrp_state") {
		t.Errorf("status is %d, body %.200q", w.Code, w.Body)
	}
}

func TestHealthzTellsHealthAndReason(t *testing.T) {
	for name, row := range map[string]struct {
		change func(*status.Status)
		code   int
		body   string
	}{
		"healthy":   {func(*status.Status) {}, 200, "ok\n"},
		"unhealthy": {func(s *status.Status) { s.Healthy, s.Unhealthy = false, "plane ipvs: no such module" }, 503, "plane ipvs: no such module\n"},
		"no reason": {func(s *status.Status) { s.Healthy = false }, 503, "not healthy\n"},
	} {
		t.Run(name, func(t *testing.T) {
			s := picture()
			row.change(s)
			w := get(Handler(func() *status.Status { return s }, front()), "/healthz")
			if w.Code != row.code || w.Body.String() != row.body {
				t.Errorf("answer is %d %q, want %d %q", w.Code, w.Body, row.code, row.body)
			}
		})
	}
}

// stuck is a reader who doesn't read.
type stuck struct {
	*httptest.ResponseRecorder
	reached, until chan struct{}
}

func (s stuck) Write(b []byte) (int, error) {
	s.reached <- struct{}{}
	<-s.until
	return len(b), nil
}

func TestScrapesThatHangKeepOthersFromMemoryNotFromTheRest(t *testing.T) {
	h := Handler(picture, front())
	var group sync.WaitGroup
	w := stuck{httptest.NewRecorder(), make(chan struct{}), make(chan struct{})}
	for range scrapes {
		group.Go(func() {
			h.ServeHTTP(stuck{httptest.NewRecorder(), w.reached, w.until}, httptest.NewRequest(http.MethodGet, "/metrics", nil))
		})
		<-w.reached
	}
	if code := get(h, "/metrics").Code; code != http.StatusServiceUnavailable {
		t.Errorf("one more scrape gives %d", code)
	}
	if code := get(h, "/healthz").Code; code != http.StatusOK {
		t.Errorf("/healthz gives %d", code)
	}
	close(w.until)
	go func() {
		for range w.reached {
		}
	}()
	group.Wait()
	close(w.reached)
	if code := get(h, "/metrics").Code; code != http.StatusOK {
		t.Errorf("a scrape after those gives %d", code)
	}
}

// crowd is a picture with so many real servers, ten of each service.
func crowd(servers int) *status.Status {
	s := picture()
	one := s.Services[0]
	s.Services = nil
	for n := range servers / 10 {
		v := one
		v.Name, v.RealServers = fmt.Sprintf("service-%d", n), nil
		for i := range 10 {
			r := one.RealServers[0]
			r.Address = fmt.Sprintf("10.%d.%d.%d", n>>8, n&0xff, i+1)
			v.RealServers = append(v.RealServers, r)
		}
		s.Services = append(s.Services, v)
	}
	return s
}

func TestScrapeOfManyRealServersIsQuick(t *testing.T) {
	for servers, limit := range map[int]time.Duration{1000: 100 * time.Millisecond, 20000: time.Second} {
		s := crowd(servers)
		h := Handler(func() *status.Status { return s }, front())
		best := time.Hour // of some: this machine does other things too
		for range 5 {
			r := httptest.NewRequest(http.MethodGet, "/metrics", nil)
			r.Header.Set("Accept-Encoding", "gzip")
			w := httptest.NewRecorder()
			began := time.Now()
			h.ServeHTTP(w, r)
			if best = min(best, time.Since(began)); best < limit {
				break
			}
		}
		if best > 3*limit {
			t.Errorf("a scrape with %d real servers takes %s, want %s", servers, best, limit)
		}
	}
}

func BenchmarkScrape(b *testing.B) {
	for _, servers := range []int{1000, 20000} {
		s := crowd(servers)
		h := Handler(func() *status.Status { return s }, front())
		for _, encoding := range []string{"identity", "gzip"} {
			b.Run(fmt.Sprintf("%d-%s", servers, encoding), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					r := httptest.NewRequest(http.MethodGet, "/metrics", nil)
					r.Header.Set("Accept-Encoding", encoding)
					w := httptest.NewRecorder()
					w.Body = nil
					h.ServeHTTP(w, r)
				}
			})
		}
	}
}

func TestBeforeTheFirstPictureAllSay503(t *testing.T) {
	h := Handler(func() *status.Status { return nil }, front())
	for _, path := range []string{"/metrics", "/healthz"} {
		if w := get(h, path); w.Code != http.StatusServiceUnavailable || w.Body.String() != starting+"\n" {
			t.Errorf("%s is %d %q, want 503 %q", path, w.Code, w.Body, starting)
		}
	}
}

// front stands for the status page.
func front() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "page "+r.URL.Path) })
}

func TestOtherPathsAreThePages(t *testing.T) {
	h := Handler(picture, front())
	for _, path := range []string{"/", "/live", "/metrics/more"} {
		if body := get(h, path).Body.String(); body != "page "+path {
			t.Errorf("%s is %q", path, body)
		}
	}
}

func TestOnTheLoopbackForeignNamesAreRefused(t *testing.T) {
	for _, row := range []struct {
		local, host string
		code        int
	}{
		{"127.0.0.1", "127.0.0.1:9112", 200},
		{"127.0.0.1", "localhost:9112", 200},
		{"127.0.0.1", "LOCALHOST.", 200},
		{"127.0.0.1", "lb1:9112", 200},
		{"::1", "[::1]:9112", 200},
		{"::1", "[::1]", 200},
		{"127.0.0.1", "", 200}, // HTTP/1.0
		{"127.0.0.1", "evil.example:9112", 421},
		{"::1", "evil.example", 421},
		{"127.0.0.1", "127.0.0.1.evil.example:9112", 421},
		{"192.0.2.1", "lb1.example:9112", 200},
	} {
		for _, path := range []string{"/", "/metrics", "/live"} {
			r := httptest.NewRequest(http.MethodGet, path, nil)
			r.Host = row.host
			r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, &net.TCPAddr{IP: net.ParseIP(row.local), Port: 9112}))
			w := httptest.NewRecorder()
			Handler(picture, front()).ServeHTTP(w, r)
			if w.Code != row.code {
				t.Errorf("%s at %s for %q is %d, want %d", path, row.local, row.host, w.Code, row.code)
			}
		}
	}
}

// records passes on the messages of a log.
type records struct {
	slog.Handler
	lines chan slog.Record
}

func (r records) Enabled(context.Context, slog.Level) bool { return true }
func (r records) Handle(_ context.Context, record slog.Record) error {
	r.lines <- record
	return nil
}

// next waits for a message of the log.
func (r records) next(t *testing.T, want string) slog.Record {
	t.Helper()
	select {
	case record := <-r.lines:
		if record.Message != want {
			t.Fatalf("log says %q, want %q", record.Message, want)
		}
		return record
	case <-time.After(20 * time.Second):
		t.Fatalf("log does not say %q", want)
	}
	return slog.Record{}
}

func TestTakenPortIsToldOnceAndTakenWhenFree(t *testing.T) {
	other, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	address := other.Addr().String()
	log := records{slog.DiscardHandler, make(chan slog.Record, 1000)}
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- serve(ctx, address, Handler(picture, front()), slog.New(log), time.Millisecond) }()

	record := log.next(t, "metrics are not served")
	attributes := ""
	record.Attrs(func(a slog.Attr) bool { attributes += a.String() + "\n"; return true })
	for _, want := range []string{"address already in use", "listen=" + address, "cure=", "metrics.listen", "retry="} {
		if !strings.Contains(attributes, want) {
			t.Errorf("the log line does not hold %q: %s", want, attributes)
		}
	}
	other.Close()
	log.next(t, "metrics are served") // and no second error before
	response, err := http.Get("http://" + address + "/")
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	stop()
	if err := <-served; err != nil {
		t.Error(err)
	}
	if conn, err := net.Dial("tcp", address); err == nil {
		conn.Close()
		t.Error("the port is still open after the end")
	}
}

// scripted is a listener whose Accept fails at once.
type scripted struct{ net.Listener }

func (scripted) Accept() (net.Conn, error) { return nil, errors.New("no more files") }

func TestServeEndsWithTheErrorOfTheListener(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	err = serveOn(t.Context(), scripted{l}, Handler(picture, front()), slog.New(slog.DiscardHandler))
	if err == nil || err.Error() != "serve metrics: no more files" {
		t.Errorf("error is %v", err)
	}
}

func TestIdleConnectionsDoNotHoldUpTheEnd(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var group sync.WaitGroup
	group.Go(func() { serveOn(ctx, l, Handler(picture, front()), slog.New(slog.DiscardHandler)) })
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(conn, "GET /metrics HTTP/1.1\r\nHost:")
	stop()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.ReadAll(conn); err != nil && errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("a slow reader is still connected after the end")
	}
	group.Wait()
}
