package director

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/xdirector/xdirector/pkg/config"
)

func TestSecretsOfNotificationsAreNotShownInAPlan(t *testing.T) {
	parse := func(url string) *config.Config {
		c, err := config.Parse("f", fmt.Appendf(nil, `vrrp: {instances: [{name: a, interface: eth0, virtual_router_id: 1, virtual_addresses: [10.0.0.1]}]}
notify: {webhooks: [{name: chat, url: %q}]}`, url))
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	changes := compare(parse("https://example.org/s3cret"), parse("https://example.org/hidden"), here{})
	if text := fmt.Sprint(changes); len(changes) != 1 || !strings.Contains(text, "chat") || strings.Contains(text, "s3cret") || strings.Contains(text, "hidden") {
		t.Errorf("changes %s", text)
	}
}

func TestTargetsAreHooksInTheOrderOfKeepalivedAndThenWhoHearsAll(t *testing.T) {
	cfg, err := config.Load("../../configs/config.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, n := range Notifications(cfg) {
		f := n.Filter
		line := fmt.Sprintf("%s (%s): %s %s %s", n.Name, n.Label, strings.Join(f.Kinds, ","), strings.Join(f.Only, ","), strings.Join(f.States, ","))
		switch {
		case n.Exec != nil:
			line += fmt.Sprintf(": %s as %s, arguments %v", strings.Join(n.Exec.Line, " "), n.Exec.User, n.Exec.Arguments)
		case n.Webhook != nil:
			line += fmt.Sprintf(": %s by %s", n.Webhook.URL, n.Webhook.Proxy)
		case n.Mail != nil:
			line += fmt.Sprintf(": %s:%d", n.Mail.Host, n.Mail.Port)
		}
		got = append(got, line)
	}
	want := []string{
		"instance VI_1 master (instance): instance VI_1 MASTER: /etc/xdirector/hook master as nobody, arguments false",
		"instance VI_1 backup (instance): instance VI_1 BACKUP: /etc/xdirector/hook backup as nobody, arguments false",
		"instance VI_1 fault (instance): instance VI_1 FAULT: /etc/xdirector/hook fault as nobody, arguments false",
		"instance VI_1 stop (instance): instance VI_1 INIT: /etc/xdirector/hook stop as nobody, arguments false",
		"instance VI_1 lower_priority (instance): mismatch VI_1 split_brain: /etc/xdirector/hook again as nobody, arguments false",
		"instance VI_1 any (instance): instance VI_1 : /etc/xdirector/notify as nobody, arguments true",
		"sync_group VG_1 master (sync_group): sync_group VG_1 MASTER: /etc/xdirector/hook group as nobody, arguments false",
		"sync_group VG_1 any (sync_group): sync_group VG_1 : /etc/xdirector/notify as nobody, arguments true",
		"service web up (service): service web up: /etc/xdirector/hook up as nobody, arguments false",
		"service web down (service): service web down: /etc/xdirector/hook down as nobody, arguments false",
		"service web any (service): service web : /etc/xdirector/notify as nobody, arguments true",
		"real_server web/192.168.5.103 up (real_server): real_server web/192.168.5.103 up: /etc/xdirector/hook up 192.168.5.103 as nobody, arguments false",
		"real_server web/192.168.5.103 down (real_server): real_server web/192.168.5.103 down: /etc/xdirector/hook down 192.168.5.103 as nobody, arguments false",
		"log (log): instance,sync_group VI_1,VG_1,web,dns/192.168.5.103 : /etc/xdirector/notify all as nobody, arguments true",
		"chat (chat): instance VI_1 : https://hooks.example.org/xdirector by http://proxy.example.org:3128",
		"oncall (oncall): instance,real_server,service VI_1,web : mail.example.org:25",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("want -, got +:\n%s", diff)
	}
}
