package director

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/xdirector/xdirector/pkg/config"
	"github.com/xdirector/xdirector/pkg/control"
	"github.com/xdirector/xdirector/pkg/ha"
	"github.com/xdirector/xdirector/pkg/ipvs"
	"github.com/xdirector/xdirector/pkg/lb"
	"github.com/xdirector/xdirector/pkg/packet"
	"github.com/xdirector/xdirector/pkg/status"
	"github.com/xdirector/xdirector/pkg/vrrp"
)

// explainer is what an explanation needs of the director, at one moment. Explaining takes its time, and not the loop's.
type explainer struct {
	cfg       *config.Config
	plane     plane
	dry       dryPlane // nil: no XDP plane
	instances []ha.InstanceReport
}

// dryPlane is the part of xdp.Plane that explains.
type dryPlane interface {
	Explain(iface string, frame []byte) (lb.Explanation, error)
	Arrival(iface string) (mac lb.MAC, vlan uint16, ok bool)
}

const (
	anyPort = 40000 // of a client that is asked about without one
	nearest = 3     // so many services are named to who has mistaken one

	shortestFrame, longestFrame = 14, 16 << 10 // bytes that the kernel runs a program on
)

// clientMAC is where the frames that we make up come from: no box has it.
var clientMAC = lb.MAC{0x02, 0x78, 0x64, 0x00, 0x00, 0x01}

