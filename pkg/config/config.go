// Package config turns the YAML file of a director into a valid, complete and typed configuration: every default is
// filled in, and nothing that reads a Config has to check it again. Reading is strict: an unknown key, a wrong type,
// a duplicate or a value out of range is a Problem with its place in the file, and all problems of a file come at
// once. Nothing here looks at the box: whether an interface exists is not this package's question.
package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"syscall"
	"time"

	"github.com/xdirector/xdirector/pkg/health"
	"github.com/xdirector/xdirector/pkg/lb"
)

// DefaultPath is the file that is read when none is named.
const DefaultPath = "/etc/xdirector/config.yaml"

// maxFileSize is far above any real file, and keeps a mistaken name (/dev/zero) from eating the memory.
const maxFileSize = 4 << 20

// Config is a whole configuration, valid and with all defaults filled in. It is never changed after Parse.
type Config struct {
	RouterID  string // empty: the host name, which the one that runs it looks up
	StateDir  string // absolute
	Instances []Instance
	Services  []Service
	Dataplane Dataplane
	Metrics   Metrics
	Control   Control
	Log       Log
	Warnings  []Problem // what is valid but most likely a mistake, in the order of the file
}

// Instance is one VRRP virtual router.
type Instance struct {
	Name             string // unique
	Interface        string // a name that Linux allows; it need not exist
	Version          uint8  // 2 or 3
	VirtualRouterID  uint8  // 1-255, unique on the interface
	Priority         uint8  // 1-255
	AdvertInterval   time.Duration
	Preempt          bool
	PreemptDelay     time.Duration
	Password         string         // version 2 only, at most 8 bytes; empty: no authentication
	VirtualAddresses []netip.Prefix // in the order of the file; the address is not masked
}

// Service is a virtual address, port and protocol with the real servers behind it.
type Service struct {
	Name        string // unique
	Address     netip.Addr
	Port        uint16
	Protocol    lb.Protocol
	Scheduler   lb.Scheduler
	Persistence time.Duration // whole seconds; 0: none
	Check       *health.Check // nil: none
	RealServers []RealServer  // at least one
}

// RealServer is one server behind a service.
type RealServer struct {
	Address netip.Addr    // unique in the service
	Port    uint16        // the service's: direct return can't change it
	Weight  uint16        // 0: no new connections
	Check   *health.Check // its own, else the service's; nil: it counts as up always
}

// The values of Dataplane.Mode.
const (
	ModeAuto       = "auto"
	ModeXDPNative  = string(lb.XDPNative)
	ModeXDPGeneric = string(lb.XDPGeneric)
	ModeIPVS       = string(lb.IPVS)
)

// Dataplane says how packets are forwarded.
type Dataplane struct {
	Mode          string   // one of the Mode constants
	Interfaces    []string // those that get a program; never empty when there are instances
	FlowTableSize uint32   // flows that can be held
	PinPath       string   // absolute; a folder on a bpffs
	DeadMan       time.Duration
}

// Metrics says where Prometheus and browsers are answered.
type Metrics struct {
	Listen string // host:port; an empty host is every address
}

// Control says where the command line reaches the director.
type Control struct {
	Socket string // absolute, short enough for a unix socket
}

// Log says what is logged and how.
type Log struct {
	Level  slog.Level
	Format string // text, json or journal; empty: journal under systemd, else text
}

// Load reads and parses the file at path. The error is Problems when the file could be read but not used.
func Load(path string) (*Config, error) {
	data, err := read(path)
	if err != nil {
		return nil, fmt.Errorf("read configuration %s: %w%s", path, err, cure(err))
	}
	return Parse(path, data)
}

func read(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, bare(err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFileSize+1))
	if err != nil {
		return nil, bare(err)
	}
	if len(data) > maxFileSize {
		return nil, fmt.Errorf("it is larger than %d MiB: name the YAML file of the director", maxFileSize>>20)
	}
	return data, nil
}

// bare takes "open PATH:" off, since Load names the path itself.
func bare(err error) error {
	if pathError, ok := errors.AsType[*fs.PathError](err); ok {
		return pathError.Err
	}
	return err
}

func cure(err error) string {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return ": write it, or name another file with --config FILE"
	case errors.Is(err, fs.ErrPermission):
		return ": run as root, or let this user read it"
	case errors.Is(err, syscall.EISDIR):
		return ": name a file with --config FILE"
	}
	return ""
}

// Parse makes a Config of the content of a file; the name of the file is for messages only. The error is Problems:
// every one that the file has, or one alone when it isn't YAML.
func Parse(file string, data []byte) (*Config, error) {
	d := newDecoder(file, len(data))
	root := d.document(data)
	if root == nil {
		return nil, d.problems
	}
	c := d.config(value{node: root, place: place{root.Line, root.Column}})
	d.relations(c)
	if len(d.problems) > 0 {
		d.problems.sort()
		return nil, d.problems
	}
	d.warnings.sort()
	c.Warnings = d.warnings
	return c, nil
}
