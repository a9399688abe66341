package track

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

func TestFileHoldsANumber(t *testing.T) {
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o644); err != nil {
		t.Fatal(err)
	}
	huge := file("huge", "")
	if err := os.Truncate(huge, 1<<40); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(file("five", "5"), link); err != nil {
		t.Fatal(err)
	}
	const last = 7
	for name, tt := range map[string]struct {
		path    string
		want    int
		problem string
	}{
		"missing":               {filepath.Join(dir, "none"), 0, ""},
		"missing folder":        {filepath.Join(dir, "no", "such", "file"), 0, ""},
		"below a file":          {filepath.Join(file("plain", "1"), "file"), 0, ""},
		"empty":                 {file("empty", ""), 1, ""},
		"blank":                 {file("blank", " \n"), 1, ""},
		"zero":                  {file("zero", "0\n"), 0, ""},
		"number":                {file("number", "42\n"), 42, ""},
		"negative number":       {file("negative", "-42"), -42, ""},
		"blanks around":         {file("blanks", "  3 \r\n"), 3, ""},
		"signed number":         {file("plus", "+3"), 3, ""},
		"large number":          {file("large", "99999999999"), maxValue, ""},
		"larger than any":       {file("larger", "-"+strings.Repeat("9", 40)), -maxValue, ""},
		"link":                  {link, 5, ""},
		"word":                  {file("word", "on\n"), last, `it holds no number, but "on": write one, such as 0`},
		"fraction":              {file("fraction", "1.5"), last, "it holds no number"},
		"two numbers":           {file("two", "1 2"), last, "it holds no number"},
		"number and much more":  {file("more", "1"+strings.Repeat(" ", 100)), last, "it holds no number"},
		"a terabyte of nothing": {huge, last, "it holds no number"},
		"folder":                {dir, last, "it is no regular file (drwx"},
		"pipe":                  {fifo, last, "it is no regular file (prw"},
		"device":                {"/dev/zero", last, "it is no regular file (Dcrw"},
	} {
		t.Run(name, func(t *testing.T) {
			got := readFile(tt.path, last)
			if got.Value != tt.want || (got.Problem == "") != (tt.problem == "") || !strings.Contains(got.Problem, tt.problem) {
				t.Errorf("%+v, want %d and %q", got, tt.want, tt.problem)
			}
		})
	}
}

func TestChangesOfAFileAreNoticedHoweverTheyAreMade(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "folder", "switch")
	r := watched(t, nil, Wish{Files: []string{path}})
	ok := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	is := func(what string, want int) {
		t.Helper()
		began := time.Now()
		until(t, r, what, func(s State) bool { return s.Ready && s.Files[path] == FileState{Value: want} })
		if took := time.Since(began); took > 3*(filePause+2*fileSettle) {
			t.Errorf("%s: noticed after %v", what, took)
		}
	}
	write := func(path, text string) { t.Helper(); ok(os.WriteFile(path, []byte(text), 0o644)) }
	is("no folder", 0)
	ok(os.Mkdir(filepath.Dir(path), 0o755))
	write(path, "")
	is("an empty file", 1)
	write(path, "2")
	is("another content", 2)
	write(path, "3")
	is("another content of the same length", 3)
	write(path+".new", "4")
	ok(os.Rename(path+".new", path))
	is("a file in its place", 4)
	ok(os.Remove(path))
	is("no file", 0)
	ok(os.Symlink("../target", path))
	write(filepath.Join(dir, "target"), "5")
	is("a link", 5)
	ok(os.RemoveAll(filepath.Dir(path)))
	is("no folder again", 0)
}

func TestFileThatIsWrittenAnewIsNeverTakenForAnEmptyOne(t *testing.T) {
	path := filepath.Join(t.TempDir(), "switch")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("0\n")
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		var said []FileState
		go func() {
			defer close(ended)
			watchFile(ctx, path, FileState{}, func(learn func(*State)) {
				s := State{Files: map[string]FileState{}}
				learn(&s)
				said = append(said, s.Files[path])
			})
		}()
		for range 1000 { // `echo 0 >FILE` empties the file before it writes
			write("")
			time.Sleep(fileSettle / 2)
			write("0\n")
			time.Sleep(filePause + 7*time.Millisecond)
		}
		write("3")
		time.Sleep(filePause + 2*fileSettle)
		cancel()
		<-ended
		if want := []FileState{{}, {Value: 3}}; !slices.Equal(said, want) {
			t.Errorf("it said %+v, want %+v", said, want)
		}
	})
}
