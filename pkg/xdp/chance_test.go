package xdp

import (
	"bytes"
	"net/netip"
	"testing"
	"time"

	"github.com/xdirector/xdirector/pkg/lb"
)

// handedOver is a plane that knows one flow, on the router of its address, before or after a handover.
func handedOver(t *testing.T, previous lb.MAC, index int, left time.Duration, change func(*lb.Service)) *Plane {
	t.Helper()
	web := service(webKey, server(1), server(2))
	if change != nil {
		change(&web)
	}
	s := state(web, service(dnsKey, server(1)))
	s.Routers = testRouters()
	for i := range s.Routers {
		if s.Routers[i].Name == "v3" {
			s.Routers[i].Addresses = []netip.Addr{vip}
		}
	}
	p := newTestPlane(t, s)
	sentTo(t, p, packet{flags: syn, fromPort: 1})
	openFastPath(t, p).SecondChance(p.Slots()["v3"], previous, index, monotonic()+left)
	return p
}

func TestWhatASuccessorDoesNotKnowGoesToTheMasterBeforeIt(t *testing.T) {
	unknown := packet{flags: ack, fromPort: 2}
	for _, row := range []struct {
		name   string
		packet packet
		left   time.Duration
		index  int
		change func(*lb.Service)
		given  bool
	}{
		{name: "unknown flow", packet: unknown, left: time.Minute, index: eth0Index, given: true},
		{name: "end of an unknown flow", packet: packet{flags: fin | ack, fromPort: 2}, left: time.Minute, index: eth0Index, given: true},
		{name: "reset of an unknown flow", packet: packet{flags: rst, fromPort: 2}, left: time.Minute, index: eth0Index, given: true},
		{name: "where the unknown is refused", packet: unknown, left: time.Minute, index: eth0Index, change: func(s *lb.Service) { s.RefuseUnknown = true }, given: true},
		{name: "SYN", packet: packet{flags: syn, fromPort: 2}, left: time.Minute, index: eth0Index},
		{name: "UDP", packet: packet{protocol: lb.UDP, toPort: 53}, left: time.Minute, index: eth0Index},
		{name: "known flow", packet: packet{flags: ack, fromPort: 1}, left: time.Minute, index: eth0Index},
		{name: "too late", packet: unknown, left: -time.Second, index: eth0Index},
		{name: "on another interface", packet: unknown, left: time.Minute, index: eth1Index},
		{name: "from another director", packet: packet{flags: ack, fromPort: 2, source: peerMAC}, left: time.Minute, index: eth0Index},
	} {
		t.Run(row.name, func(t *testing.T) {
			p := handedOver(t, peerMAC, row.index, row.left, row.change)
			before := counters(t, p)
			frame := row.packet.bytes()
			action, out := run(t, p, frame)
			given := action == xdpTX && lb.MAC(out[:6]) == peerMAC
			if given != row.given {
				t.Fatalf("action %d, to %s, want it given on: %v", action, lb.MAC(out[:6]), row.given)
			}
			if !given {
				return
			}
			if lb.MAC(out[6:12]) != eth0MAC || !bytes.Equal(out[12:], frame[12:]) {
				t.Errorf("sent\n%x, got\n%x", out, frame)
			}
			after := counters(t, p)
			if after.Interfaces["eth0"].Verdicts["to_previous_master"]-before.Interfaces["eth0"].Verdicts["to_previous_master"] != 1 ||
				after.FlowTable.Flows != before.FlowTable.Flows {
				t.Errorf("before %+v, after %+v", before, after)
			}
		})
	}
}

func TestTheMasterBeforeLooksUpWhatItsSuccessorSendsAndSchedulesNothing(t *testing.T) {
	for _, row := range []struct {
		name   string
		packet packet
		left   time.Duration
		change func(*lb.Service)
		action uint32
	}{
		{name: "known flow", packet: packet{flags: ack, fromPort: 1}, left: time.Minute, action: xdpTX},
		{name: "unknown flow", packet: packet{flags: ack, fromPort: 2}, left: time.Minute, action: xdpDrop},
		{name: "SYN", packet: packet{flags: syn, fromPort: 1}, left: time.Minute, action: xdpPass},
		{name: "known flow, too late", packet: packet{flags: ack, fromPort: 1}, left: -time.Second, action: xdpPass},
		{name: "known flow, this box is a server too", packet: packet{flags: ack, fromPort: 1}, left: time.Minute, action: xdpPass, change: func(s *lb.Service) {
			s.RealServers = append(s.RealServers, lb.RealServer{Address: serverAddress(5), Weight: 1, Up: true, NextHop: lb.NextHop{Local: true}})
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			p := handedOver(t, lb.MAC{}, 0, row.left, row.change)
			row.packet.source = peerMAC
			before := counters(t, p).FlowTable.Flows
			action, out := run(t, p, row.packet.bytes())
			if action != row.action {
				t.Fatalf("action %d, want %d", action, row.action)
			}
			if action == xdpTX && lb.MAC(out[:6]) != serverMAC(1) {
				t.Errorf("sent to %s", lb.MAC(out[:6]))
			}
			if after := counters(t, p).FlowTable.Flows; after != before {
				t.Errorf("%d flows before, %d after", before, after)
			}
		})
	}
}

// Two directors that each take the other for the one before, and a third one for a real server: nothing goes round.
func TestASecondChanceIsTheLast(t *testing.T) {
	p := handedOver(t, peerMAC, eth0Index, time.Minute, nil)
	action, out := run(t, p, packet{flags: ack, fromPort: 2}.bytes())
	if action != xdpTX {
		t.Fatalf("action %d", action)
	}
	// As the other one gets it, who has the same wrong idea: it comes from a director.
	copy(out[:6], eth0MAC[:])
	copy(out[6:12], peerMAC[:])
	if action, _ := run(t, p, out); action != xdpPass {
		t.Errorf("the second one answers with action %d, want it to go no further", action)
	}
}
