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

// gathering is for how long the loop looks for more results of checks once a real server has come up or gone down: when a network
// fails, thousands go down together, and each change of the plane looks at all of them.
const gathering = 5 * time.Millisecond

// onResults takes a result, and if it changes anything those that come with it, before the plane hears of them.
func (d *Director) onResults(ctx context.Context, r health.Result, more <-chan health.Result) {
	if !d.onResult(r) {
		return
	}
	tracked := isTracked(d.cfg, r.Service)
	limit := time.After(gathering)
	for gather := true; gather; {
		select {
		case r := <-more:
			if d.onResult(r) {
				tracked = tracked || isTracked(d.cfg, r.Service)
			}
		case <-limit:
			gather = false
		}
	}
	d.apply(ctx)
	if tracked {
		d.track()
	}
	d.remember()
}

// onResult notes the result of a check, and says whether the real server has come up or gone down by it.
func (d *Director) onResult(r health.Result) (changed bool) {
	service := d.service(r.Service)
	if service == nil {
		return false // of a service that a reload has removed meanwhile
	}
	s, ok := d.servers[lb.ServerKey{Service: serviceKey(*service), Address: r.Address}]
	if !ok {
		return false
	}
	s.results[upOrDown(r.OK)]++
	s.reason, s.duration = r.Reason, r.Duration
	if s.up == r.Up {
		return false
	}
	s.up, s.since = r.Up, time.Now()
	s.rose = s.since
	s.transitions[upOrDown(r.Up)]++
	return true
}

// service finds a service of the configuration in force; nil: there is none of that name.
func (d *Director) service(name string) *config.Service {
	if d.named.cfg != d.cfg {
		d.named.cfg, d.named.services = d.cfg, byName(d.cfg.Services, func(s *config.Service) string { return s.Name })
	}
	return d.named.services[name]
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
