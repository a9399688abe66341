package director

import (
	"cmp"
	"fmt"
	"sort"
	"strings"
	"time"

	"github.com/xdirector/xdirector/pkg/config"
	"github.com/xdirector/xdirector/pkg/ha"
	"github.com/xdirector/xdirector/pkg/lb"
	"github.com/xdirector/xdirector/pkg/neigh"
	"github.com/xdirector/xdirector/pkg/status"
)

// Status returns the latest picture of the whole; nil before the first. It must not be changed.
func (d *Director) Status() *status.Status {
	s := d.picture.Load()
	if s == nil {
		return nil
	}
	if age := time.Since(s.Time); age > loopStuck {
		stuck := *s
		stuck.Healthy = false
		stuck.Unhealthy = fmt.Sprintf("the director's loop has not turned for %s; restart the service if that lasts", age.Round(time.Second))
		return &stuck
	}
	return s
}

// Events returns the feed of what changes from picture to picture.
func (d *Director) Events() *status.Feed { return &d.events }

// publish makes a new picture of the whole.
func (d *Director) publish() {
	s := &status.Status{
		Version:  d.opts.Version,
		RouterID: d.routerID(),
		Started:  d.started,
		Time:     time.Now(),
		Stopping: d.stopping,
		Plane: status.Plane{Name: string(d.plane.name), Reason: d.plane.why(), Degraded: d.degraded(),
			Differences: append(d.shortcomings(), d.plane.differences...)},
		Reload: d.reloaded,

		Maintenance: d.operator.Maintenance,
		Election:    d.electionPicture(),
	}
	d.ledger.open(d.cfg)
	d.ledger.settleElection(&s.Election)
	s.Unhealthy = d.unhealthy()
	s.Healthy = s.Unhealthy == ""
	counters, measured := d.meter.counters()
	s.Counted, s.Measured = counters.FlowsAt, measured
	s.Instances = d.instancePictures(counters.Adverts)
	facts := d.facts(d.cfg)
	for _, service := range d.cfg.Services {
		s.Services = append(s.Services, d.servicePicture(service, d.planePicture(service, s.Plane), counters, facts))
	}
	s.Overrides = d.overrides(counters)
	s.FlowTable = status.FlowTable(counters.FlowTable)
	if s.FlowTable.Size > 0 {
		s.FlowTable.Unstored = d.ledger.other("unstored").Observe(s.FlowTable.Unstored)
	}
	for name, mode := range d.plane.modes {
		c := counters.Interfaces[name]
		i := status.Interface{Name: name, Mode: string(mode), Verdicts: c.Verdicts, Drops: c.Drops}
		for _, lost := range c.Lost {
			i.Lost = append(i.Lost, status.RedirectErrors(lost))
		}
		d.ledger.settleInterface(&i)
		s.Interfaces = append(s.Interfaces, i)
	}
	sort.Slice(s.Interfaces, func(a, b int) bool { return s.Interfaces[a].Name < s.Interfaces[b].Name })
	if d.notifier != nil {
		s.Notifications = d.notificationPictures()
		d.ledger.settleNotifications(s.Notifications)
	}
	d.events.Publish(status.Changes(d.picture.Swap(s), s))
	d.pictureTook = time.Since(s.Time)
}

// unhealthy says what is not as configured; empty: nothing.
func (d *Director) unhealthy() string {
	switch {
	case d.stopping:
		return "this director is stopping"
	case d.applyErr != nil:
		return "the plane could not be updated: " + d.applyErr.Error()
	case d.unserved() != "":
		return d.unserved()
	case d.meter.failure() != nil:
		return "the plane's counters can't be read: " + d.meter.failure().Error()
	case time.Since(d.reportAt) > reportLate:
		return fmt.Sprintf("the election has not reported for %s", time.Since(d.reportAt).Round(time.Second))
	}
	return ""
}

// instances is the last picture of all instances, and what it was made of: of a thousand that do nothing, a new one
// every second would cost more than their elections.
type instances struct {
	cfg       *config.Config
	reported  time.Time
	ordered   uint64
	list      []status.Instance
	addresses [][]string // of each, as configured
}

