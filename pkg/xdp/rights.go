package xdp

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// rights are the capabilities that loading and attaching needs; CAP_SYS_ADMIN stands for each of them.
var rights = [...]struct {
	bit  uint
	name string
}{
	{unix.CAP_BPF, "CAP_BPF"},
	{unix.CAP_PERFMON, "CAP_PERFMON"},
	{unix.CAP_NET_ADMIN, "CAP_NET_ADMIN"},
}

// explain replaces an error that comes of a missing capability by one that names it: the kernel says "not permitted"
// to all of them, or finds fault with the program.
func explain(err error, statusFile string) error {
	if !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EACCES) {
		return err
	}
	missing := missingRights(statusFile)
	if len(missing) == 0 {
		return err
	}
	return fmt.Errorf("open xdp plane: this process lacks %s: run it as root, or with CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN "+
		"(CapabilityBoundingSet= and AmbientCapabilities= of the unit)", strings.Join(missing, ", "))
}

// missingRights reads what a thread may do from its status file in /proc. Nothing is missing if that can't be told.
func missingRights(statusFile string) []string {
	status, err := os.ReadFile(statusFile)
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(status)) {
		text, ok := strings.CutPrefix(line, "CapEff:")
		if !ok {
			continue
		}
		effective, err := strconv.ParseUint(strings.TrimSpace(text), 16, 64)
		if err != nil || effective>>unix.CAP_SYS_ADMIN&1 == 1 {
			return nil
		}
		var missing []string
		for _, r := range rights {
			if effective>>r.bit&1 == 0 {
				missing = append(missing, r.name)
			}
		}
		return missing
	}
	return nil
}
