package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"syscall"
	"time"

	"github.com/xdirector/xdirector/pkg/status"
)

const (
	statusLimit = 10 * time.Second // a director that turns answers in a millisecond
	reloadLimit = time.Minute
	orderLimit  = 10 * time.Second
	answerLimit = 64 << 20 // bytes; thousands of real servers take a few million
)

// Client asks the director that answers on one control socket. Its errors are for an operator: they name the socket
// and say what to do.
type Client struct {
	path string
	http http.Client
}

// NewClient returns a client for the socket at path. It does not connect yet.
func NewClient(path string) *Client {
	var d net.Dialer
	return &Client{path: path, http: http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return d.DialContext(ctx, "unix", path)
		},
	}}}
}

// Status returns the director's latest picture of itself.
func (c *Client) Status(ctx context.Context) (*status.Status, error) {
	var s status.Status
	if err := c.do(ctx, http.MethodGet, "/v1/status", nil, statusLimit, &s); err != nil {
		return nil, err
	}
	return &s, nil
}

// Reload makes the director read its configuration file again. The error of a refused file is the director's text
// with nothing added; it may have several lines.
func (c *Client) Reload(ctx context.Context) error {
	return c.do(ctx, http.MethodPost, "/v1/reload", nil, reloadLimit, &struct{}{})
}

// do sends body as JSON, if it is not nil, and reads the answer.
func (c *Client) do(ctx context.Context, method, path string, body any, limit time.Duration, into any) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var content io.Reader
	if body != nil {
		encoded, err := json.Marshal(body)
		if err != nil {
			return fmt.Errorf("make request %s %s: %w", method, path, err)
		}
		content = bytes.NewReader(encoded)
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://xdirector"+path, content)
	if err != nil {
		return fmt.Errorf("make request %s %s: %w", method, path, err)
	}
	response, err := c.http.Do(request)
	if err != nil {
		return c.explain(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, answerLimit))
	if err != nil {
		return c.explain(err)
	}
	if response.StatusCode != http.StatusOK {
		var f failure
		if json.Unmarshal(text, &f) != nil || f.Error == "" {
			return fmt.Errorf("what answers on %s is no xdirector: %s %s gave %s: see control.socket in the configuration", c.path, method, path, response.Status)
		}
		return errors.New(f.Error)
	}
	if err := json.Unmarshal(text, into); err != nil {
		return fmt.Errorf("read the answer of %s %s on %s: %w: are command and service of the same version? (xdirector version)", method, path, c.path, err)
	}
	return nil
}

// explain turns the errors of a connection into what they mean to an operator.
func (c *Client) explain(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("no xdirector answers on %s: is the service running? (systemctl status xdirector)", c.path)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("no permission to open %s: run the command as root, or as a member of the group %s", c.path, group)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("the xdirector on %s takes requests but gives no answer in time: is it stopped or overloaded? (systemctl status xdirector)", c.path)
	}
	return fmt.Errorf("ask the xdirector on %s: %w", c.path, err)
}
