package director

import (
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/xdirector/xdirector/pkg/config"
	"github.com/xdirector/xdirector/pkg/health"
	"github.com/xdirector/xdirector/pkg/lb"
	"github.com/xdirector/xdirector/pkg/status"
)

const planned = `router_id: lb1
vrrp:
  instances:
    - name: VI_1
      interface: eth0
      virtual_router_id: 51
      authentication: {type: pass, password: secret1}
      virtual_addresses: [10.0.0.1, 10.0.0.2]
    - {name: VI_2, interface: eth0, virtual_router_id: 52, virtual_addresses: [10.0.0.9]}
  scripts: [{name: chk, command: [/bin/true, -x]}]
  sync_groups: [{name: VG_1, instances: [VI_1, VI_2]}]
services:
  - name: web
    address: 10.0.0.1
    port: 80
    scheduler: rr
    check: {type: tcp}
    real_servers: [{address: 10.0.0.11}, {address: 10.0.0.12}]
  - {name: dns, address: 10.0.0.1, port: 53, protocol: udp, scheduler: rr, real_servers: [{address: 10.0.0.11}]}
`

func TestAPlanSaysWhatChangesAndWhatItInterrupts(t *testing.T) {
	old := parsed(t, planned)
	for _, tt := range []struct {
		name, before, after string
		want                string // the plan; VI_1 is MASTER
	}{
		{"nothing", "", "", ""},
		{"the same in other words", "port: 80\n", "port: 80\n    protocol: tcp\n    quorum: 1\n", ""},
		{"router_id", "router_id: lb1", "router_id: lb2", "~ top level: router_id: lb1 -> lb2"},
		{"priority", "interface: eth0\n", "interface: eth0\n      priority: 150\n",
			"~ instance VI_1: priority: 100 -> 150\n    the election may make another director MASTER, or this one: a handover, which keeps the flows"},
		{"a password", "secret1", "secret2",
			"~ instance VI_1: authentication.password: *** (not shown) -> *** (not shown)\n  ! until the other directors have the same, they refuse our adverts and we theirs: both are MASTER"},
		{"no address of a MASTER", "[10.0.0.1, 10.0.0.2]", "[10.0.0.1]",
			"~ instance VI_1: virtual_addresses: [10.0.0.1, 10.0.0.2] -> [10.0.0.1]\n  ! nobody answers for 10.0.0.2 any more, unless another instance holds it; make the same change on the other directors"},
		{"the MASTER's name", "name: VI_1", "name: VI_3", // its group too
			"- instance VI_1\n  ! VI_1 is MASTER here and hands over to another director; if there is none, nobody answers for 10.0.0.1, 10.0.0.2 any more\n" +
				"+ instance VI_3\n    VI_3 begins as BACKUP, and takes over from a MASTER of lower priority if preempt is true\n" +
				"~ sync group VG_1: instances: [VI_1, VI_2] -> [VI_3, VI_2]\n    its instances change state together from now on, or no longer"},
		{"no BACKUP", "    - {name: VI_2, interface: eth0, virtual_router_id: 52, virtual_addresses: [10.0.0.9]}\n", "",
			"- instance VI_2\n    VI_2 is BACKUP here: nobody notices\n- sync group VG_1\n    its instances change state together from now on, or no longer"},
		{"a VRID", "virtual_router_id: 51", "virtual_router_id: 61", "~ instance VI_1: virtual_router_id: 51 -> 61 (only a restart can change this)"},
		{"a script", "[/bin/true, -x]}", "/bin/false, interval: 2s}", "~ script chk\n      command: [/bin/true, -x] -> [/bin/false]\n      interval: 1s -> 2s\n      timeout: 1s -> 2s"},
		{"a tracked script", "      virtual_addresses: [10.0.0.1,", "      track: {scripts: [{name: chk, weight: -20}]}\n      virtual_addresses: [10.0.0.1,",
			"~ instance VI_1: track.scripts: none -> [{name: chk, weight: -20}]\n    the election may make another director MASTER, or this one: a handover, which keeps the flows"},
		{"another real server", "{address: 10.0.0.12}", "{address: 10.0.0.13}",
			"- real server web/10.0.0.12\n  ! flows of web/10.0.0.12 are scheduled afresh\n+ real server web/10.0.0.13"},
		{"a weight", "{address: 10.0.0.12}", "{address: 10.0.0.12, weight: 0}", "~ real server web/10.0.0.12: weight: 1 -> 0\n    it gets no new flows; those that it has go on"},
		{"the service's check", "{type: tcp}", "{type: tcp, rise: 3}", "~ check web: rise: 1 -> 3\n    real servers count as they do now until the first result"},
		{"no check", "    check: {type: tcp}\n", "", "- check web\n    real servers count as up from now on, also those that are down"},
		{"a check of its own", "{address: 10.0.0.12}", "{address: 10.0.0.12, check: {type: icmp}}", "+ check web/10.0.0.12\n    real servers count as they do now until the first result"},
		{"a port", "port: 80", "port: 81", "~ service web: port: 80 -> 81\n  ! flows of web end: nothing forwards tcp 10.0.0.1:80 any more, and tcp 10.0.0.1:81 begins without any"},
		{"a name", "name: web", "name: www", "~ service www: name: web -> www\n    drains and weights that an operator has set under the old name are forgotten"},
		{"a scheduler", "scheduler: rr\n", "scheduler: wlc\n", "~ service web: scheduler: rr -> wlc\n    new flows only: those that are known stay where they are"},
		{"a scheduler on IPVS", "scheduler: rr\n", "scheduler: wlc\n", "~ service web: scheduler: rr -> wlc\n  ! for a moment, new connections to web are refused: the kernel takes the old scheduler out of IPVS before it puts in the new one"},
		{"NAT", "scheduler: rr\n", "scheduler: rr\n    forwarding: nat\n", "~ service web: forwarding: direct -> nat\n  ! flows of web end: they don't go along to another way of forwarding"},
		{"who may come", "scheduler: rr\n", "scheduler: rr\n    deny: [10.9.0.0/16]\n    limits: {new_connections: {per_second: 9}}\n",
			"~ service web\n      deny: none -> [10.9.0.0/16]\n      limits.new_connections.per_second: 0 -> 9\n  ! clients that are denied now are cut off in the middle"},
		{"no service", "  - {name: dns, address: 10.0.0.1, port: 53, protocol: udp, scheduler: rr, real_servers: [{address: 10.0.0.11}]}\n", "",
			"- service dns\n  ! flows of dns end: nothing forwards udp 10.0.0.1:53 any more"},
		{"a mode", "router_id: lb1", "router_id: lb1\ndataplane: {mode: ipvs, linger: 2s}", "~ dataplane\n      mode: auto -> ipvs (only a restart can change this)\n      linger: 1s -> 2s"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			text, plane := strings.ReplaceAll(planned, tt.before, tt.after), lb.XDPNative
			if strings.HasSuffix(tt.name, "on IPVS") {
				plane = lb.IPVS
			}
			switch tt.name {
			case "nothing":
				text = planned
			case "the MASTER's name":
				text = strings.ReplaceAll(text, "[VI_1, VI_2]", "[VI_3, VI_2]")
			case "no BACKUP":
				text = strings.ReplaceAll(text, "  sync_groups: [{name: VG_1, instances: [VI_1, VI_2]}]\n", "")
			}
			if text == planned && tt.before != "" {
				t.Fatal("the text is the same")
			}
			p := status.Plan{File: "f", Changes: compare(old, parsed(t, text), here{masters: map[string]bool{"VI_1": true}, plane: plane})}
			var out strings.Builder
			if err := p.Text(&out); err != nil {
				t.Fatal(err)
			}
			lines := strings.Split(strings.TrimRight(out.String(), "\n"), "\n")
			got := strings.TrimRight(strings.Join(lines[:len(lines)-1], "\n"), "\n")
			if got != tt.want {
				t.Errorf("got\n%s\nwant\n%s", got, tt.want)
			}
			if strings.Contains(out.String(), "secret") {
				t.Error("a password is shown")
			}
		})
	}
}

