package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/term"
)

// screen is a terminal that shows one page after another, and gives the keys that are pressed.
type screen struct {
	in, out *os.File
	before  *term.State // nil: keys are not read one by one
	keys    chan byte
}

// What a terminal understands.
const (
	otherScreen = "\x1b[?1049h\x1b[?25l" // so that what was there comes back; no cursor
	firstScreen = "\x1b[?25h\x1b[?1049l"
	home        = "\x1b[H"
	clearLine   = "\x1b[K"
	clearRest   = "\x1b[J"
)

// openScreen returns nil if out is no terminal.
func openScreen(in io.Reader, out io.Writer) *screen {
	file, ok := out.(*os.File)
	if !ok || !term.IsTerminal(int(file.Fd())) {
		return nil
	}
	s := &screen{out: file, keys: make(chan byte)}
	if s.in, ok = in.(*os.File); ok && term.IsTerminal(int(s.in.Fd())) {
		if before, err := term.MakeRaw(int(s.in.Fd())); err == nil {
			s.before = before
			go s.read()
		}
	}
	io.WriteString(s.out, otherScreen)
	return s
}

// read gives keys until the process ends: a read of a terminal can't be called off.
func (s *screen) read() {
	keys := make([]byte, 1)
	for {
		if _, err := s.in.Read(keys); err != nil {
			return
		}
		s.keys <- keys[0]
	}
}

// close leaves the terminal as it was.
func (s *screen) close() {
	io.WriteString(s.out, firstScreen)
	if s.before != nil {
		term.Restore(int(s.in.Fd()), s.before)
	}
}

// draw shows as many lines as there is room for, and says how many are hidden. hint is what to do about that.
func (s *screen) draw(lines []string, hint string, p paint) error {
	width, height, err := term.GetSize(int(s.out.Fd()))
	if err != nil || width <= 0 || height <= 0 {
		width, height = 80, 24
	}
	w := bufio.NewWriter(s.out)
	w.WriteString(home)
	for n, line := range fit(lines, hint, width, height) {
		if n > 0 {
			w.WriteString("\r\n")
		}
		w.WriteString(p.line(line) + clearLine)
	}
	w.WriteString(clearRest)
	return w.Flush()
}

// fit cuts lines to a terminal. Of the warnings at their end as many are kept as a third of it takes.
func fit(lines []string, hint string, width, height int) []string {
	shown := lines
	if len(lines) > height {
		end := len(lines)
		for len(lines)-end < height/3 && strings.HasPrefix(lines[end-1], "warning:") {
			end--
		}
		begin := height - 1 - (len(lines) - end)
		shown = append(slices.Clone(lines[:begin]), fmt.Sprintf("... %d more lines: %s", end-begin, hint))
		shown = append(shown, lines[end:]...)
	}
	list := make([]string, len(shown))
	for n, line := range shown {
		if list[n] = line; utf8.RuneCountInString(line) > width {
			list[n] = string([]rune(line)[:width-1]) + ">"
		}
	}
	return list
}

func splitLines(text string) []string { return strings.Split(strings.TrimRight(text, "\n"), "\n") }
