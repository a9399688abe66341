package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/xdirector/xdirector/pkg/status"
)

// TestAVeryLargeDirectorCanBeLookedAt has the time as its bar, generous for a busy machine: a hundredth of that is usual for
// what is named, a tenth for everything.
func TestAVeryLargeDirectorCanBeLookedAt(t *testing.T) {
	t.Parallel()
	s := flowing().overrides[0]
	s.Instances, s.Services = nil, nil
	for n := range 1000 {
		s.Instances = append(s.Instances, status.Instance{Name: fmt.Sprintf("VI_%d", n), Interface: "eth0", State: "MASTER", Reason: "no advert for 3.609s",
			Addresses: []string{fmt.Sprintf("10.3.%d.%d/32", n/250, n%250)}})
	}
	for n := range 10000 {
		v := status.Service{Name: fmt.Sprintf("web-%d", n), Address: fmt.Sprintf("10.1.%d.%d", n/250, n%250), Port: 80, Protocol: "tcp", Scheduler: "wrr", Plane: s.Plane, Quorum: status.Quorum{Up: true}}
		for r := range 2 {
			v.RealServers = append(v.RealServers, status.RealServer{Address: fmt.Sprintf("10.2.%d.%d", n/250, r), Port: 80, Up: true, Weight: 1, Reason: "connected", Checks: map[string]uint64{"up": 17}})
		}
		s.Services = append(s.Services, v)
	}
	file := serveDirector(t, &obedient{overrides: []status.Status{s}})
	for args, lines := range map[string]int{"status": 32008, "status web-77": 8, "status 10.2.3.1": 755, "status VI_7 web-77*": 343} {
		began := time.Now()
		code, stdout, stderr := command(t, append(strings.Fields(args), "--config", file)...)
		took := time.Since(began)
		t.Logf("%s: %d lines in %v", args, strings.Count(stdout, "\n"), took)
		if got := strings.Count(stdout, "\n"); code != 0 || got != lines || took > 10*time.Second {
			t.Errorf("%s: exit code %d, %d lines in %v, stderr %.200q, want %d lines", args, code, got, took, stderr, lines)
		}
	}
}
