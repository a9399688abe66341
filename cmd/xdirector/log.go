package main

import (
	"context"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/journal"

	"github.com/xdirector/xdirector/pkg/logging"
)

// processLog is the log of one of the processes that run for long: nobody waits for it.
type processLog struct {
	queue *logging.Queue
	to    io.Writer
}

func newLog(to io.Writer) processLog { return processLog{logging.NewQueue(), to} }

// handler is newHandler by way of the queue.
func (l processLog) handler(format string, level slog.Leveler) slog.Handler {
	return l.queue.Handler(newHandler(format, level, l.to))
}

// flush is for the end of the process. Who doesn't read the log doesn't hold that up for long.
func (l processLog) flush() { l.queue.Flush(500 * time.Millisecond) }

// switchHandler is a handler that is chosen by the configuration, which is read after the logger is needed.
type switchHandler struct{ slog.Handler }

// newHandler makes the handler of log.format; an empty format is journal under systemd, else text.
func newHandler(format string, level slog.Leveler, stderr io.Writer) slog.Handler {
	if format == "" && os.Getenv("JOURNAL_STREAM") != "" && journal.Enabled() {
		format = "journal"
	}
	options := &slog.HandlerOptions{Level: level}
	switch format {
	case "journal":
		return &journalHandler{level: level}
	case "json":
		return slog.NewJSONHandler(stderr, options)
	}
	return slog.NewTextHandler(stderr, options)
}

// journalHandler writes records to journald with their attributes as fields, and as text behind the message, since
// journalctl shows only that.
type journalHandler struct {
	level  slog.Leveler
	attrs  []slog.Attr
	prefix string
}

func (h *journalHandler) Enabled(_ context.Context, level slog.Level) bool {
	return level >= h.level.Level()
}

func (h *journalHandler) Handle(_ context.Context, r slog.Record) error {
	var text strings.Builder
	text.WriteString(r.Message)
	fields := map[string]string{}
	add := func(a slog.Attr) bool {
		value := a.Value.Resolve().String()
		text.WriteString(" " + h.prefix + a.Key + "=" + value)
		fields["XDIRECTOR_"+fieldName(h.prefix+a.Key)] = value
		return true
	}
	for _, a := range h.attrs {
		add(a)
	}
	r.Attrs(add)
	return journal.Send(text.String(), priority(r.Level), fields)
}

func (h *journalHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	next := *h
	next.attrs = append(append([]slog.Attr{}, h.attrs...), attrs...)
	return &next
}

func (h *journalHandler) WithGroup(name string) slog.Handler {
	next := *h
	next.prefix += name + "."
	return &next
}

// fieldName makes a journal field name: upper case letters, digits and underscores.
func fieldName(key string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z':
			return r - 'a' + 'A'
		case r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
			return r
		}
		return '_'
	}, key)
}

func priority(level slog.Level) journal.Priority {
	switch {
	case level >= slog.LevelError:
		return journal.PriErr
	case level >= slog.LevelWarn:
		return journal.PriWarning
	case level >= slog.LevelInfo:
		return journal.PriInfo
	}
	return journal.PriDebug
}
