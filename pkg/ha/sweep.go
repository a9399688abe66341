package ha

import (
	"errors"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// sweep removes what a former run held for instances that are not in the configuration any more. What can't be
// removed is logged and tried again at the next start; its lifetime ends before that.
func (l *loop) sweep(cfg Config) error {
	paths, err := recordPaths(cfg.StateDir)
	if err != nil {
		return err
	}
	for _, path := range paths {
		if slices.ContainsFunc(cfg.Instances, func(i Instance) bool { return recordPath(cfg.StateDir, i.Name) == path }) {
			continue
		}
		rec, valid, err := readRecord(path, l.bootID)
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
	return nil
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
