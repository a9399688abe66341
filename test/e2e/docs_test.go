package e2e

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/xdirector/xdirector/test/lab"
)

// block is a fenced block of a page whose commands are typed.
type block struct {
	page     string
	line     int      // of the first command
	on       []string // the machines, by the words behind the fence
	commands []typed
}

// typed is a command, and what the page prints below it; nil: nothing is printed there, and anything may come out.
type typed struct {
	command string
	want    []string
}

var fence = regexp.MustCompile("^( *)```(console|sh)((?: [a-z0-9]+)*)$")

// blocks reads a page of docs/. In a block `sh` all is one script; in a block `console` a command begins with a prompt, and what
// comes below it is what it prints.
func blocks(t *testing.T, page string) (list []block) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("../../docs", page))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(data), "\n")
	for i := 0; i < len(lines); i++ {
		m := fence.FindStringSubmatch(lines[i])
		if m == nil {
			continue
		}
		indent, kind := m[1], m[2]
		b := block{page: page, line: i + 2, on: strings.Fields(m[3])}
		if len(b.on) == 0 {
			b.on = []string{"lb1"}
		}
		for i++; i < len(lines) && lines[i] != indent+"```"; i++ {
			line := strings.TrimPrefix(lines[i], indent)
			command, prompt := strings.CutPrefix(line, "# ")
			if !prompt {
				command, prompt = strings.CutPrefix(line, "$ ")
			}
			last := len(b.commands) - 1
			switch {
			case kind == "sh" && last < 0:
				b.commands = []typed{{command: line}}
			case kind == "sh":
				b.commands[last].command += "\n" + line
			case prompt:
				b.commands = append(b.commands, typed{command: command})
			case last < 0:
				t.Fatalf("%s:%d: a block `console` begins with a prompt", page, i+1)
			default:
				b.commands[last].want = append(b.commands[last].want, line)
			}
		}
		list = append(list, b)
	}
	if len(list) == 0 {
		t.Fatalf("%s has no commands", page)
	}
	return list
}

// asks are commands that change nothing: what they print may need a moment to become as it is printed.
var asks = regexp.MustCompile(`^(xdirector (status|explain|events|check|version)|curl|ip -|ethtool -|journalctl|systemctl is-active)`)

// book is a lab of machines on which pages are typed.
type book struct {
	t        *testing.T
	machines map[string]*lab.Machine
}

// browse has the client go on asking for pages, from the end of the quick start on.
func (b *book) browse() {
	b.t.Helper()
	const script = `[ -e /run/browsing ] && exit
touch /run/browsing
setsid sh -c 'while curl -s -o /dev/null -m 1 http://192.168.5.100/ || true; do sleep 0.1; done' >/dev/null 2>&1 </dev/null &`
	if out, err := b.machines["client"].Type(script, patience); err != nil {
		b.t.Fatalf("%v\n%s", err, out)
	}
}

func (b *book) do(block block) {
	b.t.Helper()
	for _, c := range block.commands {
		for _, name := range block.on {
			m := b.machines[name]
			if m == nil {
				b.t.Fatalf("%s:%d: there is no machine %s", block.page, block.line, name)
			}
			began := time.Now()
			out, err := b.typeOne(m, c)
			if took := time.Since(began); took > time.Second {
				b.t.Logf("%s:%d: on %s: %.60q took %v", block.page, block.line, name, c.command, took.Round(time.Millisecond))
			}
			if err != nil {
				b.t.Fatalf("%s:%d: on %s: %s\n%v\n%s", block.page, block.line, name, c.command, err, out)
			}
		}
	}
}

// typeOne types a command, and a question again and again until it is answered as printed.
func (b *book) typeOne(m *lab.Machine, c typed) (out string, err error) {
	b.t.Helper()
	limit := patience
	if inVM() { // where a busy machine leaves it little, a start takes longer than that
		limit *= 3
	}
	for end := time.Now().Add(limit); ; {
		out, err = m.Type(c.command, limit)
		if err == nil && c.want != nil {
			err = sameText(c.want, out)
		}
		if err == nil || !asks.MatchString(c.command) || time.Now().After(end) {
			return out, err
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-b.t.Context().Done():
			return out, err
		}
	}
}

var (
	variable = regexp.MustCompile(`xdirector [^ ,]+, up\b|\b([0-9]+\.){3}[0-9]+(:[0-9]+|/[0-9]+)?\b|\b([0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}\b|\b([0-9]+(\.[0-9]+)?(ns|µs|ms|s|m|h|d)?)+\b`)
	blanks   = regexp.MustCompile(`\s+`)
	address4 = regexp.MustCompile(`^([0-9]+\.){3}`)
)

