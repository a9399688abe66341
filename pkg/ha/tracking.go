package ha

import (
	"fmt"
	"strings"

	"github.com/xdirector/xdirector/pkg/vrrp"
)

// weigh puts what is tracked into the configuration of an instance's machine: what checks and operators say, and the
// interfaces that it depends on.
func weigh(cfg *Instance, track Track, links snapshot) (given vrrp.Config, text string) {
	given = cfg.VRRP
	given.Name = cfg.Name
	adjust := track.Adjust
	hold := track.Hold
	var parts []string
	say := func(part string) {
		if part != "" {
			parts = append(parts, part)
		}
	}
	say(track.Hold)
	if track.Text != "" {
		say(track.Text)
	} else if track.Adjust != 0 {
		say(fmt.Sprintf("checks: %+d", track.Adjust))
	}
	for _, t := range cfg.TrackInterfaces {
		k, found := links[t.Name]
		down := unusable(t.Name, k, found)
		switch {
		case down != "" && t.Weight == 0:
			hold = firstOf(hold, "tracked "+down)
			say("tracked " + down)
		case down != "" && t.Weight < 0:
			adjust += t.Weight
			say(fmt.Sprintf("interface %s down: %+d", t.Name, t.Weight))
		case down == "" && t.Weight > 0:
			adjust += t.Weight
			say(fmt.Sprintf("interface %s up: %+d", t.Name, t.Weight))
		}
	}
	given.Adjust += adjust
	given.Deaf = track.Deaf
	given.Yield, given.Hold = given.Yield || track.Yield, firstOf(given.Hold, hold)
	return given, strings.Join(parts, "; ")
}

func firstOf(a, b string) string {
	if a != "" {
		return a
	}
	return b
}
