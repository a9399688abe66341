package ha

import (
	"errors"
	"fmt"
	"log/slog"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// host is what the holders of a director share: the ways into the kernel, all of the network namespace in which they
// were opened, and the records. Its parts may be used from any goroutine.
type host struct {
	handle    *netlink.Handle
	wire      *wire // not that of the adverts: they must find room in it
	sysctls   *sysctls
	guard     *guard
	records   *records
	lifetimes *lifetimes
}

// openHost opens everything in the network namespace of the calling thread.
func openHost(stateDir string, log *slog.Logger) (*host, error) {
	h := &host{}
	var err error
	if h.records, err = openRecords(stateDir, log); err != nil {
		return nil, err
	}
	if h.handle, err = newHandle(); err != nil {
		h.close()
		return nil, err
	}
	if h.wire, err = openWire(); err != nil {
		h.close()
		return nil, err
	}
	if h.lifetimes, err = openLifetimes(log); err != nil {
		h.close()
		return nil, err
	}
	h.sysctls = openSysctls()
	h.guard = openGuard(stateDir, log)
	return h, nil
}

func (h *host) close() {
	if h.lifetimes != nil {
		h.lifetimes.close()
	}
	if h.guard != nil {
		h.guard.close()
	}
	if h.sysctls != nil {
		h.sysctls.close()
	}
	if h.wire != nil {
		h.wire.close()
	}
	if h.handle != nil {
		h.handle.Close()
	}
	h.records.close()
}

// undo removes what is recorded of an instance and still there, and says whether all of it is gone.
func (h *host) undo(log *slog.Logger, links snapshot, rec record, reason string) (done bool) {
	done = true
	told := func(what string, name any, device string, err error) {
		switch {
		case err == nil:
			log.Info(what+" removed", what, name, "interface", device, "reason", reason)
		case !errors.Is(err, unix.EADDRNOTAVAIL) && !errors.Is(err, unix.ESRCH) && !errors.Is(err, unix.ENODEV) && !errors.Is(err, unix.ENETUNREACH):
			log.Error(what+" not removed", what, name, "interface", device, "error", err)
			done = false
		}
	}
	for _, r := range rec.Routes {
		told("route", r.Route.Destination, r.Route.Interface, h.handle.RouteDel(netlinkRoute(r.Route, r.Index)))
	}
	for _, m := range rec.VirtualMAC {
		k, err := h.handle.LinkByName(m.Name)
		if err == nil && isOurs(k, m.Parent, m.hardware()) {
			told("virtual MAC", m.Name, m.Name, h.handle.LinkDel(k))
		}
	}
	for _, a := range rec.Addresses {
		if a.Index != 0 && links[a.Interface].Index == a.Index && links[a.Interface].has(a.Prefix) {
			told("virtual address", a.Prefix, a.Interface, h.handle.AddrDel(device(a.Index), &netlink.Addr{IPNet: ipNet(a.Prefix)}))
		}
	}
	return done
}

// Cleanup removes what a director that is gone left on the box: the virtual addresses, routes, virtual MACs and packet
// rules recorded in stateDir. It works in the network namespace of the calling thread. A lock on the folder keeps it
// and an election apart: an error says that one runs, and nothing was touched then; one that starts meanwhile waits
// for us. Nobody else (the agent, the supervisor) takes that lock, so it may be called by either once the election has
// ended. Without records there is nothing to do, and no error.
func Cleanup(stateDir string, log *slog.Logger) error {
	h, err := openHost(stateDir, log)
	if err != nil {
		return fmt.Errorf("clean up after the election: %w", err)
	}
	defer h.close()
	links, err := takeSnapshot(h.handle)
	if err != nil {
		return fmt.Errorf("clean up after the election: %w", err)
	}
	var errs []error
	for _, name := range h.records.names() {
		rec, _ := h.records.of(name)
		if !h.undo(log.With("instance", name), links, rec, "cleanup") {
			errs = append(errs, fmt.Errorf("clean up after instance %s: not everything could be removed, see the log", name))
			continue
		}
		errs = append(errs, h.records.remove(name))
	}
	return errors.Join(append(errs, removeGuard(stateDir))...)
}
