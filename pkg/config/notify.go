package config

import (
	"fmt"
	"net"
	"net/mail"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/xdirector/xdirector/pkg/status"
)

// Notify is who is told what happens: {exec, webhooks, mail}.
type Notify struct {
	Exec     []NotifyExec
	Webhooks []NotifyWebhook
	Mail     []NotifyMail
}

// NotifyFilter says what one is told of.
type NotifyFilter struct {
	Kinds []string // kinds: of status.Kinds, not those of passing events
	Level string   // level (info): one of the status.Level constants, and above
	Only  []string // only: names of instances, sync groups, services and SERVICE/REAL_SERVER; empty: all
}

// NotifyExec is a command that is run for every event: {name, command, user, timeout, retries, kinds, level, only}.
type NotifyExec struct {
	Name    string // unique in Notify
	Command []string
	User    string        // user (nobody)
	Timeout time.Duration // timeout (30s)
	Retries int           // retries 0-20 (0)
	NotifyFilter
}

// NotifyWebhook is told by HTTP: {name, url, token_file, proxy, timeout, retries, kinds, level, only}.
type NotifyWebhook struct {
	Name      string // unique in Notify
	URL       string
	TokenFile string        // absolute; empty: no token
	Proxy     string        // a URL; empty: none
	Timeout   time.Duration // timeout (10s)
	Retries   int           // retries 0-20 (5)
	NotifyFilter
}

// NotifyMail is told by mail: {name, host, port, tls, auth, from, to, interval, timeout, retries, kinds, level,
// only}.
type NotifyMail struct {
	Name         string // unique in Notify
	Host         string
	Port         uint16 // port: 587 with starttls, 465 with tls, 25 with none
	TLS          string // tls: starttls, tls, none
	Username     string // auth.username; empty: no authentication
	PasswordFile string // auth.password_file; absolute
	From         string
	To           []string
	Interval     time.Duration // interval (30s) between two mails
	Timeout      time.Duration // timeout (30s) of one attempt
	Retries      int           // retries 0-20 (5)
	NotifyFilter
}

// Hooks are the commands of one instance, sync group, service or real server: `notify`. Each is an absolute path and its
// arguments; nil: none.
type Hooks struct {
	Any                                        []string // any: keepalived's notify, with its arguments
	Master, Backup, Fault, Stop, LowerPriority []string // of instances; all but lower_priority of sync groups
	Up, Down                                   []string // of services (the quorum) and real servers
	User                                       string   // user (nobody)
	Timeout                                    time.Duration
}

// notifyCommands is where the first notification is that runs a command; empty: nowhere.
func (c *Config) notifyCommands() string {
	if len(c.Notify.Exec) > 0 {
		return "notify.exec"
	}
	if n := slices.IndexFunc(c.Instances, func(i Instance) bool { return i.Notify != nil }); n >= 0 {
		return fmt.Sprintf("vrrp.instances[%d].notify", n)
	}
	if n := slices.IndexFunc(c.SyncGroups, func(g SyncGroup) bool { return g.Notify != nil }); n >= 0 {
		return fmt.Sprintf("vrrp.sync_groups[%d].notify", n)
	}
	for n, s := range c.Services {
		if s.Notify != nil {
			return fmt.Sprintf("services[%d].notify", n)
		}
		if k := slices.IndexFunc(s.RealServers, func(r RealServer) bool { return r.Notify != nil }); k >= 0 {
			return fmt.Sprintf("services[%d].real_servers[%d].notify", n, k)
		}
	}
	return ""
}

// notifiable are the kinds of events that can be chosen, and those that are if none are chosen: without what follows from
// others and what operators do themselves.
func notifiable() (all, usual []string) {
	for _, kind := range status.Kinds {
		if (status.Event{Kind: kind}).IsPassing() {
			continue
		}
		all = append(all, kind)
		if kind != status.KindSyncGroup && kind != status.KindOverride {
			usual = append(usual, kind)
		}
	}
	return all, usual
}

func (d *decoder) notify(v value, n *Notify) {
	d.object(v,
		optional("exec", func(v value) {
			d.list(v, "commands", func(v value) { n.Exec = append(n.Exec, d.notifyExec(v)) })
		}),
		optional("webhooks", func(v value) {
			d.list(v, "webhooks", func(v value) { n.Webhooks = append(n.Webhooks, d.webhook(v)) })
		}),
		optional("mail", func(v value) {
			d.list(v, "mailboxes", func(v value) { n.Mail = append(n.Mail, d.mailbox(v)) })
		}),
	)
}

