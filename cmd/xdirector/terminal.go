package main

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/term"
)

// The question to a terminal that all kinds of them answer by themselves: "Device Status Report" of ECMA-48, 8.3.35. It reaches
// the operator's own machine, so the answer proves that he is not cut off; a connection that is dead says nothing for minutes.
const (
	statusReport = "\x1b[5n"
	askEvery     = time.Second
	firstAnswer  = 2 * time.Second // who hasn't answered until then never does
	answerLimit  = 5 * time.Second // of silence after that
)

var (
	errInterrupted = errors.New("interrupted")
	errSilent      = errors.New("the terminal no longer answers")
)

// operatorPresent watches the operator's terminal, if this command has one for itself, and calls gone when he interrupts or is
// cut off. The terminal must be given back by what it returns.
func operatorPresent(ctx context.Context, limit time.Duration, gone func(error)) (restore func()) {
	in, out := os.Stdin, os.Stderr
	if !term.IsTerminal(int(in.Fd())) || !term.IsTerminal(int(out.Fd())) || !isForeground() {
		return func() {}
	}
	state, err := term.MakeRaw(int(in.Fd()))
	if err != nil {
		return func() {}
	}
	ctx, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		watchTerminal(ctx, in, out, limit, gone)
	}()
	return func() {
		stop()
		<-done
		_ = term.Restore(int(in.Fd()), state) // on its way out it can do no more
	}
}

// isForeground says that input of the terminal is for this process: proc(5), fields 5 (pgrp) and 8 (tpgid) of stat.
func isForeground() bool {
	text, err := os.ReadFile("/proc/self/stat")
	_, rest, found := strings.Cut(string(text), ") ")
	fields := strings.Fields(rest)
	return err == nil && found && len(fields) > 5 && fields[2] == fields[5]
}

// watchTerminal asks the terminal until ctx ends. Any key is a sign of life as well. A terminal that never answers is left alone.
func watchTerminal(ctx context.Context, in io.Reader, out io.Writer, limit time.Duration, gone func(error)) {
	heard := make(chan byte, 64)
	go func() {
		b := make([]byte, 64)
		for {
			n, err := in.Read(b)
			for _, c := range b[:n] {
				select {
				case heard <- c:
				case <-ctx.Done():
				}
			}
			if err != nil || ctx.Err() != nil {
				return
			}
		}
	}()
	ask := time.NewTicker(askEvery)
	defer ask.Stop()
	silence := time.NewTimer(firstAnswer)
	defer silence.Stop()
	answers, open := false, 1
	io.WriteString(out, statusReport)
	for {
		select {
		case <-ctx.Done():
			drain(heard, open)
			return
		case c := <-heard:
			switch c {
			case 0x03, 0x1c: // Ctrl-C, Ctrl-\
				gone(errInterrupted)
			case 'n':
				answers, open = true, open-1
			}
			silence.Reset(limit)
		case <-ask.C:
			io.WriteString(out, statusReport)
			open++
		case <-silence.C:
			if answers {
				gone(errSilent)
			} else {
				ask.Stop()
			}
		}
	}
}

// drain takes the answers that are still on their way, which the shell would take for keys.
func drain(heard <-chan byte, open int) {
	limit := time.After(300 * time.Millisecond)
	for open > 0 {
		select {
		case c := <-heard:
			if c == 'n' {
				open--
			}
		case <-limit:
			return
		}
	}
}
