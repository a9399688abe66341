package config

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/xdirector/xdirector/pkg/health"
	"github.com/xdirector/xdirector/pkg/lb"
)

func load(t *testing.T, path string) *Config {
	t.Helper()
	c, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func parse(t *testing.T, text string) *Config {
	t.Helper()
	c, err := Parse("f", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	checkInvariants(t, c)
	return c
}

func TestMinimalFileIsComplete(t *testing.T) {
	check := &health.Check{Kind: health.TCP, Interval: 6 * time.Second, Timeout: 3 * time.Second, Retries: 3, RetryDelay: 3 * time.Second, Rise: 1}
	want := &Config{
		RouterID: "lb1",
		StateDir: "/run/xdirector",
		Instances: []Instance{{
			Name: "VI_1", Interface: "eth0", Version: 2, VirtualRouterID: 51, Priority: 100,
			AdvertInterval: time.Second, Preempt: true, Password: "1111",
			VirtualAddresses: addresses("192.168.5.100/32"),
			DownTimerAdverts: 3, Checksum: ChecksumRFC5798, UnicastTTL: 255, Accept: true,
			GARP: GARP{Repeat: 5, Delay: 5 * time.Second, RefreshRepeat: 1, LowerRepeat: 5, LowerDelay: 5 * time.Second},
		}},
		Services: []Service{{
			Name: "web", Address: netip.MustParseAddr("192.168.5.100"), Port: 80, Protocol: lb.TCP,
			Scheduler: lb.RoundRobin, Persistence: 50 * time.Second, Check: check, OnDown: OnDownRemove, Quorum: 1,
			RealServers: []RealServer{
				{Address: netip.MustParseAddr("192.168.5.103"), Port: 80, Weight: 1, Check: check},
				{Address: netip.MustParseAddr("192.168.5.104"), Port: 80, Weight: 1, Check: check},
			},
		}},
		Dataplane: Dataplane{
			Mode: ModeAuto, Interfaces: []string{"eth0"}, FlowTableSize: 1048576,
			PinPath: "/run/xdirector/bpf", DeadMan: 30 * time.Second, Linger: time.Second, VRRPFastPath: FastPathFilter,
		},
		Metrics: Metrics{Listen: "127.0.0.1:9112"},
		Control: Control{Socket: "/run/xdirector/control.sock"},
		Log:     Log{Level: slog.LevelInfo, Format: ""},
	}
	if got := load(t, "testdata/minimal.yaml"); !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%+v\nwant\n%+v", got, want)
	}
}

func TestDefaultsThatFollowFromOtherKeys(t *testing.T) {
	c := parse(t, `
vrrp:
  instances:
    - {name: a, interface: eth1, virtual_router_id: 1, virtual_addresses: [10.0.0.1, 10.0.0.2/24]}
    - {name: b, interface: eth0, virtual_router_id: 1, virtual_addresses: [10.0.1.1]}
    - {name: c, interface: eth1, virtual_router_id: 2, virtual_addresses: [10.0.2.1]}
services:
  - name: web
    address: 10.0.0.1
    port: 8080
    scheduler: wrr
    check: {type: http}
    real_servers:
      - {address: 10.0.0.11}
      - {address: 10.0.0.12, check: {type: tcp, port: 22}}
  - {name: free, address: 10.0.0.1, port: 53, protocol: udp, scheduler: rr, real_servers: [{address: 10.0.0.11}]}
`)
	if c.RouterID != "" {
		t.Errorf("router_id is %q, want none: the box is not asked", c.RouterID)
	}
	if want := []string{"eth1", "eth0"}; !reflect.DeepEqual(c.Dataplane.Interfaces, want) {
		t.Errorf("interfaces %v, want %v", c.Dataplane.Interfaces, want)
	}
	if got := c.Instances[0].VirtualAddresses; !reflect.DeepEqual(got, addresses("10.0.0.1/32", "10.0.0.2/24")) {
		t.Errorf("addresses %v", got)
	}
	http := &health.Check{
		Kind: health.HTTP, Interval: 5 * time.Second, Timeout: 5 * time.Second, Retries: 1, RetryDelay: time.Second, Rise: 1,
		Method: "GET", Path: "/", Status: []health.StatusRange{{From: 200, To: 299}},
	}
	tcp := &health.Check{
		Kind: health.TCP, Interval: 5 * time.Second, Timeout: 5 * time.Second, Retries: 1, RetryDelay: time.Second, Rise: 1, Port: 22,
	}
	web := c.Services[0].RealServers
	if !reflect.DeepEqual(web[0].Check, http) || !reflect.DeepEqual(web[1].Check, tcp) {
		t.Errorf("checks %+v and %+v", web[0].Check, web[1].Check)
	}
	if web[0].Port != 8080 || web[1].Port != 8080 {
		t.Errorf("ports %d and %d, want the service's", web[0].Port, web[1].Port)
	}
	if c.Services[1].Check != nil || c.Services[1].RealServers[0].Check != nil {
		t.Error("a service without check has one")
	}
}

// crowd is a file of n instances with ten addresses each, 250 on an interface, all of which track a script.
func crowd(n int) []byte {
	var b strings.Builder
	b.WriteString("vrrp:\n  scripts: [{name: s, command: /bin/true}]\n  instances:\n")
	for i := range n {
		fmt.Fprintf(&b, "    - {name: VI_%d, interface: eth%d, virtual_router_id: %d, track: {scripts: [{name: s, weight: -20}]}, virtual_addresses: [", i, i/250, 1+i%250)
		for a := range 10 {
			fmt.Fprintf(&b, "10.%d.%d.%d, ", a, i/250, 1+i%250)
		}
		b.WriteString("]}\n")
	}
	return []byte(b.String())
}

func TestAThousandInstancesWithTenThousandAddressesAreReadWithinASecond(t *testing.T) {
	began := time.Now()
	c, err := Parse("f", crowd(1000))
	took := time.Since(began)
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Instances) != 1000 || len(c.Instances[999].VirtualAddresses) != 10 || len(c.Warnings) > 0 {
		t.Errorf("%d instances, the last with %d addresses, warnings %v", len(c.Instances), len(c.Instances[999].VirtualAddresses), c.Warnings)
	}
	if took > 3*time.Second { // three times what is promised
		t.Errorf("it took %s", took)
	}
	_, err = Parse("f", crowd(1001))
	if err == nil || err.Error() != "f:4:5: vrrp.instances: 1001 instances; allowed: at most 1000" {
		t.Errorf("a thousand and one: %v", err)
	}
}

