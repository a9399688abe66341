package director

import (
	"fmt"
	"time"

	"github.com/xdirector/xdirector/pkg/config"
)

// quorum is whether the real servers of a service that are up have enough weight.
type quorum struct {
	lost  bool
	since time.Time // zero: since the start
}

// quorate says how much weight is up, and whether that is a quorum: once lost, it is there again with the hysteresis more. A real
// server that starts slowly counts in full.
func quorate(s config.Service, claims []claim, lost bool) (weight int, there bool) {
	for _, c := range claims {
		if c.up {
			weight += int(c.weight())
		}
	}
	if lost {
		return weight, weight >= s.Quorum+s.Hysteresis
	}
	return weight, weight >= s.Quorum-s.Hysteresis
}

// judge notes and tells which services lose their quorum, or have it again.
func (d *Director) judge() {
	f := d.facts(d.cfg)
	changed := false
	now := map[string]quorum{}
	for _, s := range d.cfg.Services {
		before := d.quorums[s.Name]
		weight, there := quorate(s, f.claims(s), before.lost)
		if before.lost == !there {
			now[s.Name] = before
			continue
		}
		changed = true
		now[s.Name] = quorum{lost: !there, since: time.Now()}
		d.tellQuorum(s, weight, there)
	}
	d.quorums = now
	if changed {
		d.remember()
	}
}

func (d *Director) tellQuorum(s config.Service, weight int, there bool) {
	sorry := s.SorryServer.Address
	text := fmt.Sprintf("service %s has its quorum again", s.Name)
	tell := d.log.Info
	if !there {
		text, tell = fmt.Sprintf("service %s has lost its quorum", s.Name), d.log.Warn
	}
	switch {
	case !sorry.IsValid() && there:
	case !sorry.IsValid() && weight == 0:
		text += ": new connections are refused"
	case !sorry.IsValid():
		text += ": what is up goes on alone"
	case there:
		text += ": the sorry server leaves"
	default:
		text += ": the sorry server gets all new connections"
	}
	args := []any{"service", s.Name, "weight_up", weight, "quorum", s.Quorum, "hysteresis", s.Hysteresis}
	if sorry.IsValid() {
		args = append(args, "sorry_server", sorry)
	}
	tell(text, args...)
}

// lost are the services without a quorum.
func (d *Director) lost() map[string]bool {
	list := map[string]bool{}
	for name, q := range d.quorums {
		list[name] = q.lost
	}
	return list
}
