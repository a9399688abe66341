package config

import (
	"errors"
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write what is said now into testdata, to be read before it is committed")

// testCase is one file and what is expected of it.
type testCase struct{ name, file, wants string }

const (
	caseMark  = "=== "
	wantsMark = "--- wants\n"
)

func readCases(t *testing.T, path string) (head string, cases []testCase) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	parts := strings.Split("\n"+string(data), "\n"+caseMark)
	for _, part := range parts[1:] {
		name, rest, _ := strings.Cut(part, "\n")
		file, wants, ok := strings.Cut("\n"+rest+"\n", "\n"+wantsMark)
		if !ok {
			t.Fatalf("%s: case %q has no line %q", path, name, wantsMark)
		}
		if file != "" {
			file = file[1:] + "\n"
		}
		cases = append(cases, testCase{name, file, strings.Trim(wants, "\n")})
	}
	if len(cases) == 0 {
		t.Fatalf("%s: no cases", path)
	}
	return strings.TrimPrefix(parts[0], "\n"), cases
}

// runCases compares what say makes of each file with what is expected.
func runCases(t *testing.T, path string, say func(t *testing.T, file string) string) {
	head, cases := readCases(t, path)
	var out strings.Builder
	out.WriteString(head + "\n")
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got := say(t, c.file)
			out.WriteString(caseMark + c.name + "\n" + c.file + wantsMark + got + "\n\n")
			if diff := cmp.Diff(c.wants, got); diff != "" && !*update {
				t.Errorf("messages differ (-want +got):\n%s", diff)
			}
		})
	}
	if *update {
		if err := os.WriteFile(path, []byte(strings.TrimSuffix(out.String(), "\n")), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestWrongFilesAreRefusedWithAllTheirProblems(t *testing.T) {
	runCases(t, "testdata/wrong.txt", func(t *testing.T, file string) string {
		c, err := Parse("f", []byte(file))
		if err == nil {
			t.Fatal("accepted")
		}
		if c != nil {
			t.Error("a configuration came with the error")
		}
		var problems Problems
		if !errors.As(err, &problems) {
			t.Fatalf("the error is a %T, want Problems", err)
		}
		checkProblems(t, file, problems)
		return err.Error()
	})
}

func TestWarningsComeWithAValidConfiguration(t *testing.T) {
	runCases(t, "testdata/warnings.txt", func(t *testing.T, file string) string {
		c, err := Parse("f", []byte(file))
		if err != nil {
			t.Fatal(err)
		}
		checkProblems(t, file, c.Warnings)
		return Problems(c.Warnings).Error()
	})
}

// checkProblems checks what holds for every list of problems, whatever the file.
func checkProblems(t *testing.T, file string, problems Problems) {
	t.Helper()
	lines := 1 // YAML has more line breaks than one
	for _, lineBreak := range []string{"\n", "\r", "\u0085", "\u2028", "\u2029"} {
		lines += strings.Count(file, lineBreak)
	}
	for i, p := range problems {
		if p.Line < 1 || p.Column < 1 || p.Line > lines || p.File != "f" || p.Text == "" {
			t.Errorf("problem %+v is out of place in a file of %d lines", p, lines)
		}
		if strings.ContainsAny(p.String(), "\n\r\t\x00\x1b") {
			t.Errorf("problem %q is not one printable line", p.String())
		}
		// Only what concerns the file as a whole has no key.
		if p.Key == "" && i > 0 {
			t.Errorf("problem %q has no key", p.String())
		}
		if i > 0 && (p.Line < problems[i-1].Line || p.Line == problems[i-1].Line && p.Column < problems[i-1].Column) {
			t.Errorf("problem %q stands behind %q", p.String(), problems[i-1].String())
		}
	}
}
