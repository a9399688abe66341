package ha

import (
	"maps"
	"math"
	"slices"
	"time"

	"github.com/xdirector/xdirector/pkg/vrrp"
)

const (
	// reportInterval is how often the counters are reported. The loop does not wake for that alone, unless there was nothing else
	// to wake for within reportEase: a report costs more than many adverts.
	reportInterval = 10 * time.Second
	reportEase     = time.Second
	// expireInterval is how often mismatches are looked through while there are some.
	expireInterval = 500 * time.Millisecond
	// reportPause is the shortest time between two reports, for each instance in them: who takes over a thousand virtual
	// routers at once has more to do than to tell of each alone.
	reportPause = 200 * time.Microsecond
	// reportPart is how many instances are reported in one turn: less than a millisecond, in which no advert is sent.
	reportPart = 64
)

// reporter says when a report is due.
type reporter struct {
	opened bool      // every instance has looked around: reports may go out
	news   bool      // a report is due as soon as one may go out
	next   vrrp.Time // at the latest
	free   vrrp.Time // not before
	expire vrrp.Time // mismatches are looked through then

	begun  bool // a report is being made, of the instances in parts
	report Report
	parts  []*instance // that are not in it yet
}

// reportDue is when report must be called, if nothing else happens.
func (l *loop) reportDue() vrrp.Time {
	due := vrrp.Time(math.MaxInt64)
	if l.reporter.opened { // until then holders call: a loop that didn't sleep would keep the only CPU from them
		due = l.reporter.next + reportEase
		switch {
		case l.reporter.begun:
			due = 0
		case l.reporter.news:
			due = min(due, l.reporter.free)
		}
	}
	if l.differing {
		due = min(due, l.reporter.expire)
	}
	return due
}

// report publishes when something changed or it is time. It returns true when everything is handed over.
func (l *loop) report(now vrrp.Time) (stopped bool) {
	r := &l.reporter
	if l.differing && now >= r.expire {
		l.differing, r.expire = false, now+expireInterval
		for _, i := range l.instances {
			i.changed = i.notices.expire(now, i.patience()) || i.changed
			l.differing = l.differing || len(i.notices.mismatches) > 0
			r.news = r.news || i.changed
		}
	}
	for _, i := range l.touched {
		i.touched = false
		r.news = r.news || i.changed
		l.differing = l.differing || len(i.notices.mismatches) > 0
	}
	l.touched = l.touched[:0]
	if l.stopping && l.left == 0 {
		stopped, r.opened, r.news, r.free = true, true, true, now
	}
	if !r.opened && l.unclaimed == 0 {
		r.opened, r.news = true, true
		if l.runtime.options.Realtime {
			go keepMemory(l.log)
		}
	}
	switch {
	case !r.opened || !r.begun && now < r.next && (!r.news || now < r.free):
		return false
	case !r.begun || stopped:
		l.look() // where nobody has a timer, none is late that would tell of a suspended box
		r.begun, r.news, r.next = true, false, now+reportInterval
		r.report, r.parts = Report{Instances: make([]InstanceReport, 0, len(l.instances))}, slices.Clone(l.instances)
	}
	part := r.parts
	if !stopped { // then no adverts are left to wait
		part = part[:min(reportPart, len(part))]
	}
	for _, i := range part {
		i.changed = false
		r.report.Instances = append(r.report.Instances, i.report())
	}
	if r.parts = r.parts[len(part):]; len(r.parts) > 0 {
		return false
	}
	r.report.Stopped, r.report.Lateness, r.report.Denied = stopped, l.late.report(), l.denied
	l.runtime.publish(r.report)
	r.begun, r.report, r.parts, r.free = false, Report{}, nil, now+time.Duration(len(l.instances))*reportPause
	return stopped
}

func (i *instance) report() InstanceReport {
	master, priority := i.machine.Master()
	rep := InstanceReport{
		Name:            i.cfg.Name,
		Interface:       i.cfg.Interface,
		State:           i.machine.State(),
		Since:           i.since,
		Reason:          i.reason,
		Source:          i.source,
		Master:          master,
		MasterPriority:  priority,
		Transitions:     map[vrrp.State]uint64{},
		AdvertsSent:     i.sent,
		AdvertsReceived: i.received,
		AdvertsRefused:  maps.Clone(i.refused),
		AdvertsByForm:   map[string]uint64{},
		Mismatches:      i.notices.mismatchList(),
		Peers:           i.notices.peerList(),
		Priority:        i.machine.Priority(),
		Tracked:         i.tracked,
		Restored:        i.holder.restored.Load(),
	}
	for state, n := range i.into {
		if n > 0 {
			rep.Transitions[vrrp.State(state)] = n
		}
	}
	for form, name := range formNames() {
		if i.forms[form] > 0 {
			rep.AdvertsByForm[name] = i.forms[form]
		}
	}
	return rep
}

// formNames are the names of the forms of the checksum in reports.
func formNames() [2]string {
	return [2]string{vrrp.PseudoHeader: "rfc5798", vrrp.MessageOnly: "rfc9568"}
}
