package config

import (
	"path/filepath"
	"regexp"
	"time"

	"gopkg.in/yaml.v3"
)

func (d *decoder) track(v value, t *Track) {
	d.object(v,
		optional("interfaces", func(v value) {
			d.list(v, "network interfaces", func(v value) {
				i := TrackInterface{}
				d.entry(v, "name", into(&i.Name, d.networkInterface), "the network interface, like eth1", d.weight(&i.Weight))
				t.Interfaces = append(t.Interfaces, i)
			})
		}),
		optional("scripts", func(v value) {
			d.list(v, "scripts", func(v value) {
				s := TrackScript{Weight: unwritten}
				d.entry(v, "name", into(&s.Name, d.name), "the name of one of vrrp.scripts", d.weight(&s.Weight))
				t.Scripts = append(t.Scripts, s)
			})
		}),
		optional("files", func(v value) {
			d.list(v, "files", func(v value) {
				f := TrackFile{}
				d.entry(v, "path", into(&f.Path, d.path(maxPath)), "the file, like /run/xdirector/lb1.weight", d.weight(&f.Weight))
				t.Files = append(t.Files, f)
			})
		}),
		optional("processes", func(v value) {
			d.list(v, "processes", func(v value) {
				p := TrackProcess{Min: 1}
				d.entry(v, "name", into(&p.Name, d.process), "the process, like nginx or /usr/sbin/nginx",
					optional("min", into(&p.Min, integer(d, 1, 1000))), d.weight(&p.Weight))
				t.Processes = append(t.Processes, p)
			})
		}),
		optional("services", func(v value) {
			d.list(v, "services", func(v value) {
				s := TrackService{MinUp: 1}
				d.entry(v, "name", into(&s.Name, d.name), "the name of one of the services",
					optional("min_up", into(&s.MinUp, integer(d, 1, 65535))), d.weight(&s.Weight))
				t.Services = append(t.Services, s)
			})
		}),
	)
}

// maxWeight takes the priority from one end of its range, 1 to 254, to the other.
const maxWeight = 253

func (d *decoder) weight(target *int) field {
	return optional("weight", into(target, integer(d, -maxWeight, maxWeight)))
}

var processName = regexp.MustCompile(`^[^/\x00-\x1f\x7f]{1,255}$`)

// process reads the name of an executable, or its whole path.
func (d *decoder) process(v value) (string, bool) {
	const allowed = "the name of an executable, like nginx, or its absolute path"
	s, ok := d.text(v, allowed)
	if !ok || processName.MatchString(s) {
		return s, ok
	}
	if filepath.IsAbs(s) {
		return d.path(maxPath)(v)
	}
	d.wrong(v, "%s is neither a name nor an absolute path; allowed: %s", quote(s), allowed)
	return "", false
}

func (d *decoder) script(v value) Script {
	s := Script{Interval: time.Second, Rise: 1, Fall: 1, User: "nobody"}
	timeout := false
	d.object(v,
		required("name", into(&s.Name, d.name), "a name of its own, like chk_nginx"),
		required("command", into(&s.Command, d.command), "an absolute path and its arguments, like [/usr/local/bin/check, --fast]"),
		optional("interval", into(&s.Interval, d.duration(scriptTime))),
		optional("timeout", func(v value) {
			timeout = true
			s.Timeout, _ = d.duration(scriptTime)(v)
		}),
		optional("rise", into(&s.Rise, integer(d, 1, 1000))),
		optional("fall", into(&s.Fall, integer(d, 1, 1000))),
		d.weight(&s.Weight),
		optional("user", into(&s.User, d.user)),
	)
	if !timeout {
		s.Timeout = s.Interval
	}
	return s
}

// command reads an absolute path, or a list of one and its arguments. There is no shell.
func (d *decoder) command(v value) ([]string, bool) {
	const allowed = "an absolute path, or a list of one and its arguments, like [/usr/local/bin/check, --fast]"
	if v.shape != nil {
		v.shape.oneOf(
			func(v value) { v.shape.text(allowed); v.matches(absolute) },
			func(v value) { v.shape.list(func(v value) { d.argument(v) }) },
		)
		return nil, false
	}
	if v.node.Kind != yaml.SequenceNode {
		s, ok := d.text(v, allowed)
		switch {
		case !ok:
			return nil, false
		case regexp.MustCompile(`\s`).MatchString(s):
			d.wrong(v, "%s has white space, and no shell takes it apart; allowed: %s", quote(s), allowed)
			return nil, false
		}
		path, ok := d.path(maxPath)(v)
		return []string{path}, ok
	}
	if len(v.node.Content) == 0 {
		d.wrong(v, "the list is empty; allowed: %s", allowed)
		return nil, false
	}
	var words []string
	good := true
	d.list(v, "words", func(v value) {
		word, ok := "", false
		if len(words) == 0 {
			word, ok = d.path(maxPath)(v)
		} else {
			word, ok = d.argument(v)
		}
		words, good = append(words, word), good && ok
	})
	return words, good
}

// argument reads one word of a command line; it may be empty.
func (d *decoder) argument(v value) (string, bool) {
	const allowed = "a text of at most 4000 bytes"
	if v.shape != nil {
		v.shape.text(allowed)
		v.shape.empty = true
		return "", true
	}
	if v.node.Kind == yaml.ScalarNode && v.node.ShortTag() == "!!str" && v.node.Value == "" {
		return "", true
	}
	s, ok := d.text(v, allowed)
	if ok && (len(s) > maxPath || nul.MatchString(s)) {
		d.wrong(v, "the argument is %d bytes long or has a zero byte; allowed: %s", len(s), allowed)
		return "", false
	}
	return s, ok
}

var userName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9._-]{0,31}$`)

func (d *decoder) user(v value) (string, bool) {
	const allowed = "the name of a user of this box, like nobody"
	s, ok := d.text(v, allowed)
	v.matches(userName)
	if ok && !userName.MatchString(s) {
		d.wrong(v, "%s can't be a user; allowed: %s", quote(s), allowed)
		return "", false
	}
	return s, ok
}

func (d *decoder) syncGroup(v value) SyncGroup {
	g := SyncGroup{}
	d.object(v,
		required("name", into(&g.Name, d.name), "a name of its own, like VG_1"),
		required("instances", func(v value) {
			d.list(v, "names of instances", func(v value) {
				name, _ := d.name(v)
				g.Instances = append(g.Instances, name)
			})
		}, "the names of two or more instances, like [VI_1, VI_2]"),
		d.hooks(&g.Notify, groupHooks...),
	)
	return g
}
