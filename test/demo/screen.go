package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"

	"github.com/xdirector/xdirector/test/lab"
)

// screen prints the story, and below it on a terminal a table that is renewed in place; without a terminal the table
// is one line a second.
type screen struct {
	terminal bool
	quit     chan struct{}
	all      sync.WaitGroup

	mu    sync.Mutex
	table []string // on the terminal, below the story
}

func newScreen() *screen {
	return &screen{terminal: term.IsTerminal(int(os.Stdout.Fd())), quit: make(chan struct{})}
}

// say adds a line to the story.
func (s *screen) say(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wipe()
	fmt.Printf(format+"\n", args...)
	s.draw()
}

// follow renews the table until stop.
func (s *screen) follow(picture func(period time.Duration) []string) {
	period := time.Second
	if s.terminal {
		period = 250 * time.Millisecond
	}
	s.all.Go(func() {
		tick := time.NewTicker(period)
		defer tick.Stop()
		for {
			select {
			case <-s.quit:
				return
			case <-tick.C:
			}
			table := picture(time.Second)
			s.mu.Lock()
			if s.terminal {
				s.wipe()
				s.table = table
				s.draw()
			} else {
				fmt.Println(strings.Join(table, " | "))
			}
			s.mu.Unlock()
		}
	})
}

// stop ends the table and leaves its last state on the screen.
func (s *screen) stop() {
	s.close()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.table = nil
}

func (s *screen) close() {
	select {
	case <-s.quit:
	default:
		close(s.quit)
	}
	s.all.Wait()
}

// wipe takes the table off the terminal: up to its first line, clear from there.
func (s *screen) wipe() {
	if len(s.table) > 0 {
		fmt.Printf("\x1b[%dA\x1b[J", len(s.table))
	}
}

func (s *screen) draw() {
	for _, line := range s.table {
		fmt.Println(line)
	}
}

// picture is the table of this moment: the directors, and the requests that ended in the period before it.
func (s *stage) picture(period time.Duration) []string {
	now := time.Now()
	recent := s.load.Requests()
	from := now.Add(-period)
	first := slices.IndexFunc(recent, func(r lab.Request) bool { return r.End.After(from) })
	failed := len(recent.Failed())
	if first < 0 {
		first = len(recent)
	}
	last := recent[first:]
	return []string{
		directorLine(s.d1), directorLine(s.d2),
		fmt.Sprintf("client: %3d requests/s, %d failed so far; %s", int(float64(len(last))/period.Seconds()), failed, shares(last)),
	}
}

// directorLine is for example "d1 MASTER xdp-native 12345 packets".
func directorLine(d *lab.Director) string {
	state, plane, packets := "stopped", "", uint64(0)
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	if d.Process().Running() {
		state = "starting"
		if st, err := d.Status(ctx); err == nil {
			plane = st.Plane.Name
			for _, i := range st.Instances {
				state = i.State
			}
			for _, service := range st.Services {
				for _, r := range service.RealServers {
					packets += r.Packets
				}
			}
		}
	}
	if plane == "" {
		return fmt.Sprintf("%s: %-8s", d.Name, state)
	}
	return fmt.Sprintf("%s: %-8s %s, %d packets forwarded", d.Name, state, plane, packets)
}

// shares says how the answered requests are distributed, for example "r1 83, r2 84, r3 83".
func shares(requests lab.Requests) string {
	count := requests.Servers()
	var names []string
	for name := range count {
		names = append(names, name)
	}
	slices.Sort(names)
	var parts []string
	for _, name := range names {
		parts = append(parts, fmt.Sprintf("%s %d", name, count[name]))
	}
	return strings.Join(parts, ", ")
}
