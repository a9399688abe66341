package ipvs

import (
	"fmt"
	"slices"

	"github.com/xdirector/xdirector/pkg/statefile"
)

// record is the file that remembers across runs which services are ours. IPVS is empty after a boot, so the record of
// an earlier boot says nothing.
type record struct {
	path  string
	saved []string // what the file has, as far as we know; nil: not known
}

// content is the file.
type content struct {
	Services []string `json:"services"` // as lb.ServiceKey prints them
}

// load returns the services of this boot; none if there is no file.
func (r *record) load() (map[string]bool, error) {
	boot, err := statefile.BootID()
	if err != nil {
		return nil, err
	}
	var c content
	found, err := statefile.Read(r.path, boot, &c)
	if err != nil || !found {
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
		return statefile.Remove(r.path)
	}
	boot, err := statefile.BootID()
	if err != nil {
		return err
	}
	return statefile.Write(r.path, boot, content{list})
}
