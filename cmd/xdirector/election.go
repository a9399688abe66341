package main

import (
	"errors"
	"os"

	"github.com/xdirector/xdirector/pkg/supervisor"
)

// electionCommand is the hidden command of the process that `run` starts for the election. It has no command tree: this
// process is to be small.
const electionCommand = "election"

func elect() error {
	log := newLog(os.Stderr)
	defer log.flush()
	err := supervisor.Elect(log.handler)
	if errors.Is(err, supervisor.ErrShown) {
		return shownError{err}
	}
	return err
}
