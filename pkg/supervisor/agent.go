package supervisor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"github.com/xdirector/xdirector/pkg/ha"
)

// ErrAlone is the cause of an agent's end when its supervisor is gone.
var ErrAlone = errors.New("the supervisor is gone")

// ErrLeave is the cause of an agent's end when another one is to take its place.
var ErrLeave = errors.New("another agent takes this one's place")

// settings are what the agent wishes of the election: kindConfig.
type settings struct {
	HA     ha.Config
	Format string // of the log
	Level  slog.Level
}

// Process is the process of the election as the supervisor sees it.
type Process struct {
	PID      int    `json:"pid"`      // 0: it is being started
	Restarts uint64 `json:"restarts"` // since the start of the service
}

// Agent is the agent's end of the connection to the supervisor, and by that the election: what ha.Runtime would be in
// the same process.
type Agent struct {
	conn    *conn
	out     *outbox
	format  string
	level   *slog.LevelVar
	reports chan ha.Report
	failed  chan error
	process atomic.Pointer[Process]
	told    time.Time // the last sign of life
}

// Controlled is what the supervisor has an agent do.
type Controlled interface {
	Reload(ctx context.Context) error
	Stop()
}

// Connect is for a process that a supervisor has started as its agent. The level is that of the log now and later.
func Connect(level *slog.LevelVar) (*Agent, error) {
	c, err := connect("xdirector-agent")
	if err != nil {
		return nil, err
	}
	raiseOOMScore()
	return &Agent{conn: c, out: newOutbox(), level: level, reports: make(chan ha.Report, 1), failed: make(chan error, 1)}, nil
}

// Serve carries out what the supervisor says, until ctx ends. It ends what cancel cancels when the supervisor is gone
// or has another agent take over. However many reloads are asked for during one, one more follows it: that reads the
// file as it is then.
func (a *Agent) Serve(ctx context.Context, cancel context.CancelCauseFunc, d Controlled) {
	reloads := make(chan struct{}, 1)
	go a.out.run(a.conn)
	go func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-reloads:
				_ = d.Reload(ctx) // the director logs the outcome
			}
		}
	}()
	for {
		m, err := a.conn.receive()
		if err != nil {
			cancel(ErrAlone)
			return
		}
		switch m.kind {
		case kindReport:
			var r ha.Report
			if json.Unmarshal(m.body, &r) != nil {
				continue // of no known version; the next supervisor starts an election of its own
			}
			select {
			case <-a.reports:
			default:
			}
			a.reports <- r
		case kindElection:
			var p Process
			if json.Unmarshal(m.body, &p) == nil {
				a.process.Store(&p)
			}
		case kindFailed:
			select {
			case a.failed <- errors.New(string(m.body)):
			default:
			}
		case kindStop:
			d.Stop()
		case kindReload:
			poke(reloads)
		case kindLeave:
			cancel(ErrLeave)
		}
	}
}

// SetFormat says how the election is to write its log: log.format of the configuration.
func (a *Agent) SetFormat(format string) { a.format = format }

// Run waits until ctx ends, or the election could not start; that error is as ha.Runtime.Run's.
func (a *Agent) Run(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case err := <-a.failed:
		return err
	}
}

// Configure is ha.Runtime's.
func (a *Agent) Configure(cfg ha.Config) {
	a.put(kindConfig, settings{HA: cfg, Format: a.format, Level: a.level.Level()})
}

// Track is ha.Runtime's.
func (a *Agent) Track(by map[string]ha.Track) { a.put(kindTrack, by) }

// Maps gives the plane's maps for VRRP to the supervisor, which keeps them open, and to the election. It takes over the
// files. None: there is no plane.
func (a *Agent) Maps(files []*os.File) { a.out.put(message{kind: kindMaps, files: files}) }

// Stop is ha.Runtime's.
func (a *Agent) Stop() { a.out.put(message{kind: kindStop}) }

// Reports is ha.Runtime's.
func (a *Agent) Reports() <-chan ha.Report { return a.reports }

// Process is the process of the election.
func (a *Agent) Process() (pid int, restarts uint64) {
	p := a.process.Load()
	if p == nil {
		return 0, 0
	}
	return p.PID, p.Restarts
}

// alive is how often the agent gives a sign of life, however often its director does.
const alive = 4 * time.Second

// Notify tells the service manager, by way of the supervisor. Each message is a sign of life. It is for one goroutine at a time.
func (a *Agent) Notify(state string) {
	if now := time.Now(); state != "WATCHDOG=1" {
		a.told = now
	} else if now.Sub(a.told) < alive {
		return
	} else {
		a.told = now
	}
	a.out.put(message{kind: kindNotify, body: []byte(state)})
}

func (a *Agent) put(k kind, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("encode message %d: %v", k, err)) // plain values all of them: a test encodes each
	}
	a.out.put(message{kind: k, body: b})
}

// raiseOOMScore makes the agent the first to go of the three when memory is short: election and packets go on without
// it. To make oneself a likelier victim is always permitted.
func raiseOOMScore() {
	const path = "/proc/self/oom_score_adj"
	b, err := os.ReadFile(path)
	if err != nil {
		return
	}
	var score int
	if _, err := fmt.Sscan(string(b), &score); err == nil {
		_ = os.WriteFile(path, fmt.Appendln(nil, min(1000, score+100)), 0)
	}
}
