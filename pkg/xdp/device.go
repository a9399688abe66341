package xdp

import (
	"encoding/binary"
	"fmt"
	"net"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/xdirector/xdirector/pkg/lb"
)

// siblingsMax is SIBLINGS_MAX of bpf/layout_frames.h.
const siblingsMax = 8

// device is a network interface, as far as it matters here.
type device struct {
	Index        int
	Name         string
	HardwareAddr net.HardwareAddr
	kind         string // "vlan", "macvlan", "bond", ...; empty: hardware, most of all
	lower        int    // index of the interface that it lies on; 0: none, or one in another network namespace
	master       int    // index of the bond or bridge that it is a member of; 0: none
	vlan         uint16 // with kind "vlan": the id of its 802.1Q tag; 0: its tag is of another kind
}

// devices lists the network interfaces of the calling thread's namespace.
func devices() ([]device, error) {
	answer, err := syscall.NetlinkRIB(unix.RTM_GETLINK, unix.AF_UNSPEC)
	if err != nil {
		return nil, fmt.Errorf("read interfaces: %w", err)
	}
	messages, err := syscall.ParseNetlinkMessage(answer)
	if err != nil {
		return nil, fmt.Errorf("read interfaces: %w", err)
	}
	var list []device
	for _, m := range messages {
		if m.Header.Type != unix.RTM_NEWLINK || len(m.Data) < unix.SizeofIfInfomsg {
			continue
		}
		d := device{Index: int(int32(binary.NativeEndian.Uint32(m.Data[4:])))}
		d.read(m.Data[unix.SizeofIfInfomsg:])
		list = append(list, d)
	}
	return list, nil
}

func (d *device) read(message []byte) {
	elsewhere := false
	for kind, value := range attributes(message) {
		switch {
		case kind == unix.IFLA_IFNAME:
			d.Name = unix.ByteSliceToString(value)
		case kind == unix.IFLA_ADDRESS:
			d.HardwareAddr = slices.Clone(value)
		case kind == unix.IFLA_LINK && len(value) >= 4:
			d.lower = int(binary.NativeEndian.Uint32(value))
		case kind == unix.IFLA_MASTER && len(value) >= 4:
			d.master = int(binary.NativeEndian.Uint32(value))
		case kind == unix.IFLA_LINK_NETNSID:
			elsewhere = true
		case kind == unix.IFLA_LINKINFO:
			d.readKind(value)
		}
	}
	if elsewhere || d.lower == d.Index {
		d.lower = 0
	}
}

func (d *device) readKind(info []byte) {
	var data []byte
	for kind, value := range attributes(info) {
		switch kind {
		case unix.IFLA_INFO_KIND:
			d.kind = unix.ByteSliceToString(value)
		case unix.IFLA_INFO_DATA:
			data = value
		}
	}
	if d.kind != "vlan" {
		return
	}
	customer := true
	for kind, value := range attributes(data) {
		switch {
		case kind == unix.IFLA_VLAN_ID && len(value) >= 2:
			d.vlan = binary.NativeEndian.Uint16(value)
		case kind == unix.IFLA_VLAN_PROTOCOL && len(value) >= 2:
			customer = binary.BigEndian.Uint16(value) == unix.ETH_P_8021Q
		}
	}
	if !customer {
		d.vlan = 0
	}
}

// attributes yields the type and the value of each netlink attribute in b, and ends at one that is cut.
func attributes(b []byte) func(yield func(int, []byte) bool) {
	return func(yield func(int, []byte) bool) {
		for len(b) >= unix.SizeofRtAttr {
			length := int(binary.NativeEndian.Uint16(b))
			kind := int(binary.NativeEndian.Uint16(b[2:])) &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
			if length < unix.SizeofRtAttr || length > len(b) || !yield(kind, b[unix.SizeofRtAttr:length]) {
				return
			}
			b = b[min((length+unix.RTA_ALIGNTO-1)/unix.RTA_ALIGNTO*unix.RTA_ALIGNTO, len(b)):]
		}
	}
}

func macOf(d device) lb.MAC {
	var mac lb.MAC
	copy(mac[:], d.HardwareAddr)
	return mac
}

// lan is where the frames of an interface are: on which other one, and with which VLAN id in their tag (0: none).
type lan struct {
	index int
	vlan  uint16
}

// lanOf goes down from an interface to the one that its frames pass: VLANs and macvlans are layers of the kernel above a
// driver, where XDP can't send. A frame gets one tag only, so that a VLAN within a VLAN ends the way, as does one whose tag is
// not 802.1Q, and whatever isBottom says.
func lanOf(index int, byIndex map[int]device, isBottom func(index int) bool) lan {
	w := lan{index: index}
	for range len(byIndex) {
		d := byIndex[w.index]
		if d.lower == 0 || isBottom(w.index) {
			return w
		}
		switch {
		case d.kind == "macvlan":
		case d.kind == "vlan" && d.vlan != 0 && w.vlan == 0:
			w.vlan = d.vlan
		default:
			return w
		}
		w.index = d.lower
	}
	return w
}

func byIndex(list []device) map[int]device {
	all := make(map[int]device, len(list))
	for _, d := range list {
		all[d.Index] = d
	}
	return all
}

// chainSiblings has each interface lead to the next one whose frames come the same way: in the same VLAN of the same wire, or in none.
// Only their MAC addresses tell them apart.
func (p *Plane) chainSiblings() error {
	for i, n := range p.nics {
		n.sibling = 0
		count := 1
		for _, other := range p.nics[i+1:] {
			if !n.configured || !other.configured || other.carrier() != n.carrier() || other.vlan != n.vlan {
				continue
			}
			if count++; n.sibling == 0 {
				n.sibling = uint8(other.slot + 1)
			}
		}
		if count > siblingsMax {
			return fmt.Errorf("place interfaces: %d have their frames on %s, at most %d can", count, n.carrier().name, siblingsMax)
		}
	}
	return nil
}

// networksOn says which slot, plus one, the frames of each VLAN there belong to; without a tag they are of the first.
func (p *Plane) networksOn(carrier *nic) []uint8 {
	slots := make([]uint8, 4096)
	for _, n := range p.nics {
		if n.configured && n.carrier() == carrier && slots[n.vlan] == 0 {
			slots[n.vlan] = uint8(n.slot + 1) // of the first one, which leads to the others
		}
	}
	return slots
}

// exit is how frames leave by an interface: from which address, and how they are there.
type exit struct {
	mac lb.MAC
	lan
}

// exits are the ways out by all interfaces. Frames carry the address by which the others know the box on that network: that
// of the interface, unless it is virtual, which another director has too.
func (p *Plane) exits(now map[int]device) map[int]exit {
	all := make(map[int]exit, len(now))
	for index, d := range now {
		at := d
		for range len(now) {
			if below, ok := now[at.lower]; ok && isVirtual(macOf(at)) {
				at = below
			}
		}
		all[index] = exit{mac: macOf(at), lan: lanOf(index, now, p.owns)}
	}
	return all
}

// isVirtual says whether an address is that of a virtual router: 00-00-5E-00-01-VRID, over IPv6 00-00-5E-00-02-VRID.
func isVirtual(m lb.MAC) bool {
	return m[0] == 0 && m[1] == 0 && m[2] == 0x5e && m[3] == 0 && (m[4] == 1 || m[4] == 2)
}
