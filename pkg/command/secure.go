package command

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/xdirector/xdirector/pkg/owner"
)

// secure is nil if nobody but root, and the user itself, can change what the command runs: the file and every folder on
// the way to it, through symbolic links, belongs to root or the user and can be written by no group and no others. The
// sticky bit of a folder like /tmp doesn't count: whoever makes the file there after it was removed owns it.
//
// As root, the first argument that is no option must be as safe, if it is a file: /bin/sh /home/me/check.sh runs that.
func secure(command []string, uid int) error {
	rule := owner.Rule{UID: uid, What: "what is run", Thing: "it", Elsewhere: "/etc/xdirector"}
	info, err := rule.Walk(command[0])
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
			if _, err := rule.Walk(argument); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("%w; or don't run it as root", err)
			}
		}
		break
	}
	return nil
}