// instancePictures are the pictures of all instances. adverts is what the plane did with adverts, by instance.
func (d *Director) instancePictures(adverts map[string]map[string]uint64) []status.Instance {
	last := &d.instances
	if last.cfg == d.cfg && last.reported.Equal(d.reportAt) && last.ordered == d.orders && len(adverts) == 0 {
		return last.list
	}
	if last.cfg != d.cfg {
		last.addresses = nil
		for _, i := range d.cfg.Instances {
			last.addresses = append(last.addresses, addresses(i))
		}
	}
	reports := map[string]ha.InstanceReport{}
	for _, r := range d.report.Instances {
		reports[r.Name] = r
	}
	groups := syncGroups(d.cfg)
	d.ledger.open(d.cfg)
	var list []status.Instance
	for n, i := range d.cfg.Instances {
		report, reported := reports[i.Name]
		p := instancePicture(i, report, adverts[i.Name])
		d.ledger.instances[i.Name].settle(&p, reported, adverts[i.Name] != nil)
		p.Addresses = last.addresses[n]
		p.SyncGroup = groups[i.Name]
		p.Yielding = d.yielding(i.Name)
		list = append(list, p)
	}
	last.cfg, last.reported, last.ordered, last.list = d.cfg, d.reportAt, d.orders, list
	return list
}

// addresses are those that an instance holds, in words.
func addresses(i config.Instance) []string {
	var list []string
	for _, a := range i.Held() {
		list = append(list, a.Prefix.String())
	}
	return list
}

// instancePicture is the picture of one instance. adverts is what the plane did with adverts to it, see lb.Counters.
func instancePicture(i config.Instance, r ha.InstanceReport, adverts map[string]uint64) status.Instance {
	p := status.Instance{
		Name:            i.Name,
		Interface:       i.Interface,
		VirtualRouterID: i.VirtualRouterID,
		Version:         i.Version,
		State:           r.State.String(),
		Since:           r.Since,
		Reason:          r.Reason,
		Priority:        i.Priority,
		MasterPriority:  r.MasterPriority,
		Transitions:     map[string]uint64{},
		AdvertsSent:     r.AdvertsSent,
		AdvertsReceived: r.AdvertsReceived,
		AdvertsRefused:  map[string]uint64{},
		Mismatches:      []status.Notice{},

		ConfiguredPriority: i.Priority,
		AdvertInterval:     i.AdvertInterval,
		Tracked:            r.Tracked,
		AdvertsAbsorbed:    max(r.AdvertsAbsorbed, adverts["absorbed"]),
		AdvertsByForm:      r.AdvertsByForm,
		AdvertsFiltered:    map[string]uint64{},
		AddressesRestored:  r.Restored,
	}
	if r.Priority != 0 {
		p.Priority = r.Priority
	}
	for what, n := range adverts {
		if what != "passed" && what != "absorbed" && what != "sampled" {
			p.AdvertsFiltered[what] = n
		}
	}
	if r.Source.IsValid() {
		p.Source = r.Source.String()
	}
	if r.Master.IsValid() {
		p.Master = r.Master.String()
	}
	for to, n := range r.Transitions {
		p.Transitions[to.String()] = n
	}
	for reason, n := range r.AdvertsRefused {
		p.AdvertsRefused[string(reason)] = n
	}
	for _, m := range r.Mismatches {
		p.Mismatches = append(p.Mismatches, status.Notice{Kind: m.Kind, Peer: m.Peer.String(), Text: m.Text})
	}
	return p
}

// planePicture says where a service is while others are on the plane in use.
func (d *Director) planePicture(s config.Service, others status.Plane) status.Plane {
	on := planeOf(s, d.plane.name)
	if on == d.plane.name {
		return others
	}
	b, beside := d.plane.Plane.(*both)
	if !beside {
		return status.Plane{Reason: lacks(s, true), Degraded: true}
	}
	differences, failed := b.besides()
	if failed != nil {
		return status.Plane{Reason: s.OnlyIPVS() + ", and it can't be had: " + failed.Error(), Degraded: true}
	}
	return status.Plane{Name: string(on), Reason: s.OnlyIPVS(), Differences: differences}
}

// degraded says that packets are not forwarded as fast as the configuration lets them be, or not at all.
func (d *Director) degraded() bool {
	switch d.plane.name {
	case lb.XDPNative:
		return false
	case lb.XDPGeneric, lb.IPVS:
		return d.cfg.Dataplane.Mode == "auto"
	}
	return len(d.cfg.Services) > 0
}

// shortcomings are what services go without since XDP can't be used here.
func (d *Director) shortcomings() []string {
	var list []string
	for _, s := range d.cfg.Services {
		if d.plane.name == lb.IPVS && lacks(s, false) != "" {
			list = append(list, "service "+s.Name+": "+lacks(s, false))
		}
	}
	return list
}

// lacks says what IPVS doesn't do of a service: what it would need to be one at all, or what it can be without.
func lacks(s config.Service, whole bool) string {
	var list []string
	for _, l := range s.LacksOnIPVS() {
		if l.Whole == whole {
			list = append(list, l.Key+" has no effect: "+l.Text)
			if whole {
				list[len(list)-1] = l.Key + ": " + l.Text
			}
		}
	}
	return strings.Join(list, "; ")
}

