package ha

import (
	"context"
	"log/slog"
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xdirector/xdirector/pkg/lb"
	"github.com/xdirector/xdirector/pkg/vrrp"
)

// drainLimit bounds what is taken out of a queue before a timer is believed, so that a flood stops no advert. A receive
// queue holds fewer.
const drainLimit = 4096

// standstill is a pause of the process that is worth asking whether the box was suspended.
const standstill = 50 * time.Millisecond

// Adverts that follow one another within dense are waited for, all that come while gathering: a part of the shortest interval
// that no decision needs.
const (
	dense     = 200 * time.Microsecond
	gathering = 400 * time.Microsecond
)

// loop owns the machines and their timers. All of it runs on one thread.
type loop struct {
	runtime  *Runtime
	log      *slog.Logger
	cfg      Config
	tracks   map[string]Track
	host     *host // of the holders
	watcher  *watcher
	snapshot snapshot
	owns     map[int][]ownAddress // see own; by interface index, until something changes
	former   map[spot]bool        // virtual addresses of a former run alone, which may still be in the snapshot
	denied   []string             // by the kernel, see Report
	began    vrrp.Time
	woke     vrrp.Time // when this turn began
	wokeGo   time.Time
	rested   vrrp.Time
	asleep   time.Duration // CLOCK_BOOTTIME - CLOCK_MONOTONIC

	stopping  bool
	waiting   bool // an instance of the configuration waits for one that hands over
	unclaimed int  // instances whose holder has not looked around yet
	left      int  // instances whose holder has not ended
	differing bool
	touched   []*instance         // by the actions of this turn
	actions   []vrrp.MemberAction // room for those of one step
	reporter  reporter
	late      late

	instances []*instance
	byName    map[string]*instance
	timers    timers
	ports     map[portKey]*port
	portFDs   map[int32]*port
	emptied   bool               // the queue of adverts that was read last, in this turn or the one before
	shut      map[portKey]string // why a port could not be opened
	poller    *poller
	bell      int
	outbox    *outbox
	inbound   *messages
	frames    [][]byte // where inbound puts them
	frame     []byte   // the one that is looked at; nil: none
	sender    lb.MAC   // of frame
	fast      fastPath
	lease     lease
}

// lease is what the supervisor must know in case that this process dies.
type lease struct {
	word    *uint64       // nil: nobody looks
	alarm   int           // see Options.Alarm
	sent    bool          // an advert, in this turn
	stale   bool          // the set of MASTERs or their packets changed
	fastest time.Duration // interval among the MASTERs; 0: there is none
	handed  *uint64       // see Options.HandedOver; nil: nobody hands over
	readyAt vrrp.Time     // ready packets are not told before
	untold  bool          // they are to be told
}

// Run runs the instances until Stop is through, and returns nil then. When ctx ends it leaves at once and touches
// nothing, as a crash would: addresses stay until their lifetime ends, nobody is told; the error is ctx's. An error
// of the start (no permission) is returned at once, and nothing is left behind. Everything is opened in the network
// namespace of the calling thread, which is the one that sends and receives all adverts. Run may be called once.
func (r *Runtime) Run(ctx context.Context) error {
	// Sysctls and new sockets belong to the namespace of the thread, real-time scheduling to the thread itself.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	l := newLoop(r, r.log)
	defer l.leave()
	first, err := l.open()
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { r.inbox.put(func(*letters) {}) })
	defer stop()
	l.read(first)
	return l.run(ctx)
}

func newLoop(r *Runtime, log *slog.Logger) *loop {
	l := &loop{
		runtime: r,
		log:     log,
		byName:  map[string]*instance{},
		ports:   map[portKey]*port{},
		portFDs: map[int32]*port{},
		shut:    map[portKey]string{},
		owns:    map[int][]ownAddress{},
		late:    newLate(),
		fast:    fastPath{fd: -1, slots: map[uint32]*instance{}},
		lease:   lease{word: r.options.Lease, alarm: r.options.Alarm, handed: r.options.HandedOver},
	}
	l.awake()
	return l
}

// run is the loop itself.
func (l *loop) run(ctx context.Context) error {
	for {
		l.fire()
		now := l.clock()
		if l.fast.count > 0 && now >= l.fast.renewAt {
			l.renew(now)
		}
		l.flush()
		stopped := l.report(now)
		l.tell(now)
		l.promise(now)
		if stopped {
			l.endLease()
			return nil
		}
		ready, err := l.poller.wait(l.next() - now)
		if err != nil {
			return err
		}
		l.rest(now, l.awake())
		if len(ready) > 0 {
			l.gather(now)
		}
		l.stepBack()
		for _, e := range ready {
			switch p := l.portFDs[e.Fd]; {
			case p != nil:
				l.receive(p, batchSize)
			case int(e.Fd) == l.bell:
				if ctx.Err() != nil {
					return ctx.Err()
				}
				l.read(l.runtime.inbox.take())
			case int(e.Fd) == l.fast.fd && l.fast.plane != nil:
				l.expired()
			}
		}
	}
}

