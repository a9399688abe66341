package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	// A command on a line of its own, with or without a prompt, or within a sentence.
	inBlock    = regexp.MustCompile(`^(?: {3,}|\s*[#$] )(xdirector [a-z].*)$`)
	inSentence = regexp.MustCompile("`(xdirector [a-z][^`]*)`")
	endOfIt    = regexp.MustCompile(`\s+#\s.*|\s+(\||&&|;|>).*|;.*`)
	oneOrOther = regexp.MustCompile(`[\[\]<|]|\.\.\.`) // a form, not a command: [--for 10m], on|off
)

// words takes a command line apart as far as pages use what a shell does.
func words(line string) []string {
	var list []string
	for _, m := range regexp.MustCompile(`'([^']*)'|"([^"]*)"|(\S+)`).FindAllStringSubmatch(line, -1) {
		list = append(list, m[1]+m[2]+m[3])
	}
	return list
}

// No page names a command, a flag or an argument that there isn't.
func TestCommandsInPagesAreRightUse(t *testing.T) {
	const root = "../.."
	found := 0
	try := func(where, line string) {
		line = strings.TrimSpace(endOfIt.ReplaceAllString(line, ""))
		args := words(line)[1:]
		c, rest, err := newRoot().Find(args)
		switch {
		case err != nil || c.Name() == "xdirector":
			t.Errorf("%s: %q: there is no such command", where, line)
			return
		case oneOrOther.MatchString(line):
			return
		}
		found++
		c.InitDefaultHelpFlag()
		if err := c.ParseFlags(rest); err != nil {
			t.Errorf("%s: %q: %v", where, line, err)
			return
		}
		if err := c.ValidateArgs(c.Flags().Args()); err != nil && len(c.Flags().Args()) > 0 {
			t.Errorf("%s: %q: %v", where, line, err)
		}
	}
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() && strings.HasPrefix(d.Name(), ".") && name != root {
			if d.IsDir() && err == nil {
				return fs.SkipDir
			}
			return err
		}
		if filepath.Ext(name) != ".md" {
			return nil
		}
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(text)) {
			line = strings.TrimSuffix(line, "\n")
			if m := inBlock.FindStringSubmatch(line); m != nil {
				try(name, m[1])
				continue
			}
			for _, m := range inSentence.FindAllStringSubmatch(line, -1) {
				try(name, m[1])
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if found < 80 {
		t.Errorf("only %d commands were found", found)
	}
}
