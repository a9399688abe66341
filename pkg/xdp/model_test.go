package xdp

import (
	"encoding/binary"
	"math"
	"net/netip"
	"slices"
	"time"

	"github.com/xdirector/xdirector/pkg/lb"
)

// model is what the documentation says that the programs do, in plain Go. It shares nothing with them but the schedules of
// pkg/lb, and leaves out adverts, virtual MAC addresses, limits, the flood guard and the schedulers that count connections.
type model struct {
	interfaces map[int]device
	state      lb.State
	servers    map[lb.ServerKey]*modelServer
	now        time.Duration
	flows      map[modelTuple]*modelFlow
	clients    map[modelClient]*modelBinding
	fragments  map[modelFragmented]*modelNote
	turns      map[lb.ServiceKey]uint64
	rings      map[lb.ServiceKey][2][]int // in turn or by hash, and what has no turn
}

// modelServer is a real server as long as it is in the state: one that goes and comes back is another one.
type modelServer struct {
	key lb.ServerKey
	lb.RealServer
}

func (s *modelServer) live() bool { return s != nil && s.Up && s.NextHop.Known() }

type modelTuple struct {
	from, to netip.AddrPort
	protocol lb.Protocol
}

type modelPhase int

const (
	opening modelPhase = iota
	established
	closing
	datagrams
)

type modelFlow struct {
	server  *modelServer
	phase   modelPhase
	expires time.Duration
}

type modelClient struct {
	scope  string
	prefix netip.Prefix
}

type modelBinding struct {
	server  *modelServer
	expires time.Duration
}

type modelFragmented struct {
	from, to netip.Addr
	id       uint32
	protocol lb.Protocol // 0 on IPv6
}

type modelNote struct {
	outcome modelOutcome
	expires time.Duration
}

// modelOutcome is what becomes of a frame.
type modelOutcome struct {
	verdict, reason string
	server          *modelServer
}

func modelPass(verdict string) modelOutcome { return modelOutcome{verdict: verdict} }

func modelDrop(reason string) modelOutcome { return modelOutcome{verdict: "drop", reason: reason} }

func newModel(interfaces []device) *model {
	m := &model{interfaces: map[int]device{}}
	for _, i := range interfaces {
		m.interfaces[i.Index] = i
	}
	m.forget()
	return m
}

// forget is as the function of this name for a plane.
func (m *model) forget() {
	m.flows, m.clients = map[modelTuple]*modelFlow{}, map[modelClient]*modelBinding{}
	m.fragments, m.turns = map[modelFragmented]*modelNote{}, map[lb.ServiceKey]uint64{}
}

func (m *model) apply(s lb.State) {
	servers := map[lb.ServerKey]*modelServer{}
	m.rings = map[lb.ServiceKey][2][]int{}
	turns := map[lb.ServiceKey]uint64{}
	for _, service := range s.Services {
		turns[service.Key] = m.turns[service.Key]
		m.rings[service.Key] = [2][]int{lb.Schedule(service), lb.Unscheduled(service)}
		for _, r := range service.RealServers {
			key := lb.ServerKey{Service: service.Key, Address: r.Address}
			servers[key] = m.servers[key]
			if servers[key] == nil {
				servers[key] = &modelServer{key: key}
			}
			servers[key].RealServer = r
		}
	}
	for key, gone := range m.servers {
		if servers[key] == nil {
			gone.Up = false
		}
	}
	m.state, m.servers, m.turns = s, servers, turns
}

// modelPacket is one packet of a flow, and the frame around it.
type modelPacket struct {
	destination, source lb.MAC
	own                 lb.MAC // of the interface that it is for
	modelTuple
	sender netip.Addr // who sent the frame; of an error not the client
	flags  byte
}

func (p *modelPacket) opens() bool  { return p.flags&(syn|ack) == syn }
func (p *modelPacket) begins() bool { return p.protocol == lb.UDP || p.opens() }
func (p *modelPacket) closes() bool { return p.flags&(fin|rst) != 0 }

// service is the one of the longest prefix that the packet is in, and of those of the fewest ports.
func (m *model) service(t modelTuple) *lb.Service {
	var best *lb.Service
	for i := range m.state.Services {
		s := &m.state.Services[i]
		first, last := s.Key.Ports()
		if s.Key.Protocol != t.protocol || !s.Key.Prefix().Contains(t.to.Addr()) || t.to.Port() < first || t.to.Port() > last {
			continue
		}
		if best == nil || s.Key.Prefix().Bits() > best.Key.Prefix().Bits() {
			best = s
			continue
		}
		bestFirst, bestLast := best.Key.Ports()
		if s.Key.Prefix().Bits() == best.Key.Prefix().Bits() && last-first < bestLast-bestFirst {
			best = s
		}
	}
	return best
}

