package config

import (
	"fmt"

	"github.com/xdirector/xdirector/pkg/lb"
)

// OnlyIPVS says what no XDP plane can do of the service, so that it is on IPVS while others are on XDP; empty: nothing.
func (s Service) OnlyIPVS() string {
	return lb.Service{Key: s.Key(), Forwarding: s.Forwarding}.OnlyIPVS()
}

// Lack is something that a service has and IPVS hasn't.
type Lack struct {
	Key  string // of the service's keys, for example "timeouts"
	Text string // what IPVS has instead, and the cure
	// Whole: without it the service would be another one, so IPVS can't have it at all.
	Whole bool
}

// LacksOnIPVS lists what IPVS can't do of the service.
func (s Service) LacksOnIPVS() []Lack {
	var list []Lack
	add := func(is bool, key string, whole bool, text string) {
		if is {
			list = append(list, Lack{Key: key, Text: text, Whole: whole})
		}
	}
	add(s.Bits != 0, "address", true, "IPVS has services of one address; mark the packets for "+s.Key().Prefix().String()+" and write firewall_mark instead")
	add(s.LastPort != 0, "port", true, "IPVS has services of one port or of all; write a service for each, or mark the packets and write firewall_mark instead")
	if s.FirewallMark == 0 && s.Address.IsValid() {
		add(s.Port == 0 && s.Persistence == 0, "port", true, "IPVS can serve all ports for persistent clients only; write persistence: {timeout: 50s}, or mark the packets and write firewall_mark instead")
	}
	add(s.Group != "", "persistence.group", false, "IPVS has no groups; mark the packets of all these services with one number and write one service with that firewall_mark instead")
	add(s.Timeouts != lb.Timeouts{}, "timeouts", false, "IPVS has one set of timeouts for the whole box; leave it out, and use ipvsadm --set")
	add(s.RefuseUnknown, "unknown", false, "IPVS schedules such packets; leave it out, or write unknown: maglev")
	const filter = "IPVS takes packets from everybody; leave it out, and drop what you don't want by nftables"
	add(len(s.Limits.Allow) > 0, "allow", true, filter)
	add(len(s.Limits.Deny) > 0, "deny", true, filter)
	add(s.Limits.New != lb.Rate{} || s.Limits.Packets != lb.Rate{}, "limits", false, "IPVS counts nothing by source; leave it out, and use a meter of nftables")
	add(s.NewFlows != 0, "new_flows", false, "IPVS remembers every flow; leave it out")
	return list
}

// planes reports what a service's plane can't do. Which one dataplane.mode: auto will find isn't known here.
func (d *decoder) planes(c *Config) {
	for n, s := range c.Services {
		path := fmt.Sprintf("services[%d]", n)
		why := s.OnlyIPVS()
		if why == "" && c.Dataplane.Mode == ModeIPVS {
			why = "dataplane.mode is ipvs"
		}
		if why == "" {
			continue
		}
		for _, lack := range s.LacksOnIPVS() {
			if at := path + "." + lack.Key; d.written(at) && !d.reported(at) {
				d.wrongAt(at, "not possible here, since %s: %s", why, lack.Text)
			}
		}
	}
}
