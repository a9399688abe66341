package track

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	processPause = time.Second            // between two looks at all processes
	ownPause     = 100 * time.Millisecond // between two looks at those that count: the end of one is seen soon
	turns        = 10                     // in so many looks each known process is read again: it may run another program
	young        = 3                      // looks at a new process, which may not have begun its program yet
	commLength   = 15                     // bytes of a name that the kernel keeps
)

// watchProcesses counts the processes of each name until ctx ends. A list of all processes is cheap, reading each one
// is not: with 10,000 of them a look costs some milliseconds.
func watchProcesses(ctx context.Context, proc string, names []string, tell func(func(*State))) {
	s := newScan(proc, names)
	now, first := map[string]int{}, true
	ticker := time.NewTicker(ownPause)
	defer ticker.Stop()
	for next := time.Now(); ; {
		if t := time.Now(); t.Before(next) {
			s.recheck()
		} else {
			s.all()
			next = t.Add(processPause)
		}
		if counts := s.counts(); first || !maps.Equal(counts, now) {
			now, first = counts, false
			tell(func(state *State) { state.Processes = counts })
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// scan remembers the processes between two looks.
type scan struct {
	proc  string
	names []string
	known map[int]*process
	turn  int

	buffer [512]byte
}

// process is what is remembered of one.
type process struct {
	looks int
	names []string // those of the wanted that it has
	seen  int      // turn in which it was in the list
}

func newScan(proc string, names []string) *scan {
	return &scan{proc: proc, names: names, known: map[int]*process{}}
}

// all looks at the list of all processes, and reads those that are new, that count, or whose turn it is.
func (s *scan) all() {
	dir, err := os.Open(s.proc)
	if err != nil {
		return // without /proc nothing is known; what was, stands
	}
	defer dir.Close()
	entries, err := dir.Readdirnames(-1)
	if err != nil {
		return
	}
	s.turn++
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry)
		if err != nil {
			continue
		}
		p := s.known[pid]
		if p == nil {
			p = &process{}
			s.known[pid] = p
		}
		p.seen = s.turn
		if p.looks < young || len(p.names) > 0 || pid%turns == s.turn%turns {
			s.read(pid, p)
		}
	}
	maps.DeleteFunc(s.known, func(_ int, p *process) bool { return p.seen != s.turn })
}

// recheck reads the processes that count.
func (s *scan) recheck() {
	for pid, p := range s.known {
		if len(p.names) > 0 {
			s.read(pid, p)
		}
	}
}

// read finds out which of the names a process has. One that has ended, a zombie too, has none.
func (s *scan) read(pid int, p *process) {
	p.looks++
	p.names = p.names[:0]
	folder := s.proc + "/" + strconv.Itoa(pid)
	comm, ok := s.file(folder + "/comm")
	if !ok {
		return
	}
	comm = strings.TrimSuffix(comm, "\n")
	for _, name := range s.names {
		if s.has(folder, comm, name) {
			p.names = append(p.names, name)
		}
	}
	if len(p.names) == 0 {
		return
	}
	// "pid (name) state ...": the name may hold spaces and brackets.
	stat, _ := s.file(folder + "/stat")
	end := strings.LastIndex(stat, ")")
	if end < 0 || len(stat) < end+3 || strings.Contains("ZXx", stat[end+2:end+3]) {
		p.names = p.names[:0]
	}
}

// file reads the beginning of a small file of /proc, with as few system calls as possible.
func (s *scan) file(path string) (string, bool) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", false
	}
	defer unix.Close(fd)
	n, err := unix.Read(fd, s.buffer[:])
	return string(s.buffer[:max(n, 0)]), err == nil
}

// has says whether the process runs the executable of that name or path. Of a script the kernel's name is the script's,
// and the path is its interpreter's.
func (s *scan) has(folder, comm, name string) bool {
	if strings.HasPrefix(name, "/") {
		path, err := os.Readlink(folder + "/exe")
		return err == nil && strings.TrimSuffix(path, " (deleted)") == name // replaced by an update, it runs on
	}
	if len(name) <= commLength || comm != name[:commLength] {
		return comm == name
	}
	line, _ := s.file(folder + "/cmdline")
	return slices.ContainsFunc(strings.Split(line, "\x00"), func(word string) bool { return filepath.Base(word) == name })
}

// counts says how many processes have each name.
func (s *scan) counts() map[string]int {
	counts := make(map[string]int, len(s.names))
	for _, name := range s.names {
		counts[name] = 0
	}
	for _, p := range s.known {
		for _, name := range p.names {
			counts[name]++
		}
	}
	return counts
}
