package ha

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

// sysctls are the settings of interfaces. /proc/sys shows those of the reading thread's network namespace; the folders
// are opened once, on the right thread, and stay those of that namespace for all others.
type sysctls struct {
	v4, v6 *os.Root // nil: not there
	mu     sync.Mutex
}

func openSysctls() *sysctls {
	s := &sysctls{}
	s.v4, _ = os.OpenRoot("/proc/sys/net/ipv4/conf") // told when something must be written there
	s.v6, _ = os.OpenRoot("/proc/sys/net/ipv6/conf") // a kernel without IPv6 has none
	return s
}

func (s *sysctls) close() {
	for _, r := range []*os.Root{s.v4, s.v6} {
		if r != nil {
			r.Close()
		}
	}
}

// get reads a setting of an interface; empty: there is none.
func (s *sysctls) get(ipv6 bool, device, name string) string {
	root := s.v4
	if ipv6 {
		root = s.v6
	}
	if root == nil {
		return ""
	}
	b, err := root.ReadFile(filepath.Join(device, name))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// set makes a setting of an interface what it must be, and says so with the reason: it stays so. Settings that the
// kernel doesn't have are none that could be wrong.
func (s *sysctls) set(log *slog.Logger, ipv6 bool, device, name, value, reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.get(ipv6, device, name)
	if now == value || now == "" && (ipv6 || s.v4 != nil) {
		return
	}
	root, family := s.v4, "ipv4"
	if ipv6 {
		root, family = s.v6, "ipv6"
	}
	err := fs.ErrPermission
	if root != nil {
		err = root.WriteFile(filepath.Join(device, name), []byte(value+"\n"), 0)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		log.Error(fmt.Sprintf("%s not set, which it must be so that %s; set it with: sysctl net.%s.conf.%s.%s=%s",
			name, reason, family, strings.ReplaceAll(device, ".", "/"), name, value), "interface", device, "error", err)
	default:
		log.Info(name+" set, so that "+reason, "interface", device, "from", now, "to", value)
	}
}

// promote sets promote_secondaries: without it the kernel takes all addresses of a prefix away, the box's own
// included, when the first of them is removed.
func (s *sysctls) promote(log *slog.Logger, device string) {
	s.set(log, false, device, "promote_secondaries", "1", "removing a virtual address removes no other of its prefix")
}
