// Package supervisor is the small process that the service manager sees, and the two ends of what connects it to its
// children: the election, and the agent, which is all the rest. It relays their messages, keeps the newest wish of each
// kind, and starts either of them again with that, without the other one stopping. Children are started from
// /proc/self/exe, so that versions never mix, and see the end of the supervisor as the end of their socket.
package supervisor

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"syscall"
	"time"

	"github.com/xdirector/xdirector/pkg/ha"
)

const (
	tick        = 4 * time.Second
	silentLimit = 3                // ticks without a word after which a child hangs; all speak at least every eleven seconds
	startLimit  = 22               // ticks that a child may take to begin to speak: loading programs can be slow
	stopLimit   = 88 * time.Second // the longest handover takes 84 s; the unit's TimeoutStopSec is above this
	stable      = 10 * time.Second // a child that lived this long is started again at once
	lastTries   = 3                // times that an agent is started to end in good order
)

// role is what a child does.
type role string

const (
	roleAgent    role = "agent"
	roleElection role = "election"
)

// Options are what a supervisor is made of.
type Options struct {
	Version                 string
	AgentArgs, ElectionArgs []string // command lines of the children, the name of the program first
	CheckArgs               []string // of the command by which another version says that it can read the configuration

	Realtime bool // this process may be real-time: for one that does nothing else
	Signals  <-chan os.Signal
	Notify   func(state string) // sd_notify
	// Handler makes the handler of the log for a format and a level; the agent says which, when it has read them.
	Handler func(format string, level slog.Leveler) slog.Handler
	Flush   func() // writes what was logged so far, before this process is replaced; nil: that is written already
}

// ErrShown is the error of Run when a child has already told what it is.
var ErrShown = errors.New("the reason was printed by a child")

// slot is the place of one child.
type slot struct {
	role     role
	args     []string
	child    *child           // nil: none runs
	again    <-chan time.Time // when the next one is started
	failures int              // in a row
	restarts uint64
}

// supervisor is one loop; nothing in it waits for a child.
type supervisor struct {
	opts     Options
	log      *slog.Logger
	level    slog.LevelVar
	format   string
	events   chan event
	agent    *slot
	election *slot

	lease    *lease
	guard    *guard
	wishes   map[kind]message // the newest of each kind, for an election that is started again
	lock     *os.File         // of state_dir; nil: it is not known yet, or there is none
	report   []byte           // the newest, for an agent that is started again
	ready    bool             // the first start is through
	stopping bool
	deadline <-chan time.Time // of the stop
	packets  []ha.ReadyPacket // what the guard is armed with

	checked      chan *upgrade // the outcome of a check of the installed binary
	upgrade      *upgrade      // under way in this process
	upgradeBegan time.Duration // CLOCK_MONOTONIC
	old          *child        // the election of the version before, until that of this one takes its place
	before       string        // the version before, until this one is ready
}

// Run supervises until the agent has ended in good order, and returns nil then. A first start that fails ends with
// ErrShown if the agent has said why.
func Run(opts Options) error {
	s := &supervisor{
		opts:     opts,
		events:   make(chan event),
		agent:    &slot{role: roleAgent, args: opts.AgentArgs},
		election: &slot{role: roleElection, args: opts.ElectionArgs},
		wishes:   map[kind]message{},
		checked:  make(chan *upgrade, 1),
	}
	s.log = slog.New(opts.Handler("", &s.level))
	if opts.Realtime {
		hurry()
	}
	defer func() { s.lock.Close() }() // after the children; of a nil one, too
	defer s.killAll()
	will, err := inherited()
	if err == nil && will != nil {
		err = s.inherit(will)
	} else if err == nil {
		s.lease, err = newLease()
	}
	if err != nil {
		return err
	}
	if s.guard, err = startGuard(s.lease); err != nil {
		return err
	}
	defer s.guard.stop()
	if s.old != nil {
		s.guard.over(s.old.process)
		s.guard.arm(s.packets)
	} else {
		s.start(s.election)
	}
	s.start(s.agent)
	return s.loop()
}

