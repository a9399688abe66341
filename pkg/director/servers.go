package director

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/xdirector/xdirector/pkg/config"
	"github.com/xdirector/xdirector/pkg/health"
	"github.com/xdirector/xdirector/pkg/lb"
	"github.com/xdirector/xdirector/pkg/neigh"
)

// server is what the director remembers of a real server between results.
type server struct {
	up          bool
	reason      string
	since       time.Time
	results     map[string]uint64 // of checks, by their own outcome
	transitions map[string]uint64 // by the state entered
	duration    time.Duration
	rose        time.Time // when it came up again, or back from a drain; zero: it was always there
}

// The outcomes of a check, and the states of a real server.
const (
	isUp   = "up"
	isDown = "down"
)

func newServer(up bool, reason string) *server {
	return &server{up: up, reason: reason, since: time.Now(), results: map[string]uint64{}, transitions: map[string]uint64{}}
}

func upOrDown(up bool) string {
	if up {
		return isUp
	}
	return isDown
}

func (d *Director) onResult(ctx context.Context, r health.Result) {
	service, ok := find(d.cfg, r.Service)
	if !ok {
		return // of a service that a reload has removed meanwhile
	}
	key := lb.ServerKey{Service: serviceKey(service), Address: r.Address}
	s, ok := d.servers[key]
	if !ok {
		return
	}
	s.results[upOrDown(r.OK)]++
	s.reason, s.duration = r.Reason, r.Duration
	if s.up != r.Up {
		s.up, s.since = r.Up, time.Now()
		s.rose = s.since
		s.transitions[upOrDown(r.Up)]++
		d.apply(ctx)
		if isTracked(d.cfg, r.Service) {
			d.track()
		}
		d.remember()
	}
}

// targets makes the health targets of a configuration, and forgets real servers that are no longer in it.
func (d *Director) targets(cfg *config.Config) []health.Target {
	var list []health.Target
	keep := map[lb.ServerKey]*server{}
	for _, s := range cfg.Services {
		for _, r := range s.RealServers {
			key := lb.ServerKey{Service: serviceKey(s), Address: r.Address}
			known, ok := d.servers[key]
			switch {
			case !ok:
				known = newServer(true, "not checked yet")
			case r.Check == nil:
				rose := known.rose
				known = newServer(true, "no check")
				known.rose = rose
			}
			keep[key] = known
			if r.Check == nil {
				known.reason = "no check"
				continue
			}
			list = append(list, health.Target{
				Key:   health.Key{Service: s.Name, Address: r.Address},
				Port:  r.Port,
				Check: *r.Check,
				Up:    known.up,
			})
		}
	}
	d.servers = keep
	return list
}

// checkSource is the own address for checks of a real server.
func (d *Director) checkSource(target netip.Addr) (netip.Addr, error) {
	source, err := d.neigh.Source(target)
	if errors.Is(err, neigh.ErrLinkDown) {
		err = fmt.Errorf("%w: %w", health.ErrBlind, err)
	}
	return source, err
}
