package director

import (
	"maps"
	"net/netip"
	"path/filepath"
	"time"

	"github.com/xdirector/xdirector/pkg/lb"
	"github.com/xdirector/xdirector/pkg/statefile"
	"github.com/xdirector/xdirector/pkg/track"
)

// memory is what a director that crashed knew of the health of its real servers: the next one starts with it, so
// that a dead server gets no clients until its first check is through.
type memory struct {
	Down []memoed `json:"down"`
	Lost []string `json:"lost,omitempty"` // services without a quorum
}

// memoed is one real server that was down.
type memoed struct {
	Address  netip.Addr  `json:"address"`
	Port     uint16      `json:"port"`
	Protocol lb.Protocol `json:"protocol"`
	Server   netip.Addr  `json:"real_server"`
	Reason   string      `json:"reason"`
}

func (d *Director) memoryFile() string { return filepath.Join(d.cfg.StateDir, "health.json") }

// recall reads what an earlier run remembered. No file, or one of another boot, is a fresh start.
func (d *Director) recall() {
	var m memory
	boot, err := statefile.BootID()
	if err == nil {
		_, err = statefile.Read(d.memoryFile(), boot, &m)
	}
	if err != nil {
		d.log.Warn("the health of real servers before the restart is not known; all count as up until their first check", "file", d.memoryFile(), "error", err)
		return
	}
	for _, s := range m.Down {
		key := lb.ServerKey{
			Service: lb.ServiceKey{Address: s.Address, Port: s.Port, Protocol: s.Protocol},
			Address: s.Server,
		}
		d.servers[key] = newServer(false, s.Reason)
	}
	d.quorums = map[string]quorum{}
	for _, name := range m.Lost {
		d.quorums[name] = quorum{lost: true, since: time.Now()}
	}
}

// remember writes which real servers are down.
func (d *Director) remember() {
	m := memory{Down: []memoed{}}
	for key, s := range d.servers {
		if !s.up {
			m.Down = append(m.Down, memoed{key.Service.Address, key.Service.Port, key.Service.Protocol, key.Address, s.reason})
		}
	}
	for name, q := range d.quorums {
		if q.lost {
			m.Lost = append(m.Lost, name)
		}
	}
	d.record(d.memoryFile(), d.remember, m, "the health of real servers could not be recorded; after a crash all would count as up until their first check")
}

// unrecorded is a file of state_dir that could not be written.
type unrecorded struct {
	told  string // why, in the log
	again func()
}

// record writes a file of state_dir. That it can't is told once, and again is called every second until it can.
func (d *Director) record(file string, again func(), content any, otherwise string) {
	boot, err := statefile.BootID()
	if err == nil {
		err = statefile.Write(file, boot, content)
	}
	before, failed := d.unrecorded[file]
	switch {
	case err == nil && failed:
		delete(d.unrecorded, file)
		d.log.Info("a record that could not be written is up to date again", "file", file)
	case err != nil:
		if d.unrecorded == nil {
			d.unrecorded = map[string]unrecorded{}
		}
		d.unrecorded[file] = unrecorded{told: err.Error(), again: again}
		if before.told != err.Error() {
			d.log.Warn(otherwise+"; tried again every second", "file", file, "error", err)
		}
	}
}

// recordAgain tries what could not be recorded.
func (d *Director) recordAgain() {
	for _, u := range maps.Clone(d.unrecorded) {
		u.again()
	}
}

func (d *Director) scriptFile() string { return filepath.Join(d.cfg.StateDir, "scripts.json") }

// recallScripts reads what scripts were worth before a restart: an instance must not lose MASTER because a script that
// was good is not known for a moment.
func (d *Director) recallScripts() map[string]track.ScriptState {
	known := map[string]track.ScriptState{}
	boot, err := statefile.BootID()
	if err == nil {
		_, err = statefile.Read(d.scriptFile(), boot, &known)
	}
	if err != nil {
		d.log.Warn("what tracked scripts were worth before the restart is not known; instances wait for their first runs", "file", d.scriptFile(), "error", err)
		return nil
	}
	return known
}

// rememberScripts writes what scripts are worth.
func (d *Director) rememberScripts() {
	known := maps.Clone(d.tracking.seen.Scripts)
	maps.DeleteFunc(known, func(_ string, s track.ScriptState) bool { return !s.Known })
	d.record(d.scriptFile(), d.rememberScripts, known, "what tracked scripts are worth could not be recorded; after a crash instances would wait for their first runs")
}

// forget drops the memory at a clean stop: a later start finds out afresh. What operators wish stays.
func (d *Director) forget() {
	for _, file := range []string{d.memoryFile(), d.scriptFile(), d.trialFile()} {
		if err := statefile.Remove(file); err != nil {
			d.log.Warn("the next start will believe what this run knew of real servers and scripts", "error", err)
		}
	}
}
