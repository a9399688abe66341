package status

import "fmt"

// Lost says what was served in one picture and is no longer in another one, though the configuration still has it; empty:
// nothing. What was as bad before is not lost.
func Lost(before, after *Status) string {
	if after.Stopping {
		return ""
	}
	if before.Healthy && !after.Healthy {
		return after.Unhealthy
	}
	states := map[string]*Instance{}
	for n := range before.Instances {
		states[before.Instances[n].Name] = &before.Instances[n]
	}
	for _, i := range after.Instances {
		if b := states[i.Name]; b != nil && i.State == "FAULT" && (b.State == "MASTER" || b.State == "BACKUP") {
			return fmt.Sprintf("instance %s is in FAULT, was %s: %s", i.Name, b.State, i.Reason)
		}
	}
	names, places := map[string]*Service{}, map[string]*Service{}
	for n := range before.Services {
		v := &before.Services[n]
		names[v.Name], places[v.place()] = v, v
	}
	for n := range after.Services {
		v := &after.Services[n]
		b := names[v.Name]
		if b == nil {
			b = places[v.place()]
		}
		if b == nil {
			continue
		}
		if was := b.live(); was > 0 && v.live() == 0 {
			return fmt.Sprintf("service %s has no live real server, had %d: %s", v.Name, was, v.whyNone())
		}
	}
	return ""
}

func (v *Service) place() string { return v.Protocol + " " + v.Endpoint() }

// live is how many real servers can take new flows.
func (v *Service) live() int {
	n := 0
	for i := range v.RealServers {
		if v.RealServers[i].idle() == "" {
			n++
		}
	}
	return n
}

// idle says why a real server can take no new flows; empty: it can.
func (r *RealServer) idle() string {
	switch {
	case !r.Up:
		return r.Reason
	case r.Weight == 0:
		return "its weight is 0"
	}
	return r.NextHopError
}

// whyNone is why the first real server can take no new flows.
func (v *Service) whyNone() string {
	if len(v.RealServers) == 0 {
		return "it has none"
	}
	return v.RealServers[0].Address + ": " + v.RealServers[0].idle()
}
