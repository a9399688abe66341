package xdp

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"

	"github.com/xdirector/xdirector/pkg/lb"
)

// Captured is a frame as the programs saw it, and what became of it.
type Captured struct {
	Time      time.Time
	Interface int    // index
	Length    int    // of the whole frame
	Frame     []byte // its beginning, from the Ethernet header on; not kept

	// Of an advert.
	Advert bool
	Ours   bool   // it is for one of our virtual routers
	Fate   string // passed, sampled, absorbed, or a reason to drop

	// Of a frame to a service: as in lb.Explanation.
	Verdict    string
	Drop       string
	RealServer netip.Addr // invalid: none has to do with it
	MAC        lb.MAC     // that it was sent to
	Out        int        // index of the interface that it left by; 0: none
	VLAN       uint16     // id in its tag then; 0: none
}

// Filter says what is wanted of the frames to services: those for which everything holds that is not zero.
type Filter struct {
	Host     netip.Prefix  // of the source or the destination
	Port     uint16        // of the source or the destination
	Service  lb.ServiceKey // of the destination
	Protocol lb.Protocol
	Verdicts []string // one of these; "pass_not_ours" is never seen
	Drops    []string // of the dropped ones, those for one of these reasons
}

// Watch says what is to be captured.
type Watch struct {
	Adverts bool // VRRP adverts; else frames to services
	Filter  Filter
	Rate    uint32 // so many a second at most; 0: 1000
}

// Capturing goes on for as long after the last time that somebody asked for it.
const (
	captureLease = 2 * time.Second
	captureRate  = 1000
)

// ErrNoPrograms is in the error of Capture when no program of a director is attached.
var ErrNoPrograms = errors.New("no XDP program of a director is attached")

