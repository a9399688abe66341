package xdp

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/xdirector/xdirector/pkg/lb"
)

const (
	icmp4, icmp6 = lb.Protocol(1), lb.Protocol(58)

	hopByHop, routingHeader, fragmentHeader, destinationOptions = 0, 43, 44, 60
)

var vip101 = netip.MustParseAddr("10.0.0.101")

// answer is what a real server sends to the usual client, or the beginning of it; p has what is unusual.
func answer(p packet) packet {
	p.to, p.from = orDefault(p.to, client), orDefault(p.from, vip)
	if p.from.Is6() && p.to == client {
		p.to = client6
	}
	p.fromPort, p.toPort = orDefault(p.fromPort, 80), orDefault(p.toPort, 40000)
	return p
}

// icmpAbout is the message of an ICMP error: so many bytes of the packet it is about.
func icmpAbout(kind byte, quoted packet, length int) []byte {
	b := quoted.bytes()[14:]
	return append([]byte{kind, 0, 0, 0, 0, 0, 0, 0}, b[:min(length, len(b))]...)
}

// failure is an error about what a real server has sent, with as much of it as RFC 792 asks for, or RFC 4443; p has what is unusual
// about the frame.
func failure(kind byte, quoted packet, p packet) packet {
	quoted = answer(quoted)
	p.from, p.to, p.protocol = orDefault(p.from, peer), orDefault(p.to, quoted.from), icmp4
	length := 28
	if quoted.from.Is6() {
		length, p.protocol = 1200, icmp6
		if p.from == peer {
			p.from = client6.Next()
		}
	}
	if p.data == nil {
		p.data = icmpAbout(kind, quoted, length)
	}
	return p
}

func option(number byte, units int) header {
	return header{number, append([]byte{byte(units)}, make([]byte, 6+8*units)...)}
}

func routing(kind, left byte) header {
	return header{routingHeader, append([]byte{2, kind, left}, make([]byte, 4+16)...)}
}

// fragment6 is the header of a fragment; the offset is in bytes.
func fragment6(offset uint16, more bool, id uint32) header {
	b := binary.BigEndian.AppendUint16([]byte{0}, offset|uint16(b2n(more)))
	return header{fragmentHeader, binary.BigEndian.AppendUint32(b, id)}
}

// first6 and later6 are fragments of the same packet; p has what is unusual.
func first6(p packet) packet {
	p.to = orDefault(p.to, vip6)
	p.headers = append([]header{fragment6(0, true, orDefault(p.id, 7))}, p.headers...)
	return p
}

func later6(p packet) packet {
	p.to, p.data = orDefault(p.to, vip6), make([]byte, 64)
	p.headers = []header{fragment6(1440, false, orDefault(p.id, 7))}
	return p
}

func first4(p packet) packet {
	p.fragment, p.id = moreFragments, orDefault(p.id, 7)
	return p
}

func later4(p packet) packet {
	p.fragment, p.id, p.data = orDefault(p.fragment, 185), orDefault(p.id, 7), make([]byte, 64)
	return p
}

// nine is an earlier flow, after which server 2 has its turn.
var nine = packet{flags: syn, fromPort: 9}

var rareTable = slices.Concat(errorTable, fragmentTable, headerTable)

