package control

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/xdirector/xdirector/pkg/status"
)

// EventQuery chooses events.
type EventQuery struct {
	Kinds     []string // of status.Kinds; none: all
	Instances []string // none of these and no service: all
	Services  []string
	After     uint64 // first the remembered ones after the one with this id; 0: none
	History   int    // first so many of the newest remembered ones; with After 0: all of those
	Follow    bool   // and then those that come
}

func (q EventQuery) encode() string {
	v := url.Values{"follow": {strconv.FormatBool(q.Follow)}, "instance": q.Instances, "service": q.Services}
	if len(q.Kinds) > 0 {
		v.Set("kinds", strings.Join(q.Kinds, ","))
	}
	if q.After > 0 {
		v.Set("after", strconv.FormatUint(q.After, 10))
	}
	if q.History > 0 {
		v.Set("history", strconv.Itoa(q.History))
	}
	return v.Encode()
}

// ErrEnded is in the error of Events when the director has ended the stream, or was silent for too long.
var ErrEnded = errors.New("the stream of events has ended")

const eventLimit = 16 << 20 // bytes of one event; a refused configuration may have many errors

// Events calls each for every event, until each fails, ctx ends, or the stream does, which is ErrEnded if it was to be followed.
// Where the director had more events than this client took, there is one of the kind status.KindLost.
func (c *Client) Events(ctx context.Context, q EventQuery, each func(status.Event) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silent := time.AfterFunc(statusLimit, func() { cancel(context.DeadlineExceeded) })
	defer silent.Stop()
	response, err := c.send(ctx, http.MethodGet, "/v1/events?"+q.encode(), nil)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	lines := bufio.NewScanner(response.Body)
	lines.Buffer(nil, eventLimit)
	for lines.Scan() {
		silent.Reset(3 * heartbeat)
		text, found := bytes.CutPrefix(lines.Bytes(), []byte("data: ")) // which says all that the other lines do
		if !found {
			continue
		}
		var e status.Event
		if err := json.Unmarshal(text, &e); err != nil {
			return fmt.Errorf("read an event on %s: %w: are command and service of the same version? (xdirector version)", c.path, err)
		}
		if err := each(e); err != nil {
			return err
		}
	}
	switch err := lines.Err(); {
	case err != nil:
		return fmt.Errorf("%w: %w", ErrEnded, err)
	case q.Follow:
		return fmt.Errorf("%w: the director is stopping, or is being restarted", ErrEnded)
	}
	return nil
}
