package keepalived

import (
	"io/fs"
	"strings"
	"time"
)

// syncGroups finds which instances change state together; what they say of themselves follows with syncGroup.
func (c *converter) syncGroups() []*node {
	var list []*node
	names := map[string]*node{}
	for _, g := range c.tree.each("vrrp_sync_group") {
		switch {
		case g.arg(1) == "":
			g.all(Unsupported, "it has no name")
			continue
		case names[g.arg(1)] != nil:
			g.all(Unsupported, "there is a group of this name already, at line %d, which keepalived uses", names[g.arg(1)].at.number)
			continue
		}
		names[g.arg(1)] = g
		list = append(list, g)
		weighs := g.find("sync_group_tracking_weight") != nil || g.find("global_tracking") != nil
		for _, m := range members(g) {
			if i := c.instances[m.name]; i != nil && i.group == nil {
				i.group, i.weighs = g, weighs
			}
		}
	}
	return list
}

// member is a name in a group; several may stand on one line.
type member struct {
	name string
	at   *node
}

func members(g *node) []member {
	var list []member
	for _, block := range g.each("group") {
		block.done()
		for _, k := range block.kids {
			for _, w := range k.words {
				list = append(list, member{w, k})
			}
		}
	}
	return list
}

// syncGroup converts one vrrp_sync_group. What it tracks is tracked by each of its members.
func (c *converter) syncGroup(out *value, g *node) {
	m := mapping(g)
	m.set("name", text(c.name("sync group", g.arg(1), g)))
	list := sequenceOf()
	var mine []*instance
	for _, w := range members(g) {
		i := c.instances[w.name]
		switch {
		case i == nil:
			w.at.note(Unsupported, "there is no vrrp_instance %s, and keepalived leaves it out", quote(w.name))
		case i.group != g:
			w.at.note(Unsupported, "%s is in another group already, at line %d", quote(w.name), i.group.at.number)
		default:
			list.add(text(i.name, w.at))
			mine = append(mine, i)
		}
	}
	if len(mine) == 0 {
		g.all(Unsupported, "none of its instances is there, and keepalived leaves the group out")
		return
	}
	c.superseded(g)
	for _, k := range g.kids {
		switch k.keyword() {
		case "group", "smtp_alert": // members and alert do them
		case "track_interface", "track_script", "track_file", "track_process":
			for _, i := range mine {
				c.trackBlock(i, k)
			}
		default:
			switch {
			case c.instances[k.keyword()] != nil:
				k.note(Unsupported, "names of instances stand within group { } in keepalived, and it leaves this one out")
			case groupHooks()[k.keyword()] == "":
				c.rest(atGroup, k)
			}
		}
	}
	m.set("instances", list)
	hooks := c.hooks(g, groupHooks())
	if len(mine) == 1 {
		c.alert(g, mine[0].name, "smtp_alert_vrrp", false)
		g.note(NotNeeded, "a group of one: it changes state with nobody")
		if hooks != nil && mine[0].out.get("notify") == nil {
			mine[0].out.set("notify", hooks)
			g.note(Converted, "its commands are those of the instance, and are called with INSTANCE instead of GROUP")
		} else if hooks != nil {
			hooks.noteAll(Unsupported, "the instance has commands of its own, and a group of one isn't there")
		}
		return
	}
	m.set("notify", hooks)
	c.alert(g, c.name("sync group", g.arg(1), nil), "smtp_alert_vrrp", false)
	out.add(m)
}

// trackBlock converts what an instance, or the group that it is in, depends on. What the instance says itself comes first.
func (c *converter) trackBlock(i *instance, block *node) {
	block.done()
	own := block.parent == i.node
	for _, k := range block.kids {
		name := k.arg(0)
		weight, written := c.trackWeight(k)
		switch block.keyword() {
		case "track_interface":
			if i.node.find("interface").arg2() == name {
				k.note(NotNeeded, "it is the interface of the instance itself, which counts always")
				continue
			}
			c.track(i, "interfaces", "name", name, c.grouped(i, k, own, weight), k)
		case "track_script":
			s := c.scripts[name]
			if s == nil {
				k.note(Unsupported, "there is no vrrp_script %s, and keepalived leaves it out", quote(name))
				continue
			}
			if c.below(k, s) {
				continue
			}
			if w := s.find("weight"); !written && w != nil {
				weight, _ = c.weightOf(w)
			}
			if weight != 0 && own && (!i.weighs || i.priority == 255) {
				c.ignored(i, k, "does not track it")
				continue
			}
			c.inUse[s] = true
			c.track(i, "scripts", "name", c.name("script", name, s), weight, k)
		case "track_file":
			f := c.files[name]
			path := f.find2("file").arg2()
			if f == nil || f.find("file") == nil {
				k.note(Unsupported, "there is no track_file %s with a file, and keepalived leaves it out", quote(name))
				continue
			}
			if c.below(k, f) {
				continue
			}
			if !written {
				weight = 1
				if w := f.find("weight"); w != nil {
					weight, _ = c.weightOf(w)
				}
			}
			c.track(i, "files", "path", path, c.grouped(i, k, own, weight), k, f.find("file"))
			c.declaredFile(f)
		case "track_process":
			p := c.processes[name]
			if p == nil || p.find("process") == nil {
				k.note(Unsupported, "there is no vrrp_track_process %s with a process, and keepalived leaves it out", quote(name))
				continue
			}
			if c.below(k, p) {
				continue
			}
			if w := p.find("weight"); !written && w != nil {
				weight, _ = c.weightOf(w)
			}
			c.process(i, p, weight, k)
		}
	}
}

