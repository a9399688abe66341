package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
)

var update = flag.Bool("update", false, "write docs/man/xdirector.8 anew")

const manualHead = `.\" Made of the commands of cmd/xdirector by: go test ./cmd/xdirector -update
.TH XDIRECTOR 8 2026-11-21 xdirector "xdirector manual"
.SH NAME
xdirector \- an eBPF\-accelerated load\-balancing director
.SH SYNOPSIS
.B xdirector
.I COMMAND
.RB [ \-\-config
.IR FILE ]
.RB [ \-\-json ]
\&...
.SH DESCRIPTION
Two or more directors share virtual addresses by VRRP. The one that is MASTER takes the packets of clients, and sends each to a healthy
real server, which answers the client directly. The packets are forwarded by an XDP program, or where that can't be by the kernel's IPVS.
.B xdirector run
is the director;
.B xdirector check
looks at a configuration file; most of the other commands ask the running director over its control socket, as root or as a member of the group
.BR xdirector .
.PP
.B xdirector COMMAND \-\-help
prints what is said about a command here.
.SH COMMANDS
`

const manualTail = `.SH EXIT STATUS
.TP
.B 0
done
.TP
.B 1
what was asked for is not so, or failed: an invalid file, no director that answers
.TP
.B 2
wrong use
.SH SIGNALS
To the main process of
.BR "xdirector run" ,
which is the one that systemd knows.
.TP
.BR SIGTERM ", " SIGINT
hand over to another director, then end
.TP
.B SIGHUP
read the configuration file again, as
.B xdirector reload
does
.TP
.B SIGUSR2
replace the running program by the installed one, without a pause in forwarding or in the election
.SH FILES
.TP
.I /etc/xdirector/config.yaml
the configuration
.TP
.I /run/xdirector/control.sock
the control socket
.TP
.I /run/xdirector/bpf
programs and tables that go on while the agent restarts
.SH SEE ALSO
.BR xdirector.yaml (5),
.BR ipvsadm (8),
.BR keepalived (8),
.BR bpftool (8)
`

// roff writes text so that no part of it is a request; a hyphen is one that can be copied.
func roff(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(text)
	return regexp.MustCompile(`(?m)^([.'])`).ReplaceAllString(text, `\&$1`)
}

// manualOf is what the manual says of one command, and of those below it.
func manualOf(c *cobra.Command) string {
	var b strings.Builder
	fmt.Fprintf(&b, ".SS xdirector %s\n", roff(strings.TrimPrefix(c.CommandPath(), "xdirector ")))
	fmt.Fprintf(&b, "%s.\n.PP\n.B %s\n.PP\n", roff(c.Short), roff(strings.TrimSuffix(c.UseLine(), " [flags]")))
	for _, paragraph := range strings.Split(c.Long, "\n\n") {
		b.WriteString(roffParagraph(paragraph))
	}
	for line := range strings.Lines(c.LocalNonPersistentFlags().FlagUsages()) {
		b.WriteString(manualOption(line))
	}
	if c.Example != "" {
		fmt.Fprintf(&b, ".PP\n.EX\n%s\n.EE\n", roff(c.Example))
	}
	for _, below := range c.Commands() {
		if below.IsAvailableCommand() {
			b.WriteString(manualOf(below))
		}
	}
	return b.String()
}

// manualOption is one line of --help; that there is a --help is said once.
func manualOption(line string) string {
	option, text, _ := strings.Cut(strings.TrimSpace(line), "   ")
	if strings.HasPrefix(option, "-h, ") {
		return ""
	}
	return fmt.Sprintf(".TP\n.B %s\n%s\n", roff(option), roff(strings.TrimSpace(text)))
}

// roffParagraph keeps lines that are indented as they are.
func roffParagraph(text string) string {
	if text == "" {
		return ""
	}
	var b strings.Builder
	literal := false
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if indented := strings.HasPrefix(line, "  "); indented != literal {
			literal = indented
			b.WriteString(map[bool]string{true: ".PP\n.EX\n", false: ".EE\n"}[literal])
		}
		b.WriteString(roff(line) + "\n")
	}
	if literal {
		b.WriteString(".EE\n")
	}
	return b.String() + ".PP\n"
}

func TestManualSaysWhatHelpSays(t *testing.T) {
	const file = "../../docs/man/xdirector.8"
	root := newRoot()
	root.InitDefaultHelpCmd()
	var b strings.Builder
	b.WriteString(manualHead)
	for _, c := range root.Commands() {
		c.InitDefaultHelpFlag()
		if c.IsAvailableCommand() && c.Name() != "help" {
			b.WriteString(manualOf(c))
		}
	}
	b.WriteString(".SH OPTIONS OF ALL COMMANDS\n")
	for line := range strings.Lines(root.PersistentFlags().FlagUsages()) {
		b.WriteString(manualOption(line))
	}
	b.WriteString(manualTail)
	want := regexp.MustCompile(`\.PP\n(\.PP|\.TP|\.SS|\.SH)`).ReplaceAllString(regexp.MustCompile(`\.PP\n(\.PP)\n`).ReplaceAllString(b.String(), "$1\n"), "$1")
	if *update {
		if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, []byte(want)) {
		t.Errorf("it is out of date: go test ./cmd/xdirector -update\n%s", cmp.Diff(string(got), want))
	}
	for _, c := range root.Commands() {
		if c.IsAvailableCommand() && c.Name() != "help" && !strings.Contains(want, "\n.SS xdirector "+roff(c.Name())+"\n") {
			t.Errorf("%s is missing", c.Name())
		}
	}
}
