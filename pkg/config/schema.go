package config

import (
	"log/slog"
	"math"
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
		StateDir: defaultStateDir,
		Dataplane: Dataplane{
			Mode:          ModeAuto,
			FlowTableSize: 1048576,
			PinPath:       defaultPinPath,
			DeadMan:       30 * time.Second,
			Linger:        time.Second,
			VRRPFastPath:  FastPathFilter,
		},
		Metrics: Metrics{Listen: "127.0.0.1:9112"},
		Control: Control{Socket: DefaultSocket},
		Log:     Log{Level: slog.LevelInfo},
	}
	d.object(v,
		optional("router_id", into(&c.RouterID, d.name)),
		optional("state_dir", into(&c.StateDir, d.path(maxPath))),
		optional("vrrp", func(v value) {
			d.object(v,
				optional("instances", func(v value) {
					d.list(v, "instances", func(v value) { c.Instances = append(c.Instances, d.instance(v)) })
				}),
				optional("scripts", func(v value) {
					d.list(v, "scripts", func(v value) { c.Scripts = append(c.Scripts, d.script(v)) })
				}),
				optional("sync_groups", func(v value) {
					d.list(v, "sync groups", func(v value) { c.SyncGroups = append(c.SyncGroups, d.syncGroup(v)) })
				}),
			)
		}),
		optional("services", func(v value) {
			d.list(v, "services", func(v value) { c.Services = append(c.Services, d.service(v)) })
		}),
		optional("dataplane", func(v value) { d.dataplane(v, &c.Dataplane) }),
		optional("notify", func(v value) { d.notify(v, &c.Notify) }),
		optional("metrics", func(v value) { d.object(v, optional("listen", into(&c.Metrics.Listen, d.listen))) }),
		optional("control", func(v value) { d.object(v, optional("socket", into(&c.Control.Socket, d.path(maxSocket)))) }),
		optional("log", func(v value) {
			d.object(v,
				optional("level", into(&c.Log.Level, d.level)),
				optional("format", into(&c.Log.Format, d.choice([]string{"text", "json", "journal"}))),
			)
		}),
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
	weights := map[string]int{}
	for _, s := range c.Scripts {
		weights[s.Name] = s.Weight
	}
	for _, i := range c.Instances {
		for n := range i.Track.Scripts {
			if t := &i.Track.Scripts[n]; t.Weight == unwritten {
				t.Weight = weights[t.Name]
			}
		}
	}
}

// unwritten is the weight of a tracked script until complete has found the script's own; no valid one.
const unwritten = math.MinInt

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
		optional("linger", into(&p.Linger, d.duration(linger))),
		optional("vrrp_fast_path", func(v value) {
			p.VRRPFastPathWritten = true
			p.VRRPFastPath, _ = d.choice([]string{FastPathOff, FastPathFilter, FastPathAbsorb})(v)
		}),
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
