package config

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const notifyBase = `vrrp: {instances: [{name: VI_1, interface: eth0, virtual_router_id: 1, virtual_addresses: [10.0.0.1] INSTANCE}]}
services: [{name: web, address: 10.0.0.1, port: 80, scheduler: rr, real_servers: [{address: 10.0.0.3 SERVER}] SERVICE}]
`

func parseNotify(t *testing.T, where, text string) *Config {
	t.Helper()
	file := notifyBase
	for _, place := range []string{"INSTANCE", "SERVER", "SERVICE"} {
		with := ""
		if place == where {
			with = ", " + text
		}
		file = strings.Replace(file, " "+place, with, 1)
	}
	if where == "" {
		file += text
	}
	c, err := Parse("f", []byte(file))
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return c
}

func TestNotificationsHaveDefaults(t *testing.T) {
	c := parseNotify(t, "", `notify:
  exec: [{name: x, command: /bin/true}]
  webhooks: [{name: w, url: "https://example.org/"}]
  mail:
    - {name: m, host: mail.example.org, from: a@example.org, to: [b@example.org]}
    - {name: n, host: 10.0.0.25, tls: none, from: a@example.org, to: [b@example.org]}
    - {name: o, host: "2001:db8::25", tls: tls, from: a@example.org, to: [b@example.org]}
`)
	usual := NotifyFilter{Kinds: []string{"director", "instance", "mismatch", "real_server", "service", "plane", "reload", "election"}, Level: "info"}
	mail := NotifyMail{Name: "m", Host: "mail.example.org", Port: 587, TLS: "starttls", From: "a@example.org", To: []string{"b@example.org"},
		Interval: 30 * time.Second, Timeout: 30 * time.Second, Retries: 5, NotifyFilter: usual}
	plain, secure := mail, mail
	plain.Name, plain.Host, plain.Port, plain.TLS = "n", "10.0.0.25", 25, "none"
	secure.Name, secure.Host, secure.Port, secure.TLS = "o", "2001:db8::25", 465, "tls"
	want := Notify{
		Exec:     []NotifyExec{{Name: "x", Command: []string{"/bin/true"}, User: "nobody", Timeout: 30 * time.Second, NotifyFilter: usual}},
		Webhooks: []NotifyWebhook{{Name: "w", URL: "https://example.org/", Timeout: 10 * time.Second, Retries: 5, NotifyFilter: usual}},
		Mail:     []NotifyMail{mail, plain, secure},
	}
	if diff := cmp.Diff(want, c.Notify); diff != "" {
		t.Errorf("want -, got +:\n%s", diff)
	}
	i := parseNotify(t, "INSTANCE", "notify: {any: /bin/true}").Instances[0]
	if diff := cmp.Diff(&Hooks{Any: []string{"/bin/true"}, User: "nobody", Timeout: 30 * time.Second}, i.Notify); diff != "" {
		t.Errorf("want -, got +:\n%s", diff)
	}
}

func TestWhereverACommandStandsTheFileMustBeInGoodHands(t *testing.T) {
	for _, c := range []struct{ where, text, want string }{
		{"", "", ""},
		{"", `notify: {webhooks: [{name: w, url: "https://example.org/"}]}`, ""},
		{"", "notify: {exec: [{name: x, command: /bin/true}]}", "notify.exec"},
		{"INSTANCE", "notify: {stop: /bin/true}", "vrrp.instances[0].notify"},
		{"SERVICE", "notify: {up: /bin/true}", "services[0].notify"},
		{"SERVER", "notify: {down: /bin/true}", "services[0].real_servers[0].notify"},
	} {
		if got := parseNotify(t, c.where, c.text).commands(); got != c.want {
			t.Errorf("%s: commands at %q, want %q", c.text, got, c.want)
		}
	}
	whole, err := Load(reference)
	if err != nil {
		t.Fatal(err)
	}
	only := &Config{SyncGroups: whole.SyncGroups}
	if got := only.commands(); got != "vrrp.sync_groups[0].notify" {
		t.Errorf("of sync groups: %q", got)
	}
}
