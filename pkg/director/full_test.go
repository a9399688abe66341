package director

import (
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestFullDiskIsToldOnceForEachRecordAndItsEndToo(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can mount")
	}
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=16k"); err != nil {
		t.Fatal(err)
	}
	defer syscall.Unmount(dir, syscall.MNT_DETACH)
	fill := filepath.Join(dir, "fill")
	if err := os.WriteFile(fill, make([]byte, 12<<10), 0o600); err != nil { // and a page for each folder
		t.Fatal(err)
	}
	var log strings.Builder
	d := forTest(t, dir)
	d.log = slog.New(slog.NewTextHandler(&log, nil))
	d.targets(d.cfg)
	rest := 0
	for ; ; rest++ { // to the last page
		if err := os.WriteFile(filepath.Join(dir, strings.Repeat("x", 1+rest)), make([]byte, 1), 0o600); err != nil {
			break
		}
	}
	for _, s := range d.servers {
		s.up = false
	}
	for range 3 {
		d.remember()
		d.rememberOperator()
		d.recordAgain()
	}
	for what, want := range map[string]int{"the health of real servers could not be recorded": 1, "a wish of an operator could not be recorded": 1, "no space left": 2, "level=": 2} {
		if n := strings.Count(log.String(), what); n != want {
			t.Errorf("%q is told %d times, want %d:\n%s", what, n, want, log.String())
		}
	}
	if err := os.Remove(fill); err != nil {
		t.Fatal(err)
	}
	log.Reset()
	d.recordAgain()
	d.recordAgain()
	if n := strings.Count(log.String(), "is up to date again"); n != 2 {
		t.Errorf("the end is told %d times, want 2:\n%s", n, log.String())
	}
	again := forTest(t, dir)
	again.recall()
	for key, s := range again.servers {
		if s.up {
			t.Errorf("%v counts as up after a restart", key)
		}
	}
	left, err := fs.Glob(os.DirFS(dir), "*.new")
	if err != nil || len(left) > 0 || len(again.servers) == 0 {
		t.Errorf("%d real servers are known, files left are %v, %v", len(again.servers), left, err)
	}
}
