package notify

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/xdirector/xdirector/pkg/status"
)

// trusted is the certificate of 127.0.0.1 that this process trusts as it would trust one of the box.
var trusted tls.Certificate

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "xdirector-notify-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	var authority []byte
	trusted, authority = certificate()
	file := filepath.Join(dir, "ca.pem")
	if err := os.WriteFile(file, authority, 0o644); err == nil {
		os.Setenv("SSL_CERT_FILE", file)
		os.Setenv("HTTPS_PROXY", "http://127.0.0.1:1") // nothing may use it
		os.Setenv("HTTP_PROXY", "http://127.0.0.1:1")
		os.Setenv("NO_PROXY", "")
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

func certificate() (tls.Certificate, []byte) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"localhost"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		panic(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func event() Message {
	return Message{RouterID: "lb1", Event: status.Event{ID: 7, Time: time.Unix(1900000000, 0).UTC(), Kind: status.KindInstance, Level: status.LevelInfo,
		Instance: "VI_1", State: "MASTER", Previous: "BACKUP", Priority: 150, Text: "VI_1 is MASTER, was BACKUP: no advert\r\nBcc: all@example.org"}}
}

func limited(t *testing.T, limit time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	return ctx
}

func TestCommandsGetWhatKeepalivedGivesAndTheEvent(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("LAB") != "" {
			t.Fatal("not root")
		}
		t.Skip("not root")
	}
	script := `[ "$*" = "mine INSTANCE VI_1 MASTER 150" ] || { echo "arguments: $*"; exit 1; }
[ "$XDIRECTOR_INSTANCE $XDIRECTOR_STATE $XDIRECTOR_PREVIOUS $XDIRECTOR_ROUTER_ID" = "VI_1 MASTER BACKUP lb1" ] || exit 2
[ "$(id -un)" = nobody ] || exit 3
[ -z "${XDIRECTOR_SERVICE+set}" ] || exit 4
grep -q '"id":7.*"previous":"BACKUP".*"router_id":"lb1"' || exit 5`
	target := Target{Timeout: 10 * time.Second, Exec: &Exec{Line: []string{"/bin/sh", "-c", script, "sh", "mine"}, User: "nobody", Arguments: true}}
	if text, err := deliver(t.Context(), target, []Message{event()}); err != nil || text != "exit status 0" {
		t.Errorf("%q, %v", text, err)
	}
	target.Exec.Arguments = false
	if _, err := deliver(t.Context(), target, []Message{event()}); err == nil || !strings.HasSuffix(err.Error(), "exit status 1: arguments: mine") {
		t.Errorf("a hook for one state: %v", err)
	}
	target.Exec.Line, target.Timeout = []string{"/bin/sh", "-c", "echo begun; sleep 1000 & sleep 1000"}, 200*time.Millisecond
	began := time.Now()
	if _, err := deliver(t.Context(), target, []Message{event()}); err == nil || !strings.HasSuffix(err.Error(), "did not end within 200ms and was killed: begun") || time.Since(began) > 10*time.Second {
		t.Errorf("one that hangs: %v after %v", err, time.Since(began))
	}
}

func TestArgumentsAreThoseOfKeepalived(t *testing.T) {
	for _, c := range []struct {
		event status.Event
		want  string
	}{
		{status.Event{Kind: status.KindInstance, Instance: "VI_1", State: "BACKUP", Priority: 100}, "INSTANCE VI_1 BACKUP 100"},
		{status.Event{Kind: status.KindInstance, Instance: "VI_1", State: "INIT", Priority: 100}, "INSTANCE VI_1 STOP 100"},
		{status.Event{Kind: status.KindSyncGroup, SyncGroup: "VG_1", State: "FAULT"}, "GROUP VG_1 FAULT 0"},
		{status.Event{Kind: status.KindRealServer, Service: "web", RealServer: "10.0.0.3", State: "down"}, "REAL_SERVER web/10.0.0.3 DOWN 0"},
		{status.Event{Kind: status.KindService, Service: "web", State: "up"}, "SERVICE web UP 0"},
		{status.Event{Kind: status.KindDirector, State: "started"}, "DIRECTOR lb1 STARTED 0"},
	} {
		if got := strings.Join(arguments(Message{Event: c.event, RouterID: "lb1"}), " "); got != c.want {
			t.Errorf("%+v gives %s, want %s", c.event, got, c.want)
		}
	}
}

// receiver is a web server that answers as it is told, and remembers what it got.
type receiver struct {
	*httptest.Server
	mu       sync.Mutex
	requests []*http.Request
	bodies   [][]byte
}

func receive(t *testing.T, secure bool, answer http.HandlerFunc) *receiver {
	r := &receiver{}
	r.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		body, _ := io.ReadAll(request.Body)
		r.mu.Lock()
		r.requests, r.bodies = append(r.requests, request), append(r.bodies, body)
		r.mu.Unlock()
		answer(w, request)
	}))
	if secure {
		r.TLS = &tls.Config{Certificates: []tls.Certificate{trusted}}
		r.StartTLS()
	} else {
		r.Start()
	}
	t.Cleanup(func() { r.CloseClientConnections(); r.Close() })
	return r
}

