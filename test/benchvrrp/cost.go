package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"syscall"
	"time"

	"github.com/xdirector/xdirector/test/lab"
)

func kill(pid int) error {
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		return fmt.Errorf("kill process %d: %w", pid, err)
	}
	return nil
}

// costResult is what the election of one box costs.
type costResult struct {
	Program   string  `json:"program"`
	Routers   int     `json:"virtual_routers"`
	Interval  string  `json:"advert_interval"`
	FastPath  string  `json:"fast_path,omitempty"`
	State     string  `json:"state"`
	CPU       float64 `json:"cpu_percent"` // of one core
	Processes int     `json:"processes"`
	PSS       float64 `json:"pss_mb"` // of all of them
	RSS       float64 `json:"rss_mb"`
	Election  float64 `json:"election_pss_mb,omitempty"` // of the process of the election alone
	Verdict   string  `json:"verdict,omitempty"`
}

const megabyte = 1 << 20

func measureCost(ctx context.Context, o options, out io.Writer) (any, error) {
	var results []costResult
	for _, interval := range []time.Duration{time.Second, 100 * time.Millisecond} {
		for _, size := range o.sizes {
			r, err := costOf(ctx, o, size, interval, "", func(mine, theirs costResult) bool {
				limit := theirs.CPU
				if mine.Routers == 1 {
					limit *= 2
				}
				return mine.CPU < limit && mine.Election < 20
			})
			if err != nil {
				return nil, err
			}
			results = append(results, r...)
		}
	}
	title := fmt.Sprintf("Cost of the election on one box, over %v; of xdirector the supervisor and the election, of keepalived all processes (VRRP alone).\n"+
		"Wanted: CPU below keepalived's, within 2x of it with one virtual router; the election's process under 20 MB PSS.", o.window)
	return results, table(out, title, costRows(results))
}

func measureAbsorb(ctx context.Context, o options, out io.Writer) (any, error) {
	var results []costResult
	for _, c := range []struct {
		size     int
		interval time.Duration
	}{{1, 10 * time.Millisecond}, {1, 30 * time.Millisecond}, {100, 30 * time.Millisecond}} {
		r, err := costOf(ctx, o, c.size, c.interval, "absorb", func(mine, theirs costResult) bool {
			return mine.State == "MASTER" || mine.CPU < theirs.CPU/10
		})
		if err != nil {
			return nil, err
		}
		results = append(results, r...)
	}
	title := "The same with adverts absorbed in XDP. Wanted: a BACKUP costs under a tenth of keepalived's."
	return results, table(out, title, costRows(results))
}

func costRows(results []costResult) [][]string {
	rows := [][]string{{"", "routers", "adverts", "CPU %", "processes", "PSS MB", "RSS MB", "election PSS", ""}}
	for _, r := range results {
		election := ""
		if r.Election > 0 {
			election = fmt.Sprintf("%.1f", r.Election)
		}
		rows = append(rows, []string{r.Program + " " + r.State, fmt.Sprint(r.Routers), r.Interval, fmt.Sprintf("%.3f", r.CPU),
			fmt.Sprint(r.Processes), fmt.Sprintf("%.1f", r.PSS), fmt.Sprintf("%.1f", r.RSS), election, r.Verdict})
	}
	return rows
}

// costOf measures both programs with the same virtual routers, one after the other.
func costOf(ctx context.Context, o options, size int, interval time.Duration, fastPath string, judge func(mine, theirs costResult) bool) ([]costResult, error) {
	byState := map[string][]costResult{}
	for _, name := range contestants {
		r, err := costPair(ctx, o, name, size, interval, fastPath)
		if err != nil {
			return nil, fmt.Errorf("%s with %d virtual routers at %v: %w", name, size, interval, err)
		}
		for _, one := range r {
			byState[one.State] = append(byState[one.State], one)
		}
	}
	var results []costResult
	for _, state := range []string{"MASTER", "BACKUP"} {
		list := byState[state]
		list[0].Verdict = verdict(judge(list[0], list[1]))
		results = append(results, list...)
	}
	return results, nil
}

func costPair(ctx context.Context, o options, name string, size int, interval time.Duration, fastPath string) ([]costResult, error) {
	p, err := newPair(name, o.binary, size, 0, interval, fastPath)
	if err != nil {
		return nil, err
	}
	defer p.lab.Close()
	if err := p.both(ctx); err != nil {
		return nil, err
	}
	// What belongs to the start is over: second announcements come after five seconds.
	if err := wait(ctx, 8*time.Second); err != nil {
		return nil, err
	}
	cpu := func() (used []time.Duration, err error) {
		for box := range p.nodes {
			t, e := lab.CPUTime(p.elections(box))
			used, err = append(used, t), errors.Join(err, e)
		}
		return used, err
	}
	before, err := cpu()
	if err != nil {
		return nil, err
	}
	begin := time.Now()
	if err := wait(ctx, o.window); err != nil {
		return nil, err
	}
	after, err := cpu()
	if err != nil {
		return nil, err
	}
	elapsed := time.Since(begin)
	var results []costResult
	for box, state := range []string{"MASTER", "BACKUP"} {
		pids := p.elections(box)
		pss, rss, err := lab.Memory(pids)
		if err != nil {
			return nil, err
		}
		r := costResult{
			Program: name, Routers: size, Interval: interval.String(), State: state, Processes: len(pids),
			CPU: 100 * float64(after[box]-before[box]) / float64(elapsed), PSS: float64(pss) / megabyte, RSS: float64(rss) / megabyte,
		}
		if name == xdirector {
			r.FastPath = fastPath
			election, _, err := lab.Memory(p.process(box).PIDsWith("election"))
			if err != nil {
				return nil, err
			}
			r.Election = float64(election) / megabyte
		}
		results = append(results, r)
	}
	return results, p.elected(ctx, 0)
}