// below says whether something is declared behind what would track it: then keepalived doesn't.
func (c *converter) below(k, declared *node) bool {
	if declared.order < k.order {
		return false
	}
	k.note(NotNeeded, "keepalived doesn't track it, since it reads %s further down only, at line %d; write that above if it shall be tracked, and convert again",
		declared.keyword(), declared.at.number)
	return true
}

// find2 is find on a node that may not be there.
func (n *node) find2(keyword string) *node {
	if n == nil {
		return nil
	}
	return n.find(keyword)
}

// ignored says that keepalived doesn't look at a weight, and why.
func (c *converter) ignored(i *instance, k *node, what string) {
	why := "the instance is in a sync group without sync_group_tracking_weight"
	if i.priority == 255 {
		why = "priority 255 never changes"
	}
	k.note(NotNeeded, "keepalived %s, since %s", what, why)
}

// grouped is the weight that is left of one within a sync group: there keepalived makes all of them 0.
func (c *converter) grouped(i *instance, k *node, own bool, weight int) int {
	if weight == 0 || !own || i.weighs && i.priority != 255 {
		return weight
	}
	why := "the instance is in a sync group without sync_group_tracking_weight"
	if i.priority == 255 {
		why = "priority 255 never changes"
	}
	k.note(Converted, "keepalived takes weight 0, which is FAULT while it is bad, since %s", why)
	return 0
}

// trackWeight reads NAME [weight N [reverse]].
func (c *converter) trackWeight(k *node) (weight int, written bool) {
	for w := 1; w < len(k.words); w++ {
		switch k.arg(w) {
		case "weight":
			weight, written = c.weight(k, k.arg(w+1)), true
			w++
		case "reverse":
			k.note(Unsupported, "reverse: a weight can't be turned round")
		case "noreverse", "no_reverse":
		default:
			k.note(Converted, "keepalived reads one name of a line, and leaves out %s", quote(k.arg(w)))
		}
	}
	return weight, written
}

// weightOf reads a weight statement.
func (c *converter) weightOf(n *node) (int, bool) {
	n.done()
	if n.arg(2) == "reverse" {
		n.note(Unsupported, "reverse: a weight can't be turned round")
	}
	return c.weight(n, n.arg(1)), true
}

func (c *converter) weight(n *node, s string) int {
	v, ok := atoi(s)
	switch {
	case !ok:
		n.note(Unsupported, "%s is no weight of -253 to 253", quote(s))
		return 0
	case v < -253 || v > 253:
		n.note(Unsupported, "weights are -253 to 253, and the next one is written")
		return min(max(v, -253), 253)
	}
	return v
}

// track adds one thing to what the instance depends on.
func (c *converter) track(i *instance, kind, key, name string, weight int, from *node, others ...*node) {
	if id := kind + " " + name; i.tracked[id] {
		from.note(NotNeeded, "%s tracks it already", i.name)
		return
	} else {
		i.tracked[id] = true
	}
	list := i.track[kind]
	if list == nil {
		list = sequenceOf()
		i.track[kind] = list
	}
	m := mapping(append([]*node{from}, others...)...)
	m.set(key, text(name))
	if weight != 0 || kind == "scripts" {
		m.set("weight", word(weight))
	}
	list.add(m)
}

func (c *converter) declaredFile(f *node) {
	if c.inUse[f] {
		return
	}
	c.inUse[f] = true
	f.done()
	for _, k := range f.kids {
		switch k.keyword() {
		case "file":
			extra(k, 1)
			if !k.at.used {
				k.note(NotNeeded, "the file is tracked under another name already")
			}
		case "weight":
			k.done() // each instance has it, or one of its own
		default:
			c.rest(atFile, k)
		}
	}
}