func TestManyWrongNamesAreToldInTime(t *testing.T) {
	file := string(crowd(1000)) + "  sync_groups:\n    - {name: g, instances: [" + strings.Repeat("VI_1x, ", 50000) + "]}\n"
	began := time.Now()
	_, err := Parse("f", []byte(file))
	if took := time.Since(began); took > 6*time.Second || err == nil {
		t.Errorf("it took %s, error %.100v", took, err)
	}
}

func BenchmarkParseAThousandInstances(b *testing.B) {
	data := crowd(1000)
	for b.Loop() {
		if _, err := Parse("f", data); err != nil {
			b.Fatal(err)
		}
	}
}

func TestIPv6IsVersion3WithoutBeingTold(t *testing.T) {
	c := parse(t, `
vrrp:
  instances:
    - {name: a, interface: eth0, virtual_router_id: 1, advert_interval: 10ms, virtual_addresses: [{address: "fe80::1/64"}, "2001:db8::1"]}
    - {name: b, interface: eth0, virtual_router_id: 1, virtual_addresses: [10.0.0.1], excluded_addresses: ["2001:db8::2"]}
`)
	six, four := c.Instances[0], c.Instances[1]
	if !six.IPv6() || six.Version != 3 || !reflect.DeepEqual(six.VirtualAddresses, addresses("fe80::1/64", "2001:db8::1/128")) {
		t.Errorf("got %+v", six)
	}
	if four.IPv6() || four.Version != 2 || !reflect.DeepEqual(four.Held(), addresses("10.0.0.1/32", "2001:db8::2/128")) {
		t.Errorf("got %+v", four)
	}
}