var errorTable = []packetRow{
	{name: "destination unreachable, known flow", packet: failure(3, packet{}, packet{}), before: []packet{nine, {flags: syn}}, verdict: "tx", server: 2, egress: eth0MAC},
	{name: "time exceeded, known flow", packet: failure(11, packet{}, packet{}), before: []packet{nine, {flags: syn}}, verdict: "tx", server: 2, egress: eth0MAC},
	{name: "parameter problem, known flow", packet: failure(12, packet{}, packet{}), before: []packet{nine, {flags: syn}}, verdict: "tx", server: 2, egress: eth0MAC},
	{name: "IPv6 destination unreachable, known flow", packet: failure(1, packet{from: vip6}, packet{}), before: six(nine, packet{flags: syn}), verdict: "tx", server: 2, egress: eth0MAC},
	{name: "IPv6 packet too big, known flow", packet: failure(2, packet{from: vip6, payload: 200}, packet{}), before: six(nine, packet{flags: syn}), verdict: "tx", server: 2, egress: eth0MAC},
	{name: "IPv6 time exceeded, known flow", packet: failure(3, packet{from: vip6}, packet{}), before: six(nine, packet{flags: syn}), verdict: "tx", server: 2, egress: eth0MAC},
	{name: "IPv6 parameter problem, known flow", packet: failure(4, packet{from: vip6}, packet{}), before: six(nine, packet{flags: syn}), verdict: "tx", server: 2, egress: eth0MAC},
	{name: "error about UDP", packet: failure(3, packet{protocol: lb.UDP, fromPort: 53}, packet{}), verdict: "tx", server: 1, egress: eth0MAC},
	{name: "error about an unknown flow", packet: failure(3, packet{fromPort: 82}, packet{}), verdict: "redirect", server: 3, egress: eth1MAC},
	{name: "error about a flow in a range of ports", packet: failure(3, packet{from: vip101, fromPort: 8042}, packet{}), verdict: "tx", server: 2, egress: eth0MAC},
	{name: "error about an unknown flow, which its service refuses", packet: failure(3, packet{fromPort: 88}, packet{}), verdict: "drop", reason: "no_flow"},
	{name: "error about a known flow, where unknown ones are refused", packet: failure(3, packet{fromPort: 88}, packet{}), before: []packet{{toPort: 88, flags: syn}},
		verdict: "tx", server: 1, egress: eth0MAC},
	{name: "error while no server is live", packet: failure(3, packet{fromPort: 83}, packet{}), verdict: "drop", reason: "no_real_server"},
	{name: "error about a denied client", packet: failure(3, packet{fromPort: 86, to: peer}, packet{}), verdict: "drop", reason: "denied"},
	{name: "error about an allowed client", packet: failure(3, packet{fromPort: 86}, packet{}), verdict: "tx", server: 1, egress: eth0MAC},
	{name: "error about this box", packet: failure(3, packet{fromPort: 81}, packet{}), verdict: "pass_local"},
	{name: "error with a tag", packet: failure(3, packet{}, packet{vlan: 10, destination: vlan10MAC}), before: []packet{nine, {flags: syn}}, verdict: "tx", server: 2, egress: eth0MAC, seenOn: "eth0.10"},
	{name: "flooded error", packet: failure(3, packet{}, packet{destination: serverMAC(9)}), verdict: "pass_other_mac"},
	{name: "error from another director", packet: failure(3, packet{}, packet{source: peerMAC, from: client}), verdict: "pass_balanced"},
	{name: "error that another director made", packet: failure(3, packet{fromPort: 82}, packet{source: peerMAC, from: peer}), verdict: "redirect", server: 3, egress: eth1MAC},
	{name: "error from a next hop of the service", packet: failure(3, packet{}, packet{source: serverMAC(1), from: client}), verdict: "pass_balanced"},
	{name: "error that a next hop made", packet: failure(3, packet{fromPort: 82}, packet{source: serverMAC(3), from: serverAddress(3)}), verdict: "redirect", server: 3, egress: eth1MAC},
	{name: "error with IP options", packet: failure(3, packet{fromPort: 82}, packet{options: make([]byte, 40)}), verdict: "redirect", server: 3, egress: eth1MAC},
	{name: "error about a packet with IP options", packet: failure(3, packet{}, packet{data: icmpAbout(3, answer(packet{fromPort: 82, options: make([]byte, 40)}), 68)}),
		verdict: "redirect", server: 3, egress: eth1MAC},
	{name: "IPv6 error behind options", packet: failure(2, packet{from: vip6}, packet{headers: []header{option(hopByHop, 0)}}), before: six(nine, packet{flags: syn}),
		verdict: "tx", server: 2, egress: eth0MAC},
	{name: "error about an IPv6 packet with options", packet: failure(2, packet{from: vip6, headers: []header{option(destinationOptions, 2)}}, packet{}), before: six(nine, packet{flags: syn}),
		verdict: "tx", server: 2, egress: eth0MAC},
	{name: "error about a first fragment", packet: failure(3, packet{fromPort: 82, fragment: moreFragments}, packet{}), verdict: "redirect", server: 3, egress: eth1MAC},
	{name: "error about an IPv6 first fragment", packet: failure(2, packet{from: vip6, headers: []header{fragment6(0, true, 1)}}, packet{}), before: six(nine, packet{flags: syn}),
		verdict: "tx", server: 2, egress: eth0MAC},

	{name: "echo request", packet: packet{protocol: icmp4, data: make([]byte, 64)[:8:8]}, verdict: "pass_not_ours"},
	{name: "echo request to a virtual address", packet: packet{protocol: icmp4, data: icmpAbout(8, answer(packet{}), 28)}, verdict: "pass_not_ours"},
	{name: "IPv6 echo request to a virtual address", packet: packet{to: vip6, protocol: icmp6, data: icmpAbout(128, answer(packet{from: vip6}), 60)}, verdict: "pass_not_ours"},
	{name: "neighbour solicitation", packet: packet{to: vip6, protocol: icmp6, data: icmpAbout(135, answer(packet{from: vip6}), 60)}, verdict: "pass_not_ours"},
	{name: "source quench", packet: failure(4, packet{}, packet{}), before: []packet{{flags: syn}}, verdict: "pass_not_ours"},
	{name: "ICMP redirect", packet: failure(5, packet{}, packet{}), before: []packet{{flags: syn}}, verdict: "pass_not_ours"},
	{name: "error about what another address sent", packet: failure(3, packet{from: vip}, packet{to: vip101}), verdict: "pass_not_ours"},
	{name: "error about what the client sent", packet: failure(3, packet{from: client, to: vip, fromPort: 40000, toPort: 80}, packet{to: vip}), verdict: "pass_not_ours"},
	{name: "error about another port", packet: failure(3, packet{fromPort: 8080}, packet{}), verdict: "pass_not_ours"},
	{name: "error about another protocol", packet: failure(3, packet{protocol: 132}, packet{}), verdict: "pass_not_ours"},
	{name: "error about a later fragment", packet: failure(3, packet{fragment: 185}, packet{}), verdict: "pass_not_ours"},
	{name: "error about an IPv6 later fragment", packet: failure(2, packet{from: vip6, headers: []header{fragment6(1440, false, 1)}}, packet{}), verdict: "pass_not_ours"},
	{name: "error that is a fragment", packet: failure(3, packet{}, packet{fragment: moreFragments}), verdict: "pass_not_ours"},
	{name: "half an ICMP header", packet: failure(3, packet{}, packet{data: []byte{3, 4, 0, 0}}), verdict: "pass_not_ours"},
	{name: "error about half an IP header", packet: failure(3, packet{}, packet{data: icmpAbout(3, answer(packet{}), 19)}), verdict: "pass_not_ours"},
	{name: "error that ends in the ports", packet: failure(3, packet{}, packet{data: icmpAbout(3, answer(packet{}), 23)}), verdict: "pass_not_ours"},
	{name: "error whose ports are padding", packet: failure(3, packet{}, packet{claims: -8}), verdict: "pass_not_ours"},
	{name: "error that quotes no more than it claims", packet: failure(3, packet{claims: -20}, packet{}), verdict: "pass_not_ours"},
	{name: "error about another version of IP", packet: failure(3, packet{version: 6}, packet{}), verdict: "pass_not_ours"},
	{name: "error about a header that is too short", packet: failure(3, packet{}, packet{data: shortHeader()}), verdict: "pass_not_ours"},
	{name: "IPv6 error about IPv4", packet: failure(2, packet{from: vip6, version: 4}, packet{}), verdict: "pass_not_ours"},
	{name: "error about more IPv6 headers than anybody needs", packet: failure(2, packet{from: vip6, headers: slices.Repeat([]header{option(destinationOptions, 0)}, 7)}, packet{}),
		verdict: "pass_not_ours"},
}

