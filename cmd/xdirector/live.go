package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"
)

// live shows something again and again, until q, Ctrl-C or a signal: on a terminal in place, elsewhere one after the other.
type live[T any] struct {
	period time.Duration
	ask    func(context.Context) (T, error) // one call at a time, from another goroutine
	lines  func(T) []string
	json   func(T) any
	key    func(byte) // that was pressed; nil: none has a meaning
	hint   string     // what to do about lines for which there is no room
}

// run fails if the first answer does. A director that goes away later is waited for.
func (l live[T]) run(c *cobra.Command) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	first, err := l.ask(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	var s *screen
	if !wantsJSON(c) {
		s = openScreen(c.InOrStdin(), c.OutOrStdout())
	}
	if s == nil {
		return l.print(ctx, c, first)
	}
	defer s.close()
	return l.show(ctx, s, painter(c.OutOrStdout()), first)
}

// answer is what came of one call of ask.
type answer[T any] struct {
	value T
	err   error
	pause time.Duration // before the next one: a director that takes long is not asked all the time
}

// asking asks after a while, and sends the answer.
func (l live[T]) asking(ctx context.Context, wait time.Duration) <-chan answer[T] {
	c := make(chan answer[T], 1)
	go func() {
		pause(ctx, wait)
		began := time.Now()
		value, err := l.ask(ctx)
		c <- answer[T]{value, err, max(l.period, 4*time.Since(began))}
	}()
	return c
}

func (l live[T]) show(ctx context.Context, s *screen, p paint, value T) error {
	resized := make(chan os.Signal, 1)
	signal.Notify(resized, syscall.SIGWINCH)
	defer signal.Stop(resized)
	var failed error
	for answers, at := l.asking(ctx, l.period), time.Now(); ; {
		lines := l.lines(value)
		if failed != nil {
			lines = append([]string{fmt.Sprintf("warning: this is of %s: %s", at.Format(time.TimeOnly), firstLine(failed)), ""}, lines...)
		}
		if err := s.draw(lines, l.hint, p); err != nil {
			return fmt.Errorf("write to the terminal: %w", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case key := <-s.keys:
			switch key {
			case 'q', 3, 4: // Ctrl-C, Ctrl-D
				return nil
			}
			if l.key != nil {
				l.key(key)
			}
		case <-resized:
		case a := <-answers:
			if failed = a.err; failed == nil {
				value, at = a.value, time.Now()
			}
			answers = l.asking(ctx, a.pause)
		}
	}
}

// print writes one after the other.
func (l live[T]) print(ctx context.Context, c *cobra.Command, value T) error {
	told := ""
	for n, wait := 0, l.period; ; n++ {
		if err := l.once(c, value, n > 0); err != nil {
			return fmt.Errorf("write: %w", err)
		}
		for {
			a := <-l.asking(ctx, wait)
			if ctx.Err() != nil {
				return nil
			}
			if wait = a.pause; a.err == nil {
				value, told = a.value, ""
				break
			}
			if text := firstLine(a.err); text != told {
				told = text
				fmt.Fprintln(c.ErrOrStderr(), "xdirector: "+text)
			}
		}
	}
}

// once writes one; apart: behind another.
func (l live[T]) once(c *cobra.Command, value T, apart bool) error {
	out := c.OutOrStdout()
	if wantsJSON(c) {
		return json.NewEncoder(out).Encode(l.json(value))
	}
	p, text := painter(out), new(bytes.Buffer)
	if apart {
		text.WriteByte('\n')
	}
	for _, line := range l.lines(value) {
		text.WriteString(p.line(line))
		text.WriteByte('\n')
	}
	_, err := text.WriteTo(out)
	return err
}
