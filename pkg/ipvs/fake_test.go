package ipvs

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/cloudflare/ipvs"
)

// fake is a kernel in memory, with the manners of the real one that matter here: a new real server comes first, what
// exists can't be created again, an empty list is an error, and a service carries a flag that nobody set.
type fake struct {
	services []*fakeService
	settings map[string]string
	deaf     bool // takes every change of a real server, and does nothing
}

type fakeService struct {
	ipvs.Service
	destinations []ipvs.DestinationExtended
}

func newFake() *fake {
	return &fake{settings: map[string]string{
		"net.ipv4.vs.sloppy_tcp": "0", "net.ipv4.vs.expire_nodest_conn": "0", "net.ipv4.vs.expire_quiescent_template": "0",
		"net.ipv4.vs.conn_reuse_mode": "1", "net.ipv4.vs.sloppy_sctp": "0", "net.ipv4.ip_forward": "0", "net.ipv6.conf.all.forwarding": "0",
	}}
}

func (f *fake) find(s ipvs.Service) *fakeService {
	for _, have := range f.services {
		if have.Address == s.Address && have.Port == s.Port && have.Protocol == s.Protocol && have.FWMark == s.FWMark && have.Family == s.Family {
			return have
		}
	}
	return nil
}

func (s *fakeService) find(d ipvs.Destination) int {
	return slices.IndexFunc(s.destinations, func(have ipvs.DestinationExtended) bool {
		return have.Address == d.Address && have.Port == d.Port
	})
}

func (f *fake) Services() ([]ipvs.ServiceExtended, error) {
	if len(f.services) == 0 {
		return nil, os.ErrNotExist
	}
	var list []ipvs.ServiceExtended
	for _, s := range f.services {
		list = append(list, ipvs.ServiceExtended{Service: s.Service})
	}
	return list, nil
}

func (f *fake) CreateService(s ipvs.Service) error {
	if f.find(s) != nil {
		return syscall.EEXIST
	}
	if !slices.Contains(modules[1:], "ip_vs_"+s.Scheduler) {
		return syscall.ENOENT
	}
	s.Flags |= ipvs.ServiceHashed
	f.services = append(f.services, &fakeService{Service: s})
	return nil
}

func (f *fake) UpdateService(s ipvs.Service) error {
	have := f.find(s)
	if have == nil {
		return syscall.ESRCH
	}
	s.Flags |= ipvs.ServiceHashed
	have.Service = s
	return nil
}

func (f *fake) RemoveService(s ipvs.Service) error {
	have := f.find(s)
	if have == nil {
		return syscall.ESRCH
	}
	f.services = slices.DeleteFunc(f.services, func(s *fakeService) bool { return s == have })
	return nil
}

func (f *fake) Destinations(s ipvs.Service) ([]ipvs.DestinationExtended, error) {
	have := f.find(s)
	if have == nil || len(have.destinations) == 0 {
		return nil, os.ErrNotExist
	}
	return slices.Clone(have.destinations), nil
}

func (f *fake) CreateDestination(s ipvs.Service, d ipvs.Destination) error {
	have := f.find(s)
	if have == nil {
		return syscall.ESRCH
	}
	if have.find(d) >= 0 {
		return syscall.EEXIST
	}
	if !f.deaf {
		have.destinations = slices.Insert(have.destinations, 0, ipvs.DestinationExtended{Destination: d})
	}
	return nil
}

func (f *fake) UpdateDestination(s ipvs.Service, d ipvs.Destination) error {
	have := f.find(s)
	if have == nil {
		return syscall.ESRCH
	}
	i := have.find(d)
	if i < 0 {
		return syscall.ENOENT
	}
	if !f.deaf {
		have.destinations[i].Destination = d
	}
	return nil
}

func (f *fake) RemoveDestination(s ipvs.Service, d ipvs.Destination) error {
	have := f.find(s)
	if have == nil {
		return syscall.ESRCH
	}
	i := have.find(d)
	if i < 0 {
		return syscall.ENOENT
	}
	if !f.deaf {
		have.destinations = slices.Delete(have.destinations, i, i+1)
	}
	return nil
}

func (f *fake) Setting(name string) (string, error) {
	value, ok := f.settings[name]
	if !ok {
		return "", os.ErrNotExist
	}
	return value, nil
}

func (f *fake) Set(name, value string) error {
	f.settings[name] = value
	return nil
}

func (f *fake) Close() error { return nil }

// watched notes the writes to a kernel, fake or real.
type watched struct {
	kernel
	writes []string
}

func (w *watched) note(format string, args ...any) {
	w.writes = append(w.writes, fmt.Sprintf(format, args...))
}

// taken returns the writes since the last call.
func (w *watched) taken() []string {
	writes := w.writes
	w.writes = nil
	return writes
}

func (w *watched) CreateService(s ipvs.Service) error {
	w.note("create %s:%d", s.Address, s.Port)
	return w.kernel.CreateService(s)
}

func (w *watched) UpdateService(s ipvs.Service) error {
	w.note("update %s:%d %s %d", s.Address, s.Port, s.Scheduler, s.Timeout)
	return w.kernel.UpdateService(s)
}

func (w *watched) RemoveService(s ipvs.Service) error {
	w.note("delete %s:%d", s.Address, s.Port)
	return w.kernel.RemoveService(s)
}

func (w *watched) CreateDestination(s ipvs.Service, d ipvs.Destination) error {
	w.note("add %s %d", d.Address, d.Weight)
	return w.kernel.CreateDestination(s, d)
}

func (w *watched) UpdateDestination(s ipvs.Service, d ipvs.Destination) error {
	w.note("set %s %d", d.Address, d.Weight)
	return w.kernel.UpdateDestination(s, d)
}

func (w *watched) RemoveDestination(s ipvs.Service, d ipvs.Destination) error {
	w.note("remove %s", d.Address)
	return w.kernel.RemoveDestination(s, d)
}

func (w *watched) Set(name, value string) error {
	w.note("%s=%s", strings.TrimPrefix(name, "net.ipv4.vs."), value)
	return w.kernel.Set(name, value)
}
