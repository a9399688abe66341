package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/xdirector/xdirector/pkg/notify"
)

func TestNotificationsAreTestedOneByOne(t *testing.T) {
	var got notify.Message
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { _ = json.NewDecoder(r.Body).Decode(&got) }))
	defer server.Close()
	write := func(text string) string {
		file := filepath.Join(t.TempDir(), "config.yaml")
		base := "router_id: lb7\nvrrp: {instances: [{name: VI_1, interface: eth0, virtual_router_id: 1, virtual_addresses: [10.0.0.1], notify: {master: /nonexistent/master}}]}\n"
		if err := os.WriteFile(file, []byte(base+text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	file := write(fmt.Sprintf("notify: {webhooks: [{name: chat, url: %q}, {name: gone, url: \"http://127.0.0.1:1/\"}]}\n", server.URL))
	run := func(file string, names ...string) (string, error) {
		var out bytes.Buffer
		err := testNotify(t.Context(), file, names, true, &out, &out)
		return out.String(), err
	}
	out, err := run(file)
	if err == nil || err.Error() != "1 of 2 targets could not be told" {
		t.Errorf("error %v", err)
	}
	var outcomes []notify.Outcome
	if err := json.Unmarshal([]byte(out), &outcomes); err != nil || len(outcomes) != 2 {
		t.Fatalf("%s: %v", out, err)
	}
	if o := outcomes[0]; !o.OK || o.Target != "chat" || o.Text != "HTTP 200 OK" {
		t.Errorf("outcome %+v", o)
	}
	if o := outcomes[1]; o.OK || o.Target != "gone" || !strings.Contains(o.Text, "connection refused") {
		t.Errorf("outcome %+v", o)
	}
	if !got.Test || got.RouterID != "lb7" || got.State != notify.TestState {
		t.Errorf("the webhook got %+v", got)
	}
	if _, err := run(file, "chat"); err != nil {
		t.Errorf("one that works, alone: %v", err)
	}
	if out, err := run(file, "instance VI_1 master"); err == nil || !strings.Contains(out, "/nonexistent/master") {
		t.Errorf("a hook that is named: %v\n%s", err, out)
	}
	for name, c := range map[string]struct{ file, target, want string }{
		"mistyped":   {file, "caht", `there is no target "caht" (did you mean "chat"?); there are instance VI_1 master, chat, gone`},
		"hooks only": {write(""), "", `name one to run it: instance VI_1 master`},
	} {
		var names []string
		if c.target != "" {
			names = []string{c.target}
		}
		if _, err := run(c.file, names...); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