// shortHeader is an error about a packet whose header says that it has 16 bytes.
func shortHeader() []byte {
	b := icmpAbout(3, answer(packet{}), 28)
	b[8] = 0x44
	return b
}

// six is the same packets on IPv6.
func six(packets ...packet) []packet {
	for i := range packets {
		packets[i].to = vip6
	}
	return packets
}

var fragmentTable = []packetRow{
	{name: "later fragment of another's", packet: later4(packet{to: peer}), verdict: "pass_not_ours"},
	{name: "first fragment of another port", packet: first4(packet{toPort: 8080}), verdict: "pass_not_ours"},
	{name: "later fragment of another port", packet: later4(packet{}), before: []packet{first4(packet{toPort: 8080})}, verdict: "pass_not_ours"},
	{name: "later fragment of a ping", packet: later4(packet{protocol: icmp4}), verdict: "pass_not_ours"},
	{name: "first fragment of a ping", packet: first4(packet{protocol: icmp4}), verdict: "pass_not_ours"},
	{name: "short first fragment of another port", packet: first4(packet{toPort: 8080, cut: 14 + 20 + 8}), verdict: "pass_not_ours"},
	{name: "first fragment of another's that ends in the ports", packet: first4(packet{to: peer, cut: 14 + 20 + 3}), verdict: "pass_not_ours"},

	{name: "first fragment", packet: first4(packet{flags: syn}), verdict: "tx", server: 1, egress: eth0MAC},
	{name: "first fragment, known flow", packet: first4(packet{flags: ack}), before: []packet{nine, {flags: syn}}, verdict: "tx", server: 2, egress: eth0MAC},
	{name: "first fragment behind IP options", packet: first4(packet{flags: syn, options: make([]byte, 40)}), verdict: "tx", server: 1, egress: eth0MAC},
	{name: "first fragment without a flow", packet: first4(packet{flags: rst}), verdict: "drop", reason: "no_flow"},
	{name: "later fragment", packet: later4(packet{}), before: []packet{nine, first4(packet{flags: syn})}, verdict: "tx", server: 2, egress: eth0MAC},
	{name: "later fragment with more to come", packet: later4(packet{fragment: moreFragments | 185}), before: []packet{nine, first4(packet{flags: syn})}, verdict: "tx", server: 2, egress: eth0MAC},
	{name: "later fragment with IP options", packet: later4(packet{options: make([]byte, 8)}), before: []packet{nine, first4(packet{flags: syn})}, verdict: "tx", server: 2, egress: eth0MAC},
	{name: "later fragment with a tag", packet: later4(packet{vlan: 10, destination: vlan10MAC}), before: []packet{nine, first4(packet{flags: syn, vlan: 10, destination: vlan10MAC})}, verdict: "tx", server: 2, egress: eth0MAC, seenOn: "eth0.10"},
	{name: "later fragment of UDP", packet: later4(packet{protocol: lb.UDP, fragment: 1}), before: []packet{first4(packet{protocol: lb.UDP, toPort: 53})}, verdict: "tx", server: 1, egress: eth0MAC},
	{name: "later fragment to a server behind another interface", packet: later4(packet{}), before: []packet{first4(packet{flags: syn, toPort: 82})}, verdict: "redirect", server: 3, egress: eth1MAC},
	{name: "later fragment to a network", packet: later4(packet{to: netip.MustParseAddr("10.9.8.7")}), before: []packet{first4(packet{to: netip.MustParseAddr("10.9.8.7"), flags: syn})},
		verdict: "tx", server: 2, egress: eth0MAC},
	{name: "later fragment, this box is the server", packet: later4(packet{}), before: []packet{first4(packet{flags: syn, toPort: 81})}, verdict: "pass_local"},
	{name: "later fragment of a refused one", packet: later4(packet{}), before: []packet{first4(packet{flags: syn, toPort: 83})}, verdict: "pass_refused"},
	{name: "later fragment of a dropped one", packet: later4(packet{}), before: []packet{first4(packet{flags: ack, toPort: 83})}, verdict: "drop", reason: "fragment"},
	{name: "later fragment follows the newest first one", packet: later4(packet{}), before: []packet{first4(nine), first4(packet{flags: syn})}, verdict: "tx", server: 2, egress: eth0MAC},
	{name: "fragment ahead of its first", packet: later4(packet{}), verdict: "drop", reason: "fragment"},
	{name: "later fragment with another id", packet: later4(packet{id: 8}), before: []packet{first4(packet{flags: syn})}, verdict: "drop", reason: "fragment"},
	{name: "later fragment from another client", packet: later4(packet{from: peer}), before: []packet{first4(packet{flags: syn})}, verdict: "drop", reason: "fragment"},
	{name: "later fragment of another protocol", packet: later4(packet{protocol: lb.UDP}), before: []packet{first4(packet{flags: syn})}, verdict: "drop", reason: "fragment"},
	{name: "later fragment to another virtual address", packet: later4(packet{to: vip101}), before: []packet{first4(packet{flags: syn})}, verdict: "drop", reason: "fragment"},
	{name: "later fragment, a packet too many", packet: later4(packet{}), before: []packet{{flags: syn, toPort: 87}, first4(packet{flags: ack, toPort: 87}), {flags: ack, toPort: 87}},
		verdict: "drop", reason: "rate_packets"},
	{name: "flooded first fragment is not noted", packet: later4(packet{}), before: []packet{first4(packet{flags: syn, destination: serverMAC(9)})}, verdict: "drop", reason: "fragment"},
	{name: "flooded later fragment", packet: later4(packet{destination: serverMAC(9)}), before: []packet{first4(packet{flags: syn})}, verdict: "pass_other_mac"},
	{name: "balanced later fragment", packet: later4(packet{source: peerMAC}), before: []packet{first4(packet{source: peerMAC, flags: syn})}, verdict: "pass_balanced"},
	{name: "later fragment from another director", packet: later4(packet{source: peerMAC}), before: []packet{first4(packet{flags: syn})}, verdict: "pass_balanced"},
	{name: "later fragment from a next hop of the service", packet: later4(packet{source: serverMAC(1)}), before: []packet{first4(packet{flags: syn})}, verdict: "pass_balanced"},
	{name: "first fragment that ends in the ports", packet: first4(packet{cut: 14 + 20 + 3}), verdict: "drop", reason: "fragment_short"},
	{name: "first fragment that ends after the ports", packet: first4(packet{flags: syn, cut: 14 + 20 + 8}), verdict: "drop", reason: "fragment_short"},
	{name: "first fragment that ends after the ports, behind options", packet: first4(packet{options: make([]byte, 40), flags: syn, cut: 14 + 60 + 8}), verdict: "drop", reason: "fragment_short"},
	{name: "first fragment that ends after the ports, with padding", packet: first4(packet{flags: syn, claims: -32, payload: 20}), verdict: "drop", reason: "fragment_short"},
	{name: "first fragment of UDP that ends in its header", packet: first4(packet{protocol: lb.UDP, toPort: 53, claims: -1}), verdict: "drop", reason: "fragment_short"},
	{name: "flooded short first fragment", packet: first4(packet{destination: serverMAC(9), cut: 14 + 20 + 8}), verdict: "pass_other_mac"},
	{name: "short first fragment from another director", packet: first4(packet{source: peerMAC, cut: 14 + 20 + 8}), verdict: "pass_balanced"},
	{name: "later fragment over the flags", packet: later4(packet{fragment: 1}), before: []packet{first4(packet{flags: syn})}, verdict: "drop", reason: "fragment_short"},
	{name: "later fragment over the end of the header", packet: later4(packet{fragment: 2}), before: []packet{first4(packet{flags: syn})}, verdict: "drop", reason: "fragment_short"},
	{name: "later fragment right behind the header", packet: later4(packet{fragment: 3}), before: []packet{first4(packet{flags: syn})}, verdict: "tx", server: 1, egress: eth0MAC},

	{name: "IPv6 first fragment", packet: first6(packet{flags: syn}), verdict: "tx", server: 1, egress: eth0MAC},
	{name: "IPv6 first fragment with options behind it", packet: first6(packet{flags: syn, headers: []header{option(destinationOptions, 1)}}), verdict: "tx", server: 1, egress: eth0MAC},
	{name: "IPv6 fragment that is the whole packet", packet: packet{to: vip6, flags: syn, headers: []header{fragment6(0, false, 7)}}, verdict: "tx", server: 1, egress: eth0MAC},
	{name: "IPv6 fragment behind one that was the whole packet", packet: later6(packet{}), before: []packet{{to: vip6, flags: syn, headers: []header{fragment6(0, false, 7)}}}, verdict: "drop", reason: "fragment"},
	{name: "IPv6 later fragment", packet: later6(packet{}), before: append(six(nine), first6(packet{flags: syn})), verdict: "tx", server: 2, egress: eth0MAC},
	{name: "IPv6 later fragment with another next header", packet: later6(packet{protocol: destinationOptions}), before: append(six(nine), first6(packet{flags: syn})), verdict: "tx", server: 2, egress: eth0MAC},
	{name: "IPv6 fragment ahead of its first", packet: later6(packet{}), verdict: "drop", reason: "fragment"},
	{name: "IPv6 later fragment with another id", packet: later6(packet{id: 7 << 16}), before: []packet{first6(packet{flags: syn})}, verdict: "drop", reason: "fragment"},
	{name: "IPv6 later fragment of another's", packet: later6(packet{to: client6, from: vip6}), verdict: "pass_not_ours"},
	{name: "IPv6 later fragment of a ping", packet: later6(packet{protocol: icmp6}), verdict: "pass_not_ours"},
	{name: "IPv6 later fragment of a ping with options", packet: later6(packet{protocol: destinationOptions}),
		before: []packet{first6(packet{protocol: icmp6, headers: []header{option(destinationOptions, 0)}, data: make([]byte, 64)})}, verdict: "pass_not_ours"},
	{name: "IPv6 short first fragment", packet: first6(packet{flags: syn, claims: -12}), verdict: "drop", reason: "fragment_short"},
	{name: "fragment of a fragment", packet: first6(packet{flags: syn, headers: []header{fragment6(0, true, 8)}}), verdict: "pass_not_ours"},
}

