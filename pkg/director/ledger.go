package director

import (
	"net/netip"
	"path/filepath"
	"strconv"
	"time"

	"github.com/xdirector/xdirector/pkg/config"
	"github.com/xdirector/xdirector/pkg/lb"
	"github.com/xdirector/xdirector/pkg/statefile"
	"github.com/xdirector/xdirector/pkg/status"
	"github.com/xdirector/xdirector/pkg/vrrp"
)

// ledger makes counters that never fall of what is counted in many places: in maps of the plane, which are made anew with it,
// for a real server that comes back, or by another plane; in the election and in this process, which may end. The keys are
// what the metrics have as labels.
type ledger struct {
	counters *statefile.Counters
	failed   string         // why they are not kept, as it was told
	cfg      *config.Config // that the rest is of

	services  map[string]*serviceBook
	instances map[string]*instanceBook
	others    map[string]*statefile.Counter
}

type serviceBook struct {
	name    string
	ledger  *ledger
	servers []*serverBook // in the order of the configuration
	sorry   *serverBook   // nil: none was asked for
	refused map[string]*statefile.Counter
}

type serverBook struct {
	packets, bytes, flowsCreated *statefile.Counter
	checks, transitions          map[string]*statefile.Counter // by up and down
}

type instanceBook struct {
	name   string
	ledger *ledger

	sent, received, absorbed, restored *statefile.Counter
	by                                 map[string]map[string]*statefile.Counter // by what is counted and its last label
}

// openLedger begins with what earlier agents have counted.
func (d *Director) openLedger() {
	boot, err := statefile.BootID()
	if err != nil {
		boot = d.started.String() // it is another one's for the next agent
	}
	d.ledger.counters = statefile.NewCounters(filepath.Join(d.cfg.StateDir, "counters"), boot)
	d.keepCounters()
}

// keepCounters has the counters outlive this process, if they don't yet. That they can't is told once.
func (d *Director) keepCounters() {
	l := &d.ledger
	if l.counters == nil || !l.counters.Lacking() {
		return
	}
	switch err := l.counters.Keep(); {
	case err != nil && l.failed != err.Error():
		l.failed = err.Error()
		d.log.Warn("counters would begin at 0 after a restart; tried again every second", "error", err)
	case err == nil && l.failed != "":
		l.failed = ""
		d.log.Info("counters outlive a restart again")
	}
}

// open has the ledger be that of cfg. What is no longer in that may be forgotten.
func (l *ledger) open(cfg *config.Config) {
	if l.cfg == cfg {
		return
	}
	if l.counters == nil { // of a director that doesn't run
		l.counters = statefile.NewCounters("", "")
	}
	l.cfg = cfg
	l.services, l.instances, l.others = map[string]*serviceBook{}, map[string]*instanceBook{}, map[string]*statefile.Counter{}
	l.counters.Begin()
	for _, i := range cfg.Instances {
		l.instances[i.Name] = l.instance(i.Name)
	}
	for _, s := range cfg.Services {
		v := &serviceBook{name: s.Name, ledger: l, refused: map[string]*statefile.Counter{}}
		for _, r := range s.RealServers {
			v.servers = append(v.servers, v.server(r.Address, r.Port))
		}
		if s.SorryServer.Address.IsValid() {
			v.ofSorry(s.SorryServer)
		}
		l.services[s.Name] = v
	}
	l.counters.Sweep()
}

func (v *serviceBook) server(address netip.Addr, port uint16) *serverBook {
	key := v.name + " " + netip.AddrPortFrom(address, port).String()
	count := func(what string) *statefile.Counter { return v.ledger.counters.Counter(what + " " + key) }
	return &serverBook{
		packets: count("packets"), bytes: count("bytes"), flowsCreated: count("flows_created"),
		checks:      map[string]*statefile.Counter{isUp: count("checks up"), isDown: count("checks down")},
		transitions: map[string]*statefile.Counter{isUp: count("transitions up"), isDown: count("transitions down")},
	}
}

func (v *serviceBook) ofSorry(r config.SorryServer) *serverBook {
	if v.sorry == nil {
		v.sorry = v.server(r.Address, r.Port)
	}
	return v.sorry
}

// traffic is what was ever counted. A plane that has not said anything yet has not started anew.
func (b *serverBook) traffic(t lb.Traffic, read bool) lb.Traffic {
	all := []*statefile.Counter{b.packets, b.bytes, b.flowsCreated}
	if read {
		statefile.Observe(all, []uint64{t.Packets, t.Bytes, t.FlowsCreated})
	}
	t.Packets, t.Bytes, t.FlowsCreated = b.packets.Total(), b.bytes.Total(), b.flowsCreated.Total()
	return t
}

// totals are those of all counters in by.
func totals(by map[string]*statefile.Counter, now map[string]uint64) map[string]uint64 {
	all := make(map[string]uint64, len(by))
	for label, c := range by {
		all[label] = c.Observe(now[label])
	}
	return all
}

