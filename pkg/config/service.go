package config

import (
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
		required("address", into(&s.Address, d.address), "the virtual address, like 192.168.5.100"),
		required("port", into(&s.Port, integer[uint16](d, 1, 65535)), "a port of 1 to 65535"),
		optional("protocol", into(&s.Protocol, d.protocol)),
		required("scheduler", into(&s.Scheduler, d.scheduler), "scheduler: rr or scheduler: wrr"),
		optional("forwarding", func(v value) { d.choice([]string{"direct"}, "nat", "tunnel")(v) }),
		optional("persistence", func(v value) {
			d.object(v,
				required("timeout", into(&s.Persistence, d.duration(persistence)), "how long a client stays with its real server, like 50s"),
				optional("prefix", d.persistencePrefix),
			)
		}),
		optional("check", func(v value) { s.Check = d.check(v) }),
		optional("slow_start", into(&s.SlowStart, d.duration(slowStart))),
		optional("on_down", into(&s.OnDown, d.choice([]string{OnDownRemove, OnDownKeep}))),
		optional("quorum", into(&s.Quorum, integer(d, 1, maxQuorum))),
		optional("hysteresis", into(&s.Hysteresis, integer(d, 0, maxQuorum-1))),
		optional("sorry_server", func(v value) { s.SorryServer = d.sorryServer(v) }),
		required("real_servers", func(v value) {
			d.list(v, "real servers", func(v value) { s.RealServers = append(s.RealServers, d.realServer(v)) })
		}, "at least one, like [{address: 192.168.5.103}]"),
	)
	if s.SorryServer.Port == 0 && s.SorryServer.Address.IsValid() {
		s.SorryServer.Port = s.Port
	}
	for i := range s.RealServers {
		r := &s.RealServers[i]
		if r.Check == nil {
			r.Check = s.Check
		}
		if r.Port == 0 {
			r.Port = s.Port
		}
	}
	return s
}

func (d *decoder) realServer(v value) RealServer {
	r := RealServer{Weight: 1}
	d.object(v,
		required("address", into(&r.Address, d.address), "the real server's own address, like 192.168.5.103"),
		optional("port", into(&r.Port, integer[uint16](d, 1, 65535))),
		optional("weight", into(&r.Weight, integer[uint16](d, 0, 65535))),
		optional("check", func(v value) { r.Check = d.check(v) }),
	)
	return r
}

func (d *decoder) protocol(v value) (lb.Protocol, bool) {
	s, ok := d.choice([]string{"tcp", "udp"})(v)
	p, err := lb.ParseProtocol(s)
	return p, ok && err == nil
}

func (d *decoder) scheduler(v value) (lb.Scheduler, bool) {
	known := []string{string(lb.RoundRobin), string(lb.WeightedRoundRobin), string(lb.SourceHashing), string(lb.MaglevHashing)}
	s, ok := d.choice(known, "lc", "wlc")(v)
	return lb.Scheduler(s), ok
}

// persistencePrefix reads how much of a client's address counts: as yet all of it.
func (d *decoder) persistencePrefix(v value) {
	if n, ok := d.integer(v, 1, 128); ok && n != 32 {
		d.wrong(v, "%d is not supported by this version; allowed: 32", n)
	}
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
