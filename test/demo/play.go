package main

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/xdirector/xdirector/pkg/status"
	"github.com/xdirector/xdirector/test/lab"
)

const (
	vip      = "10.77.0.100"
	interval = 100 * time.Millisecond // between adverts
	rate     = 250                    // new connections per second
	limit    = 250 * time.Millisecond // for a whole request
	patience = 10 * time.Second       // for anything that the directors should do at once
)

// stage is the running demo.
type stage struct {
	lab    *lab.Lab
	d1, d2 *lab.Director
	wire   *lab.Wire
	load   *lab.Load
	screen *screen
	acts   []*act
}

// play runs the whole demo and returns an error if it could not, or if an act cost more than promised.
func play(ctx context.Context, binary string) error {
	l, err := lab.New(lab.Options{Directors: 2, RealServers: 3, VIPs: []string{vip}})
	if err != nil {
		return err
	}
	defer l.Close()
	s := &stage{lab: l, screen: newScreen()}
	defer s.screen.close()
	s.screen.say("Two directors, d1 and d2, share the address %s: one is MASTER and forwards, the other is BACKUP.", vip)
	s.screen.say("Three real servers, r1 to r3, run nginx; they answer the client directly (direct return).")
	s.screen.say("A client asks for a page %d times a second, each time over a new connection. A request", rate)
	s.screen.say("that is not complete within %v counts as failed. Adverts go out every %v.", limit, interval)
	if err := s.raise(ctx, binary); err != nil {
		return err
	}
	s.screen.follow(s.picture)
	for _, step := range []func(context.Context) error{
		s.steady, s.cleanStop, s.failback, s.agentKilled, s.failback, s.linkDown,
	} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	requests := s.load.Stop()
	s.screen.stop()
	return s.result(requests)
}

// raise starts the servers, the directors and the load.
func (s *stage) raise(ctx context.Context, binary string) error {
	var servers []lab.RealServer
	for _, r := range s.lab.RealServers {
		if _, err := r.StartNginx(80); err != nil {
			return err
		}
		servers = append(servers, lab.RealServer{Address: r.Address})
	}
	var err error
	if s.wire, err = s.lab.CaptureVRRP(); err != nil {
		return err
	}
	for i, d := range []**lab.Director{&s.d1, &s.d2} {
		if *d, err = s.lab.NewDirector(s.lab.Directors[i], binary); err != nil {
			return err
		}
		err = (*d).Configure(lab.Config{
			Instances: []lab.Instance{{
				Version: 3, Priority: uint8(200 - 100*i), Interval: interval, Addresses: []string{vip + "/32"},
			}},
			Services: []lab.Service{{
				Address: vip, Port: 80, Check: "{type: http, interval: 200ms, timeout: 200ms}", RealServers: servers,
			}},
		})
		if err != nil {
			return err
		}
		if err := (*d).Start(); err != nil {
			return err
		}
		if err := (*d).WaitStatus(ctx, patience, allUp); err != nil {
			return err
		}
	}
	if err := s.d1.WaitState(ctx, "VI_1", "MASTER", patience); err != nil {
		return err
	}
	s.load, err = s.lab.Client.StartLoad(netip.AddrPortFrom(netip.MustParseAddr(vip), 80), rate, limit)
	return err
}

// allUp is nil when every real server was checked and found up, and can be reached.
func allUp(st *status.Status) error {
	for _, service := range st.Services {
		for _, r := range service.RealServers {
			if !r.Up || r.Reason == "not checked yet" || r.NextHopError != "" {
				return fmt.Errorf("real server %s is not up: %s %s", r.Address, r.Reason, r.NextHopError)
			}
		}
	}
	return nil
}

func (s *stage) steady(ctx context.Context) error {
	s.begin("steady", "All is well: d1 is MASTER.")
	return pause(ctx, 3*time.Second)
}

func (s *stage) cleanStop(ctx context.Context) error {
	a := s.begin("clean stop", "Act 1: d1 is stopped, as by `systemctl stop xdirector`. It hands over to d2.")
	if err := s.d1.Stop(); err != nil {
		return err
	}
	return s.switched(ctx, a, s.d2)
}

func (s *stage) failback(ctx context.Context) error {
	a := s.begin("failback", "Act 2: d1 is started again. It has the higher priority, so it takes over from d2.")
	if err := s.d1.Start(); err != nil {
		return err
	}
	return s.switched(ctx, a, s.d1)
}

func (s *stage) agentKilled(ctx context.Context) error {
	a := s.begin("agent killed", "Act 3: the agent of d1 is killed (SIGKILL). Its program in the kernel forwards on while d2 takes over.")
	s.d1.Kill()
	return s.switched(ctx, a, s.d2)
}

func (s *stage) linkDown(ctx context.Context) error {
	a := s.begin("link down", "Act 4: the cable of d1 is pulled. Nothing is left to hand over: d2 has to notice.")
	if err := s.d1.SetLink(false); err != nil {
		return err
	}
	a.cut = true
	return s.switched(ctx, a, s.d2)
}

// begin starts an act; the one before it ends here.
func (s *stage) begin(name, text string) *act {
	s.screen.say("")
	s.screen.say("%s", text)
	a := &act{name: name, from: time.Now()}
	if n := len(s.acts); n > 0 {
		s.acts[n-1].to = a.from
	}
	s.acts = append(s.acts, a)
	return a
}

// switched waits until the new MASTER has told the network, and a while longer for what may go wrong after it.
func (s *stage) switched(ctx context.Context, a *act, master *lab.Director) error {
	garp, err := s.wire.WaitAnnouncement(ctx, master.Node, netip.MustParseAddr(vip), a.from, patience)
	if err != nil {
		return fmt.Errorf("%s: %w\n%s", a.name, err, master.Log())
	}
	a.garp = garp.Time
	for _, advert := range s.wire.Adverts(a.from.Add(-time.Second)) {
		if advert.Source != master.Address && advert.Time.Before(a.garp) {
			a.lastAdvert = advert.Time
		}
	}
	s.screen.say("%s is MASTER %d ms later: its first gratuitous ARP is on the wire.", master.Name, garp.Time.Sub(a.from).Milliseconds())
	return pause(ctx, 2*time.Second)
}

// pause lets the audience watch.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
