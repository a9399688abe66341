package ipvs

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/cloudflare/ipvs"
	"github.com/xdirector/xdirector/pkg/lb"
)

// kernel is what a Plane needs of Linux. The fake in the tests has to hold the same assertions.
type kernel interface {
	Services() ([]ipvs.ServiceExtended, error)
	CreateService(ipvs.Service) error
	UpdateService(ipvs.Service) error
	RemoveService(ipvs.Service) error
	Destinations(ipvs.Service) ([]ipvs.DestinationExtended, error)
	CreateDestination(ipvs.Service, ipvs.Destination) error
	UpdateDestination(ipvs.Service, ipvs.Destination) error
	RemoveDestination(ipvs.Service, ipvs.Destination) error
	Setting(name string) (string, error) // named as sysctl has it
	Set(name, value string) error
	Close() error
}

// modules are those of the kernel, in the order of need.
var modules = [...]string{"ip_vs", "ip_vs_rr", "ip_vs_wrr", "ip_vs_lc", "ip_vs_wlc", "ip_vs_sh", "ip_vs_mh"}

// settings is the folder of the kernel's settings; of those below net Linux shows the ones of the caller's network namespace.
const settings = "/proc/sys"

// linux is the kernel of this machine.
type linux struct {
	ipvs.Client
}

func dial() (kernel, error) {
	client, err := ipvs.New()
	if errors.Is(err, os.ErrNotExist) {
		// Only now: a kernel with IPVS built in has no module to load.
		loading := load()
		client, err = ipvs.New()
		if errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("kernel has no ip_vs: modprobe -a %s (tried: %w)", strings.Join(modules[:], " "), cmp.Or(loading, err))
		}
	}
	if err != nil {
		return nil, fmt.Errorf("connect to the kernel's ip_vs: %w", err)
	}
	return linux{client}, nil
}

// load runs modprobe. The schedulers are loaded too: an agent that drops its rights later can't do it any more.
func load() error {
	out, err := exec.Command("modprobe", modules[0]).CombinedOutput()
	if text := strings.TrimSpace(string(out)); err != nil && text != "" {
		return fmt.Errorf("%w: %s", err, strings.ReplaceAll(text, "\n", "; "))
	}
	if err == nil {
		_ = exec.Command("modprobe", append([]string{"-a"}, modules[1:]...)...).Run() // one that is missing is named when it is needed
	}
	return err
}

func (linux) Setting(name string) (string, error) {
	value, err := os.ReadFile(settingFile(name))
	return strings.TrimSpace(string(value)), err
}

func (linux) Set(name, value string) error {
	return os.WriteFile(settingFile(name), []byte(value), 0)
}

func settingFile(name string) string {
	return filepath.Join(settings, strings.ReplaceAll(name, ".", "/"))
}

func (l linux) Close() error {
	return l.Client.(io.Closer).Close()
}

// virtual is one virtual service of the kernel.
type virtual struct {
	ipvs.Service
	destinations []ipvs.DestinationExtended
}

// snapshot is everything that IPVS has at one moment.
type snapshot struct {
	services map[lb.ServiceKey]virtual
}

// read takes a snapshot.
func read(k kernel) (snapshot, error) {
	found := snapshot{services: map[lb.ServiceKey]virtual{}}
	list, err := k.Services()
	switch {
	case errors.Is(err, os.ErrPermission):
		return snapshot{}, fmt.Errorf("list services: %w: run as root or with CAP_NET_ADMIN", err)
	case err != nil && !errors.Is(err, os.ErrNotExist): // the library's word for an empty list
		return snapshot{}, fmt.Errorf("list services: %w", err)
	}
	for _, s := range list {
		key := lb.ServiceKey{Address: s.Address, Port: s.Port, Protocol: lb.Protocol(s.Protocol)}
		if s.FWMark != 0 {
			key = lb.MarkKey(s.FWMark, s.Family == ipvs.INET6)
		}
		destinations, err := k.Destinations(s.Service)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return snapshot{}, fmt.Errorf("list real servers of service %s: %w", key, err)
		}
		found.services[key] = virtual{s.Service, destinations}
	}
	return found, nil
}

// foreign names the services that are not ours.
func (s snapshot) foreign(ours map[lb.ServiceKey]bool) []string {
	rest := map[lb.ServiceKey]bool{}
	for key := range s.services {
		if !ours[key] {
			rest[key] = true
		}
	}
	return keys(rest)
}
