package xdp

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/xdirector/xdirector/pkg/lb"
)

// A redirect is carried out after the program has ended. What the kernel, or the driver of the other interface, then makes of it
// is seen by two programs of ours on tracepoints, which count what is lost.

// lossAgain is between warnings about frames that are lost after their verdict.
const lossAgain = time.Minute

// loss is what is known about the frames lost between two interfaces for one reason.
type loss struct {
	frames uint64
	toldAt time.Time // of the last warning
}

// watchRedirects attaches the programs that count lost frames, in place of an earlier agent's. The plane works without them.
func (p *Plane) watchRedirects() {
	p.losses = map[xdirectorRedirectKey]loss{}
	counted, err := p.readLosses()
	for key, frames := range counted {
		p.losses[key] = loss{frames: frames}
	}
	if err := errors.Join(err, p.attachTraces()); err != nil {
		p.log.Warn("frames that are lost after the program redirected them are not counted", "error", err)
	}
}

func (p *Plane) attachTraces() error {
	var namespace unix.Stat_t
	if err := unix.Stat("/proc/thread-self/ns/net", &namespace); err != nil {
		return fmt.Errorf("find own network namespace: %w", err)
	}
	spec, err := p.spec()
	if err != nil {
		return err
	}
	if err := spec.Variables[xdirectorVarOwnNamespace].Set(uint32(namespace.Ino)); err != nil {
		return fmt.Errorf("set constant %s: %w", xdirectorVarOwnNamespace, err)
	}
	var programs struct {
		Refused *ebpf.Program `ebpf:"xdirector_refused"`
		Lost    *ebpf.Program `ebpf:"xdirector_lost"`
	}
	if err := spec.LoadAndAssign(&programs, p.shared()); err != nil {
		return fmt.Errorf("load programs for tracepoints: %w", err)
	}
	defer programs.Refused.Close()
	defer programs.Lost.Close()
	if err := p.pins.removeTraces(); err != nil {
		return err
	}
	for name, program := range map[string]*ebpf.Program{"refused": programs.Refused, "lost": programs.Lost} {
		made, err := link.AttachTracing(link.TracingOptions{Program: program})
		if err != nil {
			return fmt.Errorf("attach to a tracepoint: %w", err)
		}
		err = made.Pin(filepath.Join(p.pins.traces(), name))
		if err = errors.Join(err, made.Close()); err != nil {
			return fmt.Errorf("pin a tracepoint's program: %w", err)
		}
	}
	return nil
}

func (p pins) traces() string { return filepath.Join(p.path, "traces") }

// removeTraces ends the programs on tracepoints.
func (p pins) removeTraces() error {
	entries, err := os.ReadDir(p.traces())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("look for pins: %w", err)
	}
	for _, entry := range entries {
		if err := os.Remove(filepath.Join(p.traces(), entry.Name())); err != nil {
			return fmt.Errorf("unpin a tracepoint's program: %w", err)
		}
	}
	return nil
}

// readLosses reads how many frames were lost, by where from and where to and why.
func (p *Plane) readLosses() (map[xdirectorRedirectKey]uint64, error) {
	all := map[xdirectorRedirectKey]uint64{}
	var key xdirectorRedirectKey
	var frames uint64
	list := p.maps.RedirectErrors.Iterate()
	for list.Next(&key, &frames) {
		all[key] = frames
	}
	if err := list.Err(); err != nil {
		return nil, fmt.Errorf("read lost redirects from their map: %w", err)
	}
	return all, nil
}

// lossesOf are those of one interface with a program.
func (p *Plane) lossesOf(n *nic, all map[xdirectorRedirectKey]uint64) []lb.RedirectErrors {
	var list []lb.RedirectErrors
	for key, frames := range all {
		if int(key.From) == n.index || p.present[int(key.From)].master == n.index {
			reason, _ := lossReason(key)
			list = append(list, lb.RedirectErrors{To: p.nameOf(int(key.To)), Reason: reason, Frames: frames})
		}
	}
	slices.SortFunc(list, func(a, b lb.RedirectErrors) int {
		return cmp.Or(cmp.Compare(a.To, b.To), cmp.Compare(a.Reason, b.Reason))
	})
	return list
}

func (p *Plane) nameOf(index int) string {
	if d, ok := p.present[index]; ok {
		return d.Name
	}
	return fmt.Sprintf("interface %d", index)
}

// lossReason is why frames were lost, in a word, and the cure.
func lossReason(key xdirectorRedirectKey) (reason, cure string) {
	switch err := syscall.Errno(-key.Error); err {
	case 0, unix.ENOSPC, unix.EBUSY:
		return "queue_full", "its queue to the network is too short or the network too slow: ethtool -G makes the queue longer"
	case unix.ENETDOWN:
		return "down", "it is down: ip link set up"
	case unix.EMSGSIZE:
		return "too_long", "its MTU is smaller than that of the interface where the frames come from: give both the same one"
	case unix.EOPNOTSUPP, unix.ENXIO:
		return "unsupported", "its driver can't send what other interfaces redirect to it, or not while no XDP program is on it: add it to dataplane.interfaces, " +
			"or set dataplane.mode to xdp-generic"
	case unix.EINVAL:
		return "gone", "there is no such interface any more"
	default:
		return cmp.Or(unix.ErrnoName(err), "unknown"), err.Error()
	}
}

// tellLosses warns of frames that were lost since the last look.
func (p *Plane) tellLosses(now time.Time) {
	all, err := p.readLosses()
	if err != nil {
		p.log.Warn("frames lost after their verdict can't be counted", "error", err)
		return
	}
	for key, frames := range all {
		before := p.losses[key]
		if frames == before.frames || now.Sub(before.toldAt) < lossAgain {
			continue
		}
		p.losses[key] = loss{frames: frames, toldAt: now}
		reason, cure := lossReason(key)
		p.log.Warn("frames for real servers are lost after they were redirected to another interface", "from", p.nameOf(int(key.From)),
			"to", p.nameOf(int(key.To)), "frames", frames-before.frames, "reason", reason, "cure", cure)
	}
}
