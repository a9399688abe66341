package config

import (
	"fmt"
	"regexp"
	"time"

	"gopkg.in/yaml.v3"
)

// The ranges of all durations. keepalived's own limits, where it has any.
var (
	intervalV2   = span{time.Second, 255 * time.Second, time.Second, "whole seconds from 1s to 255s in version 2"}
	intervalV3   = span{10 * time.Millisecond, 40950 * time.Millisecond, 10 * time.Millisecond, "10ms to 40.95s in steps of 10ms in version 3"}
	preemption   = span{0, 1000 * time.Second, 0, "0s to 1000s"}
	persistence  = span{time.Second, 31 * 24 * time.Hour, time.Second, "whole seconds from 1s to 744h"}
	flowTime     = span{time.Second, 31 * 24 * time.Hour, time.Second, "whole seconds from 1s to 744h"}
	deadMan      = span{3 * time.Second, time.Hour, time.Second, "whole seconds from 3s to 1h"}
	linger       = span{0, time.Minute, 0, "0s to 1m"}
	checkTime    = span{10 * time.Millisecond, 24 * time.Hour, 0, "10ms to 24h"}
	slowStart    = span{0, time.Hour, time.Second, "whole seconds from 0s to 1h"}
	retryDelay   = span{0, time.Hour, 0, "0s to 1h"}
	startup      = span{0, 1000 * time.Second, 0, "0s to 1000s"}
	garpDelay    = span{0, 1000 * time.Second, 0, "0s to 1000s"}
	garpRefresh  = span{0, 24 * time.Hour, time.Second, "whole seconds from 0s to 24h"}
	garpGap      = span{0, time.Second, 0, "0s to 1s"}
	notifyTime   = span{100 * time.Millisecond, 10 * time.Minute, 0, "100ms to 10m"}
	mailInterval = span{time.Second, 24 * time.Hour, 0, "1s to 24h"}
	scriptTime   = span{100 * time.Millisecond, 24 * time.Hour, 0, "100ms to 24h"}
)

func (d *decoder) instance(v value) Instance {
	i := Instance{
		Priority: 100, AdvertInterval: time.Second, Preempt: true, DownTimerAdverts: 3, Checksum: ChecksumRFC5798,
		UnicastTTL: 255, Accept: true, GARP: GARP{Repeat: 5, Delay: 5 * time.Second, RefreshRepeat: 1},
	}
	i.GARP.LowerRepeat, i.GARP.LowerDelay = i.GARP.Repeat, i.GARP.Delay
	var interval, virtualMAC value // read when version, VRID and family are known
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
			d.list(v, "addresses", func(v value) { i.VirtualAddresses = append(i.VirtualAddresses, d.virtualAddress(v)) })
		}, "at least one address, like [192.168.5.100/32]"),
		optional("excluded_addresses", func(v value) {
			d.list(v, "addresses", func(v value) { i.ExcludedAddresses = append(i.ExcludedAddresses, d.virtualAddress(v)) })
		}),
		optional("source_address", into(&i.SourceAddress, d.boxAddress)),
		optional("down_timer_adverts", into(&i.DownTimerAdverts, integer(d, 1, 100))),
		optional("startup_delay", into(&i.StartupDelay, d.duration(startup))),
		optional("checksum", into(&i.Checksum, d.choice([]string{ChecksumRFC5798, ChecksumRFC9568}))),
		optional("unicast_peers", func(v value) {
			d.list(v, "addresses", func(v value) {
				a, _ := d.boxAddress(v)
				i.UnicastPeers = append(i.UnicastPeers, a)
			})
		}),
		optional("unicast_ttl", into(&i.UnicastTTL, integer[uint8](d, 1, 255))),
		optional("garp", func(v value) { d.garp(v, &i.GARP) }),
		optional("routes", func(v value) {
			d.list(v, "routes", func(v value) { i.Routes = append(i.Routes, d.route(v)) })
		}),
		optional("virtual_mac", func(v value) { virtualMAC = v }),
		optional("accept", into(&i.Accept, d.boolean)),
		optional("track", func(v value) { d.track(v, &i.Track) }),
		d.hooks(&i.Notify, instanceHooks...),
	)
	six := d.family(v.path+".virtual_addresses", len(i.VirtualAddresses)) == 6
	if i.Version == 0 && !d.reported(v.path+".version") {
		i.Version = 2
		if six {
			i.Version = 3
		}
	}
	switch {
	case interval.node == nil:
	case interval.shape != nil:
		interval.shape.duration(intervalV2.allowed + ", " + intervalV3.allowed)
	case i.Version == 3 || six:
		i.AdvertInterval, _ = d.duration(intervalV3)(interval)
	default:
		i.AdvertInterval, _ = d.duration(intervalV2)(interval)
	}
	if virtualMAC.node != nil {
		i.VirtualMAC = d.virtualMAC(virtualMAC, i.VirtualRouterID, six)
	}
	return i
}

