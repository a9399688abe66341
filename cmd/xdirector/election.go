package main

import (
	"errors"

	"github.com/xdirector/xdirector/pkg/supervisor"
)

// electionCommand is the hidden command of the process that `run` starts for the election. It has no command tree: this
// process is to be small.
const electionCommand = "election"

func elect() error {
	err := supervisor.Elect(stderrHandler)
	if errors.Is(err, supervisor.ErrShown) {
		return shownError{err}
	}
	return err
}