// got returns the requests so far, and their bodies.
func (r *receiver) got() ([]*http.Request, [][]byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.requests, r.bodies
}

func TestWebhooksGetTheEventWithItsKey(t *testing.T) {
	t.Parallel()
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("s3cret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := receive(t, true, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	w := NewWebhook(r.URL+"/hook", token, nil)
	text, err := w.post(t.Context(), event())
	if err != nil || text != "HTTP 204 No Content" {
		t.Fatalf("%q, %v", text, err)
	}
	requests, bodies := r.got()
	request := requests[0]
	if request.Method != "POST" || request.URL.Path != "/hook" || request.Header.Get("Authorization") != "Bearer s3cret" ||
		request.Header.Get("Idempotency-Key") != "lb1-7" || request.Header.Get("Content-Type") != "application/json" {
		t.Errorf("request %+v", request)
	}
	var got Message
	if err := json.Unmarshal(bodies[0], &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(event(), got); diff != "" {
		t.Errorf("body (-want +got):\n%s", diff)
	}
	// A certificate that the box doesn't trust.
	untrusted := httptest.NewUnstartedServer(http.NotFoundHandler())
	untrusted.Config.ErrorLog = log.New(io.Discard, "", 0)
	untrusted.StartTLS()
	defer untrusted.Close()
	if _, err := NewWebhook(untrusted.URL, "", nil).post(t.Context(), event()); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("an untrusted certificate: %v", err)
	}
	// A proxy that the configuration names.
	proxy := receive(t, false, func(http.ResponseWriter, *http.Request) {})
	address, _ := url.Parse(proxy.URL)
	if _, err := NewWebhook("http://hooks.example.org/x", "", address).post(t.Context(), event()); err != nil {
		t.Errorf("by a proxy: %v", err)
	} else if requests, _ := proxy.got(); requests[0].URL.Host != "hooks.example.org" {
		t.Errorf("the proxy was asked for %s", requests[0].URL)
	}
}

func TestAnythingButSuccessIsAFailureOfAWebhook(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		want   string
		final  bool
	}{
		"a server in trouble": {func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "try\x1b[2J later", http.StatusServiceUnavailable)
		}, "HTTP 503 Service Unavailable: try [2J later", false},
		"too many":           {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTooManyRequests) }, "HTTP 429 Too Many Requests", false},
		"not allowed":        {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }, "HTTP 403 Forbidden", true},
		"a redirect":         {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/elsewhere", http.StatusFound) }, "HTTP 302 Found", true},
		"no answer":          {func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, "does not answer in time", false},
		"an endless answer":  {func(w http.ResponseWriter, r *http.Request) { flood(w, r, http.StatusInternalServerError) }, "HTTP 500", false},
		"an endless success": {func(w http.ResponseWriter, r *http.Request) { flood(w, r, http.StatusOK) }, "", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := receive(t, false, c.answer)
			_, err := NewWebhook(r.URL+"/secret", "", nil).post(limited(t, 500*time.Millisecond), event())
			switch {
			case c.want == "" && err != nil:
				t.Error(err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || isFinal(err) != c.final || strings.Contains(err.Error(), "secret")):
				t.Errorf("error %v, final %v", err, isFinal(err))
			}
			if requests, _ := r.got(); len(requests) != 1 {
				t.Errorf("%d requests", len(requests))
			}
		})
	}
	if _, err := NewWebhook("http://127.0.0.1:1/secret", "/nonexistent", nil).post(t.Context(), event()); err == nil || !strings.Contains(err.Error(), "/nonexistent") {
		t.Errorf("without its token: %v", err)
	}
	if _, err := NewWebhook("http://127.0.0.1:1/secret", "", nil).post(t.Context(), event()); err == nil || strings.Contains(err.Error(), "secret") || !strings.Contains(err.Error(), "refused") {
		t.Errorf("nobody there: %v", err)
	}
}

func TestASecretIsOneLineOfAFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	pipe := filepath.Join(dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	writer, err := os.OpenFile(pipe, os.O_RDWR, 0) // who never writes
	if err != nil {
		t.Fatal(err)
	}
	defer writer.Close()
	if text, err := secret(pipe); err == nil {
		t.Errorf("of a pipe: %q", text)
	}
	for text, want := range map[string]string{"abc\n": "abc", " a b": "a b", "": "", "a\nb\n": "", strings.Repeat("x", maxSecret+1): "", "a\r\nX: y": ""} {
		file := filepath.Join(dir, "file")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := secret(file); got != want || (err == nil) != (want != "") {
			t.Errorf("of %.20q: %q, %v", text, got, err)
		}
	}
}

func flood(w http.ResponseWriter, r *http.Request, code int) {
	w.WriteHeader(code)
	for r.Context().Err() == nil {
		if _, err := w.Write(make([]byte, 64<<10)); err != nil {
			return
		}
	}
}

// postOffice is a mail server with as much of SMTP as is needed.
type postOffice struct {
	net.Listener
	starttls bool
	answers  map[string]string // to a command, instead of the usual one; "silence": none
	mu       sync.Mutex
	mails    []string
	said     []string
}

func openPostOffice(t *testing.T, p *postOffice) *postOffice {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p.Listener = l
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go p.serve(conn)
		}
	}()
	return p
}

func (p *postOffice) serve(conn net.Conn) {
	defer func() { conn.Close() }()
	if p.answers["CONNECT"] == "silence" {
		_, _ = io.Copy(io.Discard, conn) // until the other side hangs up
		return
	}
	in := bufio.NewReader(conn)
	say := func(command, usual string) {
		answer := usual
		if other, ok := p.answers[command]; ok {
			answer = other
		}
		if answer != "silence" {
			fmt.Fprintf(conn, "%s\r\n", answer)
		}
	}
	say("CONNECT", "220 office")
	for {
		text, err := in.ReadString('\n')
		if err != nil {
			return
		}
		text = strings.TrimSpace(text)
		p.mu.Lock()
		p.said = append(p.said, text)
		p.mu.Unlock()
		word, _, _ := strings.Cut(strings.ToUpper(text), " ")
		switch word {
		case "EHLO":
			usual := "250-office\r\n250 AUTH PLAIN"
			if _, secure := conn.(*tls.Conn); p.starttls && !secure {
				usual = "250-office\r\n250 STARTTLS"
			}
			say(word, usual)
		case "STARTTLS":
			say(word, "220 go on")
			conn = tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{trusted}})
			in = bufio.NewReader(conn)
		case "DATA":
			say(word, "354 go on")
			var mail strings.Builder
			for {
				line, err := in.ReadString('\n')
				if err != nil {
					return
				}
				if line == ".\r\n" {
					break
				}
				mail.WriteString(line)
			}
			p.mu.Lock()
			p.mails = append(p.mails, mail.String())
			p.mu.Unlock()
			say(".", "250 taken")
		case "QUIT":
			say(word, "221 bye")
			return
		case "AUTH":
			say(word, "235 welcome")
		default:
			say(word, "250 ok")
		}
	}
}

