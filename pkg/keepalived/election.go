package keepalived

import (
	"math"
	"time"
)

// strict says whether the instance keeps to the letter of the RFC, which takes some things away.
func (c *converter) strict(n *node) bool {
	on := false
	if g := c.global.find("vrrp_strict"); g != nil {
		on = true
		g.note(Unsupported, "there is no strict mode; what it takes away is left out, and accept: false written where no accept is")
	}
	if k := n.find("strict_mode"); k != nil {
		if v, ok := boolean(k, 1); ok {
			if on = v; !on {
				k.note(NotNeeded, "there is no strict mode")
			} else {
				k.note(Unsupported, "there is no strict mode; what it takes away is left out, and accept: false written where no accept is")
			}
		}
	}
	return on
}

// state says nothing about who is MASTER, but has two side effects.
func (c *converter) state(i *instance, k *node) {
	switch {
	case k.arg(1) != "MASTER" && k.arg(1) != "BACKUP":
		k.note(NotNeeded, "%s is no state, so that keepalived takes BACKUP, which everybody starts as", quote(k.arg(1)))
	case i.master && i.priority == 255 && i.node.find("priority") == nil: // priority has told
	case i.master && i.priority == 255:
		k.note(NotNeeded, "priority 255 becomes MASTER at once in any case")
	case i.master:
		k.note(NotNeeded, "it has no effect on who is MASTER: every director starts as BACKUP, and the priority decides")
	default:
		k.note(NotNeeded, "every director starts as BACKUP")
	}
}

// version is 2 or 3; IPv6 is always 3 here.
func (c *converter) version(i *instance) int {
	version, from := c.globalNumber("vrrp_version", 2, 3)
	if k := i.node.find("version"); k != nil {
		if v, ok := number(k, 1, 2, 3); ok {
			k.done()
			version, from = v, k
		}
	}
	if from == nil {
		version = 2
	}
	if i.six {
		if version == 2 && from != nil && from.keyword() == "version" {
			from.note(Unsupported, "IPv6 is VRRP version 3; keepalived speaks a version 2 of its own with it, so change all directors of this instance at the same time")
		}
		return 3
	}
	if version == 3 {
		i.out.set("version", word(3, from))
	}
	return version
}

func (c *converter) priority(i *instance) {
	i.priority = 100
	k := i.node.find("priority")
	if k != nil {
		if v, ok := number(k, 1, 1, 255); ok {
			extra(k, 1)
			i.priority = v
			i.out.set("priority", word(v, k))
			return
		}
	}
	// What is not a priority counts as none written, and then the state decides.
	if i.master {
		i.priority = 255
		at := i.node.find("state")
		i.out.set("priority", word(255))
		at.note(Converted, "without a priority, state MASTER gives priority 255, which is for who owns the addresses: write a lower one here and in keepalived")
		return
	}
	i.out.set("priority", word(100, k))
}

// interval is rounded as keepalived does: to whole seconds in version 2, to hundredths in version 3.
func (c *converter) interval(i *instance, version int) {
	k := i.node.find("advert_int")
	if k == nil {
		return
	}
	d, ok := seconds(k, 1, 0.01, 255)
	if !ok {
		return
	}
	extra(k, 1)
	step, high := time.Second, 255*time.Second
	if version == 3 {
		step, high = 10*time.Millisecond, 40950*time.Millisecond
	}
	rounded := min(max(time.Duration(math.Round(float64(d)/float64(step)))*step, step), high)
	if rounded != d {
		k.note(Converted, "it is %s: version %d has steps of %s, which keepalived rounds to", rounded, version, step)
	}
	i.out.set("advert_interval", duration(rounded, k))
}

func (c *converter) preemption(i *instance) {
	no, delay := i.node.find("nopreempt"), i.node.find("preempt_delay")
	if p := i.node.find("preempt"); p != nil && no != nil && later(i.node, p, no) {
		no.note(NotNeeded, "preempt takes its effect away, at line %d", p.at.number)
		no = nil
	}
	if no != nil {
		extra(no, 0)
		switch {
		case i.master:
			no.note(NotNeeded, "it has no effect in keepalived beside state MASTER: this director does preempt; if it shall not, write state BACKUP there, and preempt: false here")
			no = nil
		case i.priority == 255:
			no.note(NotNeeded, "it has no effect with priority 255")
			no = nil
		default:
			i.out.set("preempt", word(false, no))
		}
	}
	if delay != nil {
		d, ok := seconds(delay, 1, 0, 1000)
		switch {
		case !ok:
		case i.master:
			delay.note(NotNeeded, "it has no effect in keepalived beside state MASTER; if it shall have one, write state BACKUP there, and preempt_delay here")
		case no != nil:
			delay.note(NotNeeded, "it has no effect beside nopreempt")
		default:
			i.out.set("preempt_delay", duration(d, delay))
		}
	}
}

// later says whether a stands behind b.
func later(block, a, b *node) bool {
	for _, k := range block.kids {
		if k == a {
			return false
		}
		if k == b {
			return true
		}
	}
	return false
}

func (c *converter) downTimer(i *instance) {
	v, from := c.globalNumber("vrrp_down_timer_adverts", 1, 100)
	if k := i.node.find("down_timer_adverts"); k != nil {
		if own, ok := number(k, 1, 1, 100); ok {
			v, from = own, k
		}
	}
	if from != nil {
		i.out.set("down_timer_adverts", word(v, from))
	}
}