// plain is a line in which one number or time is as good as another, and one blank as many. Addresses and names count.
func plain(line string) string {
	line = variable.ReplaceAllStringFunc(line, func(word string) string {
		switch {
		case address4.MatchString(word):
			return word
		case strings.HasPrefix(word, "xdirector"):
			return "VERSION"
		case strings.Contains(word, ":"):
			return "MAC"
		}
		return "N"
	})
	return strings.TrimSpace(blanks.ReplaceAllString(line, " "))
}

// sameText compares what is printed in a page with what came out, line by line; `...` is any anyNumber of lines.
func sameText(want []string, out string) error {
	got := strings.Split(strings.TrimRight(out, "\n"), "\n")
	for len(want) > 0 && strings.TrimSpace(want[len(want)-1]) == "" {
		want = want[:len(want)-1]
	}
	at := 0
	for i, line := range want {
		if line == "..." {
			if i == len(want)-1 {
				return nil
			}
			for at < len(got) && !sameLine(want[i+1], got[at]) {
				at++
			}
			continue
		}
		if at >= len(got) || !sameLine(line, got[at]) {
			return fmt.Errorf("the page prints %q as line %d, and that is not what came out", line, i+1)
		}
		at++
	}
	if at < len(got) {
		return fmt.Errorf("the page doesn't print %q", got[at])
	}
	return nil
}

// sameLine compares two lines; ` ...` at the end of the first is any end of the second.
func sameLine(want, got string) bool {
	begin, cut := strings.CutSuffix(want, " ...")
	return plain(got) == plain(want) || cut && strings.HasPrefix(plain(got), plain(begin))
}

// newBook has the machines of the quick start.
func newBook(t *testing.T) *book {
	t.Helper()
	l, err := lab.New(lab.Options{Directors: 2, RealServers: 3})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	sources, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	b := &book{t: t, machines: map[string]*lab.Machine{}}
	for name, n := range map[string]struct {
		node    *lab.Node
		address string
	}{
		"lb1": {l.Directors[0], "192.168.5.101"}, "lb2": {l.Directors[1], "192.168.5.102"},
		"r1": {l.RealServers[0], "192.168.5.103"}, "r2": {l.RealServers[1], "192.168.5.104"}, "r3": {l.RealServers[2], "192.168.5.109"}, "client": {l.Client, "192.168.5.50"},
	} {
		if err := n.node.DeleteAddress("eth0", netip.PrefixFrom(n.node.Address, 24).String()); err != nil {
			t.Fatal(err)
		}
		if err := n.node.AddAddress("eth0", n.address+"/24"); err != nil {
			t.Fatal(err)
		}
		if name == "r1" || name == "r2" {
			if _, err := n.node.StartNginx(80); err != nil {
				t.Fatal(err)
			}
		}
		if b.machines[name], err = n.node.NewMachine(sources); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if t.Failed() {
			for _, name := range []string{"lb1", "lb2"} {
				journal, _ := b.machines[name].Type("tail -n 40 /run/xdirector.journal", patience)
				t.Logf("journal of %s:\n%s", name, journal)
			}
		}
	})
	return b
}

// pages are those whose commands are typed here, one page after the other on the same machines.
var pages = []string{"quick-start.md", "concepts.md", "vrrp.md", "real-servers.md", "reload.md", "control.md", "explain.md", "services.md", "../configs/realserver/README.md", "tuning.md", "troubleshooting.md", "security.md", "upgrade.md", "../README.md"}

// The quick start is typed always, the other pages behind it take a minute and are for `make test-long`.
func TestOperatorsPagesSayWhatHappens(t *testing.T) {
	t.Parallel()
	onPlanes(t, func(t *testing.T, _ string) {
		b := newBook(t)
		typed := pages
		if os.Getenv("XDIRECTOR_PAGES") != "all" {
			typed = pages[:1]
		}
		for _, page := range typed {
			for _, block := range blocks(t, page) {
				b.do(block)
			}
			b.browse()
		}
	})
}

func TestNoPageHasCommandsThatNobodyTypes(t *testing.T) {
	typedElsewhere := []string{"doctor.md", "migration.md"} // by the tests of these commands
	files, err := filepath.Glob("../../docs/*.md")
	if err != nil || len(files) < len(pages) {
		t.Fatalf("%d pages: %v", len(files), err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		page := filepath.Base(file)
		if slices.Contains(pages, page) || slices.Contains(typedElsewhere, page) {
			continue
		}
		for i, line := range strings.Split(string(text), "\n") {
			if fence.MatchString(line) {
				t.Errorf("%s:%d: commands that no test types: add the page to this list", page, i+1)
			}
		}
	}
}