func TestElectionDefaultsThatFollowFromOtherKeys(t *testing.T) {
	c := parse(t, `
vrrp:
  instances:
    - name: a
      interface: eth0
      virtual_router_id: 7
      virtual_addresses: [10.0.0.1, {address: 10.0.0.2/24, interface: eth1, label: "eth1:x", scope: link}]
      garp: {repeat: 9, delay: 2s}
      virtual_mac: true
      routes: [{destination: 10.1.0.1, via: 10.0.0.9}]
      track: {scripts: [s, {name: s2, weight: 0}], files: [/run/w], processes: [nginx], services: [web], interfaces: [eth9]}
    - {name: b, interface: eth0, virtual_router_id: 7, virtual_mac: true, virtual_addresses: ["fe80::7"]}
    - {name: c, interface: eth0, virtual_router_id: 8, virtual_mac: {name: mine}, virtual_addresses: [10.0.0.8]}
  scripts:
    - {name: s, command: [/bin/check, -x], interval: 3s, weight: -30}
    - {name: s2, command: /bin/check, timeout: 1s, weight: -30}
services: [{name: web, address: 10.0.0.1, port: 80, scheduler: rr, real_servers: [{address: 10.0.0.12}]}]
`)
	a := c.Instances[0]
	if want := (GARP{Repeat: 9, Delay: 2 * time.Second, RefreshRepeat: 1, LowerRepeat: 9, LowerDelay: 2 * time.Second}); a.GARP != want {
		t.Errorf("garp %+v, want %+v", a.GARP, want)
	}
	if a.VirtualMAC != "vrrp4-7" || c.Instances[1].VirtualMAC != "vrrp6-7" || c.Instances[2].VirtualMAC != "mine" {
		t.Errorf("virtual MACs %q, %q, %q", a.VirtualMAC, c.Instances[1].VirtualMAC, c.Instances[2].VirtualMAC)
	}
	if want := (VirtualAddress{netip.MustParsePrefix("10.0.0.2/24"), "eth1", "eth1:x", "link"}); a.VirtualAddresses[1] != want {
		t.Errorf("address %+v", a.VirtualAddresses[1])
	}
	if want := (Route{Destination: netip.MustParsePrefix("10.1.0.1/32"), Via: netip.MustParseAddr("10.0.0.9")}); a.Routes[0] != want {
		t.Errorf("route %+v", a.Routes[0])
	}
	want := Track{
		Interfaces: []TrackInterface{{Name: "eth9"}},
		Scripts:    []TrackScript{{Name: "s", Weight: -30}, {Name: "s2"}},
		Files:      []TrackFile{{Path: "/run/w"}},
		Processes:  []TrackProcess{{Name: "nginx", Min: 1}},
		Services:   []TrackService{{Name: "web", MinUp: 1}},
	}
	if !reflect.DeepEqual(a.Track, want) {
		t.Errorf("track %+v, want %+v", a.Track, want)
	}
	scripts := []Script{
		{Name: "s", Command: []string{"/bin/check", "-x"}, Interval: 3 * time.Second, Timeout: 3 * time.Second, Rise: 1, Fall: 1, Weight: -30, User: "nobody"},
		{Name: "s2", Command: []string{"/bin/check"}, Interval: time.Second, Timeout: time.Second, Rise: 1, Fall: 1, Weight: -30, User: "nobody"},
	}
	if !reflect.DeepEqual(c.Scripts, scripts) {
		t.Errorf("scripts %+v, want %+v", c.Scripts, scripts)
	}
}

func TestStatusIsACodeARangeOrAList(t *testing.T) {
	const file = "services: [{name: a, address: 10.0.0.1, port: 80, scheduler: rr, real_servers: [{address: 10.0.0.2}], check: {type: https, status: %s}}]"
	for written, want := range map[string][]health.StatusRange{
		"204":                       {{From: 204, To: 204}},
		`"204"`:                     {{From: 204, To: 204}},
		"200-399":                   {{From: 200, To: 399}},
		`[200, "301-302", 100-599]`: {{From: 200, To: 200}, {From: 301, To: 302}, {From: 100, To: 599}},
	} {
		if got := parse(t, fmt.Sprintf(file, written)).Services[0].Check.Status; !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %v, want %v", written, got, want)
		}
	}
}

func TestIntegersAreReadAsYAMLDoes(t *testing.T) {
	for written, want := range map[string]uint8{"51": 51, "0x33": 51, "0o63": 51, "0b110011": 51, "5_1": 51, "+51": 51, "!!int 51": 51} {
		c := parse(t, "vrrp: {instances: [{name: a, interface: eth0, virtual_router_id: "+written+", virtual_addresses: [10.0.0.1]}]}")
		if got := c.Instances[0].VirtualRouterID; got != want {
			t.Errorf("%s: got %d, want %d", written, got, want)
		}
	}
}

