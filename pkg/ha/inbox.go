package ha

import (
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// inbox is what others than the loop want of it. It holds wishes, the newest replaces the older, and what holders
// tell. Nobody who puts something in ever waits for the loop.
type inbox struct {
	mu   sync.Mutex
	bell int // eventfd that wakes the loop; -1: it isn't running
	letters
}

// letters is the content of an inbox.
type letters struct {
	config   *Config          // nil: no new one
	tracks   map[string]Track // nil: no new ones
	plane    FastPath         // nil: none
	newPlane bool
	stop     bool
	claims   []claim
	gone     []*holder
}

// open makes the bell, which rings for what is in there already.
func (b *inbox) open() (bell int, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.bell, err = unix.Eventfd(1, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return -1, fmt.Errorf("create an eventfd: %w", err)
	}
	return b.bell, nil
}

// put changes the content and wakes the loop.
func (b *inbox) put(change func(*letters)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	change(&b.letters)
	if b.bell >= 0 {
		_, _ = unix.Write(b.bell, []byte{1, 0, 0, 0, 1, 0, 0, 0}) // a full counter rings too
	}
}

// take empties the inbox.
func (b *inbox) take() letters {
	b.mu.Lock()
	defer b.mu.Unlock()
	var count [8]byte
	if b.bell >= 0 {
		_, _ = unix.Read(b.bell, count[:]) // nobody rang: nothing to read
	}
	l := b.letters
	b.letters = letters{}
	return l
}

func (b *inbox) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.bell >= 0 {
		unix.Close(b.bell)
		b.bell = -1
	}
}
