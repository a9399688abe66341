package config

import (
	"log/slog"
	"net"
	"net/netip"
	"regexp"
	"strconv"
	"time"
)

// config reads the whole file. What is wrong or missing is zero in the result, what is left out has its default,
// except those defaults that depend on other keys: complete fills them in.
func (d *decoder) config(v value) *Config {
	c := &Config{
		StateDir: "/run/xdirector",
		Dataplane: Dataplane{
			Mode:          ModeAuto,
			FlowTableSize: 1048576,
			PinPath:       "/run/xdirector/bpf",
			DeadMan:       30 * time.Second,
		},
		Metrics: Metrics{Listen: "127.0.0.1:9112"},
		Control: Control{Socket: defaultSocket},
		Log:     Log{Level: slog.LevelInfo},
	}
	d.object(v,
		optional("router_id", into(&c.RouterID, d.name)),
		optional("state_dir", into(&c.StateDir, d.path(maxPath))),
		optional("vrrp", func(v value) {
			d.object(v, optional("instances", func(v value) {
				d.list(v, "instances", func(v value) { c.Instances = append(c.Instances, d.instance(v)) })
			}))
		}),
		optional("services", func(v value) {
			d.list(v, "services", func(v value) { c.Services = append(c.Services, d.service(v)) })
		}),
		optional("dataplane", func(v value) { d.dataplane(v, &c.Dataplane) }),
		optional("metrics", func(v value) { d.object(v, optional("listen", into(&c.Metrics.Listen, d.listen))) }),
		optional("control", func(v value) { d.object(v, optional("socket", into(&c.Control.Socket, d.path(maxSocket)))) }),
		optional("log", func(v value) {
			d.object(v,
				optional("level", into(&c.Log.Level, d.level)),
				optional("format", into(&c.Log.Format, d.choice([]string{"text", "json", "journal"}))),
			)
		}),
		unsupported("notify"),
		unsupported("sync"),
		unsupported("bgp"),
	)
	c.complete()
	return c
}

const (
	maxPath   = 4000 // Linux allows 4095, and names of files come below it
	maxSocket = 107  // of sockaddr_un, without the closing zero
)

// complete fills in what is not written and follows from other keys.
func (c *Config) complete() {
	if c.Dataplane.Interfaces == nil {
		have := map[string]bool{"": true}
		for _, i := range c.Instances {
			if !have[i.Interface] {
				have[i.Interface] = true
				c.Dataplane.Interfaces = append(c.Dataplane.Interfaces, i.Interface)
			}
		}
	}
}

// The ranges of all durations. keepalived's own limits, where it has any.
var (
	intervalV2  = span{time.Second, 255 * time.Second, time.Second, "whole seconds from 1s to 255s in version 2"}
	intervalV3  = span{10 * time.Millisecond, 40950 * time.Millisecond, 10 * time.Millisecond, "10ms to 40.95s in steps of 10ms in version 3"}
	preemption  = span{0, 1000 * time.Second, 0, "0s to 1000s"}
	persistence = span{time.Second, 31 * 24 * time.Hour, time.Second, "whole seconds from 1s to 744h"}
	deadMan     = span{3 * time.Second, time.Hour, time.Second, "whole seconds from 3s to 1h"}
	checkTime   = span{10 * time.Millisecond, 24 * time.Hour, 0, "10ms to 24h"}
	retryDelay  = span{0, time.Hour, 0, "0s to 1h"}
)

