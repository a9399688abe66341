package xdp

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/xdirector/xdirector/pkg/lb"
)

// modelIP is an IP packet as far as its headers tell.
type modelIP struct {
	from, to       netip.Addr
	protocol       byte
	payload        []byte
	id             uint32
	offset         int
	more, fragment bool
	endless        bool
}

var extensions = []byte{hopByHop, routingHeader, fragmentHeader, destinationOptions}

// readIP understands one packet, which ends where it says or where the bytes do.
func readIP(b []byte, six bool) (ip modelIP, ok bool) {
	if six {
		return readIPv6(b)
	}
	if len(b) < 20 || b[0]>>4 != 4 {
		return ip, false
	}
	size, total := int(b[0]&15)*4, min(len(b), int(binary.BigEndian.Uint16(b[2:])))
	if size < 20 || size > total {
		return ip, false
	}
	fragment := binary.BigEndian.Uint16(b[6:])
	return modelIP{
		from: netip.AddrFrom4([4]byte(b[12:16])), to: netip.AddrFrom4([4]byte(b[16:20])), protocol: b[9], payload: b[size:total],
		id: uint32(binary.NativeEndian.Uint16(b[4:])), offset: int(fragment&0x1fff) * 8, more: fragment&moreFragments != 0, fragment: fragment&0x3fff != 0,
	}, true
}

func readIPv6(b []byte) (ip modelIP, ok bool) {
	if len(b) < 40 || b[0]>>4 != 6 {
		return ip, false
	}
	ip = modelIP{from: netip.AddrFrom16([16]byte(b[8:24])), to: netip.AddrFrom16([16]byte(b[24:40])), protocol: b[6]}
	ip.payload = b[40:min(len(b), 40+int(binary.BigEndian.Uint16(b[4:])))]
	for n := 0; slices.Contains(extensions, ip.protocol) && ip.offset == 0; n++ {
		if n == 6 {
			ip.endless = true
			break
		}
		h := ip.payload
		if len(h) < 8 {
			return ip, false
		}
		size := 8
		switch {
		case ip.protocol == fragmentHeader && ip.fragment, ip.protocol == routingHeader && h[3] > 0:
			return ip, false
		case ip.protocol == fragmentHeader:
			field := binary.BigEndian.Uint16(h[2:])
			ip.offset, ip.more, ip.id = int(field&^7), field&1 != 0, binary.NativeEndian.Uint32(h[4:])
			ip.fragment = ip.more || ip.offset > 0
		default:
			size += int(h[1]) * 8
		}
		if len(h) < size {
			return ip, false
		}
		ip.protocol, ip.payload = h[0], h[size:]
	}
	return ip, true
}

// judge says what becomes of a frame on eth0, and changes the model accordingly.
func (m *model) judge(frame []byte) modelOutcome {
	nothing := modelPass("pass_not_ours")
	in := m.interfaces[eth0Index]
	kind, rest := binary.BigEndian.Uint16(frame[12:]), frame[14:]
	if kind == 0x8100 {
		if len(rest) < 4 {
			return nothing
		}
		vlan := int(binary.BigEndian.Uint16(rest) & 0xfff)
		kind, rest = binary.BigEndian.Uint16(rest[2:]), rest[4:]
		if vlan != 0 {
			if vlan != 10 {
				return nothing
			}
			in = m.interfaces[vlan10Index]
		}
	}
	if kind != 0x0800 && kind != 0x86dd {
		return nothing
	}
	six := kind == 0x86dd
	whole := rest
	if !rareOnWire(rest, six) { // there, the length in the header is not looked at
		whole = slices.Clone(rest)
		if len(whole) >= 20 {
			at := map[bool]int{false: 2, true: 4}[six]
			binary.BigEndian.PutUint16(whole[at:], 0xffff)
		}
	}
	ip, read := readIP(whole, six)
	if !read {
		return nothing
	}
	p := &modelPacket{destination: lb.MAC(frame[:6]), source: lb.MAC(frame[6:]), own: lb.MAC(in.HardwareAddr), sender: ip.from}
	p.from, p.to, p.protocol = netip.AddrPortFrom(ip.from, 0), netip.AddrPortFrom(ip.to, 0), lb.Protocol(ip.protocol)
	outcome := m.judgeIP(p, ip)
	if ip.fragment && ip.offset == 0 && !ip.endless {
		m.noteFirst(p, ip.id, outcome)
	}
	return outcome
}

// rareOnWire says that more than the fixed headers has to be read.
func rareOnWire(b []byte, six bool) bool {
	switch {
	case six:
		return len(b) >= 40 && (b[6] == 58 || slices.Contains(extensions, b[6]))
	case len(b) < 20:
		return false
	}
	return b[9] == 1 || binary.BigEndian.Uint16(b[6:])&0x3fff != 0
}

func (m *model) judgeIP(p *modelPacket, ip modelIP) modelOutcome {
	nothing := modelPass("pass_not_ours")
	ported := p.protocol == lb.TCP || p.protocol == lb.UDP
	dropped := func(reason string) modelOutcome {
		if !m.virtual(ip.to) {
			return nothing
		}
		if verdict := m.rule(p, nil); verdict != "" {
			return modelPass(verdict)
		}
		return modelDrop(reason)
	}
	switch {
	case ip.endless:
		return dropped("headers")
	case ip.offset > 0:
		if !ported && !slices.Contains(extensions, ip.protocol) {
			return nothing
		}
		return m.decideLater(p, ip.id, ip.offset)
	case ip.protocol == 1 && ip.to.Is4() || ip.protocol == 58 && ip.to.Is6():
		return m.judgeICMP(p, ip)
	case !ported:
		return nothing
	}
	size := map[lb.Protocol]int{lb.TCP: 20, lb.UDP: 8}[p.protocol]
	if len(ip.payload) >= 4 {
		p.setPorts(ip.payload)
	}
	if len(ip.payload) < size {
		if !ip.fragment || len(ip.payload) >= 4 && m.service(p.modelTuple) == nil {
			return nothing
		}
		return dropped("fragment_short")
	}
	if p.protocol == lb.TCP {
		p.flags = ip.payload[13]
	}
	return m.decide(p)
}

func (p *modelPacket) setPorts(b []byte) {
	p.from = netip.AddrPortFrom(p.from.Addr(), binary.BigEndian.Uint16(b))
	p.to = netip.AddrPortFrom(p.to.Addr(), binary.BigEndian.Uint16(b[2:]))
}

func (m *model) judgeICMP(p *modelPacket, ip modelIP) modelOutcome {
	nothing := modelPass("pass_not_ours")
	if ip.fragment || len(ip.payload) < 8 {
		return nothing
	}
	errors := []byte{3, 11, 12}
	if ip.to.Is6() {
		errors = []byte{1, 2, 3, 4}
	}
	quoted, read := readIP(ip.payload[8:], ip.to.Is6())
	ported := quoted.protocol == byte(lb.TCP) || quoted.protocol == byte(lb.UDP)
	if !slices.Contains(errors, ip.payload[0]) || !read || quoted.endless || quoted.offset > 0 || !ported || len(quoted.payload) < 4 || quoted.from != ip.to {
		return nothing
	}
	about := *p
	about.protocol = lb.Protocol(quoted.protocol)
	about.from = netip.AddrPortFrom(quoted.to, binary.BigEndian.Uint16(quoted.payload[2:]))
	about.to = netip.AddrPortFrom(quoted.from, binary.BigEndian.Uint16(quoted.payload))
	return m.decideError(&about)
}
