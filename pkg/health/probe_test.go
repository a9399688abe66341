package health

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"
)

var loopback = netip.MustParseAddr("127.0.0.1")

// listen starts a server on loopback that gives each connection to serve, if that is not nil.
func listen(t *testing.T, serve func(net.Conn)) uint16 {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for serve != nil {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				serve(conn)
			}()
		}
	}()
	return portOf(t, l.Addr().String())
}

func portOf(t *testing.T, address string) uint16 {
	t.Helper()
	a, err := netip.ParseAddrPort(address)
	if err != nil {
		t.Fatal(err)
	}
	return a.Port()
}

// closedPort is one that nobody listens on.
func closedPort(t *testing.T) uint16 {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return portOf(t, l.Addr().String())
}

// run probes loopback from an address of its own, 127.0.0.9, and returns the reason, "" for success.
func run(t *testing.T, p prober, port uint16, c Check) string {
	t.Helper()
	c = withDefaults(c)
	ctx, cancel := context.WithTimeout(t.Context(), c.Timeout)
	defer cancel()
	begin := time.Now()
	err := p.probe(ctx, probe{source: netip.MustParseAddr("127.0.0.9"), address: loopback, port: port, check: c})
	if took := time.Since(begin); took > c.Timeout+2*time.Second {
		t.Errorf("probe took %v, its timeout is %v", took, c.Timeout)
	}
	if err != nil {
		return err.Error()
	}
	return ""
}

const short = 200 * time.Millisecond

func TestTCPCheckSucceedsWithTheHandshake(t *testing.T) {
	port := listen(t, nil) // a server that never accepts: the kernel does the handshake
	if got := run(t, tcpProber{}, port, Check{}); got != "" {
		t.Errorf("check failed: %s", got)
	}
}

func TestTCPCheckLeavesNoTimeWait(t *testing.T) {
	port := listen(t, func(conn net.Conn) { conn.Read(make([]byte, 1)) })
	for range 50 {
		if got := run(t, tcpProber{}, port, Check{}); got != "" {
			t.Fatalf("check failed: %s", got)
		}
	}
	table, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		t.Fatal(err)
	}
	const timeWait = "06"
	for line := range strings.Lines(string(table)) {
		fields := strings.Fields(line)
		if len(fields) > 3 && fields[3] == timeWait && strings.HasSuffix(fields[2], fmt.Sprintf(":%04X", port)) {
			t.Errorf("a probe left a TIME_WAIT entry: %s", line)
		}
	}
}

func TestTCPCheckFailures(t *testing.T) {
	if got, want := run(t, tcpProber{}, closedPort(t), Check{}), "connect: connection refused"; got != want {
		t.Errorf("closed port: %q, want %q", got, want)
	}
	// A full accept queue makes the kernel ignore SYNs: nothing answers, as with a real server that is off.
	if got, want := run(t, tcpProber{}, fullPort(t), Check{Timeout: short}), "connect: timeout after 200ms"; got != want {
		t.Errorf("silent port: %q, want %q", got, want)
	}
	err := tcpProber{}.probe(t.Context(), probe{source: netip.MustParseAddr("192.0.2.1"), address: loopback, port: 1})
	if want := "bind: cannot assign requested address"; err == nil || err.Error() != want {
		t.Errorf("source that this box doesn't have: %v, want %q", err, want)
	}
}

// seen is what a test server saw of a request.
type seen struct{ method, path, host, from, agent string }

func webServer(t *testing.T, overTLS bool, handler http.HandlerFunc) (*httptest.Server, uint16) {
	t.Helper()
	s := httptest.NewUnstartedServer(handler)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	if overTLS {
		s.StartTLS()
	} else {
		s.Start()
	}
	t.Cleanup(s.Close)
	return s, portOf(t, s.Listener.Addr().String())
}