// Capture gives each the beginnings of the frames that come from now on, whatever becomes of them, until ctx ends or each
// returns an error, which it returns. It returns how many more were wanted that it has not seen: those above the rate, and what
// came while each took long. One process at a time can capture.
func Capture(ctx context.Context, pinPath string, w Watch, each func(Captured) error) (missed uint64, err error) {
	wire, err := w.wire()
	if err != nil {
		return 0, fmt.Errorf("capture: %w", err)
	}
	p := pins{path: filepath.Clean(pinPath)}
	folder, err := os.Open(p.maps())
	if errors.Is(err, fs.ErrNotExist) {
		return 0, fmt.Errorf("capture: %w", p.noPrograms())
	}
	if err != nil {
		return 0, fmt.Errorf("capture: %w", err)
	}
	defer folder.Close()
	if err := unix.Flock(int(folder.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return 0, fmt.Errorf("capture: somebody captures under %s already: %w", pinPath, err)
	}
	for {
		captured, watched, err := p.captured()
		if err != nil {
			return missed, fmt.Errorf("capture: %w", err)
		}
		more, err := capture(ctx, captured, watched, wire, p.replaced, each)
		missed += more
		if !errors.Is(err, errNewPrograms) {
			return missed, err
		}
	}
}

// errNewPrograms says that another agent has come with its programs.
var errNewPrograms = errors.New("there are other programs now")

// replaced says that the programs which are attached don't write to this ring. None at all may be on the way.
func (p pins) replaced(captured *ebpf.Map) bool {
	now, watched, err := p.captured()
	if err != nil {
		return false
	}
	defer now.Close()
	defer watched.Close()
	before, err := captured.Info()
	if err != nil {
		return false
	}
	after, err := now.Info()
	if err != nil {
		return false
	}
	was, _ := before.ID()
	is, _ := after.ID()
	return was != is
}

// capture has the programs copy what is wanted until ctx ends, or they are replaced. It closes the two maps.
func capture(ctx context.Context, captured, watched *ebpf.Map, wire xdirectorWatch, replaced func(*ebpf.Map) bool, each func(Captured) error) (missed uint64, err error) {
	defer captured.Close()
	defer watched.Close()
	memory, words, err := mapValues[xdirectorWatch](watched)
	if err != nil {
		return 0, fmt.Errorf("capture: %w", err)
	}
	defer unix.Munmap(memory)
	reader, err := ringbuf.NewReader(captured)
	if err != nil {
		return 0, fmt.Errorf("capture: %w", err)
	}
	defer reader.Close()
	stop := context.AfterFunc(ctx, func() { reader.Close() })
	defer stop()
	shared := &words[0]
	atomic.StoreUint64(&shared.Until, 0) // what an earlier one, which was killed, wanted
	*shared = wire
	defer atomic.StoreUint64(&shared.Until, 0)
	err = read(reader, &shared.Until, func() bool { return replaced(captured) }, each)
	return atomic.LoadUint64(&shared.Missed), err
}

// wire is the wish as the programs read it, without its end.
func (w Watch) wire() (xdirectorWatch, error) {
	wire := xdirectorWatch{Rate: uint64(cmp.Or(w.Rate, captureRate)), Kinds: uint32(xdirectorWatchKindWATCH_FRAMES)}
	if w.Adverts {
		wire.Kinds = uint32(xdirectorWatchKindWATCH_ADVERTS)
	}
	f := w.Filter
	var err error
	if wire.Verdicts, err = bitsOf(f.Verdicts, verdictNames[:]); err != nil {
		return wire, fmt.Errorf("no verdict %w", err)
	}
	wire.Verdicts &^= 1 << xdirectorVerdictVERDICT_PASS_NOT_OURS
	wire.Verdicts &^= 1 << xdirectorVerdictVERDICT_PASS_ADVERT
	if wire.Reasons, err = bitsOf(f.Drops, dropNames[:]); err != nil {
		return wire, fmt.Errorf("no reason of drops %w", err)
	}
	wire.LastPort, wire.Port, wire.Protocol = math.MaxUint16, f.Port, uint8(f.Protocol)
	family := func(a netip.Addr) error {
		if wire.Family != 0 && wire.Family != uint8(familyOf(a)) {
			return errors.New("host and service are not of one family")
		}
		wire.Family = uint8(familyOf(a))
		return nil
	}
	if f.Service.Address.IsValid() {
		if f.Protocol != 0 && f.Protocol != f.Service.Protocol {
			return wire, fmt.Errorf("service %s has no packets of %s", f.Service, f.Protocol)
		}
		prefix := f.Service.Prefix()
		wire.FirstPort, wire.LastPort = f.Service.Ports()
		wire.Protocol = uint8(f.Service.Protocol)
		wire.Vip, wire.VipMask = wireAddress(prefix.Masked().Addr()), wireMask(prefix.Bits())
		if err := family(prefix.Addr()); err != nil {
			return wire, err
		}
	}
	if f.Host.IsValid() {
		wire.Host, wire.HostMask = wireAddress(f.Host.Masked().Addr()), wireMask(f.Host.Bits())
		if err := family(f.Host.Addr()); err != nil {
			return wire, err
		}
	}
	return wire, nil
}

// bitsOf sets the bit of each name; without any, all.
func bitsOf(wanted, names []string) (bits uint32, err error) {
	if len(wanted) == 0 {
		return 1<<len(names) - 1, nil
	}
	for _, name := range wanted {
		i := slices.Index(names, name)
		if i < 0 {
			return 0, fmt.Errorf("%q: there are %s", name, strings.Join(names, ", "))
		}
		bits |= 1 << i
	}
	return bits, nil
}

// Verdicts are the names of what becomes of frames to services.
func Verdicts() []string {
	var list []string
	for i, name := range verdictNames {
		if v := xdirectorVerdict(i); v != xdirectorVerdictVERDICT_PASS_NOT_OURS && v != xdirectorVerdictVERDICT_PASS_ADVERT {
			list = append(list, name)
		}
	}
	return list
}

// Drops are the names of the reasons to drop a frame to a service.
func Drops() []string {
	return slices.DeleteFunc(slices.Clone(dropNames[:]), func(name string) bool { return strings.HasPrefix(name, "advert_") })
}

// read gives each what comes, and asks the programs to go on. When nothing comes, they may be others by now.
func read(reader *ringbuf.Reader, until *uint64, replaced func() bool, each func(Captured) error) error {
	for {
		now := monotonic()
		atomic.StoreUint64(until, uint64(now+captureLease))
		reader.SetDeadline(time.Now().Add(captureLease / 2))
		record, err := reader.Read()
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			if replaced() {
				return errNewPrograms
			}
			continue
		case errors.Is(err, ringbuf.ErrClosed):
			return nil
		case err != nil:
			return fmt.Errorf("capture: %w", err)
		}
		var c xdirectorCapture
		if _, err := binary.Decode(record.RawSample, binary.NativeEndian, &c); err != nil {
			return fmt.Errorf("capture: %w", err)
		}
		if err := each(capturedOf(&c)); err != nil {
			return err
		}
	}
}

