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
	"net/url"
	"os"
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

// Status returns the director's latest picture of itself, with names only what they say; see status.Only.
func (c *Client) Status(ctx context.Context, names ...string) (*status.Status, error) {
	var s status.Status
	path := "/v1/status"
	if len(names) > 0 {
		path += "?" + url.Values{"name": names}.Encode()
	}
	if err := c.do(ctx, http.MethodGet, path, nil, statusLimit, &s); err != nil {
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
	response, err := c.send(ctx, method, path, content)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, answerLimit))
	if err != nil {
		return c.explain(err)
	}
	if err := json.Unmarshal(text, into); err != nil {
		return fmt.Errorf("read the answer of %s %s on %s: %w: are command and service of the same version? (xdirector version)", method, path, c.path, err)
	}
	return nil
}

// send returns the answer to a request that was not refused. Its body must be closed.
func (c *Client) send(ctx context.Context, method, path string, content io.Reader) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, method, "http://xdirector"+path, content)
	if err != nil {
		return nil, fmt.Errorf("make request %s %s: %w", method, path, err)
	}
	response, err := c.http.Do(request)
	if err != nil {
		return nil, c.explain(err)
	}
	if response.StatusCode == http.StatusOK {
		return response, nil
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, answerLimit))
	if err != nil {
		return nil, c.explain(err)
	}
	var f failure
	if json.Unmarshal(text, &f) != nil || f.Error == "" {
		return nil, fmt.Errorf("what answers on %s is no xdirector: %s %s gave %s: see control.socket in the configuration", c.path, method, path, response.Status)
	}
	return nil, errors.New(f.Error)
}

// explain turns the errors of a connection into what they mean to an operator.
func (c *Client) explain(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("no xdirector answers on %s: is the service running? (systemctl status xdirector)", c.path)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("no permission to open %s: %s", c.path, c.cure())
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("the xdirector on %s takes requests but gives no answer in time: is it stopped or overloaded? (systemctl status xdirector)", c.path)
	}
	return fmt.Errorf("ask the xdirector on %s: %w", c.path, err)
}

// cure says how to be permitted to open the socket.
func (c *Client) cure() string {
	if info, err := os.Stat(c.path); err == nil && info.Mode().Perm()&0o060 == 0 {
		return fmt.Sprintf("it is for root alone, for there was no group %s when the service started: run the command as root; or groupadd --system %s, restart the service, and usermod -aG %s USER",
			group, group, group)
	}
	return fmt.Sprintf("run the command as root, or as a member of the group %s: usermod -aG %s USER, who has to log in again", group, group)
}
