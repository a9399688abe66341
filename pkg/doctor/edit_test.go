package doctor

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The file has every style in which people write items, and names that are the beginning of others.
const styles = `vrrp:
  instances:
    - {name: web, interface: eth0, virtual_router_id: 7}
    - name: VI_1
      virtual_addresses:
        - 10.0.0.1
        - address: 10.0.0.2
      virtual_router_id: 51 # ours
      track: {interfaces: [{name: eth1}]}
    - interface: eth0
      name: "VI_2"
services:
  - name: web-2
    deny: [10.9.0.0/16]
  - name: web
    address: 10.0.0.1
    real_servers:
      - address: 10.0.0.3
      - address: 10.0.0.4
    deny: [10.1.0.0/16]
  - {name: dns, address: 10.0.0.1, deny: [10.2.0.0/16]}
  - {name: ntp, address: 10.0.0.1}
metrics: {listen: ":1"}
`

func TestCuresChangeTheItemThatTheyNameAndNothingElse(t *testing.T) {
	for _, c := range []struct {
		name     string
		command  func(*box) string
		old, new string
	}{
		{"value in braces", func(b *box) string { return b.setKey(instancesList, "web", "virtual_router_id", "8") }, "virtual_router_id: 7}", "virtual_router_id: 8}"},
		{"value behind lists", func(b *box) string { return b.setKey(instancesList, "VI_1", "virtual_router_id", "8") }, "51 # ours", "8 # ours"},
		{"value that is missing", func(b *box) string { return b.setKey(instancesList, "VI_1", "version", "3") }, "- name: VI_1\n", "- name: VI_1\n      version: 3\n"},
		{"name that is not the first key", func(b *box) string { return b.setKey(instancesList, "VI_2", "version", "3") }, "name: \"VI_2\"\n", "name: \"VI_2\"\n      version: 3\n"},
		{"list that is there", func(b *box) string { return b.addTo(servicesList, "web", "deny", "10.3.0.0/16") }, "deny: [10.1.0.0/16]", "deny: [10.3.0.0/16, 10.1.0.0/16]"},
		{"list that is missing", func(b *box) string { return b.addTo(servicesList, "web", "allow", "10.3.0.0/16") }, "- name: web\n", "- name: web\n    allow: [10.3.0.0/16]\n"},
		{"list in braces", func(b *box) string { return b.addTo(servicesList, "dns", "deny", "::/0") }, "deny: [10.2", "deny: [::/0, 10.2"},
		{"missing in braces", func(b *box) string { return b.addTo(servicesList, "ntp", "deny", "10.3.0.0/16") }, "{name: ntp,", "{deny: [10.3.0.0/16], name: ntp,"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b := &box{Options: Options{File: filepath.Join(t.TempDir(), "it's.yaml")}}
			if err := os.WriteFile(b.File, []byte(styles), 0o600); err != nil {
				t.Fatal(err)
			}
			command := c.command(b)
			if out, err := exec.Command("sh", "-c", command).CombinedOutput(); err != nil {
				t.Fatalf("%s: %v: %s", command, err, out)
			}
			text, err := os.ReadFile(b.File)
			if err != nil {
				t.Fatal(err)
			}
			if strings.Count(styles, c.old) != 1 {
				t.Fatalf("%q is not once in the file", c.old)
			}
			if want := strings.Replace(styles, c.old, c.new, 1); string(text) != want {
				t.Errorf("%s makes\n%s", command, text)
			}
		})
	}
}
