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
	handle    kernel
	wire      *wire // not that of the adverts: they must find room in it
	sysctls   *sysctls
	guard     *guard
	records   *records
	lifetimes *lifetimes
	janitor   *janitor
	crew      *crew
}

// openHost opens everything in the network namespace of the calling thread.
func openHost(stateDir string, log *slog.Logger) (*host, error) {
	h := &host{crew: &crew{work: (*holder).work}}
	var err error
	if h.records, err = openRecords(stateDir, log); err != nil {
		return nil, err
	}
	if h.handle.Handle, err = newHandle(); err != nil {
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
	if h.janitor, err = openJanitor(log); err != nil {
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
	if h.janitor != nil {
		h.janitor.close()
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
	if h.handle.Handle != nil {
		h.handle.Close()
	}
	if h.records != nil {
		h.records.close()
	}
}

// undo removes what is recorded of instances and still there, and their records. It says whether all of it is gone; the
// log says what is not.
func (h *host) undo(log *slog.Logger, links snapshot, instances []string, reason string) (done bool) {
	var through []string
	var devices []int
	for _, name := range instances {
		rec, _ := h.records.of(name)
		log := log.With("instance", name)
		done := true
		told := func(what string, name any, err error) {
			switch {
			case err == nil:
				log.Info(what+" removed", "name", name, "reason", reason)
			case !errors.Is(err, unix.EADDRNOTAVAIL) && !errors.Is(err, unix.ESRCH) && !errors.Is(err, unix.ENODEV) && !errors.Is(err, unix.ENETUNREACH):
				log.Error(what+" not removed", "name", name, "error", err)
				done = false
			}
		}
		for _, r := range rec.Routes {
			told("route", r.Route.Destination, h.handle.RouteDel(netlinkRoute(r.Route, r.Index)))
		}
		for _, a := range rec.Addresses {
			if links[a.Interface].Index == a.Index && links[a.Interface].has(a.Prefix) {
				told("virtual address", a.Prefix, h.handle.AddrDel(device(a.Index), &netlink.Addr{IPNet: ipNet(a.Prefix)}))
			}
		}
		for _, m := range rec.VirtualMAC {
			if k, err := h.handle.LinkByName(m.Name); err == nil && isOurs(k, m.Parent, m.hardware()) {
				devices = append(devices, k.Attrs().Index)
			}
		}
		if done {
			through = append(through, name)
		}
	}
	if len(devices) > 0 {
		if err := h.janitor.removeAll(devices); err != nil {
			log.Error("virtual MACs not removed", "error", err)
			return false
		}
		log.Info("virtual MACs removed, with their addresses", "devices", len(devices), "reason", reason)
	}
	return h.records.remove(through...) == nil && len(through) == len(instances)
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
	links, err := takeSnapshot(h.handle.Handle)
	if err != nil {
		return fmt.Errorf("clean up after the election: %w", err)
	}
	err = removeGuard(stateDir)
	if !h.undo(log, links, h.records.names(), "cleanup") {
		err = errors.Join(err, errors.New("clean up after the election: not everything could be removed, see the log"))
	}
	return err
}