// familyOfFrame is 4 or 6.
func familyOfFrame(frame []byte) uint32 {
	at := 12
	for len(frame) >= at+6 && binary.BigEndian.Uint16(frame[at:]) == 0x8100 { // a VLAN tag
		at += 4
	}
	if len(frame) >= at+2 && binary.BigEndian.Uint16(frame[at:]) == 0x86dd {
		return 6
	}
	return 4
}

func capturedOf(c *xdirectorCapture) Captured {
	name := func(names []string, i uint32) string {
		if int(i) < len(names) {
			return names[i]
		}
		return "unknown"
	}
	seen := Captured{
		Time:      time.Now().Add(time.Duration(c.Time) - monotonic()),
		Interface: int(c.Interface),
		Length:    int(c.Length),
		Frame:     c.Frame[frameShift:min(frameShift+int(c.Length), len(c.Frame))],
	}
	if c.Kind == uint32(xdirectorWatchKindWATCH_ADVERTS) {
		seen.Advert, seen.Ours, seen.Fate = true, c.Slot != 0, name(fateNames[:], c.Fate)
		return seen
	}
	seen.Verdict = name(verdictNames[:], c.Verdict)
	switch xdirectorVerdict(c.Verdict) {
	case xdirectorVerdictVERDICT_DROP:
		seen.Drop = name(dropNames[:], c.DropReason)
	case xdirectorVerdictVERDICT_TX, xdirectorVerdictVERDICT_REDIRECT:
		seen.MAC, seen.Out, seen.VLAN = c.Server.Destination, int(c.Server.Interface), uint16(c.Server.Vlan)
	}
	if c.Server.Flags&serverUsed != 0 {
		seen.RealServer = addressOf(c.Server.Address, familyOfFrame(seen.Frame))
	}
	return seen
}

// captured finds the ring of captured frames and the memory that says what is wanted, which are not pinned: by a program
// that uses them.
func (p pins) captured() (ring, watched *ebpf.Map, err error) {
	links, err := p.list()
	if err != nil {
		return nil, nil, err
	}
	for _, l := range links {
		pinned, err := link.LoadPinnedLink(l.path, nil)
		if err != nil {
			continue
		}
		info, err := pinned.Info()
		pinned.Close()
		if err != nil {
			continue
		}
		ring, watched = mapOfProgram(info.Program, xdirectorMapCaptured), mapOfProgram(info.Program, mapWatched)
		if ring != nil && watched != nil {
			return ring, watched, nil
		}
		if ring != nil {
			ring.Close()
		}
		if watched != nil {
			watched.Close()
		}
	}
	return nil, nil, p.noPrograms()
}

func (p *pins) noPrograms() error {
	return fmt.Errorf("%w under %s: xdirector status tells the plane and why; without services dataplane.vrrp_fast_path must be written", ErrNoPrograms, p.path)
}

// mapOfProgram finds a map by its name among those that a program uses; nil: there is none.
func mapOfProgram(id ebpf.ProgramID, name string) *ebpf.Map {
	program, err := ebpf.NewProgramFromID(id)
	if err != nil {
		return nil
	}
	defer program.Close()
	info, err := program.Info()
	if err != nil {
		return nil
	}
	ids, _ := info.MapIDs()
	for _, id := range ids {
		m, err := ebpf.NewMapFromID(id)
		if err != nil {
			continue
		}
		if about, err := m.Info(); err == nil && about.Name == name {
			return m
		}
		m.Close()
	}
	return nil
}
