package keepalived

import (
	"regexp"
	"slices"
	"strings"
	"time"
)

// checks are the checkers of keepalived.
func checks() []string {
	return []string{"TCP_CHECK", "HTTP_GET", "SSL_GET", "PING_CHECK", "SMTP_CHECK", "UDP_CHECK", "DNS_CHECK", "MISC_CHECK", "BFD_CHECK", "FILE_CHECK"}
}

// timing are the keywords that a check can have from its real server or virtual server.
func timing() []string {
	return []string{"delay_loop", "connect_timeout", "retry", "delay_before_retry", "virtualhost"}
}

// check converts the check of a real server, whose port is given. A real server has one here: the one that looks at most.
func (c *converter) check(s *service, r *node, port int) *value {
	var best *node
	unusable := map[*node]bool{}
	for _, kind := range [][]string{{"HTTP_GET", "SSL_GET"}, {"TCP_CHECK"}, {"PING_CHECK"}, {"SMTP_CHECK", "DNS_CHECK", "UDP_CHECK", "MISC_CHECK", "FILE_CHECK", "BFD_CHECK"}} {
		for _, k := range r.kids {
			if best != nil || !slices.Contains(kind, k.keyword()) {
				continue
			}
			if c.usable(k) {
				best = k
			} else {
				unusable[k] = true
			}
		}
	}
	for _, k := range r.kids {
		if k != best && slices.Contains(checks(), k.keyword()) && !unusable[k] {
			k.all(Unsupported, "a real server has one check, which is the %s of line %d", best.keyword(), best.at.number)
		}
	}
	if best == nil {
		return nil
	}
	c.superseded(best)
	v := mapping(best)
	kind := best.keyword()
	switch kind {
	case "TCP_CHECK":
		v.set("type", word("tcp"))
	case "HTTP_GET":
		v.set("type", word("http"))
	case "SSL_GET":
		v.set("type", word("https"))
	case "PING_CHECK":
		v.set("type", word("icmp"))
	default:
		// Something is better than nothing: without a check a dead real server goes on getting connections.
		instead, what := "icmp", "whether the box answers a ping"
		if s.protocol == "tcp" && port != 0 && kind != "UDP_CHECK" && kind != "DNS_CHECK" {
			instead, what = "tcp", "whether something listens"
		}
		best.note(Unsupported, "there is no %s; a check of type %s is written, which says %s", kind, instead, what)
		v.set("type", word(instead))
	}
	icmp := v.get("type").scalar == "icmp"
	c.times(v, s, r, best)
	to, own := port, c.connectPort(best)
	if own != nil {
		if p, ok := number(own, 1, 1, 65535); ok {
			to = p
			own.done()
		}
	}
	if !icmp && (to != s.target.port || s.target.mark != 0) && !(s.forwarding == "nat" && to == port && own == nil) && to != 0 {
		v.set("port", word(to, own))
	}
	for _, k := range best.kids {
		switch k.keyword() {
		case "connect_port", "url", "virtualhost", "delay_loop", "connect_timeout", "retry", "delay_before_retry":
		case "host":
			if kind != "SMTP_CHECK" {
				c.rest(atCheck, k)
			}
		case "nb_get_retry":
			if kind != "HTTP_GET" && kind != "SSL_GET" {
				k.note(NotNeeded, "keepalived knows it in HTTP_GET and SSL_GET only, so that retries is %s; write retry where it shall count", v.get("retries").scalar)
			} else if best.find("retry", "nb_get_retry") != k {
				k.note(NotNeeded, "a later line says the same, and counts")
			}
		default:
			c.rest(atCheck, k)
		}
	}
	if kind == "HTTP_GET" || kind == "SSL_GET" {
		c.url(v, s, r, best)
	}
	if kind == "SSL_GET" {
		v.set("insecure", word(true))
		best.note(Converted, "insecure: true, since keepalived accepts every certificate")
	}
	return v
}

// connectPort is what says to which port a check goes; nil: nothing does. A check by SMTP has it in the braces of a host, too: in
// keepalived each of these is a check of its own.
func (c *converter) connectPort(check *node) *node {
	port := check.find("connect_port")
	if check.keyword() != "SMTP_CHECK" {
		return port
	}
	for i, host := range check.each("host") {
		if i > 0 {
			host.all(Unsupported, "a real server has one check, and that goes where the host of line %d says", check.each("host")[0].at.number)
			continue
		}
		host.done()
		if own := host.find("connect_port"); own != nil {
			if port != nil {
				port.note(NotNeeded, "line %d says another one", own.at.number)
			}
			port = own
		}
		for _, k := range host.kids {
			if k.keyword() != "connect_port" {
				c.rest(atCheck, k)
			}
		}
	}
	return port
}