// unserved says which services no plane has; empty: none.
func (d *Director) unserved() string {
	var list []string
	for _, s := range d.cfg.Services {
		if d.plane.Plane != nil && planeOf(s, d.plane.name) == "" {
			list = append(list, fmt.Sprintf("service %s is not served: XDP can't be used here, and %s", s.Name, lacks(s, true)))
		}
	}
	return strings.Join(list, "; ")
}

func (d *Director) servicePicture(s config.Service, plane status.Plane, counters lb.Counters, f facts) status.Service {
	book := d.ledger.services[s.Name]
	p := status.Service{
		Name:        s.Name,
		Port:        s.Port,
		LastPort:    s.LastPort,
		Forwarding:  cmp.Or(string(s.Forwarding), "direct"),
		Scheduler:   string(s.Scheduler),
		Persistence: s.Persistence,
		Plane:       plane,
		Refused:     book.refusals(counters.Refused[s.Key()]),

		FirewallMark: s.FirewallMark,
	}
	if s.FirewallMark == 0 {
		p.Protocol, p.Address = s.Protocol.String(), s.Address.String()
	}
	if s.Bits != 0 {
		p.Address = s.Key().Prefix().String()
	}
	claims := f.claims(s)
	weight, _ := quorate(s, claims, f.lost[s.Name])
	p.Quorum = status.Quorum{Up: !f.lost[s.Name], Since: d.quorums[s.Name].since, Weight: weight, Needed: s.Quorum, Hysteresis: s.Hysteresis}
	p.SorryServer = d.sorryPicture(s, !p.Quorum.Up, counters, book)
	for n, r := range s.RealServers {
		key := lb.ServerKey{Service: serviceKey(s), Address: r.Address}
		traffic, read := counters.RealServers[key]
		traffic = book.servers[n].traffic(traffic, read)
		picture := status.RealServer{
			Address:      r.Address.String(),
			Port:         r.Port,
			Weight:       claims[n].weight(),
			Up:           true,
			Reason:       "no check",
			Packets:      traffic.Packets,
			Bytes:        traffic.Bytes,
			FlowsCreated: traffic.FlowsCreated,
			Flows:        traffic.Flows,
			Active:       traffic.Active,

			MaxConnections: r.MaxConnections,
		}
		if known, ok := d.servers[key]; ok {
			picture.Up, picture.Reason, picture.Since = known.up, known.reason, known.since
			picture.CheckDuration = known.duration
			picture.Checks, picture.Transitions = map[string]uint64{}, map[string]uint64{}
			if r.Check != nil {
				picture.Checks, picture.Transitions = totals(book.servers[n].checks, known.results), totals(book.servers[n].transitions, known.transitions)
			}
		}
		picture.KeepsFlows = !picture.Up && claims[n].keep
		if claims[n].starts() {
			picture.SlowStart = 100 * claims[n].tenths / allTenths
		}
		picture.NextHop, picture.NextHopError = hopPicture(d.hops[r.Address], s.Forwarding)
		p.RealServers = append(p.RealServers, picture)
	}
	return p
}

// sorryPicture is the picture of a service's sorry server; nil: there is none.
func (d *Director) sorryPicture(s config.Service, wanted bool, counters lb.Counters, book *serviceBook) *status.SorryServer {
	address := s.SorryServer.Address
	if !address.IsValid() {
		return nil
	}
	hop := d.hops[address]
	traffic, read := counters.RealServers[lb.ServerKey{Service: serviceKey(s), Address: address}]
	traffic = book.ofSorry(s.SorryServer).traffic(traffic, read)
	p := &status.SorryServer{
		Address: address.String(), Port: s.SorryServer.Port, Active: wanted && (hop.Known() || s.Forwarding != lb.Direct),
		Packets: traffic.Packets, Bytes: traffic.Bytes, FlowsCreated: traffic.FlowsCreated, Flows: traffic.Flows,
	}
	p.NextHop, p.NextHopError = hopPicture(hop, s.Forwarding)
	return p
}

func hopPicture(h neigh.Hop, forwarding lb.Forwarding) (text, problem string) {
	switch {
	case h.Local:
		text = "this director"
	case forwarding != lb.Direct: // the kernel asks for the MAC address itself
		text = "by the routes of this director"
	case h.Known():
		text = h.MAC.String() + " on " + h.InterfaceName
	}
	if h.Err != nil {
		problem = h.Err.Error()
	}
	return text, problem
}
