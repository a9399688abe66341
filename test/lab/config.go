package lab

import (
	"cmp"
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// Config is the part of a director's configuration that scenarios choose; paths and ports are the lab's. Zero values
// are left out of the file, so that the director's defaults hold.
type Config struct {
	Mode          string // of dataplane: xdp-native, xdp-generic, ipvs, auto
	FastPath      string // of dataplane: off, filter, absorb
	DeadMan       time.Duration
	FlowTableSize int    // of dataplane; 65536 if 0
	Metrics       string // listen address
	PinPath       string // the folder "pins" on the lab's bpffs if empty
	Socket        string // the lab's if empty
	Instances     []Instance
	VRRP          []string // further keys of vrrp, each as "key: value"
	Services      []Service
}

// Instance is one VRRP instance.
type Instance struct {
	Name      string // VI_1 if empty
	Interface string // eth0 if empty
	VRID      uint8  // 51 if 0
	Version   int
	Priority  uint8
	Interval  time.Duration
	NoPreempt bool
	Password  string
	Addresses []string
	More      []string // further keys, each as "key: value"
}

// Service is one service.
type Service struct {
	Name        string // web if empty
	Address     string
	Port        uint16
	Protocol    string
	Scheduler   string
	Persistence time.Duration
	Check       string // a YAML map, for example {type: tcp, interval: 100ms}
	RealServers []RealServer
	More        []string // further keys, each as "key: value"
}

// RealServer is one real server of a service.
type RealServer struct {
	Address netip.Addr
	Port    uint16 // 0: the service's
	Weight  int    // -1: 0; 0: the default

	MaxConnections int // 0: as many as come
}

// yaml writes the configuration file of a director.
func (c Config) yaml(d *Director) string {
	var b strings.Builder
	fmt.Fprintf(&b, "router_id: %s\nstate_dir: %s\n", d.Name, d.path("state"))
	fmt.Fprintf(&b, "control: {socket: %s}\n", or(c.Socket, d.Socket))
	if c.Metrics != "" {
		fmt.Fprintf(&b, "metrics: {listen: %q}\n", c.Metrics)
	}
	fmt.Fprintf(&b, "log: {level: debug, format: text}\ndataplane:\n  pin_path: %s\n  flow_table_size: %d\n",
		or(c.PinPath, d.PinPath), cmp.Or(c.FlowTableSize, 65536))
	optional(&b, "  mode: %s\n", c.Mode)
	optional(&b, "  vrrp_fast_path: %s\n", c.FastPath)
	if c.DeadMan > 0 {
		fmt.Fprintf(&b, "  dead_man: %s\n", c.DeadMan)
	}
	if len(c.Instances) > 0 {
		b.WriteString("vrrp:\n  instances:\n")
	}
	for _, i := range c.Instances {
		i.yaml(&b)
	}
	for _, line := range c.VRRP {
		fmt.Fprintf(&b, "  %s\n", line)
	}
	if len(c.Services) > 0 {
		b.WriteString("services:\n")
	}
	for _, s := range c.Services {
		s.yaml(&b)
	}
	return b.String()
}

func (i Instance) yaml(b *strings.Builder) {
	if i.VRID == 0 {
		i.VRID = 51
	}
	fmt.Fprintf(b, "    - name: %s\n      interface: %s\n", or(i.Name, "VI_1"), or(i.Interface, "eth0"))
	fmt.Fprintf(b, "      virtual_router_id: %d\n      priority: %d\n", i.VRID, i.Priority)
	if i.Version != 0 {
		fmt.Fprintf(b, "      version: %d\n", i.Version)
	}
	if i.Interval != 0 {
		fmt.Fprintf(b, "      advert_interval: %s\n", i.Interval)
	}
	if i.NoPreempt {
		b.WriteString("      preempt: false\n")
	}
	optional(b, "      authentication: {type: pass, password: %q}\n", i.Password)
	// In quotes: an IPv6 address can look like something else.
	fmt.Fprintf(b, "      virtual_addresses: [\"%s\"]\n", strings.Join(i.Addresses, `", "`))
	for _, line := range i.More {
		fmt.Fprintf(b, "      %s\n", line)
	}
}

func (s Service) yaml(b *strings.Builder) {
	fmt.Fprintf(b, "  - name: %s\n    address: %q\n    port: %d\n", or(s.Name, "web"), s.Address, s.Port)
	fmt.Fprintf(b, "    scheduler: %s\n", or(s.Scheduler, "rr"))
	optional(b, "    protocol: %s\n", s.Protocol)
	if s.Persistence > 0 {
		fmt.Fprintf(b, "    persistence: {timeout: %s}\n", s.Persistence)
	}
	optional(b, "    check: %s\n", s.Check)
	for _, line := range s.More {
		fmt.Fprintf(b, "    %s\n", line)
	}
	b.WriteString("    real_servers:\n")
	for _, r := range s.RealServers {
		fmt.Fprintf(b, "      - {address: %q", r.Address)
		if r.Port != 0 {
			fmt.Fprintf(b, ", port: %d", r.Port)
		}
		if r.Weight != 0 {
			fmt.Fprintf(b, ", weight: %d", max(r.Weight, 0))
		}
		if r.MaxConnections != 0 {
			fmt.Fprintf(b, ", max_connections: %d", r.MaxConnections)
		}
		b.WriteString("}\n")
	}
}

func or(value, otherwise string) string {
	if value == "" {
		return otherwise
	}
	return value
}

func optional(b *strings.Builder, format, value string) {
	if value != "" {
		fmt.Fprintf(b, format, value)
	}
}
