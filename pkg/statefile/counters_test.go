package statefile

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// kept opens the file as a new process would.
func kept(t *testing.T, path, boot string) *Counters {
	t.Helper()
	c := NewCounters(path, boot)
	if err := c.Keep(); err != nil || c.Lacking() {
		t.Fatalf("lacking %v: %v", c.Lacking(), err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestCounterNeverFallsWhoeverStartsAnew(t *testing.T) {
	path := filepath.Join(t.TempDir(), "folder", "counters")
	c := kept(t, path, "boot 1")
	for step, row := range []struct{ source, total uint64 }{{0, 0}, {5, 5}, {5, 5}, {9, 9}, {2, 11}, {3, 12}, {0, 12}, {12, 24}} {
		if got := c.Counter("a").Observe(row.source); got != row.total {
			t.Fatalf("step %d: a source that says %d gives %d, want %d", step, row.source, got, row.total)
		}
	}
	// No word to the first process: it was killed.
	c = kept(t, path, "boot 1")
	if got := c.Counter("a").Total(); got != 24 {
		t.Errorf("the next process has %d", got)
	}
	if got := c.Counter("a").Observe(13); got != 25 {
		t.Errorf("a source that went on gives %d", got)
	}
	if got := c.Counter("a").Observe(1); got != 26 {
		t.Errorf("a source that started anew gives %d", got)
	}
	if got := c.Counter("b").Total(); got != 0 {
		t.Errorf("another one is %d", got)
	}
	if got := kept(t, path, "boot 2").Counter("a").Total(); got != 0 {
		t.Errorf("after a boot it is %d", got)
	}
}

func TestManyCountersAreKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "counters")
	const many = 3 * chunkSize / 32
	c := kept(t, path, "boot")
	for n := range uint64(many) {
		c.Counter(fmt.Sprint(n)).Observe(n)
	}
	c = kept(t, path, "boot")
	for n := range uint64(many) {
		if got := c.Counter(fmt.Sprint(n)).Total(); got != n {
			t.Fatalf("counter %d is %d", n, got)
		}
	}
	if info, err := os.Stat(path); err != nil || info.Size() != 4*chunkSize {
		t.Errorf("%d bytes, %v", info.Size(), err)
	}
}

func TestFileThatIsNoSuchFileIsReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "counters")
	whole := append(NewCounters("", "boot").header(), make([]byte, chunkSize)...)
	for name, content := range map[string][]byte{"empty": nil, "text": []byte("{}"), "half": whole[:chunkSize/2], "more": whole} {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		kept(t, path, "boot").Counter("a").Observe(7)
		if got := kept(t, path, "boot").Counter("a").Total(); got != 7 {
			t.Errorf("%s: the next process has %d", name, got)
		}
	}
}

func TestCountersThatNobodyNeedsAreForgottenTheOldestFirst(t *testing.T) {
	path := filepath.Join(t.TempDir(), "counters")
	c := kept(t, path, "boot")
	const each = CountersSpare / 4
	for round := range 8 {
		c.Begin()
		for n := range each {
			c.Counter(fmt.Sprint(round, " ", n)).Observe(1)
		}
		c.Sweep()
	}
	if size, err := os.Stat(path); err != nil || size.Size() > (CountersSpare+2*each)*32+chunkSize {
		t.Errorf("the file has %d bytes, %v", size.Size(), err)
	}
	c = kept(t, path, "boot")
	for round := range 8 {
		want := uint64(1)
		if round < 3 { // the last one is in use, and four are spare
			want = 0
		}
		if got := c.Counter(fmt.Sprint(round, " ", 5)).Total(); got != want {
			t.Errorf("a counter of round %d is %d, want %d", round, got, want)
		}
	}
}

func TestFullDiskLeavesCountersInMemoryUntilThereIsSpace(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can mount")
	}
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=128k"); err != nil {
		t.Fatal(err)
	}
	defer syscall.Unmount(dir, syscall.MNT_DETACH)
	path, other := filepath.Join(dir, "counters"), filepath.Join(dir, "other")
	fill := func(size int) {
		t.Helper()
		if err := os.WriteFile(other, make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	kept(t, path, "boot").Counter("before").Observe(100)

	fill(64 << 10)
	c := kept(t, path, "boot")
	const many = 3000 // more than the file has room for
	for n := range many {
		c.Counter(fmt.Sprint(n)).Observe(uint64(n))
	}
	if err := c.Keep(); !errors.Is(err, syscall.ENOSPC) || !c.Lacking() {
		t.Errorf("on a full disk: lacking %v, %v", c.Lacking(), err)
	}
	if got := c.Counter(fmt.Sprint(many - 1)).Observe(many); got != many {
		t.Errorf("a counter in memory is %d", got)
	}
	fill(0)
	if err := c.Keep(); err != nil || c.Lacking() {
		t.Errorf("with space: lacking %v, %v", c.Lacking(), err)
	}
	c.Counter(fmt.Sprint(many - 1)).Observe(many + 1)
	c = kept(t, path, "boot")
	for key, want := range map[string]uint64{"before": 100, "7": 7, fmt.Sprint(many - 1): many + 1} {
		if got := c.Counter(key).Total(); got != want {
			t.Errorf("the next process has %d of %s, want %d", got, key, want)
		}
	}
}

func TestWhatWasCountedBeforeTheFileCouldBeHadIsAdded(t *testing.T) {
	dir := t.TempDir()
	kept(t, filepath.Join(dir, "counters"), "boot").Counter("a").Observe(100)
	if err := os.Rename(filepath.Join(dir, "counters"), filepath.Join(dir, "away")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "counters"), 0o700); err != nil { // so that it can't be made
		t.Fatal(err)
	}
	c := NewCounters(filepath.Join(dir, "counters"), "boot")
	if err := c.Keep(); err == nil {
		t.Fatal("a folder is no file")
	}
	a := c.Counter("a")
	a.Observe(3)
	if err := errors.Join(os.Remove(c.path), os.Rename(filepath.Join(dir, "away"), c.path), c.Keep()); err != nil {
		t.Fatal(err)
	}
	if got := a.Observe(4); got != 104 {
		t.Errorf("the total is %d", got)
	}
	if got := kept(t, c.path, "boot").Counter("a").Total(); got != 104 {
		t.Errorf("the next process has %d", got)
	}
}
