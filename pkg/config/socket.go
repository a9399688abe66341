package config

import (
	"bytes"
	"fmt"

	"gopkg.in/yaml.v3"
)

// DefaultSocket is the control socket where the configuration names none.
const DefaultSocket = "/run/xdirector/control.sock"

const (
	defaultStateDir = "/run/xdirector"
	defaultPinPath  = "/run/xdirector/bpf"
)

// Places is where a director leaves what others may look for.
type Places struct {
	Socket   string // control.socket
	StateDir string // state_dir
	PinPath  string // dataplane.pin_path
}

// PlacesOf returns the places that the file at path names, or the defaults. It asks no more of the file than that:
// while an operator is at work on a mistake in it, the running director, or what one has left, must still be found.
func PlacesOf(path string) (Places, error) {
	data, _, err := read(path)
	if err != nil {
		return Places{}, fmt.Errorf("read configuration %s: %w%s", path, err, cure(err))
	}
	var file struct {
		StateDir  string `yaml:"state_dir"`
		Control   struct{ Socket string }
		Dataplane struct {
			PinPath string `yaml:"pin_path"`
		}
	}
	p := Places{Socket: DefaultSocket, StateDir: defaultStateDir, PinPath: defaultPinPath}
	if yaml.Unmarshal(without(data), &file) != nil && yaml.Unmarshal(data, &file) != nil {
		return p, nil
	}
	for _, f := range []struct {
		into *string
		text string
	}{{&p.Socket, file.Control.Socket}, {&p.StateDir, file.StateDir}, {&p.PinPath, file.Dataplane.PinPath}} {
		if f.text != "" {
			*f.into = f.text
		}
	}
	return p, nil
}

// without leaves out the top-level keys that may be very long and are not looked at, since a command that only wants the socket
// shouldn't have to read ten thousand services. A file that is written in any but the usual way stays whole.
func without(data []byte) []byte {
	kept := make([]byte, 0, 4096)
	keep := true
	for line := range bytes.Lines(data) {
		switch c := line[0]; {
		case c == ' ' || c == '#' || c == '-' && !bytes.HasPrefix(line, []byte("---")) || c == '\n' || c == '\r' || c == '}' || c == ']':
		case c >= 'a' && c <= 'z':
			keep = !bytes.HasPrefix(line, []byte("services:")) && !bytes.HasPrefix(line, []byte("vrrp:"))
		default:
			return data
		}
		if keep {
			kept = append(kept, line...)
		}
	}
	return kept
}

// ControlSocket returns the control socket that the file at path names, or the default; see PlacesOf.
func ControlSocket(path string) (string, error) {
	p, err := PlacesOf(path)
	return p.Socket, err
}