func (s *supervisor) loop() error {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for {
		select {
		case sig := <-s.opts.Signals:
			s.signalled(sig)
		case e := <-s.events:
			switch {
			case e.gone:
				s.gone(e.child)
			case e.ended == nil:
				s.said(e)
			default:
				if done, err := s.ended(e); done {
					return err
				}
			}
		case <-s.agent.again:
			s.start(s.agent)
		case <-s.election.again:
			s.start(s.election)
		case did := <-s.guard.expired:
			s.silent(did)
		case u := <-s.checked:
			s.proven(u)
		case <-ticker.C:
			s.watch(s.agent)
			s.watch(s.election)
			s.opts.Notify("WATCHDOG=1")
		case <-s.deadline:
			s.log.Error("the end in good order takes too long: everything is left as it is; xdirector cleanup removes it", "limit", stopLimit)
			return fmt.Errorf("stop: not through after %s", stopLimit)
		}
	}
}

// start runs a child and gives it the newest wishes. What keeps it from starting may pass: it is tried again.
func (s *supervisor) start(p *slot) {
	p.again = nil
	var shared []*os.File
	if p.role == roleElection {
		shared = []*os.File{s.lease.file, s.guard.timer}
	}
	c, err := start(p.role, p.args, shared, s.events)
	if err != nil {
		s.log.Error("a process can't be started; tried again", "error", err)
		p.failures++
		p.again = time.After(p.pause())
		return
	}
	p.child = c
	switch p.role {
	case roleElection:
		if s.old == nil {
			s.guard.over(c.process)
		}
		for _, k := range []kind{kindMaps, kindTrack, kindConfig} {
			if m, ok := s.wishes[k]; ok {
				c.out.put(m)
			}
		}
		if _, ok := s.wishes[kindConfig]; ok && s.old == nil {
			s.begin(c)
		}
		s.tellProcess()
	case roleAgent:
		if s.report != nil {
			c.tell(kindReport, s.report)
		}
		s.tellProcess()
	}
	if s.stopping {
		c.tell(kindStop, nil)
	}
}

// begin has the election take part, if it doesn't yet.
func (s *supervisor) begin(c *child) {
	c.tell(kindGo, nil)
}

// silent tells what was done about an election that didn't move.
func (s *supervisor) silent(did silence) {
	switch {
	case did.gone:
		s.log.Error("no election has run for two advert intervals: handed over in its name; packets go on", "interval", did.interval, "adverts", did.sent)
	case !did.killed:
		s.log.Error("the election has not moved for two advert intervals: its fastest instances are handed over in its name; packets and the others go on",
			"interval", did.interval, "adverts", did.sent)
	case did.interval == 0:
		s.log.Error("the election, which is MASTER of nothing, has not moved for some seconds: it is killed; packets go on")
	default:
		s.log.Error("the election has not moved for two advert intervals: it is killed, and handed over in its name; packets go on",
			"interval", did.interval, "adverts", did.sent)
	}
}

// tellProcess tells the agent of the election's process.
func (s *supervisor) tellProcess() {
	p := Process{Restarts: s.election.restarts}
	if c := s.election.child; c != nil {
		p.PID = c.process.Pid
	}
	b, err := json.Marshal(p)
	if err == nil {
		s.agent.child.tell(kindElection, b)
	}
}

