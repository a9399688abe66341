package director

import (
	"cmp"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/xdirector/xdirector/pkg/config"
	"github.com/xdirector/xdirector/pkg/notify"
	"github.com/xdirector/xdirector/pkg/status"
)

// lastNotifications is how long a director that has handed over goes on to tell so.
const lastNotifications = 5 * time.Second

func (d *Director) notifyFile() string { return filepath.Join(d.cfg.StateDir, "notified.json") }

// startNotifying begins to listen, with what an earlier run has told.
func (d *Director) startNotifying() {
	d.notifier = notify.New(notify.Options{Feed: &d.events, Picture: d.picture.Load, StateFile: d.notifyFile(), Log: d.log})
	d.notifier.Configure(Notifications(d.cfg))
}

// configureNotifying tells whom the configuration names from now on.
func (d *Director) configureNotifying() {
	if d.notifier != nil { // nil in tests of the loop's parts
		d.notifier.Configure(Notifications(d.cfg))
	}
}

// finishNotifying tells what the end was, when this box holds nothing any more.
func (d *Director) finishNotifying(stopping time.Time) {
	d.publish()
	d.notifier.Finish(max(0, min(lastNotifications, longestStop-time.Since(stopping))))
}

// notificationPictures are what became of notifications, by target.
func (d *Director) notificationPictures() []status.Notifications {
	var list []status.Notifications
	for name, c := range d.notifier.Counts() {
		list = append(list, status.Notifications{Target: name, Sent: c.Sent, Failed: c.Failed, Dropped: c.Dropped, Error: c.Error})
	}
	slices.SortFunc(list, func(a, b status.Notifications) int { return cmp.Compare(a.Target, b.Target) })
	return list
}

// Notifications are all that a configuration wants to be told what happens: first the commands of instances, sync groups,
// services and real servers, then those who are told of all.
func Notifications(cfg *config.Config) []notify.Target {
	var list []notify.Target
	for _, i := range cfg.Instances {
		list = append(list, hooks(i.Notify, status.KindInstance, i.Name)...)
	}
	for _, g := range cfg.SyncGroups {
		list = append(list, hooks(g.Notify, status.KindSyncGroup, g.Name)...)
	}
	for _, s := range cfg.Services {
		list = append(list, hooks(s.Notify, status.KindService, s.Name)...)
		for _, r := range s.RealServers {
			list = append(list, hooks(r.Notify, status.KindRealServer, s.Name+"/"+r.Address.String())...)
		}
	}
	for _, x := range cfg.Notify.Exec {
		list = append(list, notify.Target{Name: x.Name, Label: x.Name, Filter: filter(x.NotifyFilter), Timeout: x.Timeout, Retries: x.Retries,
			Exec: &notify.Exec{Line: x.Command, User: x.User, Arguments: true}})
	}
	for _, w := range cfg.Notify.Webhooks {
		var proxy *url.URL
		if w.Proxy != "" {
			proxy, _ = url.Parse(w.Proxy) // config has parsed it before
		}
		list = append(list, notify.Target{Name: w.Name, Label: w.Name, Filter: filter(w.NotifyFilter), Timeout: w.Timeout, Retries: w.Retries,
			Webhook: notify.NewWebhook(w.URL, w.TokenFile, proxy)})
	}
	for _, m := range cfg.Notify.Mail {
		list = append(list, notify.Target{Name: m.Name, Label: m.Name, Filter: filter(m.NotifyFilter), Timeout: m.Timeout, Retries: m.Retries,
			Mail: &notify.Mail{Host: m.Host, Port: m.Port, TLS: m.TLS, Username: m.Username, PasswordFile: m.PasswordFile, From: m.From, To: m.To, Interval: m.Interval}})
	}
	return list
}

func filter(f config.NotifyFilter) notify.Filter {
	return notify.Filter{Kinds: f.Kinds, Level: f.Level, Only: f.Only}
}

// hooks are the commands of one object. keepalived calls the one for any state last.
func hooks(h *config.Hooks, kind, name string) []notify.Target {
	if h == nil {
		return nil
	}
	var list []notify.Target
	for _, hook := range []struct {
		word    string
		command []string
		kind    string
		state   string
	}{
		{"master", h.Master, kind, "MASTER"},
		{"backup", h.Backup, kind, "BACKUP"},
		{"fault", h.Fault, kind, "FAULT"},
		{"stop", h.Stop, kind, "INIT"},
		{"lower_priority", h.LowerPriority, status.KindMismatch, "split_brain"},
		{"up", h.Up, kind, isUp},
		{"down", h.Down, kind, isDown},
		{"any", h.Any, kind, ""},
	} {
		if hook.command == nil {
			continue
		}
		t := notify.Target{Name: strings.Join([]string{kind, name, hook.word}, " "), Label: kind, Timeout: h.Timeout,
			Filter: notify.Filter{Kinds: []string{hook.kind}, Only: []string{name}},
			Exec:   &notify.Exec{Line: hook.command, User: h.User, Arguments: hook.word == "any"}}
		if hook.state != "" {
			t.Filter.States = []string{hook.state}
		}
		list = append(list, t)
	}
	return list
}