// notifyFields are the keys that every target of notify has.
func (d *decoder) notifyFields(name *string, timeout *time.Duration, retries *int, f *NotifyFilter, more ...field) []field {
	all, usual := notifiable()
	f.Kinds, f.Level = usual, status.LevelInfo
	return append([]field{
		required("name", into(name, d.name), "a name of its own, like oncall"),
		optional("timeout", into(timeout, d.duration(notifyTime))),
		optional("retries", into(retries, integer(d, 0, 20))),
		optional("kinds", func(v value) {
			f.Kinds = nil
			d.list(v, "kinds of events: "+strings.Join(all, ", "), func(v value) {
				kind, ok := d.choice(all)(v)
				if ok && !slices.Contains(f.Kinds, kind) {
					f.Kinds = append(f.Kinds, kind)
				}
			})
		}),
		optional("level", into(&f.Level, d.choice([]string{status.LevelInfo, status.LevelWarning, status.LevelError}))),
		optional("only", func(v value) {
			d.list(v, "names of instances, sync groups, services and SERVICE/REAL_SERVER", func(v value) {
				name, _ := d.text(v, "the name of an instance, a sync group or a service, or SERVICE/REAL_SERVER")
				f.Only = append(f.Only, name)
			})
		}),
	}, more...)
}

func (d *decoder) notifyExec(v value) NotifyExec {
	x := NotifyExec{User: "nobody", Timeout: 30 * time.Second}
	d.object(v, d.notifyFields(&x.Name, &x.Timeout, &x.Retries, &x.NotifyFilter,
		required("command", into(&x.Command, d.command), "an absolute path and its arguments, like [/etc/xdirector/notify.sh, pager]"),
		optional("user", into(&x.User, d.user)),
	)...)
	return x
}

func (d *decoder) webhook(v value) NotifyWebhook {
	w := NotifyWebhook{Timeout: 10 * time.Second, Retries: 5}
	d.object(v, d.notifyFields(&w.Name, &w.Timeout, &w.Retries, &w.NotifyFilter,
		required("url", into(&w.URL, d.webURL("https://hooks.example.org/xdirector")), "where to POST, like https://hooks.example.org/xdirector"),
		optional("token_file", into(&w.TokenFile, d.path(maxPath))),
		optional("proxy", into(&w.Proxy, d.webURL("http://proxy.example.org:3128"))),
	)...)
	if w.TokenFile != "" && strings.HasPrefix(w.URL, "http:") {
		d.warnAt(v.path+".token_file", "the token is sent without encryption; write an https url")
	}
	return w
}

func (d *decoder) mailbox(v value) NotifyMail {
	m := NotifyMail{TLS: "starttls", Interval: 30 * time.Second, Timeout: 30 * time.Second, Retries: 5}
	d.object(v, d.notifyFields(&m.Name, &m.Timeout, &m.Retries, &m.NotifyFilter,
		required("host", into(&m.Host, d.mailHost), "the mail server, like mail.example.org"),
		optional("port", into(&m.Port, integer[uint16](d, 1, 65535))),
		optional("tls", into(&m.TLS, d.choice([]string{"starttls", "tls", "none"}))),
		optional("auth", func(v value) {
			d.object(v,
				required("username", func(v value) { m.Username, _ = d.text(v, "the name to log in with") }, "the name to log in with"),
				required("password_file", into(&m.PasswordFile, d.path(maxPath)), "the file that holds the password"),
			)
		}),
		required("from", into(&m.From, d.mailAddress), "the sender, like xdirector@example.org"),
		required("to", func(v value) {
			d.list(v, "mail addresses", func(v value) {
				address, _ := d.mailAddress(v)
				m.To = append(m.To, address)
			})
		}, "at least one mail address, like [oncall@example.org]"),
		optional("interval", into(&m.Interval, d.duration(mailInterval))),
	)...)
	if m.Port == 0 {
		m.Port = map[string]uint16{"starttls": 587, "tls": 465, "none": 25}[m.TLS]
	}
	if at := v.path + ".auth"; d.written(at) && m.TLS == "none" {
		d.wrongAt(at, "a password is never sent without encryption; write tls: starttls or tls: tls, or leave auth out")
	}
	if len(m.To) == 0 && d.written(v.path+".to") && !d.reported(v.path+".to") {
		d.wrongAt(v.path+".to", "the list is empty; write at least one mail address")
	}
	return m
}

