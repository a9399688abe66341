package config

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const manualFile = "../../docs/man/xdirector.yaml.5"

// manualHead is what the manual says before the keys; EXAMPLE is replaced by one.
const manualHead = `.\" Made of pkg/config and configs/config.yaml by: go test ./pkg/config -update
.TH XDIRECTOR.YAML 5 2026-11-21 xdirector "xdirector manual"
.SH NAME
xdirector.yaml \- the configuration of the xdirector load\-balancing director
.SH DESCRIPTION
.BR xdirector (8)
reads
.I /etc/xdirector/config.yaml
or the file that is named with
.BR \-\-config .
It is one YAML document, in which an unknown key, a wrong type, a value out of range and a key that is written twice are errors:
.B xdirector check
tells all of them at once, each with line and column, and a file with any of them is never applied, not even in part.
.PP
Durations have a unit: 10ms, 1s, 1m30s. An address without a prefix length is a /32 or /128. Texts that YAML would take for numbers, such as
the password 1111, are written in quotes. An alias (*name) may stand for a whole value; merge keys (<<) are not supported.
.PP
.B xdirector reload
makes a running director use the changed file,
.B xdirector plan
shows beforehand what would change. An editor that knows JSON Schema completes and checks the file by
.IR config.schema.json ,
for instance if the file begins with
.PP
.EX
# yaml\-language\-server: $schema=/PATH/TO/config.schema.json
.EE
.SH EXAMPLE
One virtual address on two directors, two real servers behind it. The other director has another
.B router_id
and
.BR priority .
.PP
.EX
EXAMPLE.EE
.SH KEYS
`

const manualTail = `.SH FILES
.TP
.I /etc/xdirector/config.yaml
the configuration; readable by root alone if there is a password in it
.TP
.I /run/xdirector
state, control socket and pinned programs, where
.BR state_dir ,
.B control.socket
and
.B dataplane.pin_path
name no other place
.SH SEE ALSO
.BR xdirector (8),
.BR ipvsadm (8),
.BR keepalived.conf (5)
`

// manual makes the manual page of the file's keys.
type manual struct {
	strings.Builder
	all map[string]explanation
}

func (m *manual) section(s *shape, path, title string, e explanation) {
	fmt.Fprintf(m, ".SS %s\n", roff(title))
	m.paragraph(e.text)
	for _, k := range s.keys {
		m.key(k, join(path, k.name))
	}
	for _, k := range s.keys {
		m.below(k.shape, join(path, k.name))
	}
}

// key is one entry of a section.
func (m *manual) key(k shapeKey, at string) {
	fmt.Fprintf(m, ".TP\n\\fB%s\\fR: \\fI%s\\fR\n", roff(k.name), roff(k.shape.form()))
	e := explained(m.all, at)
	var text []string
	if sub := k.shape.inner(); sub == nil {
		text = append(text, k.shape.less(e.text))
	} else if other := inReference(at + "."); other != at+"." {
		text = append(text, "the same keys as "+strings.TrimSuffix(other, "."))
	} else {
		text = append(text, "see "+k.shape.title(at))
	}
	switch {
	case k.required:
		text = append(text, "Required.")
	case e.standard != "":
		text = append(text, "Default: "+e.standard+".")
	case e.absent != "":
		text = append(text, "Without it: "+e.absent+".")
	}
	m.lines(sentences(text))
}

// below adds the section of a mapping, wherever it is in the shape.
func (m *manual) below(s *shape, at string) {
	inner := s.inner()
	if inner == nil || inReference(at+".") != at+"." {
		return
	}
	path := at
	if s.kind == kindList {
		path += "[]"
	}
	m.section(inner, path, s.title(at), explained(m.all, at))
}

// title names the mapping of a key: one, or one in a list.
func (s *shape) title(at string) string {
	if s.kind == kindList {
		return at + "[]"
	}
	return at
}

// inner is the mapping that a value is or has in it; nil: none.
func (s *shape) inner() *shape {
	switch s.kind {
	case kindMapping:
		return s
	case kindList:
		return s.each.inner()
	}
	for _, e := range s.either {
		if inner := e.inner(); inner != nil {
			return inner
		}
	}
	return nil
}

// form is what may be written, in a word or two.
func (s *shape) form() string {
	switch s.kind {
	case kindInteger:
		return fmt.Sprintf("%d to %d", s.low, s.high)
	case kindBoolean:
		return "true, false"
	case kindMapping:
		return "mapping"
	case kindList:
		return "list of " + s.each.form()
	case kindEither:
		var forms []string
		for _, e := range s.either {
			forms = append(forms, e.form())
		}
		return strings.Join(forms, " or ")
	}
	switch {
	case s.words != nil:
		return strings.Join(s.words, ", ")
	case s.pattern == goDuration:
		return "duration"
	}
	return "text"
}

// less takes off what the form of a key says already.
func (s *shape) less(text string) string {
	for _, end := range []string{"; ", ", "} {
		if rest, ok := strings.CutPrefix(text+end, s.form()+end); ok {
			return strings.TrimSuffix(rest, end)
		}
	}
	return text
}

// sentences joins texts, each with a full stop.
func sentences(texts []string) string {
	var all []string
	for _, text := range texts {
		if text == "" {
			continue
		}
		if !strings.HasSuffix(text, ".") {
			text += "."
		}
		all = append(all, text)
	}
	return strings.Join(all, " ")
}

func (m *manual) paragraph(text string) {
	for _, p := range strings.Split(text, "\n\n") {
		if p != "" {
			m.lines(sentences([]string{p}))
			m.WriteString(".PP\n")
		}
	}
}

func (m *manual) lines(text string) {
	for _, p := range strings.Split(text, "\n\n") {
		m.WriteString(roff(p) + "\n")
	}
}

// roff writes text so that no part of it is a request; a hyphen is one that can be copied.
func roff(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(text)
	return regexp.MustCompile(`(?m)^([.'])`).ReplaceAllString(text, `\&$1`)
}

func TestManualOfTheFileIsTheDecodersOwn(t *testing.T) {
	example, err := os.ReadFile("testdata/minimal.yaml")
	if err != nil {
		t.Fatal(err)
	}
	m := manual{all: explanations(t)}
	m.WriteString(strings.Replace(manualHead, "EXAMPLE.EE", roff(string(example))+".EE", 1))
	m.section(shapeOfFile(), "", "The whole file", explanation{})
	m.WriteString(manualTail)
	generated(t, manualFile, []byte(strings.ReplaceAll(m.String(), ".PP\n.TP", ".TP")))
}

// A page that man complains about is a page that somebody can't read.
func TestManualsAreReadByManWithoutAComplaint(t *testing.T) {
	pages, err := filepath.Glob("../../docs/man/*")
	if err != nil || len(pages) == 0 {
		t.Fatalf("%d pages: %v", len(pages), err)
	}
	for _, page := range pages {
		for _, argv := range [][]string{{"man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", page}, {"mandoc", "-T", "lint", "-W", "warning", page}} {
			cmd := exec.Command(argv[0], argv[1:]...)
			cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "MANWIDTH=80")
			var complaints strings.Builder
			cmd.Stderr = &complaints
			if argv[0] == "mandoc" {
				cmd.Stdout = &complaints
			}
			if err := cmd.Run(); errors.Is(err, exec.ErrNotFound) && os.Getenv("LAB") == "" {
				t.Skipf("no %s", argv[0])
			} else if err != nil || complaints.Len() > 0 {
				t.Errorf("%s: %v\n%s", strings.Join(argv, " "), err, complaints.String())
			}
		}
	}
}
