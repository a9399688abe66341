package health

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"time"
)

// What an answer may cost this box at most, in bytes.
const (
	maxHeader = 64 << 10
	maxBody   = 64 << 10
)

// httpProber sends one request on a connection of its own and looks at the status and, if asked to, the body. It
// follows no redirect and uses no proxy.
type httpProber struct{ tls bool }

func (h httpProber) probe(ctx context.Context, p probe) error {
	request, err := h.request(ctx, p)
	if err != nil {
		return err
	}
	conn, err := h.open(ctx, p)
	if err != nil {
		return err
	}
	defer conn.Close()
	// Whatever is done with the connection ends with the probe's time, or with the target.
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	response, err := exchange(conn, request)
	if err != nil {
		return answerError(err, p.check)
	}
	// The body is never closed: that would read all the rest of it first. It goes with the connection.
	if err := expectStatus(response.StatusCode, p.check.Status); err != nil {
		return err
	}
	if p.check.Body == "" {
		return nil
	}
	return expectBody(response.Body, p.check)
}

// exchange sends the request and reads the header of the answer. An http.Transport would do the same with two more
// goroutines, would write about odd servers to the standard log and would not say what such a server sent.
func exchange(conn net.Conn, request *http.Request) (*http.Response, error) {
	if err := request.Write(conn); err != nil {
		return nil, err
	}
	limited := &io.LimitedReader{R: conn, N: maxHeader}
	reader := bufio.NewReader(limited)
	for {
		response, err := http.ReadResponse(reader, request)
		switch {
		case err != nil && limited.N == 0:
			return nil, fmt.Errorf("header larger than %d KiB", maxHeader>>10)
		case err != nil:
			return nil, err
		case response.StatusCode >= 200 || response.StatusCode == http.StatusSwitchingProtocols:
			limited.N = math.MaxInt64 // the reader of the body has a limit of its own
			return response, nil
		}
		// "A client MUST be able to parse one or more 1xx responses received prior to a final response" (RFC 9110,
		// 15.2). All of them share the limit.
	}
}

// open connects and, for https, does the TLS handshake.
func (h httpProber) open(ctx context.Context, p probe) (net.Conn, error) {
	plain, err := connect(ctx, p)
	if err != nil {
		return nil, err
	}
	if !h.tls {
		return plain, nil
	}
	conn := tls.Client(plain, &tls.Config{
		ServerName:         serverName(p),
		InsecureSkipVerify: p.check.Insecure,
	})
	if err := conn.HandshakeContext(ctx); err != nil {
		plain.Close()
		return nil, handshakeError(err, p.check)
	}
	return conn, nil
}

func (h httpProber) request(ctx context.Context, p probe) (*http.Request, error) {
	scheme, usual := "http", uint16(80)
	if h.tls {
		scheme, usual = "https", 443
	}
	host := netip.AddrPortFrom(p.address, p.port).String()
	path := p.check.Path
	if path == "" {
		path = "/"
	}
	target, err := url.Parse(scheme + "://" + host + path)
	if err != nil {
		return nil, fmt.Errorf("make request for path %q: %w", path, err)
	}
	method := p.check.Method
	if method == "" {
		method = http.MethodGet
	}
	request, err := http.NewRequestWithContext(ctx, method, target.String(), nil)
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	switch {
	case p.check.Host != "":
		request.Host = p.check.Host
	case p.port == usual:
		request.Host = strings.TrimSuffix(host, fmt.Sprintf(":%d", usual))
	}
	request.Header.Set("User-Agent", "xdirector")
	request.Close = true
	return request, nil
}

// serverName is what the certificate must be valid for: the host without its port, else the address.
func serverName(p probe) string {
	if p.check.Host == "" {
		return p.address.String()
	}
	if host, _, err := net.SplitHostPort(p.check.Host); err == nil {
		return host
	}
	return p.check.Host
}

func expectStatus(code int, ranges []StatusRange) error {
	if len(ranges) == 0 {
		ranges = []StatusRange{{200, 299}}
	}
	var names []string
	for _, r := range ranges {
		if r.From <= code && code <= r.To {
			return nil
		}
		if r.From == r.To {
			names = append(names, fmt.Sprint(r.From))
		} else {
			names = append(names, fmt.Sprintf("%d-%d", r.From, r.To))
		}
	}
	return fmt.Errorf("status %d, expected %s", code, strings.Join(names, ", "))
}

// expectBody reads until the wanted text was seen, at most maxBody bytes.
func expectBody(body io.Reader, c Check) error {
	body = io.LimitReader(body, maxBody)
	wanted := []byte(c.Body)
	var seen []byte
	chunk := make([]byte, 4096)
	for {
		n, err := body.Read(chunk)
		from := max(0, len(seen)-len(wanted)+1) // the text may have begun in the chunk before
		seen = append(seen, chunk[:n]...)
		if bytes.Contains(seen[from:], wanted) {
			return nil
		}
		if err == io.EOF {
			return fmt.Errorf("body does not contain %q (first 64 KiB)", c.Body)
		}
		if err != nil {
			return answerError(err, c)
		}
	}
}

// handshakeError says in plain words why TLS was not agreed on.
func handshakeError(err error, c Check) error {
	var certificate *tls.CertificateVerificationError
	var notTLS tls.RecordHeaderError
	switch {
	case errors.As(err, &certificate):
		return fmt.Errorf("certificate: %w", certificate.Err)
	case errors.As(err, &notTLS):
		return errors.New("tls handshake: the real server does not speak TLS on this port")
	case isTimeout(err):
		return fmt.Errorf("tls handshake: timeout after %v", c.Timeout)
	}
	return fmt.Errorf("tls handshake: %w", err)
}

// answerError says in plain words what went wrong after the connection stood.
func answerError(err error, c Check) error {
	switch {
	case isTimeout(err):
		return fmt.Errorf("answer: timeout after %v", c.Timeout)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("answer: connection closed by the real server before the end")
	}
	var call *os.SyscallError
	if errors.As(err, &call) {
		err = call.Err
	}
	return fmt.Errorf("answer: %w", err)
}
