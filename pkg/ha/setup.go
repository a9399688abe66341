package ha

import (
	"errors"
	"fmt"
	"os"
	"slices"
)

// open does what can fail at the start.
func (l *loop) open(cfg Config) (*watcher, error) {
	if err := os.MkdirAll(cfg.StateDir, 0o755); err != nil {
		l.log.Error("state_dir can't be made; the director runs without: after a crash it won't know which virtual addresses it added, they stay until their lifetime ends",
			"state_dir", cfg.StateDir, "dead_man", cfg.DeadMan, "error", err)
	}
	var err error
	if l.host, err = openHost(cfg.StateDir, l.log); err != nil {
		return nil, err
	}
	if l.wire, err = openWire(); err != nil {
		return nil, err
	}
	log := l.log
	w, first, err := watch(l.poke, func(err error) { log.Warn("state of interfaces not read", "error", err) })
	if err != nil {
		return nil, err
	}
	l.snapshot = first
	for _, c := range cfg.Instances {
		if _, ok := first[c.Interface]; !ok {
			return w, fmt.Errorf("interface %s of instance %s does not exist; interfaces here: %s", c.Interface, c.Name, first.names())
		}
	}
	if err := l.openPorts(cfg); err != nil {
		return w, err
	}
	l.sweep(cfg)
	l.apply(cfg)
	return w, nil
}

// openPorts opens the sockets of every interface of the configuration that is there and has none, and has the others
// listen to the VRIDs of the configuration too.
func (l *loop) openPorts(cfg Config) error {
	var errs []error
	vrids := map[string][]uint8{}
	for _, i := range l.instances {
		vrids[i.cfg.Interface] = append(vrids[i.cfg.Interface], i.cfg.VRRP.VRID)
	}
	for _, c := range cfg.Instances {
		vrids[c.Interface] = append(vrids[c.Interface], c.VRRP.VRID)
	}
	for name, ids := range vrids {
		slices.Sort(ids)
		ids = slices.Compact(ids)
		if p := l.ports[name]; p != nil {
			if err := p.recv.SetBPF(advertFilter(ids)); err != nil {
				errs = append(errs, fmt.Errorf("filter adverts on %s: %w", name, err))
			}
			continue
		}
		k, ok := l.snapshot[name]
		if !ok {
			continue // FAULT, until the interface comes
		}
		p, err := openPort(name, k, ids)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		l.ports[name] = p
		l.host.sysctls.promote(l.log, name)
		go p.wait(l.readable)
	}
	return errors.Join(errs...)
}

// sweep removes what a former run held for instances that are not in the configuration any more. What can't be
// removed is logged and tried again at the next start; the lifetime of an address ends before that.
func (l *loop) sweep(cfg Config) {
	for _, name := range l.host.records.names() {
		if slices.ContainsFunc(cfg.Instances, func(i Instance) bool { return i.Name == name }) {
			continue
		}
		rec, _ := l.host.records.of(name)
		if l.host.undo(l.log.With("instance", name), l.snapshot, rec, "its instance is not in the configuration any more") {
			_ = l.host.records.remove(name) // told there
		}
	}
}
