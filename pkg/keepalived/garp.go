package keepalived

import (
	"strings"
	"time"
)

// garp writes what differs from the defaults, which are keepalived's.
func (c *converter) garp(i *instance, strict bool) {
	g := mapping()
	const most = 1000
	type setting[T any] struct {
		v    T
		from *node
	}
	delay, lowerDelay := setting[time.Duration]{5 * time.Second, nil}, setting[time.Duration]{}
	repeat, lowerRepeat := setting[int]{5, nil}, setting[int]{}
	if k := c.global.find("vrrp_min_garp"); k != nil {
		if on, ok := boolean(k, 1); ok && !on {
			k.done()
		} else if ok {
			k.done()
			delay, repeat = setting[time.Duration]{0, k}, setting[int]{1, k}
		}
	}
	if d, from := c.globalSeconds("vrrp_garp_master_delay", 0, most); from != nil {
		delay = setting[time.Duration]{d, from}
	}
	if v, from := c.globalNumber("vrrp_garp_master_repeat", 1, 100); from != nil {
		repeat = setting[int]{v, from}
	}
	// A lower MASTER's follow those of global_defs, not those of the instance.
	lowerDelay, lowerRepeat = delay, repeat
	if d, from := c.globalSeconds("vrrp_garp_lower_prio_delay", 0, most); from != nil {
		lowerDelay = setting[time.Duration]{d, from}
	}
	if v, from := c.globalNumber("vrrp_garp_lower_prio_repeat", 0, 100); from != nil {
		lowerRepeat = setting[int]{v, from}
	}
	refresh, refreshFrom := c.globalSeconds("vrrp_garp_master_refresh", 0, 86400)
	refreshRepeat, refreshRepeatFrom := c.globalNumber("vrrp_garp_master_refresh_repeat", 1, 100)
	for _, k := range i.node.kids {
		switch k.keyword() {
		case "garp_master_delay":
			if d, ok := seconds(k, 1, 0, most); ok {
				k.done()
				delay = setting[time.Duration]{d, k}
			}
		case "garp_master_repeat":
			if v, ok := number(k, 1, 1, 100); ok {
				k.done()
				repeat = setting[int]{v, k}
			}
		case "garp_lower_prio_delay":
			if d, ok := seconds(k, 1, 0, most); ok {
				k.done()
				lowerDelay = setting[time.Duration]{d, k}
			}
		case "garp_lower_prio_repeat":
			if v, ok := number(k, 1, 0, 100); ok {
				k.done()
				lowerRepeat = setting[int]{v, k}
			}
		case "garp_master_refresh":
			if d, ok := seconds(k, 1, 0, 86400); ok {
				k.done()
				refresh, refreshFrom = d, k
			}
		case "garp_master_refresh_repeat":
			if v, ok := number(k, 1, 1, 100); ok {
				k.done()
				refreshRepeat, refreshRepeatFrom = v, k
			}
		}
	}
	if strict {
		lowerRepeat = setting[int]{0, nil}
	}
	if repeat.from != nil {
		g.set("repeat", word(repeat.v, repeat.from))
	}
	if delay.from != nil {
		g.set("delay", duration(delay.v, delay.from))
	}
	if refreshFrom != nil && refresh > 0 {
		g.set("refresh", duration(max(refresh.Round(time.Second), time.Second), refreshFrom))
	}
	if refreshRepeatFrom != nil {
		g.set("refresh_repeat", word(refreshRepeat, refreshRepeatFrom))
	}
	keyword, other := "vrrp_garp_interval", "vrrp_gna_interval"
	if i.six {
		keyword, other = other, keyword
	}
	if d, from := c.globalSeconds(keyword, 0, 1); from != nil && d > 0 {
		g.set("interval", duration(d, from))
	}
	if k := c.global.find(other); k != nil && !k.at.used {
		k.note(NotNeeded, "no instance is of that family")
	}
	if lowerRepeat.v != repeat.v {
		g.set("lower_priority_repeat", word(lowerRepeat.v, lowerRepeat.from))
	}
	if lowerDelay.v != delay.v {
		g.set("lower_priority_delay", duration(lowerDelay.v, lowerDelay.from))
	}
	i.out.set("garp", g)
}

func (c *converter) virtualMAC(i *instance, k *node) {
	name := ""
	for _, w := range k.words[1:] {
		if strings.Count(w, ":") >= 4 {
			k.note(Unsupported, "the MAC follows from virtual_router_id and can't be another one")
			continue
		}
		name = w
	}
	if name == "" {
		i.out.set("virtual_mac", word(true, k))
		k.note(Converted, "keepalived calls the macvlan vrrp.%s, here it is vrrp%d-%[1]s", i.node.find("virtual_router_id").arg2(), map[bool]int{false: 4, true: 6}[i.six])
		return
	}
	m := mapping(k)
	m.set("name", text(name))
	i.out.set("virtual_mac", m)
}

// arg2 is the value of a statement that may not be there.
func (n *node) arg2() string {
	if n == nil {
		return "VRID"
	}
	return n.arg(1)
}
