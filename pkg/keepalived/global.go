package keepalived

import (
	"io/fs"
	"strings"
	"time"
)

// globalSeconds is a time that instances have by default, and where it is written; nil: nowhere.
func (c *converter) globalSeconds(keyword string, low, high float64) (time.Duration, *node) {
	if n := c.global.find(keyword); n != nil {
		if d, ok := seconds(n, 1, low, high); ok {
			n.done()
			return d, n
		}
	}
	return 0, nil
}

// globalNumber is the same for a number.
func (c *converter) globalNumber(keyword string, low, high int) (int, *node) {
	if n := c.global.find(keyword); n != nil {
		if v, ok := number(n, 1, low, high); ok {
			n.done()
			return v, n
		}
	}
	return 0, nil
}

// globals converts what is of the whole director, and notes the rest of global_defs.
func (c *converter) globals() {
	c.user, c.whyRoot = "root", "keepalived runs it as root, since there is neither script_user nor a user keepalived_script"
	if users, err := fs.ReadFile(c.root, "etc/passwd"); err == nil && strings.Contains("\n"+string(users), "\nkeepalived_script:") {
		c.user, c.whyRoot = "keepalived_script", ""
	}
	for _, n := range c.global.kids {
		switch k := n.keyword(); k {
		case "router_id":
			if !valued(n) {
				continue
			}
			extra(n, 1)
			c.out.set("router_id", text(c.name("director", n.arg(1), n), n))
		case "script_user":
			if !valued(n) {
				continue
			}
			n.done()
			c.user, c.whyRoot = n.arg(1), ""
			if n.arg(1) == "root" {
				c.whyRoot = "keepalived runs it as root"
			}
			if n.arg(2) != "" {
				n.note(Converted, "the group is that of the user")
			}
		case "notification_email", "notification_email_from", "smtp_server": // mail does them
		case "lvs_timeouts", "vrrp_strict": // the services and the instances do them
		case "vrrp_garp_master_delay", "vrrp_garp_master_repeat", "vrrp_garp_lower_prio_delay", "vrrp_garp_lower_prio_repeat",
			"vrrp_garp_master_refresh", "vrrp_garp_master_refresh_repeat", "vrrp_garp_interval", "vrrp_gna_interval", "vrrp_min_garp",
			"vrrp_down_timer_adverts", "vrrp_version", "vrrp_startup_delay": // each instance does them
		default:
			c.rest(atGlobal, n)
		}
	}
	c.superseded(c.global)
}

// instanceNodes are the vrrp_instance blocks.
func (n *node) instanceNodes() []*node { return n.each("vrrp_instance") }

// each lists the children of a keyword.
func (n *node) each(keyword string) []*node {
	var list []*node
	for _, k := range n.kids {
		if k.keyword() == keyword {
			list = append(list, k)
		}
	}
	return list
}

// many are the keywords that count as often as they are written.
func many() map[string]bool {
	list := append(checks(), "real_server", "url", "virtual_ipaddress", "virtual_ipaddress_excluded", "virtual_routes", "track_interface",
		"track_script", "track_file", "track_process", "unicast_peer", "notification_email", "group", "host", "lb_algo", "lvs_sched", "lb_kind",
		"lvs_method", "protocol")
	m := map[string]bool{}
	for _, k := range list {
		m[k] = true
	}
	return m
}

// canonical is the other name of a keyword that has two.
func canonical() map[string]string {
	return map[string]string{"mcast_src_ip": "unicast_src_ip"}
}

// superseded notes statements that a later one of the same keyword takes the effect of.
func (c *converter) superseded(block *node) {
	last, often := map[string]*node{}, many()
	for _, n := range block.kids {
		k := n.keyword()
		if often[k] || k == "{" {
			continue
		}
		if same := canonical()[k]; same != "" {
			k = same
		}
		if before := last[k]; before != nil && before.at != n.at {
			before.note(NotNeeded, "line %d says it again, and the last one counts", n.at.number)
		}
		last[k] = n
	}
}
