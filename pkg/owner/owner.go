// Package owner finds out who else can change a file: what is run, or what says what is run, must be in the hands of root
// and of the user that it is for alone.
package owner

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Rule is what is asked of a file and of every folder on the way to it.
type Rule struct {
	UID       int    // may own them, as root may
	What      string // others could change, in words: "what is run"
	Thing     string // that lies there: "the script"
	Elsewhere string // a folder that is safe
	// Sticky says that a folder like /tmp is no danger: others can't remove there what isn't theirs, and whose the file is
	// was looked at after it was opened.
	Sticky bool
}

// maxLinks is the kernel's own limit of symbolic links on one way.
const maxLinks = 40

// Walk goes from the root folder to the end of the path, which must be absolute, as the kernel does, and looks at
// everything it passes. The error names what others can change, and the cure; it wraps fs.ErrNotExist if there is nothing.
func (r Rule) Walk(path string) (fs.FileInfo, error) {
	at, rest, links := "/", split(path), 0
	info, err := r.look(at)
	for err == nil && len(rest) > 0 {
		name := rest[0]
		rest = rest[1:]
		if name == ".." {
			at = filepath.Dir(at)
			continue
		}
		next := filepath.Join(at, name)
		info, err = r.look(next)
		if err != nil {
			break
		}
		if info.Mode().Type() != fs.ModeSymlink {
			at = next
			continue
		}
		if links++; links > maxLinks {
			return nil, fmt.Errorf("%s leads through too many symbolic links", path)
		}
		target, err := os.Readlink(next)
		if err != nil {
			return nil, fmt.Errorf("look at %s: %w", path, err)
		}
		if filepath.IsAbs(target) {
			at = "/"
		}
		rest = append(split(target), rest...)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s does not exist: %w", path, fs.ErrNotExist)
	}
	return info, err
}

func split(path string) []string {
	return strings.FieldsFunc(path, func(r rune) bool { return r == '/' })
}

// look refuses a file or folder that others can change. A symbolic link can be changed by who can write its folder.
func (r Rule) look(path string) (fs.FileInfo, error) {
	var st unix.Stat_t
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrPermission) {
		return nil, fmt.Errorf("the service may not look at %s, to see who can change it: chmod o+x the folders above it, or put %s into %s", path, r.Thing, r.Elsewhere)
	}
	if err != nil {
		return nil, fmt.Errorf("look at %w", err)
	}
	if err := unix.Lstat(path, &st); err != nil {
		return nil, fmt.Errorf("look at %s: %w", path, err)
	}
	if info.Mode().Type() == fs.ModeSymlink {
		return info, nil
	}
	return info, r.judge(path, st.Uid, st.Mode)
}

// judge refuses an owner and a mode.
func (r Rule) judge(path string, uid, mode uint32) error {
	sticky := mode&unix.S_IFMT == unix.S_IFDIR && mode&unix.S_ISVTX != 0
	switch {
	case uid != 0 && int(uid) != r.UID:
		return fmt.Errorf("refused: %s (mode %04o) belongs to user %d, who could change %s: chown root %s", path, mode&0o7777, uid, r.What, path)
	case mode&0o022 == 0 || sticky && r.Sticky:
		return nil
	case sticky: // it is meant to be so
		return fmt.Errorf("refused: %s (mode %04o) can be written by others, who could change %s: put %s into another folder, such as %s", path, mode&0o7777, r.What, r.Thing, r.Elsewhere)
	}
	return fmt.Errorf("refused: %s (mode %04o) can be written by others, who could change %s: chmod go-w %s", path, mode&0o7777, r.What, path)
}

// Opened is Walk for a file that is open, by the name it was opened by: whose it is, is asked of the file itself. What is no
// ordinary file, such as a pipe, was given by who runs the program, and is accepted.
func (r Rule) Opened(f *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return fmt.Errorf("look at %s: %w", f.Name(), err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil
	}
	path, err := filepath.Abs(f.Name())
	if err != nil {
		return fmt.Errorf("look at %s: %w", f.Name(), err)
	}
	if err := r.judge(path, st.Uid, st.Mode); err != nil {
		return err
	}
	_, err = r.Walk(path)
	return err
}