var headerTable = []packetRow{
	{name: "hop-by-hop options", packet: packet{to: vip6, flags: syn, headers: []header{option(hopByHop, 0)}}, verdict: "tx", server: 1, egress: eth0MAC},
	{name: "long options", packet: packet{to: vip6, flags: syn, headers: []header{option(destinationOptions, 100)}}, verdict: "tx", server: 1, egress: eth0MAC},
	{name: "options, known flow", packet: packet{to: vip6, flags: ack, headers: []header{option(destinationOptions, 0)}}, before: six(nine, packet{flags: syn}), verdict: "tx", server: 2, egress: eth0MAC},
	{name: "routing header of type 0 that is done with", packet: packet{to: vip6, flags: syn, headers: []header{routing(0, 0)}}, verdict: "tx", server: 1, egress: eth0MAC},
	{name: "routing header of type 0 with a segment left", packet: packet{to: vip6, flags: syn, headers: []header{routing(0, 1)}}, verdict: "pass_not_ours"},
	{name: "routing header of segments with one left", packet: packet{to: vip6, flags: syn, headers: []header{routing(4, 1)}}, verdict: "pass_not_ours"},
	{name: "six headers", packet: packet{to: vip6, flags: syn, headers: slices.Repeat([]header{option(destinationOptions, 0)}, 6)}, verdict: "tx", server: 1, egress: eth0MAC},
	{name: "seven headers", packet: packet{to: vip6, flags: syn, headers: slices.Repeat([]header{option(destinationOptions, 0)}, 7)}, verdict: "drop", reason: "headers"},
	{name: "seven headers, another's", packet: packet{to: client6, flags: syn, headers: slices.Repeat([]header{option(destinationOptions, 0)}, 7)}, verdict: "pass_not_ours"},
	{name: "seven headers, flooded", packet: packet{to: vip6, destination: serverMAC(9), headers: slices.Repeat([]header{option(destinationOptions, 0)}, 7)}, verdict: "pass_other_mac"},
	{name: "seven headers, from another director", packet: packet{to: vip6, source: peerMAC, headers: slices.Repeat([]header{option(destinationOptions, 0)}, 7)}, verdict: "pass_balanced"},
	{name: "options that end behind the packet", packet: packet{to: vip6, headers: []header{option(destinationOptions, 9)}, cut: 14 + 40 + 60}, verdict: "pass_not_ours"},
	{name: "half a header of options", packet: packet{to: vip6, headers: []header{option(hopByHop, 0)}, cut: 14 + 40 + 7}, verdict: "pass_not_ours"},
	{name: "options and half a TCP header", packet: packet{to: vip6, headers: []header{option(hopByHop, 0)}, claims: -1}, verdict: "pass_not_ours"},
	{name: "nothing behind the options", packet: packet{to: vip6, protocol: 59, headers: []header{option(hopByHop, 0)}}, verdict: "pass_not_ours"},
	{name: "authentication header", packet: packet{to: vip6, protocol: 51}, verdict: "pass_not_ours"},
	{name: "options and another port", packet: packet{to: vip6, toPort: 81, headers: []header{option(hopByHop, 0)}}, verdict: "pass_not_ours"},
	{name: "options, from another director", packet: packet{to: vip6, source: peerMAC, flags: syn, headers: []header{option(hopByHop, 0)}}, verdict: "pass_balanced"},
}
