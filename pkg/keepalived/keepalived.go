// Package keepalived turns a keepalived.conf into a configuration of this product, and says of every line of it what
// became of that: converted, not needed, or unsupported. It reads files as keepalived 2.2.7 does and writes the values that
// are in force there, which are not always those that the file seems to say. What people have in their files although
// keepalived doesn't read it (non-breaking spaces, // remarks, a backslash at the end of a line) is read as it was meant, and the
// report says so. Nothing here looks at the box but the files that are named, and a few that say where commands and users are.
package keepalived

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"github.com/xdirector/xdirector/pkg/config"
)

// Options are what keepalived has from its command line and from the box.
type Options struct {
	Folder   string // absolute: where relative names of files begin; empty: /
	ConfigID string // keepalived's --config-id, the host name by default: lines with @ID are for it
}

// Outcome is what became of a line.
type Outcome string

// The outcomes. A line that is Converted without a Reason is plainly converted.
const (
	Converted   Outcome = "converted"
	NotNeeded   Outcome = "not needed"
	Unsupported Outcome = "unsupported"
	Blank       Outcome = "blank" // nothing but white space and a comment
)

// Line is one line of the input, and what became of it.
type Line struct {
	File    string  `json:"file"`
	Number  int     `json:"line"` // from 1
	Keyword string  `json:"keyword"`
	Value   string  `json:"value"` // what follows the keyword, without secrets
	Outcome Outcome `json:"outcome"`
	Reason  string  `json:"reason"` // empty: there is nothing to say
}

// String returns "FILE:LINE: KEYWORD [VALUE]: OUTCOME: REASON".
func (l Line) String() string {
	words := l.Keyword
	if l.Value != "" {
		words += " " + l.Value
	}
	return fmt.Sprintf("%s:%d: %s: %s: %s", l.File, l.Number, words, l.Outcome, l.Reason)
}

// Result is a converted file.
type Result struct {
	YAML  []byte // what config.Parse accepts; empty with ErrNothing
	Lines []Line // every line of every file, once, in the order of reading
}

// Report lists the lines that are not plainly converted.
func (r *Result) Report() []Line {
	var list []Line
	for _, l := range r.Lines {
		if l.Reason != "" {
			list = append(list, l)
		}
	}
	return list
}

// Unsupported counts the lines that could not be carried over.
func (r *Result) Unsupported() int {
	n := 0
	for _, l := range r.Lines {
		if l.Outcome == Unsupported {
			n++
		}
	}
	return n
}

// ErrNothing says that neither an instance nor a service is left of a file. The lines of the Result say why.
var ErrNothing = errors.New("no vrrp_instance and no virtual_server in it could be converted")

// Convert reads the file and what it includes from the root file system, and converts it. A file that can't be read is an
// error; one with mistakes isn't, they are in the Result.
func Convert(root fs.FS, file string, o Options) (*Result, error) {
	if o.Folder == "" {
		o.Folder = "/"
	}
	r := newReader(root, o)
	if err := r.file(file, absolute(o.Folder, file)); err != nil {
		return nil, fmt.Errorf("read %s: %w", file, bare(err))
	}
	c := newConverter(root, buildTree(r.tokens, r.last()))
	c.convert()
	text, err := c.judge()
	result := &Result{YAML: text}
	r.unused()
	for _, l := range r.lines {
		result.Lines = append(result.Lines, l.result())
	}
	return result, err
}

// absolute is the name of a file below the root.
func absolute(folder, name string) string {
	if !path.IsAbs(name) {
		name = path.Join(folder, name)
	}
	return path.Clean(name)
}

// below is an absolute name as fs.FS has it.
func below(name string) string {
	if name = strings.TrimPrefix(path.Clean(name), "/"); name != "" {
		return name
	}
	return "."
}

func bare(err error) error {
	if pathError, ok := errors.AsType[*fs.PathError](err); ok {
		return pathError.Err
	}
	return err
}

// judge writes the YAML and has it read by those who will read it later. What they refuse is taken out, and its lines are
// unsupported with their reason, until nothing is refused. So whatever is in the input, the output is valid.
func (c *converter) judge() ([]byte, error) {
	for {
		text := c.out.bytes()
		parsed, err := config.Parse("converted.yaml", text)
		var problems config.Problems
		switch {
		case err == nil:
			for _, w := range parsed.Warnings {
				if v := c.out.find(w.Key); v != nil {
					v.note(Converted, problemText(w))
				}
			}
			return text, nil
		case !errors.As(err, &problems):
			return nil, err
		}
		taken := map[*value]bool{}
		for _, p := range problems {
			v := c.out.find(p.Key).whole()
			if v == nil || v == c.out {
				c.out.noteAll(Unsupported, problemText(p))
				return nil, ErrNothing
			}
			if !taken[v] && !v.within(taken) {
				v.noteAll(Unsupported, problemText(p))
				taken[v] = true
			}
		}
		for v := range taken {
			v.remove()
		}
	}
}

// problemText is a problem of the output for who looks at the input: with the last word of its key.
func problemText(p config.Problem) string {
	key := p.Key[strings.LastIndexByte(p.Key, '.')+1:]
	if key, _, _ = strings.Cut(key, "["); key == "" {
		return p.Text
	}
	return key + ": " + p.Text
}
