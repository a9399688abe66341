package config

import (
	"math"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/xdirector/xdirector/pkg/health"
	"github.com/xdirector/xdirector/pkg/lb"
)

func (d *decoder) service(v value) Service {
	s := Service{Protocol: lb.TCP, Quorum: 1, OnDown: OnDownRemove}
	d.object(v,
		required("name", into(&s.Name, d.name), "a name of its own, like web"),
		optional("address", func(v value) { s.Address, s.Bits = d.serviceAddress(v) }), // one of these,
		optional("port", func(v value) { s.Port, s.LastPort = d.ports(v) }),
		optional("protocol", into(&s.Protocol, d.protocol)),
		optional("firewall_mark", into(&s.FirewallMark, integer[uint32](d, 1, math.MaxUint32))), // or that
		required("scheduler", into(&s.Scheduler, d.scheduler), "scheduler: rr or scheduler: wrr"),
		optional("forwarding", into(&s.Forwarding, d.forwarding)),
		optional("persistence", func(v value) {
			d.object(v,
				required("timeout", into(&s.Persistence, d.duration(persistence)), "how long a client stays with its real server, like 50s"),
				optional("prefix", into(&s.PersistenceBits, integer[uint8](d, 1, 128))),
				optional("group", into(&s.Group, d.name)),
			)
		}),
		optional("timeouts", func(v value) {
			d.object(v,
				optional("syn", into(&s.Timeouts.Opening, d.duration(flowTime))),
				optional("established", into(&s.Timeouts.Established, d.duration(flowTime))),
				optional("closing", into(&s.Timeouts.Closing, d.duration(flowTime))),
				optional("udp", into(&s.Timeouts.UDP, d.duration(flowTime))),
			)
		}),
		optional("unknown", func(v value) {
			word, _ := d.choice([]string{"maglev", "refuse"})(v)
			s.RefuseUnknown = word == "refuse"
		}),
		optional("new_flows", into(&s.NewFlows, integer[uint32](d, 1, 100_000_000))),
		optional("allow", d.clients(&s.Limits.Allow)),
		optional("deny", d.clients(&s.Limits.Deny)),
		optional("limits", func(v value) { d.limits(v, &s.Limits) }),
		optional("check", func(v value) { s.Check = d.check(v) }),
		optional("slow_start", into(&s.SlowStart, d.duration(slowStart))),
		optional("on_down", into(&s.OnDown, d.choice([]string{OnDownRemove, OnDownKeep}))),
		optional("quorum", into(&s.Quorum, integer(d, 1, maxQuorum))),
		optional("hysteresis", into(&s.Hysteresis, integer(d, 0, maxQuorum-1))),
		optional("sorry_server", func(v value) { s.SorryServer = d.sorryServer(v) }),
		d.hooks(&s.Notify, serverHooks...),
		required("real_servers", func(v value) {
			d.list(v, "real servers", func(v value) { s.RealServers = append(s.RealServers, d.realServer(v)) })
		}, "at least one, like [{address: 192.168.5.103}]"),
	)
	if s.SorryServer.Port == 0 && s.SorryServer.Address.IsValid() && s.LastPort == 0 {
		s.SorryServer.Port = s.Port
	}
	d.missingAddress(v)
	if v.shape != nil {
		v.shape.needs = [][]string{{"address", "port"}, {"firewall_mark"}}
	}
	if a := s.Key().Address; a.IsValid() && int(s.PersistenceBits) == a.BitLen() {
		s.PersistenceBits = 0
	}
	completeLimits(&s)
	for i := range s.RealServers {
		r := &s.RealServers[i]
		if r.Check == nil {
			r.Check = s.Check
		}
		if r.Port == 0 && s.LastPort == 0 {
			r.Port = s.Port
		}
	}
	return s
}

// missingAddress reports what a service without a firewall mark needs.
func (d *decoder) missingAddress(v value) {
	if v.node.Kind != yaml.MappingNode || d.written(v.path+".firewall_mark") {
		return
	}
	for _, f := range []struct{ key, missing string }{
		{"address", "the virtual address, like 192.168.5.100, or a firewall_mark"},
		{"port", "a port of 1 to 65535, a range like 8000-8099, or 0 for all ports"},
	} {
		if at := v.path + "." + f.key; !d.written(at) {
			d.report(v.place, at, "missing; write "+f.missing)
		}
	}
}