func TestValuesWrittenOnceCanBeUsedByAlias(t *testing.T) {
	c := parse(t, `
services:
  - {name: a, address: 10.0.0.1, port: 80, scheduler: rr, check: &c {type: tcp, interval: &t 7s}, real_servers: &r [{address: 10.0.0.2}]}
  - {name: b, address: 10.0.0.1, port: 81, scheduler: rr, check: *c, real_servers: *r, persistence: {timeout: *t}}
`)
	if b := c.Services[1]; b.Check.Interval != 7*time.Second || b.Persistence != 7*time.Second || b.RealServers[0].Port != 81 {
		t.Errorf("service b: %+v", b)
	}
	if c.Services[0].RealServers[0].Port != 80 {
		t.Error("the services share a real server")
	}
}

func TestAliasesOfAliasesAreCutOff(t *testing.T) {
	const n = 3000
	file := "services:\n  - &s {name: a, address: 10.0.0.1, port: 80, scheduler: rr, real_servers: [&r {address: 10.0.0.2}" +
		strings.Repeat(", *r", n) + "]}\n" + strings.Repeat("  - *s\n", n)
	_, err := Parse("f", []byte(file))
	var problems Problems
	if !errors.As(err, &problems) || !strings.Contains(err.Error(), "the aliases before this one repeat too many values") {
		t.Fatal("not refused for its aliases")
	}
	if most := len(file) + 10000; len(problems) > most {
		t.Errorf("%d problems, want at most %d", len(problems), most)
	}
}

func TestPasswordsAreNeverShown(t *testing.T) {
	const file = "vrrp: {instances: [{name: a, interface: eth0, virtual_router_id: 1, authentication: {type: pass, password: %s}, virtual_addresses: [10.0.0.1]}]}"
	for _, password := range []string{"123412341234", "secret-secret", "[secret]", "{secret: 1}", "!secret", "!secret a", `"secret\0"`} {
		_, err := Parse("f", fmt.Appendf(nil, file, password))
		if err == nil {
			t.Fatalf("%s: accepted", password)
		}
		if strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "1234") {
			t.Errorf("%s: shown in %v", password, err)
		}
	}
}

func TestFilesThatCannotBeReadAreNamedWithTheCure(t *testing.T) {
	folder := t.TempDir()
	missing := filepath.Join(folder, "none.yaml")
	for path, want := range map[string]string{
		missing:     "read configuration " + missing + ": no such file or directory: write it, or name another file with --config FILE",
		folder:      "read configuration " + folder + ": is a directory: name a file with --config FILE",
		"/dev/zero": "read configuration /dev/zero: it is larger than 16 MiB: name the YAML file of the director",
	} {
		c, err := Load(path)
		if err == nil || err.Error() != want || c != nil {
			t.Errorf("got %v\nwant %s", err, want)
		}
	}
	if _, err := Load(missing); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v doesn't tell that the file is missing", err)
	}
}

func TestProblemsNameTheFileAsItWasGiven(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(path, []byte("vrpp: {}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := Load(path)
	if err == nil || !strings.HasPrefix(err.Error(), path+":1:1: ") {
		t.Errorf("got %v", err)
	}
}

func TestControlSocketIsFoundInAFileWithMistakes(t *testing.T) {
	for text, want := range map[string]string{
		"control: {socket: /run/a.sock}":           "/run/a.sock",
		"control: {socket: /run/a.sock}\nvrpp: {}": "/run/a.sock",
		"vrrp: {}": "/run/xdirector/control.sock",
		"control: {socket: /run/a.sock}\nvrrp: [":                             "/run/a.sock",
		"control: {socket: /run/a.sock}\nlog: [":                              "/run/xdirector/control.sock",
		"services:\n- {name: a}\ncontrol:\n  # here\n  socket: /run/a.sock\n": "/run/a.sock",
		"{services: [], control: {socket: /run/a.sock}}":                      "/run/a.sock",
		"services: &s /run/a.sock\ncontrol: {socket: *s}":                     "/run/a.sock",
		"control: /run/a.sock\nlog: {level: debug}":                           "/run/xdirector/control.sock",
	} {
		path := filepath.Join(t.TempDir(), "config.yaml")
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if got, err := ControlSocket(path); err != nil || got != want {
			t.Errorf("%q: got %q, %v, want %q", text, got, err, want)
		}
	}
	if _, err := ControlSocket(filepath.Join(t.TempDir(), "none.yaml")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
}
