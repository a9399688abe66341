package ha

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
)

// open does what can fail at the start, and takes the first letters out of the inbox.
func (l *loop) open() (first letters, err error) {
	l.look()
	l.began = l.clock()
	if l.runtime.options.Realtime {
		l.denied = realtime(l.log)
	}
	if l.bell, err = l.runtime.inbox.open(); err != nil {
		return first, err
	}
	first = l.runtime.inbox.take()
	cfg := *first.config
	if err := os.MkdirAll(cfg.StateDir, 0o755); err != nil {
		l.log.Error("state_dir can't be made; the director runs without: after a crash it won't know which virtual addresses it added, they stay until their lifetime ends",
			"state_dir", cfg.StateDir, "dead_man", cfg.DeadMan, "error", err)
	}
	if l.host, err = openHost(cfg.StateDir, l.log); err != nil {
		return first, err
	}
	if l.poller, err = openPoller(); err != nil {
		return first, err
	}
	if err = l.poller.add(l.bell); err != nil {
		return first, err
	}
	if l.outbox, err = openOutbox(); err != nil {
		return first, err
	}
	l.prepareInbound()
	log := l.log
	if l.watcher, l.snapshot, err = watch(l.host.lifetimes.port, l.poke, func(err error) { log.Warn("state of interfaces not read", "error", err) }); err != nil {
		return first, err
	}
	l.sweep(cfg)
	return first, nil
}

// prepareInbound makes the memory that frames are received in.
func (l *loop) prepareInbound() {
	l.inbound = &messages{}
	l.inbound.init()
	buffer := make([]byte, batchSize*frameLimit)
	for at := range batchSize {
		l.frames = append(l.frames, buffer[at*frameLimit:(at+1)*frameLimit])
		l.inbound.set(at, l.frames[at])
	}
}

// openPorts opens the sockets of every interface that an instance needs, if it is there, has the others listen to the VRIDs of
// today, and closes those that belong to nobody or to an interface that is no more. What can't be opened is tried again
// with the next change of an interface.
func (l *loop) openPorts() {
	vrids := map[portKey][]uint8{}
	for _, i := range l.instances {
		if !i.gone {
			key := portKey{i.cfg.Interface, i.ipv6}
			vrids[key] = append(vrids[key], i.cfg.VRRP.VRID)
		}
	}
	for key, p := range l.ports {
		if k, ok := l.snapshot[key.name]; !ok || k.Index != p.index || vrids[key] == nil {
			delete(l.ports, key)
			delete(l.portFDs, int32(p.fd))
			l.poller.remove(p.fd)
			p.close()
		}
	}
	for key, ids := range vrids {
		slices.Sort(ids)
		ids = slices.Compact(ids)
		if p := l.ports[key]; p != nil {
			if err := p.listenTo(ids); err != nil {
				l.log.Error("adverts are not heard", "error", fmt.Errorf("filter adverts on %s: %w", key.name, err))
			}
			continue
		}
		k, ok := l.snapshot[key.name]
		if !ok {
			continue // FAULT, until the interface comes
		}
		p, err := openPort(key, k.Index, ids)
		if err == nil {
			err = l.poller.add(p.fd)
		}
		if err != nil {
			if l.shut[key] != err.Error() {
				l.log.Error("adverts are not heard; trying again when an interface changes", "error", err)
			}
			l.shut[key] = err.Error()
			continue
		}
		delete(l.shut, key)
		l.ports[key], l.portFDs[int32(p.fd)] = p, p
		l.host.sysctls.promote(l.log, key.name)
	}
}

// connect gives an instance the port of today.
func (l *loop) connect(i *instance) {
	p := l.ports[portKey{i.cfg.Interface, i.ipv6}]
	if i.port != nil && i.port != p && i.port.routers[i.cfg.VRRP.VRID] == i {
		i.port.routers[i.cfg.VRRP.VRID] = nil
	}
	if i.port = p; p != nil && !i.gone {
		p.routers[i.cfg.VRRP.VRID] = i
	}
}

// sweep removes what a former run held for instances that are not in the configuration any more. What can't be
// removed is logged and tried again at the next start; the lifetime of an address ends before that.
func (l *loop) sweep(cfg Config) {
	virtual := map[netip.Prefix]bool{}
	for _, i := range cfg.Instances {
		for _, v := range i.VirtualAddresses {
			virtual[v.Prefix] = true
		}
	}
	l.former = map[spot]bool{}
	for _, name := range l.host.records.names() {
		rec, _ := l.host.records.of(name)
		for _, a := range rec.Addresses {
			if !virtual[a.Prefix] {
				l.former[spot{a.Index, a.Prefix}] = true
			}
		}
	}
	former := slices.DeleteFunc(l.host.records.names(), func(name string) bool {
		return slices.ContainsFunc(cfg.Instances, func(i Instance) bool { return i.Name == name })
	})
	l.host.undo(l.log, l.snapshot, former, "its instance is not in the configuration any more")
}
