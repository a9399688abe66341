package track

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	filePause  = 100 * time.Millisecond // between two looks at a file
	fileSettle = 20 * time.Millisecond  // between the two that must agree: `echo 1 > FILE` empties it first
	maxDigits  = 64                     // bytes of a file that can be a number
	maxValue   = 1_000_000_000
)

// watchFile looks at a file until ctx ends. It polls: a file may be missing, with its folder, be replaced, or lie on a
// file system that tells nobody of changes; a look costs a few microseconds.
func watchFile(ctx context.Context, path string, before FileState, tell func(func(*State))) {
	now, first := before, true
	pause := time.NewTimer(0)
	defer pause.Stop()
	var candidate FileState
	pending := false
	for {
		select {
		case <-pause.C:
		case <-ctx.Done():
			return
		}
		seen := readFile(path, now.Value)
		switch {
		case seen == now && !first:
			pending = false
		case pending && seen == candidate:
			now, first, pending = seen, false, false
			tell(func(state *State) { state.Files[path] = seen })
		default:
			candidate, pending = seen, true
			pause.Reset(fileSettle)
			continue
		}
		pause.Reset(filePause)
	}
}

// readFile reads the number in a file. What holds none leaves the last value in force: a mistake in a file must not take
// traffic down.
func readFile(path string, last int) FileState {
	value, err := readNumber(path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return FileState{}
	}
	if err != nil {
		return FileState{Value: last, Problem: err.Error()}
	}
	return FileState{Value: value}
}

func readNumber(path string) (int, error) {
	// Neither a pipe without a writer nor a terminal may hold this up, or even be opened.
	info, err := os.Stat(path)
	if err != nil {
		return 0, bare("look at it", err)
	}
	if !info.Mode().IsRegular() {
		return 0, fmt.Errorf("it is no regular file (%s): remove it", info.Mode())
	}
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return 0, bare("open it", err)
	}
	defer f.Close()
	content, err := io.ReadAll(io.LimitReader(f, maxDigits+1))
	if err != nil {
		return 0, bare("read it", err)
	}
	text := strings.TrimSpace(string(content))
	if text == "" && len(content) <= maxDigits {
		return 1, nil
	}
	number, err := strconv.ParseInt(text, 10, 64)
	if len(content) > maxDigits || err != nil && !errors.Is(err, strconv.ErrRange) {
		return 0, fmt.Errorf("it holds no number, but %.20q: write one, such as 0", text)
	}
	return int(min(max(number, -maxValue), maxValue)), nil
}

// bare leaves out the path, which the reader of the message knows.
func bare(verb string, err error) error {
	if pathError, ok := errors.AsType[*fs.PathError](err); ok {
		err = pathError.Err
	}
	return fmt.Errorf("%s: %w", verb, err)
}