// refusals are what the limits of the service have refused; nil: it has none, or the plane has not said yet.
func (v *serviceBook) refusals(now map[string]uint64) map[string]uint64 {
	return v.ledger.observe("refused "+v.name, v.refused, now)
}

// observe makes totals of counters that come and go by their last label. by remembers them: a source that has begun anew need
// not have them all yet.
func (l *ledger) observe(key string, by map[string]*statefile.Counter, now map[string]uint64) map[string]uint64 {
	if now == nil {
		return nil
	}
	for label := range now {
		if by[label] == nil {
			by[label] = l.counters.Counter(key + " " + label)
		}
	}
	return totals(by, now)
}

func (l *ledger) instance(name string) *instanceBook {
	count := func(what string) *statefile.Counter { return l.counters.Counter("instance " + what + " " + name) }
	transitions := map[string]*statefile.Counter{}
	for _, state := range []vrrp.State{vrrp.Init, vrrp.Backup, vrrp.Master, vrrp.Fault} {
		transitions[state.String()] = count("transitions " + state.String())
	}
	return &instanceBook{name: name, ledger: l, sent: count("sent"), received: count("received"), absorbed: count("absorbed"), restored: count("restored"),
		by: map[string]map[string]*statefile.Counter{"transitions": transitions, "refused": {}, "form": {}, "filtered": {}}}
}

// settle makes totals of the counters of an instance. reported: the election has told of it; read: the plane has.
func (b *instanceBook) settle(p *status.Instance, reported, read bool) {
	if reported {
		p.AdvertsSent, p.AdvertsReceived, p.AddressesRestored = b.sent.Observe(p.AdvertsSent), b.received.Observe(p.AdvertsReceived), b.restored.Observe(p.AddressesRestored)
		p.Transitions = b.observe("transitions", p.Transitions)
		p.AdvertsRefused = b.observe("refused", p.AdvertsRefused)
		p.AdvertsByForm = b.observe("form", p.AdvertsByForm)
	} else {
		p.AdvertsSent, p.AdvertsReceived, p.AddressesRestored = b.sent.Total(), b.received.Total(), b.restored.Total()
	}
	if read {
		b.absorbed.Observe(p.AdvertsAbsorbed)
		p.AdvertsFiltered = b.observe("filtered", p.AdvertsFiltered)
	}
	p.AdvertsAbsorbed = b.absorbed.Total()
}

func (b *instanceBook) observe(what string, now map[string]uint64) map[string]uint64 {
	return b.ledger.observe("instance "+what+" "+b.name, b.by[what], now)
}

// other is the total of a counter that the configuration doesn't name.
func (l *ledger) other(key string) *statefile.Counter {
	c := l.others[key]
	if c == nil {
		c = l.counters.Counter(key)
		l.others[key] = c
	}
	return c
}

// settleInterface makes totals of what the program on an interface has counted.
func (l *ledger) settleInterface(i *status.Interface) {
	all := func(what string, now map[string]uint64) map[string]uint64 {
		if now == nil {
			return nil
		}
		sums := make(map[string]uint64, len(now))
		for label, n := range now {
			sums[label] = l.other("interface " + i.Name + " " + what + " " + label).Observe(n)
		}
		return sums
	}
	i.Verdicts, i.Drops = all("verdict", i.Verdicts), all("drop", i.Drops)
	for n := range i.Lost {
		lost := &i.Lost[n]
		lost.Frames = l.other("interface " + i.Name + " lost " + lost.To + " " + lost.Reason).Observe(lost.Frames)
	}
}

// settleNotifications makes totals of what became of notifications.
func (l *ledger) settleNotifications(list []status.Notifications) {
	for n := range list {
		t := &list[n]
		t.Sent = l.other("notifications sent " + t.Target).Observe(t.Sent)
		t.Failed = l.other("notifications failed " + t.Target).Observe(t.Failed)
		t.Dropped = l.other("notifications dropped " + t.Target).Observe(t.Dropped)
	}
}

// settleElection makes totals of what the process of the elections has counted, and of how often there was another one.
func (l *ledger) settleElection(e *status.Election) {
	restarts := l.other("election restarts")
	if e.PID != 0 { // else nothing is known of it yet
		restarts.Observe(e.Restarts)
	}
	e.Restarts = restarts.Total()
	if e.LatenessCounts == nil {
		return
	}
	sum := l.other("lateness sum")
	all, now := []*statefile.Counter{sum}, []uint64{uint64(e.LatenessSum * float64(time.Second))}
	for n, count := range e.LatenessCounts {
		bound := "more"
		if n < len(e.LatenessBounds) {
			bound = strconv.FormatFloat(e.LatenessBounds[n], 'g', -1, 64)
		}
		all, now = append(all, l.other("lateness "+bound)), append(now, count)
	}
	statefile.Observe(all, now)
	counts := make([]uint64, len(e.LatenessCounts))
	for n := range counts {
		counts[n] = all[n+1].Total()
	}
	e.LatenessCounts, e.LatenessSum = counts, time.Duration(sum.Total()).Seconds()
}
