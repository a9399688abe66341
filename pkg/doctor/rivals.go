package doctor

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// process is one that runs in our network namespace.
type process struct {
	pid       int
	name      string
	arguments []string
	unit      string // of systemd; empty: none
}

// processes lists those of some names whose network is ours. What ends meanwhile is left out.
func processes(names ...string) []process {
	own, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		return nil
	}
	var all []process
	folders, _ := filepath.Glob("/proc/[0-9]*") // the pattern is good
	for _, folder := range folders {
		comm, _ := os.ReadFile(folder + "/comm") // ended: empty, and no such name
		name := strings.TrimSpace(string(comm))
		if !slices.Contains(names, name) {
			continue
		}
		if where, err := os.Readlink(folder + "/ns/net"); err != nil || where != own {
			continue
		}
		p := process{name: name}
		p.pid, _ = strconv.Atoi(filepath.Base(folder))
		line, _ := os.ReadFile(folder + "/cmdline")
		p.arguments = strings.Split(strings.TrimRight(string(line), "\x00"), "\x00")
		groups, _ := os.ReadFile(folder + "/cgroup")
		for line := range strings.Lines(string(groups)) {
			if unit := filepath.Base(strings.TrimSpace(line)); strings.HasSuffix(unit, ".service") {
				p.unit = unit
			}
		}
		all = append(all, p)
	}
	return all
}

// end is the command that ends a process for good.
func (p process) end() string {
	switch {
	case p.name == "vrrpd" && p.unit == "frr.service": // routing is not ours to end
		return "sed -i s/^vrrpd=yes/vrrpd=no/ /etc/frr/daemons && systemctl restart frr.service"
	case p.unit != "":
		return "systemctl disable --now " + p.unit
	}
	return "kill " + strconv.Itoa(p.pid)
}

// rivals: nobody else on this box elects who holds the same addresses.
func rivals(b *box) error {
	if b.Config == nil {
		return nil
	}
	seen := map[string]bool{}
	for _, p := range processes("keepalived", "vrrpd", "ucarp") {
		file := p.configuration()
		if seen[file] {
			continue // a child of the first one
		}
		seen[file] = true
		text, err := os.ReadFile(file)
		if file != "" && err == nil && !b.shares(string(text)) {
			b.fact("%s runs here too (process %d), for other addresses", p.name, p.pid)
			continue
		}
		what := fmt.Sprintf("%s runs here too (process %d), for the same addresses as %s says", p.name, p.pid, file)
		if file == "" || err != nil {
			what = fmt.Sprintf("%s runs here too (process %d), and its configuration can't be read", p.name, p.pid)
		}
		b.found(what, "two that put the same address on one box take it away from each other", p.end())
	}
	return nil
}

// configuration returns the file that a process was started with.
func (p process) configuration() string {
	for n, a := range p.arguments {
		if value, is := strings.CutPrefix(a, "--use-file="); is {
			return value
		}
		if (a == "-f" || a == "--use-file") && n+1 < len(p.arguments) {
			return p.arguments[n+1]
		}
	}
	if p.name == "vrrpd" {
		if _, err := os.Stat("/etc/frr/vrrpd.conf"); err != nil {
			return "/etc/frr/frr.conf" // all daemons of FRR in one
		}
		return "/etc/frr/vrrpd.conf"
	}
	return map[string]string{"keepalived": "/etc/keepalived/keepalived.conf"}[p.name]
}

// shares says whether a configuration of something else names one of our addresses.
func (b *box) shares(text string) bool {
	return slices.ContainsFunc(strings.FieldsFunc(text, func(r rune) bool { return r <= ' ' || r == '/' || r == '{' || r == '}' || r == ';' }), func(word string) bool {
		a, err := netip.ParseAddr(word)
		return err == nil && slices.Contains(b.virtualAddresses(), a)
	})
}

// held: no virtual address is on this box without a director that holds it.
func held(b *box) error {
	if b.Live != nil || b.Config == nil {
		return nil
	}
	all, err := b.links()
	if err != nil {
		return err
	}
	for _, l := range all {
		for _, a := range l.Addresses {
			switch {
			case l.is("LOOPBACK") || !slices.Contains(b.virtualAddresses(), a.Local):
			case a.Valid != forEver:
				b.found(fmt.Sprintf("%s is on %s, and no director runs", a.Local, l.Name), "one that was killed left it, and clients get no answer from here until its lifetime ends",
					"xdirector cleanup --config "+quote(b.File))
			default:
				b.found(fmt.Sprintf("%s is on %s, put there by somebody else", a.Local, l.Name),
					"a director never touches an address that it did not add: this box answers for it while another one is MASTER",
					fmt.Sprintf("ip address del %s dev %s", prefixOf(a), quote(l.Name)))
			}
		}
	}
	return nil
}

// forEver is a lifetime without an end.
const forEver = 1<<32 - 1
