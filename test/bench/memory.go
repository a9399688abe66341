package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/cilium/ebpf"

	"github.com/xdirector/xdirector/pkg/lb"
	"github.com/xdirector/xdirector/test/lab"
)

const (
	memoryVIP      = "10.77.0.100"
	memoryPatience = 30 * time.Second
	mebibyte       = 1 << 20
)

// measureMemory is what a director holds: its processes, and the kernel for its maps.
func (r *report) measureMemory(binary string) error {
	path, err := filepath.Abs(binary) // the director runs in a folder of its own
	if err != nil {
		return err
	}
	for _, size := range []struct {
		flows    int
		services int
	}{{1 << 20, 1}, {1 << 24, 1}, {1 << 20, 10_000}} {
		if err := r.directorMemory(path, size.flows, size.services); err != nil {
			return fmt.Errorf("%d flows, %d services: %w", size.flows, size.services, err)
		}
	}
	return nil
}

func (r *report) directorMemory(binary string, flows, services int) error {
	l, err := lab.New(lab.Options{Directors: 1, RealServers: 2, VIPs: []string{memoryVIP}})
	if err != nil {
		return err
	}
	defer l.Close()
	d, err := l.NewDirector(l.Directors[0], binary)
	if err != nil {
		return err
	}
	config := lab.Config{
		FlowTableSize: flows,
		Instances:     []lab.Instance{{Version: 3, Priority: 200, Interval: 100 * time.Millisecond, Addresses: []string{memoryVIP + "/32"}}},
	}
	for i := range services {
		s := lab.Service{Name: fmt.Sprintf("s%d", i), Address: memoryVIP, Port: uint16(1 + i)}
		for _, n := range l.RealServers {
			s.RealServers = append(s.RealServers, lab.RealServer{Address: n.Address})
		}
		config.Services = append(config.Services, s)
	}
	if err := errors.Join(d.Configure(config), d.Start()); err != nil {
		return err
	}
	if err := d.WaitState(context.Background(), "VI_1", "MASTER", memoryPatience); err != nil {
		return err
	}
	if _, err := d.Status(context.Background()); err != nil { // which reads the whole table of flows
		return err
	}
	name := fmt.Sprintf("%d flows, %d services x 2: ", flows, services)
	for _, part := range []lab.Part{lab.Agent, lab.Election, lab.Supervisor} {
		pid, err := d.PID(part)
		if err != nil {
			return err
		}
		own, mapped, err := resident(pid)
		if err != nil {
			return err
		}
		r.add(figure{Name: name + string(part) + ", own memory", Value: float64(own) / mebibyte, Unit: "MiB"})
		if mapped > 0 && part == lab.Agent {
			r.add(figure{Name: name + string(part) + ", maps of the kernel that it looks at", Value: float64(mapped) / mebibyte, Unit: "MiB"})
		}
		if part == lab.Agent {
			kernel, err := mapMemory(pid, filepath.Join(d.PinPath, "maps", "rings"))
			if err != nil {
				return err
			}
			r.add(figure{Name: name + "maps in the kernel", Value: float64(kernel) / mebibyte, Unit: "MiB"})
		}
	}
	return d.Stop()
}

// resident is the memory that a process has for itself, and what it has mapped of the kernel's.
func resident(pid int) (own, mapped int64, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(b)) {
		fields := strings.Fields(line)
		if len(fields) < 2 || !strings.HasPrefix(fields[0], "Rss") {
			continue
		}
		kB, err := strconv.ParseInt(fields[1], 10, 64)
		if err != nil {
			return 0, 0, fmt.Errorf("read memory of process %d: %w", pid, err)
		}
		if fields[0] == "RssAnon:" {
			own = kB << 10
		} else {
			mapped += kB << 10
		}
	}
	return own, mapped, nil
}

// mapMemory is what the kernel holds for the maps that the process has open, and for those within the map of rings.
func mapMemory(pid int, rings string) (sum uint64, err error) {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/fdinfo/*", pid))
	if err != nil {
		return 0, err
	}
	seen := map[string]bool{}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			continue // closed by now
		}
		fields := map[string]string{}
		for line := range strings.Lines(string(b)) {
			name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
			fields[name] = strings.TrimSpace(value)
		}
		if fields["map_id"] == "" || seen[fields["map_id"]] {
			continue
		}
		seen[fields["map_id"]] = true
		bytes, err := strconv.ParseUint(fields["memlock"], 10, 64)
		if err != nil {
			return 0, fmt.Errorf("read %s: %w", file, err)
		}
		sum += bytes
	}
	outer, err := ebpf.LoadPinnedMap(rings, &ebpf.LoadPinOptions{ReadOnly: true})
	if errors.Is(err, os.ErrNotExist) {
		return sum, nil
	}
	if err != nil {
		return 0, err
	}
	defer outer.Close()
	var id, inner uint32
	entries := outer.Iterate()
	for entries.Next(&id, &inner) {
		if seen[strconv.FormatUint(uint64(inner), 10)] {
			continue // the agent keeps it open
		}
		ring, err := ebpf.NewMapFromID(ebpf.MapID(inner))
		if err != nil {
			return 0, fmt.Errorf("open ring %d: %w", id, err)
		}
		info, err := ring.Info()
		if err = errors.Join(err, ring.Close()); err != nil {
			return 0, err
		}
		bytes, _ := info.Memlock()
		sum += bytes
	}
	return sum, entries.Err()
}

// measureApply is how long the tables take for many services, from nothing and for a change of one real server.
func (r *report) measureApply(rounds int) error {
	shape := shape{services: 1000, servers: 20, scheduler: lb.WeightedRoundRobin}
	whole, change := &benchCase{}, &benchCase{}
	for range rounds {
		if err := applyOnce(shape, whole, change); err != nil {
			return err
		}
	}
	for _, f := range []struct {
		name   string
		c      *benchCase
		wanted float64
	}{{"from nothing", whole, 2000}, {"one real server changed", change, 10}} {
		r.add(figure{
			Name: fmt.Sprintf("apply %d services x %d, %s", shape.services, shape.servers, f.name), Value: f.c.median() / 1e6, Unit: "ms",
			Wanted: fmt.Sprintf("< %.0f", f.wanted), Met: yes(f.c.median()/1e6 < f.wanted),
		})
	}
	return nil
}

func applyOnce(shape shape, whole, change *benchCase) (err error) {
	t, err := newTestbed()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.close()) }()
	plane, err := t.plane(lb.State{})
	if err != nil {
		return err
	}
	wish := shape.wish()
	for _, c := range []*benchCase{whole, change} {
		start := time.Now()
		if err := plane.Apply(context.Background(), wish); err != nil {
			return err
		}
		c.times = append(c.times, float64(time.Since(start)))
		wish = shape.wish()
		wish.Services[shape.services/2].RealServers[0].Up = false
	}
	return nil
}