// webURL makes a reader of http and https URLs, with an example.
func (d *decoder) webURL(example string) func(value) (string, bool) {
	allowed := "a URL like " + example
	return func(v value) (string, bool) {
		s, ok := d.text(v, allowed)
		if !ok {
			return "", false
		}
		u, err := url.Parse(s)
		port := 1
		if err == nil && u.Port() != "" {
			port, err = net.LookupPort("tcp", u.Port())
		}
		switch {
		case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || port == 0 || len(s) > maxPath:
			d.wrong(v, "it is no URL of http or https; allowed: %s", allowed) // it may hold a secret
		case u.User != nil:
			d.wrong(v, "it has a user or a password in it, and URLs end in logs; leave them out; allowed: %s", allowed)
		default:
			return s, true
		}
		return "", false
	}
}

// mailHost reads the name or the address of a mail server.
func (d *decoder) mailHost(v value) (string, bool) {
	const allowed = "the name or the address of a mail server, without a port"
	s, ok := d.text(v, allowed)
	if _, err := netip.ParseAddr(s); ok && err != nil && (!hostName.MatchString(s) || looksLikeAddress.MatchString(s)) {
		d.wrong(v, "%s is not a host; allowed: %s", quote(s), allowed)
		return "", false
	}
	return s, ok
}

// mailAddress reads one mail address without a name.
func (d *decoder) mailAddress(v value) (string, bool) {
	const allowed = "a mail address like oncall@example.org"
	s, ok := d.text(v, allowed)
	if !ok {
		return "", false
	}
	a, err := mail.ParseAddress(s)
	if err != nil || a.Address != s || len(s) > 254 || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }) {
		d.wrong(v, "%s is not a mail address; allowed: %s", quote(s), allowed)
		return "", false
	}
	return s, true
}

// hooks reads the commands of one object, for the given keys.
func (d *decoder) hooks(target **Hooks, words ...string) field {
	return optional("notify", func(v value) {
		h := &Hooks{User: "nobody", Timeout: 30 * time.Second}
		*target = h
		all := map[string]*[]string{"any": &h.Any, "master": &h.Master, "backup": &h.Backup, "fault": &h.Fault, "stop": &h.Stop,
			"lower_priority": &h.LowerPriority, "up": &h.Up, "down": &h.Down}
		var fields []field
		for _, word := range words {
			fields = append(fields, optional(word, into(all[word], d.command)))
		}
		d.object(v, append(fields, optional("user", into(&h.User, d.user)), optional("timeout", into(&h.Timeout, d.duration(notifyTime))))...)
		if v.node.Content != nil && !slices.ContainsFunc(words, func(word string) bool { return d.written(v.path + "." + word) }) {
			d.wrongAt(v.path, "no command; write one of %s", strings.Join(words, ", "))
		}
	})
}

// The keys of hooks, in the order in which commands are run.
var (
	instanceHooks = []string{"master", "backup", "fault", "stop", "lower_priority", "any"}
	groupHooks    = []string{"master", "backup", "fault", "stop", "any"}
	serverHooks   = []string{"up", "down", "any"}
)

// notifyNames checks that names of targets are unique, and that what they are limited to exists.
func (d *decoder) notifyNames(c *Config) {
	targets := map[string]string{}
	var known []string
	have := map[string]bool{}
	learn := func(name string) {
		known = append(known, name)
		have[name] = true
	}
	for _, i := range c.Instances {
		learn(i.Name)
	}
	for _, g := range c.SyncGroups {
		learn(g.Name)
	}
	for _, s := range c.Services {
		learn(s.Name)
		for _, r := range s.RealServers {
			have[s.Name+"/"+r.Address.String()] = true
		}
	}
	check := func(list string, n int, name string, f NotifyFilter) {
		path := fmt.Sprintf("notify.%s[%d]", list, n)
		if other, ok := taken(targets, name, path); ok {
			d.wrongAt(path+".name", "%s is the name of %s too; every target needs its own", quote(name), other)
		}
		for k, name := range f.Only {
			if name != "" && !have[name] {
				d.wrongAt(fmt.Sprintf("%s.only[%d]", path, k), "there is no %s%s", quote(name), d.among(name, known))
			}
		}
		for _, key := range []string{"only", "kinds"} {
			if at := path + "." + key; d.written(at) && !d.reported(at) && (key == "only" && len(f.Only) == 0 || key == "kinds" && len(f.Kinds) == 0 && !d.reported(at+"[0]")) {
				d.wrongAt(at, "the list is empty; leave it out for all")
			}
		}
	}
	for n, x := range c.Notify.Exec {
		check("exec", n, x.Name, x.NotifyFilter)
	}
	for n, w := range c.Notify.Webhooks {
		check("webhooks", n, w.Name, w.NotifyFilter)
	}
	for n, m := range c.Notify.Mail {
		check("mail", n, m.Name, m.NotifyFilter)
	}
}
