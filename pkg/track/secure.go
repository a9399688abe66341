package track

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// secure is nil if nobody but root, and the user itself, can change what the command runs: the file and every folder on
// the way to it, through symbolic links, belongs to root or the user and can be written by no group and no others. The
// sticky bit of a folder like /tmp doesn't count: whoever makes the file there after it was removed owns it.
//
// As root, the first argument that is no option must be as safe, if it is a file: /bin/sh /home/me/check.sh runs that.
func secure(command []string, uid int) error {
	info, err := walk(command[0], uid)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is no file (%s): name the program itself", command[0], info.Mode())
	}
	if uid != 0 {
		return nil
	}
	for _, argument := range command[1:] {
		if strings.HasPrefix(argument, "-") {
			continue
		}
		if filepath.IsAbs(argument) {
			if _, err := walk(argument, uid); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("%w; or don't run the script as root", err)
			}
		}
		break
	}
	return nil
}

// maxLinks is the kernel's own limit of symbolic links on one way.
const maxLinks = 40

// walk goes from the root folder to the end of the path as the kernel does, and looks at everything it passes.
func walk(path string, uid int) (fs.FileInfo, error) {
	at, rest, links := "/", split(path), 0
	info, err := look(at, uid)
	for err == nil && len(rest) > 0 {
		name := rest[0]
		rest = rest[1:]
		if name == ".." {
			at = filepath.Dir(at)
			continue
		}
		next := filepath.Join(at, name)
		info, err = look(next, uid)
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
func look(path string, uid int) (fs.FileInfo, error) {
	var st unix.Stat_t
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrPermission) {
		return nil, fmt.Errorf("the service may not look at %s, to see who can change it: chmod o+x the folders above it, or put the script into /etc/xdirector", path)
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
	if owner := int(st.Uid); owner != 0 && owner != uid {
		return nil, fmt.Errorf("refused: %s (mode %04o) belongs to user %d, who could change what is run: chown root %s", path, st.Mode&0o7777, owner, path)
	}
	if st.Mode&0o022 != 0 {
		return nil, fmt.Errorf("refused: %s (mode %04o) can be written by others, who could change what is run: %s", path, st.Mode&0o7777, unwritable(path, st.Mode))
	}
	return info, nil
}

// unwritable is the cure for a file or folder that others can write; a sticky folder like /tmp is meant to be so.
func unwritable(path string, mode uint32) string {
	if mode&unix.S_ISVTX != 0 {
		return "put the script into another folder, such as /etc/xdirector"
	}
	return "chmod go-w " + path
}
