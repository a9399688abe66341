package supervisor

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xdirector/xdirector/pkg/ha"
	"github.com/xdirector/xdirector/pkg/xdp"
)

// reportPause is the shortest time between two reports, and reportShare the part of one CPU that encoding them may
// take: an advert must not wait for that.
// Work that took long because others had the CPU keeps no report back for longer than reportLongest.
const (
	reportPause   = 20 * time.Millisecond
	reportShare   = 10
	reportLongest = time.Second
)

// A supervisor that is gone is back after comeback at the latest, with RestartSec=100ms; its election resumes what has
// sent an advert within so many intervals.
const (
	comeback     = time.Second
	resumeWithin = 3
)

// gcPercent keeps the heap small. A collection takes milliseconds, and a thousand instances make the garbage for one in about
// six seconds.
const gcPercent = 20

// connect is for a child: it takes the socket that start has made, and leaves signals to the supervisor.
func connect(name string) (*conn, error) {
	// A Ctrl-C in a terminal reaches all processes; in which order they end is the supervisor's to say.
	signal.Ignore(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGUSR2)
	fd, err := unix.FcntlInt(socketFD, unix.F_DUPFD_CLOEXEC, highFD)
	if err == nil {
		err = unix.Close(socketFD)
	}
	if err != nil {
		return nil, fmt.Errorf("use socket pair: %w; only `xdirector run` starts this command", err)
	}
	c, err := newConn(fd)
	if err != nil {
		return nil, err
	}
	// Or ps would show the name of the file, which is "exe". Only a name: without it everything works.
	_ = os.WriteFile("/proc/self/comm", []byte(name), 0)
	return c, nil
}

// Elect is the process of the election: it runs the instances that the supervisor names until that says stop or is
// gone. The handler of the log is made for a format and a level. ErrShown: the supervisor was told why it could not start.
func Elect(handler func(format string, level slog.Leveler) slog.Handler) error {
	c, err := connect("xdirector-elect")
	if err != nil {
		return err
	}
	syscall.CloseOnExec(leaseFD)
	syscall.CloseOnExec(alarmFD)
	l, err := openLease(os.NewFile(leaseFD, "lease"))
	if err != nil {
		return err
	}
	debug.SetGCPercent(gcPercent)
	runtime.MemProfileRate = 0 // nobody reads the profile, and its table is locked in place
	hurry()
	out := newOutbox()
	sent := make(chan struct{})
	go func() { defer close(sent); out.run(c) }()
	ctx, cancel := context.WithCancel(context.Background())
	e := &elector{handler: handler, out: out, lease: l, begin: make(chan *ha.Runtime, 1)}
	go func() { defer cancel(); e.listen(c) }()
	var r *ha.Runtime
	select {
	case r = <-e.begin:
	case <-ctx.Done():
		return nil
	}
	go e.ready(ctx, r)
	context.AfterFunc(ctx, e.orphaned)
	reported := make(chan struct{})
	go func() { defer close(reported); e.report(ctx, r) }()
	err = r.Run(ctx)
	switch {
	case errors.Is(err, context.Canceled):
		e.orphaned() // again: an advert may have come between
		return nil
	case err != nil:
		out.put(message{kind: kindFailed, body: []byte(err.Error())})
		err = ErrShown
	default:
		<-reported
	}
	out.close()
	<-sent
	return err
}

// elector turns the supervisor's messages into those of a Runtime.
type elector struct {
	handler  func(format string, level slog.Leveler) slog.Handler
	out      *outbox
	lease    *lease
	begin    chan *ha.Runtime
	level    slog.LevelVar
	runtime  *ha.Runtime // nil until the supervisor says go
	settings *settings
	track    map[string]ha.Track
	maps     []*os.File // those of xdp.Files, in its order
	log      *slog.Logger
	stopping bool
	packets  atomic.Pointer[[]ha.ReadyPacket]
}

// listen returns when the supervisor is gone.
func (e *elector) listen(c *conn) {
	for {
		m, err := c.receive()
		if err != nil {
			return
		}
		switch m.kind {
		case kindConfig:
			var s settings
			if json.Unmarshal(m.body, &s) != nil {
				continue
			}
			compact(&s.HA)
			e.settings = &s
			e.level.Set(s.Level)
			if e.runtime != nil {
				e.runtime.Configure(s.HA)
			} else {
				e.out.put(message{kind: kindPrepared})
			}
		case kindTrack:
			e.track = nil
			if json.Unmarshal(m.body, &e.track) == nil && e.runtime != nil {
				e.runtime.Track(e.track)
			}
		case kindMaps:
			e.maps = m.files // held open: the kernel stops the timers of the plane when nobody does
			if e.runtime != nil {
				e.runtime.Use(e.fastPath())
			}
		case kindStop:
			e.stopping = true
			if e.runtime != nil {
				e.runtime.Stop()
			}
		case kindGo:
			e.start()
		}
	}
}