// Every field of the configuration that differs is told by a key that the reference has.
func TestNoDifferenceIsLeftOutOfAPlan(t *testing.T) {
	text, err := os.ReadFile("../../configs/config.yaml")
	if err != nil {
		t.Fatal(err)
	}
	isKey := func(name string) bool {
		return regexp.MustCompile(`(^|[\s{,#-])` + name + `:`).Match(text)
	}
	base := parsed(t, string(text))
	full := func() *config.Config {
		c := *base
		c.Instances, c.Scripts, c.SyncGroups, c.Services = slices.Clone(c.Instances), slices.Clone(c.Scripts), slices.Clone(c.SyncGroups), slices.Clone(c.Services)
		c.Services[0].RealServers = slices.Clone(c.Services[0].RealServers)
		return &c
	}
	for name, of := range map[string]func(c *config.Config) any{
		"config":      func(c *config.Config) any { return c },
		"instance":    func(c *config.Config) any { return &c.Instances[0] },
		"script":      func(c *config.Config) any { return &c.Scripts[0] },
		"sync group":  func(c *config.Config) any { return &c.SyncGroups[0] },
		"service":     func(c *config.Config) any { return &c.Services[0] },
		"real server": func(c *config.Config) any { return &c.Services[0].RealServers[0] },
		"check": func(c *config.Config) any {
			copied := *c.Services[0].Check
			c.Services[0].Check = &copied
			return &copied
		},
	} {
		tried := 0
		eachField(reflect.ValueOf(of(full())).Elem(), nil, func(path []int, field string) {
			c := full()
			if name == "real server" && field == "Check" || !alter(reflect.ValueOf(of(c)).Elem().FieldByIndex(path)) {
				return
			}
			tried++
			changes := compare(base, c, here{})
			if len(changes) == 0 && field != "VRRPFastPathWritten" {
				t.Errorf("%s: another %s is no change", name, field)
			}
			for _, change := range changes {
				for _, k := range change.Keys {
					key, _, _ := strings.Cut(k.Key[strings.LastIndex(k.Key, ".")+1:], ":")
					if !isKey(key) {
						t.Errorf("%s: another %s is told as %q, which is no key of the file", name, field, k.Key)
					}
				}
			}
		})
		if tried == 0 {
			t.Errorf("%s: no field was tried", name)
		}
	}
}

