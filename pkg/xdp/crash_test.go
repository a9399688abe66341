package xdp

import (
	"fmt"
	"testing"

	"github.com/xdirector/xdirector/pkg/lb"
)

// servers is a set of server numbers.
type servers map[int]bool

// crashRow says who may get the packets of a service: while the agent is dead, and after the next one has applied. A
// nil set means that the service isn't there, and its packets pass.
type crashRow struct {
	name        string
	packet      func(n int) packet
	dead, alive servers
}

func TestAgentThatDiesAtAnyStepOfApplySendsNothingAstrayAndTheNextOneCompletesIt(t *testing.T) {
	tls := lb.ServiceKey{Address: vip, Port: 443, Protocol: lb.TCP}
	fresh := lb.ServiceKey{Address: vip, Port: 8443, Protocol: lb.TCP}
	before := state(persistent(service(webKey, server(1), server(2), server(3))), service(dnsKey, server(1), server(4)), service(tls, server(5)))
	after := func() lb.State {
		return state(service(fresh, server(7), server(1)), persistent(service(webKey, server(6), downServer(3), server(2))), service(tls, server(8)))
	}
	rows := []crashRow{
		{"known flow", func(n int) packet { return packet{flags: ack, from: serverAddress(100 + n)} },
			servers{1: true, 2: true, 3: true, 6: true}, servers{2: true, 6: true}},
		{"known client", func(n int) packet { return packet{flags: syn, from: serverAddress(100 + n), fromPort: 2000} },
			servers{1: true, 2: true, 3: true, 6: true}, servers{2: true, 6: true}},
		{"new client", func(n int) packet { return packet{flags: syn, from: serverAddress(200 + n)} },
			servers{1: true, 2: true, 3: true, 6: true}, servers{2: true, 6: true}},
		{"all servers exchanged", func(n int) packet { return packet{flags: syn, toPort: 443, fromPort: uint16(1000 + n)} },
			servers{5: true, 8: true}, servers{8: true}},
		{"new service", func(n int) packet { return packet{flags: syn, toPort: 8443, fromPort: uint16(1000 + n)} },
			servers{1: true, 7: true}, servers{1: true, 7: true}},
		{"removed service", func(n int) packet { return packet{protocol: lb.UDP, toPort: 53, fromPort: uint16(1000 + n)} },
			servers{1: true, 4: true}, nil},
	}
	for step := 0; ; step++ {
		p := newTestPlane(t, before)
		for n := range 6 {
			sentTo(t, p, rows[0].packet(n))
			sentTo(t, p, rows[5].packet(n))
		}
		steps := cutShort(t, p, after(), step)
		checkCrash(t, p, fmt.Sprintf("dead after step %d", step), rows, func(r crashRow) (servers, bool) {
			return r.dead, r.name == "new service" || r.name == "removed service"
		})
		p = reopen(t, p, nil)
		apply(t, p, after())
		checkCrash(t, p, fmt.Sprintf("completed after step %d", step), rows, func(r crashRow) (servers, bool) { return r.alive, r.alive == nil })
		if services, ids := len(p.tables.freeServices), len(p.tables.freeServers); services != 16383-3 || ids != 32767-6 {
			t.Errorf("completed after step %d: %d service ids and %d server ids are free, want %d and %d", step, services, ids, 16383-3, 32767-6)
		}
		if step == steps {
			return
		}
	}
}

// cutShort applies only the first steps, and returns how many there are.
func cutShort(t *testing.T, p *Plane, s lb.State, n int) int {
	t.Helper()
	macs, err := p.refreshInterfaces()
	if err != nil {
		t.Fatal(err)
	}
	w, err := newWish(s, p.tables, macs)
	if err != nil {
		t.Fatal(err)
	}
	steps := p.steps(w, macs)
	for _, step := range steps[:n] {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	return len(steps)
}

func checkCrash(t *testing.T, p *Plane, when string, rows []crashRow, allowed func(crashRow) (_ servers, mayPass bool)) {
	t.Helper()
	for _, row := range rows {
		to, mayPass := allowed(row)
		for n := range 6 {
			action, out := run(t, p, row.packet(n).bytes())
			if action == xdpPass && mayPass {
				continue
			}
			if action != xdpTX || !to[int(out[5])] {
				t.Errorf("%s: %s %d: action %d to server %d, allowed %v", when, row.name, n, action, out[5], to)
			}
		}
	}
	if verdicts := counters(t, p).Interfaces["eth0"].Verdicts; verdicts["pass_refused"] > 0 || verdicts["drop"] > 0 {
		t.Errorf("%s: verdicts %v, want no packet refused or dropped: a service pointed at nothing", when, verdicts)
	}
}
