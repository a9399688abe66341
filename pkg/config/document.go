package config

import (
	"bytes"
	"errors"
	"io"
	"regexp"
	"sort"
	"strings"

	"gopkg.in/yaml.v3"
)

// document returns the root of the one YAML document in data, or nil after telling why there is none.
func (d *decoder) document(data []byte) *yaml.Node {
	const empty = "the file is empty; write vrrp.instances, services or both"
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var first, second yaml.Node
	err := decoder.Decode(&first)
	if errors.Is(err, io.EOF) {
		d.report(place{1, 1}, "", empty)
		return nil
	}
	if err == nil {
		err = decoder.Decode(&second)
	}
	if err == nil {
		d.report(place{second.Line, second.Column}, "", "a second YAML document begins here; allowed: one document, without a further --- line")
		return nil
	}
	if !errors.Is(err, io.EOF) {
		d.report(place{errorLine(data, err), 1}, "", syntaxText(err))
		return nil
	}
	root := first.Content[0]
	if root.Kind == yaml.ScalarNode && root.ShortTag() == "!!null" {
		d.report(place{1, 1}, "", empty)
		return nil
	}
	return root
}

// errorLine finds the line of a syntax error. The parser names the line where the surrounding block began, or the one
// before it, or none. The right one is where the same error first appears when the file is read line by line; an
// error of a cut-off file is another one.
func errorLine(data []byte, err error) int {
	lines := bytes.SplitAfter(data, []byte("\n"))
	end := make([]int, len(lines))
	for i, at := 0, 0; i < len(lines); i++ {
		at += len(lines[i])
		end[i] = at
	}
	i := sort.Search(len(lines)-1, func(i int) bool {
		prefix := syntaxError(data[:end[i]])
		return prefix != nil && prefix.Error() == err.Error()
	})
	return i + 1
}

// syntaxError parses everything and returns the first error, or nil.
func syntaxError(data []byte) error {
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	for {
		var node yaml.Node
		if err := decoder.Decode(&node); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

var parserPrefix = regexp.MustCompile(`^yaml: (line \d+: )?`)

// syntaxText says what the parser said, with the usual cause.
func syntaxText(err error) string {
	text := parserPrefix.ReplaceAllString(err.Error(), "")
	for _, hint := range [][2]string{
		{"cannot start any token", "indent with spaces, not with tabs, and quote a value that begins with @ ` % or another special character"},
		{"mapping values are not allowed", "check the indentation, and quote a value that contains a colon and a space"},
		{"did not find expected key", "check the indentation of this line"},
		{"did not find expected '-' indicator", "check the indentation of this line"},
		{"could not find expected ':'", "write key: value, with a space after the colon"},
		{"did not find expected ',' or", "close the bracket, and quote a value that contains a bracket, a comma or a question mark"},
		{"unexpected end of stream", "close the quote"},
		{"unknown anchor", "define it before it is used, with &name"},
	} {
		if strings.Contains(text, hint[0]) {
			return "not valid YAML: " + text + "; " + hint[1]
		}
	}
	return "not valid YAML: " + text
}
