package doctor

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// commandLimit is how long a tool may take: it must not hang on a box that is sick.
const commandLimit = 10 * time.Second

// errMissing is in the error of run when the tool is not installed.
var errMissing = errors.New("not installed")

// tool finds a command; /usr/sbin need not be in the PATH of who calls us.
func tool(name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	for _, dir := range []string{"/usr/sbin", "/sbin", "/usr/local/sbin"} {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s: %w", name, errMissing)
}

// run returns what a tool prints.
func (b *box) run(name string, args ...string) ([]byte, error) {
	path, err := tool(name)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(b.ctx, commandLimit)
	defer cancel()
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		said, _, _ := strings.Cut(strings.TrimSpace(stderr.String()), "\n")
		return nil, fmt.Errorf("run %s %s: %w: %s", name, strings.Join(args, " "), err, said)
	}
	return stdout.Bytes(), nil
}

// runJSON is run for a tool that prints JSON; no output is no value.
func (b *box) runJSON(into any, name string, args ...string) error {
	out, err := b.run(name, args...)
	if err != nil || len(bytes.TrimSpace(out)) == 0 {
		return err
	}
	if err := json.Unmarshal(out, into); err != nil {
		return fmt.Errorf("read what %s prints: %w", name, err)
	}
	return nil
}

// link is one interface as `ip -json -details address` has it.
type link struct {
	Index     int       `json:"ifindex"`
	Name      string    `json:"ifname"`
	Flags     []string  `json:"flags"`
	MTU       int       `json:"mtu"`
	State     string    `json:"operstate"`
	Master    string    `json:"master"`
	Below     string    `json:"link"`
	MAC       string    `json:"address"`
	Addresses []address `json:"addr_info"`
	XDP       *struct {
		Mode     int `json:"mode"`
		Program  id  `json:"prog"`
		Attached []struct {
			Mode    int `json:"mode"`
			Program id  `json:"prog"`
		} `json:"attached"`
	} `json:"xdp"`
	Info struct {
		Kind string         `json:"info_kind"`
		Data map[string]any `json:"info_data"`
	} `json:"linkinfo"`
}

type id struct {
	ID   int    `json:"id"`
	Name string `json:"name"`
}

type address struct {
	Local  netip.Addr `json:"local"`
	Bits   int        `json:"prefixlen"`
	Valid  uint32     `json:"valid_life_time"` // seconds; 2^32 - 1: for ever
	Scope  string     `json:"scope"`
	Family string     `json:"family"`
}

func (l link) is(flag string) bool { return slices.Contains(l.Flags, flag) }

// links reads all interfaces with their addresses.
func (b *box) links() ([]link, error) {
	if b.known != nil {
		return b.known, nil
	}
	var all []link
	if err := b.runJSON(&all, "ip", "-json", "-details", "address", "show"); err != nil {
		return nil, fmt.Errorf("list interfaces: %w (iproute2 is needed)", err)
	}
	b.known = all
	return all, nil
}

func linkNamed(all []link, name string) (link, bool) {
	n := slices.IndexFunc(all, func(l link) bool { return l.Name == name })
	if n < 0 {
		return link{}, false
	}
	return all[n], true
}

// used lists the interfaces that a director of the configuration uses and that are here; without a configuration those
// that are up and are no loopback.
func (b *box) used() ([]link, error) {
	all, err := b.links()
	if err != nil {
		return nil, err
	}
	wanted := b.wanted()
	return slices.DeleteFunc(slices.Clone(all), func(l link) bool {
		if b.Config == nil {
			return l.is("LOOPBACK") || !l.is("UP")
		}
		return !slices.Contains(wanted, l.Name)
	}), nil
}

// wanted lists the interfaces that the configuration names.
func (b *box) wanted() []string {
	var names []string
	for _, i := range b.instances() {
		names = append(names, i.Interface)
	}
	if b.Config != nil {
		names = append(names, b.Config.Dataplane.Interfaces...)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// setting reads a file below /proc/sys; empty: the kernel has none.
func setting(path string) string {
	value, err := os.ReadFile("/proc/sys/" + path)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(value))
}

// settingsFile is where cures keep settings, so that they outlive a reboot.
const settingsFile = "/etc/sysctl.d/90-xdirector.conf"

// set is the command that gives the kernel settings, each as path=value, now and after each reboot.
func set(settings ...string) string {
	quoted := make([]string, 0, len(settings))
	for _, s := range settings {
		quoted = append(quoted, quote(s))
	}
	return fmt.Sprintf("printf '%%s\\n' %s | tee -a %s | sysctl -p -", strings.Join(quoted, " "), settingsFile)
}

// quote makes one word for a shell.
func quote(word string) string {
	safe := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("_-./:=,@%+", r)
	}
	if word != "" && strings.IndexFunc(word, func(r rune) bool { return !safe(r) }) < 0 {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}
