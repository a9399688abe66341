package director

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"time"

	"github.com/xdirector/xdirector/pkg/config"
	"github.com/xdirector/xdirector/pkg/lb"
	"github.com/xdirector/xdirector/pkg/statefile"
	"github.com/xdirector/xdirector/pkg/status"
)

// lossPatience is how long something must be lost until a trial fails: next hops and the state of an instance may need a moment.
const lossPatience = time.Second

// trial is a reload that is taken back if it costs something.
type trial struct {
	old     *config.Config
	text    []byte                   // that old was made of
	servers map[lb.ServerKey]*server // what was known of real servers, also of those that the new configuration hasn't
	before  *status.Status           // what was served
	loaded  time.Time                // when old was
	span    time.Duration
	timer   <-chan time.Time
	gone    <-chan struct{}
	reply   chan error
	lost    string // what is lost now; empty: nothing
	since   time.Time
}

// over receives when the time is over. Without a trial it blocks for ever.
func (t *trial) over() <-chan time.Time {
	if t == nil {
		return nil
	}
	return t.timer
}

// abandoned is closed when nobody waits for the trial any more. Without a trial it blocks for ever.
func (t *trial) abandoned() <-chan struct{} {
	if t == nil {
		return nil
	}
	return t.gone
}

// end tells who began the trial what came of it, and leaves everything as it is.
func (t *trial) end(err error) {
	if t != nil {
		t.timer, t.gone = nil, nil
		t.reply <- err
	}
}

// keptText is what an agent that crashes leaves of a trial that is not over, or of one that was rolled back: the configuration
// in force. It holds secrets.
type keptText struct {
	Text   string `json:"text"`
	Reason string `json:"reason"`
}

func (d *Director) trialFile() string { return filepath.Join(d.cfg.StateDir, "rollback.json") }

// keep records that the configuration in force after a crash is this one, whatever the file says.
func (d *Director) keep(text []byte, reason string) error {
	boot, err := statefile.BootID()
	if err != nil {
		return err
	}
	return statefile.WriteSecret(d.trialFile(), boot, keptText{Text: string(text), Reason: reason})
}

// setAside drops the record: a start reads the file.
func (d *Director) setAside() {
	if err := statefile.Remove(d.trialFile()); err != nil {
		d.log.Warn("a start after a crash will take the configuration before this one", "error", err)
	}
}

// recallTrial takes the configuration that an agent that crashed has kept.
func (d *Director) recallTrial() {
	var k keptText
	boot, err := statefile.BootID()
	found := false
	if err == nil {
		found, err = statefile.Read(d.trialFile(), boot, &k)
	}
	var cfg *config.Config
	if err == nil && found {
		cfg, err = config.Parse(d.opts.ConfigFile, []byte(k.Text))
	}
	if err != nil {
		d.log.Warn("whether a reload was on trial is not known; the file is in force", "file", d.trialFile(), "error", err)
		return
	}
	if found {
		d.cfg, d.text = cfg, []byte(k.Text)
		d.reloaded = status.Reload{RolledBack: true, Time: d.reloaded.Time, Error: k.Reason}
	}
}

// beginTrial remembers what is in force.
func (d *Director) beginTrial(r reload) (*trial, error) {
	if err := d.keep(d.text, "the reload was rolled back: the agent ended while it was on trial"); err != nil {
		return nil, fmt.Errorf("a trial needs a record for the case of a crash: %w: make room in state_dir, or reload without --confirm", err)
	}
	d.publish()
	return &trial{old: d.cfg, text: d.text, servers: maps.Clone(d.servers), before: d.picture.Load(), loaded: d.reloaded.Time,
		span: r.trial, gone: r.gone, reply: r.reply}, nil
}

// watch begins the time of the trial: the new configuration is in force.
func (d *Director) watch(t *trial) {
	until := time.Now().Add(t.span)
	t.timer = time.After(t.span)
	d.trial, d.reloaded.TrialUntil = t, until
	d.trialEnd.Store(&until)
	d.log.Info("configuration reloaded, on trial", "file", d.opts.ConfigFile, "for", t.span)
}

// watchTrial rolls back when something is lost, and stays so.
func (d *Director) watchTrial(ctx context.Context) {
	t := d.trial
	if t == nil || d.stopping {
		return
	}
	if t.lost = status.Lost(t.before, d.picture.Load()); t.lost == "" {
		t.since = time.Time{}
	} else if t.since.IsZero() {
		t.since = time.Now()
	} else if time.Since(t.since) >= lossPatience {
		d.rollBack(ctx, t.lost)
	}
}

// endTrial is the end of its time.
func (d *Director) endTrial(ctx context.Context) {
	t := d.trial
	if lost := status.Lost(t.before, d.picture.Load()); lost != "" {
		d.rollBack(ctx, lost)
		return
	}
	d.trial, d.reloaded.TrialUntil = nil, time.Time{}
	d.trialEnd.Store(nil)
	d.setAside()
	d.settle()
	d.log.Info("the reload has passed its trial", "file", d.opts.ConfigFile)
	d.publish()
	t.reply <- nil
}

// rollBack puts the configuration before the trial into force again. The file stays as the operator wrote it: the next reload,
// and the next start, reads it.
func (d *Director) rollBack(ctx context.Context, reason string) {
	t := d.trial
	d.trial = nil
	d.trialEnd.Store(nil)
	for key, s := range t.servers {
		if d.servers[key] == nil {
			d.servers[key] = s // one that was down is no less so
		}
	}
	reason = "the reload was rolled back: " + reason
	if err := d.adopt(ctx, t.old); err != nil { // its plane was removed, and can't be had again: that is tried every second
		d.log.Error("the configuration before the reload is in force again, but not all of it", "error", err)
	}
	d.text = t.text
	d.reloaded = status.Reload{RolledBack: true, Time: t.loaded, Error: reason}
	if err := d.keep(t.text, reason); err != nil {
		d.log.Warn("a start after a crash will read the file, which was rolled back", "error", err)
	}
	d.log.Error(reason, "file", d.opts.ConfigFile, "in force", "the configuration of "+t.loaded.Format(time.DateTime))
	d.publish()
	t.reply <- errors.New(reason)
}
