package doctor

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/xdirector/xdirector/pkg/config"
)

// Bypassed lists the packet rules of this box that the services of a configuration, which need not be in force, would not
// be held to on XDP. Each finding says what means the same in the configuration; its command is of no use without a file.
func Bypassed(ctx context.Context, c *config.Config) ([]Finding, error) {
	b := &box{ctx: ctx, probe: "bypassed rules", Options: Options{Config: c}}
	err := bypassed(b)
	return b.report.Findings, err
}

// bypassed: XDP takes packets before any rule sees them, so what rules say of a service's clients must be said in the
// service.
func bypassed(b *box) error {
	if len(b.onXDP()) == 0 {
		return nil
	}
	rules, err := b.rulesets()
	if err != nil {
		return err
	}
	for _, s := range b.onXDP() {
		for _, c := range rules {
			if base, ok := rules.baseOf(c); ok && c.sees(s.Address.Is6()) {
				b.bypassedIn(rules, base, c, s)
			}
		}
	}
	return nil
}

// baseOf returns a chain through which packets that come in reach c.
func (s ruleset) baseOf(c chain) (chain, bool) {
	hooks := []string{"prerouting", "input", "forward"}
	if c.hook != "" {
		return c, slices.Contains(hooks, c.hook)
	}
	n := slices.IndexFunc(s, func(base chain) bool {
		return slices.Contains(hooks, base.hook) && base.family == c.family && base.table == c.table && base.tool == c.tool &&
			slices.ContainsFunc(base.rules, func(r rule) bool { return r.target == c.name })
	})
	if n < 0 {
		return chain{}, false
	}
	return s[n], true
}

// sources are the networks that a rule asks a client's address for.
func (r rule) sources() (list []netip.Prefix, not, has bool) {
	for _, c := range r.conditions {
		if c.subject == source && !c.unknown {
			return c.prefixes, c.not, true
		}
	}
	return nil, false, false
}

// names says whether a rule is about an address by name.
func (r rule) names(a netip.Addr) bool {
	return slices.ContainsFunc(r.conditions, func(c condition) bool {
		return c.subject == destination && !c.not && c.plain(flow{to: a}) == yes
	})
}

// exact says whether we can evaluate all conditions of a rule.
func (r rule) exact() bool {
	return !slices.ContainsFunc(r.conditions, func(c condition) bool { return c.subject == other || c.unknown })
}

func (b *box) bypassedIn(rules ruleset, base, c chain, s config.Service) {
	f := flow{protocol: uint8(s.Protocol), in: b.entrance(), to: s.Address, toPort: s.Port, state: "new", ipv6: s.Address.Is6()}
	everybody := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	if f.ipv6 {
		everybody = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	var allowed []netip.Prefix
	var allowing rule
	for _, r := range c.rules {
		from, not, has := r.sources()
		if r.meets(f) == no || !has && !r.names(s.Address) {
			continue
		}
		switch {
		case !r.exact():
			if r.verdict == "drop" {
				b.fact("%s limits what is for service %s, which XDP does not pass by it: see allow, deny and limits in the configuration", r.text, s.Name)
			}
		case r.verdict == "drop" && !has:
			b.says(s, r, "deny", []netip.Prefix{everybody})
		case r.verdict == "drop" && not:
			b.says(s, r, "allow", from)
		case r.verdict == "drop":
			b.says(s, r, "deny", from)
		case r.verdict == "accept" && has && !not && r.names(s.Address):
			allowed, allowing = append(allowed, from...), r
		}
	}
	if len(allowed) == 0 {
		return
	}
	without := base
	without.rules = slices.DeleteFunc(slices.Clone(base.rules), func(r rule) bool { _, _, has := r.sources(); return has })
	if _, dropped := rules.drops(without, f); dropped {
		b.says(s, allowing, "allow", allowed)
	}
}

// says finds that a service doesn't have in its allow or deny what a rule says.
func (b *box) says(s config.Service, r rule, key string, networks []netip.Prefix) {
	have := s.Limits.Deny
	if key == "allow" {
		have = s.Limits.Allow
	}
	var missing []string
	for _, n := range networks {
		if n.Addr().Is6() == s.Address.Is6() && !slices.ContainsFunc(have, func(h netip.Prefix) bool { return h.Bits() <= n.Bits() && h.Contains(n.Addr()) }) {
			missing = append(missing, n.String())
		}
	}
	if len(missing) == 0 {
		return
	}
	list := strings.Join(missing, ", ")
	b.found(fmt.Sprintf("XDP takes packets of service %s before %s sees them", s.Name, r.text),
		fmt.Sprintf("the rule has no effect on clients of the service; in the configuration it is %s: [%s]", key, list), b.addTo(servicesList, s.Name, key, list))
}