func (m *model) virtual(a netip.Addr) bool {
	return slices.ContainsFunc(m.state.Services, func(s lb.Service) bool { return s.Key.Prefix().Contains(a) })
}

// balanced says that the frame came from a box that has already decided, and not from that box as a client.
func (m *model) balanced(p *modelPacket, of *lb.Service) bool {
	accused := false
	for _, d := range m.state.Directors {
		if d.MAC != p.source {
			continue
		}
		if d.Address == p.sender {
			return false
		}
		accused = true
	}
	for _, s := range m.state.Services {
		for _, r := range s.RealServers {
			if r.NextHop.Local || !r.NextHop.Known() || r.NextHop.MAC != p.source {
				continue
			}
			if r.Address == p.sender {
				return false
			}
			accused = accused || of != nil && s.Key == of.Key
		}
	}
	return accused
}

// rule is the forwarding rule; empty: the packet may be balanced.
func (m *model) rule(p *modelPacket, of *lb.Service) string {
	switch {
	case p.destination != p.own:
		return "pass_other_mac"
	case m.balanced(p, of):
		return "pass_balanced"
	}
	return ""
}

func (m *model) timeout(s *lb.Service, phase modelPhase) time.Duration {
	switch phase {
	case opening:
		return s.Timeouts.Opening
	case established:
		return s.Timeouts.Established
	case closing:
		return s.Timeouts.Closing
	}
	return s.Timeouts.UDP
}

// decide balances a packet of TCP or UDP.
func (m *model) decide(p *modelPacket) modelOutcome {
	s := m.service(p.modelTuple)
	if s == nil {
		return modelPass("pass_not_ours")
	}
	if verdict := m.rule(p, s); verdict != "" {
		return modelPass(verdict)
	}
	flow := m.flows[p.modelTuple]
	if flow != nil && flow.expires > m.now && flow.server.live() && !(p.opens() && (flow.phase == closing || flow.server.Failed)) {
		switch {
		case p.closes():
			flow.phase = closing
		case flow.phase == opening && !p.opens():
			flow.phase = established
		}
		flow.expires = m.now + m.timeout(s, flow.phase)
		if bound := m.bound(p, s); bound == nil || bound == flow.server {
			m.bind(p, s, flow.server)
		}
		return modelOutcome{server: flow.server}
	}
	return m.begin(p, s)
}

func (m *model) begin(p *modelPacket, s *lb.Service) modelOutcome {
	switch {
	case p.flags&rst != 0:
		return modelDrop("no_flow")
	case !p.begins() && s.RefuseUnknown:
		return modelPass("pass_refused")
	}
	server := m.bound(p, s)
	if server == nil {
		server = m.schedule(p, s, p.begins())
	}
	switch {
	case server == nil && p.opens():
		return modelPass("pass_refused")
	case server == nil:
		return modelDrop("no_real_server")
	}
	phase := opening
	if p.protocol == lb.UDP {
		phase = datagrams
	}
	m.flows[p.modelTuple] = &modelFlow{server: server, phase: phase, expires: m.now + m.timeout(s, phase)}
	m.bind(p, s, server)
	return modelOutcome{server: server}
}

func (m *model) schedule(p *modelPacket, s *lb.Service, hasTurn bool) *modelServer {
	ring, place := m.rings[s.Key][0], modelHash(p.from.Addr())
	if hasTurn && !s.Scheduler.Hashes() {
		place = m.turns[s.Key]
		m.turns[s.Key]++
	} else if fallback := m.rings[s.Key][1]; len(fallback) > 0 {
		ring = fallback
	}
	if len(ring) == 0 {
		return nil
	}
	return m.servers[lb.ServerKey{Service: s.Key, Address: s.RealServers[ring[place%uint64(len(ring))]].Address}]
}

// modelHash is the same on every director.
func modelHash(a netip.Addr) uint64 {
	mix := func(h uint64) uint64 {
		h = (h ^ h>>33) * 0xff51afd7ed558ccd
		h = (h ^ h>>33) * 0xc4ceb9fe1a85ec53
		return h ^ h>>33
	}
	var b [16]byte
	copy(b[:], a.AsSlice())
	lower, upper := binary.LittleEndian.Uint64(b[:]), binary.LittleEndian.Uint64(b[8:])
	if upper != 0 {
		lower ^= mix(upper)
	}
	return mix(lower)
}

