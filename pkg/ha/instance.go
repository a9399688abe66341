package ha

import (
	"context"
	"log/slog"
	"maps"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xdirector/xdirector/pkg/lb"
	"github.com/xdirector/xdirector/pkg/vrrp"
)

// instance is one machine and what its actions need. It belongs to the loop.
type instance struct {
	cfg     Instance
	log     *slog.Logger
	machine *vrrp.Machine
	holder  *holder
	port    *port // nil: no such interface, or its sockets could not be opened
	notices *notices
	advert  *lastAdvert

	claimed bool         // the holder has looked around
	resume  bool         // the next Start goes on as MASTER
	fault   string       // why the holder can do nothing for it
	owned   []netip.Addr // virtual addresses that were on the interface before us
	running bool         // Start was given, and no Fail since
	broken  string       // the reason of the last Fail
	leaving bool         // Stop was given
	handed  bool         // everything is handed over, the holder lets go
	gone    bool         // the holder has ended

	changed   bool // a report is due
	since     time.Time
	reason    string
	source    netip.Addr
	into      map[vrrp.State]uint64
	sent      uint64
	received  uint64
	refused   map[vrrp.Reason]uint64
	sendError string // of the last advert; empty: it was sent
}

// step gives the machine an event and carries out what it answers, in its order. mac is the Ethernet source of a
// Packet.
func (i *instance) step(now vrrp.Time, event vrrp.Event, mac lb.MAC) {
	for _, action := range i.machine.Step(now, event) {
		switch a := action.(type) {
		case vrrp.Send:
			i.send(a.Advert)
		case vrrp.AddAddresses:
			i.holder.set(func(w *wish) { w.hold = true })
		case vrrp.RemoveAddresses:
			i.holder.set(func(w *wish) { w.hold = false })
		case vrrp.Announce:
			i.holder.set(func(w *wish) { w.rounds += a.Repeat })
		case vrrp.Changed:
			i.enter(a)
		case vrrp.Accepted:
			i.received++
			if i.notices.peer(now, lb.Director{MAC: mac, Address: a.Source}) {
				i.changed = true
			}
		case vrrp.Refused:
			i.refuse(now, a)
		case vrrp.Mismatch:
			if i.notices.mismatch(now, a) {
				i.changed = true
			}
		case vrrp.Stopped:
			i.handed = true
			i.holder.set(func(w *wish) { w.decided, w.quit = true, true })
		}
	}
}

func (i *instance) send(a vrrp.Advert) {
	if i.port == nil {
		return
	}
	if err := i.port.advertise(i.source, a.Append(nil, i.source, group)); err != nil {
		if i.sendError != err.Error() {
			i.log.Warn("advert not sent; if that lasts, the other director takes over too", "error", err)
		}
		i.sendError = err.Error()
		return
	}
	if i.sendError != "" {
		i.log.Info("adverts are sent again")
	}
	i.sendError = ""
	i.sent++
	if a.Priority > 0 {
		i.advert.note(clock(unix.CLOCK_BOOTTIME))
	} else {
		i.advert.note(0)
	}
}

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
	i.log.Log(context.Background(), level, "state changed", "from", c.From.String(), "to", c.To.String(), "reason", c.Reason)
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

func (i *instance) report() InstanceReport {
	master, priority := i.machine.Master()
	return InstanceReport{
		Name:            i.cfg.Name,
		Interface:       i.cfg.Interface,
		State:           i.machine.State(),
		Since:           i.since,
		Reason:          i.reason,
		Source:          i.source,
		Master:          master,
		MasterPriority:  priority,
		Transitions:     maps.Clone(i.into),
		AdvertsSent:     i.sent,
		AdvertsReceived: i.received,
		AdvertsRefused:  maps.Clone(i.refused),
		Mismatches:      i.notices.mismatchList(),
		Peers:           i.notices.peerList(),
		Restored:        i.holder.restored.Load(),
	}
}
