package director

import (
	"encoding/json"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/xdirector/xdirector/pkg/lb"
)

// memory is what a director that crashed knew of the health of its real servers: the next one starts with it, so
// that a dead server gets no clients until its first check is through.
type memory struct {
	BootID string   `json:"boot_id"` // of another boot: worthless
	Down   []memoed `json:"down"`
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
	data, err := os.ReadFile(d.memoryFile())
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	var m memory
	if err == nil {
		err = json.Unmarshal(data, &m)
	}
	if err != nil {
		d.log.Warn("the health of real servers before the restart is not known; all count as up until their first check", "file", d.memoryFile(), "error", err)
		return
	}
	if m.BootID != bootID() {
		return
	}
	for _, s := range m.Down {
		key := lb.ServerKey{
			Service: lb.ServiceKey{Address: s.Address, Port: s.Port, Protocol: s.Protocol},
			Address: s.Server,
		}
		d.servers[key] = newServer(false, s.Reason)
	}
}

// remember writes which real servers are down, by a rename so that no crash leaves half a file.
func (d *Director) remember() {
	m := memory{BootID: bootID(), Down: []memoed{}}
	for key, s := range d.servers {
		if !s.up {
			m.Down = append(m.Down, memoed{key.Service.Address, key.Service.Port, key.Service.Protocol, key.Address, s.reason})
		}
	}
	data, err := json.MarshalIndent(m, "", "  ")
	if err == nil {
		temporary := d.memoryFile() + ".new"
		if err = os.MkdirAll(d.cfg.StateDir, 0o755); err == nil {
			if err = os.WriteFile(temporary, data, 0o600); err == nil {
				err = os.Rename(temporary, d.memoryFile())
			}
		}
	}
	if err != nil {
		d.log.Warn("the health of real servers could not be recorded; after a crash all would count as up until their first check", "file", d.memoryFile(), "error", err)
	}
}

// forget drops the memory at a clean stop: a later start finds out afresh.
func (d *Director) forget() { _ = os.Remove(d.memoryFile()) }

func bootID() string {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(id))
}
