package ha

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/xdirector/xdirector/pkg/statefile"
)

// open does what can fail at the start.
func (l *loop) open(cfg Config) (*watcher, error) {
	if err := os.MkdirAll(cfg.StateDir, 0o755); err != nil {
		l.log.Error("state_dir can't be made; the director runs without: after a crash it won't know which virtual addresses it added, they stay until their lifetime ends",
			"state_dir", cfg.StateDir, "dead_man", cfg.DeadMan, "error", err)
	}
	var err error
	if l.bootID, err = statefile.BootID(); err != nil {
		return nil, err
	}
	if l.handle, err = newHandle(); err != nil {
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
		l.promote(name)
		go p.wait(l.readable)
	}
	return errors.Join(errs...)
}

// promote sets promote_secondaries: without it the kernel takes all addresses of a prefix away, the box's own
// included, when the first of them is removed.
func (l *loop) promote(name string) {
	path := filepath.Join("/proc/sys/net/ipv4/conf", name, "promote_secondaries")
	if b, err := os.ReadFile(path); err == nil && strings.TrimSpace(string(b)) != "0" {
		return
	}
	err := os.WriteFile(path, []byte("1\n"), 0)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		l.log.Error(fmt.Sprintf("promote_secondaries not set: removing a virtual address may remove the others of its prefix; set it with: sysctl net.ipv4.conf.%s.promote_secondaries=1",
			strings.ReplaceAll(name, ".", "/")), "interface", name, "error", err)
	default:
		l.log.Info("promote_secondaries set, so that removing a virtual address removes no other of its prefix", "interface", name)
	}
}

// sweep removes what a former run held for instances that are not in the configuration any more. What can't be
// removed is logged and tried again at the next start; its lifetime ends before that.
func (l *loop) sweep(cfg Config) {
	paths, err := recordPaths(cfg.StateDir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTDIR) { // those two were told
		l.log.Warn("state_dir can't be read: addresses of former instances go when their lifetime ends", "error", err)
	}
	for _, path := range paths {
		if slices.ContainsFunc(cfg.Instances, func(i Instance) bool { return recordPath(cfg.StateDir, i.Name) == path }) {
			continue
		}
		var rec record
		valid, err := statefile.Read(path, l.bootID, &rec)
		if err != nil {
			l.log.Warn("record of a former run is of no use; its addresses go when their lifetime ends", "error", err)
		}
		if valid && !l.removeAll(rec) {
			continue
		}
		if err := removeRecord(path); err != nil {
			l.log.Warn("record of a former instance not removed", "instance", rec.Instance, "error", err)
		}
	}
}

// removeAll removes the recorded addresses that are still there.
func (l *loop) removeAll(rec record) (done bool) {
	k, ok := l.snapshot[rec.Interface]
	if !ok || k.Index != rec.Index {
		return true
	}
	done = true
	for _, p := range rec.Addresses {
		if !slices.ContainsFunc(k.Addresses, func(a ownAddress) bool { return a.Prefix == p }) {
			continue
		}
		device := &netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Index: rec.Index}}
		if err := l.handle.AddrDel(device, &netlink.Addr{IPNet: ipNet(p)}); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			l.log.Error("address of a former instance not removed", "instance", rec.Instance, "address", p, "interface", rec.Interface, "error", err)
			done = false
			continue
		}
		l.log.Info("virtual address removed", "instance", rec.Instance, "address", p, "interface", rec.Interface,
			"reason", "its instance is not in the configuration any more")
	}
	return done
}
