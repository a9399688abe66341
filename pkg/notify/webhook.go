package notify

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode"
)

// Webhook is told by a POST of an event's JSON. The header Idempotency-Key is the same for all attempts of one event.
type Webhook struct {
	URL       string   // http or https; may hold a secret, so no message shows it
	TokenFile string   // of a bearer token, read for each request; empty: none
	Proxy     *url.URL // nil: none, whatever the environment says
	client    *http.Client
}

// NewWebhook returns a Webhook, which keeps connections open for a while.
func NewWebhook(address, tokenFile string, proxy *url.URL) *Webhook {
	w := &Webhook{URL: address, TokenFile: tokenFile, Proxy: proxy}
	transport := &http.Transport{
		DialContext:         (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
		TLSHandshakeTimeout: 10 * time.Second,
		IdleConnTimeout:     30 * time.Second,
		MaxIdleConns:        1,
		ForceAttemptHTTP2:   true,
	}
	if proxy != nil {
		transport.Proxy = http.ProxyURL(proxy)
	}
	w.client = &http.Client{
		Transport: transport,
		// An event that went elsewhere was not received by whom it is for.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return w
}

// maxSecret is the length of a file with a token or a password.
const maxSecret = 4096

// secret reads a file that holds one line.
func secret(path string) (string, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a pipe without a writer would be waited for
	if err != nil {
		return "", fmt.Errorf("read secret: %w", err)
	}
	defer f.Close()
	_ = f.SetReadDeadline(time.Now().Add(time.Second)) // for a pipe; a file knows none
	data, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	if err != nil {
		return "", fmt.Errorf("read secret: %w", err)
	}
	text := strings.TrimSpace(string(data))
	if text == "" || len(data) > maxSecret || strings.ContainsFunc(text, unicode.IsControl) {
		return "", fmt.Errorf("%s does not hold one line of text", path)
	}
	return text, nil
}

func (w *Webhook) post(ctx context.Context, m Message) (string, error) {
	body, err := json.Marshal(m)
	if err != nil {
		return "", finalError{fmt.Errorf("encode event: %w", err)}
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, w.URL, bytes.NewReader(body))
	if err != nil {
		return "", finalError{errors.New("the URL can't be used")}
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("User-Agent", "xdirector")
	request.Header.Set("Idempotency-Key", m.RouterID+"-"+strconv.FormatUint(m.ID, 10))
	if w.TokenFile != "" {
		token, err := secret(w.TokenFile)
		if err != nil {
			return "", err
		}
		request.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := w.client.Do(request)
	if err != nil {
		if wrapped, ok := errors.AsType[*url.Error](err); ok { // it shows the URL
			err = wrapped.Err
		}
		if errors.Is(err, context.DeadlineExceeded) {
			err = fmt.Errorf("%s does not answer in time", request.URL.Host)
		}
		return "", err
	}
	defer response.Body.Close()
	answer, _ := io.ReadAll(io.LimitReader(response.Body, 4096)) // what it says is for people: the status decides
	text := "HTTP " + response.Status
	if response.StatusCode >= 200 && response.StatusCode <= 299 {
		return text, nil
	}
	err = errors.New(text)
	if line := oneLine(string(answer), maxAnswer); line != "" {
		err = fmt.Errorf("%s: %s", text, line)
	}
	switch c := response.StatusCode; {
	case c == http.StatusRequestTimeout, c == http.StatusTooEarly, c == http.StatusTooManyRequests, c >= 500:
		return "", err
	}
	return "", finalError{err}
}

// maxAnswer is how much of what others say is told, in bytes.
const maxAnswer = 160

// oneLine makes a text of others fit to be logged, and at most so many bytes long.
func oneLine(text string, most int) string {
	plain := strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, "?"))
	plain = strings.Join(strings.Fields(plain), " ")
	if len(plain) > most {
		plain = strings.ToValidUTF8(plain[:most-3], "") + "..."
	}
	return plain
}