// serviceAddress reads one address, or a network of which all are meant.
func (d *decoder) serviceAddress(v value) (netip.Addr, uint8) {
	const allowed = "a unicast address like 192.168.5.100 or 2001:db8::100, or a network like 192.0.2.0/28"
	s, ok := d.word(v, allowed)
	if !ok {
		return netip.Addr{}, 0
	}
	address, length, network := strings.Cut(s, "/")
	a, err := netip.ParseAddr(address)
	if err != nil {
		d.wrong(v, "%s is not an IP address; allowed: %s, names are not looked up", quote(s), allowed)
		return netip.Addr{}, 0
	}
	d.families[v.path] = familyOf(a)
	if !d.usable(v, a, allowed) {
		return netip.Addr{}, 0
	}
	if !network {
		return a, 0
	}
	p, err := netip.ParsePrefix(s)
	switch {
	case err != nil || p.Bits() == 0:
		d.wrong(v, "%s has a wrong prefix length, %s; allowed: 1 to %d", quote(s), quote(length), a.BitLen())
	case p.Masked() != p:
		d.wrong(v, "%s has bits behind its prefix length; write %s for the network, or the address alone", quote(s), p.Masked())
	case p.IsSingleIP():
		return a, 0
	default:
		return a, uint8(p.Bits())
	}
	return netip.Addr{}, 0
}

var portRange = regexp.MustCompile(`^([1-9][0-9]{0,4})-([1-9][0-9]{0,4})$`)

// ports reads one port, 0 for all of them, or a range.
func (d *decoder) ports(v value) (first, last uint16) {
	if v.shape != nil {
		v.shape.oneOf(
			func(v value) { v.shape.integer(0, 65535) },
			func(v value) { v.shape.text("a range like 8000-8099"); v.matches(portRange) },
		)
		return 0, 0
	}
	m := portRange.FindStringSubmatch(v.node.Value)
	if v.node.Kind != yaml.ScalarNode || m == nil {
		if v.node.ShortTag() == "!!str" && !digits.MatchString(v.node.Value) {
			d.wrong(v, "%s is not a port; allowed: 1 to 65535, a range like 8000-8099, or 0 for all ports", quote(v.node.Value))
			return 0, 0
		}
		n, _ := d.integer(v, 0, 65535)
		return uint16(n), 0
	}
	from, _ := strconv.Atoi(m[1])
	to, _ := strconv.Atoi(m[2])
	switch {
	case from > 65535 || to > 65535:
		d.wrong(v, "%s is out of range; allowed: ports of 1 to 65535 in a range", quote(v.node.Value))
	case from > to:
		d.wrong(v, "%s ends before it begins; write %d-%d", quote(v.node.Value), to, from)
	case from == to:
		return uint16(from), 0
	default:
		return uint16(from), uint16(to)
	}
	return 0, 0
}

func (d *decoder) realServer(v value) RealServer {
	r := RealServer{Weight: 1}
	d.object(v,
		required("address", into(&r.Address, d.boxAddress), "the real server's own address, like 192.168.5.103"),
		optional("port", into(&r.Port, integer[uint16](d, 1, 65535))),
		optional("weight", into(&r.Weight, integer[uint16](d, 0, 65535))),
		optional("max_connections", into(&r.MaxConnections, integer[uint32](d, 1, maxRate))),
		optional("check", func(v value) { r.Check = d.check(v) }),
		d.hooks(&r.Notify, serverHooks...),
	)
	return r
}

func (d *decoder) protocol(v value) (lb.Protocol, bool) {
	s, ok := d.choice([]string{"tcp", "udp", "sctp"})(v)
	p, err := lb.ParseProtocol(s)
	return p, ok && err == nil
}

func (d *decoder) scheduler(v value) (lb.Scheduler, bool) {
	s, ok := d.choice([]string{string(lb.RoundRobin), string(lb.WeightedRoundRobin), string(lb.LeastConnection),
		string(lb.WeightedLeastConnection), string(lb.SourceHashing), string(lb.MaglevHashing)})(v)
	return lb.Scheduler(s), ok
}

func (d *decoder) forwarding(v value) (lb.Forwarding, bool) {
	s, ok := d.choice([]string{"direct", string(lb.NAT), string(lb.Tunnel)})(v)
	if s == "direct" {
		return lb.Direct, ok
	}
	return lb.Forwarding(s), ok
}

// laterChecks are the kinds of checks that keepalived has and this version has not.
var laterChecks = []string{"udp", "dns", "smtp", "file", "bfd", "ping", "script", "misc", "grpc", "tls"}

