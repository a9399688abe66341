package xdp

import (
	"bytes"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/xdirector/xdirector/pkg/lb"
)

func TestFramesLostAfterTheirVerdictAreCountedAndToldOnceWithACure(t *testing.T) {
	s, cfg, wish := buildStreet(t)
	passAll(t, "c0")
	far := passAll(t, "s1")
	cfg.Interfaces = []string{"eth0", "eth1"}
	wish.Services[0].RealServers = wish.Services[0].RealServers[1:] // behind eth1
	var said bytes.Buffer
	p, err := open(cfg, slog.New(slog.NewTextHandler(&said, nil)), devices)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if _, err := p.Attach(Native); err != nil {
		t.Fatal(err)
	}
	apply(t, p, wish)
	losses := func(p *Plane) []lb.RedirectErrors { return counters(t, p).Interfaces["eth0"].Lost }
	lose := func(want ...lb.RedirectErrors) {
		t.Helper()
		for range 3 {
			s.c0.send(t, packet{destination: s.eth0, flags: ack, payload: 1400}.bytes())
			apply(t, p, wish)
		}
		eventually(t, "losses are counted", func() bool { return slices.Equal(losses(p), want) })
		apply(t, p, wish)
	}
	s.c0.send(t, packet{destination: s.eth0, flags: syn}.bytes())
	s.s1.expect(t, packet{destination: serverMAC(3), source: s.eth1, flags: syn}.bytes())
	if all := losses(p); len(all) != 0 {
		t.Errorf("%v before any is lost", all)
	}
	ip(t, "link", "set", "eth1", "mtu", "1400")
	tooLong := lb.RedirectErrors{To: "eth1", Reason: "too_long", Frames: 3}
	lose(tooLong)
	ip(t, "link", "set", "eth1", "down")
	down := lb.RedirectErrors{To: "eth1", Reason: "down", Frames: 3}
	lose(down, tooLong)
	ip(t, "link", "set", "eth1", "mtu", "1500", "up")
	if err := far.Close(); err != nil {
		t.Fatal(err)
	}
	lose(down, tooLong, lb.RedirectErrors{To: "eth1", Reason: "unsupported", Frames: 3})
	for _, cure := range []string{"its MTU is smaller", "ip link set up", "dataplane.interfaces"} {
		if n := strings.Count(said.String(), cure); n != 1 {
			t.Errorf("told %d times of %q, want once:\n%s", n, cure, said.String())
		}
	}

	// The next agent goes on counting, and tells nothing that was told.
	said.Reset()
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	next, err := open(cfg, slog.New(slog.NewTextHandler(&said, nil)), devices)
	if err != nil {
		t.Fatal(err)
	}
	defer next.Close()
	apply(t, next, wish)
	if all := losses(next); len(all) != 3 || strings.Contains(said.String(), "are lost") {
		t.Errorf("after a restart: %v\n%s", all, said.String())
	}
	if err := next.Remove(); err != nil {
		t.Fatal(err)
	}
}
