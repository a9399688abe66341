package keepalived

import (
	"io/fs"
	"maps"
	"math"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// converter makes the output of the tree.
type converter struct {
	root    fs.FS
	tree    *node
	out     *value
	global  *node // all blocks of global_defs as one
	user    string
	whyRoot string // why commands run as root if nothing else is written

	names     map[string]map[string]string // of instances and so on: keepalived's name to ours
	instances map[string]*instance
	scripts   map[string]*node
	files     map[string]*node
	processes map[string]*node
	groups    map[string]*node // virtual_server_group
	inUse     map[*node]bool   // of what is declared by a name
	heeded    map[*node]bool   // words for checks that a check was made with
	alerting  []*node          // smtp_alert
	alerts    []string         // names of what mails are sent for
	noAlerts  bool             // and something is there for which none are
	direct    bool             // a service by direct return was met
}

func newConverter(root fs.FS, tree *node) *converter {
	return &converter{root: root, tree: tree, out: mapping(), names: map[string]map[string]string{}, instances: map[string]*instance{},
		scripts: map[string]*node{}, files: map[string]*node{}, processes: map[string]*node{}, groups: map[string]*node{}, inUse: map[*node]bool{}, heeded: map[*node]bool{}}
}

// convert looks at every statement of the file.
func (c *converter) convert() {
	c.global = &node{words: []string{atGlobal}, block: true}
	for _, n := range c.tree.kids {
		if n.keyword() == "global_defs" {
			n.done()
			c.global.kids = append(c.global.kids, n.kids...)
		}
	}
	c.globals()
	for _, n := range c.tree.kids {
		switch n.keyword() {
		case "vrrp_script":
			c.declare(c.scripts, n)
		case "track_file", "vrrp_track_file":
			c.declare(c.files, n)
		case "vrrp_track_process":
			c.declare(c.processes, n)
		case "virtual_server_group":
			c.declare(c.groups, n)
		}
	}
	vrrp := mapping()
	c.vrrp(vrrp)
	c.out.set("vrrp", vrrp)
	services := sequenceOf()
	for _, n := range c.tree.kids {
		switch n.keyword() {
		case "virtual_server":
			c.virtualServer(services, n)
		case "global_defs", "vrrp_instance", "vrrp_sync_group":
		default:
			if !slices.Contains(declaring(), n.keyword()) {
				c.rest(atRoot, n)
			}
		}
	}
	c.out.set("services", services)
	c.mail()
	c.untouched()
}

func declaring() []string {
	return []string{"vrrp_script", "track_file", "vrrp_track_file", "vrrp_track_process", "virtual_server_group"}
}

// declare keeps a block by its name; the first one of a name counts.
func (c *converter) declare(known map[string]*node, n *node) {
	switch {
	case len(n.words) < 2:
		n.all(Unsupported, "it has no name")
	case known[n.arg(1)] != nil:
		n.all(Unsupported, "there is a %s of this name already, at line %d, which keepalived uses", n.keyword(), known[n.arg(1)].at.number)
	default:
		known[n.arg(1)] = n
	}
}

// untouched tells of what was declared and is used by nothing.
func (c *converter) untouched() {
	for _, n := range c.global.kids {
		if !n.at.used && n.at.notes == nil && slices.Contains(converted(atGlobal), n.keyword()) {
			n.note(NotNeeded, "nothing in the output has a use for it")
		}
	}
	for _, known := range []map[string]*node{c.scripts, c.files, c.processes, c.groups} {
		for _, n := range known {
			if !c.inUse[n] {
				n.all(NotNeeded, "nothing uses it")
			}
		}
	}
}

// rest says of a statement what the rules of its place say, or that nobody knows it.
func (c *converter) rest(place string, n *node) {
	if n.keyword() == "{" {
		n.all(Unsupported, "it stands in braces that belong to nothing")
		return
	}
	if r, ok := rules(place)[n.keyword()]; ok {
		n.all(r.outcome, "%s", r.reason)
		return
	}
	where, near := "", ""
	for _, other := range []string{atRoot, atGlobal, atInstance, atGroup, atScript, atServer, atReal, atCheck, atURL} {
		if _, ok := rules(other)[n.keyword()]; (ok || slices.Contains(converted(other), n.keyword())) && other != place {
			where = "; it belongs into " + other
			break
		}
	}
	if where == "" {
		near = likely(n.keyword(), place)
	}
	n.note(Unsupported, "keepalived 2.2.7 doesn't know it in %s%s%s", place, where, near)
	if n.block {
		n.note(Unsupported, "keepalived reads what is in its braces as if it stood outside, and takes their end for the end of what is around them; here it is left out as a whole")
	}
}

// likely is the keyword of the place that was perhaps meant: one that is at most two letters away.
func likely(typed, place string) string {
	best, distance := "", 3
	all := slices.Sorted(maps.Keys(rules(place)))
	for _, k := range append(converted(place), all...) {
		if d := apart(strings.ToLower(typed), strings.ToLower(k)); d < distance && d < len(k)/2 {
			best, distance = k, d
		}
	}
	if best == "" {
		return ""
	}
	return "; did you mean " + best + "?"
}

// apart counts the letters to add, take away or change from a to b.
func apart(a, b string) int {
	if len(a) > 40 || len(b) > 40 {
		return 40
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		before := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := before
			if a[i] != b[j] {
				cost++
			}
			before = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// converted lists the keywords of a place that code converts.
func converted(place string) []string {
	switch place {
	case atRoot:
		return append(declaring(), "global_defs", "vrrp_instance", "vrrp_sync_group", "virtual_server", "include")
	case atGlobal:
		return strings.Fields(`router_id notification_email notification_email_from smtp_server lvs_timeouts vrrp_garp_master_delay
			vrrp_garp_master_repeat vrrp_garp_lower_prio_delay vrrp_garp_lower_prio_repeat vrrp_garp_master_refresh vrrp_garp_master_refresh_repeat
			vrrp_garp_interval vrrp_gna_interval vrrp_min_garp vrrp_down_timer_adverts vrrp_version vrrp_startup_delay vrrp_strict script_user`)
	case atInstance:
		return append(hookWords(), strings.Fields(`state interface priority virtual_router_id version advert_int nopreempt preempt_delay authentication
			virtual_ipaddress virtual_ipaddress_excluded virtual_routes track_interface track_script track_file track_process mcast_src_ip unicast_src_ip
			unicast_peer unicast_ttl garp_master_delay garp_master_repeat garp_master_refresh garp_master_refresh_repeat garp_lower_prio_delay
			garp_lower_prio_repeat down_timer_adverts use_vmac accept no_accept strict_mode smtp_alert v3_checksum_as_v2`)...)
	case atGroup:
		return append(hookWords(), "group", "track_interface", "track_script", "track_file", "track_process", "smtp_alert")
	case atScript:
		return strings.Fields("script interval timeout weight rise fall user file process quorum")
	case atServer:
		return strings.Fields(`lb_algo lvs_sched lb_kind lvs_method protocol persistence_timeout persistence_granularity quorum hysteresis quorum_up
			quorum_down sorry_server sorry_server_lvs_method delay_loop connect_timeout retry delay_before_retry virtualhost smtp_alert
			inhibit_on_failure snmp_name real_server`)
	case atReal:
		return append(checks(), strings.Fields(`weight lvs_method notify_up notify_down uthreshold inhibit_on_failure smtp_alert virtualhost
			delay_loop connect_timeout retry delay_before_retry`)...)
	case atCheck:
		return strings.Fields("connect_port connect_timeout retry nb_get_retry delay_before_retry delay_loop url virtualhost")
	case atURL:
		return strings.Fields("path status_code virtualhost regex")
	}
	return nil
}

var saneName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]{0,62}$`)

// name makes a name of this product of keepalived's, which may have any letters. Kinds have names of their own.
func (c *converter) name(kind, theirs string, n *node) string {
	have := c.names[kind]
	if have == nil {
		have = map[string]string{}
		c.names[kind] = have
	}
	if ours, ok := have[theirs]; ok {
		return ours
	}
	ours := strings.Map(func(r rune) rune {
		if r < 128 && saneName.MatchString("x"+string(r)) {
			return r
		}
		return '_'
	}, theirs)
	if !saneName.MatchString(ours) {
		ours = "x" + strings.TrimLeft(ours, "-.")
	}
	ours = ours[:min(len(ours), 58)]
	base := ours
	for i := 2; slices.ContainsFunc(values(have), func(s string) bool { return s == ours }); i++ {
		ours = base + "-" + strconv.Itoa(i)
	}
	if ours != theirs && n != nil {
		n.note(Converted, "it is called %s here: names have letters, digits, dots, hyphens and underscores, at most 63", ours)
	}
	have[theirs] = ours
	return ours
}

func values(m map[string]string) []string {
	var list []string
	for _, v := range m {
		list = append(list, v)
	}
	return list
}

// valued says whether a statement has a value, and notes if not.
func valued(n *node) bool {
	if n.arg(1) == "" {
		n.note(Unsupported, "it has no value")
	}
	return n.arg(1) != ""
}

// number reads a whole number of a range, as keepalived does. A wrong one is noted, and has no effect.
func number(n *node, i int, low, high int) (int, bool) {
	v, err := strconv.ParseInt(n.arg(i), 10, 64)
	if err == nil && int64(low) <= v && v <= int64(high) {
		return int(v), true
	}
	what := quote(n.arg(i))
	if n.arg(i) == "" {
		what = "nothing"
	}
	n.note(Unsupported, "%s is no whole number of %d to %d, so that it has no effect in keepalived either", what, low, high)
	return 0, false
}

// seconds reads a time in seconds, fractions included, as a duration of whole microseconds.
func seconds(n *node, i int, low, high float64) (time.Duration, bool) {
	v, err := strconv.ParseFloat(n.arg(i), 64)
	if err == nil && !math.IsNaN(v) && low <= v && v <= high {
		return time.Duration(math.Round(v*1e6)) * time.Microsecond, true
	}
	what := quote(n.arg(i))
	if n.arg(i) == "" {
		what = "nothing"
	}
	n.note(Unsupported, "%s is no number of seconds of %g to %g, so that it has no effect in keepalived either", what, low, high)
	return 0, false
}

// boolean reads a switch: no word means on.
func boolean(n *node, i int) (on, ok bool) {
	switch n.arg(i) {
	case "", "on", "yes", "true":
		return true, true
	case "off", "no", "false":
		return false, true
	}
	n.note(Unsupported, "%s is none of on, off, true, false, yes, no, so that it has no effect in keepalived either", quote(n.arg(i)))
	return false, false
}

// extra notes words behind those that keepalived looks at.
func extra(n *node, most int) {
	if len(n.words) > most+1 {
		n.note(Converted, "keepalived doesn't look at what stands behind %s on this line", quote(n.arg(most)))
	}
}

// address reads an IP address as keepalived does: no names, no leading zeros.
func address(s string) (netip.Addr, bool) {
	a, err := netip.ParseAddr(s)
	return a, err == nil && a.Zone() == ""
}

// atoi is strconv.Atoi, with a plus sign or not, for numbers that an int32 holds.
func atoi(s string) (int, bool) {
	v, err := strconv.ParseInt(s, 10, 32)
	return int(v), err == nil
}