func TestHTTPCheckSendsWhatTheConfigurationSays(t *testing.T) {
	requests := make(chan seen, 1)
	_, port := webServer(t, false, func(w http.ResponseWriter, r *http.Request) {
		from, _, _ := net.SplitHostPort(r.RemoteAddr)
		requests <- seen{r.Method, r.RequestURI, r.Host, from, r.UserAgent()}
	})
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1") // must not be used
	c := Check{Method: "HEAD", Path: "/health?deep=1&x=%20y", Host: "www.example.org:8080"}
	if got := run(t, httpProber{}, port, c); got != "" {
		t.Fatalf("check failed: %s", got)
	}
	want := seen{"HEAD", "/health?deep=1&x=%20y", "www.example.org:8080", "127.0.0.9", "xdirector"}
	if got := <-requests; got != want {
		t.Errorf("server saw %+v, want %+v", got, want)
	}
	if got := run(t, httpProber{}, port, Check{}); got != "" {
		t.Fatalf("check failed: %s", got)
	}
	want = seen{"GET", "/", fmt.Sprintf("127.0.0.1:%d", port), "127.0.0.9", "xdirector"}
	if got := <-requests; got != want {
		t.Errorf("server saw %+v, want %+v", got, want)
	}
}

func TestHTTPCheckLeavesOutTheUsualPortInHost(t *testing.T) {
	for _, h := range []httpProber{{}, {tls: true}} {
		for port, want := range map[uint16]string{80: "10.0.0.3", 443: "10.0.0.3:443"} {
			if h.tls {
				want = map[uint16]string{80: "10.0.0.3:80", 443: "10.0.0.3"}[port]
			}
			r, err := h.request(t.Context(), probe{address: netip.MustParseAddr("10.0.0.3"), port: port})
			if err != nil || r.Host != want {
				t.Errorf("tls %v, port %d: host %q, error %v; want %q", h.tls, port, r.Host, err, want)
			}
		}
	}
}

