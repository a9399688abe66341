package ipvs

import (
	"fmt"
	"slices"
	"strings"
)

// setting is one switch of IPVS, below net.ipv4.vs, and the value without which this plane doesn't do what
// pkg/lb promises.
type setting struct {
	name, value string
	without     string // what goes wrong at another value
}

// wantedSettings. On conn_reuse_mode: with 0 a client that uses its port again stays with the old real server, even
// one with weight 0. With 1, the default, such a connection is scheduled afresh when that weight is 0, or when the
// old one ended; but of direct return IPVS sees one direction only, and its last state is FIN_WAIT, which counts as
// ended only with bit 2. So 2 (which includes 1): a new connection is a new flow, as round robin has it.
var wantedSettings = [...]setting{
	{"sloppy_tcp", "1", "connections open at a takeover are reset, even if they would come to the same real server again"},
	{"expire_nodest_conn", "1", "connections to a real server that went down hang instead of being scheduled afresh"},
	{"expire_quiescent_template", "0", "persistent clients leave a real server as soon as its weight is 0, while XDP keeps them there"},
	{"conn_reuse_mode", "2", "a connection from a port that was used before goes to the same real server, whatever its weight"},
}

// adjust sets what has another value, if nobody else uses IPVS.
func (p *Plane) adjust(foreign []string) {
	var differences []string
	for _, s := range wantedSettings {
		have, err := p.kernel.Setting(s.name)
		if err == nil && have == s.value {
			continue
		}
		why := ""
		switch {
		case err != nil:
			why = err.Error()
		case len(foreign) > 0:
			why = "IPVS has another user (" + strings.Join(foreign, ", ") + ")"
		default:
			if err := p.kernel.Set(s.name, s.value); err != nil {
				why = err.Error()
				break
			}
			p.log.Info("changed a setting of ipvs", "setting", "net.ipv4.vs."+s.name, "from", have, "to", s.value)
			continue
		}
		differences = append(differences, fmt.Sprintf("net.ipv4.vs.%s is %q instead of %s: %s. Not changed: %s. Cure: sysctl -w net.ipv4.vs.%s=%s",
			s.name, have, s.value, s.without, why, s.name, s.value))
	}
	if !slices.Equal(differences, p.differences) {
		for _, text := range differences {
			p.log.Warn("ipvs is not set up as it should be", "difference", text)
		}
	}
	p.differences = differences
}