// eachField calls f with every field of a struct that is a value of its own.
func eachField(v reflect.Value, path []int, f func(path []int, name string)) {
	for i := range v.NumField() {
		at := append(append([]int{}, path...), i)
		if v.Field(i).Kind() == reflect.Struct && !isScalar(v.Field(i)) {
			eachField(v.Field(i), at, f)
		} else {
			f(at, v.Type().Field(i).Name)
		}
	}
}

// alter gives a field another value; false: it holds what is compared as something of its own.
func alter(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(!v.Bool())
	case reflect.String:
		v.SetString(v.String() + "x")
	case reflect.Int, reflect.Int64:
		v.SetInt(v.Int() + 1)
	case reflect.Uint8, reflect.Uint16, reflect.Uint32:
		v.SetUint(v.Uint() + 1)
	case reflect.Slice:
		if v.Len() == 0 || v.Type().Elem().PkgPath() == reflect.TypeFor[config.Config]().PkgPath() && !strings.HasPrefix(v.Type().Elem().Name(), "Track") &&
			v.Type().Elem().Name() != "VirtualAddress" && v.Type().Elem().Name() != "Route" {
			return false
		}
		v.Set(v.Slice(0, v.Len()-1))
	case reflect.Pointer:
		if v.Type() != reflect.TypeFor[*health.Check]() {
			return false
		}
		v.Set(reflect.Zero(v.Type()))
	default: // an address
		v.Set(reflect.Zero(v.Type()))
	}
	return true
}
