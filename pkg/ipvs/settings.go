package ipvs

import (
	"fmt"
	"slices"
	"strings"

	"github.com/xdirector/xdirector/pkg/lb"
)

// setting is one switch of the kernel, and the value without which this plane doesn't do what pkg/lb promises.
type setting struct {
	name, value string
	without     string // what goes wrong at another value
	// never is why it isn't set by us; empty: it is, while nobody else uses IPVS.
	never string
	// needed says whether a service needs it; nil: all do.
	needed func(lb.Service) bool
}

// wantedSettings. On conn_reuse_mode: with 0 a client that uses its port again stays with the old real server, even
// one with weight 0. With 1, the default, such a connection is scheduled afresh when that weight is 0, or when the
// old one ended; but of direct return IPVS sees one direction only, and its last state is FIN_WAIT, which counts as
// ended only with bit 2. So 2 (which includes 1): a new connection is a new flow, as round robin has it.
var wantedSettings = [...]setting{
	{name: "net.ipv4.vs.sloppy_tcp", value: "1", without: "connections open at a takeover are reset, even if they would come to the same real server again"},
	{name: "net.ipv4.vs.expire_nodest_conn", value: "1", without: "connections to a real server that went down hang instead of being scheduled afresh"},
	{name: "net.ipv4.vs.expire_quiescent_template", value: "0", without: "persistent clients leave a real server as soon as its weight is 0, while XDP keeps them there"},
	{name: "net.ipv4.vs.conn_reuse_mode", value: "2", without: "a connection from a port that was used before goes to the same real server, whatever its weight"},
	{name: "net.ipv4.vs.sloppy_sctp", value: "1", without: "sctp associations open at a takeover are aborted, even if they would come to the same real server again",
		needed: func(s lb.Service) bool { return s.Key.Protocol == lb.SCTP }},
	{name: "net.ipv4.ip_forward", value: "1", without: "answers of real servers behind NAT don't reach the clients", never: router,
		needed: func(s lb.Service) bool { return s.Forwarding == lb.NAT && s.Key.Address.Is4() }},
	{name: "net.ipv6.conf.all.forwarding", value: "1", without: "answers of real servers behind NAT don't reach the clients", never: router,
		needed: func(s lb.Service) bool { return s.Forwarding == lb.NAT && s.Key.Address.Is6() }},
}

const router = "it makes a router of this box, which is the operator's to decide"

// adjust sets what has another value, if nobody else uses IPVS.
func (p *Plane) adjust(services []lb.Service, foreign []string) {
	var differences []string
	for _, s := range wantedSettings {
		if s.needed != nil && !slices.ContainsFunc(services, s.needed) {
			continue
		}
		have, err := p.kernel.Setting(s.name)
		if err == nil && have == s.value {
			continue
		}
		why := ""
		switch {
		case err != nil:
			why = err.Error()
		case s.never != "":
			why = s.never
		case len(foreign) > 0:
			why = "IPVS has another user (" + strings.Join(foreign, ", ") + ")"
		default:
			if err := p.kernel.Set(s.name, s.value); err != nil {
				why = err.Error()
				break
			}
			p.log.Info("changed a setting of ipvs", "setting", s.name, "from", have, "to", s.value)
			continue
		}
		differences = append(differences, fmt.Sprintf("%s is %q instead of %s: %s. Not changed: %s. Cure: sysctl -w %s=%s",
			s.name, have, s.value, s.without, why, s.name, s.value))
	}
	if !slices.Equal(differences, p.differences) {
		for _, text := range differences {
			p.log.Warn("ipvs is not set up as it should be", "difference", text)
		}
	}
	p.differences = differences
}
