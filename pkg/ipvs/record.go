package ipvs

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// record is the file that remembers across runs which services are ours. IPVS is empty after a boot, so the record of
// an earlier boot says nothing.
type record struct {
	path  string
	saved []string // what the file has, as far as we know; nil: not known
}

// content is the file.
type content struct {
	BootID   string   `json:"boot_id"`
	Services []string `json:"services"` // as lb.ServiceKey prints them
}

// load returns the services of this boot; none if there is no file.
func (r *record) load() (map[string]bool, error) {
	data, err := os.ReadFile(r.path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read record of ipvs services: %w", err)
	}
	var c content
	if err := json.Unmarshal(data, &c); err != nil {
		return nil, fmt.Errorf("read record of ipvs services %s: %w", r.path, err)
	}
	boot, err := bootID()
	if err != nil || c.BootID != boot {
		return nil, err
	}
	services := map[string]bool{}
	for _, key := range c.Services {
		services[key] = true
	}
	r.saved = c.Services
	return services, nil
}

// save replaces the file as a whole, if it would change; without services it is deleted.
func (r *record) save(list []string) error {
	if r.saved != nil && slices.Equal(list, r.saved) {
		return nil
	}
	if err := r.replace(list); err != nil {
		r.saved = nil
		return fmt.Errorf("write record of ipvs services: %w", err)
	}
	r.saved = list
	return nil
}

func (r *record) replace(list []string) error {
	if len(list) == 0 {
		if err := os.Remove(r.path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		return nil
	}
	boot, err := bootID()
	if err != nil {
		return err
	}
	data, err := json.MarshalIndent(content{boot, list}, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(r.path), 0o755); err != nil {
		return err
	}
	// It need not survive a loss of power: that is a boot.
	if err := os.WriteFile(r.path+".new", append(data, '\n'), 0o644); err != nil {
		return err
	}
	return os.Rename(r.path+".new", r.path)
}

func bootID() (string, error) {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(id)), err
}