// usable says whether keepalived keeps a check at all.
func (c *converter) usable(k *node) bool {
	switch k.keyword() {
	case "HTTP_GET", "SSL_GET":
		for _, u := range k.each("url") {
			if p := u.find("path"); p != nil && p.arg(1) != "" {
				return true
			}
		}
		k.all(NotNeeded, "it has no url with a path, and keepalived leaves it out")
		return false
	case "MISC_CHECK":
		if k.find("misc_path") == nil {
			k.all(NotNeeded, "it has no misc_path, and keepalived leaves it out")
			return false
		}
	}
	return true
}

// times writes how often is checked and when a real server is down. The check's own words come first, then the real server's, then the
// virtual server's, then the defaults of the kind.
func (c *converter) times(v *value, s *service, r, check *node) {
	http := check.keyword() == "HTTP_GET" || check.keyword() == "SSL_GET"
	find := func(keywords ...string) *node {
		for _, block := range []*node{check, r, s.node} {
			if block != check {
				keywords = keywords[:1]
			}
			if k := block.find(keywords...); k != nil {
				c.heeded[k] = true
				return k
			}
		}
		return nil
	}
	interval, timeout, delay, retries := 60*time.Second, 5*time.Second, time.Second, 1
	if http {
		delay = 3 * time.Second
	}
	switch check.keyword() {
	case "DNS_CHECK":
		retries = 3
	case "MISC_CHECK":
		retries = 0
	}
	set := func(key string, k *node, d time.Duration, low float64) time.Duration {
		if k != nil {
			if own, ok := seconds(k, 1, low, 86400); ok {
				d = own
			}
		}
		v.set(key, duration(d, k))
		return d
	}
	interval = set("interval", find("delay_loop"), interval, 0.01)
	set("timeout", find("connect_timeout"), timeout, 0.01)
	names := []string{"retry"}
	if http {
		names = append(names, "nb_get_retry")
	}
	k := find(names...)
	if k != nil {
		if n, ok := number(k, 1, 0, 1000); ok {
			retries = n
		}
	}
	v.set("retries", word(retries, k))
	if check.keyword() == "DNS_CHECK" {
		delay = min(interval, time.Hour)
	}
	set("retry_delay", find("delay_before_retry"), delay, 0)
}

// expression is a character that makes a regular expression more than a text.
var expression = regexp.MustCompile(`[\\^$.|?*+()\[\]{}]`)

// url converts the first url that keepalived keeps.
func (c *converter) url(v *value, s *service, r, check *node) {
	var best *node
	for _, u := range check.each("url") {
		u.done()
		switch path := u.find("path"); {
		case path == nil || path.arg(1) == "":
			u.all(NotNeeded, "it has no path, and keepalived leaves it out")
		case best != nil:
			u.all(Unsupported, "a check has one path, which is that of line %d", best.find("path").at.number)
		default:
			best = u
		}
	}
	c.superseded(best)
	host := (*node)(nil)
	for _, block := range []*node{best, check, r, s.node} {
		if k := block.find("virtualhost"); k != nil {
			c.heeded[k] = true
			if host == nil {
				host = k
			} else if !k.at.used {
				k.note(NotNeeded, "line %d says another one for this check", host.at.number)
			}
		}
	}
	for _, k := range best.kids {
		switch k.keyword() {
		case "path":
			path := k.arg(1)
			if !strings.HasPrefix(path, "/") {
				k.note(Converted, "with the slash that is missing")
				path = "/" + path
			}
			extra(k, 1)
			v.set("path", text(path, k))
		case "status_code":
			list := sequenceOf(k)
			for _, w := range k.words[1:] {
				list.add(word(w))
			}
			if len(list.items) == 1 {
				list = word(list.items[0].scalar, k)
			}
			if !status.MatchString(k.value()) {
				k.note(Unsupported, "codes are numbers of 100 to 599 and ranges of them")
				continue
			}
			v.set("status", list)
		case "virtualhost":
		case "regex":
			expr := k.arg(1)
			if list := escaped(strings.TrimPrefix(k.raw, "regex")); len(list) > 0 {
				expr = list[0]
			}
			if expr == "" || expression.MatchString(expr) || best.find("regex_no_match") != nil || best.find("regex_options") != nil {
				k.note(Unsupported, "body: is a text, no expression; write a part of the answer that is always the same")
				continue
			}
			v.set("body", text(expr, k))
		default:
			c.rest(atURL, k)
		}
	}
	if host != nil && host.arg(1) != "" {
		v.set("host", text(host.arg(1), host))
		extra(host, 1)
	} else if host != nil {
		valued(host)
	}
}

var status = regexp.MustCompile(`^[1-5][0-9][0-9](-[1-5][0-9][0-9])?( [1-5][0-9][0-9](-[1-5][0-9][0-9])?)*$`)