// said carries out or passes on what a child says.
func (s *supervisor) said(e event) {
	c := e.child
	if c != s.agent.child && c != s.election.child {
		return // it was replaced
	}
	c.silent = 0
	switch e.kind {
	case kindConfig:
		switch ok := s.adopt(e.message); {
		case !ok:
		case s.old != nil && s.election.child == nil && s.election.again == nil:
			s.start(s.election)
		case s.old != nil:
			s.election.child.tell(kindConfig, e.body)
		default:
			s.election.child.tell(kindConfig, e.body)
			s.begin(s.election.child)
		}
	case kindPrepared:
		if s.old != nil {
			s.old.kill() // and when it is gone, the new one begins: see succeed
		}
	case kindTrack, kindMaps:
		s.wishes[e.kind] = e.message
		s.election.child.tell(e.kind, e.body, e.files...)
	case kindReady:
		var packets []ha.ReadyPacket
		if json.Unmarshal(e.body, &packets) == nil {
			s.packets = packets
			s.guard.arm(packets)
		}
	case kindReport:
		c.ready, s.report = true, e.body
		s.agent.child.tell(kindReport, e.body)
	case kindFailed:
		if s.ready {
			if p := s.election; p.worthTelling() {
				s.log.Error("the election could not start", "error", string(e.body))
			}
			return
		}
		s.agent.child.tell(kindFailed, e.body) // which ends with that error
	case kindNotify:
		s.notified(c, string(e.body))
	case kindStop:
		s.election.child.tell(kindStop, nil)
	}
}

// adopt takes the settings of the agent: the log's are for this process too. False: another director runs with them,
// and the agent ends with that.
func (s *supervisor) adopt(m message) bool {
	var wished settings
	if err := json.Unmarshal(m.body, &wished); err != nil {
		s.log.Error("the agent's settings can't be read", "error", err)
		return false
	}
	if s.lock == nil {
		var err error
		_ = os.MkdirAll(wished.HA.StateDir, 0o755) // where that can't be, the election says so, and runs without
		if s.lock, err = Lock(wished.HA.StateDir); errors.Is(err, ErrRunning) {
			s.agent.child.tell(kindFailed, []byte(err.Error()))
			return false
		}
	}
	s.wishes[kindConfig] = m
	s.level.Set(wished.Level)
	if wished.Format != s.format {
		s.format = wished.Format
		s.log = slog.New(s.opts.Handler(s.format, &s.level))
	}
	return true
}

// notified passes on to the service manager what the agent has for it. The watchdog is this loop's own.
func (s *supervisor) notified(c *child, state string) {
	switch state {
	case "WATCHDOG=1":
		return
	case "READY=1":
		c.ready = true
		if s.before != "" {
			s.log.Info("upgraded", "from", s.before, "to", s.opts.Version, "took", (monotonic() - s.upgradeBegan).Round(time.Millisecond))
			s.before = ""
		}
		if s.ready {
			return
		}
		s.ready = true
	}
	s.opts.Notify(state)
}

// watch kills a child that hangs. A pause of this process, or of all of the box, is not held against a child: only
// this loop's own ticks count.
func (s *supervisor) watch(p *slot) {
	c := p.child
	if c == nil {
		return
	}
	c.silent++
	limit := silentLimit
	if !c.ready {
		limit = startLimit
	}
	if c.silent > limit {
		s.log.Error("a process hangs: it is killed and started again", "process", p.role, "pid", c.process.Pid, "silent", time.Duration(c.silent)*tick)
		c.silent = 0
		c.kill()
	}
}

// gone has another election follow one that runs no more, at once: its peers wait for three intervals at most.
func (s *supervisor) gone(c *child) {
	switch {
	case c == s.old:
		s.succeed()
	case c == s.election.child && s.ready && !s.stopping:
		c.lost = true
		c.kill() // it might have closed its socket alone
		s.restart(s.election, c)
	}
}

// restart starts a child again in the place of another one, and returns how long it waits with that.
func (s *supervisor) restart(p *slot, c *child) time.Duration {
	p.child = nil
	if time.Since(c.started) > stable {
		p.failures = 0
	}
	wait := p.pause()
	p.failures++
	p.restarts++
	if p.role == roleElection {
		s.guard.over(nil)
		s.tellProcess()
	}
	if wait == 0 {
		s.start(p)
	} else {
		p.again = time.After(wait)
	}
	return wait
}

