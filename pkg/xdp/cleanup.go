package xdp

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// Cleanup detaches and removes what an earlier run left under pinPath. Nothing there, or no bpffs, is no error; a pin
// path that a running process uses is left alone (ErrInUse).
func Cleanup(pinPath string) error {
	p := pins{path: filepath.Clean(pinPath)}
	if _, err := os.Stat(p.links()); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	lock, err := p.lock()
	if err != nil {
		return err
	}
	lock.Close() // it would hold up the unmount
	return p.removeAll()
}

// Reason says why the programs run in the mode in which they do, in plain words; empty: the first mode worked.
func (p *Plane) Reason() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.reason
}
