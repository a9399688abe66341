package lab

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// PIDsWith lists those of the process and its descendants that have the word among their arguments.
func (p *Process) PIDsWith(argument string) []int {
	var list []int
	for _, pid := range p.PIDs() {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err == nil && slices.Contains(strings.Split(string(b), "\x00"), argument) {
			list = append(list, pid)
		}
	}
	return list
}

// CPUTime is what all threads of the processes have used of the CPUs, to the nanosecond: the ticks that most programs
// print are 0 for small loads. Threads that have ended don't count.
func CPUTime(pids []int) (time.Duration, error) {
	var sum time.Duration
	for _, pid := range pids {
		files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
		if err != nil || len(files) == 0 {
			return 0, fmt.Errorf("read CPU time of process %d: it is gone (%v)", pid, err)
		}
		for _, file := range files {
			b, err := os.ReadFile(file)
			if err != nil {
				continue // the thread is gone
			}
			first, _, _ := strings.Cut(string(b), " ")
			used, err := strconv.ParseInt(first, 10, 64)
			if err != nil {
				return 0, fmt.Errorf("read %s: %w", file, err)
			}
			sum += time.Duration(used)
		}
	}
	return sum, nil
}

// Memory is the proportional and the whole resident set size of the processes, in bytes: shared pages are divided among
// those who share them in the first, and count for each in the second.
func Memory(pids []int) (pss, rss int64, err error) {
	for _, pid := range pids {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			return 0, 0, fmt.Errorf("read memory of process %d: %w", pid, err)
		}
		for line := range bytes.Lines(b) {
			fields := strings.Fields(string(line))
			if len(fields) < 2 || fields[0] != "Pss:" && fields[0] != "Rss:" {
				continue
			}
			kB, err := strconv.ParseInt(fields[1], 10, 64)
			if err != nil {
				return 0, 0, fmt.Errorf("read memory of process %d: %w", pid, err)
			}
			if fields[0] == "Pss:" {
				pss += kB << 10
			} else {
				rss += kB << 10
			}
		}
	}
	return pss, rss, nil
}