// gather waits for more adverts where they come so densely that each would cost a turn: it is asked after a wait that began at
// before. A flood that fills the queues is not waited for.
func (l *loop) gather(before vrrp.Time) {
	if !l.emptied || l.woke-before > dense {
		return
	}
	l.emptied = false
	if rest := min(gathering, l.next()-l.woke); rest > 0 {
		_ = unix.Nanosleep(&unix.Timespec{Nsec: int64(rest)}, nil) // a signal ends it early: what came is enough
		l.awake()
	}
}

// awake reads the clock once a turn. CLOCK_BOOTTIME is the one of all machines: it goes on while the box is suspended, so
// that a MASTER that was away knows it.
func (l *loop) awake() vrrp.Time {
	l.woke = clock(unix.CLOCK_BOOTTIME)
	l.wokeGo = time.Now() // after it: so the clock never goes back
	return l.woke
}

// clock is the time of all machines. Within a turn Go's clock, which needs no system call, tells how it went on.
func (l *loop) clock() vrrp.Time { return l.woke + time.Since(l.wokeGo) }

// next is when the loop must turn, if nothing else happens.
func (l *loop) next() vrrp.Time {
	next := l.reportDue()
	if i := l.timers.first(); i != nil {
		next = min(next, i.due)
	}
	if l.fast.count > 0 {
		next = min(next, l.fast.renewAt)
	}
	if l.lease.untold {
		next = min(next, l.lease.readyAt)
	}
	return next
}

// poke wakes the loop; it is called by others.
func (l *loop) poke() { l.runtime.inbox.put(func(*letters) {}) }

// receive takes about limit frames from the queue of a port.
func (l *loop) receive(p *port, limit int) {
	for taken := 0; taken < limit; {
		n, err := l.inbound.receive(p.fd)
		if err != nil {
			if !passing(err) {
				l.emptied = true
				return // empty
			}
			taken++
			continue
		}
		now := l.clock()
		for at := range n {
			length := int(l.inbound.headers[at].length)
			if from := &l.inbound.names[at]; length <= frameLimit && p.mine(from) {
				l.arrived(p, l.frames[at][:length], from, now)
			}
		}
		taken += n
		if l.emptied = n < batchSize; l.emptied {
			return // a moment ago; epoll tells if not
		}
	}
}

// arrived gives a frame to the instance that it is for.
func (l *loop) arrived(p *port, f []byte, from *unix.RawSockaddrLinklayer, now vrrp.Time) {
	packet, vrid, bad := parseFrame(f, p.ipv6)
	i := p.routers[vrid]
	if i == nil || !i.running {
		return
	}
	if bad != "" {
		l.touch(i)
		i.refuse(now, brokenHeader(packet.Source, bad))
		return
	}
	if r := &i.repeat; len(r.frame) > 0 && sameFrame(f, r.frame, p.ipv6) {
		i.received++
		if r.form >= 0 {
			i.forms[r.form]++
		}
		if r.peer != nil {
			r.peer.at = now
		}
		if r.differ != nil {
			r.differ.heard = now
		}
		l.give(i, now, vrrp.Heard{At: now})
		l.arm(i)
		l.offer(i, now)
		return
	}
	l.frame, l.sender = f, lb.MAC(from.Addr[:6])
	l.step(i, now, packet)
	l.frame = nil
	l.offer(i, now)
}

// drain takes everything that had arrived for an instance at a moment that has passed.
func (l *loop) drain(p *port, moment vrrp.Time) {
	if p != nil && p.drained < moment {
		p.drained = l.clock()
		l.receive(p, drainLimit)
	}
}

// fire calls the instances that are due. It goes on to other things when everyone had a turn.
func (l *loop) fire() {
	for range 2*len(l.timers) + 1 {
		i, now := l.timers.first(), l.clock()
		if i == nil || i.due > now {
			return
		}
		if i.startAt != 0 && now >= i.startAt {
			i.startAt = 0
			l.evaluate(i)
			l.arm(i)
			continue
		}
		late := now - i.due
		l.late.note(late)
		if late >= standstill {
			l.overslept(i, now, late)
		}
		if i.machine.State() == vrrp.Master && late < i.given.Interval {
			l.step(i, now, vrrp.Tick{})
		} else {
			l.silent(i)
		}
	}
}

// silent decides for an instance whose time ran out, or may have. What has arrived until now comes first: after a pause of
// this process, or while the plane absorbed them, the adverts that say that the MASTER lives are elsewhere.
func (l *loop) silent(i *instance) {
	l.release(i, l.clock()) // 1. the plane absorbs no more, 2. and what it has absorbed counts
	due, _ := i.machine.Deadline()
	l.drain(i.port, due) // 3. as does what is in the socket
	now := l.clock()
	if due, ok := i.machine.Deadline(); !ok || due > now {
		l.arm(i)
		return
	}
	l.step(i, now, vrrp.Tick{}) // 4. then we decide
}

