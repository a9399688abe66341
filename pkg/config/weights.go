package config

import "fmt"

// tracked is one thing that an instance tracks.
type tracked struct {
	at, kind, name string
	weight         int
	count          bool // the weight is multiplied by a number that only the box knows
}

// list gives everything that is tracked; path is that of the track key.
func (t Track) list(path string) []tracked {
	var all []tracked
	add := func(kind string, n int, name string, weight int) {
		all = append(all, tracked{fmt.Sprintf("%s.%s[%d]", path, kind, n), kind, name, weight, kind == "files"})
	}
	for n, i := range t.Interfaces {
		add("interfaces", n, i.Name, i.Weight)
	}
	for n, s := range t.Scripts {
		add("scripts", n, s.Name, s.Weight)
	}
	for n, f := range t.Files {
		add("files", n, f.Path, f.Weight)
	}
	for n, p := range t.Processes {
		add("processes", n, p.Name, p.Weight)
	}
	for n, s := range t.Services {
		add("services", n, s.Name, s.Weight)
	}
	return all
}

// tracking checks that what is tracked exists, and warns of weights that can't make a difference.
func (d *decoder) tracking(c *Config) {
	scripts, services := map[string]bool{}, map[string]Service{}
	var scriptNames, serviceNames []string
	names := map[string]string{}
	for n, s := range c.Scripts {
		path := fmt.Sprintf("vrrp.scripts[%d]", n)
		if other, ok := taken(names, s.Name, path); ok {
			d.wrongAt(path+".name", "%s is the name of %s too; every script needs its own", quote(s.Name), other)
		}
		scripts[s.Name], scriptNames = false, append(scriptNames, s.Name)
	}
	for _, s := range c.Services {
		services[s.Name], serviceNames = s, append(serviceNames, s.Name)
	}
	for n, i := range c.Instances {
		path := fmt.Sprintf("vrrp.instances[%d].track", n)
		have := map[string]string{}
		list := i.Track.list(path)
		for _, t := range list {
			if first, ok := taken(have, t.kind+" "+t.name, t.at); ok && t.name != "" {
				d.wrongAt(t.at, "%s is tracked twice, first as %s; write it once", quote(t.name), first)
			}
		}
		for k, t := range i.Track.Interfaces {
			d.ownInterface(fmt.Sprintf("%s.interfaces[%d]", path, k), i, t)
		}
		for k, t := range i.Track.Scripts {
			if _, ok := scripts[t.Name]; ok {
				scripts[t.Name] = true
			} else if t.Name != "" {
				d.wrongAt(fmt.Sprintf("%s.scripts[%d]", path, k), "vrrp.scripts has no %s%s", quote(t.Name), d.among(t.Name, scriptNames))
			}
		}
		for k, t := range i.Track.Services {
			at := fmt.Sprintf("%s.services[%d]", path, k)
			if s, ok := services[t.Name]; ok {
				d.minUp(at, s, t)
			} else if t.Name != "" {
				d.wrongAt(at, "there is no service %s%s", quote(t.Name), d.among(t.Name, serviceNames))
			}
		}
		d.weights(i, list)
	}
	for n, s := range c.Scripts {
		if !scripts[s.Name] && s.Name != "" {
			d.warnAt(fmt.Sprintf("vrrp.scripts[%d]", n), "no instance tracks %s, so that it never runs; add it to track.scripts of one, or leave it out", s.Name)
		}
	}
}

func (d *decoder) ownInterface(at string, i Instance, t TrackInterface) {
	switch {
	case t.Name == "" || t.Name != i.Interface:
	case t.Weight != 0:
		d.wrongAt(at, "%s is the interface of the instance itself, without which it is in FAULT; a weight is for others, so leave it out", t.Name)
	default:
		d.warnAt(at, "%s is the interface of the instance itself, which is tracked anyway; leave it out", t.Name)
	}
}

func (d *decoder) minUp(at string, s Service, t TrackService) {
	able := 0
	for _, r := range s.RealServers {
		if r.Weight > 0 {
			able++
		}
	}
	switch {
	case t.MinUp > len(s.RealServers):
		d.wrongAt(at+".min_up", "%d, but %s has %d real servers; allowed: 1 to %d", t.MinUp, s.Name, len(s.RealServers), len(s.RealServers))
	case t.MinUp > able:
		d.warnAt(at+".min_up", "%d, but of the real servers of %s only %d have a weight above 0: it is never good", t.MinUp, s.Name, able)
	}
}

// weights warns of weights that change nothing. The priority in use is the configured one and all positive weights
// while everything is good, kept within 1 to 254.
func (d *decoder) weights(i Instance, list []tracked) {
	if i.Priority == 0 {
		return
	}
	good := int(i.Priority)
	for _, t := range list {
		if !t.count {
			good += max(0, t.weight)
		}
	}
	for _, t := range list {
		at := t.at + ".weight"
		with, without := min(good, 254), max(1, min(good-max(t.weight, -t.weight), 254))
		switch {
		case t.weight == 0:
		case i.Priority == 255:
			d.warnAt(at, "%d has no effect: priority 255 is never changed; write weight 0 for FAULT, or a lower priority", t.weight)
		case !t.count && with == without && good > 254:
			d.warnAt(at, "%d changes nothing if only this fails: the sum of priority and weights is %d, and 254 is the highest in use; lower the priority or the weights", t.weight, good)
		case !t.count && with == without:
			d.warnAt(at, "%d changes nothing: 1 is the lowest priority in use; raise the priority", t.weight)
		case !i.Preempt:
			d.warnAt(at, "%d doesn't end being MASTER where all directors have preempt: false: a BACKUP leaves a MASTER of lower priority alone; write weight 0 for FAULT, or preempt: true", t.weight)
		}
	}
}
