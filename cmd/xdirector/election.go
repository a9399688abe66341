package main

import "github.com/xdirector/xdirector/pkg/supervisor"

// electionCommand is the hidden command of the process that `run` starts for the election. It has no command tree: this
// process is to be small.
const electionCommand = "election"

func elect() error { return supervisor.Elect(stderrHandler) }
