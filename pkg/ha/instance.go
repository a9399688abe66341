package ha

import (
	"context"
	"log/slog"
	"net/netip"
	"time"

	"github.com/xdirector/xdirector/pkg/lb"
	"github.com/xdirector/xdirector/pkg/vrrp"
)

// instance is one machine and what its actions need. It belongs to the loop.
type instance struct {
	cfg     *Instance   // not changed
	given   vrrp.Config // what the machine has: cfg.VRRP with what is tracked
	tracked string      // the difference, in plain words
	ipv6    bool
	log     *slog.Logger
	machine *vrrp.Machine
	sync    *syncGroup
	member  int // index into sync
	holder  *holder
	port    *port // nil: no such interface, or its sockets could not be opened
	index   int   // of the interface; 0: there is none
	mac     lb.MAC
	notices *notices
	advert  *lastAdvert

	due     vrrp.Time // when the loop calls it next
	heapAt  int       // where it is in the timers; -1: nowhere
	place   vrrp.Time // what it is there for: due, or earlier
	startAt vrrp.Time // end of StartupDelay; 0: over, or there is none

	claimed bool         // the holder has looked around
	resume  bool         // the next Start goes on as MASTER
	left    bool         // the next Start goes on where priority 0 was sent for us
	fault   string       // why the holder can do nothing for it
	owned   []netip.Addr // virtual addresses that were on the interface before us
	running bool         // Start was given, and no Fail since
	broken  string       // the reason of the last Fail
	leaving bool         // Stop was given
	handed  bool         // everything is handed over, the holder lets go
	gone    bool         // the holder has ended
	holds   bool         // the addresses shall be on the interface

	source    netip.Addr
	out       prepared
	queued    bool // its advert is in the outbox
	repeat    repeat
	absorbing bool      // by the plane
	before    lb.MAC    // who sent the last advert that was accepted while BACKUP
	beforeAt  vrrp.Time // when it came

	changed   bool // a report is due
	touched   bool // it is in the list of those that a report asks
	since     time.Time
	reason    string
	into      [4]uint64 // by state
	sent      uint64
	received  uint64
	refused   map[vrrp.Reason]uint64
	forms     [2]uint64 // accepted, by form of the checksum
	sendError string    // of the last advert; empty: it was sent
}

// syncGroup is the instances that change state together; one that is in no sync group is a group of its own.
type syncGroup struct {
	machines vrrp.Group
	members  []*instance
}

// join makes the instances one sync group.
func join(members ...*instance) {
	g := &syncGroup{members: members}
	for at, i := range members {
		g.machines = append(g.machines, i.machine)
		i.sync, i.member = g, at
	}
}

// master says that the instance is MASTER and has not resigned.
func (i *instance) master() bool {
	return i.machine.State() == vrrp.Master && i.out.advert.Addresses != nil && i.out.advert.Priority != 0
}

// delivered takes note of what became of an advert.
func (i *instance) delivered(boot vrrp.Time, err error) {
	i.queued = false
	if err != nil {
		if i.sendError != err.Error() {
			i.log.Warn("advert not sent; if that lasts, the other director takes over too", "interface", i.cfg.Interface, "error", err)
		}
		i.sendError = err.Error()
		return
	}
	if i.sendError != "" {
		i.log.Info("adverts are sent again")
	}
	i.sendError = ""
	i.sent++
	if i.out.advert.Priority == 0 {
		boot = 0
	}
	i.advert.note(boot)
}

// enter takes note of a transition.
func (i *instance) enter(c vrrp.Changed) {
	if c.To != vrrp.Master {
		i.advert.note(0)
	}
	i.since, i.reason, i.changed = time.Now(), c.Reason, true
	i.into[c.To]++
	level := slog.LevelInfo
	if c.To == vrrp.Fault {
		level = slog.LevelWarn
	}
	i.log.Log(context.Background(), level, "state changed", "from", c.From.String(), "to", c.To.String(), "reason", c.Reason, "so", consequence(c))
}

// consequence is what a transition does, for who reads the log.
func consequence(c vrrp.Changed) string {
	switch {
	case c.To == vrrp.Master:
		return "the virtual addresses are taken and announced, and clients are served here"
	case c.From == vrrp.Master:
		return "the virtual addresses are given up"
	case c.To == vrrp.Backup:
		return "this box waits to take over"
	case c.To == vrrp.Fault:
		return "this box does not take over until that is over"
	}
	return "this box does not take part"
}

func (i *instance) refuse(now vrrp.Time, r vrrp.Refused) {
	i.refused[r.Reason]++
	if i.notices.refused(now, r) {
		i.changed = true
	}
}

// minPatience is longer than the usual intervals between the adverts of a box whose interval is not ours.
const minPatience = 10 * time.Second

// patience is how long another box may be silent until what it did wrong is taken as over.
func (i *instance) patience() time.Duration {
	skew := time.Second
	if i.cfg.VRRP.Version == 3 {
		skew = i.cfg.VRRP.Interval
	}
	return max(minPatience, 3*(3*i.cfg.VRRP.Interval+time.Duration(256-int(i.cfg.VRRP.Priority))*skew/256))
}