func TestHTTPCheckResults(t *testing.T) {
	followed := make(chan struct{}, 1)
	_, port := webServer(t, false, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/hints":
			w.WriteHeader(http.StatusEarlyHints)
		case "/503":
			w.WriteHeader(503)
		case "/redirect":
			http.Redirect(w, r, "/target", http.StatusFound)
		case "/target":
			followed <- struct{}{}
		case "/body":
			fmt.Fprint(w, "all is OK here")
		case "/early":
			fmt.Fprint(w, strings.Repeat(".", 10_000)+"OK")
			w.(http.Flusher).Flush()
			<-r.Context().Done() // the rest never comes
		case "/edge":
			fmt.Fprint(w, strings.Repeat(".", maxBody-2)+"OK")
		case "/huge":
			for range 1000 { // 64 MB before the text
				if _, err := fmt.Fprint(w, strings.Repeat(".", maxBody)); err != nil {
					return
				}
			}
			fmt.Fprint(w, "OK")
		case "/headers":
			w.Header().Set("X-Big", strings.Repeat("x", 2*maxHeader))
		case "/drip":
			for {
				fmt.Fprint(w, ".")
				w.(http.Flusher).Flush()
				select {
				case <-r.Context().Done():
					return
				case <-time.After(10 * time.Millisecond):
				}
			}
		}
	})
	tests := []struct {
		name  string
		check Check
		want  string
	}{
		{"a status in the default range", Check{}, ""},
		{"a status after an interim one", Check{Path: "/hints"}, ""},
		{"a status outside the default range", Check{Path: "/503"}, "status 503, expected 200-299"},
		{"a status in one of the ranges", Check{Path: "/503", Status: []StatusRange{{200, 200}, {500, 599}}}, ""},
		{"a status in none of the ranges", Check{Path: "/503", Status: []StatusRange{{204, 204}, {300, 399}}}, "status 503, expected 204, 300-399"},
		{"a redirect is a status and is not followed", Check{Path: "/redirect"}, "status 302, expected 200-299"},
		{"a body with the text", Check{Path: "/body", Body: "OK"}, ""},
		{"a body without the text", Check{Path: "/body", Body: "ok"}, `body does not contain "ok" (first 64 KiB)`},
		{"a body whose text comes before it stalls", Check{Path: "/early", Body: "OK", Timeout: time.Minute}, ""},
		{"a body whose text ends at the limit", Check{Path: "/edge", Body: "OK"}, ""},
		{"a huge body is not read to its end", Check{Path: "/huge", Body: "OK"}, `body does not contain "OK" (first 64 KiB)`},
		{"a body that drips", Check{Path: "/drip", Body: "OK", Timeout: short}, "answer: timeout after 200ms"},
		{"headers without end", Check{Path: "/headers"}, "answer: header larger than 64 KiB"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := run(t, httpProber{}, port, test.check); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
	select {
	case <-followed:
		t.Error("a redirect was followed")
	default:
	}
}

func TestHTTPCheckOfBrokenServers(t *testing.T) {
	hang := func(conn net.Conn) {
		for { // until the probe closes
			if _, err := conn.Read(make([]byte, 4096)); err != nil {
				return
			}
		}
	}
	tests := []struct {
		name string
		h    httpProber
		port func(t *testing.T) uint16
		want string
	}{
		{"port closed", httpProber{}, closedPort, "connect: connection refused"},
		{"connects and hangs", httpProber{}, func(t *testing.T) uint16 { return listen(t, hang) }, "answer: timeout after 200ms"},
		{"connects and hangs before TLS", httpProber{tls: true}, func(t *testing.T) uint16 { return listen(t, hang) }, "tls handshake: timeout after 200ms"},
		{"sends 1xx without end", httpProber{}, func(t *testing.T) uint16 {
			return listen(t, func(conn net.Conn) {
				for {
					if _, err := fmt.Fprint(conn, "HTTP/1.1 102 Processing\r\n\r\n"); err != nil {
						return
					}
				}
			})
		}, "answer: header larger than 64 KiB"},
		{"resets the connection", httpProber{}, func(t *testing.T) uint16 {
			return listen(t, func(conn net.Conn) {
				conn.Read(make([]byte, 4096))
				conn.(*net.TCPConn).SetLinger(0)
			})
		}, "answer: connection reset by peer"},
		{"closes without an answer", httpProber{}, func(t *testing.T) uint16 {
			return listen(t, func(conn net.Conn) { conn.Read(make([]byte, 4096)) })
		}, "answer: connection closed by the real server before the end"},
		{"drips its headers", httpProber{}, func(t *testing.T) uint16 {
			return listen(t, func(conn net.Conn) {
				fmt.Fprint(conn, "HTTP/1.1 200 OK\r\n")
				for i := 0; ; i++ {
					if _, err := fmt.Fprintf(conn, "X-%d: y\r\n", i); err != nil {
						return
					}
					<-time.After(10 * time.Millisecond)
				}
			})
		}, "answer: timeout after 200ms"},
		{"speaks plain HTTP where TLS is expected", httpProber{tls: true}, func(t *testing.T) uint16 {
			_, port := webServer(t, false, func(http.ResponseWriter, *http.Request) {})
			return port
		}, "tls handshake: the real server does not speak TLS on this port"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := run(t, test.h, test.port(t), Check{Timeout: short}); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
	garbage := listen(t, func(conn net.Conn) { fmt.Fprint(conn, "SSH-2.0-OpenSSH_9.2\r\n") })
	if got := run(t, httpProber{}, garbage, Check{}); got != `answer: malformed HTTP response "SSH-2.0-OpenSSH_9.2"` {
		t.Errorf("a server that doesn't speak HTTP: %q, want an answer error that shows what it said", got)
	}
}

func TestHTTPSCheckVerifiesTheCertificateUnlessInsecure(t *testing.T) {
	names := make(chan string, 1)
	_, port := webServer(t, true, func(w http.ResponseWriter, r *http.Request) { names <- r.TLS.ServerName })
	got := run(t, httpProber{tls: true}, port, Check{})
	if !strings.HasPrefix(got, "certificate: x509: ") {
		t.Errorf("a certificate that nobody trusts: %q, want an error that begins with certificate: x509:", got)
	}
	if got := run(t, httpProber{tls: true}, port, Check{Insecure: true, Host: "www.example.org:443"}); got != "" {
		t.Fatalf("insecure check failed: %s", got)
	}
	if got, want := <-names, "www.example.org"; got != want {
		t.Errorf("TLS server name %q, want %q", got, want)
	}
}
