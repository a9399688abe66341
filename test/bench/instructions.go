package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/xdirector/xdirector/pkg/ipvs"
	"github.com/xdirector/xdirector/pkg/lb"
)

const (
	countedPackets = 100_000 // the guest's clock moves in ticks of 4 ms
	countedFlows   = 256
	countedWanted  = 5
)

// measureInstructions is how many instructions the kernel needs for a packet by IPVS and by XDP. It is for a machine whose clock
// advances by a nanosecond with each instruction: `make bench-vm`. Packets come to an interface as its driver would hand
// them over.
func (r *report) measureInstructions() (err error) {
	w, err := newWire()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	shape, plane := w.shape, w.plane
	// Servers of IPVS are behind an interface that drops for nothing; the frames of XDP come to an end at the peer, which
	// is counted for XDP.
	for _, command := range []string{
		"ip address add " + shape.address().String() + "/32 dev far", "ip link add sink0 type dummy", "ip link set sink0 up",
		"ip address add 192.255.255.254/8 dev sink0", "ip route add 10.0.0.0/8 dev near", "ip route add 64.0.0.0/8 dev near",
		"sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.far.rp_filter=0",
	} {
		if err := runCommand(command); err != nil {
			return err
		}
	}
	balancer, err := ipvs.Open(filepath.Join(w.folder, "ipvs.json"), slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, balancer.Remove()) }()
	if err := balancer.Apply(context.Background(), w.wish); err != nil {
		return err
	}
	floors, err := shape.stream(1).driver(nil)
	if err != nil {
		return err
	}
	defer floors.Close()
	for _, at := range []struct {
		index   int
		program *ebpf.Program
	}{{w.near.Index, floors.Sink}, {w.far.Index, floors.BarePass}} {
		l, err := link.AttachXDP(link.XDPOptions{Program: at.program, Interface: at.index, Flags: link.XDPDriverMode})
		if err != nil {
			return fmt.Errorf("attach to interface %d: %w", at.index, err)
		}
		defer l.Close()
	}
	count := func(name string, measured *ebpf.Program, flows uint64) (float64, error) {
		s := shape.stream(flows)
		s.toMAC = lb.MAC(w.far.HardwareAddr)
		if flows == 0 {
			s.first = 64 << 24
		}
		n, err := countInstructions(s, measured, w.far)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", name, err)
		}
		r.add(figure{Name: name, Value: n, Unit: "instructions"})
		return n, nil
	}
	if _, err := count("into the director, and dropped", floors.BareDrop, countedFlows); err != nil {
		return err
	}
	for _, c := range []struct {
		name  string
		flows uint64
	}{{"packet of a known flow", countedFlows}, {"new flow", 0}} {
		before, err := sentTo("sink0")
		if err != nil {
			return err
		}
		slow, err := count(c.name+", IPVS", floors.BarePass, c.flows)
		if err != nil {
			return err
		}
		after, err := sentTo("sink0")
		if err != nil {
			return err
		}
		if n := after - before; n < countedPackets {
			return fmt.Errorf("IPVS forwarded %d of %d packets", n, countedPackets)
		}
		fast, err := count(c.name+", XDP", plane.Program(w.far.Name), c.flows)
		if err != nil {
			return err
		}
		r.add(figure{
			Name: c.name + ", IPVS to XDP", Value: slow / fast, Unit: "times", Wanted: fmt.Sprintf(">= %d", countedWanted),
			Met: yes(slow/fast >= countedWanted),
		})
	}
	return nil
}

// sentTo is how many packets have left by an interface. IPVS has counters of its own, but brings them up to date every two
// seconds.
func sentTo(name string) (uint64, error) {
	b, err := os.ReadFile("/proc/thread-self/net/dev")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if fields := strings.Fields(line); len(fields) > 10 && fields[0] == name+":" {
			return strconv.ParseUint(fields[10], 10, 64)
		}
	}
	return 0, fmt.Errorf("/proc/net/dev lacks %s", name)
}

// countInstructions is per packet. Known flows begin with a SYN that isn't counted.
func countInstructions(s stream, measured *ebpf.Program, from *net.Interface) (float64, error) {
	inject := func(s stream, packets int) error {
		o, err := s.driver(measured)
		if err != nil {
			return err
		}
		defer o.Close()
		// struct xdp_md, of which the interface is what counts: an answer of XDP_TX leaves there.
		context := struct{ Data, End, Meta, Interface, Queue, Egress uint32 }{End: uint32(len(s.bytes())), Interface: uint32(from.Index)}
		_, err = o.Driver.Run(&ebpf.RunOptions{Data: s.bytes(), Context: context, Repeat: uint32(packets), Flags: liveFrames})
		return err
	}
	syn := s
	syn.flags = tcpSYN
	if s.flows > 0 {
		if err := errors.Join(inject(syn, int(s.flows)), inject(s, int(s.flows))); err != nil {
			return 0, err
		}
	} else {
		s = syn
	}
	start := time.Now()
	if err := inject(s, countedPackets); err != nil {
		return 0, err
	}
	return float64(time.Since(start)) / countedPackets, nil
}