// compact gives back what a decoder of JSON reserves for slices that may grow: for a thousand instances a megabyte.
func compact(c *ha.Config) {
	c.Instances = slices.Clone(c.Instances)
	for n := range c.Instances {
		i := &c.Instances[n]
		i.VirtualAddresses, i.VRRP.Addresses = slices.Clone(i.VirtualAddresses), slices.Clone(i.VRRP.Addresses)
	}
}

// start makes the Runtime of what the supervisor has said so far.
func (e *elector) start() {
	if e.runtime != nil || e.settings == nil {
		return
	}
	e.log = slog.New(e.handler(e.settings.Format, &e.level))
	opts := ha.Options{Lease: e.lease.word, Alarm: alarmFD, HandedOver: e.lease.handed, Realtime: true, FastPath: e.fastPath()}
	e.runtime = ha.NewWith(e.settings.HA, opts, e.log)
	e.runtime.Track(e.track)
	if e.stopping {
		e.runtime.Stop()
	}
	e.begin <- e.runtime
}

// orphaned hands over the instances whose peers take over before the service manager can have started a supervisor
// again; the others stay as they are, and that one resumes them. Nothing is touched: packets go on.
func (e *elector) orphaned() {
	packets := e.packets.Load()
	if packets == nil {
		return
	}
	sender, err := ha.OpenSender() // not before: see child.watch
	if err != nil {
		return // there is nobody to tell
	}
	defer sender.Close()
	hopeless := slices.DeleteFunc(slices.Clone(*packets), func(p ha.ReadyPacket) bool { return resumeWithin*p.Interval > comeback })
	_ = sender.Send(hopeless)
}

// ready sends the packets that the supervisor would send in our name, until ctx ends.
func (e *elector) ready(ctx context.Context, r *ha.Runtime) {
	var p pace
	for {
		packets, ok := next(ctx, r.Ready(), p)
		if !ok {
			return
		}
		e.packets.Store(&packets)
		p.begin()
		e.put(kindReady, packets)
		p.end()
	}
}

// fastPath opens the plane of the maps; nil: there is none.
func (e *elector) fastPath() ha.FastPath {
	if len(e.maps) < 2 {
		return nil
	}
	plane, err := xdp.OpenFastPath(e.maps[0], e.maps[1])
	if err != nil {
		e.log.Warn("the election does without the plane", "error", err)
		return nil
	}
	return plane
}

// report sends the reports until the last one, or until ctx ends.
func (e *elector) report(ctx context.Context, r *ha.Runtime) {
	size := 0
	var p pace
	for {
		last, ok := next(ctx, r.Reports(), p)
		if !ok {
			return
		}
		p.begin()
		body := encodeReport(last, size)
		size = len(body) + len(body)/8
		e.out.put(message{kind: kindReport, body: body})
		if last.Stopped {
			return
		}
		p.end()
	}
}

// encodeReport is json.Marshal for a report of a thousand instances in a process whose memory is locked in place: no
// piece of it that is not needed at once, one allocation if the size is known.
func encodeReport(r ha.Report, size int) []byte {
	instances := r.Instances
	r.Instances = []ha.InstanceReport{}
	rest := encode(r)
	const start = `{"Instances":[` // the first field: a test compares with json.Marshal
	b := bytes.NewBuffer(append(make([]byte, 0, size), start...))
	encoder := json.NewEncoder(b)
	for i := range instances {
		if i > 0 {
			b.WriteByte(',')
		}
		if err := encoder.Encode(&instances[i]); err != nil {
			panic("encode report: " + err.Error()) // plain values all of them: a test encodes them
		}
		b.Truncate(b.Len() - 1) // the end of the line
	}
	return append(b.Bytes(), rest[len(start):]...)
}

func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic("encode message: " + err.Error()) // plain values all of them: a test encodes them
	}
	return b
}

func (e *elector) put(k kind, v any) { e.out.put(message{kind: k, body: encode(v)}) }

// pace has work that comes again and again take a small share of the time. Who comes seldom never waits.
type pace struct{ began, free time.Time }

func (p *pace) begin() { p.began = time.Now() }

func (p *pace) end() {
	now := time.Now()
	p.free = now.Add(min(max(reportPause, reportShare*now.Sub(p.began)), reportLongest))
}

// next is the newest of a channel in which a newer one replaces an older, not before the pace permits it; false: ctx has ended.
func next[T any](ctx context.Context, from <-chan T, p pace) (newest T, ok bool) {
	select {
	case newest = <-from:
	case <-ctx.Done():
		return newest, false
	}
	if wait := time.Until(p.free); wait > 0 {
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return newest, false
		}
		select {
		case newest = <-from:
		default:
		}
	}
	return newest, true
}