// overslept says that we were late, and why that may be.
func (l *loop) overslept(i *instance, now vrrp.Time, late time.Duration) {
	was := l.asleep
	if slept := l.look() - was; slept >= standstill {
		l.log.Warn("this box was suspended: a MASTER steps back, a BACKUP waits once more", "for", slept.Round(time.Millisecond))
	}
	// Three intervals after our last advert, if not this one is late, the others may think that we are gone.
	if i.machine.State() == vrrp.Master && late >= 2*i.cfg.VRRP.Interval && i.notices.mayLog(now) {
		i.log.Warn("this process stood still and could send no advert; another director may have taken over meanwhile. Is this box overloaded, or was it paused?",
			"late", late.Round(time.Millisecond))
	}
}

// look reads how long the box was suspended since it was started. The second clock is read a bit later, or much if this
// thread had to wait between: the difference may be too small, never too large.
func (l *loop) look() time.Duration {
	l.asleep = max(l.asleep, clock(unix.CLOCK_BOOTTIME)-clock(unix.CLOCK_MONOTONIC))
	return l.asleep
}

// arm sets the timer of an instance. While the plane absorbs its adverts, it is the plane's.
func (l *loop) arm(i *instance) {
	due, ok := i.machine.Deadline()
	ok = ok && !i.absorbing
	if i.startAt != 0 && (!ok || i.startAt < due) {
		due, ok = i.startAt, true
	}
	if ok && !i.gone {
		l.timers.set(i, due)
	} else {
		l.timers.cut(i)
	}
}

// flush sends the adverts that are waiting.
func (l *loop) flush() {
	if l.outbox.n > 0 {
		l.outbox.flush(l.clock())
	}
}

// tell tells the supervisor what to do if this process dies.
func (l *loop) tell(now vrrp.Time) {
	s := &l.lease
	if s.stale {
		s.stale, s.untold, s.fastest = false, true, 0
		for _, i := range l.instances {
			if i.master() && (s.fastest == 0 || i.given.Interval < s.fastest) {
				s.fastest = i.given.Interval
			}
		}
		s.sent = true
	}
	if s.word != nil && s.fastest > 0 && s.sent {
		until := l.clock() - l.asleep + SilentIntervals*s.fastest
		atomic.StoreUint64(s.word, uint64(until))
		if s.alarm > 0 {
			_ = unix.TimerfdSettime(s.alarm, unix.TFD_TIMER_ABSTIME, &unix.ItimerSpec{Value: unix.NsecToTimespec(int64(until))}, nil) // else it rings earlier
		}
	}
	s.sent = false
	if !s.untold || now < s.readyAt {
		return
	}
	list := []ReadyPacket{}
	for _, i := range l.instances {
		if i.master() {
			list = append(list, i.readyPackets()...)
		}
	}
	s.untold, s.readyAt = false, now+time.Duration(len(list))*reportPause
	l.runtime.publishReady(list)
}

// promise says when the loop will be back while no instance is MASTER. Nothing may be left to do then before it waits.
func (l *loop) promise(now vrrp.Time) {
	if s := &l.lease; s.word != nil && s.fastest == 0 && l.reporter.opened {
		atomic.StoreUint64(s.word, uint64(max(now, l.next())-l.asleep+idleLease))
	}
}

// endLease says that nobody needs to look any more.
func (l *loop) endLease() {
	if l.lease.word != nil {
		atomic.StoreUint64(l.lease.word, 0)
	}
}

// handedOver is up to which interval the supervisor has sent priority 0 in our name.
func (l *loop) handedOver() time.Duration {
	if l.lease.handed == nil {
		return 0
	}
	return time.Duration(atomic.LoadUint64(l.lease.handed))
}

// stepBack has the instances for which that was done know it, before anything else happens to them.
func (l *loop) stepBack() {
	upTo := l.handedOver()
	if upTo == 0 {
		return
	}
	now := l.clock()
	for _, i := range l.instances {
		if i.machine.State() == vrrp.Master && i.given.Interval <= upTo {
			l.step(i, now, vrrp.Resigned{})
		}
	}
	if l.unclaimed == 0 { // else it still counts for those that begin
		atomic.CompareAndSwapUint64(l.lease.handed, uint64(upTo), 0) // more may have been added
	}
}

// leave gives back what the process holds, and nothing that the network sees.
func (l *loop) leave() {
	if l.host != nil {
		l.host.crew.close(time.Second)
	}
	l.runtime.inbox.close()
	l.abandonPlane()
	if l.watcher != nil {
		l.watcher.close()
	}
	for _, i := range l.instances {
		i.advert.close()
	}
	for _, p := range l.ports {
		p.close()
	}
	if l.host != nil {
		l.host.close()
	}
	if l.outbox != nil {
		l.outbox.close()
	}
	if l.poller != nil {
		l.poller.close()
	}
}