func (m *model) client(p *modelPacket, s *lb.Service) modelClient {
	bits := int(s.PersistenceBits)
	if bits == 0 {
		bits = math.MaxInt8
	}
	prefix, _ := p.from.Addr().Prefix(min(bits, p.from.Addr().BitLen()))
	if s.Group != "" {
		return modelClient{scope: "group " + s.Group, prefix: prefix}
	}
	return modelClient{scope: s.Key.String(), prefix: prefix}
}

// bound is the live server that the client has in this service.
func (m *model) bound(p *modelPacket, s *lb.Service) *modelServer {
	binding := m.clients[m.client(p, s)]
	if s.Persistence == 0 || binding == nil || binding.expires <= m.now || m.servers[binding.server.key] != binding.server {
		return nil
	}
	server := m.servers[lb.ServerKey{Service: s.Key, Address: binding.server.key.Address}]
	if !server.live() {
		return nil
	}
	return server
}

func (m *model) bind(p *modelPacket, s *lb.Service, server *modelServer) {
	if s.Persistence > 0 {
		m.clients[m.client(p, s)] = &modelBinding{server: server, expires: m.now + s.Persistence}
	}
}

// decideError places an error about a packet that a real server has sent: p is the client's side of that flow.
func (m *model) decideError(p *modelPacket) modelOutcome {
	s := m.service(p.modelTuple)
	if s == nil {
		return modelPass("pass_not_ours")
	}
	if verdict := m.rule(p, s); verdict != "" {
		return modelPass(verdict)
	}
	if flow := m.flows[p.modelTuple]; flow != nil && flow.expires > m.now && flow.server.live() {
		return modelOutcome{server: flow.server}
	}
	if s.RefuseUnknown {
		return modelDrop("no_flow")
	}
	server := m.bound(p, s)
	if server == nil {
		server = m.schedule(p, s, false)
	}
	if server == nil {
		return modelDrop("no_real_server")
	}
	return modelOutcome{server: server}
}

// noteFirst remembers what was done with a first fragment.
func (m *model) noteFirst(p *modelPacket, id uint32, outcome modelOutcome) {
	if outcome.verdict == "drop" || outcome.verdict == "pass_other_mac" || !m.virtual(p.to.Addr()) {
		return
	}
	m.fragments[p.fragmented(id)] = &modelNote{outcome: outcome, expires: m.now + 30*time.Second}
}

func (p *modelPacket) fragmented(id uint32) modelFragmented {
	key := modelFragmented{from: p.from.Addr(), to: p.to.Addr(), id: id}
	if key.to.Is4() {
		key.protocol = p.protocol
	}
	return key
}

func (m *model) decideLater(p *modelPacket, id uint32, offset int) modelOutcome {
	if !m.virtual(p.to.Addr()) {
		return modelPass("pass_not_ours")
	}
	note := m.fragments[p.fragmented(id)]
	if note != nil && note.expires <= m.now {
		note = nil
	}
	var of *lb.Service
	known := note != nil
	if known && note.outcome.server != nil {
		known = note.outcome.server.live()
		if i := slices.IndexFunc(m.state.Services, func(s lb.Service) bool { return s.Key == note.outcome.server.key.Service }); known && i >= 0 {
			of = &m.state.Services[i]
		}
	}
	switch verdict := m.rule(p, of); {
	case verdict != "":
		return modelPass(verdict)
	case !known:
		return modelDrop("fragment")
	case p.protocol == lb.TCP && offset < 20:
		return modelDrop("fragment_short")
	}
	return note.outcome
}

// frameOf is the frame as it is sent to a server.
func (m *model) frameOf(frame []byte, server *modelServer) []byte {
	rest, control := frame[12:], -1
	if binary.BigEndian.Uint16(rest) == 0x8100 {
		control, rest = int(binary.BigEndian.Uint16(rest[2:])), rest[4:]
	}
	out := m.interfaces[server.NextHop.Interface]
	sent := slices.Concat(server.NextHop.MAC[:], out.HardwareAddr)
	if out.vlan != 0 {
		sent = binary.BigEndian.AppendUint16(append(sent, 0x81, 0), uint16(max(0, control))&0xf000|uint16(out.vlan))
	}
	return append(sent, rest...)
}