// family is that of the first of n addresses of a list, 4 or 6, or 0 if none is an address.
func (d *decoder) family(list string, n int) int {
	for n := range n {
		if family := d.families[fmt.Sprintf("%s[%d]", list, n)]; family != 0 {
			return family
		}
	}
	return 0
}

// password reads a VRRPv2 password. It is the one value that no message shows: messages end in logs.
func (d *decoder) password(v value) (string, bool) {
	const allowed = "1 to 8 bytes in quotes"
	if v.shape != nil {
		v.shape.text(allowed)
		v.shape.most = 8
		return "", false
	}
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

// virtualAddress reads a bare address, or one with options.
func (d *decoder) virtualAddress(v value) VirtualAddress {
	a := VirtualAddress{}
	d.entry(v, "address", func(at value) {
		a.Prefix, _ = d.prefix(at)
		d.families[v.path] = d.families[at.path]
	}, "the address, like 192.168.5.100/32",
		optional("interface", into(&a.Interface, d.networkInterface)),
		optional("label", into(&a.Label, d.label)),
		optional("scope", into(&a.Scope, d.choice([]string{"global", "site", "link", "host"}))),
	)
	if a.Scope == "global" {
		a.Scope = ""
	}
	return a
}

// entry reads a mapping of which only one key is required, or that key's value alone.
func (d *decoder) entry(v value, key string, read func(value), missing string, others ...field) {
	whole := func(v value) { d.object(v, append([]field{required(key, read, missing)}, others...)...) }
	switch {
	case v.shape != nil:
		v.shape.oneOf(read, whole)
	case v.node.Kind != yaml.MappingNode:
		read(v)
	default:
		whole(v)
	}
}

var labelText = regexp.MustCompile(`^[!-~]{1,15}$`)

// label reads the label of an IPv4 address, which ifconfig shows like an interface of its own.
func (d *decoder) label(v value) (string, bool) {
	const allowed = "1 to 15 visible ASCII characters, like eth0:1"
	s, ok := d.text(v, allowed)
	v.matches(labelText)
	if ok && !labelText.MatchString(s) {
		d.wrong(v, "%s can't be a label; allowed: %s", quote(s), allowed)
		return "", false
	}
	return s, ok
}

func (d *decoder) garp(v value, g *GARP) {
	lowerRepeat, lowerDelay := false, false
	d.object(v,
		optional("repeat", into(&g.Repeat, integer(d, 1, 100))),
		optional("delay", into(&g.Delay, d.duration(garpDelay))),
		optional("refresh", into(&g.Refresh, d.duration(garpRefresh))),
		optional("refresh_repeat", into(&g.RefreshRepeat, integer(d, 1, 100))),
		optional("interval", into(&g.Interval, d.duration(garpGap))),
		optional("lower_priority_repeat", func(v value) {
			lowerRepeat = true
			g.LowerRepeat, _ = integer(d, 0, 100)(v)
		}),
		optional("lower_priority_delay", func(v value) {
			lowerDelay = true
			g.LowerDelay, _ = d.duration(garpDelay)(v)
		}),
	)
	if !lowerRepeat {
		g.LowerRepeat = g.Repeat
	}
	if !lowerDelay {
		g.LowerDelay = g.Delay
	}
}

func (d *decoder) route(v value) Route {
	r := Route{}
	d.object(v,
		required("destination", into(&r.Destination, d.network), "the network, like 10.0.0.0/8, or 0.0.0.0/0 for a default route"),
		optional("via", into(&r.Via, d.boxAddress)),
		optional("interface", into(&r.Interface, d.networkInterface)),
		optional("source", into(&r.Source, d.boxAddress)),
		optional("metric", into(&r.Metric, integer[uint32](d, 0, 4294967295))),
		optional("table", into(&r.Table, integer[uint32](d, 1, 4294967295))),
	)
	return r
}

// virtualMAC reads true, false or a mapping with a name, and returns the name of the macvlan.
func (d *decoder) virtualMAC(v value, id uint8, six bool) string {
	name := ""
	named := func(v value) {
		d.object(v, required("name", into(&name, d.networkInterface), "the name of the macvlan to make, like vrrp4-51"))
	}
	if v.shape != nil {
		v.shape.oneOf(func(v value) { d.boolean(v) }, named)
		return ""
	}
	if v.node.Kind == yaml.MappingNode {
		named(v)
		return name
	}
	if v.node.Kind != yaml.ScalarNode || v.node.ShortTag() != "!!bool" {
		d.wrong(v, "%s is neither true nor false nor a mapping; allowed: true, false, or a mapping with the key name", describe(v.node))
		return ""
	}
	if on, ok := d.boolean(v); !ok || !on {
		return ""
	}
	if six {
		return fmt.Sprintf("vrrp6-%d", id)
	}
	return fmt.Sprintf("vrrp4-%d", id)
}