// Explain says what becomes of a packet, or of frames, and why. It changes nothing.
func (d *Director) Explain(ctx context.Context, q control.Question) ([]status.Explanation, error) {
	var e explainer
	err := d.command(ctx, func() error {
		e = explainer{cfg: d.cfg, plane: d.plane, instances: d.report.Instances}
		e.dry, _ = d.plane.Plane.(dryPlane)
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(q.Frames) > 0 {
		return e.frames(ctx, q)
	}
	one, err := e.packet(q)
	if err != nil {
		return nil, err
	}
	return []status.Explanation{one}, nil
}

// frames explains what was captured, each frame for itself.
func (e explainer) frames(ctx context.Context, q control.Question) ([]status.Explanation, error) {
	if e.dry == nil {
		return nil, fmt.Errorf("there is no XDP plane here to run frames through: %s", e.plane.reason)
	}
	iface := q.Interface
	if iface == "" {
		iface = e.cfg.Dataplane.Interfaces[0]
	}
	var list []status.Explanation
	for _, frame := range q.Frames {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		p, unread := packet.Parse(frame)
		if len(frame) < shortestFrame || len(frame) > longestFrame {
			list = append(list, status.Explanation{Answer: fmt.Sprintf("a frame of %d bytes can't be run: %d to %d are possible", len(frame), shortestFrame, longestFrame)})
			continue
		}
		x, err := e.dry.Explain(iface, frame)
		if err != nil {
			return nil, err
		}
		one := e.picture(x)
		one.Packet, one.Frame = describe(p), x.Frame
		if unread != nil {
			one.Packet = fmt.Sprintf("a frame of %d bytes from %s to %s", len(frame), lb.MAC(p.Source), lb.MAC(p.Destination))
		}
		one.Describe()
		list = append(list, one)
	}
	return list, nil
}

// packet explains one that a client would send.
func (e explainer) packet(q control.Question) (status.Explanation, error) {
	p := packet.Packet{From: q.From, To: q.To, Protocol: packet.TCP, Flags: packet.SYN}
	switch q.Kind {
	case "", "syn":
	case "ack":
		p.Flags = packet.ACK
	case "udp":
		p.Protocol, p.Flags = packet.UDP, 0
	default:
		return status.Explanation{}, fmt.Errorf("no kind of packets is called %q: there are syn, ack, udp", q.Kind)
	}
	if p.From.Addr().Is4() != p.To.Addr().Is4() {
		return status.Explanation{}, fmt.Errorf("%s and %s are not of one family", p.From.Addr(), p.To.Addr())
	}
	service, ok := e.service(p)
	if !ok && q.Kind == "" {
		udp := p
		udp.Protocol, udp.Flags = packet.UDP, 0
		if service, ok = e.service(udp); ok {
			p = udp
		}
	}
	if !ok {
		return status.Explanation{}, e.unknown(p)
	}
	var notes []string
	if p.From.Port() == 0 {
		p.From = netip.AddrPortFrom(p.From.Addr(), anyPort)
		notes = append(notes, fmt.Sprintf("no port of the client was given: %d is tried; %s:PORT asks about a connection that is there", anyPort, p.From.Addr()))
	}
	iface, master := e.arrival(p.To.Addr())
	notes = append(notes, master...)
	var one status.Explanation
	var err error
	if on := planeOf(service, e.plane.name); on.IsXDP() && e.dry != nil {
		one, err = e.onXDP(p, q.Interface, iface)
	} else {
		one, err = e.onIPVS(p, service, on)
	}
	if err != nil {
		return one, err
	}
	one.Packet = describe(p)
	one.Notes = append(one.Notes, notes...)
	one.Describe()
	return one, nil
}

// onXDP runs the packet through the copy of the program, on the interface that was asked for, or the one that it likely comes by.
func (e explainer) onXDP(p packet.Packet, asked, likely string) (status.Explanation, error) {
	iface := cmp.Or(asked, likely)
	mac, vlan, ok := e.dry.Arrival(iface)
	if !ok && asked != "" {
		return status.Explanation{}, fmt.Errorf("no packets are balanced on interface %q: there are %s", asked, strings.Join(e.cfg.Dataplane.Interfaces, ", "))
	}
	if !ok { // the address is on an interface without a program
		iface = e.cfg.Dataplane.Interfaces[0]
		mac, vlan, _ = e.dry.Arrival(iface)
	}
	p.Destination, p.Source, p.VLAN = mac, clientMAC, vlan
	x, err := e.dry.Explain(iface, p.Frame())
	if err != nil {
		return status.Explanation{}, err
	}
	return e.picture(x), nil
}

// onIPVS says what is known of a packet of a service that the kernel balances.
func (e explainer) onIPVS(p packet.Packet, service config.Service, on lb.Plane) (status.Explanation, error) {
	one := status.Explanation{Plane: string(on), Service: service.Name, Scheduler: string(service.Scheduler), Verdict: string(lb.IPVS)}
	if on != lb.IPVS || e.plane.Plane == nil {
		return one, fmt.Errorf("service %s is on no plane now: xdirector status says why", service.Name)
	}
	c, known, err := ipvs.FindConnection(service.Protocol, p.From, p.To)
	switch {
	case err != nil:
		return one, err
	case !known:
		one.Notes = []string{fmt.Sprintf("it has no connection there yet: scheduler %s of the kernel chooses the real server, and can't be asked beforehand", service.Scheduler)}
		return one, nil
	case c.Persistence:
		one.Why = lb.WhyPersistence
	default:
		one.Why = lb.WhyFlow
		one.Flow = &status.KnownFlow{State: c.State, Left: c.Left.Seconds(), RealServer: c.RealServer.Addr().String()}
	}
	one.RealServer = c.RealServer.Addr().String()
	return one, nil
}

// picture is an explanation in the names of the configuration.
func (e explainer) picture(x lb.Explanation) status.Explanation {
	one := status.Explanation{
		Interface: x.Interface, Plane: string(e.plane.name), Verdict: x.Verdict, Drop: x.Drop, Advert: x.Advert, Why: x.Why,
		Place: x.Place, Places: x.Places, Stored: x.Stored, Flooded: x.Flooded,
	}
	for _, s := range e.cfg.Services {
		if s.Key() == x.Service {
			one.Service, one.Scheduler = s.Name, string(s.Scheduler)
		}
	}
	if x.RealServer.IsValid() {
		one.RealServer = x.RealServer.String()
	}
	switch hop := x.NextHop; {
	case hop.Local:
		one.NextHop = &status.NextHop{Local: true}
	case !hop.MAC.IsZero():
		one.NextHop = &status.NextHop{Interface: hop.Interface, VLAN: hop.VLAN, MAC: hop.MAC.String(), SourceMAC: hop.Source.String()}
	}
	if f := x.Flow; f != nil {
		one.Flow = &status.KnownFlow{State: f.Phase, Left: f.Left.Seconds()}
		if f.RealServer.IsValid() {
			one.Flow.RealServer = f.RealServer.String()
		}
	}
	return one
}

// service is the one that a packet is for: of those that could have it the one with the fewest addresses, then ports.
func (e explainer) service(p packet.Packet) (best config.Service, ok bool) {
	ports := func(s config.Service) int { first, last := s.Key().Ports(); return int(last) - int(first) }
	for _, s := range e.cfg.Services {
		key := s.Key()
		first, last := key.Ports()
		if key.Mark != 0 || uint8(key.Protocol) != p.Protocol || !key.Prefix().Contains(p.To.Addr()) || p.To.Port() < first || p.To.Port() > last {
			continue
		}
		narrower := key.Prefix().Bits() - best.Key().Prefix().Bits()
		if !ok || narrower > 0 || narrower == 0 && ports(s) < ports(best) {
			best, ok = s, true
		}
	}
	return best, ok
}

// unknown is the error about a virtual address or port that no service has.
func (e explainer) unknown(p packet.Packet) error {
	services := slices.Clone(e.cfg.Services)
	asked := p.To.String()
	away := func(s config.Service) int {
		key := s.Key()
		distance := config.Distance(asked, strings.TrimPrefix(key.String(), key.Protocol.String()+" "))
		if key.Prefix().Contains(p.To.Addr()) {
			distance /= 2
		}
		return distance
	}
	slices.SortStableFunc(services, func(a, b config.Service) int { return away(a) - away(b) })
	var list []string
	for _, s := range services[:min(nearest, len(services))] {
		list = append(list, fmt.Sprintf("%s (%s)", s.Key(), s.Name))
	}
	protocol := lb.Protocol(p.Protocol)
	if len(list) == 0 {
		return fmt.Errorf("no service %w", control.ErrUnknown)
	}
	return fmt.Errorf("no service at %s %s %w; the nearest: %s", protocol, p.To, control.ErrUnknown, strings.Join(list, ", "))
}

// arrival says by which interface packets to a virtual address come, and what is to be known if they don't come here.
func (e explainer) arrival(address netip.Addr) (iface string, notes []string) {
	for _, i := range e.cfg.Instances {
		holds := slices.ContainsFunc(i.Held(), func(v config.VirtualAddress) bool { return v.Prefix.Addr() == address })
		if !holds {
			continue
		}
		for _, r := range e.instances {
			if r.Name != i.Name || r.State == vrrp.Master {
				continue
			}
			note := fmt.Sprintf("this director is %s of %s: packets to %s go to another one", r.State, i.Name, address)
			if r.Master.IsValid() {
				note = fmt.Sprintf("this director is %s of %s: packets to %s go to %s, which is MASTER", r.State, i.Name, address, r.Master)
			}
			notes = append(notes, note)
		}
		return i.Interface, notes
	}
	return "", []string{fmt.Sprintf("no instance holds %s: packets come here only if a router sends them", address)}
}

// describe says in plain words what a packet is.
func describe(p packet.Packet) string {
	kind := p.Kind()
	article := "a"
	switch kind[0] {
	case 'A', 'F', 'I', 'R': // as they are spoken
		article = "an"
	}
	if p.Protocol == packet.TCP {
		return fmt.Sprintf("%s %s from %s to tcp %s", article, kind, p.From, p.To)
	}
	if p.Protocol == packet.UDP {
		return fmt.Sprintf("a UDP packet from %s to udp %s", p.From, p.To)
	}
	return fmt.Sprintf("%s %s packet from %s to %s", article, kind, p.From.Addr(), p.To.Addr())
}
