package keepalived_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"pgregory.net/rapid"

	"github.com/xdirector/xdirector/pkg/config"
	"github.com/xdirector/xdirector/pkg/keepalived"
)

// box is a root file system with a keepalived.conf, and the files that the corpus includes or runs.
func box(files map[string]string) fs.FS {
	root := fstest.MapFS{
		"etc/passwd":        {Data: []byte("root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n")},
		"usr/bin/killall":   {Mode: 0o755},
		"usr/sbin/pidof":    {Mode: 0o755},
		"usr/bin/systemctl": {Mode: 0o755},
	}
	for name, text := range files {
		root[strings.TrimPrefix(name, "/")] = &fstest.MapFile{Data: []byte(text), Mode: 0o644}
	}
	return root
}

// held converts a text, and fails if a promise is broken that holds for every input.
func held(t interface {
	Helper()
	Fatalf(string, ...any)
}, files map[string]string) *keepalived.Result {
	t.Helper()
	const name = "/etc/keepalived/keepalived.conf"
	r, err := keepalived.Convert(box(files), name, keepalived.Options{ConfigID: "lb1"})
	if err != nil && !errors.Is(err, keepalived.ErrNothing) {
		t.Fatalf("converting: %v", err)
	}
	if err == nil {
		if _, err := config.Parse("out.yaml", r.YAML); err != nil {
			t.Fatalf("the output is refused: %v\n%s", err, r.YAML)
		}
	} else if len(r.YAML) > 0 {
		t.Fatalf("there is an output, and the error %v", err)
	}
	next := map[string]int{}
	inputs := 0
	for _, l := range r.Lines {
		if l.File == name {
			if inputs++; l.Number != inputs {
				t.Fatalf("%s:%d stands where line %d is expected", l.File, l.Number, inputs)
			}
		}
		next[l.File]++
		switch l.Outcome {
		case keepalived.Converted, keepalived.Blank:
		case keepalived.NotNeeded, keepalived.Unsupported:
			if l.Reason == "" || l.Keyword == "" {
				t.Fatalf("%v: without a reason or a keyword", l)
			}
		default:
			t.Fatalf("%v: no outcome", l)
		}
		if s := l.String(); strings.ContainsAny(s, "\n\r\x00\x1b") {
			t.Fatalf("%q is more than a line", s)
		}
		if strings.Contains(l.Reason, "nothing came of it") {
			t.Fatalf("no rule has looked at %v", l)
		}
	}
	text := files[name]
	if want := len(strings.SplitAfter(strings.TrimSuffix(text, "\n"), "\n")); text != "" && inputs != want {
		t.Fatalf("%d lines are accounted for, the file has %d", inputs, want)
	}
	return r
}

func TestEveryLineIsAccountedForExactlyOnceWhateverIsInTheFile(t *testing.T) {
	t.Parallel()
	var lines []string
	for _, text := range corpus(t) {
		lines = append(lines, strings.Split(text, "\n")...)
	}
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.SliceOfN(rapid.SampledFrom(lines), 1, 60).Draw(t, "lines")
		held(t, map[string]string{"/etc/keepalived/keepalived.conf": strings.Join(text, "\n")})
	})
}

func TestEveryLineIsAccountedForInFilesWithDamage(t *testing.T) {
	t.Parallel()
	var texts []string
	for _, text := range corpus(t) {
		texts = append(texts, text)
	}
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.SampledFrom(texts).Draw(t, "file")
		from := rapid.IntRange(0, len(text)).Draw(t, "from")
		to := min(from+rapid.IntRange(0, 40).Draw(t, "length"), len(text))
		put := rapid.SampledFrom([]string{"", "{", "}", "\"", "\\", "\n", " ", "\u00a0", "$X=1\n", "@lb1 ", "65536", "-1"}).Draw(t, "instead")
		held(t, map[string]string{"/etc/keepalived/keepalived.conf": text[:from] + put + text[to:]})
	})
}

func FuzzConvert(f *testing.F) {
	for _, text := range corpus(f) {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) < 64<<10 {
			held(t, map[string]string{"/etc/keepalived/keepalived.conf": text})
		}
	})
}

// corpus is the files in testdata by their names.
func corpus(t testing.TB) map[string]string {
	t.Helper()
	names, err := filepath.Glob("testdata/*/*.conf")
	if err != nil || len(names) == 0 {
		t.Fatalf("no corpus: %v", err)
	}
	all := map[string]string{}
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		all[name] = string(text)
	}
	return all
}