func (c *converter) process(i *instance, p *node, weight int, k *node) {
	c.inUse[p] = true
	cmd := p.find("process")
	id := "processes " + cmd.arg(1)
	if i.tracked[id] {
		k.note(NotNeeded, "%s tracks it already", i.name)
		return
	}
	c.track(i, "processes", "name", cmd.arg(1), 0, k, cmd)
	entry := i.track["processes"].items[len(i.track["processes"].items)-1]
	if len(cmd.words) > 2 {
		cmd.note(Unsupported, "processes are known by their name, not by their arguments: all of that name count")
	}
	for _, s := range p.kids {
		switch s.keyword() {
		case "process":
		case "weight":
			s.done()
		case "quorum":
			if v, ok := number(s, 1, 1, 65535); ok {
				entry.set("min", word(v, s))
			}
		default:
			c.rest(atProcess, s)
		}
	}
	p.done()
	if weight != 0 {
		entry.set("weight", word(weight))
	}
}

// scriptList converts the vrrp_scripts that something tracks, in the order of the file.
func (c *converter) scriptList() *value {
	list := sequenceOf()
	for _, n := range c.tree.each("vrrp_script") {
		if c.scripts[n.arg(1)] != n || !c.inUse[n] {
			continue
		}
		m := mapping(n)
		m.set("name", text(c.name("script", n.arg(1), n)))
		c.superseded(n)
		user, from := c.user, (*node)(nil)
		if u := n.find("user"); u != nil && u.arg(1) != "" {
			user, from = u.arg(1), u
			u.done()
			if u.arg(2) != "" {
				u.note(Converted, "the group is that of the user")
			}
		}
		for _, k := range n.kids {
			switch k.keyword() {
			case "script":
				first := escaped(strings.TrimPrefix(k.raw, k.keyword()))
				if len(first) > 1 {
					k.note(Converted, "keepalived runs the first word alone: arguments count within quotes only")
				}
				if len(first) == 0 {
					first = []string{""}
				}
				m.set("command", c.command(first[0], user, k))
			case "interval", "timeout":
				if v, ok := number(k, 1, 1, 86400); ok {
					m.set(k.keyword(), duration(time.Duration(v)*time.Second, k))
				}
			case "rise", "fall":
				if v, ok := number(k, 1, 1, 1000); ok {
					m.set(k.keyword(), word(v, k))
				}
			case "weight":
				if v, _ := c.weightOf(k); v != 0 {
					m.set("weight", word(v))
				}
			case "user":
				valued(k)
			default:
				c.rest(atScript, k)
			}
		}
		m.set("user", text(user, from))
		list.add(m)
	}
	return list
}

// command takes a command line apart as keepalived does, and finds where a command without a path is.
func (c *converter) command(line, user string, at *node) *value {
	list := escaped(line)
	if len(list) == 0 {
		at.note(Unsupported, "there is no command")
		return nil
	}
	missing := ""
	if at.keyword() == "script" {
		missing = ". keepalived leaves a script out that it can't find; here one that can't be run counts as failed"
	}
	if strings.HasPrefix(list[0], "/") {
		if _, err := fs.Stat(c.root, below(list[0])); err != nil && missing != "" {
			at.note(Converted, "it is not on this box%s", missing)
		}
	} else {
		found := ""
		for _, folder := range []string{"/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"} {
			if _, err := fs.Stat(c.root, below(folder+"/"+list[0])); err == nil && !strings.Contains(list[0], "/") && list[0] != "" && list[0] != "." && list[0] != ".." {
				found = folder + "/" + list[0]
				break
			}
		}
		if found == "" {
			found = "/usr/bin/" + strings.TrimLeft(list[0], "./")
			at.note(Converted, "%s is not found on this box; %s is written: look for it%s", quote(list[0]), found, missing)
		} else {
			at.note(Converted, "it is %s on this box", found)
		}
		if strings.HasSuffix(list[0], "killall") || list[0] == "pkill" || list[0] == "pidof" {
			at.note(Converted, "track: {processes} does that without a command")
		}
		list[0] = found
	}
	for _, w := range list[1:] {
		switch w {
		case "&&", "||", "|", ";", ">", ">>", "<", "2>&1", ">/dev/null", "2>/dev/null", "&":
			at.note(Converted, "%s is an argument like others, here as in keepalived: there is no shell; put the line into a script, or write [/bin/sh, -c, ...]", w)
		}
	}
	if user == "root" && c.whyRoot != "" {
		at.note(Converted, "%s; user: nobody is better if that does", c.whyRoot)
	}
	at.done()
	if len(list) == 1 {
		return text(list[0], at)
	}
	return strs(list, at)
}
