package main

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/xdirector/xdirector/pkg/lb"
)

const (
	frameSize  = 64
	frameSize6 = 74 // the headers alone are longer
	tcpACK     = 0x10
	tcpSYN     = 0x02
)

// Frames come from this address; loopback's is all zeroes.
func clientMAC() lb.MAC { return lb.MAC{2, 0, 0, 0, 0, 0xcc} }

// stream is the packets that a driver makes.
type stream struct {
	frame    []byte // the same each time; empty: packets of flows, as the rest says
	to       netip.AddrPort
	toMAC    lb.MAC
	services uint32 // at so many addresses, from that one on; 0: 1
	flows    uint64 // so many, in turn; 0: none comes twice
	first    uint32 // the first client's address; IPv6: its last word
	flags    uint8  // of TCP
	notIP    bool   // but for its type the frame is the same
	flood    uint32 // so many SYNs that never come twice before each packet of a flow
	out      int    // index of the interface that a generator sends to
}

// template is the headers without what varies, and the sums of what their checksums are about.
func (s stream) template() (frame []byte, addresses, tcp uint32) {
	mac := clientMAC()
	var header []byte
	if s.to.Addr().Is4() {
		frame = make([]byte, frameSize)
		binary.BigEndian.PutUint16(frame[12:], 0x0800)
		ip := frame[14:34]
		ip[0], ip[3], ip[8], ip[9] = 0x45, 40, 64, byte(lb.TCP)
		copy(ip[16:], s.to.Addr().AsSlice())
		addresses = sumOf(ip)
		tcp, header = sumOf(ip[16:]), frame[34:]
	} else {
		frame = make([]byte, frameSize6)
		binary.BigEndian.PutUint16(frame[12:], 0x86dd)
		ip := frame[14:54]
		ip[0], ip[5], ip[6], ip[7] = 0x60, 20, byte(lb.TCP), 64
		copy(ip[8:], clients6().AsSlice())
		copy(ip[24:], s.to.Addr().AsSlice())
		tcp, header = sumOf(ip[8:]), frame[54:]
	}
	if s.notIP {
		binary.BigEndian.PutUint16(frame[12:], 0x0806)
	}
	copy(frame, s.toMAC[:])
	copy(frame[6:], mac[:])
	binary.BigEndian.PutUint16(header[2:], s.to.Port())
	header[12] = 5 << 4
	return frame, addresses, tcp + sumOf(header) + uint32(lb.TCP) + 20
}

// clients6 is where the clients of IPv6 are; the last word varies.
func clients6() netip.Addr { return netip.MustParseAddr("2001:db8:1::") }

// sumOf adds the 16-bit words of b, as checksums do.
func sumOf(b []byte) (sum uint32) {
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	return sum
}

// driver loads a driver and a generator of these packets. The driver calls the program; nil: there is none.
func (s stream) driver(measured *ebpf.Program) (*benchObjects, error) {
	spec, err := loadBench()
	if err != nil {
		return nil, err
	}
	set := map[string]any{benchVarOut: uint32(s.out)}
	if s.frame == nil {
		frame, addresses, tcp := s.template()
		var words [9]uint64
		for i := range words {
			var word [8]byte
			copy(word[:], frame[min(8*i, len(frame)):])
			words[i] = binary.NativeEndian.Uint64(word[:])
		}
		family := uint32(6)
		if s.to.Addr().Is4() {
			family = 4
		}
		for name, value := range map[string]any{
			benchVarTemplate: words, benchVarFamily: family, benchVarFlows: s.flows, benchVarFirstSource: s.first,
			benchVarServices: max(s.services, 1), benchVarAddressSum: addresses, benchVarTcpSum: tcp, benchVarTcpFlags: s.flags,
			benchVarFlood: s.flood, benchVarFloodSource: uint32(32 << 24),
		} {
			set[name] = value
		}
	}
	for name, value := range set {
		if err := spec.Variables[name].Set(value); err != nil {
			return nil, fmt.Errorf("set %s: %w", name, err)
		}
	}
	objects := new(benchObjects)
	if err := spec.LoadAndAssign(objects, nil); err != nil {
		return nil, err
	}
	if measured != nil {
		if err := objects.Measured.Put(uint32(0), measured); err != nil {
			objects.Close()
			return nil, err
		}
	}
	return objects, nil
}

// bytes is a frame to begin with.
func (s stream) bytes() []byte {
	if s.frame != nil {
		return s.frame
	}
	frame, _, _ := s.template()
	return frame
}

// drive runs the packets through the program, and returns its last answer and the processor's time per packet in nanoseconds.
// That of the kernel is in whole ones, and none of the cheaper cases takes a hundred.
func drive(driver *ebpf.Program, frame []byte, packets int) (answer uint32, took float64, err error) {
	start, err := threadTime()
	if err != nil {
		return 0, 0, err
	}
	answer, _, err = driver.Benchmark(frame, packets, nil)
	if err != nil {
		return 0, 0, err
	}
	end, err := threadTime()
	return answer, float64(end-start) / float64(packets), err
}

// once runs the next packet, and leaves in out what has become of it.
func (c *benchCase) once(in, out []byte) (answer uint32, err error) {
	return c.driver.Driver.Run(&ebpf.RunOptions{Data: in, DataOut: out, Repeat: 1})
}

// threadTime is how long this thread has had a processor.
func threadTime() (time.Duration, error) {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &now); err != nil {
		return 0, fmt.Errorf("read processor time of a thread: %w", err)
	}
	return time.Duration(now.Nano()), nil
}
