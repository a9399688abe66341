package web

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/xdirector/xdirector/pkg/status"
	"github.com/xdirector/xdirector/test/lab"
)

// filled is a page with two minutes of history.
func filled() (*Page, *box) {
	b := &box{}
	p := New(b.status, &b.feed)
	for n := range 61 {
		b.publish(picture(2*n, waves))
		p.turn()
	}
	return p, b
}

func get(h http.Handler, path string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	return w
}

// live is a stream that a test reads.
type live struct {
	*http.Response
	lines *bufio.Scanner
}

// open opens a stream and fails the test if it isn't one.
func open(t *testing.T, url string) live {
	t.Helper()
	r, err := http.Get(url + "/live")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Body.Close() })
	if r.StatusCode != http.StatusOK || r.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("the stream is %s %s", r.Status, r.Header.Get("Content-Type"))
	}
	l := live{r, bufio.NewScanner(r.Body)}
	l.lines.Buffer(nil, 1<<24)
	return l
}

// next reads up to the next section of that name, and returns its JSON.
func (l live) next(t *testing.T, name string) string {
	t.Helper()
	for wanted := false; l.lines.Scan(); {
		if data, ok := strings.CutPrefix(l.lines.Text(), "data: "); ok && wanted {
			return data
		}
		wanted = l.lines.Text() == "event: "+name
	}
	t.Fatalf("the stream ended before %s: %v", name, l.lines.Err())
	return ""
}

func TestPageShowsEverythingOfThePictureAsText(t *testing.T) {
	p, _ := filled()
	w := get(p, "/")
	body := w.Body.String()
	for _, want := range []string{
		"lb1", "healthy, but look at the warnings", "xdp-native: every interface runs it", "123,456 of 1.05 M (11.8 %)", "VI_1", "MASTER", "192.168.5.100/32 192.168.5.101/32",
		"SPLIT BRAIN: 10.20.0.3 is MASTER too", "80, not 100", "script chk_uplink failed: -20", "group dmz", "TCP 192.168.5.100:80 wlc persistent 50 s", "3 of 4 up, quorum 2 of 2",
		"DOWN 3m35s: dial tcp 192.168.5.105:80", "up, drained", "packets refused so far: denied 12", "on ipvs: forwarding nat", "sorry server, waits", "no real server is up",
		"can&#39;t be reached: no answer to neighbour solicitations on eth1", "xdirector undrain web/192.168.5.104", "VI_OLD is FAULT, was INIT: interface eth3 is down", "k packets/s", "Mbit/s", "webhook pager: 40 sent, 2 failed, 0 dropped: Post",
	} {
		if !strings.Contains(body, want) {
			t.Errorf("the page has no %q", want)
		}
	}
	if strings.Contains(body, "<script>alert") || !strings.Contains(body, "&lt;script&gt;alert") {
		t.Error("a reason is not text")
	}
	if strings.Contains(body, "style=") || strings.Contains(body, "onclick") || strings.Count(body, "<script") != 1 {
		t.Error("the page has script or style that its policy forbids")
	}
}

