package config

import (
	"fmt"

	"gopkg.in/yaml.v3"
)

const defaultSocket = "/run/xdirector/control.sock"

// ControlSocket returns the control socket that the file at path names, or the default. It asks no more of the file
// than that: while an operator is at work on a mistake in it, the running director must still be found.
func ControlSocket(path string) (string, error) {
	data, err := read(path)
	if err != nil {
		return "", fmt.Errorf("read configuration %s: %w%s", path, err, cure(err))
	}
	var file struct {
		Control struct{ Socket string }
	}
	if yaml.Unmarshal(data, &file) != nil || file.Control.Socket == "" {
		return defaultSocket, nil
	}
	return file.Control.Socket, nil
}