func (p *postOffice) mailbox(security string) *Mail {
	return &Mail{Host: "127.0.0.1", Port: uint16(p.Addr().(*net.TCPAddr).Port), TLS: security, From: "lb1@example.org", To: []string{"a@example.org", "b@example.org"}}
}

// heard returns the mails so far, and all that was said.
func (p *postOffice) heard() (mails []string, said string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mails, strings.Join(p.said, "\n")
}

func TestMailTellsAllEventsOfAWhile(t *testing.T) {
	t.Parallel()
	password := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(password, []byte("pa ss\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := openPostOffice(t, &postOffice{starttls: true})
	m := p.mailbox(StartTLS)
	m.Username, m.PasswordFile = "me", password
	worse := event()
	worse.Level, worse.Text = status.LevelError, "service web has lost its quorum"
	text, err := m.send(limited(t, 10*time.Second), []Message{event(), worse, event()})
	if err != nil || text != "127.0.0.1 took the mail to a@example.org, b@example.org" {
		t.Fatalf("%q, %v", text, err)
	}
	mails, said := p.heard()
	mail := mails[0]
	for _, want := range []string{"Subject: [lb1] 3 events: service web has lost its quorum\r\n", "Auto-Submitted: auto-generated\r\n", "error   service web has lost its quorum\r\n", "VI_1 is MASTER, was BACKUP: no advert Bcc: all@example.org"} {
		if !strings.Contains(strings.ReplaceAll(mail, "=\r\n", ""), want) {
			t.Errorf("the mail lacks %q:\n%s", want, mail)
		}
	}
	if !strings.Contains(said, "AUTH PLAIN "+base64.StdEncoding.EncodeToString([]byte("\x00me\x00pa ss"))) || strings.Index(said, "AUTH") < strings.Index(said, "STARTTLS") {
		t.Errorf("it said\n%s", said)
	}
	if strings.Count(said, "RCPT TO:") != 2 {
		t.Errorf("it said\n%s", said)
	}
	// One event alone is the subject; what it says can add no line to the header.
	plain := openPostOffice(t, &postOffice{})
	if _, err := plain.mailbox(NoTLS).send(limited(t, 10*time.Second), []Message{event()}); err != nil {
		t.Fatal(err)
	}
	mails, _ = plain.heard()
	if mail := mails[0]; !strings.Contains(mail, "Subject: [lb1] VI_1 is MASTER, was BACKUP: no advert Bcc:") || strings.Contains(mail, "\nBcc:") {
		t.Errorf("the mail:\n%s", mail)
	}
}

func TestMailServersThatDoNotTakeAMail(t *testing.T) {
	t.Parallel()
	refuse := func(command, answer string) map[string]string { return map[string]string{command: answer} }
	for name, c := range map[string]struct {
		answers  map[string]string
		security string
		want     string
		final    bool
	}{
		"never greets":             {refuse("CONNECT", "silence"), NoTLS, "does not answer in time", false},
		"never answers the mail":   {refuse(".", "silence"), NoTLS, "does not answer in time", false},
		"refuses for good":         {refuse("RCPT", "550 no such user here"), NoTLS, `550 "no such user here"`, true},
		"refuses for now":          {refuse("MAIL", "451 greylisted"), NoTLS, `451 "greylisted"`, false},
		"has no STARTTLS":          {nil, StartTLS, "STARTTLS", false},
		"speaks no TLS":            {nil, TLS, "TLS", false},
		"never ends the handshake": {refuse("CONNECT", "silence"), TLS, "does not answer in time", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := openPostOffice(t, &postOffice{answers: c.answers})
			began := time.Now()
			_, err := p.mailbox(c.security).send(limited(t, 500*time.Millisecond), []Message{event()})
			if err == nil || !strings.Contains(err.Error(), c.want) || isFinal(err) != c.final {
				t.Errorf("error %v, final %v", err, isFinal(err))
			}
			if took := time.Since(began); took > 10*time.Second {
				t.Errorf("it took %v", took)
			}
		})
	}
}
