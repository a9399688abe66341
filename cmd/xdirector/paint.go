package main

import (
	"io"
	"os"
	"regexp"

	"golang.org/x/term"

	"github.com/xdirector/xdirector/pkg/status"
)

// The colours of a terminal.
const (
	red    = "\x1b[31m"
	green  = "\x1b[32m"
	yellow = "\x1b[33m"
	bold   = "\x1b[1m"
	normal = "\x1b[0m"
)

// paint colours text, or leaves it as it is.
type paint struct {
	on    bool
	words *regexp.Regexp
}

// painter colours what goes to a terminal, unless NO_COLOR is set (https://no-color.org) or the terminal can't.
func painter(out io.Writer) paint {
	file, ok := out.(*os.File)
	on := ok && term.IsTerminal(int(file.Fd())) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	return newPaint(on)
}

func newPaint(on bool) paint {
	return paint{on, regexp.MustCompile(`\b(MASTER|FAULT|DOWN|NOT HEALTHY|SPLIT BRAIN|VRID COLLISION|no plane|MAINTENANCE|SORRY SERVER|drained)\b|^warning:`)}
}

func (p paint) in(colour, text string) string {
	if !p.on {
		return text
	}
	return colour + text + normal
}

// line colours the words of a line of status that say how things are.
func (p paint) line(text string) string {
	if !p.on {
		return text
	}
	return p.words.ReplaceAllStringFunc(text, func(word string) string {
		switch word {
		case "MASTER":
			return green + word + normal
		case "warning:", "MAINTENANCE", "SORRY SERVER", "drained":
			return yellow + word + normal
		}
		return red + word + normal
	})
}

func (p paint) event(e status.Event) string {
	switch e.Level {
	case status.LevelError:
		return p.in(red, e.Line())
	case status.LevelWarning:
		return p.in(yellow, e.Line())
	}
	return e.Line()
}