func (d *decoder) check(v value) *health.Check {
	c := &health.Check{
		Interval: 5 * time.Second, Timeout: 5 * time.Second, Retries: 1, RetryDelay: time.Second, Rise: 1,
	}
	kinds := []string{string(health.ICMP), string(health.TCP), string(health.HTTP), string(health.HTTPS)}
	kind := ""
	d.object(v,
		required("type", into(&kind, d.choice(kinds, laterChecks...)), "one of "+strings.Join(kinds, ", ")),
		optional("interval", into(&c.Interval, d.duration(checkTime))),
		optional("timeout", into(&c.Timeout, d.duration(checkTime))),
		optional("retries", into(&c.Retries, integer(d, 0, 1000))),
		optional("retry_delay", into(&c.RetryDelay, d.duration(retryDelay))),
		optional("rise", into(&c.Rise, integer(d, 1, 1000))),
		optional("port", into(&c.Port, integer[uint16](d, 1, 65535))),
		optional("via", func(v value) { d.choice([]string{"real"}, "vip")(v) }),
		optional("method", into(&c.Method, d.choice([]string{"GET", "HEAD", "OPTIONS", "POST"}))),
		optional("path", into(&c.Path, d.urlPath)),
		optional("host", into(&c.Host, d.host)),
		optional("status", into(&c.Status, d.status)),
		optional("body", into(&c.Body, d.body)),
		optional("insecure", into(&c.Insecure, d.boolean)),
	)
	c.Kind = health.Kind(kind)
	if c.Kind != health.HTTP && c.Kind != health.HTTPS {
		return c
	}
	if c.Method == "" {
		c.Method = "GET"
	}
	if c.Path == "" {
		c.Path = "/"
	}
	if c.Status == nil {
		c.Status = []health.StatusRange{{From: 200, To: 299}}
	}
	return c
}

var urlPath = regexp.MustCompile(`^/[!"$-~]{0,999}$`)

// urlPath reads the path of a request, with its query.
func (d *decoder) urlPath(v value) (string, bool) {
	const allowed = "a path that begins with /, like /health?full=1, of at most 1000 visible ASCII characters without #"
	s, ok := d.text(v, allowed)
	v.matches(urlPath)
	if ok && !urlPath.MatchString(s) {
		d.wrong(v, "%s is not a path; allowed: %s", quote(s), allowed)
		return "", false
	}
	return s, ok
}

// host reads the name for the Host header and the TLS handshake.
func (d *decoder) host(v value) (string, bool) {
	const allowed = "a host name or an IPv4 address, without a port"
	s, ok := d.text(v, allowed)
	v.matches(hostName)
	if ok && !hostName.MatchString(s) {
		d.wrong(v, "%s is not a host; allowed: %s", quote(s), allowed)
		return "", false
	}
	return s, ok
}

// body reads the text to be found in an answer.
func (d *decoder) body(v value) (string, bool) {
	const allowed = "a text of at most 1024 bytes"
	s, ok := d.text(v, allowed)
	if ok && len(s) > 1024 {
		d.wrong(v, "%s is %d bytes long; allowed: %s", quote(s), len(s), allowed)
		return "", false
	}
	return s, ok
}

const statusAllowed = "codes of 100 to 599 and ranges of them, like 200, 200-299 or [200-299, 401]"

// status reads one code or range, or a list of them.
func (d *decoder) status(v value) ([]health.StatusRange, bool) {
	one := func(v value) { d.statusRange(v) }
	if v.shape != nil {
		v.shape.oneOf(one, func(v value) { v.shape.list(one) })
		return nil, false
	}
	if v.node.Kind != yaml.SequenceNode {
		r, ok := d.statusRange(v)
		return []health.StatusRange{r}, ok
	}
	if len(v.node.Content) == 0 {
		d.wrong(v, "the list is empty; allowed: %s", statusAllowed)
		return nil, false
	}
	var ranges []health.StatusRange
	all := true
	d.list(v, "status codes", func(v value) {
		r, ok := d.statusRange(v)
		ranges, all = append(ranges, r), all && ok
	})
	return ranges, all
}

var codes = regexp.MustCompile(`^([1-5][0-9][0-9])(?:-([1-5][0-9][0-9]))?$`)

func (d *decoder) statusRange(v value) (health.StatusRange, bool) {
	if v.shape != nil {
		v.shape.oneOf(
			func(v value) { v.shape.integer(100, 599) },
			func(v value) { v.shape.text("a range like 200-299"); v.matches(codes) },
		)
		return health.StatusRange{}, false
	}
	if v.node.Kind == yaml.ScalarNode && !isNull(v.node) {
		if m := codes.FindStringSubmatch(v.node.Value); m != nil {
			from, _ := strconv.Atoi(m[1])
			to := from
			if m[2] != "" {
				to, _ = strconv.Atoi(m[2])
			}
			if from > to {
				d.wrong(v, "%s ends before it begins; write %d-%d; allowed: %s", quote(v.node.Value), to, from, statusAllowed)
			}
			return health.StatusRange{From: from, To: to}, from <= to
		}
		d.wrong(v, "%s is not a status code or range; allowed: %s", describe(v.node), statusAllowed)
		return health.StatusRange{}, false
	}
	return health.StatusRange{}, d.failed(d.text(v, statusAllowed))
}