func (d *decoder) instance(v value) Instance {
	i := Instance{Version: 2, Priority: 100, AdvertInterval: time.Second, Preempt: true}
	var interval value // read when the version is known
	d.object(v,
		required("name", into(&i.Name, d.name), "a name of its own, like VI_1"),
		required("interface", into(&i.Interface, d.networkInterface), "the network interface, like eth0"),
		optional("version", into(&i.Version, integer[uint8](d, 2, 3))),
		required("virtual_router_id", into(&i.VirtualRouterID, integer[uint8](d, 1, 255)), "a number of 1 to 255, the same on all directors of the group"),
		optional("priority", into(&i.Priority, integer[uint8](d, 1, 255))),
		optional("advert_interval", func(v value) { interval = v }),
		optional("preempt", into(&i.Preempt, d.boolean)),
		optional("preempt_delay", into(&i.PreemptDelay, d.duration(preemption))),
		optional("authentication", func(v value) {
			d.object(v,
				required("type", func(v value) { d.choice([]string{"pass"}, "ah")(v) }, "type: pass"),
				required("password", into(&i.Password, d.password), "1 to 8 bytes in quotes, the same on all directors of the group"),
			)
		}),
		required("virtual_addresses", func(v value) {
			d.list(v, "addresses", func(v value) {
				p, _ := d.prefix(v)
				i.VirtualAddresses = append(i.VirtualAddresses, p)
			})
		}, "at least one address, like [192.168.5.100/32]"),
		unsupported("unicast_peers"),
		unsupported("track"),
	)
	switch {
	case interval.node == nil:
	case i.Version == 3:
		i.AdvertInterval, _ = d.duration(intervalV3)(interval)
	default:
		i.AdvertInterval, _ = d.duration(intervalV2)(interval)
	}
	return i
}

// password reads a VRRPv2 password. It is the one value that no message shows: messages end in logs.
func (d *decoder) password(v value) (string, bool) {
	const allowed = "1 to 8 bytes in quotes"
	switch s := v.node.Value; {
	case isNull(v.node) || s == "" && v.node.ShortTag() == "!!str":
		d.wrong(v, "empty; allowed: %s", allowed)
	case v.node.ShortTag() != "!!str":
		d.wrong(v, `the password is %s in YAML, not a text; write it in quotes, like password: "1111"; allowed: %s`, noun(v.node), allowed)
	case len(s) > 8:
		d.wrong(v, "the password is %d bytes long; keepalived uses the first 8 of a longer one, write these; allowed: %s", len(s), allowed)
	case nul.MatchString(s):
		d.wrong(v, "the password has a zero byte, which ends it on the wire; allowed: %s", allowed)
	default:
		return s, true
	}
	return "", false
}

var nul = regexp.MustCompile("\x00")

func (d *decoder) dataplane(v value, p *Dataplane) {
	d.object(v,
		optional("mode", into(&p.Mode, d.choice([]string{ModeAuto, ModeXDPNative, ModeXDPGeneric, ModeIPVS}))),
		optional("interfaces", func(v value) {
			p.Interfaces = []string{}
			d.list(v, "network interfaces", func(v value) {
				name, _ := d.networkInterface(v)
				p.Interfaces = append(p.Interfaces, name)
			})
		}),
		optional("flow_table_size", into(&p.FlowTableSize, integer[uint32](d, 1024, 16777216))),
		optional("pin_path", into(&p.PinPath, d.path(maxPath))),
		optional("dead_man", into(&p.DeadMan, d.duration(deadMan))),
	)
}

// level reads a log level.
func (d *decoder) level(v value) (slog.Level, bool) {
	s, ok := d.choice([]string{"debug", "info", "warn", "error"})(v)
	var level slog.Level
	if ok {
		ok = level.UnmarshalText([]byte(s)) == nil
	}
	return level, ok
}

var hostName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9.])?$`)

// listen reads host:port; the host may be empty, a name or an address.
func (d *decoder) listen(v value) (string, bool) {
	const allowed = "host:port with a port of 1 to 65535, like 127.0.0.1:9112 or :9112"
	s, ok := d.word(v, allowed)
	if !ok {
		return "", false
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		d.wrong(v, "%s is not host:port; allowed: %s", quote(s), allowed)
		return "", false
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || port[0] == '0' {
		d.wrong(v, "%s has a wrong port, %s; allowed: %s", quote(s), quote(port), allowed)
		return "", false
	}
	if _, err := netip.ParseAddr(host); err != nil && host != "" && (!hostName.MatchString(host) || looksLikeAddress.MatchString(host)) {
		d.wrong(v, "%s has a wrong host, %s; allowed: %s", quote(s), quote(host), allowed)
		return "", false
	}
	return s, true
}

// looksLikeAddress keeps 127.0.0.300 from passing as the name of a host.
var looksLikeAddress = regexp.MustCompile(`^[0-9.]+$`)
