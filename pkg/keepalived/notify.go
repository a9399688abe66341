package keepalived

import (
	"net"
	"net/mail"
	"slices"
	"strconv"
	"strings"
)

// hookKeys are the commands of an instance, and our keys for them.
func hookKeys() map[string]string {
	return map[string]string{"notify_master": "master", "notify_backup": "backup", "notify_fault": "fault", "notify_stop": "stop",
		"notify_master_rx_lower_pri": "lower_priority", "notify": "any"}
}

func groupHooks() map[string]string {
	keys := hookKeys()
	delete(keys, "notify_master_rx_lower_pri")
	return keys
}

func hookWords() []string {
	return []string{"notify_master", "notify_backup", "notify_fault", "notify_stop", "notify_master_rx_lower_pri", "notify"}
}

// hooks converts the commands of a block; nil: it has none.
func (c *converter) hooks(block *node, keys map[string]string) *value {
	m := mapping()
	chosen := ""
	var from *node
	for _, k := range block.kids {
		key := keys[k.keyword()]
		if key == "" {
			continue
		}
		first := escaped(strings.TrimPrefix(k.raw, k.keyword()))
		if len(first) == 0 {
			k.note(Unsupported, "there is no command")
			continue
		}
		user := c.user
		if len(first) > 1 {
			user = first[1]
			if !plausibleUser(user) || len(first) > 3 {
				k.note(Converted, "keepalived takes %s for the user that runs it, and doesn't run it if there is none: arguments count within quotes only", quote(user))
				user = c.user
			} else if len(first) > 2 {
				k.note(Converted, "the group is that of the user")
			}
		}
		if chosen == "" {
			chosen, from = user, k
		} else if chosen != user {
			k.note(Unsupported, "it runs as %s, since all commands of one notify have one user, that of line %d", chosen, from.at.number)
		}
		m.set(key, c.command(first[0], user, k))
	}
	if len(m.items) == 0 {
		return nil
	}
	m.set("user", text(chosen, from))
	return m
}

// plausibleUser says whether a word may be the name of a user, rather than an argument.
func plausibleUser(s string) bool {
	return s != "" && !strings.ContainsAny(s, "/-.=:") && len(s) <= 32 && s == strings.ToLower(s)
}

// alert notes for whom mail is sent: for those with smtp_alert, of their own or by default.
func (c *converter) alert(n *node, name, global string, usual bool) {
	on := usual
	for _, keyword := range []string{"smtp_alert", global} {
		if k := c.global.find(keyword); k != nil {
			on, _ = boolean(k, 1)
		}
	}
	if k := n.find("smtp_alert"); k != nil {
		c.alerting = append(c.alerting, k)
		if v, ok := boolean(k, 1); ok {
			on = v
		}
	}
	switch {
	case !on:
		c.noAlerts = true
	case !slices.Contains(c.alerts, name):
		c.alerts = append(c.alerts, name)
	}
}

// mail converts notification_email and what belongs to it.
func (c *converter) mail() {
	to, from, server := c.global.each("notification_email"), c.global.find("notification_email_from"), c.global.find("smtp_server")
	var all []*node
	list := sequenceOf()
	for _, block := range to {
		all = append(all, block)
		for _, k := range block.kids {
			all = append(all, k)
			for _, w := range k.words {
				if a, err := mail.ParseAddress(w); err == nil && a.Address == w {
					list.add(text(w, k))
				} else {
					k.note(Unsupported, "%s is no mail address", quote(w))
				}
			}
		}
	}
	if from != nil {
		all = append(all, from)
	}
	if server != nil {
		all = append(all, server)
	}
	why := ""
	switch {
	case len(all) == 0:
		why = "there is no notification_email to send to"
	case len(list.items) == 0:
		why = "there is no notification_email to send to"
	case server == nil || server.arg(1) == "":
		why = "there is no smtp_server to send by"
	case len(c.alerts) == 0:
		why = "nothing has smtp_alert, so that keepalived never sends a mail"
	}
	if why != "" {
		for _, n := range append(all, c.alerting...) {
			n.note(NotNeeded, "%s", why)
		}
		return
	}
	for _, n := range c.alerting {
		n.done()
	}
	m := mapping(server)
	m.set("name", text("mail"))
	host, port := server.arg(1), server.arg(2)
	if h, p, err := net.SplitHostPort(host); err == nil {
		host, port = h, p
	}
	m.set("host", text(host, server))
	if v, err := strconv.Atoi(port); err == nil && v != 25 {
		m.set("port", word(v, server))
	}
	m.set("tls", word("none", server))
	server.note(Converted, "tls: none, as keepalived speaks; starttls is the better default where the server has it")
	sender := "keepalived@localhost"
	if from != nil && from.arg(1) != "" {
		sender = from.arg(1)
	} else {
		server.note(Converted, "there is no notification_email_from; keepalived@localhost is written")
	}
	if a, err := mail.ParseAddress(sender); err == nil {
		sender = a.Address
	}
	m.set("from", text(sender, from))
	m.set("to", list)
	for _, block := range to {
		block.done()
	}
	m.set("kinds", strs([]string{"instance", "sync_group", "real_server", "service"}))
	if c.noAlerts {
		m.set("only", strs(c.alerts))
	}
	boxes := sequenceOf()
	boxes.add(m)
	notify := mapping()
	notify.set("mail", boxes)
	c.out.set("notify", notify)
}