func TestAnswersCarryThePolicyWhateverIsAsked(t *testing.T) {
	p, _ := filled()
	for _, row := range []struct {
		method, path string
		code         int
	}{
		{"GET", "/", 200}, {"HEAD", "/", 200}, {"HEAD", "/live", 200}, {"GET", "/?q=web", 200}, {"GET", "/static/page.css", 200}, {"GET", "/static/page.js", 200}, {"GET", "/static/icon.svg", 200},
		{"GET", "/static/", 404}, {"GET", "/static", 404}, {"GET", "/static/page.html", 404}, {"GET", "/index.html", 404}, {"GET", "/static/..%2fpage.go", 404}, {"GET", "/static/%2e%2e/page.html", 404},
		{"GET", "/static/../static/page.js", 307}, {"GET", "//evil.example/", 307}, {"GET", "/static/page.js/", 404}, {"GET", "/static/page.js%00", 404}, {"GET", "/%2e%2e/%2e%2e/etc/passwd", 404},
		{"GET", "/..%2f..%2fetc%2fpasswd", 404}, {"GET", `/\evil.example`, 404}, {"GET", "/?q=" + strings.Repeat("a", 101), 400}, {"GET", "/live?q=" + strings.Repeat("a", 101), 400}, {"GET", "/?q=%ff%00%e2%80%ae", 200},
		{"POST", "/", 405}, {"PUT", "/live", 405}, {"DELETE", "/static/page.js", 405}, {"OPTIONS", "/", 405}, {"TRACE", "/nothing", 405}, {"BREW", "/", 405},
	} {
		t.Run(row.method+" "+row.path[:min(len(row.path), 40)], func(t *testing.T) {
			w := httptest.NewRecorder()
			r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(row.method + " " + row.path + " HTTP/1.1\r\nHost: localhost\r\n\r\n")))
			if err != nil {
				t.Fatal(err)
			}
			p.ServeHTTP(w, r)
			if w.Code != row.code {
				t.Errorf("answer is %d, want %d", w.Code, row.code)
			}
			if to := w.Header().Get("Location"); to != "" && (!strings.HasPrefix(to, "/") || strings.HasPrefix(to, "//") || strings.HasPrefix(to, `/\`)) {
				t.Errorf("it leads elsewhere: %s", to)
			}
			for name, want := range map[string]string{"Content-Security-Policy": policy, "X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer"} {
				if got := w.Header().Get(name); got != want {
					t.Errorf("%s is %q", name, got)
				}
			}
		})
	}
}

func TestWhatThePageLoadsIsKnownAgain(t *testing.T) {
	p, _ := filled()
	first := get(p, "/static/page.js")
	r := httptest.NewRequest(http.MethodGet, "/static/page.js", nil)
	r.Header.Set("If-None-Match", first.Header().Get("ETag"))
	w := httptest.NewRecorder()
	p.ServeHTTP(w, r)
	if first.Header().Get("Content-Type") != "text/javascript; charset=utf-8" || first.Body.Len() == 0 || w.Code != http.StatusNotModified {
		t.Errorf("the script is %v, and %d the second time", first.Header(), w.Code)
	}
}

func TestBeforeTheFirstPictureAllIs503(t *testing.T) {
	p := New(func() *status.Status { return nil }, &status.Feed{})
	p.turn()
	for _, path := range []string{"/", "/live"} {
		if w := get(p, path); w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" || w.Body.String() != "the director is starting\n" {
			t.Errorf("%s is %d %q", path, w.Code, w.Body)
		}
	}
}

func TestStreamTellsWhatChangesAndNothingElse(t *testing.T) {
	p, b := filled()
	server := httptest.NewServer(p)
	defer func() { server.CloseClientConnections(); server.Close() }()
	stream := open(t, server.URL)
	var head struct{ Name, State string }
	if err := json.Unmarshal([]byte(stream.next(t, "head")), &head); err != nil || head.Name != "lb1" {
		t.Errorf("the head is %+v, %v", head, err)
	}
	if first := stream.next(t, "services"); strings.Contains(first, "<script>") || !strings.Contains(first, `\u003cscript`) {
		t.Errorf("services are %s", first)
	}
	stream.next(t, "events")
	s := picture(124, waves)
	s.Maintenance = true
	b.publish(s)
	p.turn()
	for _, want := range []string{"event: head", "event: instances", "event: services", "event: overrides", "event: events"} {
		for {
			if !stream.lines.Scan() {
				t.Fatal("the stream ended")
			}
			line := stream.lines.Text()
			if line == want {
				break
			}
			if strings.HasPrefix(line, "event: ") {
				t.Fatalf("the stream says %s, want %s", line, want)
			}
		}
	}
	if events := stream.lines.Scan() && strings.Contains(stream.lines.Text(), "an operator took this box out of all elections"); !events {
		t.Errorf("the events are %s", stream.lines.Text())
	}
	p.turn() // the same picture: nothing to tell
	s = picture(126, waves)
	s.Maintenance = true
	b.publish(s)
	p.turn()
	stream.lines.Scan() // the empty line behind the last section
	if stream.lines.Scan(); stream.lines.Text() != "event: head" {
		t.Errorf("after a picture without changes the stream says %s", stream.lines.Text())
	}
}

func TestStreamOutlivesTheServersLimits(t *testing.T) {
	p, b := filled()
	server := httptest.NewUnstartedServer(p)
	limit := 100 * time.Millisecond
	server.Config.ReadTimeout, server.Config.WriteTimeout = limit, limit
	server.Start()
	defer func() { server.CloseClientConnections(); server.Close() }()
	stream := open(t, server.URL)
	stream.next(t, "events")
	for n := range 5 { // together far beyond the limits
		<-time.After(limit)
		b.publish(picture(124+2*n, waves))
		p.turn()
		stream.next(t, "head")
	}
}

func TestSlowReaderIsCutOffAndHoldsUpNobody(t *testing.T) {
	many := &box{}
	p := New(many.status, &many.feed)
	p.limit = 200 * time.Millisecond
	many.publish(crowd(300, 0))
	server := httptest.NewServer(p)
	defer func() { server.CloseClientConnections(); server.Close() }()
	slow, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Close()
	if err := slow.(*net.TCPConn).SetReadBuffer(4096); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(slow, "GET /live HTTP/1.1\r\nHost: localhost\r\n\r\n")
	viewers := func(want int) error {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.viewers != want {
			return fmt.Errorf("%d viewers, want %d", p.viewers, want)
		}
		return nil
	}
	if err := lab.Wait(t.Context(), patience, func() error { return viewers(1) }); err != nil {
		t.Fatal(err)
	}
	quick := open(t, server.URL)
	seconds := 0
	if err := lab.Wait(t.Context(), patience, func() error {
		seconds += 2
		many.publish(crowd(300, seconds))
		p.turn()
		quick.next(t, "services")
		return viewers(1)
	}); err != nil {
		t.Fatal(err)
	}
}

func TestOneViewerTooManyIsToldToComeBack(t *testing.T) {
	p, _ := filled()
	server := httptest.NewServer(p)
	defer func() { server.CloseClientConnections(); server.Close() }()
	var streams []live
	for range mostLive {
		streams = append(streams, open(t, server.URL))
	}
	r, err := http.Get(server.URL + "/live")
	if err != nil {
		t.Fatal(err)
	}
	text, _ := io.ReadAll(r.Body)
	r.Body.Close()
	if r.StatusCode != http.StatusServiceUnavailable || r.Header.Get("Retry-After") == "" || !strings.Contains(string(text), "32 viewers") {
		t.Errorf("one more is %s %s", r.Status, text)
	}
	if w := get(p, "/"); w.Code != http.StatusOK {
		t.Errorf("the page is %d then", w.Code)
	}
	if len(p.looks) != 1 {
		t.Errorf("the picture is made %d times for the same search", len(p.looks))
	}
	streams[0].Body.Close()
	if err := lab.Wait(t.Context(), patience, func() error {
		r, err := http.Get(server.URL + "/live")
		if err == nil {
			r.Body.Close()
			if r.StatusCode != http.StatusOK {
				err = fmt.Errorf("still %s", r.Status)
			}
		}
		return err
	}); err != nil {
		t.Error(err)
	}
}

func TestAnotherSiteTakesNoPlaceOfAViewer(t *testing.T) {
	p, _ := filled()
	for site, want := range map[string]int{"cross-site": 403, "same-site": 403, "same-origin": 200, "": 200} {
		r := httptest.NewRequest(http.MethodHead, "/live", nil)
		r.Header.Set("Sec-Fetch-Site", site)
		w := httptest.NewRecorder()
		p.ServeHTTP(w, r)
		if w.Code != want {
			t.Errorf("%q gets %d, want %d", site, w.Code, want)
		}
	}
}