// pause is the time before a child is started again, after so many failures in a row. An election that ends again and
// again is tried more often: its peers wait.
func (p *slot) pause() time.Duration {
	first, longest := 100*time.Millisecond, 5*time.Second
	if p.role == roleElection {
		first, longest = 5*time.Millisecond, time.Second
	}
	if p.failures == 0 {
		return 0
	}
	return min(first<<min(p.failures-1, 10), longest)
}

// worthTelling keeps a child that ends again and again from filling the log.
func (p *slot) worthTelling() bool { return p.failures <= 5 || p.failures%50 == 0 }

// ended decides what follows the end of a child. done ends the supervisor.
func (s *supervisor) ended(e event) (done bool, err error) {
	c := e.child
	p := s.agent
	if c.role == roleElection {
		p = s.election
	}
	cause, clean := c.cause(e.ended), e.ended.Success() && !c.leaving
	if p.child != c {
		if c.lost && p.worthTelling() {
			s.log.Error("the election has ended: started again, packets go on", "cause", cause, "pid", c.process.Pid)
		}
		return false, nil
	}
	switch {
	case p == s.election && s.stopping && clean:
		p.child = nil
		s.guard.over(nil)
		s.guard.arm(nil)
		s.tellProcess()
		return false, nil
	case p == s.agent && s.stopping && clean:
		p.child = nil
		s.opts.Notify("STATUS=stopped")
		return true, nil
	case p == s.agent && s.upgrade != nil && s.upgrade.path != "":
		p.child = nil
		s.execute()
		return false, nil
	case p == s.agent && !s.ready:
		p.child = nil
		if e.ended.Exited() {
			return true, ErrShown
		}
		return true, fmt.Errorf("the agent ended before it was ready: %s", cause)
	case p == s.election && !s.ready && e.ended.Exited():
		p.child = nil
		s.guard.over(nil)
		return false, nil // it has said why, and the agent ends with that
	case p == s.agent && s.stopping && p.failures >= lastTries:
		p.child = nil
		return true, fmt.Errorf("the agent can't end in good order (%s): what forwards packets is left as it is; xdirector cleanup removes it", cause)
	}
	rest := "packets and the election go on"
	if p == s.election {
		rest = "packets go on"
	}
	wait := s.restart(p, c)
	if p.worthTelling() {
		s.log.Error("the "+string(p.role)+" has ended: started again, "+rest, "cause", cause, "pid", c.process.Pid, "in", wait)
	}
	return false, nil
}

func (s *supervisor) signalled(sig os.Signal) {
	switch sig {
	case syscall.SIGHUP:
		s.agent.child.tell(kindReload, nil) // one that is being started reads the file anyway
	case syscall.SIGUSR2:
		s.beginUpgrade()
	default:
		s.stop()
	}
}

// stop begins the end in good order: election and agent know what to do. One that has died meanwhile is started for it.
func (s *supervisor) stop() {
	if s.stopping {
		return
	}
	s.stopping, s.upgrade = true, nil
	s.deadline = time.After(stopLimit)
	s.agent.failures = 0
	if s.old != nil {
		s.old.kill() // the election of this version ends it in good order
	}
	s.agent.child.tell(kindStop, nil)
	s.election.child.tell(kindStop, nil)
	for _, p := range []*slot{s.agent, s.election} {
		if p.child == nil {
			s.start(p)
		}
	}
}

// killAll ends what still runs, and waits for it.
func (s *supervisor) killAll() {
	for _, p := range []*slot{s.agent, s.election} {
		if p.child != nil {
			p.child.kill()
		}
	}
	if s.old != nil {
		s.old.kill()
	}
	for s.agent.child != nil || s.election.child != nil {
		e := <-s.events
		for _, p := range []*slot{s.agent, s.election} {
			if e.ended != nil && p.child == e.child {
				p.child = nil
			}
		}
	}
}
