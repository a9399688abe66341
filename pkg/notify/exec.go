package notify

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/xdirector/xdirector/pkg/command"
	"github.com/xdirector/xdirector/pkg/status"
)

// Exec is a command that is run for each event: see package command for how. It gets the event's JSON on its standard input,
// and its fields in its environment.
type Exec struct {
	Line []string // an absolute path and its arguments
	User string
	// Arguments adds those of keepalived's notify scripts: INSTANCE or GROUP, the name, the state in capitals, the priority
	// (of a group 0). Other kinds of events have the same four.
	Arguments bool
}

// finalError is one that another attempt would only meet again.
type finalError struct{ error }

func (e finalError) Unwrap() error { return e.error }

func isFinal(err error) bool {
	_, is := errors.AsType[finalError](err)
	return is
}

// deliver tells a target once, and returns what happened in a few words.
func deliver(ctx context.Context, t Target, list []Message) (string, error) {
	switch {
	case t.Exec != nil:
		return t.Exec.run(ctx, list[0], t.Timeout)
	case t.Webhook != nil:
		return t.Webhook.post(ctx, list[0])
	}
	return t.Mail.send(ctx, list)
}

func (x Exec) run(ctx context.Context, m Message, timeout time.Duration) (string, error) {
	input, err := json.Marshal(m)
	if err != nil {
		return "", finalError{fmt.Errorf("encode event: %w", err)}
	}
	line := x.Line
	if x.Arguments {
		line = append(line[:len(line):len(line)], arguments(m)...)
	}
	err = command.Command{Line: line, User: x.User, Timeout: timeout, Env: environment(m), Input: append(input, '\n')}.Run(ctx)
	if err != nil {
		return "", fmt.Errorf("%s: %w", x.Line[0], err)
	}
	return "exit status 0", nil
}

// arguments are those of keepalived's notify scripts.
func arguments(m Message) []string {
	kind, name, state := m.Kind, "", m.State
	switch m.Kind {
	case status.KindSyncGroup:
		kind, name = "group", m.SyncGroup
	default:
		if list := names(m.Event); len(list) > 0 {
			name = list[len(list)-1]
		}
	}
	if state == initial {
		state = "STOP"
	}
	if name == "" {
		name = m.RouterID
	}
	return []string{strings.ToUpper(kind), name, strings.ToUpper(state), strconv.Itoa(int(m.Priority))}
}

// environment are the fields of an event that are not empty.
func environment(m Message) []string {
	var list []string
	add := func(name, value string) {
		if value != "" {
			list = append(list, "XDIRECTOR_"+name+"="+strings.ReplaceAll(value, "\x00", " "))
		}
	}
	add("EVENT_ID", strconv.FormatUint(m.ID, 10))
	add("TIME", m.Time.Format(time.RFC3339Nano))
	add("ROUTER_ID", m.RouterID)
	add("KIND", m.Kind)
	add("LEVEL", m.Level)
	add("INSTANCE", m.Instance)
	add("SYNC_GROUP", m.SyncGroup)
	add("SERVICE", m.Service)
	add("REAL_SERVER", m.RealServer)
	add("STATE", m.State)
	add("PREVIOUS", m.Previous)
	if m.Priority != 0 {
		add("PRIORITY", strconv.Itoa(int(m.Priority)))
	}
	add("TEXT", m.Text)
	if m.Test {
		add("TEST", "1")
	}
	return list
}
